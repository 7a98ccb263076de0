//! Residents, technicians and operators, and everything else that happens to a building.

use std::collections::BTreeSet;

use tapgate::core::badge::{Technology, Uid};
use tapgate::core::event::{Event, Tap, Vehicle};
use tapgate::core::ids::{ReaderId, StationId};
use tapgate::core::orders::{OrderedBy, StartOrder, StopOrder, StopTarget};
use tapgate::io::store::{Settled, Store};

use crate::bench::Glitch;
use crate::cloud::RESIDENTS;
use crate::disk::{self, Health};
use crate::invariant::{Invariant, check};
use crate::plan::{Happening, seconds};
use crate::plant::Relay;
use crate::world::{Death, Later, Trouble, World, at_once};

/// What the world knows of badges and readers.
#[derive(Debug, Default)]
pub struct Badges {
    /// Blocked on site, as far as the store said so.
    pub blocked: BTreeSet<Uid>,
    /// A block was not taken by a failing disk: what holds shows after a restart.
    pub unsure: bool,
    pub lost_readers: BTreeSet<ReaderId>,
    /// The newest list that the store let decide.
    pub version: u64,
}

impl Badges {
    /// A restart tells what holds where that was not sure.
    pub fn resume(&mut self, store: Option<&Store>) {
        let Some(store) = store.filter(|_| self.unsure) else { return };
        let blocks = at_once(store.local_blocks()).expect("read");
        self.blocked = blocks.into_iter().map(|block| block.uid).collect();
        self.unsure = false;
    }
}

pub fn uid(text: &str) -> Uid {
    text.parse().expect("a UID of this world")
}

/// A wash in a hurry, with a soak; a dryer that keeps turning; a car; and a machine that nobody
/// starts. From measured profiles, faster.
const PROGRAMS: [&[(u64, i64)]; 6] = [
    &[(4, 3), (15, 2_000), (6, 0), (12, 300), (4, 0), (8, 400), (1, 2)],
    &[(2, 8), (25, 1_850), (10, 146), (1, 1)],
    &[(3, 0), (10, 1_040), (12, 2), (5, 87), (12, 2), (5, 240), (1, 2)],
    &[(6, 15), (30, 2_000), (15, 0), (20, 600), (1, 0)],
    &[(1, 0)],
    &[(8, 0), (60, 2_300), (5, 30), (15, 1_900), (1, 1)],
];
const CHARGES: [&[(u64, i64)]; 3] = [
    &[(5, 0), (60, 11_000), (1, 0)],
    &[(5, 0), (20, 7_400), (15, 0), (30, 7_400), (1, 5)],
    &[(3, 0), (200, 3_700), (1, 0)],
];
/// A register that shows wrong for a minute is taken for another meter's.
const WRONG_MS: u64 = 55_000;

impl World {
    pub fn something_happens(&mut self) {
        let happening = self.plan.choose(&mut self.random);
        if self.trace {
            println!("{} happens: {happening:?}", self.time);
        }
        match happening {
            Happening::Tap => self.somebody_taps(),
            Happening::Burst => (0..4).for_each(|_| self.somebody_taps()),
            Happening::Load => self.somebody_loads(),
            Happening::Car => self.a_car_comes_or_goes(),
            Happening::Glitch => self.a_meter_errs(),
            Happening::Exchange => self.a_meter_is_exchanged(),
            Happening::DeadUnit => self.a_unit_dies(),
            Happening::Relay => self.a_relay_fails(),
            Happening::ReaderFlaps => self.a_reader_flaps(),
            Happening::Broker => {
                let pause = self.random.between(500, 60_000);
                self.lose_broker(pause);
            }
            Happening::Cloud => self.the_cloud_errs(),
            Happening::List => self.a_list_comes(),
            Happening::Order => self.the_operator_orders(),
            Happening::Technician => self.a_technician_comes(),
            Happening::Block => self.a_badge_is_blocked(),
            Happening::Clock => self.the_clock_moves(),
            Happening::Kill => self.the_daemon_ends(),
            Happening::KillSoon => self.dies_soon(Death::Daemon),
            Happening::PowerCut => {
                let away = *self.random.one_of(&[1, 20, 100, 400, 86_400]);
                self.die(Death::Power(away));
            }
            Happening::PowerCutSoon => {
                let away = *self.random.one_of(&[1, 60, 300]);
                self.dies_soon(Death::Power(away));
            }
            Happening::Reboot => self.dies_soon(Death::Kernel),
            Happening::Disk => self.the_disk_fails(),
        }
        self.settle();
    }

    fn dies_soon(&mut self, death: Death) {
        self.death = Some((self.random.up_to(25), death));
    }

