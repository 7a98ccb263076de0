//! Who is refused, and what they are told.

use tapgate::core::access::{Denial, Grant, Origin};
use tapgate::core::badge::{Technology, Uid};
use tapgate::core::event::{Event, Feedback, Notice};
use tapgate::core::ledger::{Fact, OverrideAction};
use tapgate::core::site::{Billing, StationKind};
use tapgate::core::time::Wall;

use crate::world::*;

fn refusal(prepare: impl FnOnce(&mut World)) -> Option<Feedback> {
    let mut world = World::new(single(washer()));
    prepare(&mut world);
    world.tap("door", anna());
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.started(), 0, "a refusal leaves no record");
    world.last_shown()
}

#[test]
fn an_unknown_badge_is_refused_and_reported_with_its_uid() {
    let mut world = World::new(single(washer()));
    world.tap("door", stranger());
    assert!(world.denied(Denial::UnknownBadge));
    let told = world.notices.iter().any(|notice| {
        matches!(notice, Notice::Denied { badge: None, uid: Some(uid), .. } if *uid == stranger())
    });
    assert!(told, "the shell decides whether it may travel");
}

#[test]
fn a_known_badge_is_reported_by_name_alone() {
    let mut world = World::new(single(washer()));
    world.allowlist.get_mut(&anna()).expect("Anna").blocked = true;
    world.tap("door", anna());
    assert!(
        world
            .notices
            .iter()
            .any(|notice| { matches!(notice, Notice::Denied { badge: Some(_), uid: None, .. }) })
    );
}

#[test]
fn random_and_truncated_uids_are_no_badges() {
    let mut world = World::new(single(washer()));
    for (first, denial) in [(0x08, Denial::RandomUid), (0x88, Denial::Unreadable)] {
        let uid = Uid::new(&[first, 1, 2, 3]).expect("four bytes");
        world.allowlist.insert(uid, entry("b-x", "u-x"));
        world.tap("door", uid);
        assert!(world.denied(denial));
    }
    assert_eq!(world.started(), 0);
}

#[test]
fn a_blocked_badge_is_refused() {
    let shown = refusal(|world| world.allowlist.get_mut(&anna()).expect("Anna").blocked = true);
    assert_eq!(shown, Some(Feedback::Denied(Denial::BadgeBlocked)));
}

#[test]
fn a_badge_outside_its_validity_is_refused() {
    let shown = refusal(|world| {
        world.allowlist.get_mut(&anna()).expect("Anna").valid_until = Some(Wall(MORNING - 1));
    });
    assert_eq!(shown, Some(Feedback::Denied(Denial::Expired)));
    let shown = refusal(|world| {
        let tomorrow = Wall(MORNING + 86_400_000);
        world.allowlist.get_mut(&anna()).expect("Anna").valid_from = Some(tomorrow);
    });
    assert_eq!(shown, Some(Feedback::Denied(Denial::NotYetValid)));
}

#[test]
fn without_a_clock_validity_passes_except_before_the_floor() {
    let mut world = World::new(single(washer()));
    world.synced = false;
    world.allowlist.get_mut(&boris()).expect("Boris").valid_until = Some(Wall(MORNING - 1));
    world.tap("door", boris());
    assert!(world.denied(Denial::Expired));
    world.allowlist.get_mut(&anna()).expect("Anna").valid_from = Some(Wall(MORNING * 2));
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
}

#[test]
fn a_third_party_badge_is_refused_on_a_managed_site() {
    let mut site = single(washer());
    site.policy.billing = Billing::Managed;
    let mut world = World::new(site);
    world.allowlist.get_mut(&anna()).expect("Anna").origin = Origin::ThirdParty;
    world.tap("door", anna());
    assert!(world.denied(Denial::OriginNotAccepted));
}

#[test]
fn a_desfire_badge_does_not_open_a_charger() {
    let mut world = World::new(single(charger()));
    world.tap_with("door", anna(), Technology::Desfire);
    assert!(world.denied(Denial::TechnologyNotAccepted));
}

