//! Frames: what goes around a request on a line or a connection, and how its answer is found in
//! whatever arrives.
//!
//! RTU frames carry neither a length nor a number. The right answer's unit, function and length are
//! known, so it is looked for at every byte: noise before it, an echo of the request and answers of
//! other units are passed over, and a checksum decides. TCP frames carry a transaction number:
//! those of older questions are passed over; a header that is none means that the stream is torn.

use super::pdu::{Answer, EXCEPTION, Request};

/// How frames are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// With transaction numbers.
    Tcp,
    /// Without.
    Rtu,
}

/// What arrived for a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Answer(Answer),
    Exception(u8),
    /// Surely meant for this question, and wrong; or the stream cannot be followed any more.
    Wrong(String),
}

/// Longest RTU frame. More than two of them without an answer is noise; the older half is dropped.
const MAX_RTU_FRAME: usize = 256;
const MAX_HEARD: usize = 2 * MAX_RTU_FRAME;
/// Transaction, protocol and length of a Modbus/TCP frame.
const TCP_HEADER: usize = 6;
/// What the length of a Modbus/TCP frame may say: unit, function and at least one byte more.
const TCP_LENGTH: std::ops::RangeInclusive<usize> = 3..=254;

/// CRC-16 of Modbus over serial line 1.02, section 6.2.2.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc: u16, _| match crc & 1 {
            1 => crc >> 1 ^ 0xA001,
            _ => crc >> 1,
        })
    })
}

/// Listens for the answer to one question.
#[derive(Debug)]
pub(super) struct Listener<'a> {
    framing: Framing,
    transaction: u16,
    unit: u8,
    request: &'a Request,
    heard: Vec<u8>,
    /// The last thing that came instead of the answer.
    strange: Option<String>,
    /// So many bytes at the front belong to no answer.
    passed: usize,
    /// The whole frame of what was found.
    found: Vec<u8>,
}

impl<'a> Listener<'a> {
    pub(super) fn new(
        framing: Framing,
        transaction: u16,
        unit: u8,
        request: &'a Request,
    ) -> Listener<'a> {
        let (heard, strange, found) = (Vec::new(), None, Vec::new());
        Listener { framing, transaction, unit, request, heard, strange, passed: 0, found }
    }

    /// Puts this question's own transaction number into a request's frame, and gives the one that
    /// was there. RTU frames have none.
    pub(super) fn renumber(&self, frame: &mut [u8]) -> [u8; 2] {
        match (self.framing, frame) {
            (Framing::Tcp, [high, low, ..]) => {
                let theirs = [*high, *low];
                [*high, *low] = self.transaction.to_be_bytes();
                theirs
            }
            (Framing::Tcp | Framing::Rtu, _) => [0, 0],
        }
    }

    /// The frame of what was found, with this transaction number.
    pub(super) fn found_frame(&self, number: [u8; 2]) -> Vec<u8> {
        let mut frame = self.found.clone();
        if let (Framing::Tcp, Some(place)) = (self.framing, frame.get_mut(..2)) {
            place.copy_from_slice(&number);
        }
        frame
    }

    /// Takes bytes in; something is found at most once.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Option<Found> {
        self.heard.extend(bytes);
        match self.framing {
            Framing::Tcp => self.find_by_number(),
            Framing::Rtu => self.find_by_checksum(),
        }
    }

    /// What came instead of an answer, if anything.
    pub(super) fn strange(mut self) -> Option<String> {
        if self.framing == Framing::Rtu {
            self.name_strangers();
        }
        let heard = self.heard.len();
        self.strange.or_else(|| (heard > 0).then(|| format!("{heard} bytes that are no frame")))
    }

    /// Whether a frame has begun that is not complete: what follows cannot be told apart.
    pub(super) fn is_torn(&self) -> bool {
        self.framing == Framing::Tcp && !self.heard.is_empty()
    }

    fn find_by_number(&mut self) -> Option<Found> {
        while self.heard.len() >= TCP_HEADER {
            let field = |at: usize| u16::from_be_bytes([self.heard[at], self.heard[at + 1]]);
            let (transaction, protocol, length) = (field(0), field(2), usize::from(field(4)));
            if protocol != 0 || !TCP_LENGTH.contains(&length) {
                return Some(Found::Wrong("a header that is not Modbus/TCP".into()));
            }
            if self.heard.len() < TCP_HEADER + length {
                return None;
            }
            let frame: Vec<u8> = self.heard.drain(..TCP_HEADER + length).collect();
            if transaction == self.transaction {
                let found = self.judge(frame[TCP_HEADER], &frame[TCP_HEADER + 1..]);
                self.found = frame;
                return Some(found);
            }
            self.strange = Some(format!("the answer to request {transaction}, an older one"));
        }
        None
    }

    fn judge(&self, unit: u8, pdu: &[u8]) -> Found {
        if unit != self.unit {
            return Found::Wrong(format!("unit {unit} answers"));
        }
        match *pdu {
            [function, code] if function == self.request.function() | EXCEPTION => {
                Found::Exception(code)
            }
            _ => self.request.check(pdu).map_or_else(Found::Wrong, Found::Answer),
        }
    }

    fn find_by_checksum(&mut self) -> Option<Found> {
        if self.heard.len() > MAX_HEARD {
            let surplus = self.heard.len() - MAX_RTU_FRAME;
            self.heard.drain(..surplus);
            self.passed = 0;
            self.strange = Some("noise without an end".into());
        }
        let answer = 1 + self.request.answer_length() + 2;
        for start in self.passed..self.heard.len() {
            let rest = &self.heard[start..];
            let exception = framed(rest, 5).filter(|body| {
                body[0] == self.unit && body[1] == self.request.function() | EXCEPTION
            });
            if let Some(body) = exception {
                let code = body[2];
                self.found = rest[..5].to_vec();
                return Some(Found::Exception(code));
            }
            let right = framed(rest, answer).filter(|body| body[0] == self.unit);
            if let Some(found) = right.and_then(|body| self.request.check(&body[1..]).ok()) {
                self.found = rest[..answer].to_vec();
                return Some(Found::Answer(found));
            }
        }
        // A frame may begin in what is shorter than it; all before that was looked at.
        self.passed = (self.heard.len() + 1).saturating_sub(answer.max(5));
        None
    }

    /// Finds what valid frames there are in the noise, for the message.
    fn name_strangers(&mut self) {
        for start in 0..self.heard.len() {
            let rest = &self.heard[start..];
            let values = rest.get(2).map_or(0, |count| usize::from(*count) + 5);
            let stranger = [5, 8, values].into_iter().find_map(|length| framed(rest, length));
            let Some([unit, pdu @ ..]) = stranger else { continue };
            self.strange = Some(match self.judge(*unit, pdu) {
                Found::Wrong(what) => what,
                Found::Exception(_) | Found::Answer(_) => continue,
            });
            return;
        }
    }
}

/// The first `length` bytes without their checksum, where that is right.
fn framed(bytes: &[u8], length: usize) -> Option<&[u8]> {
    let (body, sum) = bytes.get(..length)?.split_at_checked(length.checked_sub(2)?)?;
    (body.len() >= 3 && checksum(body).to_le_bytes() == sum).then_some(body)
}
