//! What was measured, for people and for programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::METERS;
use crate::judge::{Spread, Sweep, Switches};

/// Goals: beyond the request in flight 99 % of the switches wait no longer than this.
const MAX_EXCESS: Duration = Duration::from_millis(10);
const MIN_WITHIN_PERCENT: f64 = 99.0;
/// A sweep takes at most so many times what the line needs for it.
const MAX_RATIO: f64 = 1.15;

/// All figures of one run, printed as they come unless they are wanted as JSON in the end.
pub(crate) struct Figures {
    silent: bool,
    switches: Vec<Value>,
    sweeps: Vec<Value>,
    not_measured: Vec<String>,
}

impl Figures {
    pub(crate) fn new(silent: bool) -> Figures {
        Figures { silent, switches: Vec::new(), sweeps: Vec::new(), not_measured: Vec::new() }
    }

    pub(crate) fn say(&self, line: &str) {
        if !self.silent {
            println!("{line}");
        }
    }

    pub(crate) fn not_measured(&mut self, master: &str, why: &anyhow::Error) {
        let line = format!("{master} not measured: {why:#}");
        self.say(&line);
        self.not_measured.push(line);
    }

    pub(crate) fn head_of_switches(&self) {
        self.say("\nfrom an order to the coil, meters polled all the time; ms");
        self.say(concat!(
            "dead  master                    n   median     99 %    worst     busy  beyond*",
            "    worst  in 10 ms  left out"
        ));
    }

    pub(crate) fn switches(&mut self, master: &str, dead: &[u8], switches: Switches) {
        let disturbed = switches.disturbed;
        if switches.waits.is_empty() {
            let why = anyhow::anyhow!("the line was late around all {disturbed} switches");
            return self.not_measured(master, &why);
        }
        let busy = 100.0 * switches.busy as f64 / switches.waits.len() as f64;
        let (waits, excesses) = (Spread::of(switches.waits), Spread::of(switches.excesses));
        let within = excesses.within_percent(MAX_EXCESS);
        self.say(&format!(
            "{}   {busy:>4.0} % {:>8.1} {:>8.1} {within:>7.1} % {disturbed:>9}",
            row_of(master, dead, &waits),
            excesses.ms(99),
            excesses.ms(100),
        ));
        self.switches.push(json!({
            "master": master,
            "dead": dead.len(),
            "order_to_coil_ms": to_json(&waits),
            "beyond_request_in_flight_ms": to_json(&excesses),
            "within_10_ms_percent": within,
            "found_line_busy_percent": busy,
            "left_out": disturbed,
            "goal_kept": within >= MIN_WITHIN_PERCENT,
        }));
    }

    /// From a tap over the start register to the coil.
    pub(crate) fn taps(&mut self, master: &str, dead: &[u8], whole: Vec<Duration>) {
        if whole.is_empty() {
            return;
        }
        let whole = Spread::of(whole);
        self.say(&row_of(master, dead, &whole));
        self.switches.push(json!({
            "master": master,
            "dead": dead.len(),
            "tap_to_register_to_coil_ms": to_json(&whole),
        }));
    }

    pub(crate) fn head_of_sweeps(&self) {
        self.say("\n* 99 % of them waited at most so long beyond the request in flight");
        self.say(
            "left out: waits up to 0.5 s while the simulated line itself was late for over 2 %",
        );
        self.say("\nsweep of all live meters, two registers each, as fast as it goes; s");
        self.say(concat!(
            "dead  master                  sweep  theory   ratio   ratio** time-outs",
            "  too early   late"
        ));
    }

    pub(crate) fn sweep(&mut self, master: &str, dead: &[u8], sweep: &Sweep) {
        let [meters, all] = sweep.ratios();
        self.say(&format!(
            "   {}  {master:<22} {:>6.2} {:>7.2} {meters:>7.2} {all:>9.2} {:>9} {:>8.0} % {:>4.1} %",
            dead.len(),
            sweep.took.as_secs_f64(),
            sweep.least.as_secs_f64(),
            sweep.timeouts,
            100.0 * sweep.hasty as f64 / sweep.requests as f64,
            sweep.late_percent,
        ));
        self.sweeps.push(json!({
            "master": master,
            "dead": dead.len(),
            "live_meters": METERS - dead.len(),
            "sweep_s": sweep.took.as_secs_f64(),
            "theory_s": sweep.least.as_secs_f64(),
            "ratio": meters,
            "ratio_with_relay_polls": all,
            "time_outs": sweep.timeouts,
            "too_early": sweep.hasty,
            "requests": sweep.requests,
            "line_late_percent": sweep.late_percent,
            "goal_kept": meters <= MAX_RATIO,
        }));
    }

    pub(crate) fn foot(&self) {
        self.say("\n** the least counts the polls of the relay boards too");
        self.say("late: the part of the time in which the simulated line itself was, by over 1 ms");
        self.say("too early: requests within the silence of 3.5 characters after an answer");
    }

    pub(crate) fn to_json(&self) -> String {
        let figures = json!({
            "switches": self.switches,
            "sweeps": self.sweeps,
            "not_measured": self.not_measured,
        });
        format!("{figures:#}")
    }
}

fn row_of(master: &str, dead: &[u8], times: &Spread) -> String {
    let [median, most, worst] = [50, 99, 100].map(|percent| times.ms(percent));
    let (dead, count) = (dead.len(), times.count());
    format!("{dead:>4}  {master:<22} {count:>4} {median:>8.1} {most:>8.1} {worst:>8.1}")
}

fn to_json(times: &Spread) -> Value {
    json!({
        "n": times.count(),
        "median": times.ms(50),
        "p99": times.ms(99),
        "max": times.ms(100),
    })
}

/// `figures-bus.json` in the target directory.
pub(crate) fn file() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_tapgate"));
    let target = program.parent().and_then(Path::parent);
    target.unwrap_or(Path::new(".")).join("figures-bus.json")
}
