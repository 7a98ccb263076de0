//! The decision, row by row, and for each two rows that hold at once which is the reason.

use std::time::Duration;

use tapgate::core::access::{Circumstances, Denial, Entry, Grant, Origin, decide};
use tapgate::core::badge::Technology;
use tapgate::core::site::{Billing, SitePolicy, Station};
use tapgate::core::time::{Stamp, Uptime, Wall};

use crate::world::{MORNING, charger, entry, policy};

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

const ROWS: [Row; 12] = [
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
    (Denial::OutOfService, |case| case.circumstances.out_of_service = true),
    (Denial::Occupied, |case| case.circumstances.occupied = true),
    (Denial::TooManySessions, |case| case.circumstances.sessions_of_user = 1),
    (Denial::StorageFailure, |case| case.circumstances.storage_failed = true),
];

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
        let passes =
            matches!(denial, Denial::NotYetValid | Denial::Expired | Denial::AllowlistTooOld);
        assert_eq!(verdict(&case), if passes { Ok(()) } else { Err(denial) });
    }
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
    let grants = [
        (Grant::Everything, false),
        (Grant::Group("laundry".into()), false),
        (Grant::Station("charger-1".into()), true),
        (Grant::Place("P-12".into()), true),
        (Grant::Serial("S-9".into()), true),
        (Grant::Place("P-13".into()), false),
    ];
    for (grant, opens) in grants {
        let mut case = granted();
        case.station.private = true;
        case.station.place = Some("P-12".into());
        case.station.serial = Some("S-9".into());
        change(&mut case, |entry| entry.grants = vec![grant.clone()]);
        assert_eq!(verdict(&case).is_ok(), opens, "{grant:?}");
    }
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
}