    fn the_daemon_ends(&mut self) {
        if self.random.percent(50) {
            self.keep_memos(true);
        }
        self.die(Death::Daemon);
    }

    // Taps.

    fn somebody_taps(&mut self) {
        let reader = self.random.one_of(&self.plan.site.readers).id.clone();
        if self.daemon.is_none() || self.badges.lost_readers.contains(&reader) {
            return;
        }
        let technology = match self.random.percent(90) {
            true => Technology::MifareClassic1k,
            false => *self.random.one_of(&Technology::ALL),
        };
        let card = match self.random.between(0, 100) {
            0..4 => uid("08A1B2C3"),
            4..7 => uid("88A1B2C3"),
            7..12 => uid("04DEAD01"),
            12..15 => {
                self.events.push_back(Event::BadgeUnreadable { reader, technology });
                return;
            }
            _ => uid(self.random.one_of(&RESIDENTS).0),
        };
        self.tap(reader, card, technology);
    }

    fn tap(&mut self, reader: ReaderId, uid: Uid, technology: Technology) {
        let Some(daemon) = &self.daemon else { return };
        let entry = at_once(daemon.store.lookup(uid)).expect("the list can be read");
        self.check_lookup(uid, entry.as_ref());
        let candidate = self.draw_id();
        let presented = reader.clone();
        let tap = Tap { reader: presented, uid, technology, entry, candidate };
        self.events.push_back(Event::BadgePresented(tap));
        self.settle();
        let lies = self.random.between(100, 1_500);
        self.later(lies, Later::Event(Event::BadgeRemoved { reader: reader.clone() }));
        let buttons = self.watched.get(&reader).cloned().unwrap_or_default();
        if !buttons.is_empty() && self.random.percent(80) {
            let station = self.random.one_of(&buttons).clone();
            let candidate = self.draw_id();
            let pressed = Event::ButtonPressed { station, candidate };
            let hesitates = self.random.between(200, 12_000);
            self.later(hesitates, Later::Event(pressed));
        }
    }

    fn a_reader_flaps(&mut self) {
        let reader = self.random.one_of(&self.plan.site.readers).id.clone();
        self.badges.lost_readers.insert(reader.clone());
        self.events.push_back(Event::BadgeRemoved { reader: reader.clone() });
        self.events.push_back(Event::ReaderLost { reader: reader.clone() });
        let away = self.random.between(100, 20_000);
        self.later(away, Later::Mend(Trouble::Reader(reader)));
    }

    // Machines, cars, meters, relays.

    fn some_station(&mut self) -> StationId {
        let ids = self.station_ids();
        self.random.one_of(&ids).clone()
    }

    /// People load what they have a session for.
    fn somebody_loads(&mut self) {
        let id = self.some_station();
        let has_session = self.audit.on(id.as_str()).is_some_and(|open| open.ending.is_none());
        let machine = *self.random.one_of(&PROGRAMS);
        let car = *self.random.one_of(&CHARGES);
        let bench = self.bench(&id);
        if has_session && bench.is_laundry() {
            bench.plant.load(machine);
        } else if !bench.is_laundry() {
            bench.plant.load(car);
        }
    }

    fn a_car_comes_or_goes(&mut self) {
        let id = self.some_station();
        let plan = self.plan.site.stations.iter().find(|station| station.id == id).cloned();
        if !plan.is_some_and(|plan| plan.has_vehicle_state) {
            return;
        }
        let states =
            [None, Some(Vehicle::Absent), Some(Vehicle::Charging), Some(Vehicle::Connected)];
        let vehicle = *self.random.one_of(&states);
        let car = *self.random.one_of(&CHARGES);
        let bench = self.bench(&id);
        bench.plant.vehicle = vehicle;
        bench.plant.load(if vehicle == Some(Vehicle::Charging) { car } else { &[(1, 0)] });
    }

    fn a_meter_errs(&mut self) {
        let id = self.some_station();
        let lasts = self.random.between(200, 40_000);
        let which = self.random.between(0, 6);
        let (believed, time) = (self.is_believed(&id), self.time);
        let bench = self.bench(&id);
        if bench.glitch.is_some() || !believed || !bench.is_followed() {
            return;
        }
        // What shows wrong for longer must be believed.
        let since = bench.wrong_since.unwrap_or(time);
        if time + lasts > since + WRONG_MS {
            return;
        }
        bench.wrong_since = Some(since);
        let register = bench.plant.register_wh();
        bench.glitch = Some(match which {
            0 => Glitch::Shows(0),
            1 => Glitch::Shows((register - 7).max(0)),
            2 => Glitch::Shows(register + 10_000_000),
            3 => Glitch::Shows(-1),
            4 => Glitch::NoValue,
            _ => Glitch::Frozen,
        });
        if which > 4 {
            bench.freeze();
            bench.odd_ms = lasts + 300_000;
        }
        self.later(lasts, Later::Mend(Trouble::Glitch(id)));
    }

