//! The decision, row by row, and for each two rows that hold at once which is the reason.

use std::time::Duration;

use jiff::tz::TimeZone;
use tapgate::core::access::{Circumstances, Denial, Entry, Grant, Origin, decide};
use tapgate::core::badge::Technology;
use tapgate::core::opening_hours::OpeningHours;
use tapgate::core::site::{Billing, SitePolicy, Station};
use tapgate::core::time::{Stamp, Uptime, Wall};

use crate::world::{MORNING, charger, entry, policy, seconds, washer};

/// Everything that a decision depends on; granted as it stands.
struct Case {
    policy: SitePolicy,
    station: Station,
    entry: Option<Entry>,
    technology: Technology,
    circumstances: Circumstances,
}

fn granted() -> Case {
    let mut station = charger();
    station.rules.allowlist_max_age = Some(Duration::from_secs(3_600));
    Case {
        policy: SitePolicy { billing: Billing::Managed, ..policy() },
        station,
        entry: Some(entry("b-anna", "u-anna")),
        technology: Technology::MifareClassic1k,
        circumstances: Circumstances {
            now: Stamp { boot: 1, uptime: Uptime(0), wall: Wall(MORNING), synced: true },
            clock_floor: Wall(0),
            allowlist_age: Some(Duration::from_secs(10)),
            out_of_service: false,
            occupied: false,
            sessions_of_user: 0,
            storage_failed: false,
        },
    }
}

fn entry_of(case: &mut Case) -> Option<&mut Entry> {
    case.entry.as_mut()
}

fn change(case: &mut Case, change: impl FnOnce(&mut Entry)) {
    if let Some(entry) = entry_of(case) {
        change(entry);
    }
}

/// A row of the table: its reason and what makes it hold.
type Row = (Denial, fn(&mut Case));

const ROWS: [Row; 13] = [
    (Denial::UnknownBadge, |case| case.entry = None),
    (Denial::BadgeBlocked, |case| change(case, |entry| entry.blocked = true)),
    (Denial::NotYetValid, |case| {
        change(case, |entry| entry.valid_from = Some(Wall(MORNING + 1)));
    }),
    (Denial::Expired, |case| change(case, |entry| entry.valid_until = Some(Wall(MORNING)))),
    (Denial::OriginNotAccepted, |case| {
        change(case, |entry| entry.origin = Origin::ThirdParty);
    }),
    (Denial::TechnologyNotAccepted, |case| case.technology = Technology::Desfire),
    (Denial::NotGranted, |case| {
        change(case, |entry| entry.grants = vec![Grant::Group("garage".into())]);
    }),
    (Denial::AllowlistTooOld, |case| {
        case.circumstances.allowlist_age = Some(Duration::from_secs(3_601));
    }),
    (Denial::Closed, |case| case.station.opening_hours = Some(never_in_the_morning())),
    (Denial::OutOfService, |case| case.circumstances.out_of_service = true),
    (Denial::Occupied, |case| case.circumstances.occupied = true),
    (Denial::TooManySessions, |case| case.circumstances.sessions_of_user = 1),
    (Denial::StorageFailure, |case| case.circumstances.storage_failed = true),
];

/// [`MORNING`] lies outside.
fn never_in_the_morning() -> OpeningHours {
    OpeningHours::parse(&["Mon-Sun 00:00-00:01"]).expect("opening hours")
}

fn verdict(case: &Case) -> Result<(), Denial> {
    let Case { policy, station, entry, technology, circumstances } = case;
    decide(policy, station, entry.as_ref(), *technology, circumstances)
}

#[test]
fn grants_where_no_row_holds() {
    assert_eq!(verdict(&granted()), Ok(()));
}

#[test]
fn each_row_denies_with_its_reason() {
    for (denial, hold) in ROWS {
        let mut case = granted();
        hold(&mut case);
        assert_eq!(verdict(&case), Err(denial));
    }
}

#[test]
fn of_any_two_rows_the_first_is_the_reason() {
    for (i, (first, hold)) in ROWS.iter().enumerate() {
        for (second, hold_too) in &ROWS[i + 1..] {
            let mut case = granted();
            hold_too(&mut case);
            hold(&mut case);
            assert_eq!(verdict(&case), Err(*first), "{first} and {second}");
        }
    }
}

#[test]
fn the_clock_rows_pass_while_the_clock_is_not_trustworthy() {
    for (denial, hold) in ROWS {
        let mut case = granted();
        hold(&mut case);
        case.circumstances.now.synced = false;
        let passes = matches!(
            denial,
            Denial::NotYetValid | Denial::Expired | Denial::AllowlistTooOld | Denial::Closed
        );
        assert_eq!(verdict(&case), if passes { Ok(()) } else { Err(denial) });
    }
}

