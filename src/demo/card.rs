//! A virtual contactless card, with what a PC/SC reader would answer for it.
//!
//! It is a TCP client of vpcd: a connection is a card on the reader. Frames are a length of two
//! bytes, big-endian, and a payload, both ways. One byte is a signal (00 off, 01 on, 02 reset, 04
//! asks for the ATR), more is an APDU.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::linux::net::TcpStreamExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A MIFARE Classic 1K, as PC/SC readers show it.
pub const ATR_CLASSIC_1K: [u8; 20] = storage_card(0x01, 0x6A);

/// A MIFARE Ultralight.
pub const ATR_ULTRALIGHT: [u8; 20] = storage_card(0x03, 0x68);

/// A DESFire.
pub const ATR_DESFIRE: [u8; 6] = [0x3B, 0x81, 0x80, 0x01, 0x80, 0x80];

const POWER_OFF: u8 = 0x00;
const ASK_ATR: u8 = 0x04;

/// An answer that does not come by then never comes: the test fails rather than hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reader that asked for the ATR so many times has found the card, powered it and said so: it
/// asks twice when it finds the card and once at every look from then on.
const LOOKS_TO_NOTICE: usize = 4;

const fn storage_card(name: u8, check: u8) -> [u8; 20] {
    [
        0x3B, 0x8F, 0x80, 0x01, 0x80, 0x4F, 0x0C, 0xA0, 0x00, 0x00, 0x03, 0x06, 0x03, 0x00, name,
        0, 0, 0, 0, check,
    ]
}

/// What a card shows to the reader.
#[derive(Clone, Debug)]
pub struct CardFace {
    /// Its UID.
    pub uid: Vec<u8>,
    /// What the reader makes of it.
    pub atr: Vec<u8>,
    /// How its UID is answered.
    pub answer: UidAnswer,
}

/// How a reader answers GET DATA for the UID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UidAnswer {
    /// UID and 90 00.
    Plain,
    /// 6C and the length, until that length is asked for.
    WrongLength,
    /// These bytes, whatever they are.
    Bytes(Vec<u8>),
    /// None: the card leaves instead.
    Leave,
    /// UID and 90 00, but after this time.
    Late(Duration),
    /// None, as long as the card lies there.
    Never,
}

impl CardFace {
    /// A card that answers as it should.
    pub fn new(uid: &[u8], atr: &[u8]) -> CardFace {
        CardFace { uid: uid.to_vec(), atr: atr.to_vec(), answer: UidAnswer::Plain }
    }

    /// The same card with another answer for its UID.
    pub fn answering(self, answer: UidAnswer) -> CardFace {
        CardFace { answer, ..self }
    }

    /// The answer to an APDU, or `None` where the card leaves; no bytes where it keeps silent.
    fn answer_to(&self, apdu: &[u8]) -> Option<Vec<u8>> {
        match apdu {
            [0xFF, 0xCA, 0x00, _, length] => self.answer_uid(*length),
            // There is no ATS, as a Classic has no ISO 14443-4 layer.
            [0xFF, 0xCA, ..] => Some(vec![0x6A, 0x81]),
            // ACR122U: LED and buzzer (answers with the LED's state), buzzer at detection.
            [0xFF, 0x00, 0x40, ..] => Some(vec![0x90, 0x02]),
            [0xFF, 0x00, 0x52, ..] => Some(vec![0x90, 0x00]),
            [0xFF, ..] => Some(vec![0x6E, 0x00]),
            _ => Some(vec![0x6D, 0x00]),
        }
    }

    fn answer_uid(&self, length: u8) -> Option<Vec<u8>> {
        let full = [&self.uid[..], &[0x90, 0x00]].concat();
        let right = self.uid.len() as u8;
        match &self.answer {
            UidAnswer::Plain => Some(full),
            UidAnswer::WrongLength if length != right => Some(vec![0x6C, right]),
            UidAnswer::WrongLength => Some(full),
            UidAnswer::Bytes(bytes) => Some(bytes.clone()),
            UidAnswer::Leave => None,
            UidAnswer::Late(delay) => {
                thread::sleep(*delay);
                Some(full)
            }
            UidAnswer::Never => Some(Vec::new()),
        }
    }
}

