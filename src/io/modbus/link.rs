//! One connection to a bus, one request at a time, and nothing believed that is not surely the
//! answer to its question.
//!
//! - What arrives before a question is thrown away; what is not its answer is passed over until its
//!   time is up. So noise, an echo and a gateway that answers twice cost nothing.
//! - A unit that did not answer in time may still do so. TCP frames carry a number that tells. RTU
//!   frames do not, so there (also over TCP) that unit is in doubt, and asked nothing, for as long
//!   as the slowest device takes to answer. Others are asked at once: answers name their unit.
//! - A connection on which nobody answers several times in a row is opened anew, and so is a port
//!   whose link leads to another adapter than the one that is open.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::client;
use super::error::{At, BusError, OpenError};
pub(super) use super::frame::Framing;
use super::frame::{Found, Listener};
pub(super) use super::pdu::{Answer, Request};
use super::wire::{self, Opener, Wire};
use crate::config::wiring::{Bus, Transport};
use crate::core::ids::BusId;

/// First and longest pause between attempts to open a bus.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A connect attempt gets the bus's time-out, but at least what a TCP handshake with one lost
/// packet takes, and never so long that the watchdog would bark.
const CONNECT_TIMEOUT: (Duration, Duration) =
    (Duration::from_millis(1_500), Duration::from_secs(5));

/// Least time that a silent unit is in doubt on RTU (measured: after 250 ms nothing comes late).
const MIN_DOUBT: Duration = Duration::from_millis(250);

/// Longest RTU frame, for its time on the line.
const MAX_FRAME_BYTES: usize = 256;

/// Start bit, eight bits, parity or a second stop bit, stop bit.
const BITS_PER_BYTE: u32 = 11;

/// Least silence between two RTU frames: t3.5 is 1.75 ms at most speeds, USB adapters add theirs.
const MIN_RTU_GAP: Duration = Duration::from_millis(5);

/// A gateway that answers twice does so within this time: between two questions over RTU-over-TCP
/// whose answers could be taken for each other.
const TWIN_GAP: Duration = Duration::from_millis(50);

/// Behind RTU-over-TCP the line's speed is not known; most run at this one.
const ASSUMED_BAUD: u32 = 9_600;

/// So many questions in a row without an answer from anybody: the connection itself may be dead.
const DROP_AFTER: u32 = 3;

/// One question to one unit.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) unit: u8,
    /// The point it is about, for messages.
    pub(super) point: String,
    pub(super) request: Request,
    /// How long the device may think; the frames' time on a serial line comes on top.
    pub(super) timeout: Duration,
}

/// The times of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    pub(super) connect: Duration,
    /// How late an answer may come at worst.
    pub(super) doubt: Duration,
    pub(super) gap: Duration,
    pub(super) twin_gap: Duration,
    /// Of one byte on the line.
    pub(super) byte: Duration,
}

impl Pauses {
    /// What a bus needs whose slowest device answers within `slowest`.
    fn of(bus: &Bus, slowest: Duration) -> Pauses {
        let connect = slowest.clamp(CONNECT_TIMEOUT.0, CONNECT_TIMEOUT.1);
        let (baud, twin_gap) = match &bus.transport {
            Transport::Tcp(_) => {
                let (none, doubt) = (Duration::ZERO, Duration::ZERO);
                return Pauses { connect, doubt, gap: none, twin_gap: none, byte: none };
            }
            Transport::RtuOverTcp(_) => (ASSUMED_BAUD, TWIN_GAP),
            Transport::Rtu(serial) => (serial.baud.max(1), Duration::ZERO),
        };
        let byte = Duration::from_secs(1) * BITS_PER_BYTE / baud;
        let t35 = byte * 7 / 2;
        let doubt = MIN_DOUBT.max(slowest + byte * MAX_FRAME_BYTES as u32);
        Pauses { connect, doubt, gap: MIN_RTU_GAP.max(t35), twin_gap, byte }
    }
}

/// What answers that could be taken for each other have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Likeness {
    unit: u8,
    function: u8,
    length: usize,
}

/// One connection, opened when it is needed.
pub(super) struct Link {
    bus: BusId,
    endpoint: String,
    /// A serial port's path, and the device that it led to when it was opened.
    port: Option<(PathBuf, Option<PathBuf>)>,
    framing: Framing,
    pauses: Pauses,
    open: Opener,
    wire: Option<Box<dyn Wire>>,
    /// Somebody before us may have asked something.
    virgin: bool,
    /// Not before this moment: the gap after the last frame.
    free_at: Instant,
    /// Units that may still answer an old question, until when.
    doubts: BTreeMap<u8, Instant>,
    last: Option<(Likeness, Instant)>,
    /// When the last request went out.
    asked_at: Instant,
    transaction: u16,
    unanswered: u32,
    attempts: u32,
    last_attempt: Option<Instant>,
    last_failure: OpenError,
    losses: u64,
}

