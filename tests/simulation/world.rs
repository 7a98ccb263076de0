//! A virtual building around the real core and the real store: clocks, what happens later, what
//! dies. One event at a time, as in the daemon's loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tapgate::core::event::{Event, Step};
use tapgate::core::ids::{ReaderId, SessionId, StationId};
use tapgate::core::time::{Stamp, Uptime, Wall};
use tempfile::TempDir;

use crate::audit::Audit;
use crate::bench::{Bench, FieldOrder};
use crate::broker::{Broker, Message};
use crate::cloud::Cloud;
use crate::daemon::Daemon;
use crate::disk::{self, Health};
use crate::people::Badges;
use crate::plan::Plan;
use crate::random::Random;

/// What a run comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps of the core.
    pub steps: u64,
    pub records: u64,
    pub sessions: u64,
    pub starts: u32,
    /// Kinds of records, and how sessions ended.
    pub seen: BTreeSet<String>,
    /// The chain's hash: equal where everything was.
    pub hash: [u8; 32],
}

pub struct World {
    pub random: Random,
    pub plan: Plan,
    pub folder: TempDir,
    pub daemon: Option<Daemon>,
    /// When a daemon that is down starts again.
    pub start_at: u64,
    pub benches: BTreeMap<StationId, Bench>,
    pub events: VecDeque<Event>,
    pub later: BTreeMap<(u64, u64), Later>,
    pub cloud: Cloud,
    pub broker: Broker,
    pub badges: Badges,
    pub audit: Audit,
    /// Sessions whose switch was told to open: it never closes for them again.
    pub opened: BTreeSet<String>,
    /// Orders to stop at once, also under load.
    pub ordered: BTreeSet<SessionId>,
    pub watched: BTreeMap<ReaderId, Vec<StationId>>,
    pub death: Option<(usize, Death)>,
    pub disk: Health,
    /// Since when it works, or the daemon runs on it.
    pub disk_works_since: u64,
    pub settling: bool,
    pub steps: u64,
    pub starts: u32,
    /// Milliseconds of the world; never jumps.
    pub time: u64,
    pub booted_at: u64,
    pub boot_id: u32,
    /// Wall clock minus the world's time.
    pub wall_ahead: i64,
    /// It was set wrong at some time although it is trusted.
    pub clock_wrong: bool,
    /// The kernel says that its clock is synchronised.
    pub synced: bool,
    pub next_happening: u64,
    pub trace: bool,
    origin: Instant,
    number: u64,
}

/// What happens at its time.
#[derive(Clone, Debug)]
pub enum Later {
    Field(StationId, FieldOrder),
    Poll(StationId),
    Event(Event),
    Up(Message),
    Down(Message),
    Mend(Trouble),
    Lists,
    Connect,
    KeepTime,
}

/// Trouble that ends.
#[derive(Clone, Debug)]
pub enum Trouble {
    Glitch(StationId),
    Unit(StationId),
    Relay(StationId),
    Reader(ReaderId),
    Broker,
    Disk,
}

/// What dies with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    Daemon,
    /// The kernel: relays keep their state.
    Kernel,
    /// The whole building for so many seconds.
    Power(u64),
}

/// The boot clock when the daemon starts after a boot, in milliseconds.
const BOOT_MS: u64 = 20_000;
/// systemd waits so long before it starts the daemon again.
const RESTART_MS: u64 = 2_000;
/// More timeouts than this at one moment mean that the core runs in circles.
const TIMEOUTS_AT_ONCE: usize = 60;

/// What the store's calls give; without threads they never wait.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the store works at once"),
    }
}

