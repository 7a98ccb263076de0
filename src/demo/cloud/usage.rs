//! What a cloud makes of ledger records: stores them, counts each once, and checks the sums.
//!
//! A reference for consumers of the contract: deduplicates on (epoch, seq), checks the hash chain,
//! keeps what it does not understand in quarantine and acknowledges it all the same.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::protocol::cloud::{Hash, UsageBatch};

/// Kinds that need no bookkeeping here.
const OTHER_KINDS: [&str; 8] = [
    "gateway_started",
    "session_slot",
    "session_ending",
    "interruption",
    "clock_set",
    "allowlist_applied",
    "badge_override",
    "epoch_opened",
];

/// All records of a gateway and what they add up to.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    epochs: BTreeMap<String, Epoch>,
    /// The epoch of the last batch.
    pub epoch: String,
    /// Every record once, in the order of its ledger.
    pub records: Vec<Value>,
    /// Records that came again.
    pub duplicates: u64,
    /// Batches that came before the ones they follow.
    pub early_batches: u64,
    /// Stored, acknowledged, not understood.
    pub quarantined: Vec<String>,
    /// What contradicts what was stored before: never stored, never acknowledged.
    pub conflicts: Vec<String>,
    /// By session id.
    pub sessions: BTreeMap<String, Session>,
    /// By the meter's name.
    pub meters: BTreeMap<String, Meter>,
}

/// The stored records of one epoch.
#[derive(Clone, Debug, Default)]
struct Epoch {
    records: Vec<String>,
    hashes: Vec<Hash>,
}

/// One session as the cloud knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the contract's")]
pub struct Session {
    pub station: String,
    pub user: Option<String>,
    pub badge: Option<String>,
    pub start_register_wh: Option<i64>,
    /// `None` while it runs.
    pub end: Option<SessionEnd>,
}

/// How a session ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the contract's")]
pub struct SessionEnd {
    pub reason: String,
    pub energy_wh: Option<i64>,
    pub quality: String,
}

/// The double entry of one meter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the contract's")]
pub struct Meter {
    pub first_wh: i64,
    pub last_wh: i64,
    pub sessions_wh: i64,
    pub unattributed_wh: i64,
    pub open_sessions: u32,
    /// Intervals of the register that are counted: after a fork some come twice.
    counted: Vec<(i64, i64)>,
}

impl Usage {
    /// Stores what is new in a batch.
    pub(super) fn receive(&mut self, batch: &UsageBatch) {
        self.epoch.clone_from(&batch.epoch);
        let epoch = self.epochs.entry(batch.epoch.clone()).or_default();
        let held = epoch.records.len() as u64;
        if batch.first == 0 || batch.last + 1 != batch.first + batch.records.len() as u64 {
            self.conflicts.push(format!("batch {}..{} miscounts", batch.first, batch.last));
            return;
        }
        if batch.first > held + 1 {
            self.early_batches += 1;
            return;
        }
        if epoch.hash(batch.first - 1) != batch.prev {
            self.conflicts.push(format!("batch {} does not follow what is stored", batch.first));
            return;
        }
        for (seq, record) in (batch.first..).zip(&batch.records) {
            let epoch = self.epochs.entry(batch.epoch.clone()).or_default();
            match epoch.records.get(seq as usize - 1) {
                Some(stored) if stored == record => self.duplicates += 1,
                Some(_) => self.conflicts.push(format!("record {seq} came with other bytes")),
                None => {
                    epoch.push(record);
                    self.count(seq, record);
                }
            }
        }
    }

    /// Everything of the last batch's epoch up to here is stored.
    pub fn held(&self) -> u64 {
        self.epochs.get(&self.epoch).map_or(0, |epoch| epoch.records.len() as u64)
    }

    /// The ledger's hash after record `seq` of the last batch's epoch.
    pub(super) fn hash(&self, seq: u64) -> Hash {
        self.epochs.get(&self.epoch).map_or([0; 32], |epoch| epoch.hash(seq))
    }

    /// Restores a backup that was made when record `upto` was the last.
    pub(super) fn forget(&mut self, upto: u64) {
        let mut epochs = std::mem::take(&mut self.epochs);
        if let Some(epoch) = epochs.get_mut(&self.epoch) {
            epoch.records.truncate(upto as usize);
            epoch.hashes.truncate(upto as usize);
        }
        let epoch = std::mem::take(&mut self.epoch);
        let (duplicates, early_batches) = (self.duplicates, self.early_batches);
        *self = Usage { epoch, duplicates, early_batches, ..Usage::default() };
        for stored in epochs.values() {
            for (seq, record) in (1..).zip(&stored.records) {
                self.count(seq, record);
            }
        }
        self.epochs = epochs;
    }

    /// Meters whose registers and accounts disagree; those with an open session are not judged.
    pub fn imbalances(&self) -> Vec<String> {
        let judged = self.meters.iter().filter(|(_, meter)| meter.open_sessions == 0);
        let off = judged.filter(|(_, meter)| meter.imbalance_wh() != 0);
        off.map(|(name, meter)| format!("{name}: {} Wh", meter.imbalance_wh())).collect()
    }

