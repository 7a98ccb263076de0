//! What holds after every step, and how everything comes to rest once faults cease.

use std::collections::BTreeMap;

use tapgate::core::event::Event;
use tapgate::core::orders::OrderedBy;

use crate::cloud::{LIST, canonical};
use crate::disk::Health;
use crate::invariant::{Invariant, check};
use crate::people::uid;
use crate::plant::Relay;
use crate::world::{Death, Later, Trouble, World, at_once};

/// Everything is at rest this long after the last fault: the longest session, a fault that clears,
/// a meter that is doubted, a cloud that is asked again.
const REST_MS: u64 = 15 * 60_000;
/// By then what a failing disk did not take is tried again.
const SAVED_MS: u64 = 15_000;
/// Between two looks.
const LOOK_MS: u64 = 5_000;

impl World {
    pub fn check_every_step(&mut self) {
        self.audit.check_balances();
        let Some(daemon) = &self.daemon else { return };
        let mut stations: BTreeMap<&str, usize> = BTreeMap::new();
        for open in self.audit.open.values() {
            *stations.entry(open.station.as_str()).or_default() += 1;
        }
        let single = stations.values().all(|sessions| *sessions == 1);
        check(single, Invariant::OneSession, || format!("{stations:?}"));
        let works_for = self.time.saturating_sub(self.disk_works_since);
        let saved = self.disk != Health::Works || works_for < SAVED_MS;
        check(saved || daemon.gateway.unsaved() == 0, Invariant::Settles, || {
            format!("{} records wait although the disk works", daemon.gateway.unsaved())
        });
        // What the core runs is on record: a session is not invented, nor are two.
        if daemon.gateway.unsaved() == 0 {
            let now = self.now();
            for view in daemon.gateway.stations(now) {
                let Some(session) = view.session else { continue };
                let id = session.session.to_string();
                let known = self
                    .audit
                    .open
                    .get(&id)
                    .is_some_and(|open| open.station == view.station.as_str());
                check(known, Invariant::PowerOnRecord, || {
                    format!("{} runs {id}, which is not on record", view.station)
                });
            }
        }
    }

    /// What the store says of its list is what one version of the cloud said, entry by entry.
    pub fn check_list(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let page = at_once(daemon.store.entries_after(None, 10_000)).expect("read");
        let Some(head) = page.head else {
            let none = self.badges.version == 0;
            return check(none, Invariant::ListWhole, || "the list is gone".into());
        };
        let list = head.allowlist;
        check(list.list == LIST, Invariant::ListWhole, || format!("another list: {list:?}"));
        check(list.version >= self.badges.version, Invariant::ListWhole, || {
            format!("version {} after {}", list.version, self.badges.version)
        });
        let published = self.cloud.published.iter().find(|it| it.version == list.version);
        let whole = published.is_some_and(|published| {
            let found = page.entries.iter().map(|(_, entry)| entry.as_bytes());
            published.digest == list.digest
                && published.entries.len() == page.entries.len()
                && published.entries.values().map(canonical).zip(found).all(|(a, b)| a == b)
        });
        check(whole, Invariant::ListWhole, || format!("{list:?} is no version of the cloud"));
        if list.version > self.badges.version {
            self.badges.version = list.version;
            let entries = published.map(|published| published.entries.clone()).unwrap_or_default();
            // A local block ends when the list has the badge blocked, or not at all.
            self.badges.blocked.retain(|blocked| {
                entries.get(&blocked.to_string()).is_some_and(|entry| entry["status"] == "active")
            });
        }
    }

    /// The cloud holds nothing that the ledger does not.
    pub fn check_cloud(&self) {
        let Some((hash, _)) = self.cloud.held.last() else { return };
        let ours = self.audit.hashes.get(self.cloud.held.len() - 1);
        check(ours == Some(hash), Invariant::CountedOnce, || {
            format!("the cloud's record {} is not the ledger's", self.cloud.held.len())
        });
    }

    /// Faults cease and people go home; then everything must come to rest in time.
    pub fn come_to_rest(&mut self) {
        self.settling = true;
        self.next_happening = u64::MAX;
        self.faults_cease();
        let limit = self.time + REST_MS;
        loop {
            let look = self.time + LOOK_MS;
            while self.time < look {
                self.advance(look);
            }
            self.technicians_leave();
            self.send_usage();
            match self.unrest() {
                None => break,
                Some(what) => check(self.time < limit, Invariant::Settles, || what),
            }
        }
        self.judge_the_end();
        self.judge_a_last_start();
    }

