//! What others see of a bus.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::error::BusError;
use super::health::{BusHealth, UnitAndBus, UnitHealth, UnitState};
use super::plan::BusPlan;
use super::stats::Tally;
use crate::core::ids::{BusId, DeviceId};

/// What others see of a bus.
#[derive(Debug)]
pub(super) struct Status {
    /// Counts turns and requests: a bus whose counter stands still hangs.
    pub(super) progress: AtomicU64,
    units: Mutex<Vec<UnitAccount>>,
    bus: Mutex<BusAccount>,
}

/// What a bus as a whole has done.
#[derive(Debug)]
pub(super) struct BusAccount {
    pub(super) tally: Tally,
    pub(super) error: Option<String>,
}

/// What one unit has done.
#[derive(Debug)]
pub(super) struct UnitAccount {
    unit: u8,
    device: DeviceId,
    pub(super) state: UnitState,
    last_error: Option<String>,
    /// What it answered with an exception when it was last asked, by what was read or written: as
    /// many as there are things that a bus does by itself.
    troubles: BTreeMap<String, String>,
    warnings: Warnings,
    latency_ms: Option<u32>,
    tally: Tally,
}

impl Status {
    pub(super) fn new() -> Status {
        let tally = Tally::new(Instant::now());
        Status {
            progress: AtomicU64::default(),
            units: Mutex::default(),
            bus: Mutex::new(BusAccount { tally, error: None }),
        }
    }

    /// Begins an account for every unit.
    pub(super) fn expect(&self, plan: &BusPlan, now: Instant) {
        let accounts = plan.units.iter().map(|unit| UnitAccount {
            unit: unit.unit,
            device: unit.device.clone(),
            state: UnitState::Unknown,
            last_error: None,
            troubles: BTreeMap::new(),
            warnings: Warnings { since: now, count: 0 },
            latency_ms: None,
            tally: Tally::new(now),
        });
        *self.units() = accounts.collect();
    }

    pub(super) fn health(&self, bus: &BusId) -> BusHealth {
        let account = self.bus();
        let figures = account.tally.figures(Instant::now());
        BusHealth { bus: bus.clone(), error: account.error.clone(), figures }
    }

    pub(super) fn unit_health(&self, bus: &BusId) -> Vec<UnitHealth> {
        let now = Instant::now();
        let health = |account: &UnitAccount| UnitHealth {
            bus: bus.clone(),
            unit: account.unit,
            device: account.device.clone(),
            state: account.state,
            last_error: account.last_error.clone(),
            trouble: account.troubles.values().next().cloned(),
            figures: account.tally.figures(now),
            latency_ms: account.latency_ms,
        };
        self.units().iter().map(health).collect()
    }

    /// What a unit and the whole bus have done up to now.
    pub(super) fn figures_of(&self, unit: usize) -> UnitAndBus {
        let now = Instant::now();
        let unit = self.units()[unit].tally.figures(now);
        UnitAndBus { unit, bus: self.bus().tally.figures(now) }
    }

    pub(super) fn bus(&self) -> MutexGuard<'_, BusAccount> {
        self.bus.lock().expect("nobody panics while holding it")
    }

    pub(super) fn units(&self) -> MutexGuard<'_, Vec<UnitAccount>> {
        self.units.lock().expect("nobody panics while holding it")
    }
}

/// How much of a minute's warnings of one unit reached the journal: a noisy line fills no disk.
#[derive(Debug)]
struct Warnings {
    since: Instant,
    count: u32,
}

/// New errors of one unit that go to the journal in [`WARNING_SPAN`].
const WARNINGS_MAX: u32 = 6;
const WARNING_SPAN: Duration = Duration::from_secs(60);

impl UnitAccount {
    /// Takes note of a request between two moments. An error that is new goes to the journal.
    pub(super) fn count(
        &mut self,
        (begun, ended): (Instant, Instant),
        state: UnitState,
        error: Option<&BusError>,
    ) {
        self.state = state;
        let answered = !error.is_some_and(BusError::is_silence);
        self.tally.count((begun, ended), error.is_some(), answered);
        match error.map(ToString::to_string) {
            Some(text) => {
                if self.last_error.as_ref() != Some(&text) && self.warnings.admit(ended) {
                    tracing::warn!("{text}");
                }
                self.last_error = Some(text);
            }
            None => self.latency_ms = u32::try_from((ended - begun).as_millis()).ok(),
        }
    }

    /// Takes note of how it ended to read or write what stations live by.
    pub(super) fn note_outcome(&mut self, what: &[&str], error: Option<&BusError>) {
        match error {
            None => drop(self.troubles.remove(&what.join("+"))),
            Some(error) if error.is_silence() || error.is_of_bus() => {}
            Some(error) => drop(self.troubles.insert(what.join("+"), error.to_string())),
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

impl Warnings {
    fn admit(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WARNING_SPAN {
            *self = Warnings { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= WARNINGS_MAX
    }
}
