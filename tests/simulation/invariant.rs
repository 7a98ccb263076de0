//! What nothing may break. A violation ends the run; its name is what mutants are caught by.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// No switch closes without a session on record, nor for one that is over.
    PowerOnRecord,
    /// At most one session per station and per meter.
    OneSession,
    /// Every watt-hour is in exactly one account, as the world's own meters count.
    EveryWattHour,
    /// Sequence numbers without a gap, hashes that follow from the bytes.
    Chain,
    /// The cloud counts each record once.
    CountedOnce,
    /// The allowlist is the old or the new one, whole.
    ListWhole,
    /// No machine is cut under load but by fault or order.
    NoCut,
    /// Once faults cease everything comes to rest in time.
    Settles,
    /// Memory and ledger never contradict each other.
    NoContradiction,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invariant::PowerOnRecord => "power-on-record",
            Invariant::OneSession => "one-session",
            Invariant::EveryWattHour => "every-watt-hour",
            Invariant::Chain => "chain",
            Invariant::CountedOnce => "counted-once",
            Invariant::ListWhole => "list-whole",
            Invariant::NoCut => "no-cut",
            Invariant::Settles => "settles",
            Invariant::NoContradiction => "no-contradiction",
        })
    }
}

/// Ends the run where `holds` is false.
pub fn check(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
    if !holds {
        panic!("invariant {invariant} is broken: {}", what());
    }
}

/// The same for a verdict that says what is wrong.
pub fn holds(verdict: Result<(), String>, invariant: Invariant) {
    if let Err(what) = verdict {
        check(false, invariant, || what);
    }
}
