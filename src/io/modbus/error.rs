//! What can go wrong on a bus. Every message names bus, unit and point, and what to try.

use std::io;
use std::time::Duration;

use crate::core::ids::{BusId, DeviceId};

/// Where a request went: shown in front of every error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bus {bus} unit {unit} {point}")]
pub struct At {
    /// The bus.
    pub bus: BusId,
    /// The unit id.
    pub unit: u8,
    /// The point, or what else was asked.
    pub point: String,
}

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The line or endpoint cannot be opened.
    #[error("bus {bus} cannot be opened at {endpoint}: {source}; check cable, power and address")]
    Unreachable {
        /// The bus.
        bus: BusId,
        /// Port or `host:port`.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// The line broke during a request.
    #[error("{at}: the connection broke: {source}; check cable and gateway")]
    Broken {
        /// Where.
        at: At,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{at}: no answer within {} ms; check power, wiring, unit id and baud rate",
        .timeout.as_millis())]
    Silent {
        /// Where.
        at: At,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// An answer to something else than what was asked.
    #[error(
        "{at}: not an answer to the request: {problem}; check for a second master, a doubled \
             unit id or noise on the line"
    )]
    Mismatch {
        /// Where.
        at: At,
        /// What differs.
        problem: String,
    },
    /// Exceptions 01, 02 and 03: the profile asks for what the device does not have.
    #[error("{at}: refused with exception {code:02}; check that the profile fits the device")]
    Refused {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// Exceptions 05 and 06: later.
    #[error("{at}: the device is busy (exception {code:02}); it is asked again")]
    Busy {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// Exceptions 0A and 0B: the gateway lives, the unit behind it does not.
    #[error("{at}: the gateway does not reach it (exception {code:02X}); check its power and line")]
    TargetFailed {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// Any other exception.
    #[error("{at}: failed with exception {code:02X}; power-cycle the device if it persists")]
    DeviceFailed {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// The value cannot be written to this point.
    #[error("device {device} {point}: {problem}; check the profile")]
    NotWritable {
        /// Which device.
        device: DeviceId,
        /// Which point.
        point: String,
        /// Why.
        problem: &'static str,
    },
}

impl BusError {
    /// Whether this is the bus as a whole, not one unit.
    pub fn is_of_bus(&self) -> bool {
        matches!(self, BusError::Unreachable { .. })
    }

    /// Whether the unit did not answer (rather than answering something unwelcome).
    pub fn is_silence(&self) -> bool {
        match self {
            BusError::Broken { .. }
            | BusError::Silent { .. }
            | BusError::Mismatch { .. }
            | BusError::TargetFailed { .. } => true,
            BusError::Unreachable { .. }
            | BusError::Refused { .. }
            | BusError::Busy { .. }
            | BusError::DeviceFailed { .. }
            | BusError::NotWritable { .. } => false,
        }
    }
}