    /// Only a meter whose register is believed can be told from one that errs.
    fn is_believed(&self, id: &StationId) -> bool {
        let view = self.daemon.as_ref().and_then(|d| d.gateway.station(id, self.now()));
        let (right, shown) = (self.benches[id].shown_right, self.benches[id].plant.register_wh());
        right && view.and_then(|view| view.register_wh).is_some_and(|at| shown - at < 4)
    }

    fn a_meter_is_exchanged(&mut self) {
        let id = self.some_station();
        let by_hand = self.random.percent(40);
        let serial = format!("S{}", self.random.between(2, 1_000_000));
        let register = self.random.between(0, 20_000) as i64;
        let believed = self.is_believed(&id);
        let bench = self.bench(&id);
        let clear = bench.glitch.is_none() && bench.is_followed() && believed;
        if bench.meter.is_none() || !clear || bench.unit_dead || self.daemon.is_none() {
            return;
        }
        let bench = self.bench(&id);
        bench.exchange(register, serial);
        if by_hand {
            let order = self.draw_order();
            self.events.push_back(Event::MeterExchanged { station: id, order });
        }
    }

    fn a_unit_dies(&mut self) {
        let (id, time) = (self.some_station(), self.time);
        let bench = self.bench(&id);
        (bench.unit_dead, bench.fault_at) = (true, Some(time));
        let lasts = self.random.between(300, 90_000);
        self.later(lasts, Later::Mend(Trouble::Unit(id)));
    }

    fn a_relay_fails(&mut self) {
        let (id, time) = (self.some_station(), self.time);
        let which = self.random.between(0, 4);
        let all = self.random.percent(30);
        for bench in self.benches.values_mut().filter(|bench| all || bench.id == id) {
            bench.fault_at = Some(time);
            match which {
                0 => bench.plant.relay = Relay::Stuck,
                1 => bench.plant.relay = Relay::Silent,
                // A board that resets.
                _ => bench.plant.closed = false,
            }
        }
        for id in self.station_ids() {
            let lasts = self.random.between(500, 60_000);
            self.later(lasts, Later::Mend(Trouble::Relay(id)));
        }
    }

    pub fn mend(&mut self, trouble: Trouble) {
        let time = self.time;
        match trouble {
            Trouble::Glitch(id) => self.bench(&id).glitch = None,
            Trouble::Unit(id) => {
                let bench = self.bench(&id);
                (bench.unit_dead, bench.fault_at) = (false, Some(time));
                if self.daemon.is_some() {
                    let report = self.bench(&id).report(crate::bench::FieldOrder::ReadSwitch);
                    self.events.extend(report);
                }
            }
            Trouble::Relay(id) => {
                let bench = self.bench(&id);
                if bench.plant.relay != Relay::Obeys {
                    (bench.plant.relay, bench.fault_at) = (Relay::Obeys, Some(time));
                }
            }
            Trouble::Reader(reader) => {
                if self.badges.lost_readers.remove(&reader) && self.daemon.is_some() {
                    self.events.push_back(Event::ReaderFound { reader });
                }
            }
            Trouble::Broker => self.broker.up = true,
            Trouble::Disk => {
                (self.disk, self.disk_works_since) = (Health::Works, time);
                disk::set(Health::Works);
            }
        }
    }

    // Those who order.

    fn the_operator_orders(&mut self) {
        let id = self.some_station();
        if self.daemon.is_none() {
            return;
        }
        match self.random.between(0, 4) {
            0 | 1 => self.order_start(id, OrderedBy::Operator),
            2 => {
                let now = self.random.percent(30);
                self.order_stop(&id, OrderedBy::Operator, now);
            }
            _ => self.mark(id),
        }
    }

    fn a_technician_comes(&mut self) {
        let id = self.some_station();
        if self.daemon.is_none() {
            return;
        }
        match self.random.between(0, 4) {
            0 | 1 => self.order_start(id, OrderedBy::Technician),
            _ => self.order_stop(&id, OrderedBy::Technician, true),
        }
    }

    fn order_start(&mut self, station: StationId, by: OrderedBy) {
        let Some(daemon) = &self.daemon else { return };
        let (_, badge, user) = *self.random.one_of(&RESIDENTS);
        let found = at_once(daemon.store.lookup_badge(badge.into())).expect("read");
        let (badge, user) = match by {
            OrderedBy::Operator if self.random.percent(50) => (found, Some(user.into())),
            OrderedBy::Operator => (None, Some(user.into())),
            OrderedBy::Technician => (None, None),
        };
        let (order, candidate) = (self.draw_order(), self.draw_id());
        let order = StartOrder { order, by, station, candidate, user, badge };
        self.events.push_back(Event::StartOrdered(order));
    }

