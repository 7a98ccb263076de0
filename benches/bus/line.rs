//! A serial line at 9600 baud with a relay board or two and 16 meters on it, at true speed: a pty
//! behind which every byte takes its time, and every device thinks before it answers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Start bit, eight data bits, parity, stop bit.
pub(crate) const BYTE: Duration = Duration::from_nanos(11 * 1_000_000_000 / BAUD as u64);
pub(crate) const BAUD: u32 = 9_600;
/// Between an answer and the next request: 3.5 characters.
pub(crate) const SILENCE: Duration = Duration::from_nanos(BYTE.as_nanos() as u64 * 7 / 2);
/// What a device takes to answer (good meters take 10 to 40 ms).
pub(crate) const LATENCY: Duration = Duration::from_millis(20);
/// All requests of this bench are that long.
const REQUEST: usize = 8;
/// Modbus's number of it.
pub(crate) const WRITE_COIL: u8 = 5;
/// The machine that simulates the line may be late by this without harm.
const LATE: Duration = Duration::from_millis(1);
/// Between two looks how late it is.
const WATCH: Duration = Duration::from_millis(3);
/// Sleeping is exact to some 100 µs; the rest is spun.
const SPIN: Duration = Duration::from_micros(200);

/// One request on the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) unit: u8,
    pub(crate) function: u8,
    /// Its first register or coil.
    pub(crate) first: u8,
    /// Its first bit.
    pub(crate) begun: Instant,
    /// Its last bit: here a relay acts.
    pub(crate) asked: Instant,
    /// The answer's last bit; `None` where nobody answers.
    pub(crate) answered: Option<Instant>,
    /// Bytes of request and answer.
    pub(crate) bytes: usize,
}

impl Turn {
    /// What the line and the device need for it: bytes, latency and the silence of 3.5 characters
    /// after the answer. That after the request lies within the latency.
    pub(crate) fn least(&self) -> Duration {
        BYTE * self.bytes as u32 + LATENCY + SILENCE
    }
}

/// What went over the line.
#[derive(Default)]
struct Record {
    turns: Vec<Turn>,
    /// From when to when the machine was too slow for the simulation: what was measured then tells
    /// nothing of a master.
    late: Vec<(Instant, Instant)>,
}

/// The line, until the program ends.
pub(crate) struct Line {
    pub(crate) port: PathBuf,
    record: Arc<Mutex<Record>>,
    /// So that the far end never hangs up between two masters.
    _open: File,
}

impl Line {
    /// Units 1 and 2 are relay boards, 11 to 26 meters; those in `dead` never answer.
    pub(crate) fn new(dead: Vec<u8>) -> Line {
        let (far, open, port) = pty();
        let record: Arc<Mutex<Record>> = Arc::default();
        let log = Arc::clone(&record);
        std::thread::spawn(move || run(far, &dead, &log));
        let watched = Arc::downgrade(&record);
        std::thread::spawn(move || watch(&watched));
        Line { port, record, _open: open }
    }

    /// All that went over the line since `from`.
    pub(crate) fn turns(&self, from: Instant) -> Vec<Turn> {
        let record = self.record.lock().expect("not poisoned");
        record.turns.iter().filter(|turn| turn.begun >= from).copied().collect()
    }

    /// How long altogether the simulation was late between these moments.
    pub(crate) fn late(&self, from: Instant, to: Instant) -> Duration {
        let record = self.record.lock().expect("not poisoned");
        let within = |(begun, ended): &(Instant, Instant)| {
            (*ended).min(to).saturating_duration_since((*begun).max(from))
        };
        record.late.iter().map(within).sum()
    }

    /// The first coil that is written from `from` on, once all of its request was on the line.
    pub(crate) fn written(&self, from: Instant) -> Option<Turn> {
        self.turns(from).into_iter().find(|turn| turn.function == WRITE_COIL)
    }
}