impl World {
    pub fn new(seed: u64, seconds: u64) -> World {
        disk::install();
        disk::set(Health::Works);
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, seconds);
        let benches = plan.site.stations.iter().map(|s| (s.id.clone(), Bench::new(s))).collect();
        let mut world = World {
            folder: folder(),
            daemon: None,
            start_at: 0,
            benches,
            events: VecDeque::new(),
            later: BTreeMap::new(),
            cloud: Cloud::new(plan.wall),
            broker: Broker::new(&mut random),
            badges: Badges::default(),
            audit: Audit::default(),
            opened: BTreeSet::new(),
            ordered: BTreeSet::new(),
            watched: BTreeMap::new(),
            death: None,
            disk: Health::Works,
            disk_works_since: 0,
            settling: false,
            steps: 0,
            starts: 0,
            time: 0,
            booted_at: 0,
            boot_id: 1,
            wall_ahead: plan.wall,
            clock_wrong: false,
            synced: plan.synced,
            next_happening: 5_000,
            trace: std::env::var_os("TAPGATE_TRACE").is_some(),
            origin: Instant::now(),
            number: 0,
            random,
            plan,
        };
        world.cloud.publish_first();
        for id in world.station_ids() {
            world.later(100, Later::Poll(id));
        }
        world.later(500, Later::Connect);
        world.later(60_000, Later::KeepTime);
        world
    }

    /// Trouble, then peace.
    pub fn live(&mut self) -> Outcome {
        while self.time < self.plan.seconds * 1_000 {
            self.advance(self.plan.seconds * 1_000);
            if self.time >= self.next_happening {
                let pause = self.random.between(1, self.plan.pause_ms);
                self.next_happening = self.time + pause;
                self.something_happens();
            }
        }
        self.come_to_rest();
        Outcome {
            steps: self.steps,
            records: self.audit.seq,
            sessions: self.audit.ended,
            starts: self.starts,
            seen: self.audit.seen.clone(),
            hash: self.audit.hash,
        }
    }

    /// Lets time pass until the next thing happens, at most until `end`.
    pub fn advance(&mut self, end: u64) {
        let mut next = end.min(self.next_happening.max(self.time + 1));
        if let Some(((at, _), _)) = self.later.first_key_value() {
            next = next.min(*at);
        }
        match &self.daemon {
            Some(daemon) => {
                if let Some((at, _)) = daemon.gateway.poll_timeout() {
                    next = next.min(self.time_of(at));
                }
            }
            None => next = next.min(self.start_at),
        }
        self.pass(next.max(self.time) - self.time);
        if self.daemon.is_none() && self.time >= self.start_at {
            self.start_daemon();
        }
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > self.time {
                break;
            }
            let happens = entry.remove();
            self.happens(happens);
            self.settle();
        }
        self.settle();
    }

    pub fn pass(&mut self, milliseconds: u64) {
        self.time += milliseconds;
        let late = self.daemon.as_ref().is_some_and(|daemon| daemon.gateway.unsaved() > 0);
        for (id, bench) in &mut self.benches {
            let open = self.audit.on(id.as_str()).map(|open| open.session.as_str());
            bench.pass(milliseconds, open, late);
        }
    }

    fn happens(&mut self, happens: Later) {
        match happens {
            Later::Field(station, order) => self.on_field_order(&station, order),
            Later::Poll(station) => self.poll(&station),
            Later::Event(event) => self.events.push_back(event),
            Later::Up(message) => self.on_up(message),
            Later::Down(message) => self.on_down(message),
            Later::Mend(trouble) => self.mend(trouble),
            Later::Lists => self.take_lists(),
            Later::Connect => self.connect(),
            Later::KeepTime => {
                self.keep_time();
                self.later(60_000, Later::KeepTime);
            }
        }
    }

    /// Hands the core what waits, then what is due, until nothing is left.
    pub fn settle(&mut self) {
        let mut turns = 0;
        while self.daemon.is_some() {
            let now = self.now();
            let Some(daemon) = &mut self.daemon else { return };
            let step = if let Some(event) = self.events.pop_front() {
                if self.trace {
                    println!("{} {event:?}", self.time);
                }
                turns = 0;
                daemon.gateway.handle_event(&event, now)
            } else if daemon.gateway.poll_timeout().is_some_and(|(at, _)| at <= now.uptime) {
                turns += 1;
                let why = daemon.gateway.poll_timeout();
                assert!(turns < TIMEOUTS_AT_ONCE, "the core runs in circles: {why:?}");
                daemon.gateway.handle_timeout(now)
            } else {
                return;
            };
            self.perform(step);
        }
        self.events.clear();
    }

    fn perform(&mut self, step: Step) {
        self.steps += 1;
        self.execute(step);
        if self.daemon.is_some() {
            self.check_every_step();
        }
    }

    /// Whether the effect that comes next does not happen any more.
    pub fn dies_now(&mut self) -> bool {
        match &mut self.death {
            Some((0, death)) => {
                let death = *death;
                self.death = None;
                self.die(death);
                true
            }
            Some((effects, _)) => {
                *effects -= 1;
                false
            }
            None => false,
        }
    }

    /// Nothing that the daemon still had in hand happens, but for what the bus already has.
    pub fn die(&mut self, death: Death) {
        if self.trace {
            println!("{} dies: {death:?}", self.time);
        }
        disk::set(Health::Gone);
        self.daemon = None;
        disk::set(self.disk);
        self.events.clear();
        self.watched.clear();
        self.broker.disconnect();
        let field: Vec<_> = self
            .later
            .extract_if(.., |_, later| {
                matches!(later, Later::Field(..) | Later::Up(_) | Later::Down(_) | Later::Lists)
            })
            .collect();
        for (_, later) in field {
            if let Later::Field(station, order) = later
                && self.random.percent(50)
                && let Some(bench) = self.benches.get_mut(&station)
            {
                bench.obey(order);
            }
        }
        match death {
            Death::Daemon => self.start_at = self.time + RESTART_MS,
            Death::Kernel => self.boot_again(30),
            Death::Power(seconds) => {
                for bench in self.benches.values_mut() {
                    bench.plant.closed = false;
                }
                self.boot_again(seconds);
            }
        }
        self.later(1_000, Later::Connect);
    }

    fn boot_again(&mut self, seconds: u64) {
        self.pass(seconds * 1_000);
        self.plan.seconds += seconds;
        self.boot_id += 1;
        self.booted_at = self.time;
        self.start_at = self.time;
        self.synced = self.random.percent(60);
        let right = self.plan.wall;
        if self.synced {
            self.wall_ahead = right;
        } else if self.random.percent(40) {
            // 1970, or the last time that was kept.
            self.wall_ahead = -(self.time as i64);
        } else {
            self.wall_ahead -= (seconds * 1_000) as i64;
        }
    }

    pub fn uptime(&self) -> u64 {
        BOOT_MS + self.time - self.booted_at
    }

    fn time_of(&self, at: Uptime) -> u64 {
        (at.0 + self.booted_at).saturating_sub(BOOT_MS)
    }

    pub fn wall(&self) -> Wall {
        Wall(self.time as i64 + self.wall_ahead)
    }

    /// As the daemon's clock has it.
    pub fn now(&self) -> Stamp {
        let (boot, synced) = self.daemon.as_ref().map_or((0, self.synced), |d| (d.boot, d.trusted));
        Stamp { boot, uptime: Uptime(self.uptime()), wall: self.wall(), synced }
    }

    /// The kernel sets its clock, and the daemon sees that it did.
    pub fn synchronise(&mut self) {
        let before = self.wall();
        (self.synced, self.wall_ahead) = (true, self.plan.wall);
        let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.trusted) else { return };
        daemon.trusted = true;
        self.handle(Event::ClockSynchronised { before });
    }

    /// For those that count in instants.
    pub fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.time)
    }

    pub fn time_of_instant(&self, at: Instant) -> u64 {
        at.duration_since(self.origin).as_millis() as u64 + 1
    }

    pub fn later(&mut self, milliseconds: u64, what: Later) {
        self.number += 1;
        self.later.insert((self.time + milliseconds, self.number), what);
    }

    pub fn draw_id(&mut self) -> SessionId {
        SessionId(self.random.id())
    }

    pub fn station_ids(&self) -> Vec<StationId> {
        self.benches.keys().cloned().collect()
    }

    pub fn bench(&mut self, station: &StationId) -> &mut Bench {
        self.benches.get_mut(station).expect("a station of this world")
    }
}

/// In memory where there is room for it.
fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |it| it.f_bavail * it.f_frsize);
    let found = if room > (2 << 30) { TempDir::new_in(memory) } else { TempDir::new() };
    found.expect("a temporary folder")
}