    fn count(&mut self, seq: u64, record: &str) {
        let parsed = serde_json::from_str::<Value>(record).ok();
        let parsed = parsed.filter(|value| value["seq"].as_u64() == Some(seq));
        match parsed {
            Some(value) if self.post(&value) => self.records.push(value),
            Some(value) => {
                self.quarantined.push(record.to_owned());
                self.records.push(value);
            }
            None => self.quarantined.push(record.to_owned()),
        }
    }

    /// Posts one record to sessions and meters; false where it is not understood.
    fn post(&mut self, record: &Value) -> bool {
        match record["kind"].as_str() {
            Some("session_started") => self.on_session_started(record),
            Some("session_ended") => self.on_session_ended(record),
            Some("unattributed") => self.on_unattributed(record),
            Some("meter_commissioned" | "meter_replaced") => self.on_meter_changed(record),
            Some("carried") => self.on_carried(record),
            Some(kind) => OTHER_KINDS.contains(&kind),
            None => false,
        }
    }

    fn on_session_started(&mut self, record: &Value) -> bool {
        let Some(id) = text(record, "session") else { return false };
        let session = Session {
            station: text(record, "station").unwrap_or_default(),
            user: text(record, "user"),
            badge: text(record, "badge"),
            start_register_wh: record["register_wh"].as_i64(),
            end: None,
        };
        self.sessions.insert(id, session);
        if let Some(meter) = self.meter(record) {
            meter.open_sessions += 1;
        }
        true
    }

    fn on_session_ended(&mut self, record: &Value) -> bool {
        let Some(id) = text(record, "session") else { return false };
        let was_open = self.sessions.get(&id).is_some_and(|session| session.end.is_none());
        if !was_open && !self.on_session_started(record) {
            return false;
        }
        let energy_wh = record["energy_wh"].as_i64();
        let start_wh = record["register_wh"].as_i64();
        let end_wh = record["end_register_wh"].as_i64();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.end = Some(SessionEnd {
                reason: text(record, "reason").unwrap_or_default(),
                energy_wh,
                quality: text(record, "quality").unwrap_or_default(),
            });
        }
        if let Some(meter) = self.meter(record) {
            meter.open_sessions = meter.open_sessions.saturating_sub(1);
            let posted = start_wh.zip(energy_wh).map(|(start, energy)| start + energy);
            let energy_wh = energy_wh.unwrap_or(0);
            meter.sessions_wh += match (start_wh, posted, end_wh) {
                (Some(from), Some(to), Some(end)) if to == end => meter.count(from, to),
                _ => energy_wh,
            };
            meter.see(end_wh.or(posted));
        }
        true
    }

    fn on_unattributed(&mut self, record: &Value) -> bool {
        let bounds = record["from_wh"].as_i64().zip(record["to_wh"].as_i64());
        let Some((from, to)) = bounds else { return false };
        let Some(meter) = self.meter(record) else { return false };
        meter.unattributed_wh += meter.count(from, to);
        meter.see(Some(to));
        true
    }

    fn on_meter_changed(&mut self, record: &Value) -> bool {
        let name = text(record, "meter").zip(record["new_register_wh"].as_i64());
        let Some((name, new_wh)) = name else { return false };
        let meter = self.meters.entry(name).or_insert(Meter {
            first_wh: new_wh,
            last_wh: new_wh,
            ..Meter::default()
        });
        // The account goes on: the new register starts where the old one ended.
        let old_wh = record["old_register_wh"].as_i64().unwrap_or(meter.last_wh);
        if record["kind"] == "meter_replaced" {
            meter.first_wh += new_wh - old_wh;
            meter.last_wh = new_wh;
            meter.counted.clear();
        }
        true
    }

    /// A record of the epoch before, counted only where it is not held already.
    fn on_carried(&mut self, record: &Value) -> bool {
        let name = text(record, "epoch").zip(record["carried_seq"].as_u64());
        let Some((name, seq)) = name else { return false };
        let held = self.epochs.get(&name).map(|epoch| hex::encode(epoch.hash(seq)));
        if held == text(record, "hash") {
            return true;
        }
        let inner = text(record, "record").and_then(|inner| serde_json::from_str(&inner).ok());
        inner.is_some_and(|inner: Value| inner["kind"] != "carried" && self.post(&inner))
    }

    fn meter(&mut self, record: &Value) -> Option<&mut Meter> {
        self.meters.get_mut(record["meter"].as_str()?)
    }
}

impl Meter {
    /// What the register counted and no account did.
    pub fn imbalance_wh(&self) -> i64 {
        self.last_wh - self.first_wh - self.sessions_wh - self.unattributed_wh
    }

