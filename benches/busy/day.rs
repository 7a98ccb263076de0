//! A day of 16 washing machines with 10 washes each, lived by the real core over the real store:
//! 160 taps between 7:00 and 21:00, evenly spread, so that eleven machines run at a time. Whatever
//! the core records is committed as the daemon commits it, memos and kept time included.

use std::time::Duration;

use anyhow::Context as _;
use tapgate::config;
use tapgate::core::memo::Memo;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::store::{Acknowledgement, Opening, Store};

use crate::card::Card;
use crate::laundry::{Laundry, SESSIONS_EACH, STATIONS};

/// The daemon keeps the time where nothing was committed for so long.
const TIME_KEPT_EVERY_S: u64 = 600;
const DAY_S: u64 = 24 * 3_600;
const MIDNIGHT: i64 = 1_795_305_600_000;

/// Measures a day without and with a cloud that acknowledges every commit by itself.
pub(crate) fn measure(card: &Card) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for (name, acknowledged) in [("offline", false), ("acknowledged", true)] {
        let path = card.path().join(name).join("tapgate.db");
        let mut days = runtime.block_on(Days::open(&path, acknowledged))?;
        // The log grows to its size once in its life.
        runtime.block_on(days.pass())?;
        let (before, commits, records) = (card.written()?, days.commits, days.records);
        runtime.block_on(days.pass())?;
        let bytes = card.written()? - before;
        let (commits, records) = (days.commits - commits, days.records - records);
        let sessions = STATIONS * SESSIONS_EACH;
        println!(
            "a day of {STATIONS} stations with {SESSIONS_EACH} sessions each, {name}: {} KB, {} KB \
             a session, {records} records in {commits} commits of {} bytes",
            bytes / 1_000,
            bytes / sessions / 1_000,
            bytes / commits
        );
        runtime.block_on(days.store.close());
    }
    Ok(())
}

struct Days {
    store: Store,
    laundry: Laundry,
    epoch: String,
    acknowledged: bool,
    uptime_s: u64,
    /// When the time was kept or something committed.
    kept_s: u64,
    commits: u64,
    records: u64,
    memos: Vec<Memo>,
}

impl Days {
    async fn open(path: &std::path::Path, acknowledged: bool) -> anyhow::Result<Days> {
        let wall = Wall(MIDNIGHT);
        let opening = Opening { path, boot_id: "one", wall, uptime: Uptime(0), synced: true };
        let (store, recovered) = Store::open(&opening)?;
        let epoch = recovered.standing.head.epoch;
        let site = config::parse(&crate::laundry::config(), "busy.toml")
            .map_err(|errors| anyhow::anyhow!("{errors:?}"))?
            .site;
        let laundry = Laundry::new(site, stamp(0));
        let (uptime_s, kept_s, commits, records, memos) = (0, 0, 0, 0, Vec::new());
        Ok(Days { store, laundry, epoch, acknowledged, uptime_s, kept_s, commits, records, memos })
    }

    async fn pass(&mut self) -> anyhow::Result<()> {
        for _ in 0..DAY_S {
            self.uptime_s += 1;
            let now = stamp(self.uptime_s);
            self.laundry.pass_a_second(now);
            while let Some(step) = self.laundry.next_step(now) {
                if !step.records.is_empty() {
                    self.commit(step.records.clone(), now).await?;
                }
                let memos = self.laundry.gateway.memos(None);
                if memos != self.memos {
                    self.store.keep_memos(memos.clone()).await?;
                    self.memos = memos;
                }
                self.laundry.run(step.commands);
            }
            if self.uptime_s - self.kept_s >= TIME_KEPT_EVERY_S {
                self.kept_s = self.uptime_s;
                self.store.keep_time(now).await?;
            }
        }
        let washes = self.laundry.washes;
        let wanted = STATIONS * SESSIONS_EACH * self.uptime_s / DAY_S;
        (washes == wanted).then_some(()).with_context(|| format!("{washes} washes of {wanted}"))
    }

    async fn commit(
        &mut self,
        records: Vec<tapgate::core::ledger::Record>,
        now: Stamp,
    ) -> anyhow::Result<()> {
        self.kept_s = self.uptime_s;
        self.commits += 1;
        self.records += records.len() as u64;
        let head = self.store.commit(records).await?;
        if self.acknowledged {
            let (epoch, upto, hash) = (self.epoch.clone(), head.seq, head.hash);
            let ack = Acknowledgement { epoch, upto, hash, issued_at: now.wall, at: now };
            self.store.acknowledge(ack).await?;
        }
        Ok(())
    }
}

fn stamp(uptime_s: u64) -> Stamp {
    let wall = Wall(MIDNIGHT) + Duration::from_secs(uptime_s);
    Stamp { boot: 1, uptime: Uptime(1_000 * uptime_s), wall, synced: true }
}
