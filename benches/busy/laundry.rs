//! The machines of the day, and the residents who come to them.

use std::collections::VecDeque;
use std::fmt::Write as _;

use tapgate::core::access::{Entry, Grant, Origin};
use tapgate::core::badge::{Technology, Uid};
use tapgate::core::event::{Command, Event, Pace, Reading, Step, SwitchReport, Tap};
use tapgate::core::gateway::{Gateway, Startup};
use tapgate::core::ids::{SessionId, StationId};
use tapgate::core::ledger::Fact;
use tapgate::core::recovery::Survivors;
use tapgate::core::site::Site;
use tapgate::core::time::{Stamp, Wall};

pub(crate) const STATIONS: u64 = 16;
pub(crate) const SESSIONS_EACH: u64 = 10;
/// Opening hours: the first tap of a day and the pause between two.
const FIRST_TAP_S: u64 = 7 * 3_600;
const TAP_EVERY_S: u64 = 14 * 3_600 / (STATIONS * SESSIONS_EACH);
/// What a wash draws, in seconds and watts; then its electronics 2 W, until it has been idle for 8
/// minutes: 55 minutes from tap to end.
const WASH: [(u64, u64); 4] = [(20, 3), (900, 2_000), (1_600, 200), (300, 400)];
/// The simulated bus reads idle meters this often.
const IDLE_POLL_S: u64 = 50;
const DAY_S: u64 = 24 * 3_600;

/// 16 machines behind a reader each.
pub(crate) struct Laundry {
    pub(crate) gateway: Gateway,
    machines: Vec<Machine>,
    events: VecDeque<Event>,
    first: Option<Step>,
    /// Washes that were finished and recorded.
    pub(crate) washes: u64,
    taps: u64,
    second: u64,
}

struct Machine {
    station: StationId,
    closed: bool,
    ran_s: u64,
    watt_s: u64,
    pace: Pace,
}

impl Machine {
    fn power_w(&self) -> u64 {
        let mut left = self.ran_s;
        for (seconds, watts) in WASH {
            if left < seconds {
                return if self.closed { watts } else { 0 };
            }
            left -= seconds;
        }
        if self.closed { 2 } else { 0 }
    }

    fn switch_event(&self) -> Event {
        let feedback = None;
        let report = match self.closed {
            true => SwitchReport::Closed { feedback },
            false => SwitchReport::Open { feedback },
        };
        Event::SwitchReported { station: self.station.clone(), report }
    }

    fn meter_event(&self) -> Event {
        let reading = Reading {
            energy_wh: Some(1_000_000 + (self.watt_s / 3_600) as i64),
            power_mw: Some(1_000 * self.power_w() as i64),
            serial: Some("SN-123456".into()),
            vehicle: None,
        };
        Event::MeterRead { station: self.station.clone(), reading }
    }
}

impl Laundry {
    pub(crate) fn new(site: Site, now: Stamp) -> Laundry {
        let machine = |station: &tapgate::core::site::Station| Machine {
            station: station.id.clone(),
            closed: false,
            ran_s: 0,
            watt_s: 0,
            pace: Pace::Idle,
        };
        let machines = site.stations.iter().map(machine).collect();
        let readers = site.readers.iter().map(|reader| reader.id.clone());
        let events = readers.map(|reader| Event::ReaderFound { reader }).collect();
        let startup = Startup {
            version: "0.1.0".into(),
            boot_id: "one".into(),
            allowlist: None,
            allowlist_arrived: Some(now),
            clock_floor: Wall(0),
        };
        let (gateway, first) = Gateway::recover(site, &Survivors::default(), startup, now);
        let (washes, taps, second) = (0, 0, 0);
        Laundry { gateway, machines, events, first: Some(first), washes, taps, second }
    }

    /// Machines draw, meters are read, and somebody may come.
    pub(crate) fn pass_a_second(&mut self, now: Stamp) {
        self.second += 1;
        for machine in &mut self.machines {
            machine.watt_s += machine.power_w();
            machine.ran_s += u64::from(machine.closed);
            if machine.pace != Pace::Idle || self.second.is_multiple_of(IDLE_POLL_S) {
                self.events.extend([machine.switch_event(), machine.meter_event()]);
            }
        }
        let opened_s = (now.uptime.0 / 1_000 % DAY_S).checked_sub(FIRST_TAP_S);
        let tap =
            opened_s.filter(|open_s| open_s.is_multiple_of(TAP_EVERY_S)).map(|s| s / TAP_EVERY_S);
        if let Some(number) = tap.filter(|number| *number < STATIONS * SESSIONS_EACH) {
            self.tap(number % STATIONS);
        }
    }

