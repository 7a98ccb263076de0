//! What others see of a bus.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};

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
                if self.last_error.as_ref() != Some(&text) {
                    tracing::warn!("{text}");
                }
                self.last_error = Some(text);
            }
            None => self.latency_ms = u32::try_from((ended - begun).as_millis()).ok(),
        }
    }
}
