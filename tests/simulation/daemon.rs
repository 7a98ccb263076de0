//! What the daemon's loop does around core and store: starts, commits, runs commands.

use std::collections::BTreeMap;

use tapgate::core::access::Entry;
use tapgate::core::event::{Allowlist, Command, Event, Step};
use tapgate::core::gateway::{Gateway, Startup};
use tapgate::core::ids::{SessionId, StationId};
use tapgate::core::ledger::OverrideAction;
use tapgate::core::memo::Memo;
use tapgate::core::orders::OrderId;
use tapgate::core::time::Wall;
use tapgate::io::store::{ListNews, ListsByHand, Opening, Store, StoreError};
use tokio::sync::mpsc;

use crate::audit::Posted;
use crate::bench::{Bench, FieldOrder};
use crate::disk::{self, Health};
use crate::invariant::{Invariant, check, holds};
use crate::world::{Later, World, at_once};

/// What lives as long as the process.
pub struct Daemon {
    pub gateway: Gateway,
    pub store: Store,
    pub lists: ListsByHand,
    pub news: mpsc::Sender<ListNews>,
    pub heard: mpsc::Receiver<ListNews>,
    pub kept_memos: Vec<Memo>,
    pub boot: u32,
    pub trusted: bool,
    pub orders: u64,
}

/// News of lists that wait.
const NEWS: usize = 64;
/// A disk that cannot be opened is tried again after so long, as systemd does it.
const OPEN_AGAIN_MS: u64 = 5_000;

impl World {
    pub fn start_daemon(&mut self) {
        disk::set(self.disk);
        let now = self.now();
        let boot_id = format!("boot-{}", self.boot_id);
        let path = self.folder.path().join("tapgate.db");
        let (wall, uptime, synced) = (now.wall, now.uptime, self.synced);
        let opening = Opening { path: &path, boot_id: &boot_id, wall, uptime, synced };
        let (store, lists, recovered) = match Store::open_by_hand(&opening) {
            Ok(opened) => opened,
            Err(StoreError::Full { .. } | StoreError::Io { .. }) if self.disk != Health::Works => {
                self.start_at = self.time + OPEN_AGAIN_MS;
                return;
            }
            Err(error) => panic!("the store does not open: {error}"),
        };
        check(recovered.set_aside.is_empty(), Invariant::Chain, || {
            format!("set aside: {:?}", recovered.set_aside)
        });
        self.starts += 1;
        self.disk_works_since = self.disk_works_since.max(self.time);
        let trusted = self.synced || recovered.clock_was_trusted();
        let (news, heard) = mpsc::channel(NEWS);
        let startup = Startup {
            version: "1.0.0".into(),
            boot_id,
            allowlist: recovered.allowlist.clone(),
            allowlist_arrived: recovered.allowlist_arrived,
            clock_floor: recovered.clock_floor.max(Wall(1_700_000_000_000)),
        };
        let at = tapgate::core::time::Stamp { boot: recovered.boot, synced: trusted, ..now };
        let site = self.plan.site.clone();
        let (gateway, step) = Gateway::recover(site, &recovered.survivors(), startup, at);
        self.daemon = Some(Daemon {
            gateway,
            store,
            lists,
            news,
            heard,
            kept_memos: recovered.memos.clone(),
            boot: recovered.boot,
            trusted,
            orders: 0,
        });
        self.benches.values_mut().for_each(Bench::meet_another_daemon);
        self.badges.resume(self.daemon.as_ref().map(|daemon| &daemon.store));
        self.audit_records();
        self.check_list();
        self.begin(step, recovered.unrecorded_allowlist());
    }

    fn begin(&mut self, step: Step, unrecorded: Option<Allowlist>) {
        self.steps += 1;
        self.execute(step);
        if let Some(allowlist) = unrecorded {
            self.adopt_list(allowlist);
        }
        self.record_overrides();
        for reader in self.plan.site.readers.clone() {
            if !self.badges.lost_readers.contains(&reader.id) {
                self.events.push_back(Event::ReaderFound { reader: reader.id });
            }
        }
        self.settle();
    }

    /// An event that the loop hands to the core between two others.
    pub fn handle(&mut self, event: Event) {
        let now = self.now();
        let Some(daemon) = &mut self.daemon else { return };
        if self.trace {
            println!("{} {event:?}", self.time);
        }
        let step = daemon.gateway.handle_event(&event, now);
        self.steps += 1;
        self.execute(step);
    }

