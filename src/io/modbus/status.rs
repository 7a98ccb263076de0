//! What others see of a bus.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use super::health::{BusHealth, UnitHealth};
use super::stats::{Tally, Utilisation};
use crate::core::ids::BusId;

/// What others see of a bus.
#[derive(Debug)]
pub(super) struct Status {
    /// Counts turns and requests: a bus whose counter stands still hangs.
    pub(super) progress: AtomicU64,
    pub(super) units: Mutex<Vec<UnitHealth>>,
    figures: Mutex<Figures>,
}

/// What a bus as a whole has done.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) tally: Tally,
    pub(super) utilisation: Utilisation,
    pub(super) error: Option<String>,
}

impl Status {
    pub(super) fn new() -> Status {
        let utilisation = Utilisation::new(Instant::now());
        Status {
            progress: AtomicU64::default(),
            units: Mutex::default(),
            figures: Mutex::new(Figures { tally: Tally::default(), utilisation, error: None }),
        }
    }

    pub(super) fn health(&self, bus: &BusId) -> BusHealth {
        let mut figures = self.figures();
        BusHealth {
            bus: bus.clone(),
            error: figures.error.clone(),
            requests: figures.tally.requests,
            errors: figures.tally.errors,
            latency_p50_ms: figures.tally.percentile_ms(50),
            latency_p99_ms: figures.tally.percentile_ms(99),
            utilisation_percent: figures.utilisation.percent(Instant::now()),
        }
    }

    pub(super) fn figures(&self) -> std::sync::MutexGuard<'_, Figures> {
        self.figures.lock().expect("nobody panics while holding it")
    }
}