/// Both ends of a pty and the name of the near one.
fn pty() -> (File, File, PathBuf) {
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    grantpt(&far).expect("granted");
    unlockpt(&far).expect("unlocked");
    let name = ptsname(&far, Vec::new()).expect("a name");
    let port = PathBuf::from(name.to_str().expect("ASCII"));
    let near = OpenOptions::new().read(true).write(true).open(&port).expect("the near end");
    (File::from(far), near, port)
}

/// Sends bytes through a pty of its own for as long as the line is there. The kernel moves them
/// with threads of ordinary priority: on a busy machine some take milliseconds, here as there.
fn watch(record: &Weak<Mutex<Record>>) {
    let (mut far, mut near, _) = pty();
    while record.strong_count() > 0 {
        let begun = Instant::now();
        let sent = near.write_all(b"?").and_then(|()| far.read_exact(&mut [0]));
        let ended = Instant::now();
        let Some(record) = record.upgrade().filter(|_| sent.is_ok()) else { return };
        if ended > begun + LATE {
            record.lock().expect("not poisoned").late.push((begun, ended));
        }
        drop(record);
        std::thread::sleep(WATCH);
    }
}

fn run(mut line: File, dead: &[u8], log: &Mutex<Record>) {
    let mut coils = [false; 16];
    let mut heard = Vec::new();
    let mut bytes = [0; 256];
    let mut free = Instant::now();
    loop {
        let Ok(count) = line.read(&mut bytes) else { return };
        let begun = Instant::now().max(free);
        heard.extend(&bytes[..count]);
        while heard.len() >= REQUEST {
            let request: Vec<u8> = heard.drain(..REQUEST).collect();
            let unit = request[0];
            let asked = begun + BYTE * REQUEST as u32;
            sleep_until(asked, log);
            let answer = answer(&request, &mut coils);
            let silent = dead.contains(&unit) || !matches!(unit, 1 | 2 | 11..=26);
            let size = if silent { 0 } else { answer.len() };
            let answered = asked + LATENCY + BYTE * size as u32;
            log.lock().expect("not poisoned").turns.push(Turn {
                unit,
                function: request[1],
                first: request[3],
                begun,
                asked,
                answered: (!silent).then_some(answered),
                bytes: REQUEST + size,
            });
            free = asked;
            if !silent {
                sleep_until(answered, log);
                free = answered;
                if line.write_all(&answer).is_err() {
                    return;
                }
            }
        }
    }
}

fn answer(request: &[u8], coils: &mut [bool; 16]) -> Vec<u8> {
    let (unit, function) = (request[0], request[1]);
    let (first, count) = (usize::from(request[3]), usize::from(request[5]));
    let board = usize::from(unit.saturating_sub(1) % 2) * 8;
    let body = match function {
        1 => {
            let bits = (0..count.min(8)).map(|at| u8::from(coils[board + (first + at) % 8]) << at);
            vec![unit, 1, 1, bits.sum()]
        }
        WRITE_COIL => {
            coils[board + first % 8] = request[4] == 0xFF;
            request[..6].to_vec()
        }
        _ => {
            // 1234 W, and a register of 1234 kWh.
            let value = 1_234_f32.to_be_bytes();
            let words = value.into_iter().cycle().take(2 * count);
            [unit, function, 2 * request[5]].into_iter().chain(words).collect()
        }
    };
    let sum = checksum(&body);
    [body, sum.to_le_bytes().to_vec()].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc: u16, _| match crc & 1 {
            1 => crc >> 1 ^ 0xA001,
            _ => crc >> 1,
        })
    })
}

fn sleep_until(moment: Instant, log: &Mutex<Record>) {
    let left = moment.saturating_duration_since(Instant::now());
    std::thread::sleep(left.saturating_sub(SPIN));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    let now = Instant::now();
    if now > moment + LATE {
        log.lock().expect("not poisoned").late.push((moment, now));
    }
}