    /// How much of an interval was not counted before.
    fn count(&mut self, from: i64, to: i64) -> i64 {
        let overlap = |(a, b): &(i64, i64)| (to.min(*b) - from.max(*a)).max(0);
        let counted: i64 = self.counted.iter().map(overlap).sum();
        // Kept apart from each other, so that nothing is subtracted twice.
        let mut rest = vec![(from, to)];
        for (a, b) in &self.counted {
            let cut = |(x, y): (i64, i64)| [(x, y.min(*a)), (x.max(*b), y)];
            rest = rest.into_iter().flat_map(cut).filter(|(x, y)| x < y).collect();
        }
        self.counted.extend(rest);
        (to - from).max(0) - counted
    }

    fn see(&mut self, register_wh: Option<i64>) {
        self.last_wh = register_wh.unwrap_or(self.last_wh).max(self.last_wh);
    }
}

impl Epoch {
    fn hash(&self, seq: u64) -> Hash {
        let index = (seq as usize).checked_sub(1);
        index.and_then(|index| self.hashes.get(index)).copied().unwrap_or([0; 32])
    }

    fn push(&mut self, record: &str) {
        let last = self.hash(self.records.len() as u64);
        self.hashes.push(chain(&last, record));
        self.records.push(record.to_owned());
    }
}

/// The hash after `record`, where `last` was the one before it.
pub fn chain(last: &Hash, record: &str) -> Hash {
    let mut hash = Sha256::new();
    hash.update(b"tapgate-ledger-1");
    hash.update(last);
    hash.update(record.as_bytes());
    hash.finalize().into()
}

fn text(record: &Value, member: &str) -> Option<String> {
    record[member].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<String> {
        [
            r#"{"seq":1,"kind":"meter_commissioned","meter":"m","new_register_wh":1000}"#,
            r#"{"seq":2,"kind":"unattributed","meter":"m","from_wh":1000,"to_wh":1003}"#,
            r#"{"seq":3,"kind":"session_started","session":"s","station":"w","user":"u-1","meter":"m","register_wh":1003}"#,
            r#"{"seq":4,"kind":"session_ended","session":"s","station":"w","meter":"m","register_wh":1003,"end_register_wh":1500,"energy_wh":497,"reason":"finished","quality":"measured"}"#,
            r#"{"seq":5,"kind":"from_the_future"}"#,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn batch(first: u64, records: &[String]) -> UsageBatch {
        let prev = self::records()[..first as usize - 1]
            .iter()
            .fold([0; 32], |last, record| chain(&last, record));
        let last = first + records.len() as u64 - 1;
        let epoch = "e".into();
        UsageBatch { epoch, first, last, prev, records: records.to_vec(), replay: false }
    }

    #[test]
    fn counts_each_record_once_however_often_it_comes() {
        let mut usage = Usage::default();
        let records = records();
        usage.receive(&batch(1, &records[..3]));
        usage.receive(&batch(1, &records[..3]));
        usage.receive(&batch(2, &records[1..]));

        assert_eq!((usage.held(), usage.duplicates), (5, 5));
        assert_eq!(usage.records.len(), 5);
        assert_eq!(usage.quarantined, [records[4].clone()]);
        assert_eq!(usage.sessions["s"].end.as_ref().and_then(|end| end.energy_wh), Some(497));
        assert_eq!(usage.imbalances(), Vec::<String>::new());
    }

    #[test]
    fn counts_no_interval_of_a_register_twice() {
        let mut meter = Meter::default();
        assert_eq!(meter.count(100, 200), 100);
        assert_eq!(meter.count(100, 200), 0);
        assert_eq!(meter.count(50, 250), 100);
        assert_eq!(meter.count(0, 300), 100);
        assert_eq!(meter.count(300, 300), 0);
    }

    #[test]
    fn notices_a_watt_hour_that_is_lost() {
        let mut usage = Usage::default();
        let mut records = records();
        records[3] = records[3].replace("497", "496");
        usage.receive(&batch(1, &records));
        assert_eq!(usage.imbalances(), ["m: 1 Wh"]);
    }

    #[test]
    fn stores_nothing_that_does_not_follow() {
        let mut usage = Usage::default();
        let records = records();
        usage.receive(&batch(3, &records[2..]));
        assert_eq!((usage.held(), usage.early_batches), (0, 1));

        let forked = UsageBatch { prev: [1; 32], ..batch(1, &records) };
        usage.receive(&forked);
        assert_eq!((usage.held(), usage.conflicts.len()), (0, 1));

        usage.receive(&batch(1, &records));
        usage.receive(&batch(1, &[records[0].replace("1000", "2000")]));
        assert_eq!((usage.held(), usage.conflicts.len()), (5, 2));
    }

    #[test]
    fn a_restored_backup_counts_what_comes_again() {
        let mut usage = Usage::default();
        let records = records();
        usage.receive(&batch(1, &records));
        usage.forget(3);
        assert_eq!(usage.held(), 3);
        assert_eq!(usage.sessions["s"].end, None);

        usage.receive(&batch(4, &records[3..]));
        assert_eq!((usage.held(), usage.duplicates), (5, 0));
        assert_eq!(usage.imbalances(), Vec::<String>::new());
    }
}