    pub fn order_stop(&mut self, station: &StationId, by: OrderedBy, now: bool) {
        let open = self.audit.on(station.as_str());
        if now && let Some(session) = open.and_then(|open| open.session.parse().ok()) {
            self.ordered.insert(session);
        }
        if now {
            // A technician may open a switch that nobody has a session on.
            let time = self.time;
            self.bench(station).fault_at = Some(time);
        }
        let (order, target) = (self.draw_order(), StopTarget::Station(station.clone()));
        self.events.push_back(Event::StopOrdered(StopOrder { order, by, target, now }));
    }

    fn mark(&mut self, station: StationId) {
        let Some(daemon) = &self.daemon else { return };
        let out = self.random.percent(50);
        let marked = match out {
            true => at_once(daemon.store.take_out_of_service(station.clone(), None)),
            false => at_once(daemon.store.return_to_service(station.clone())),
        };
        if marked.is_ok() {
            self.events.push_back(match out {
                true => Event::TakenOutOfService { station, note: None },
                false => Event::ReturnedToService { station },
            });
        }
    }

    fn a_badge_is_blocked(&mut self) {
        let uid = uid(self.random.one_of(&RESIDENTS).0);
        let Some(daemon) = &self.daemon else { return };
        let badge = at_once(daemon.store.lookup(uid)).expect("read").map(|entry| entry.badge);
        let blocks = self.random.percent(50);
        let changed = match blocks {
            true => at_once(daemon.store.block_badge(uid, badge, "technician".into())),
            false => at_once(daemon.store.unblock_badge(uid, "technician".into())),
        };
        match (changed, blocks) {
            (Ok(_), true) => drop(self.badges.blocked.insert(uid)),
            (Ok(_), false) => drop(self.badges.blocked.remove(&uid)),
            (Err(_), _) => self.badges.unsure = true,
        }
        self.record_overrides();
    }

    // The cloud, clocks, disks.

    fn the_cloud_errs(&mut self) {
        match self.random.between(0, 3) {
            0 => self.cloud.back_up(),
            1 => {
                let Some(daemon) = &self.daemon else { return };
                let floor = at_once(daemon.store.standing()).expect("read").floor;
                if let Some(ack) = self.cloud.restore(floor) {
                    self.send_down(ack);
                }
            }
            _ => {
                let now = self.now();
                let Some(daemon) = &self.daemon else { return };
                if !self.cloud.has_backup() {
                    // A full disk prunes nothing.
                    let _ = at_once(daemon.store.prune(seconds(60), Settled::ByCloud, now));
                }
            }
        }
    }

    pub fn send_down(&mut self, message: crate::broker::Message) {
        if self.broker.connected {
            self.send(false, message);
        }
    }

    fn a_list_comes(&mut self) {
        let message = match self.random.percent(60) {
            true => self.cloud.publish_change(&mut self.random),
            false => self.cloud.rubbish(&mut self.random),
        };
        self.send_down(message);
    }

    fn the_clock_moves(&mut self) {
        if self.synced {
            let hours = self.random.between(0, 5) as i64 - 2;
            self.wall_ahead = self.plan.wall + hours * 1_800_000;
            self.clock_wrong = true;
        } else {
            self.synchronise();
        }
    }

    fn the_disk_fails(&mut self) {
        let how = [Health::Full, Health::Full, Health::Broken, Health::Unsynced];
        self.disk = *self.random.one_of(&how);
        disk::set(self.disk);
        let lasts = self.random.between(100, 40_000);
        self.later(lasts, Later::Mend(Trouble::Disk));
    }

    /// A tap sees the list that decides, with the local blocks over it.
    pub fn check_lookup(&self, uid: Uid, found: Option<&tapgate::core::access::Entry>) {
        let list = self.cloud.published.iter().find(|list| list.version == self.badges.version);
        let expected = list.and_then(|list| list.entries.get(&uid.to_string()));
        let same = match (expected, found) {
            (None, None) => true,
            (Some(expected), Some(found)) => {
                let locally = self.badges.blocked.contains(&uid);
                let blocked = expected["status"] == "blocked" || locally;
                expected["badge"] == found.badge.as_str()
                    && (found.blocked == blocked || self.badges.unsure)
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        check(same, Invariant::ListWhole, || {
            format!("version {} says {expected:?}, a tap sees {found:?}", self.badges.version)
        });
    }
}
