//! How many decisions a second the pure function takes, on one core: of cases that pass all rows,
//! and of cases that the first row refuses.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tapgate::core::access::{Circumstances, Denial, Entry, Grant, Origin, decide};
use tapgate::core::badge::Technology;
use tapgate::core::opening_hours::OpeningHours;
use tapgate::core::site::{Billing, MaxConcurrent, SessionRules, SitePolicy, Station, StationKind};
use tapgate::core::time::{Stamp, Uptime, Wall};

/// Decisions of one round, and rounds; the median round counts.
const DECISIONS: u32 = 200_000;
const ROUNDS: usize = 11;

fn main() {
    let (policy, station, entry) = (policy(), station(), entry());
    let circumstances = circumstances();
    let mut closed = station.clone();
    closed.opening_hours = None;
    for (name, station, entry) in [
        ("granted, opening hours included", &station, Some(&entry)),
        ("granted, without opening hours", &closed, Some(&entry)),
        ("unknown badge", &station, None),
    ] {
        let technology = Technology::MifareClassic1k;
        let ask = || decide(&policy, station, entry, technology, black_box(&circumstances));
        let expected = if entry.is_some() { Ok(()) } else { Err(Denial::UnknownBadge) };
        assert_eq!(ask(), expected);
        let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| round(ask)).collect();
        rounds.sort();
        let median = rounds[ROUNDS / 2].as_secs_f64();
        let rate = f64::from(DECISIONS) / median / 1e6;
        println!("{name}: {rate:.2} million decisions a second");
    }
}

fn round(ask: impl Fn() -> Result<(), Denial>) -> Duration {
    let begun = Instant::now();
    for _ in 0..DECISIONS {
        let _ = black_box(ask());
    }
    begun.elapsed()
}

fn policy() -> SitePolicy {
    SitePolicy {
        billing: Billing::Managed,
        timezone: jiff::tz::TimeZone::get("Europe/Zurich").expect("tzdata is installed"),
        max_concurrent: MaxConcurrent { washer: 2, dryer: 2, charger: 1, other: 1 },
        slots: true,
        unattributed_alarm_wh: 50,
        start_read_timeout: Duration::from_millis(1_500),
    }
}

/// A private charger with every rule set.
fn station() -> Station {
    let mut rules = SessionRules::defaults(StationKind::Charger, true, false);
    rules.allowlist_max_age = Some(Duration::from_secs(7 * 86_400));
    let hours = OpeningHours::parse(&["Mon-Sun 00:00-24:00"]).expect("opening hours");
    Station {
        id: "charger-12".into(),
        kind: StationKind::Charger,
        label: "Parking P-12".into(),
        reader: "garage".into(),
        groups: vec!["garage".into()],
        private: true,
        place: Some("P-12".into()),
        serial: Some("EVB-55012".into()),
        meter: Some("meter-charger-12".into()),
        meter_resolution_wh: 1,
        meter_tells_power: true,
        has_button: false,
        has_lamp: false,
        has_feedback: false,
        has_vehicle_state: false,
        opening_hours: Some(hours),
        last_start: Duration::from_secs(3_600),
        rules,
    }
}

fn entry() -> Entry {
    Entry {
        badge: "b-1042".into(),
        user: "u-77".into(),
        origin: Origin::Issued,
        blocked: false,
        grants: vec![Grant::Group("laundry".into()), Grant::Place("P-12".into())],
        valid_from: Some(Wall(1_700_000_000_000)),
        valid_until: Some(Wall(1_900_000_000_000)),
        max_concurrent: Some(2),
    }
}

fn circumstances() -> Circumstances {
    Circumstances {
        now: Stamp {
            boot: 1,
            uptime: Uptime(86_400_000),
            wall: Wall(1_795_341_600_000),
            synced: true,
        },
        clock_floor: Wall(0),
        allowlist_age: Some(Duration::from_secs(3_600)),
        out_of_service: false,
        occupied: false,
        sessions_of_user: 0,
        storage_failed: false,
    }
}