    /// Record, then act.
    pub fn execute(&mut self, step: Step) {
        if !step.records.is_empty() && self.dies_now() {
            return;
        }
        let now = self.now();
        let Some(daemon) = &mut self.daemon else { return };
        let mut commands = step.commands.clone();
        if !step.records.is_empty() {
            match at_once(daemon.store.commit(step.records.clone())) {
                Ok(_) => self.broker.records_committed = true,
                Err(StoreError::Impossible { kind, reason }) => {
                    panic!("invariant {} is broken: {kind}: {reason}", Invariant::NoContradiction)
                }
                Err(error) => {
                    if self.trace {
                        println!("{} {error}", self.time);
                    }
                    commands = daemon.gateway.handle_commit_failure(step, now).commands;
                }
            }
        }
        self.keep_memos(false);
        self.audit_records();
        for command in commands {
            if self.dies_now() {
                return;
            }
            self.run_command(command);
        }
        self.send_usage();
    }

    pub fn keep_memos(&mut self, stopping: bool) {
        let now = self.now();
        let Some(daemon) = &mut self.daemon else { return };
        let memos = daemon.gateway.memos(stopping.then_some(now));
        if memos != daemon.kept_memos && at_once(daemon.store.keep_memos(memos.clone())).is_ok() {
            daemon.kept_memos = memos;
        }
    }

    pub fn keep_time(&mut self) {
        let now = self.now();
        if let Some(daemon) = &self.daemon {
            // A failure costs precision after a power cut, nothing else.
            let _ = at_once(daemon.store.keep_time(now));
        }
    }

    /// The auditor reads what is new, and judges it by the world's meters.
    pub fn audit_records(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        loop {
            let records = at_once(daemon.store.records(self.audit.seq + 1, 200)).expect("read");
            if records.is_empty() {
                break;
            }
            for record in records {
                if self.trace {
                    println!("{} {}", self.time, record.record);
                }
                let posted = self.audit.read(record.seq, &record.hash, &record.record);
                for posted in posted {
                    judge(&mut self.benches, posted);
                }
            }
        }
        let told = !self.audit.clock_untold;
        check(told, Invariant::Chain, || "the clock became right without a record".into());
        let standing = at_once(daemon.store.standing()).expect("read");
        check(
            (standing.head.seq, standing.head.hash) == (self.audit.seq, self.audit.hash),
            Invariant::Chain,
            || format!("the head is {}, the records end at {}", standing.head.seq, self.audit.seq),
        );
    }

    fn run_command(&mut self, command: Command) {
        if self.trace {
            println!("{} {command:?}", self.time);
        }
        match command {
            Command::CloseSwitch(id) => {
                self.check_closing(&id);
                self.order_field(&id, FieldOrder::Close);
            }
            Command::OpenSwitch(id) => {
                self.check_opening(&id);
                self.opened.extend(self.audit.on(id.as_str()).map(|open| open.session.clone()));
                self.order_field(&id, FieldOrder::Open);
            }
            Command::ReadSwitch(id) => self.order_field(&id, FieldOrder::ReadSwitch),
            Command::ReadMeter(id) => self.order_field(&id, FieldOrder::ReadMeter),
            Command::ReadRegister(id) => self.order_field(&id, FieldOrder::ReadRegister),
            Command::PaceMeter(id, pace) => {
                let bench = self.bench(&id);
                if bench.plant.pace != pace {
                    bench.plant.pace = pace;
                    let soon = bench.plant.pace_ms();
                    self.later.retain(|_, later| !matches!(later, Later::Poll(of) if *of == id));
                    self.later(soon, Later::Poll(id));
                }
            }
            Command::WatchButtons(reader, stations) => {
                self.watched.insert(reader, stations);
            }
            Command::SetLamp(..)
            | Command::ShowFeedback(..)
            | Command::Notify(_)
            | Command::PublishStation(_)
            | Command::Answer(..) => {}
        }
    }

    fn check_closing(&self, id: &StationId) {
        let open = self.audit.on(id.as_str());
        let goes_on = open.is_some_and(|o| o.ending.is_none() && !self.opened.contains(&o.session));
        check(goes_on, Invariant::PowerOnRecord, || format!("{id} closes, on record: {open:?}"));
    }

