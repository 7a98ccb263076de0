//! What arrives from a bus, for whoever throws anything at it; `demo::parsers` says what must hold.

use super::codec::{self, Part, Raw};
use super::console::request_of;
use super::frame::{Found, Framing, Listener};
use crate::config::profile::Point;
use crate::protocol::field::{BusAnswer, BusOrder};

/// What was found for a question in what arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The right answer, and the frame that it came in.
    Answer(BusAnswer, Vec<u8>),
    /// The unit's exception, and the frame that it came in.
    Exception(u8, Vec<u8>),
    /// Surely not the answer; says what it is.
    Wrong(String),
    /// No answer; says what came instead, if anything.
    Nothing(Option<String>),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whether frames have transaction numbers (TCP), else checksums (RTU, also over TCP).
    pub numbered: bool,
    /// This question's number, where frames have one.
    pub transaction: u16,
    /// Who is asked.
    pub unit: u8,
    /// What is asked of it.
    pub order: &'a BusOrder,
}

/// What is found where these pieces arrive after the question; `None` for one that is not allowed.
pub fn hear(asked: Asked<'_>, pieces: &[&[u8]]) -> Option<Heard> {
    let request = request_of(asked.order).ok()?;
    let framing = if asked.numbered { Framing::Tcp } else { Framing::Rtu };
    let mut listener = Listener::new(framing, asked.transaction, asked.unit, &request);
    let found = pieces.iter().find_map(|piece| listener.hear(piece));
    let frame = listener.found_frame(asked.transaction.to_be_bytes());
    Some(match found {
        Some(Found::Answer(answer)) => Heard::Answer(answer.into(), frame),
        Some(Found::Exception(code)) => Heard::Exception(code, frame),
        Some(Found::Wrong(what)) => Heard::Wrong(what),
        None => Heard::Nothing(listener.strange()),
    })
}

/// Watt-hours that a meter's words say; `None` for no value.
pub fn energy_wh(point: &Point, words: &[u16], exponent: Option<i64>) -> Option<i64> {
    codec::energy_wh(&[Part { point, raw: &Raw::Words(words.to_vec()), exponent }])
}

/// Milliwatts that a meter's words say; `None` for no value.
pub fn power_mw(point: &Point, words: &[u16], exponent: Option<i64>) -> Option<i64> {
    codec::power_mw(&[Part { point, raw: &Raw::Words(words.to_vec()), exponent }])
}

/// The checksum of a line's frames, over everything but itself.
pub fn checksum(bytes: &[u8]) -> u16 {
    super::frame::checksum(bytes)
}