#[test]
fn a_badge_without_a_grant_is_refused() {
    let shown = refusal(|world| {
        let grants = vec![Grant::Group("garage".into()), Grant::Station("washer-9".into())];
        world.allowlist.get_mut(&anna()).expect("Anna").grants = grants;
    });
    assert_eq!(shown, Some(Feedback::Denied(Denial::NotGranted)));
}

#[test]
fn a_private_charger_opens_for_its_place_and_not_for_everybody() {
    let mut plan = station("charger-1", StationKind::Charger);
    plan.private = true;
    plan.place = Some("P-12".into());
    let mut world = World::new(single(plan));
    world.tap("door", boris());
    assert!(world.denied(Denial::NotGranted));
    let place = vec![Grant::Place("P-12".into())];
    world.allowlist.get_mut(&anna()).expect("Anna").grants = place;
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
}

#[test]
fn a_list_that_is_too_old_opens_nothing_where_the_station_says_so() {
    let mut plan = washer();
    plan.rules.allowlist_max_age = Some(seconds(3_600));
    let mut world = World::new(single(plan));
    world.run_minutes(61);
    world.tap("door", anna());
    assert!(world.denied(Denial::AllowlistTooOld));
    world.happens(tapgate::core::event::Event::AllowlistConfirmed);
    world.run(2);
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
}

#[test]
fn a_list_of_an_earlier_boot_without_a_clock_is_at_least_as_old_as_this_boot() {
    let mut plan = washer();
    plan.rules.allowlist_max_age = Some(seconds(3_600));
    let mut world = World::new(single(plan));
    world.synced = false;
    world.happens(tapgate::core::event::Event::AllowlistConfirmed);
    world.cut_power(10, false);
    world.synced = true;
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
    world.run_minutes(61);
    world.tap("door", boris());
    assert!(world.denied(Denial::AllowlistTooOld));
}

#[test]
fn a_station_out_of_service_stays_so_over_restarts() {
    let mut world = World::new(single(washer()));
    world.disk.out_of_service = vec![("washer-1".into(), Some("door broken".into()))];
    world.kill();
    assert_eq!(world.state("washer-1"), "out_of_service");
    assert_eq!(world.view("washer-1").note, Some("door broken".into()));
    world.tap("door", anna());
    assert!(world.denied(Denial::OutOfService));
}

#[test]
fn one_user_has_no_more_sessions_than_allowed() {
    let mut site = laundry(tapgate::core::site::Selection::Single);
    site.policy.max_concurrent.washer = 1;
    for (reader, name) in [("door-1", 0), ("door-2", 1), ("door-3", 2)] {
        site.stations[name].reader = reader.into();
    }
    let all = site.readers.remove(0);
    for (reader, at) in [("door-1", 0), ("door-2", 1), ("door-3", 2)] {
        let stations = vec![site.stations[at].id.clone()];
        let id = reader.into();
        site.readers.push(tapgate::core::site::Reader { id, stations, ..all.clone() });
    }
    let mut world = World::new(site);
    world.tap("door-1", anna());
    world.tap("door-2", annas_second());
    assert!(world.denied(Denial::TooManySessions));
    world.tap("door-3", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Granted), "a dryer is of another kind");
}

#[test]
fn a_badge_that_is_blocked_on_site_loses_its_charging_session_and_that_is_on_record() {
    let mut world = World::new(single(charger()));
    world.tap("door", anna());
    world.run(5);
    assert!(world.plant("charger-1").closed);
    world.allowlist.get_mut(&anna()).expect("Anna").blocked = true;
    let entry = world.allowlist.get(&anna()).cloned();
    let running = world.gateway.running_badges().into_iter().map(|(id, _)| (id, entry.clone()));

    let event = Event::BadgeOverridden {
        badge: Some("b-1042".into()),
        action: OverrideAction::Blocked,
        by: "technician".into(),
        running: running.collect(),
    };
    world.happens(event);
    world.run(5);

    assert!(!world.plant("charger-1").closed);
    assert_eq!(world.count(|fact| matches!(fact, Fact::BadgeOverride { .. })), 1);
    assert_eq!(world.ended().len(), 1);
}
