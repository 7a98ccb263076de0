//! The people, readers and stations of the virtual building.

use std::collections::BTreeMap;
use std::time::Duration;

use tapgate::core::access::{Entry, Grant, Origin};
use tapgate::core::badge::Uid;
use tapgate::core::site::{
    Billing, MaxConcurrent, Reader, Selection, SessionRules, Site, SitePolicy, Station, StationKind,
};

/// A wash: heats, turns, soaks for two minutes, spins; its electronics draw 2 W afterwards.
pub const WASH: [(u64, i64); 6] = [(20, 3), (600, 2_000), (300, 150), (120, 0), (300, 400), (1, 2)];
/// A car that charges for an hour.
pub const CHARGE: [(u64, i64); 3] = [(10, 0), (3_600, 11_000), (1, 0)];

pub fn anna() -> Uid {
    uid(0xA1)
}

/// Another badge of Anna.
pub fn annas_second() -> Uid {
    uid(0xA2)
}

pub fn boris() -> Uid {
    uid(0xB1)
}

pub fn stranger() -> Uid {
    uid(0xEE)
}

pub fn uid(last: u8) -> Uid {
    Uid::new(&[0x04, 0x10, 0x20, last]).expect("four bytes")
}

/// Anna with two badges, and Boris; all may use everything that is shared.
pub fn everybody() -> BTreeMap<Uid, Entry> {
    BTreeMap::from([
        (anna(), entry("b-anna", "u-anna")),
        (annas_second(), entry("b-anna-2", "u-anna")),
        (boris(), entry("b-boris", "u-boris")),
    ])
}

pub fn entry(badge: &str, user: &str) -> Entry {
    Entry {
        badge: badge.into(),
        user: user.into(),
        origin: Origin::Issued,
        blocked: false,
        grants: vec![Grant::Everything],
        valid_from: None,
        valid_until: None,
        max_concurrent: None,
    }
}

pub fn washer() -> Station {
    station("washer-1", StationKind::Washer)
}

pub fn charger() -> Station {
    station("charger-1", StationKind::Charger)
}

pub fn station(id: &str, kind: StationKind) -> Station {
    Station {
        id: id.into(),
        kind,
        label: id.into(),
        reader: "door".into(),
        groups: vec!["laundry".into()],
        private: false,
        place: None,
        serial: None,
        meter: Some(format!("meter-{id}").into()),
        meter_resolution_wh: 1,
        meter_tells_power: true,
        has_button: false,
        has_lamp: false,
        has_feedback: false,
        has_vehicle_state: false,
        opening_hours: None,
        last_start: Duration::ZERO,
        rules: SessionRules::defaults(kind, false, false),
    }
}

/// One reader, `door`, for all these stations.
pub fn site(selection: Selection, stations: Vec<Station>) -> Site {
    let reader = Reader {
        id: "door".into(),
        selection,
        debounce: Duration::from_secs(1),
        selection_timeout: Duration::from_secs(20),
        stations: stations.iter().map(|station| station.id.clone()).collect(),
    };
    Site { policy: policy(), readers: vec![reader], stations }
}

/// One reader and one station.
pub fn single(station: Station) -> Site {
    site(Selection::Single, vec![station])
}

/// Two washers and a dryer behind one reader.
pub fn laundry(selection: Selection) -> Site {
    let second = station("washer-2", StationKind::Washer);
    site(selection, vec![washer(), second, station("dryer-1", StationKind::Dryer)])
}

pub fn policy() -> SitePolicy {
    SitePolicy {
        billing: Billing::Owner,
        timezone: jiff::tz::TimeZone::UTC,
        max_concurrent: MaxConcurrent { washer: 2, dryer: 2, charger: 1, other: 1 },
        slots: true,
        unattributed_alarm_wh: 50,
        start_read_timeout: Duration::from_millis(1_500),
    }
}