    fn tap(&mut self, station: u64) {
        self.taps += 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.taps.to_be_bytes());
        let entry = Entry {
            badge: format!("b-{}", 2_000 + station).into(),
            user: format!("u-{}", 1_000 + station).into(),
            origin: Origin::Issued,
            blocked: false,
            grants: vec![Grant::Everything],
            valid_from: None,
            valid_until: None,
            max_concurrent: None,
        };
        let reader = format!("reader-{station}");
        self.events.push_back(Event::BadgePresented(Tap {
            reader: reader.as_str().into(),
            uid: Uid::new(&[0x04, 0x10, 0x20, station as u8]).expect("four bytes"),
            technology: Technology::MifareClassic1k,
            entry: Some(entry),
            candidate: SessionId(id),
        }));
        self.events.push_back(Event::BadgeRemoved { reader: reader.as_str().into() });
    }

    /// What the core makes of the next thing that happened; `None` where nothing is left.
    pub(crate) fn next_step(&mut self, now: Stamp) -> Option<Step> {
        let due = self.gateway.poll_timeout().is_some_and(|(at, _)| at <= now.uptime);
        let step = match (self.first.take(), self.events.pop_front()) {
            (Some(step), None) => step,
            (Some(step), Some(event)) => {
                self.events.push_front(event);
                step
            }
            (None, Some(event)) => self.gateway.handle_event(&event, now),
            (None, None) if due => self.gateway.handle_timeout(now),
            (None, None) => return None,
        };
        let ended = |fact: &Fact| matches!(fact, Fact::SessionEnded(_));
        self.washes += step.records.iter().filter(|record| ended(&record.fact)).count() as u64;
        Some(step)
    }

    pub(crate) fn run(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::CloseSwitch(id) => self.switch(&id, true),
                Command::OpenSwitch(id) => self.switch(&id, false),
                Command::ReadSwitch(id) => {
                    let event = self.machine(&id).switch_event();
                    self.events.push_back(event);
                }
                Command::ReadMeter(id) | Command::ReadRegister(id) => {
                    let event = self.machine(&id).meter_event();
                    self.events.push_back(event);
                }
                Command::PaceMeter(id, pace) => self.machine(&id).pace = pace,
                Command::WatchButtons(..)
                | Command::SetLamp(..)
                | Command::ShowFeedback(..)
                | Command::Notify(_)
                | Command::PublishStation(_)
                | Command::Answer(..) => {}
            }
        }
    }

    fn switch(&mut self, id: &StationId, close: bool) {
        let machine = self.machine(id);
        if close && !machine.closed {
            machine.ran_s = 0;
        }
        machine.closed = close;
        let event = machine.switch_event();
        self.events.push_back(event);
    }

    fn machine(&mut self, id: &StationId) -> &mut Machine {
        let here = |machine: &&mut Machine| &machine.station == id;
        self.machines.iter_mut().find(here).expect("a machine of this laundry")
    }
}

/// 16 washers with a meter, a relay and a reader each, all defaults.
pub(crate) fn config() -> String {
    let mut text = String::from(
        "[gateway]\nid = \"busy\"\ntimezone = \"UTC\"\nbilling = \"owner\"\n\n[[bus]]\nid = \"room\"\n\
         transport = \"tcp\"\naddress = \"127.0.0.1:502\"\n",
    );
    for board in 1..=2 {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[device]]\nid = \"relays-{board}\"\nbus = \"room\"\nunit = {board}\n\
             profile = \"waveshare-relay-8\"\n"
        );
    }
    for number in 0..STATIONS {
        let (unit, board, relay) = (11 + number, 1 + number / 8, 1 + number % 8);
        let _ = write!(
            text,
            "\n[[device]]\nid = \"meter-washer-{number}\"\nbus = \"room\"\nunit = {unit}\n\
             profile = \"eastron-sdm120\"\n\n[[reader]]\nid = \"reader-{number}\"\n\
             name = \"Door {number} *\"\nselection = \"single\"\n\n[[station]]\n\
             id = \"washer-{number}\"\nkind = \"washer\"\nlabel = \"Machine {number}\"\n\
             reader = \"reader-{number}\"\nswitch = \"relays-{board}/relay-{relay}\"\n\
             meter = \"meter-washer-{number}\"\n"
        );
    }
    text
}
