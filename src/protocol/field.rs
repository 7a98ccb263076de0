//! What a technician asks of a bus or a station by hand, and what comes of it.

use serde::{Deserialize, Serialize};

use crate::core::ids::{SessionId, StationId};

/// One request to one unit. Addresses are 0-based, as on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of the Modbus specification")]
pub enum BusOrder {
    ReadCoils { address: u16, count: u16 },
    ReadDiscreteInputs { address: u16, count: u16 },
    ReadHoldingRegisters { address: u16, count: u16 },
    ReadInputRegisters { address: u16, count: u16 },
    WriteCoil { address: u16, on: bool },
    WriteRegister { address: u16, word: u16 },
    WriteRegisters { address: u16, words: Vec<u16> },
}

/// What a unit answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusAnswer {
    /// Exactly as many as were asked for.
    Bits(Vec<bool>),
    /// Exactly as many as were asked for.
    Words(Vec<u16>),
    /// The device repeated what was written.
    Written,
}

/// Why there is no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusFailure {
    /// Told apart for scripts and for the scan.
    pub kind: FailureKind,
    /// What, where, and what to try.
    pub message: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No answer, or none that is surely the answer.
    Silent,
    /// The connection broke during the request: some devices close it on what they do not know.
    Broken,
    /// The unit answered with an exception.
    Exception,
    /// The bus cannot be opened.
    Unreachable,
    /// The request is not allowed.
    Refused,
}

/// What a test of a station found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationTest {
    /// Which station.
    pub station: StationId,
    /// The session on record.
    pub session: SessionId,
    /// Time from the order to the switch that reads closed.
    pub closed_after_ms: Option<u64>,
    /// Contactor feedback while closed, where wired.
    pub feedback_closed: Option<bool>,
    /// Time from the order to the switch that reads open.
    pub opened_after_ms: Option<u64>,
    /// Contactor feedback after opening, where wired.
    pub feedback_open: Option<bool>,
    /// Whether the station has a meter.
    pub metered: bool,
    /// The meter's register while closed.
    pub register_wh: Option<i64>,
    /// Highest power while closed.
    pub power_mw: Option<i64>,
    /// What is wrong, each with what to check; empty where all is well.
    pub problems: Vec<String>,
}