#[test]
fn the_rows_stand_in_the_contracts_order() {
    let rows: Vec<&str> = ROWS.iter().map(|(denial, _)| denial.as_str()).collect();
    assert_eq!(
        rows,
        [
            "unknown_badge",
            "badge_blocked",
            "not_yet_valid",
            "expired",
            "origin_not_accepted",
            "technology_not_accepted",
            "not_granted",
            "allowlist_too_old",
            "closed",
            "out_of_service",
            "occupied",
            "too_many_sessions",
            "storage_failure",
        ]
    );
    assert!(ROWS.is_sorted_by_key(|(denial, _)| *denial), "the best refusal is the furthest down");
}

#[test]
fn a_validity_that_ended_before_the_clock_floor_always_denies() {
    let mut case = granted();
    change(&mut case, |entry| entry.valid_until = Some(Wall(MORNING)));
    case.circumstances.now.synced = false;
    case.circumstances.clock_floor = Wall(MORNING + 1);
    assert_eq!(verdict(&case), Err(Denial::Expired));
}

#[test]
fn a_private_station_needs_a_grant_that_names_it() {
    // Grant, on a shared station, on a private one.
    let grants = [
        ("*", true, false),
        ("group:laundry", true, false),
        ("group:garage", false, false),
        ("group:charger-1", false, false),
        ("station:charger-1", true, true),
        ("station:charger-2", false, false),
        ("station:laundry", false, false),
        ("place:P-12", true, true),
        ("place:P-1", false, false),
        ("serial:S-9", true, true),
        ("serial:P-12", false, false),
    ];
    for (grant, opens, opens_private) in grants {
        for (private, opens) in [(false, opens), (true, opens_private)] {
            let mut case = granted();
            case.station.private = private;
            case.station.place = Some("P-12".into());
            case.station.serial = Some("S-9".into());
            let grant = Grant::parse(grant).expect("a grant");
            change(&mut case, |entry| entry.grants = vec![grant.clone()]);
            let expected = if opens { Ok(()) } else { Err(Denial::NotGranted) };
            assert_eq!(verdict(&case), expected, "{grant:?}, private: {private}");
        }
    }
}

#[test]
fn no_grant_and_a_grant_for_what_the_station_lacks_open_nothing() {
    for grants in [vec![], vec![Grant::Place(String::new())], vec![Grant::Serial("S-9".into())]] {
        let mut case = granted();
        change(&mut case, |entry| entry.grants = grants);
        assert_eq!(verdict(&case), Err(Denial::NotGranted));
    }
}