    fn faults_cease(&mut self) {
        self.death = None;
        self.mend(Trouble::Disk);
        for id in self.station_ids() {
            let time = self.time;
            let bench = self.bench(&id);
            bench.plant.load(&[(1, 0)]);
            bench.plant.vehicle =
                bench.plant.vehicle.map(|_| tapgate::core::event::Vehicle::Absent);
            bench.glitch = None;
            if bench.plant.relay != Relay::Obeys || bench.unit_dead {
                bench.fault_at = Some(time);
            }
            bench.plant.relay = Relay::Obeys;
            self.mend(Trouble::Unit(id));
        }
        for reader in self.badges.lost_readers.clone() {
            self.mend(Trouble::Reader(reader));
        }
        self.synchronise();
        self.settle();
        self.lose_broker(100);
        self.broker.calm();
        // It comes with the next connection.
        let _ = self.cloud.publish_last();
        self.later(200, Later::Connect);
    }

    fn technicians_leave(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        for id in self.station_ids() {
            let open = self.audit.on(id.as_str());
            if open.is_some_and(|open| open.authorised_by == "technician" && open.ending.is_none())
            {
                self.order_stop(&id, OrderedBy::Technician, true);
            }
            let Some(daemon) = &self.daemon else { return };
            let marks = at_once(daemon.store.out_of_service()).expect("read");
            if marks.iter().any(|(station, _)| *station == id) {
                let back = at_once(daemon.store.return_to_service(id.clone()));
                check(back.is_ok(), Invariant::Settles, || format!("{id}: {back:?}"));
                self.events.push_back(Event::ReturnedToService { station: id });
            }
        }
        self.settle();
    }

    /// What is not at rest yet.
    fn unrest(&self) -> Option<String> {
        let Some(daemon) = &self.daemon else { return Some("the daemon is down".into()) };
        if let Some(open) = self.audit.open.values().next() {
            return Some(format!("a session is open: {open:?}"));
        }
        if daemon.gateway.unsaved() > 0 {
            return Some(format!("{} records are not saved", daemon.gateway.unsaved()));
        }
        for view in daemon.gateway.stations(self.now()) {
            let bench = &self.benches[&view.station];
            if view.state.as_str() != "available" {
                return Some(format!("{} is {:?}, {:?}", view.station, view.state, view.fault));
            }
            if bench.plant.closed {
                return Some(format!("{} is closed for nobody", view.station));
            }
            if bench.meter.is_some() && view.register_wh != Some(bench.plant.register_wh()) {
                let shown = bench.plant.register_wh();
                return Some(format!("{} shows {shown} Wh: {view:?}", view.station));
            }
        }
        if self.badges.version != self.cloud.newest().version {
            return Some(format!("version {} decides", self.badges.version));
        }
        let core = daemon.gateway.allowlist().map(|list| list.version);
        if core != Some(self.badges.version) {
            return Some(format!("the core decides by version {core:?}"));
        }
        if !self.link_is_at_rest() {
            let (held, seq) = (self.cloud.held.len(), self.audit.seq);
            let next = self.link_deadline();
            return Some(format!("the cloud has {held} of {seq} records, goes on at {next:?}"));
        }
        None
    }

    fn judge_the_end(&mut self) {
        let hashes = self.cloud.held.iter().map(|(hash, _)| hash);
        check(hashes.eq(self.audit.hashes.iter()), Invariant::CountedOnce, || {
            format!("the cloud has {} of {} records", self.cloud.held.len(), self.audit.seq)
        });
        check(self.cloud.counted == self.audit.billed, Invariant::CountedOnce, || {
            format!("counted {:?}, billed {:?}", self.cloud.counted, self.audit.billed)
        });
        for bench in self.benches.values() {
            let followed = bench.meter.is_none() || bench.is_followed();
            check(followed, Invariant::EveryWattHour, || {
                format!("{} has a meter that nobody follows", bench.id)
            });
        }
        let card = uid(crate::cloud::RESIDENTS[0].0);
        if let Some(daemon) = &self.daemon {
            let entry = at_once(daemon.store.lookup(card)).expect("read");
            self.check_lookup(card, entry.as_ref());
            let whole = at_once(daemon.store.verify());
            check(whole.is_ok(), Invariant::Chain, || format!("{whole:?}"));
        }
    }

    /// Whatever was, the next start finds a building at rest.
    fn judge_a_last_start(&mut self) {
        self.die(Death::Power(60));
        (self.synced, self.wall_ahead) = (true, self.plan.wall);
        let end = self.time + 30_000;
        while self.time < end {
            self.advance(end);
        }
        let at_rest = self.audit.open.is_empty() && self.benches.values().all(|b| !b.plant.closed);
        check(at_rest, Invariant::Settles, || format!("after a start: {:?}", self.audit.open));
    }
}
