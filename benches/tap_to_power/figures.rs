//! What was measured, for people and for programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::allowlist::BADGES;

/// Goals: what the figures must keep within.
const MAX_RATIO: f64 = 1.25;
const MAX_PEAK_KIB: u64 = 12 * 1024;
const MAX_START: Duration = Duration::from_millis(300);

/// Several measurements of one thing.
pub(crate) struct Spread {
    sorted: Vec<Duration>,
}

impl Spread {
    /// At least one measurement.
    pub(crate) fn of(mut times: Vec<Duration>) -> Spread {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Spread { sorted: times }
    }

    fn at(&self, percent: usize) -> Duration {
        self.sorted[(self.sorted.len() - 1) * percent / 100]
    }

    fn median(&self) -> Duration {
        self.at(50)
    }

    fn row(&self) -> String {
        let columns = [0, 50, 90, 100]
            .map(|percent| format!("{:>9.2}", self.at(percent).as_secs_f64() * 1_000.0));
        format!("{}   n = {}", columns.concat(), self.sorted.len())
    }

    fn to_json(&self) -> Value {
        let micros = |percent| self.at(percent).as_micros() as u64;
        json!({
            "n": self.sorted.len(),
            "min_us": micros(0),
            "median_us": micros(50),
            "p90_us": micros(90),
            "max_us": micros(100),
        })
    }
}

/// All figures of one run.
pub(crate) struct Figures {
    pub(crate) floor: Spread,
    pub(crate) with_register: Spread,
    pub(crate) daemon: Spread,
    pub(crate) peak_kib: u64,
    pub(crate) start: Spread,
}

impl Figures {
    fn ratio(&self) -> f64 {
        self.daemon.median().as_secs_f64() / self.floor.median().as_secs_f64()
    }

    /// The table of docs/figures.md.
    pub(crate) fn table(&self) -> String {
        let (ratio, start) = (self.ratio(), self.start.median());
        let verdict = |kept: bool| if kept { "kept" } else { "MISSED" };
        format!(
            "{} badges                  min   median      p90      max   (ms)\n\
             UID to coil write, floor {}\n\
             the same with a register {}\n\
             UID to coil write, daemon{}\n\
             start to READY           {}\n\
             \n\
             daemon / floor, medians: {ratio:.2} (goal: up to {MAX_RATIO}, {})\n\
             peak memory of the daemon: {} KiB (goal: up to {MAX_PEAK_KIB}, {})\n\
             start: {} ms (goal: under {}, {})",
            BADGES,
            self.floor.row(),
            self.with_register.row(),
            self.daemon.row(),
            self.start.row(),
            verdict(ratio <= MAX_RATIO),
            self.peak_kib,
            verdict(self.peak_kib <= MAX_PEAK_KIB),
            start.as_millis(),
            MAX_START.as_millis(),
            verdict(start < MAX_START),
        )
    }

    pub(crate) fn to_json(&self) -> String {
        let figures = json!({
            "badges": BADGES,
            "uid_to_coil_write": {
                "floor": self.floor.to_json(),
                "floor_with_register": self.with_register.to_json(),
                "daemon": self.daemon.to_json(),
                "ratio_of_medians": self.ratio(),
            },
            "peak_kib": self.peak_kib,
            "start_to_ready": self.start.to_json(),
        });
        format!("{figures:#}")
    }
}

/// `figures.json` in the target directory.
pub(crate) fn file() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_tapgate"));
    let target = program.parent().and_then(Path::parent);
    target.unwrap_or(Path::new(".")).join("figures.json")
}
