//! Relays and meters behind Modbus TCP that take the time of every coil write.
//!
//! One blocking thread per connection: the time is taken as soon as the request is in memory.

use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Relays of the one board.
pub(crate) const RELAYS: u8 = 8;
/// Modbus TCP: transaction, protocol, length, unit.
const HEADER: usize = 7;
/// The register of an Eastron meter that counts kWh, and what it shows.
const ENERGY: u16 = 72;
const ENERGY_KWH: f32 = 1_234.5;
const SERIAL: u16 = 0xFC00;

/// A relay was told to close or to open.
pub(crate) struct CoilWrite {
    pub(crate) on: bool,
    pub(crate) at: Instant,
}

type Relays = Arc<Mutex<[bool; RELAYS as usize]>>;

/// A room that is served until the process ends.
pub(crate) struct Room {
    pub(crate) address: SocketAddr,
    writes: Receiver<CoilWrite>,
    relays: Relays,
}

impl Room {
    pub(crate) fn serve() -> io::Result<Room> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (written, writes) = channel();
        let relays = Relays::default();
        let served = Arc::clone(&relays);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (relays, written) = (Arc::clone(&served), written.clone());
                thread::spawn(move || converse(stream, &relays, &written));
            }
        });
        Ok(Room { address, writes, relays })
    }

    /// Relays that are closed now.
    pub(crate) fn closed(&self) -> usize {
        let relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        relays.iter().filter(|on| **on).count()
    }

    /// Waits for a relay to be closed.
    pub(crate) fn next_closed(&self, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let write = self.writes.recv_timeout(left).ok()?;
            if write.on {
                return Some(write.at);
            }
        }
    }

    /// Forgets what was written before.
    pub(crate) fn forget(&self) {
        while self.writes.try_recv().is_ok() {}
    }
}

fn converse(mut stream: TcpStream, relays: &Relays, written: &Sender<CoilWrite>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut frame = [0; 260];
    loop {
        let read = stream.read(&mut frame).ok().filter(|read| *read >= HEADER + 5)?;
        let at = Instant::now();
        let pdu = &frame[HEADER..read];
        let word = |from: usize| u16::from_be_bytes([pdu[from], pdu[from + 1]]);
        let (function, address, value) = (pdu[0], word(1), word(3));
        let answer = match function {
            1 => vec![1, 1, coils(relays, address, value)],
            3 | 4 => registers(function, address, value),
            5 => {
                let on = value == 0xFF00;
                let mut relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
                relays[usize::from(address)] = on;
                // Nobody listens any more when the bench is over.
                let _ = written.send(CoilWrite { on, at });
                pdu.to_vec()
            }
            _ => vec![function | 0x80, 1],
        };
        let mut reply = frame[..HEADER].to_vec();
        reply[5] = answer.len() as u8 + 1;
        reply.extend(answer);
        stream.write_all(&reply).ok()?;
    }
}

fn coils(relays: &Relays, address: u16, count: u16) -> u8 {
    let relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
    let read = relays.iter().skip(usize::from(address)).take(usize::from(count)).enumerate();
    read.fold(0, |byte, (bit, on)| byte | u8::from(*on) << bit)
}

/// Meters show energy and a serial number, no power, else zeros.
fn registers(function: u8, address: u16, count: u16) -> Vec<u8> {
    let words = (address..address.saturating_add(count)).flat_map(|at| {
        let energy = ENERGY_KWH.to_bits();
        let word = match at {
            ENERGY => energy >> 16,
            at if at == ENERGY + 1 => energy & 0xFFFF,
            at if at == SERIAL + 1 => 1,
            _ => 0,
        };
        (word as u16).to_be_bytes()
    });
    [function, (count * 2) as u8].into_iter().chain(words).collect()
}
