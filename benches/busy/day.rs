//! A day of 16 machines with 10 sessions each, committed as the daemon commits it: one transaction
//! for the start, for each quarter hour, for the intention to end and for the end.

use std::time::Duration;

use tapgate::core::ids::{DeviceId, SessionId, StationId};
use tapgate::core::ledger::{
    Authority, EndReason, Fact, MeterChange, Quality, Record, SessionEnd, SessionStart,
};
use tapgate::core::site::StationKind;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::store::{Acknowledgement, Opening, Store};

use crate::card::Card;

const STATIONS: u64 = 16;
const SESSIONS_EACH: u64 = 10;
/// A wash of 55 minutes touches so many quarter hours before its last one.
const SLOTS: i64 = 3;
const WASH_WH: i64 = 900;
/// The daemon keeps the time so often a day.
const TIME_KEPT: u64 = 144;
const MORNING: i64 = 1_795_305_600_000;

/// Measures a day without and with a cloud that acknowledges every commit by itself.
pub(crate) fn measure(card: &Card) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for (name, acknowledged) in [("offline", false), ("acknowledged", true)] {
        let path = card.path().join(name).join("tapgate.db");
        let mut day = runtime.block_on(Day::open(&path))?;
        // The log grows to its size once in its life.
        runtime.block_on(day.pass(acknowledged))?;
        let (before, commits) = (card.written()?, day.commits);
        runtime.block_on(day.pass(acknowledged))?;
        let (bytes, commits) = (card.written()? - before, day.commits - commits);
        let sessions = STATIONS * SESSIONS_EACH;
        println!(
            "a day of {STATIONS} stations with {SESSIONS_EACH} sessions each, {name}: {} KB, {} KB \
             a session, {commits} commits of {} bytes",
            bytes / 1_000,
            bytes / sessions / 1_000,
            bytes / commits
        );
        runtime.block_on(day.store.close());
    }
    Ok(())
}

struct Day {
    store: Store,
    epoch: String,
    uptime_s: u64,
    commits: u64,
    sessions: u64,
    registers: Vec<i64>,
}

impl Day {
    async fn open(path: &std::path::Path) -> anyhow::Result<Day> {
        let wall = Wall(MORNING);
        let opening = Opening { path, boot_id: "one", wall, uptime: Uptime(0), synced: true };
        let (store, recovered) = Store::open(&opening)?;
        let epoch = recovered.standing.head.epoch;
        let registers = vec![1_000_000; STATIONS as usize];
        let mut day = Day { store, epoch, uptime_s: 0, commits: 0, sessions: 0, registers };
        for station in 0..STATIONS {
            let change = MeterChange {
                station: name("washer", station).into(),
                meter: name("meter", station).into(),
                old_serial: None,
                old_register_wh: None,
                new_serial: Some("SN-123456".into()),
                new_register_wh: 1_000_000,
            };
            day.commit(vec![Fact::MeterCommissioned(change)], false).await?;
        }
        Ok(day)
    }

    async fn pass(&mut self, acknowledged: bool) -> anyhow::Result<()> {
        for number in 0..STATIONS * SESSIONS_EACH {
            self.session(number % STATIONS, acknowledged).await?;
        }
        for _ in 0..TIME_KEPT {
            self.uptime_s += 1;
            self.store.keep_time(self.now()).await?;
        }
        Ok(())
    }

    async fn session(&mut self, station: u64, acknowledged: bool) -> anyhow::Result<()> {
        self.sessions += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.sessions.to_be_bytes());
        let session = SessionId(id);
        let register = self.registers[station as usize];
        let start = SessionStart {
            session,
            station: StationId::from(name("washer", station)),
            station_kind: StationKind::Washer,
            user: Some(name("u", 1_000 + station).into()),
            badge: Some(name("b", 2_000 + station).into()),
            authorised_by: Authority::Allowlist,
            allowlist_version: Some(42),
            meter: Some(DeviceId::from(name("meter", station))),
            register_wh: Some(register),
            missing: false,
            uid: None,
        };
        self.commit(vec![Fact::SessionStarted(start.clone())], acknowledged).await?;
        let part = WASH_WH / (SLOTS + 1);
        for slot in 0..SLOTS {
            let from_wh = register + slot * part;
            let slot = Fact::SessionSlot {
                session,
                slot: self.now().wall,
                from_wh,
                to_wh: from_wh + part,
                estimated: false,
                since: None,
                until: None,
            };
            self.commit(vec![slot], acknowledged).await?;
        }
        let reason = EndReason::Finished;
        self.commit(vec![Fact::SessionEnding { session, reason }], acknowledged).await?;
        let from_wh = register + SLOTS * part;
        let end = register + WASH_WH;
        let last = Fact::SessionSlot {
            session,
            slot: self.now().wall,
            from_wh,
            to_wh: end,
            estimated: false,
            since: None,
            until: None,
        };
        let ended = SessionEnd {
            start,
            reason,
            end_register_wh: Some(end),
            energy_wh: Some(WASH_WH),
            duration_s: 3_300,
            quality: Quality::Measured,
        };
        self.registers[station as usize] = end;
        self.commit(vec![last, Fact::SessionEnded(ended)], acknowledged).await
    }

    async fn commit(&mut self, facts: Vec<Fact>, acknowledged: bool) -> anyhow::Result<()> {
        self.uptime_s += 60;
        self.commits += 1;
        let at = self.now();
        let records = facts.into_iter().map(|fact| Record { at, fact }).collect();
        let head = self.store.commit(records).await?;
        if acknowledged {
            let (epoch, upto, hash) = (self.epoch.clone(), head.seq, head.hash);
            let ack = Acknowledgement { epoch, upto, hash, issued_at: at.wall, at };
            self.store.acknowledge(ack).await?;
        }
        Ok(())
    }

    fn now(&self) -> Stamp {
        let wall = Wall(MORNING) + Duration::from_secs(self.uptime_s);
        Stamp { boot: 1, uptime: Uptime(1_000 * self.uptime_s), wall, synced: true }
    }
}

fn name(kind: &str, number: u64) -> String {
    format!("{kind}-{number}")
}