#[test]
fn what_is_no_grant_is_not_read_as_one() {
    for wrong in ["", "**", "station", "station:", "Station:x", "building:x", " *", "group"] {
        assert_eq!(Grant::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn billing_decides_whether_the_owners_badges_open() {
    let cases = [
        (Billing::Managed, Origin::Issued, Ok(())),
        (Billing::Managed, Origin::ThirdParty, Err(Denial::OriginNotAccepted)),
        (Billing::Owner, Origin::Issued, Ok(())),
        (Billing::Owner, Origin::ThirdParty, Ok(())),
    ];
    for (billing, origin, expected) in cases {
        let mut case = granted();
        case.policy.billing = billing;
        change(&mut case, |entry| entry.origin = origin);
        assert_eq!(verdict(&case), expected, "{billing:?} {origin:?}");
    }
}

#[test]
fn chargers_accept_the_classics_and_laundries_any_card() {
    use Technology::*;
    let all = [
        (MifareClassic1k, true),
        (MifareClassic4k, true),
        (MifareClassicMini, true),
        (MifarePlusSl1, true),
        (MifareUltralight, false),
        (Desfire, false),
        (Iso14443_4, false),
        (Other, false),
    ];
    for (technology, classic) in all {
        for (station, origin, opens) in [
            (charger(), Origin::Issued, classic),
            (charger(), Origin::ThirdParty, classic),
            (washer(), Origin::Issued, true),
            (washer(), Origin::ThirdParty, classic),
        ] {
            let mut case = Case { station, technology, ..granted() };
            case.policy.billing = Billing::Owner;
            change(&mut case, |entry| entry.origin = origin);
            let expected = if opens { Ok(()) } else { Err(Denial::TechnologyNotAccepted) };
            let kind = case.station.kind;
            assert_eq!(verdict(&case), expected, "{technology:?} {kind:?} {origin:?}");
        }
    }
}

#[test]
fn a_station_accepts_the_technologies_that_it_lists_and_no_other() {
    let mut case = Case { station: washer(), technology: Technology::Desfire, ..granted() };
    case.station.rules.accepted_technologies = Some(vec![Technology::Desfire]);
    assert_eq!(verdict(&case), Ok(()));
    case.technology = Technology::MifareClassic1k;
    assert_eq!(verdict(&case), Err(Denial::TechnologyNotAccepted));
}

/// Open from 22:00 on Saturday to 04:00 on Sunday, in Zurich, and no start in the last two hours.
fn night(at: &str) -> Case {
    let mut case = granted();
    case.policy.timezone = TimeZone::get("Europe/Zurich").expect("tzdata is installed");
    let hours = OpeningHours::parse(&["Sat 22:00-04:00"]).expect("opening hours");
    case.station.opening_hours = Some(hours);
    case.station.last_start = seconds(2 * 3_600);
    let at: jiff::Timestamp = at.parse().expect("a timestamp");
    case.circumstances.now.wall = Wall(at.as_millisecond());
    case
}

#[test]
fn closing_and_last_start_are_local_time_over_both_changes_of_the_clock() {
    let closed = Err(Denial::Closed);
    for (at, expected) in [
        ("2026-11-21T21:59:59+01:00", closed),
        ("2026-11-21T22:00:00+01:00", Ok(())),
        ("2026-11-22T02:00:00+01:00", Ok(())),
        ("2026-11-22T02:00:01+01:00", closed),
        ("2026-11-22T04:00:00+01:00", closed),
        // The hour from 02:00 to 03:00 is left out: the last start is an hour earlier.
        ("2026-03-29T01:00:00+01:00", Ok(())),
        ("2026-03-29T01:00:01+01:00", closed),
        ("2026-03-29T03:00:00+02:00", closed),
        // It comes twice: the last start is an hour later.
        ("2026-10-25T02:59:59+02:00", Ok(())),
        ("2026-10-25T02:00:00+01:00", Ok(())),
        ("2026-10-25T02:00:01+01:00", closed),
    ] {
        assert_eq!(verdict(&night(at)), expected, "{at}");
    }
}

#[test]
fn an_allowlist_grants_up_to_its_age_and_not_a_second_longer() {
    let hour = 3_600;
    for (age, limit, synced, expected) in [
        (Some(hour), Some(hour), true, Ok(())),
        (Some(hour + 1), Some(hour), true, Err(Denial::AllowlistTooOld)),
        (Some(hour + 1), Some(hour), false, Ok(())),
        (Some(400 * 24 * hour), None, true, Ok(())),
        (None, Some(hour), true, Ok(())),
    ] {
        let mut case = granted();
        case.station.rules.allowlist_max_age = limit.map(seconds);
        case.circumstances.allowlist_age = age.map(seconds);
        case.circumstances.now.synced = synced;
        assert_eq!(verdict(&case), expected, "{age:?} {limit:?} {synced}");
    }
}

#[test]
fn validity_begins_and_ends_on_the_millisecond() {
    let validity = |from: Option<i64>, until: Option<i64>| {
        let mut case = granted();
        change(&mut case, |entry| {
            (entry.valid_from, entry.valid_until) = (from.map(Wall), until.map(Wall));
        });
        verdict(&case)
    };
    assert_eq!(validity(Some(MORNING), Some(MORNING + 1)), Ok(()));
    assert_eq!(validity(Some(MORNING + 1), None), Err(Denial::NotYetValid));
    assert_eq!(validity(None, Some(MORNING)), Err(Denial::Expired));
    assert_eq!(validity(None, None), Ok(()));
}

#[test]
fn a_third_party_badge_must_be_classic_even_where_any_technology_is_accepted() {
    let mut case = granted();
    case.policy.billing = Billing::Owner;
    case.station.rules.accepted_technologies = None;
    case.technology = Technology::MifareUltralight;
    assert_eq!(verdict(&case), Ok(()));
    change(&mut case, |entry| entry.origin = Origin::ThirdParty);
    assert_eq!(verdict(&case), Err(Denial::TechnologyNotAccepted));
}

#[test]
fn the_entrys_own_limit_goes_before_the_sites() {
    let mut case = granted();
    case.circumstances.sessions_of_user = 1;
    change(&mut case, |entry| entry.max_concurrent = Some(2));
    assert_eq!(verdict(&case), Ok(()));
    case.circumstances.sessions_of_user = 2;
    assert_eq!(verdict(&case), Err(Denial::TooManySessions));
    change(&mut case, |entry| entry.max_concurrent = Some(0));
    case.circumstances.sessions_of_user = 0;
    assert_eq!(verdict(&case), Err(Denial::TooManySessions), "none at all");
}
