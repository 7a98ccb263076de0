//! A virtual building: people, cards, relays, machines and meters around the real core.

mod building;
mod deaths;
mod disk;
mod orders;
mod plant;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tapgate::core::access::{Denial, Entry};
use tapgate::core::badge::{Technology, Uid};
use tapgate::core::event::{Allowlist, Command, Event, Feedback, Notice, Step, Tap};
use tapgate::core::gateway::{Gateway, Startup};
use tapgate::core::ids::{SessionId, StationId};
use tapgate::core::ledger::{Fact, SessionEnd};
use tapgate::core::orders::Answer as OrderAnswer;
use tapgate::core::site::{Site, StationKind};
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::core::view::StationView;

pub use building::*;
pub use disk::Disk;
pub use plant::{Answer, PER_WH, Plant, Relay};

/// 2026-11-22T10:00:00Z.
pub const MORNING: i64 = 1_795_341_600_000;

#[derive(Clone)]
pub struct World {
    pub site: Site,
    pub gateway: Gateway,
    pub disk: Disk,
    pub plants: BTreeMap<StationId, Plant>,
    pub allowlist: BTreeMap<Uid, Entry>,
    /// What the readers showed, in order.
    pub shown: Vec<Feedback>,
    pub notices: Vec<Notice>,
    /// Buttons that are watched.
    pub watched: Vec<StationId>,
    /// What lamps were set to, in order.
    pub lamps: Vec<(StationId, bool)>,
    /// Effects (a commit, a command) until the daemon is killed.
    pub kill_after: Option<usize>,
    /// What it dies of.
    pub death: Death,
    /// Washers and dryers that were opened while they drew.
    pub cuts_under_load: u32,
    /// Sessions whose switch was told to open: it never closes for them again.
    opened: BTreeSet<SessionId>,
    /// Energy that flowed while a session was open.
    flowed: BTreeMap<SessionId, i64>,
    /// How often the daemon started.
    pub starts: u32,
    pub boot: u32,
    pub uptime: u64,
    pub wall: i64,
    pub synced: bool,
    version: u64,
    ids: u8,
    /// What became of orders.
    pub answers: Vec<OrderAnswer>,
    published: BTreeMap<StationId, Told>,
    events: VecDeque<Event>,
    dead: bool,
    /// It only shows what would have become of another one.
    is_copy: bool,
}

/// What dies with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    Daemon,
    /// The whole building, for so long; whether the clock is right afterwards.
    Power {
        minutes: u64,
        synced: bool,
    },
}

/// A station's public state, its fault and its note.
type Told = (String, Option<String>, Option<String>);

/// More timeouts than this at one moment mean that the core runs in circles.
const TIMEOUTS_AT_ONCE: usize = 50;

impl World {
    pub fn new(site: Site) -> World {
        let (gateway, _) = recovered(&site, &Disk::default(), None, stamp_at(1, 0, MORNING, true));
        let plants = site.stations.iter().map(|s| (s.id.clone(), Plant::new(s))).collect();
        let mut world = World {
            site,
            gateway,
            disk: Disk::default(),
            plants,
            allowlist: everybody(),
            shown: Vec::new(),
            notices: Vec::new(),
            watched: Vec::new(),
            lamps: Vec::new(),
            kill_after: None,
            death: Death::Daemon,
            cuts_under_load: 0,
            opened: BTreeSet::new(),
            flowed: BTreeMap::new(),
            starts: 0,
            boot: 1,
            uptime: 60_000,
            wall: MORNING,
            synced: true,
            version: 41,
            ids: 0,
            answers: Vec::new(),
            published: BTreeMap::new(),
            events: VecDeque::new(),
            dead: false,
            is_copy: false,
        };
        world.start_daemon();
        world.run(5);
        world
    }

    pub fn now(&self) -> Stamp {
        stamp_at(self.boot, self.uptime, self.wall, self.synced)
    }

