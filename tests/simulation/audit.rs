//! The auditor: reads every record's bytes from the store as they appear and keeps books of its
//! own, by the contract's words alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::invariant::{Invariant, check};

pub type Hash = [u8; 32];

/// A session that the records say is open.
#[derive(Clone, Debug)]
pub struct Open {
    pub session: String,
    pub station: String,
    pub meter: Option<String>,
    pub authorised_by: String,
    pub ending: Option<String>,
    posted_wh: i64,
}

/// One meter's account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub first_wh: i64,
    pub last_wh: i64,
    pub sessions_wh: i64,
    pub unattributed_wh: i64,
    pub replaced_wh: i64,
}

/// What a new record changed that the world must judge by its own meters.
#[derive(Clone, Debug)]
pub enum Posted {
    /// The account of this meter is kept up to this register.
    Upto(String, i64),
    /// The account went over from one register to another.
    Replaced(String, i64, i64),
    Ended {
        session: String,
        energy_wh: Option<i64>,
        quality: String,
        reason: String,
    },
}

#[derive(Clone, Default)]
pub struct Audit {
    pub seq: u64,
    pub hash: Hash,
    pub open: BTreeMap<String, Open>,
    pub meters: BTreeMap<String, Account>,
    pub ended: u64,
    /// Energy of ended sessions by user.
    pub billed: BTreeMap<String, i64>,
    /// Kinds of records, and how sessions ended.
    pub seen: BTreeSet<String>,
    /// Boot and trust of the newest record, and whether trust came without a word.
    clock: Option<(u64, bool)>,
    pub clock_untold: bool,
    /// Hash after each record, to know them again.
    pub hashes: Vec<Hash>,
}

fn text(record: &Value, member: &str) -> String {
    record[member].as_str().unwrap_or_default().to_owned()
}

fn number(record: &Value, member: &str) -> i64 {
    record[member].as_i64().unwrap_or(i64::MIN)
}

/// `hash(n)` by the contract.
pub fn link(previous: &Hash, bytes: &[u8]) -> Hash {
    let hash = Sha256::new().chain_update(b"tapgate-ledger-1").chain_update(previous);
    hash.chain_update(bytes).finalize().into()
}

impl Audit {
    /// Takes the next record in.
    pub fn read(&mut self, seq: u64, hash: &Hash, bytes: &str) -> Vec<Posted> {
        check(seq == self.seq + 1, Invariant::Chain, || format!("{seq} follows {}", self.seq));
        self.hash = link(&self.hash, bytes.as_bytes());
        check(*hash == self.hash, Invariant::Chain, || format!("record {seq} has another hash"));
        self.seq = seq;
        self.hashes.push(self.hash);
        let record: Value = serde_json::from_str(bytes).unwrap_or_default();
        let says = record["seq"].as_u64();
        check(says == Some(seq), Invariant::Chain, || format!("record {seq} says {says:?}"));
        self.watch_clock(&record);
        let cause = record["cause"].as_str().or(record["reason"].as_str()).unwrap_or("");
        self.seen.insert(format!("{} {cause}", text(&record, "kind")).trim().to_owned());
        self.post(&record)
    }

    fn post(&mut self, record: &Value) -> Vec<Posted> {
        match text(record, "kind").as_str() {
            "session_started" => self.start(record),
            "session_slot" => {
                let session = text(record, "session");
                let Some(open) = self.open.get(&session).cloned() else {
                    return not_open(record);
                };
                let meter = open.meter.clone().unwrap_or_default();
                let (from, to) = (number(record, "from_wh"), number(record, "to_wh"));
                self.advance(&meter, from, to);
                if let Some(open) = self.open.get_mut(&session) {
                    open.posted_wh += to - from;
                }
                vec![Posted::Upto(meter, to)]
            }
            "session_ending" => {
                let Some(open) = self.open.get_mut(&text(record, "session")) else {
                    return not_open(record);
                };
                open.ending = Some(text(record, "reason"));
                Vec::new()
            }
            "interruption" => match self.open.get(&text(record, "session")) {
                Some(_) => Vec::new(),
                None => not_open(record),
            },
            "session_ended" => self.end(record),
            "unattributed" => {
                let meter = text(record, "meter");
                let (from, to) = (number(record, "from_wh"), number(record, "to_wh"));
                self.advance(&meter, from, to).unattributed_wh += to - from;
                vec![Posted::Upto(meter, to)]
            }
            "meter_commissioned" => {
                let (meter, first) = (text(record, "meter"), number(record, "new_register_wh"));
                let account = Account { first_wh: first, last_wh: first, ..Account::default() };
                let before = self.meters.insert(meter.clone(), account);
                let what = || format!("{meter} is commissioned twice");
                check(before.is_none(), Invariant::EveryWattHour, what);
                vec![Posted::Upto(meter, first)]
            }
            "meter_replaced" => {
                let meter = text(record, "meter");
                let old = number(record, "old_register_wh");
                let new = number(record, "new_register_wh");
                let account = self.advance(&meter, old, old);
                account.replaced_wh += new - old;
                account.last_wh = new;
                // The same meter, whose serial number became known.
                let moved = if new == old && record["old_serial"].is_null() {
                    Posted::Upto(meter, new)
                } else {
                    Posted::Replaced(meter, old, new)
                };
                vec![moved]
            }
            _ => Vec::new(),
        }
    }

