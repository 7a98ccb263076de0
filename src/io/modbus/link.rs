//! One connection to a bus, one request at a time, and nothing believed that is not surely the
//! answer to its question.
//!
//! After a time-out or a wrong answer the connection is dropped. TCP reconnects at once. RTU frames
//! carry no transaction number, so there (also over TCP) the line is reopened and listened to for
//! the quiet time: at least as long as the slowest device takes to answer. Only `Client::call` of
//! tokio-modbus is used, its typed helpers trust what they get.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::prelude::SlaveContext;
use tokio_modbus::{Error, ExceptionCode, Request, Response, Slave};

use super::error::{At, BusError};
use super::wire::{self, Draining, Opener};
use crate::config::wiring::{Bus, Transport};
use crate::core::ids::BusId;

/// First and longest pause between attempts to open a bus.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A connect attempt gets the bus's time-out, but at least what a TCP handshake with one lost
/// packet takes, and never so long that the watchdog would bark.
const CONNECT_TIMEOUT: (Duration, Duration) =
    (Duration::from_millis(1_500), Duration::from_secs(5));

/// Least quiet time after a doubtful answer on RTU (measured: 250 ms and a flush are enough where
/// a flush alone is not).
const MIN_QUIET: Duration = Duration::from_millis(250);

/// Longest RTU frame, for its time on the line.
const MAX_FRAME_BITS: u32 = 256 * 11;

/// Least silence between two RTU frames: t3.5 is 1.75 ms at most speeds, USB adapters add theirs.
const MIN_RTU_GAP: Duration = Duration::from_millis(5);

/// One question to one unit.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) unit: u8,
    /// The point it is about, for messages.
    pub(super) point: String,
    pub(super) request: Request<'static>,
    pub(super) timeout: Duration,
}

/// A verified answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Exactly as many as were asked for.
    Bits(Vec<bool>),
    /// Exactly as many as were asked for.
    Words(Vec<u16>),
    /// The device repeated what was written.
    Written,
}

/// How frames are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// With transaction numbers.
    Tcp,
    /// Without.
    Rtu,
}

/// The pauses of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    pub(super) connect: Duration,
    pub(super) quiet: Duration,
    pub(super) gap: Duration,
}

impl Pauses {
    /// What a bus needs whose slowest device answers within `slowest`.
    fn of(bus: &Bus, slowest: Duration) -> Pauses {
        let connect = slowest.clamp(CONNECT_TIMEOUT.0, CONNECT_TIMEOUT.1);
        let baud = match &bus.transport {
            Transport::Tcp(_) => return Pauses { connect, quiet: slowest, gap: Duration::ZERO },
            Transport::RtuOverTcp(_) => 9_600,
            Transport::Rtu(serial) => serial.baud.max(1),
        };
        let frame = Duration::from_secs(1) * MAX_FRAME_BITS / baud;
        let t35 = Duration::from_micros(38_500_000 / u64::from(baud));
        Pauses { connect, quiet: MIN_QUIET.max(slowest + frame), gap: MIN_RTU_GAP.max(t35) }
    }
}

/// One connection, opened when it is needed.
pub(super) struct Link {
    bus: BusId,
    endpoint: String,
    framing: Framing,
    pauses: Pauses,
    open: Opener,
    context: Option<Context>,
    /// Not before this moment: the gap after the last frame.
    free_at: Instant,
    attempts: u32,
    last_attempt: Option<Instant>,
    last_failure: String,
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
        Link::over(bus.id.clone(), endpoint, framing, Pauses::of(bus, slowest), open)
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
            framing,
            pauses,
            open,
            context: None,
            free_at: Instant::now(),
            attempts: 0,
            last_attempt: None,
            last_failure: String::new(),
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

    /// Opens the link if it is closed and an attempt is due. `urgent` shortens the wait.
    pub(super) async fn open(&mut self, urgent: bool) -> Result<(), BusError> {
        if self.context.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        let early = urgent && self.last_attempt.is_none_or(|last| now >= last + RECONNECT.0);
        if self.retry_at().is_some_and(|due| now < due) && !early {
            return Err(self.unreachable(io::Error::other(self.last_failure.clone())));
        }
        self.last_attempt = Some(now);
        match self.connect().await {
            Ok(context) => {
                self.attempts = 0;
                self.context = Some(context);
                Ok(())
            }
            Err(source) => {
                if self.attempts == 0 {
                    self.losses += 1;
                }
                self.attempts = self.attempts.saturating_add(1);
                self.last_failure = source.to_string();
                Err(self.unreachable(source))
            }
        }
    }

    /// Asks one question. A connection that turns out to be dead is opened and used once more:
    /// servers close idle ones.
    pub(super) async fn ask(
        &mut self,
        question: &Question,
        urgent: bool,
    ) -> Result<Answer, BusError> {
        let was_open = self.context.is_some();
        match self.ask_once(question, urgent).await {
            Err(BusError::Broken { .. }) if was_open => self.ask_once(question, urgent).await,
            outcome => outcome,
        }
    }

