//! What a demo came to: every tap accounted for, every watt-hour settled.

use std::collections::BTreeMap;
use std::fmt;

use super::cloud::View;
use super::devices::Building;
use super::site::INSTALLED;

/// The demo's result.
#[derive(Debug)]
pub(super) struct Summary {
    taps: u64,
    started: u64,
    stopped: u64,
    denials: BTreeMap<String, u64>,
    ended: u64,
    reasons: BTreeMap<String, u64>,
    records: u64,
    duplicates: u64,
    metered_wh: i64,
    sessions_wh: i64,
    unattributed_wh: i64,
    /// What is wrong, in plain words.
    faults: Vec<String>,
}

impl Summary {
    pub(super) fn new(taps: u64, view: &View, building: &Building, start_wh: &[i64]) -> Summary {
        let usage = &view.usage;
        let ends: Vec<_> = usage.sessions.values().filter_map(|s| s.end.as_ref()).collect();
        let count = |words: Vec<String>| {
            words.into_iter().fold(BTreeMap::new(), |mut counts, word| {
                *counts.entry(word).or_insert(0) += 1;
                counts
            })
        };
        let denials = view.denials().map(|event| event["reason"].as_str().unwrap_or("?").into());
        let registers = INSTALLED.iter().zip(start_wh);
        let metered_wh = registers.map(|(it, start)| building.total_wh(it.meter) - start).sum();
        let mut summary = Summary {
            taps,
            started: usage.sessions.len() as u64,
            stopped: ends.iter().filter(|end| end.reason == "tapped").count() as u64,
            denials: count(denials.collect()),
            ended: ends.len() as u64,
            reasons: count(ends.iter().map(|end| end.reason.clone()).collect()),
            records: usage.records.len() as u64,
            duplicates: usage.duplicates,
            metered_wh,
            sessions_wh: ends.iter().filter_map(|end| end.energy_wh).sum(),
            unattributed_wh: usage.meters.values().map(|meter| meter.unattributed_wh).sum(),
            faults: Vec::new(),
        };
        summary.judge(view);
        summary
    }

    /// Whether every watt-hour and every tap is accounted for.
    pub(super) fn is_settled(&self) -> bool {
        self.faults.is_empty()
    }

    fn denied(&self) -> u64 {
        self.denials.values().sum()
    }

    fn judge(&mut self, view: &View) {
        let usage = &view.usage;
        let settled = self.sessions_wh + self.unattributed_wh;
        if settled != self.metered_wh {
            self.faults.push(format!("{} Wh metered, {settled} Wh settled", self.metered_wh));
        }
        if self.ended != self.started {
            self.faults.push(format!("{} sessions never ended", self.started - self.ended));
        }
        let answered = self.started + self.stopped + self.denied();
        if answered != self.taps {
            self.faults.push(format!("{} taps, {answered} answered", self.taps));
        }
        if self.started == 0 {
            self.faults.push("no session at all".into());
        }
        self.faults.extend(usage.imbalances());
        self.faults.extend(usage.conflicts.iter().map(|it| format!("ledger conflict: {it}")));
        self.faults.extend(usage.quarantined.iter().map(|it| format!("not understood: {it}")));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            let parts: Vec<_> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
            parts.join(", ")
        };
        writeln!(f, "\nsummary")?;
        writeln!(f, "  taps      {}", self.taps)?;
        writeln!(f, "  grants    {}", self.started)?;
        writeln!(f, "  stops     {}", self.stopped)?;
        writeln!(f, "  denials   {} ({})", self.denied(), list(&self.denials))?;
        writeln!(f, "  sessions  {} ended ({})", self.ended, list(&self.reasons))?;
        writeln!(f, "  ledger    {} records, {} came twice", self.records, self.duplicates)?;
        let settled = self.sessions_wh + self.unattributed_wh;
        let sign = if settled == self.metered_wh { "=" } else { "≠" };
        writeln!(
            f,
            "  energy    {} Wh metered {sign} {settled} Wh settled ({} in sessions, {} unattributed)",
            self.metered_wh, self.sessions_wh, self.unattributed_wh
        )?;
        for fault in &self.faults {
            writeln!(f, "  WRONG     {fault}")?;
        }
        write!(f, "{}", if self.is_settled() { "settled" } else { "NOT settled" })
    }
}