    /// Whoever reads earlier stamps of a boot must be told when its clock became right.
    fn watch_clock(&mut self, record: &Value) {
        let boot = record["at"]["boot"].as_u64().unwrap_or(0);
        let synced = record["at"]["synced"].as_bool() == Some(true);
        if text(record, "kind") == "clock_set" {
            self.clock_untold = false;
        } else if self.clock.is_some_and(|(known, was)| known == boot && !was && synced) {
            self.clock_untold = true;
        }
        self.clock = Some((boot, synced));
    }

    fn start(&mut self, record: &Value) -> Vec<Posted> {
        let session = text(record, "session");
        let (station, meter) = (text(record, "station"), record["meter"].as_str());
        let busy = self.open.values().find(|open| {
            open.station == station || (meter.is_some() && open.meter.as_deref() == meter)
        });
        check(busy.is_none(), Invariant::OneSession, || {
            format!("{session} starts on {station} beside {busy:?}")
        });
        if let (Some(meter), Some(register)) = (meter, record["register_wh"].as_i64()) {
            self.advance(meter, register, register);
        }
        let open = Open {
            session: session.clone(),
            station,
            meter: meter.map(String::from),
            authorised_by: text(record, "authorised_by"),
            ending: None,
            posted_wh: 0,
        };
        self.open.insert(session, open);
        Vec::new()
    }

    fn end(&mut self, record: &Value) -> Vec<Posted> {
        let session = text(record, "session");
        let Some(open) = self.open.remove(&session) else { return not_open(record) };
        self.ended += 1;
        let energy_wh = record["energy_wh"].as_i64();
        *self.billed.entry(text(record, "user")).or_default() += energy_wh.unwrap_or(0);
        let mut posted = Vec::new();
        if let (Some(meter), Some(energy)) = (&open.meter, energy_wh) {
            let from = self.meters.get(meter).map_or(0, |account| account.last_wh);
            let to = from + energy - open.posted_wh;
            let end = record["end_register_wh"].as_i64();
            check(end.is_none_or(|end| end == to), Invariant::EveryWattHour, || {
                format!("{session} ends at {end:?} with {energy} Wh, {from} Wh were posted")
            });
            self.advance(meter, from, to).sessions_wh += energy - open.posted_wh;
            posted.push(Posted::Upto(meter.clone(), to));
            if let Some(account) = self.meters.get_mut(meter) {
                account.sessions_wh += open.posted_wh;
            }
        }
        let (quality, reason) = (text(record, "quality"), text(record, "reason"));
        posted.push(Posted::Ended { session, energy_wh, quality, reason });
        posted
    }

    /// A posting starts where the last one ended.
    fn advance(&mut self, meter: &str, from: i64, to: i64) -> &mut Account {
        let account = self.meters.entry(meter.to_owned()).or_default();
        let last = account.last_wh;
        check(last == from && to >= from, Invariant::EveryWattHour, || {
            format!("{meter} is posted up to {last} Wh, then from {from} to {to} Wh")
        });
        account.last_wh = to;
        account
    }

    /// The open session on a station.
    pub fn on(&self, station: &str) -> Option<&Open> {
        self.open.values().find(|open| open.station == station)
    }

    /// Register differences are the sums of what was posted.
    pub fn check_balances(&self) {
        for (meter, account) in &self.meters {
            let open: i64 = self
                .open
                .values()
                .filter(|open| open.meter.as_deref() == Some(meter))
                .map(|open| open.posted_wh)
                .sum();
            let Account { first_wh, last_wh, sessions_wh, unattributed_wh, replaced_wh } = account;
            let posted = sessions_wh + unattributed_wh + replaced_wh + open;
            check(last_wh - first_wh == posted, Invariant::EveryWattHour, || {
                format!("{meter}: {account:?}, {open} Wh open")
            });
        }
    }
}

fn not_open(record: &Value) -> Vec<Posted> {
    panic!("invariant {} is broken: not open: {record}", Invariant::OneSession);
}