    async fn ask_once(&mut self, question: &Question, urgent: bool) -> Result<Answer, BusError> {
        self.open(urgent).await?;
        wait_until(self.free_at).await;
        let context = self.context.as_mut().expect("the link was just opened");
        context.set_slave(Slave(question.unit));
        let call = context.call(question.request.clone());
        let outcome = within(question.timeout, call).await;
        self.free_at = Instant::now() + self.pauses.gap;
        let at = self.at(question);
        let refused = match outcome {
            None => BusError::Silent { at, timeout: question.timeout },
            Some(Ok(Ok(response))) => match verified(&question.request, response) {
                Ok(answer) => return Ok(answer),
                Err(problem) => BusError::Mismatch { at, problem },
            },
            Some(Ok(Err(exception))) => return Err(exceptional(at, exception)),
            Some(Err(Error::Protocol(wrong))) => {
                BusError::Mismatch { at, problem: wrong.to_string() }
            }
            Some(Err(Error::Transport(source))) if source.kind() == io::ErrorKind::InvalidData => {
                BusError::Mismatch { at, problem: source.to_string() }
            }
            Some(Err(Error::Transport(source))) => {
                self.losses += 1;
                BusError::Broken { at, source }
            }
        };
        self.context = None;
        Err(refused)
    }

    async fn connect(&mut self) -> io::Result<Context> {
        let opening = (self.open)();
        let mut wire = within(self.pauses.connect, opening)
            .await
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        let nobody = Slave::broadcast();
        match self.framing {
            Framing::Tcp => Ok(tcp::attach_slave(wire, nobody)),
            Framing::Rtu => {
                wire::drain(wire.as_mut(), self.pauses.quiet).await?;
                Ok(rtu::attach_slave(Draining(wire), nobody))
            }
        }
    }

    fn at(&self, question: &Question) -> At {
        At { bus: self.bus.clone(), unit: question.unit, point: question.point.clone() }
    }

    fn unreachable(&self, source: io::Error) -> BusError {
        BusError::Unreachable { bus: self.bus.clone(), endpoint: self.endpoint.clone(), source }
    }
}

/// Does not touch the timer for a moment that is over: its ticks are a millisecond apart, and a
/// moment within the current one would cost up to two.
pub(super) async fn wait_until(moment: Instant) {
    if moment > Instant::now() {
        sleep_until(moment).await;
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    timeout(limit, future).await.ok()
}

/// Every field of an answer against its question.
fn verified(request: &Request<'_>, response: Response) -> Result<Answer, String> {
    match (request, response) {
        (Request::ReadCoils(_, count), Response::ReadCoils(bits))
        | (Request::ReadDiscreteInputs(_, count), Response::ReadDiscreteInputs(bits)) => {
            let count = usize::from(*count);
            if bits.len() != count.next_multiple_of(8) {
                return Err(format!("{} bits instead of {count}", bits.len()));
            }
            Ok(Answer::Bits(bits.into_iter().take(count).collect()))
        }
        (Request::ReadInputRegisters(_, count), Response::ReadInputRegisters(words))
        | (Request::ReadHoldingRegisters(_, count), Response::ReadHoldingRegisters(words)) => {
            if words.len() != usize::from(*count) {
                return Err(format!("{} registers instead of {count}", words.len()));
            }
            Ok(Answer::Words(words))
        }
        (Request::WriteSingleCoil(address, on), Response::WriteSingleCoil(at, is)) => {
            written((*address, u16::from(*on)), (at, u16::from(is)))
        }
        (Request::WriteSingleRegister(address, word), Response::WriteSingleRegister(at, is)) => {
            written((*address, *word), (at, is))
        }
        (Request::WriteMultipleRegisters(address, words), answer) => match answer {
            Response::WriteMultipleRegisters(at, count) => {
                written((*address, words.len() as u16), (at, count))
            }
            other => Err(format!("function {} instead of 16", other.function_code())),
        },
        (request, other) => Err(format!(
            "function {} instead of {}",
            other.function_code(),
            request.function_code()
        )),
    }
}

fn written(asked: (u16, u16), confirmed: (u16, u16)) -> Result<Answer, String> {
    if asked != confirmed {
        return Err(format!(
            "address {} value {} confirmed instead of address {} value {}",
            confirmed.0, confirmed.1, asked.0, asked.1
        ));
    }
    Ok(Answer::Written)
}

/// An exception is an answer: the connection is fine.
fn exceptional(at: At, exception: ExceptionCode) -> BusError {
    let code = u8::from(exception);
    match code {
        0x01..=0x03 => BusError::Refused { at, code },
        0x05 | 0x06 => BusError::Busy { at, code },
        0x0A | 0x0B => BusError::TargetFailed { at, code },
        _ => BusError::DeviceFailed { at, code },
    }
}