impl Link {
    /// A link over a configured bus whose slowest device answers within `slowest`.
    pub(super) fn new(bus: &Bus, slowest: Duration) -> Link {
        let framing = match &bus.transport {
            Transport::Tcp(_) => Framing::Tcp,
            Transport::RtuOverTcp(_) | Transport::Rtu(_) => Framing::Rtu,
        };
        let open = wire::opener(&bus.transport);
        let endpoint = wire::endpoint(&bus.transport);
        let link = Link::over(bus.id.clone(), endpoint, framing, Pauses::of(bus, slowest), open);
        match &bus.transport {
            Transport::Tcp(_) | Transport::RtuOverTcp(_) => link,
            Transport::Rtu(serial) => Link { port: Some((serial.port.clone(), None)), ..link },
        }
    }

    /// A link over anything that carries bytes.
    pub(super) fn over(
        bus: BusId,
        endpoint: String,
        framing: Framing,
        pauses: Pauses,
        open: Opener,
    ) -> Link {
        Link {
            bus,
            endpoint,
            port: None,
            framing,
            pauses,
            open,
            wire: None,
            virgin: true,
            free_at: Instant::now(),
            doubts: BTreeMap::new(),
            last: None,
            asked_at: Instant::now(),
            // Not where the last daemon began: a gateway may still answer that one.
            transaction: std::process::id() as u16,
            unanswered: 0,
            attempts: 0,
            last_attempt: None,
            last_failure: OpenError::default(),
            losses: 0,
        }
    }