/// A card on a reader; it leaves when dropped.
#[derive(Debug)]
pub struct VirtualCard {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
    apdus: Receiver<(Vec<u8>, Instant)>,
    looks: Receiver<()>,
    rest: Receiver<()>,
    /// When it was put on the reader.
    pub inserted_at: Instant,
}

impl VirtualCard {
    /// Puts a card with this UID and ATR on the reader that listens on `port`.
    pub fn insert(port: u16, uid: &[u8], atr: &[u8]) -> io::Result<VirtualCard> {
        Self::insert_face(port, CardFace::new(uid, atr))
    }

    /// Puts a card on the reader that listens on `port`.
    pub fn insert_face(port: u16, face: CardFace) -> io::Result<VirtualCard> {
        let inserted_at = Instant::now();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let served = stream.try_clone()?;
        let (apdu, apdus) = channel();
        let (look, looks) = sync_channel(LOOKS_TO_NOTICE);
        let (off, rest) = sync_channel(1);
        let record = Record { apdu, look, off };
        let thread = thread::Builder::new().name("virtual-card".into()).spawn(move || {
            // It ends when the card or the reader leaves.
            let _ = serve(&served, &face, &record);
            let _ = served.shutdown(Shutdown::Both);
        })?;
        Ok(VirtualCard { stream, thread: Some(thread), apdus, looks, rest, inserted_at })
    }

    /// Waits until the reader has reported the card as present; false where it never does. To be
    /// asked once.
    pub fn is_noticed(&self) -> bool {
        (0..LOOKS_TO_NOTICE).all(|_| self.looks.recv_timeout(PATIENCE).is_ok())
    }

    /// Waits until the card was used and then powered down; false where it never is. Leaving before
    /// that while another card waits in line can look like one card that never left: vpcd takes the
    /// next one after a power-down that fails, without telling pcscd.
    pub fn is_at_rest(&self) -> bool {
        self.rest.recv_timeout(PATIENCE).is_ok()
    }

    /// The next APDU that the card was asked since the last call, waiting for it if need be; `None`
    /// where none comes.
    pub fn next_apdu(&self) -> Option<Vec<u8>> {
        self.next_apdu_at().map(|(apdu, _)| apdu)
    }

    /// The same, with the moment at which the card answered.
    pub fn next_apdu_at(&self) -> Option<(Vec<u8>, Instant)> {
        self.apdus.recv_timeout(PATIENCE).ok()
    }

    /// The next command for LED and buzzer, waiting for it if need be.
    pub fn next_feedback(&self) -> Option<Vec<u8>> {
        std::iter::from_fn(|| self.next_apdu()).find(|apdu| apdu.starts_with(&[0xFF, 0x00, 0x40]))
    }

    /// Takes the card off the reader.
    pub fn remove(self) {}
}

impl Drop for VirtualCard {
    fn drop(&mut self) {
        // It fails only where the reader left before.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What was asked of the card.
struct Record {
    apdu: Sender<(Vec<u8>, Instant)>,
    look: SyncSender<()>,
    off: SyncSender<()>,
}

/// Answers the reader until one of the two leaves.
fn serve(mut stream: &TcpStream, face: &CardFace, record: &Record) -> io::Result<()> {
    let mut is_used = false;
    loop {
        let frame = read_frame(stream)?;
        let answer = match frame[..] {
            [ASK_ATR] => {
                // Full after the first looks: only these count.
                let _ = record.look.try_send(());
                face.atr.clone()
            }
            [POWER_OFF] if is_used => {
                // Full from the first time on.
                let _ = record.off.try_send(());
                continue;
            }
            [] | [_] => continue,
            _ => {
                is_used = true;
                let answer = face.answer_to(&frame);
                // Nobody may want to know.
                let _ = record.apdu.send((frame, Instant::now()));
                let Some(answer) = answer else { return Ok(()) };
                if answer.is_empty() {
                    continue;
                }
                answer
            }
        };
        // vpcd takes an answer of no length for a card that never answers.
        let length = (answer.len() as u16).to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat())?;
    }
}

fn read_frame(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    read_at_once(stream, &mut length)?;
    let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
    read_at_once(stream, &mut frame)?;
    Ok(frame)
}

/// Reads and acknowledges at once. vpcd sends each part as a segment of its own without
/// TCP_NODELAY: the next waits for this acknowledgement, which Linux would delay by 40 ms. The
/// option holds for one read.
fn read_at_once(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.read_exact(buffer)?;
    stream.set_quickack(true)
}
