//! What one seed is about: the building, its people, and what goes wrong in it.

use std::time::Duration;

use tapgate::core::opening_hours::OpeningHours;
use tapgate::core::site::{
    IdleBurst, OnRevoked, Reader, Selection, SessionRules, Site, Station, StationKind,
};

use crate::building;
use crate::random::Random;

/// Kinds of things that happen, each more or less often in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Tap,
    Burst,
    Load,
    Car,
    Glitch,
    Exchange,
    DeadUnit,
    Relay,
    ReaderFlaps,
    Broker,
    Cloud,
    List,
    Order,
    Technician,
    Block,
    Clock,
    Kill,
    KillSoon,
    PowerCut,
    PowerCutSoon,
    Reboot,
    Disk,
}

/// How often each happens where nothing else is said.
const USUAL: [(Happening, u64); 22] = [
    (Happening::Tap, 40),
    (Happening::Burst, 6),
    (Happening::Load, 25),
    (Happening::Car, 10),
    (Happening::Glitch, 8),
    (Happening::Exchange, 2),
    (Happening::DeadUnit, 5),
    (Happening::Relay, 5),
    (Happening::ReaderFlaps, 4),
    (Happening::Broker, 8),
    (Happening::Cloud, 6),
    (Happening::List, 8),
    (Happening::Order, 8),
    (Happening::Technician, 5),
    (Happening::Block, 3),
    (Happening::Clock, 4),
    (Happening::Kill, 4),
    (Happening::KillSoon, 5),
    (Happening::PowerCut, 3),
    (Happening::PowerCutSoon, 3),
    (Happening::Reboot, 2),
    (Happening::Disk, 6),
];

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Plan {
    pub site: Site,
    /// What happens and how often.
    pub happenings: Vec<(Happening, u64)>,
    /// Wall time at the start, and whether it is known to be right.
    pub wall: i64,
    pub synced: bool,
    /// Virtual seconds of trouble.
    pub seconds: u64,
    /// The longest pause between two things that happen, in milliseconds.
    pub pause_ms: u64,
}

/// Moments around which slots, days and summer time change, in milliseconds of UTC.
const MOMENTS: [i64; 6] = [
    1_795_341_600_000, // 2026-11-22T10:00Z
    1_795_391_700_000, // 2026-11-22T23:55Z
    1_774_745_700_000, // 2026-03-29T00:55Z, summer time begins in five minutes
    1_792_889_700_000, // 2026-10-25T00:55Z, summer time ends
    1_798_761_420_000, // 2026-12-31T23:57Z
    1_795_350_480_000, // 2026-11-22T12:28Z
];

impl Plan {
    pub fn draw(random: &mut Random, seconds: u64) -> Plan {
        let mut happenings = Vec::new();
        for (happening, weight) in USUAL {
            // Each run leaves some out, so that others are seen alone.
            let weight = *random.one_of(&[0, weight / 2, weight, weight, weight * 3]);
            let weight = if happening == Happening::Tap { weight.max(20) } else { weight };
            if weight > 0 {
                happenings.push((happening, weight));
            }
        }
        Plan {
            site: site(random),
            happenings,
            wall: *random.one_of(&MOMENTS),
            synced: !random.percent(15),
            seconds,
            pause_ms: *random.one_of(&[2_000, 6_000, 15_000]),
        }
    }

    pub fn choose(&self, random: &mut Random) -> Happening {
        let sum: u64 = self.happenings.iter().map(|(_, weight)| weight).sum();
        let mut left = random.between(0, sum);
        for (happening, weight) in &self.happenings {
            if left < *weight {
                return *happening;
            }
            left -= weight;
        }
        Happening::Tap
    }
}

fn site(random: &mut Random) -> Site {
    let laundry = random.between(1, 3);
    let chargers = random.between(0, 2);
    let mut stations = Vec::new();
    for number in 0..laundry {
        let kind = if random.percent(35) { StationKind::Dryer } else { StationKind::Washer };
        stations.push(machine(random, kind, number));
    }
    for number in 0..chargers {
        stations.push(charger(random, number));
    }
    let choices = [Selection::FirstFree, Selection::FirstFree, Selection::Button];
    let mut selection = *random.one_of(&choices);
    if stations.len() == 1 {
        selection = Selection::Single;
    }
    for station in &mut stations {
        station.has_button = selection == Selection::Button;
        station.has_lamp = random.percent(30);
    }
    let mut site = building::site(selection, stations);
    if random.percent(30) && site.stations.len() > 1 {
        separate_reader(&mut site);
    }
    site.policy.timezone = jiff::tz::TimeZone::get("Europe/Zurich").expect("tzdata is there");
    site.policy.unattributed_alarm_wh = 5;
    site.policy.slots = !random.percent(15);
    site
}

/// The last station gets a reader of its own.
fn separate_reader(site: &mut Site) {
    let Some(last) = site.stations.last_mut() else { return };
    last.reader = "garage".into();
    last.has_button = false;
    let id = last.id.clone();
    if let Some(door) = site.readers.first_mut() {
        door.stations.retain(|station| *station != id);
        if door.stations.len() == 1 {
            door.selection = Selection::Single;
        }
        let garage = Reader {
            id: "garage".into(),
            selection: Selection::Single,
            stations: vec![id],
            ..door.clone()
        };
        site.readers.push(garage);
    }
}

/// Rules as in life, a hundred times faster where they are about minutes.
fn machine(random: &mut Random, kind: StationKind, number: u64) -> Station {
    let mut plan = building::station(&format!("machine-{number}"), kind);
    let rules = SessionRules::defaults(kind, false, false);
    plan.rules = SessionRules {
        start_timeout: Some(seconds(25)),
        handover_after: Some(seconds(*random.one_of(&[12, 16]))),
        idle_after: Some(seconds(20)),
        idle_burst: rules.idle_burst.map(|burst| IdleBurst { duration: seconds(8), ..burst }),
        min_duration: seconds(15),
        max_duration: Some(seconds(180)),
        max_energy_wh: random.percent(20).then_some(60),
        require_meter: random.percent(20),
        on_revoked: if random.percent(30) { OnRevoked::Stop } else { OnRevoked::Finish },
        resume_within: seconds(240),
        ..rules
    };
    if random.percent(12) {
        plan.meter = None;
    } else if random.percent(15) {
        plan.meter_tells_power = false;
    }
    if random.percent(15) {
        plan.opening_hours = OpeningHours::parse(&["Mon-Sun 06:00-02:30"]).ok();
        plan.last_start = seconds(60);
    }
    plan
}

fn charger(random: &mut Random, number: u64) -> Station {
    let mut plan = building::station(&format!("charger-{number}"), StationKind::Charger);
    plan.has_vehicle_state = random.percent(60);
    plan.private = random.percent(30);
    plan.place = plan.private.then(|| "P-12".into());
    let rules = SessionRules::defaults(StationKind::Charger, plan.private, plan.has_vehicle_state);
    plan.rules = SessionRules {
        start_timeout: Some(seconds(60)),
        idle_after: (!plan.has_vehicle_state).then(|| seconds(40)),
        max_duration: Some(seconds(240)),
        max_energy_wh: random.percent(20).then_some(200),
        require_meter: !random.percent(20),
        resume_within: seconds(600),
        ..rules
    };
    plan
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