    /// When the next attempt to open is due; `None` while the bus is reachable.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let last = self.last_attempt.filter(|_| self.attempts > 0)?;
        let doublings = (self.attempts - 1).min(8);
        Some(last + (RECONNECT.0 * 2_u32.pow(doublings)).min(RECONNECT.1))
    }

    /// How often the far side was lost: whatever it had been told may be forgotten.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// When the last request went out.
    pub(super) fn asked_at(&self) -> Instant {
        self.asked_at
    }

    /// Until when this unit cannot be asked, since it may still answer an old question.
    pub(super) fn doubtful_until(&self, unit: u8) -> Option<Instant> {
        self.doubts.get(&unit).copied()
    }

    /// From when on this can be asked: after the gap behind the last frame, the time in which the
    /// unit may still answer something old, and the time in which a gateway may answer the last
    /// question again.
    pub(super) fn ready_at(&self, question: &Question) -> Instant {
        let doubtful = self.doubts.get(&question.unit).copied();
        let alike = self.last.filter(|(last, _)| *last == likeness(question));
        let twin = alike.map(|(_, at)| at + self.pauses.twin_gap);
        [doubtful, twin].into_iter().flatten().fold(self.free_at, Instant::max)
    }

    /// Opens the link if it is closed and an attempt is due. `urgent` shortens the wait.
    pub(super) async fn open(&mut self, urgent: bool) -> Result<(), BusError> {
        if self.wire.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        let early = urgent && self.last_attempt.is_none_or(|last| now >= last + RECONNECT.0);
        if self.retry_at().is_some_and(|due| now < due) && !early {
            return Err(self.unreachable());
        }
        self.last_attempt = Some(now);
        match self.connect().await {
            Ok(wire) => {
                self.attempts = 0;
                self.unanswered = 0;
                self.wire = Some(wire);
                Ok(())
            }
            Err(failure) => {
                if self.attempts == 0 {
                    self.losses += 1;
                }
                self.attempts = self.attempts.saturating_add(1);
                self.last_failure = failure;
                Err(self.unreachable())
            }
        }
    }

    /// Asks one question. A TCP connection that turns out to be dead is opened and used once more:
    /// servers close idle ones. All requests are absolute, asking twice does no harm.
    pub(super) async fn ask(
        &mut self,
        question: &Question,
        urgent: bool,
    ) -> Result<Answer, BusError> {
        let was_open = self.wire.is_some() && self.framing == Framing::Tcp;
        match self.ask_once(question, urgent).await {
            Err(BusError::Broken { .. }) if was_open => self.ask_once(question, urgent).await,
            outcome => outcome,
        }
    }

    async fn ask_once(&mut self, question: &Question, urgent: bool) -> Result<Answer, BusError> {
        self.drop_a_port_that_moved();
        self.open(urgent).await?;
        wait_until(self.ready_at(question)).await;
        self.doubts.remove(&question.unit);
        self.renew_if_hung_up(urgent).await?;
        let outcome = self.converse(question).await;
        let now = Instant::now();
        self.free_at = now + self.pauses.gap;
        self.last = Some((likeness(question), now));
        let answered = outcome.is_ok() || outcome.as_ref().is_err_and(is_exception);
        if answered {
            self.unanswered = 0;
            return outcome;
        }
        self.unanswered += 1;
        self.doubts.insert(question.unit, now + self.pauses.doubt);
        if self.unanswered >= DROP_AFTER {
            self.wire = None;
        }
        outcome
    }

    /// Writes the request and listens. Leaves the connection open only where it can be followed on.
    async fn converse(&mut self, question: &Question) -> Result<Answer, BusError> {
        let at = self.at(question);
        let Some(wire) = self.wire.as_mut() else { return Err(self.unreachable()) };
        self.transaction = self.transaction.wrapping_add(1);
        self.asked_at = Instant::now();
        let (number, request) = (self.transaction, &question.request);
        // Unit and checksum around both.
        let bytes = request.length() + request.answer_length() + 6;
        let limit = question.timeout + self.pauses.byte * bytes as u32;
        let mut listener = Listener::new(self.framing, number, question.unit, request);
        let (framing, unit) = (self.framing, question.unit);
        let exchange = client::converse(framing, unit, wire.as_mut(), &mut listener, request);
        let heard = within(limit, exchange).await;
        match heard {
            Some(Ok(Found::Answer(answer))) => Ok(answer),
            Some(Ok(Found::Exception(code))) => Err(exceptional(at, code)),
            Some(Ok(Found::Wrong(problem))) => {
                self.wire = None;
                Err(BusError::Mismatch { at, problem })
            }
            Some(Err(source)) => {
                self.wire = None;
                self.losses += 1;
                Err(BusError::Broken { at, source })
            }
            None => {
                if listener.is_torn() {
                    self.wire = None;
                }
                Err(match listener.strange() {
                    Some(problem) => BusError::Mismatch { at, problem },
                    None => BusError::Silent { at, timeout: question.timeout },
                })
            }
        }
    }

    /// Discards what arrived, and finds out whether the far side hung up before it is asked.
    async fn renew_if_hung_up(&mut self, urgent: bool) -> Result<(), BusError> {
        let Some(wire) = self.wire.as_mut() else { return self.open(urgent).await };
        // Answers to older questions: the listener knows them by their number.
        if wire::discard(wire.as_mut()).await.is_err() {
            self.wire = None;
            self.losses += 1;
            self.open(urgent).await?;
        }
        Ok(())
    }

    /// After the adapter was plugged in elsewhere, what is open is a dead or another device.
    fn drop_a_port_that_moved(&mut self) {
        let Some((path, opened)) = &self.port else { return };
        let suspicious = self.unanswered > 0 && self.wire.is_some();
        if suspicious && wire::node(path) != *opened {
            self.wire = None;
            self.losses += 1;
        }
    }

    async fn connect(&mut self) -> Result<Box<dyn Wire>, OpenError> {
        if let Some((path, node)) = &mut self.port {
            *node = wire::node(path);
        }
        let opening = (self.open)();
        let mut wire = within(self.pauses.connect, opening)
            .await
            .unwrap_or_else(|| Err(OpenError::of_endpoint(&io::ErrorKind::TimedOut.into())))?;
        if self.framing == Framing::Rtu && self.virgin {
            let drained = wire::drain(wire.as_mut(), self.pauses.doubt).await;
            drained.map_err(|source| OpenError::of_endpoint(&source))?;
        }
        self.virgin = false;
        Ok(wire)
    }

    fn at(&self, question: &Question) -> At {
        At { bus: self.bus.clone(), unit: question.unit, point: question.point.clone() }
    }

    fn unreachable(&self) -> BusError {
        BusError::Unreachable {
            bus: self.bus.clone(),
            endpoint: self.endpoint.clone(),
            why: self.last_failure.clone(),
        }
    }
}

/// Does not touch the timer for a moment that is over: its ticks are a millisecond apart, and a
/// moment within the current one would cost up to two.
async fn wait_until(moment: Instant) {
    if moment > Instant::now() {
        sleep_until(moment).await;
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    timeout(limit, future).await.ok()
}

fn likeness(question: &Question) -> Likeness {
    let (function, length) = (question.request.function(), question.request.answer_length());
    Likeness { unit: question.unit, function, length }
}

/// An exception is an answer: the connection is fine.
fn exceptional(at: At, code: u8) -> BusError {
    match code {
        0x01..=0x03 => BusError::Refused { at, code },
        0x05 | 0x06 => BusError::Busy { at, code },
        0x0A | 0x0B => BusError::TargetFailed { at, code },
        _ => BusError::DeviceFailed { at, code },
    }
}

fn is_exception(error: &BusError) -> bool {
    match error {
        BusError::Refused { .. }
        | BusError::Busy { .. }
        | BusError::TargetFailed { .. }
        | BusError::DeviceFailed { .. } => true,
        BusError::Unreachable { .. }
        | BusError::Broken { .. }
        | BusError::Silent { .. }
        | BusError::Mismatch { .. }
        | BusError::Deferred { .. }
        | BusError::NotWritable { .. } => false,
    }
}