    pub fn plant(&mut self, station: &str) -> &mut Plant {
        self.plants.get_mut(&StationId::from(station)).expect("a station of this world")
    }

    pub fn view(&self, station: &str) -> StationView {
        self.gateway.station(&station.into(), self.now()).expect("a station of this world")
    }

    pub fn state(&self, station: &str) -> String {
        self.view(station).state.as_str().into()
    }

    pub fn ended(&self) -> Vec<SessionEnd> {
        let facts = self.disk.records.iter().map(|record| &record.fact);
        let ends = facts.filter_map(|fact| match fact {
            Fact::SessionEnded(end) => Some(end.clone()),
            _ => None,
        });
        ends.collect()
    }

    pub fn count(&self, wanted: impl Fn(&Fact) -> bool) -> usize {
        self.disk.records.iter().filter(|record| wanted(&record.fact)).count()
    }

    pub fn started(&self) -> usize {
        self.count(|fact| matches!(fact, Fact::SessionStarted(_)))
    }

    pub fn last_shown(&self) -> Option<Feedback> {
        self.shown.last().copied()
    }

    pub fn denied(&self, denial: Denial) -> bool {
        self.last_shown() == Some(Feedback::Denied(denial))
    }

    /// Holds a card to a reader, and takes it away.
    pub fn tap(&mut self, reader: &str, uid: Uid) {
        self.tap_with(reader, uid, Technology::MifareClassic1k);
    }

    pub fn tap_with(&mut self, reader: &str, uid: Uid, technology: Technology) {
        self.present(reader, uid, technology);
        self.pass(300);
        self.remove(reader);
        self.pass(300);
    }

    pub fn present(&mut self, reader: &str, uid: Uid, technology: Technology) {
        let candidate = self.draw_id();
        let entry = self.allowlist.get(&uid).cloned();
        let reader = reader.into();
        self.happens(Event::BadgePresented(Tap { reader, uid, technology, entry, candidate }));
    }

    pub fn remove(&mut self, reader: &str) {
        self.happens(Event::BadgeRemoved { reader: reader.into() });
    }

    pub fn press(&mut self, station: &str) {
        let candidate = self.draw_id();
        self.happens(Event::ButtonPressed { station: station.into(), candidate });
    }

    /// The cloud pushes the list as it stands in `allowlist`.
    pub fn push_allowlist(&mut self) {
        self.version += 1;
        let running = self.gateway.running_badges();
        let running = running.into_iter().map(|(id, uid)| (id, self.allowlist.get(&uid).cloned()));
        let running = running.collect();
        self.happens(Event::AllowlistApplied { allowlist: self.head(), running });
    }

    pub fn happens(&mut self, event: Event) {
        self.events.push_back(event);
        self.settle();
    }

    /// Lets seconds pass.
    pub fn run(&mut self, seconds: u64) {
        let until = self.uptime + seconds * 1_000;
        while self.uptime < until {
            let busy = self.plants.values().any(|plant| plant.next_read < self.uptime + 1_000);
            let step = if busy { 200 } else { 1_000 };
            self.pass(step.min(until - self.uptime));
        }
    }

    pub fn run_minutes(&mut self, minutes: u64) {
        self.run(minutes * 60);
    }