    fn check_opening(&self, id: &StationId) {
        let Some(bench) = self.benches.get(id) else { return };
        if !bench.is_laundry() || !bench.is_seen_under_load() {
            return;
        }
        let open = self.audit.on(id.as_str());
        let session = open.and_then(|open| open.session.parse::<SessionId>().ok());
        let ordered = session.is_some_and(|session| self.ordered.contains(&session));
        let theirs = open.is_some_and(|open| open.authorised_by == "technician");
        let at_fault = bench.is_at_fault()
            || bench.fault_at.is_some_and(|at| self.time.saturating_sub(at) < 120_000);
        // A clock that is set wrong makes a short outage seem long.
        let ending = open.and_then(|open| open.ending.as_deref());
        let misled = self.clock_wrong && ending == Some("power_loss");
        // A new daemon finishes what the last one intended before it has heard of the meter.
        let finishes = ending.is_some() && !bench.shown_right;
        check(ordered || theirs || at_fault || misled || finishes, Invariant::NoCut, || {
            format!("{id} is opened at {} W, on record: {open:?}", bench.plant.power_w())
        });
    }

    // Lists and blocks, as the daemon has it.

    pub fn adopt_list(&mut self, allowlist: Allowlist) {
        let running = self.running_entries();
        self.handle(Event::AllowlistApplied { allowlist, running });
        self.record_overrides();
    }

    fn running_entries(&self) -> Vec<(SessionId, Option<Entry>)> {
        let Some(daemon) = &self.daemon else { return Vec::new() };
        let badges = daemon.gateway.running_badges().into_iter();
        let entry = |uid| at_once(daemon.store.lookup(uid)).expect("the list can be read");
        badges.map(|(session, uid)| (session, entry(uid))).collect()
    }

    pub fn record_overrides(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let notes = at_once(daemon.store.override_notes()).expect("read");
        let Some(newest) = notes.last().map(|note| note.id) else { return };
        for note in notes {
            let running = match note.action {
                OverrideAction::Blocked => self.running_entries(),
                OverrideAction::Cleared => Vec::new(),
            };
            let (badge, action, by) = (note.badge, note.action, note.by);
            self.handle(Event::BadgeOverridden { badge, action, by, running });
        }
        if let Some(daemon) = &self.daemon {
            // They are recorded again after a failure.
            let _ = at_once(daemon.store.forget_override_notes(newest));
        }
    }

    pub fn draw_order(&mut self) -> OrderId {
        let Some(daemon) = &mut self.daemon else { return OrderId(0) };
        daemon.orders += 1;
        OrderId(daemon.orders)
    }

    // The field bus.

    fn order_field(&mut self, id: &StationId, order: FieldOrder) {
        let takes = self.random.between(5, 60);
        let time = self.time;
        let bench = self.bench(id);
        let takes = if bench.unit_dead { takes + 500 } else { takes };
        bench.busy_until = bench.busy_until.max(time) + takes;
        let due = bench.busy_until - time;
        self.later(due, Later::Field(id.clone(), order));
    }

    pub fn on_field_order(&mut self, id: &StationId, order: FieldOrder) {
        let report = self.bench(id).report(order);
        self.events.extend(report);
    }

    /// The bus polls a station: its switch, and its meter.
    pub fn poll(&mut self, id: &StationId) {
        let bench = self.bench(id);
        let pace = bench.plant.pace_ms();
        if self.daemon.is_some() {
            let bench = self.bench(id);
            let both = [bench.report(FieldOrder::ReadSwitch), bench.report(FieldOrder::ReadMeter)];
            self.events.extend(both.into_iter().flatten());
        }
        self.later(pace, Later::Poll(id.clone()));
    }
}

fn judge(benches: &mut BTreeMap<StationId, Bench>, posted: Posted) {
    fn of_meter(meter: &str) -> impl Fn(&&mut Bench) -> bool {
        move |bench| bench.meter.as_deref() == Some(meter)
    }
    let verdict = match posted {
        Posted::Upto(meter, register) => {
            let mut found = benches.values_mut();
            found.find(of_meter(&meter)).map_or(Ok(()), |bench| bench.may_be_posted(register))
        }
        Posted::Replaced(meter, old, new) => {
            let mut found = benches.values_mut();
            found.find(of_meter(&meter)).map_or(Ok(()), |bench| bench.follow(old, new))
        }
        Posted::Ended { session, energy_wh, quality, reason } => {
            let Some(energy) = energy_wh else { return };
            let sure = !benches.values().any(|bench| bench.is_odd(&session));
            let flowed: i64 = benches.values().map(|bench| bench.flowed_wh(&session)).sum();
            let much = energy > flowed + 3;
            let little = quality == "measured" && energy < flowed - 3;
            if sure && (much || little) {
                Err(format!("{session} is billed {energy} of {flowed} Wh, {quality}, {reason}"))
            } else {
                Ok(())
            }
        }
    };
    holds(verdict, Invariant::EveryWattHour);
}
