//! How fast the pure function decides.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tapgate::core::access::{Circumstances, Entry, Grant, Origin, decide};
use tapgate::core::badge::Technology;
use tapgate::core::site::{Billing, MaxConcurrent, SessionRules, SitePolicy, Station, StationKind};
use tapgate::core::time::Stamp;

const DECISIONS: u32 = 5_000_000;

/// Decisions a second on one processor, for a badge that is granted by the last of its grants.
pub(crate) fn decisions_per_second(now: Stamp) -> f64 {
    let (policy, station, entry) = (policy(), station(), entry());
    let circumstances = Circumstances {
        now,
        clock_floor: now.wall,
        allowlist_age: Some(Duration::from_secs(60)),
        out_of_service: false,
        occupied: false,
        sessions_of_user: 0,
        storage_failed: false,
    };
    let begin = Instant::now();
    for _ in 0..DECISIONS {
        let technology = black_box(Technology::MifareClassic1k);
        let entry = black_box(Some(&entry));
        let decision = decide(&policy, black_box(&station), entry, technology, &circumstances);
        assert!(black_box(decision).is_ok());
    }
    f64::from(DECISIONS) / begin.elapsed().as_secs_f64()
}

fn entry() -> Entry {
    Entry {
        badge: "b-1042".into(),
        user: "u-77".into(),
        origin: Origin::Issued,
        blocked: false,
        grants: vec![Grant::Group("garage".into()), Grant::Group("laundry".into())],
        valid_from: None,
        valid_until: None,
        max_concurrent: Some(1),
    }
}

fn station() -> Station {
    let kind = StationKind::Washer;
    Station {
        id: "washer-1".into(),
        kind,
        label: "Machine 1".into(),
        reader: "laundry-door".into(),
        groups: vec!["laundry".into()],
        private: false,
        place: None,
        serial: None,
        meter: Some("meter-washer-1".into()),
        meter_resolution_wh: 1,
        meter_tells_power: true,
        has_button: false,
        has_feedback: false,
        has_vehicle_state: false,
        has_lamp: false,
        opening_hours: None,
        last_start: Duration::ZERO,
        rules: SessionRules::defaults(kind, false, false),
    }
}

fn policy() -> SitePolicy {
    SitePolicy {
        billing: Billing::Managed,
        timezone: jiff::tz::TimeZone::UTC,
        max_concurrent: MaxConcurrent { washer: 2, dryer: 2, charger: 1, other: 1 },
        slots: true,
        unattributed_alarm_wh: 50,
        start_read_timeout: Duration::from_millis(1_500),
    }
}