    /// Lets milliseconds pass: machines draw, meters count and are read.
    pub fn pass(&mut self, milliseconds: u64) {
        self.uptime += milliseconds;
        self.wall += i64::try_from(milliseconds).expect("a short time");
        for (id, plant) in &mut self.plants {
            let energy = plant.pass(milliseconds);
            if let Some(session) = self.disk.session_on(id) {
                *self.flowed.entry(session).or_default() += energy;
            }
        }
        let due: Vec<StationId> = self
            .plants
            .iter()
            .filter(|(_, plant)| plant.has_meter && plant.next_read <= self.uptime)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.poll(&id);
        }
        self.settle();
    }

    /// Watt-hours that flowed while this session was open.
    pub fn flowed_in(&self, session: SessionId) -> i64 {
        self.flowed.get(&session).map_or(0, |energy| energy / PER_WH)
    }

    /// The bus polls a station: its switch, and its meter.
    fn poll(&mut self, id: &StationId) {
        let now = self.uptime;
        let plant = self.plants.get_mut(id).expect("a station of this world");
        plant.next_read = now + plant.pace_ms();
        let (switch, meter) = (plant.switch_event(id), plant.meter_event(id));
        self.events.extend([switch, meter].into_iter().flatten());
    }

    /// The daemon dies here and is started again after a moment.
    pub fn kill(&mut self) {
        self.dead = true;
        self.settle();
    }

    /// systemd stops the daemon and starts it again.
    pub fn restart(&mut self) {
        self.disk.memos = self.gateway.memos(Some(self.now()));
        self.kill();
    }

    /// The building loses its power for a while: relays open, the gateway boots again.
    pub fn cut_power(&mut self, minutes: u64, synced: bool) {
        for plant in self.plants.values_mut() {
            plant.closed = false;
        }
        self.events.clear();
        self.boot += 1;
        self.uptime = 20_000;
        self.wall += i64::try_from(minutes * 60_000).expect("a short time");
        self.synced = synced;
        for plant in self.plants.values_mut() {
            plant.next_read = 0;
        }
        self.start_daemon();
        self.settle();
    }

    pub fn start_daemon(&mut self) {
        self.starts += 1;
        let (gateway, step) = recovered(&self.site, &self.disk, Some(self.head()), self.now());
        self.gateway = gateway;
        self.published.clear();
        self.watched.clear();
        self.dead = false;
        self.perform(step);
        for reader in &self.site.readers {
            self.events.push_back(Event::ReaderFound { reader: reader.id.clone() });
        }
    }

    fn settle(&mut self) {
        loop {
            while !self.dead {
                let Some(event) = self.events.pop_front() else { break };
                let step = self.gateway.handle_event(&event, self.now());
                self.perform(step);
            }
            let mut turns = 0;
            while !self.dead
                && self.gateway.poll_timeout().is_some_and(|(at, _)| at <= self.now().uptime)
            {
                turns += 1;
                let why = self.gateway.poll_timeout();
                assert!(turns < TIMEOUTS_AT_ONCE, "the core runs in circles: {why:?}");
                let step = self.gateway.handle_timeout(self.now());
                self.perform(step);
            }
            if self.dead {
                self.events.clear();
                match self.death {
                    Death::Daemon => self.start_daemon(),
                    Death::Power { minutes, synced } => self.cut_power(minutes, synced),
                }
            } else if self.events.is_empty() {
                return;
            }
        }
    }

    fn dies_now(&mut self) -> bool {
        match &mut self.kill_after {
            Some(0) => {
                self.kill_after = None;
                self.dead = true;
            }
            Some(effects) => *effects -= 1,
            None => {}
        }
        self.dead
    }

    fn perform(&mut self, step: Step) {
        if !step.records.is_empty() {
            if self.dies_now() {
                return;
            }
            if self.disk.commit(&step.records).is_err() {
                let step = self.gateway.handle_commit_failure(step, self.now());
                assert!(step.records.is_empty(), "a full disk takes no records");
                self.disk.memos = self.gateway.memos(None);
                return self.run_commands(step.commands, true);
            }
        }
        self.disk.memos = self.gateway.memos(None);
        if !step.records.is_empty() {
            self.would_survive();
        }
        self.run_commands(step.commands, false);
    }

    fn run_commands(&mut self, commands: Vec<Command>, after_failure: bool) {
        for command in commands {
            if self.dies_now() {
                return;
            }
            let moves = matches!(command, Command::CloseSwitch(_) | Command::OpenSwitch(_));
            self.execute(command, after_failure);
            if moves {
                self.would_survive();
            }
        }
        for view in self.gateway.stations(self.now()) {
            let told = self.published.get(&view.station);
            assert_eq!(told, Some(&told_of(&view)), "{} changed untold", view.station);
        }
        self.disk.check();
    }

    fn execute(&mut self, command: Command, after_failure: bool) {
        let now = self.uptime;
        match command {
            Command::CloseSwitch(id) => {
                assert!(self.disk.has_running_session(&id), "power on {id} precedes its record");
                let session = self.disk.session_on(&id).expect("it has one");
                assert!(!self.opened.contains(&session), "{id} closes for a session that was over");
                self.events.push_back(self.plants.get_mut(&id).expect("known").close(&id));
            }
            Command::OpenSwitch(id) => {
                self.opened.extend(self.disk.session_on(&id));
                let charger = self.view(id.as_str()).kind == StationKind::Charger;
                let plant = &self.plants[&id];
                let loaded = plant.closed && plant.power_w() > 20;
                self.cuts_under_load += u32::from(loaded && !charger);
                self.events.push_back(self.plants.get_mut(&id).expect("known").open(&id));
            }
            Command::ReadSwitch(id) => self.events.extend(self.plants[&id].switch_event(&id)),
            Command::ReadMeter(id) => {
                let read = self.plants.get_mut(&id).expect("known").meter_event(&id);
                self.events.extend(read);
            }
            Command::ReadRegister(id) => {
                let read = self.plants.get_mut(&id).expect("known").register_event(&id);
                self.events.extend(read);
            }
            Command::PaceMeter(id, pace) => {
                let plant = self.plants.get_mut(&id).expect("known");
                plant.pace = pace;
                plant.next_read = plant.next_read.min(now + plant.pace_ms());
            }
            Command::WatchButtons(_, stations) => self.watched = stations,
            Command::SetLamp(id, on) => self.lamps.push((id, on)),
            Command::ShowFeedback(_, feedback) => self.shown.push(feedback),
            Command::Notify(notice) => self.notices.push(notice),
            Command::PublishStation(id) => {
                let told = told_of(&self.view(id.as_str()));
                let before = self.published.insert(id.clone(), told.clone());
                assert!(after_failure || before != Some(told), "{id} told without a change");
            }
            Command::Answer(_, answer) => self.answers.push(answer),
        }
    }

    fn head(&self) -> Allowlist {
        let count = self.allowlist.len() as u64;
        Allowlist { list: "list".into(), version: self.version, digest: "digest".into(), count }
    }

    fn draw_id(&mut self) -> SessionId {
        self.ids += 1;
        SessionId([self.ids; 16])
    }

    /// Nothing is lost: what meters counted since their commissioning is in the accounts, or not
    /// posted yet.
    pub fn assert_every_watt_hour_is_accounted_for(&self) {
        self.disk.check();
        for view in self.gateway.stations(self.now()) {
            let plant = &self.plants[&view.station];
            if plant.has_meter && plant.answer == Answer::Right {
                let shown = plant.register_wh();
                let believed = view.register_wh.expect("it has been read");
                assert!(shown - believed <= 1 + plant.power_w() / 60, "{}", view.station);
            }
        }
    }
}

fn told_of(view: &StationView) -> Told {
    (view.state.as_str().into(), view.fault.clone(), view.note.clone())
}

pub fn interruptions(world: &World) -> usize {
    world.count(|fact| matches!(fact, Fact::Interruption { .. }))
}

fn stamp_at(boot: u32, uptime: u64, wall: i64, synced: bool) -> Stamp {
    Stamp { boot, uptime: Uptime(uptime), wall: Wall(wall), synced }
}

fn recovered(
    site: &Site,
    disk: &Disk,
    allowlist: Option<Allowlist>,
    now: Stamp,
) -> (Gateway, Step) {
    let startup = Startup {
        version: "0.1.0".into(),
        boot_id: format!("boot-{}", now.boot),
        allowlist,
        allowlist_arrived: Some(now),
        clock_floor: Wall(MORNING),
    };
    Gateway::recover(site.clone(), &disk.survivors(), startup, now)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
