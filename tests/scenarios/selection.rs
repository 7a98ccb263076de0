//! Several stations behind one reader, and machines that pass from one hand to the next.

use tapgate::core::access::{Denial, Grant};
use tapgate::core::badge::{Technology, Uid};
use tapgate::core::event::{Event, Feedback, Notice};
use tapgate::core::ledger::{EndReason, OverrideAction};
use tapgate::core::site::{Selection, StationKind};

use crate::world::*;

fn washed_and_forgotten() -> World {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(900, 2_000), (1, 2)]);
    world.tap("door", anna());
    world.run(900);
    world
}

#[test]
fn a_running_machine_is_occupied() {
    let mut world = washed_and_forgotten();
    world.tap("door", boris());
    assert!(world.denied(Denial::Occupied));
}

#[test]
fn hands_over_only_after_handover_after() {
    let mut world = washed_and_forgotten();
    world.run(440);
    world.tap("door", boris());
    assert!(world.denied(Denial::Occupied));
    world.run(12);
    world.tap("door", boris());

    assert_eq!(world.last_shown(), Some(Feedback::Granted));
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Handover);
    let next = world.view("washer-1").session.expect("Boris washes");
    assert_eq!(next.user, Some("u-boris".into()));
    assert!(world.plant("washer-1").closed);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn does_not_hand_over_a_wash_that_soaks() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(700, 2_000), (430, 0), (20, 300), (430, 0), (1, 300)]);
    world.tap("door", anna());
    world.run(700 + 430 + 20 + 400);
    world.tap("door", boris());
    assert!(world.denied(Denial::Occupied));
}

#[test]
fn does_not_hand_over_a_wash_that_spins_just_as_the_register_is_read() {
    let mut world = washed_and_forgotten();
    world.run(455);
    world.plant("washer-1").answer = Answer::Slow;
    world.present("door", boris(), Technology::MifareClassic1k);
    world.plant("washer-1").answer = Answer::Right;
    world.plant("washer-1").load(&[(600, 400), (1, 2)]);
    world.run(3);
    assert!(world.denied(Denial::Occupied));
    assert_eq!(world.started(), 1);
}

#[test]
fn first_free_picks_the_next() {
    let mut world = World::new(laundry(Selection::FirstFree));
    for plant in ["washer-1", "washer-2"] {
        world.plant(plant).load(&WASH);
    }
    world.tap("door", anna());
    world.tap("door", boris());
    assert!(world.plant("washer-1").closed && world.plant("washer-2").closed);
    assert_eq!(world.view("washer-2").session.expect("his").user, Some("u-boris".into()));
}

#[test]
fn too_many_sessions_is_the_reason_where_it_came_furthest() {
    let mut site = laundry(Selection::FirstFree);
    site.stations.truncate(2);
    site.readers[0].stations.truncate(2);
    site.policy.max_concurrent.washer = 1;
    let mut world = World::new(site);
    for plant in ["washer-1", "washer-2"] {
        world.plant(plant).load(&WASH);
    }
    world.tap("door", boris());
    world.tap("door", anna());
    world.run(10);
    world.tap("door", stranger());
    assert!(world.denied(Denial::UnknownBadge));
    world.tap("door", boris());
    assert_eq!(world.last_shown(), Some(Feedback::YoursRunning));
    assert_eq!(world.started(), 2);
}

#[test]
fn a_grant_waits_for_a_button() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::SelectStation));
    assert_eq!(world.watched.len(), 3);
    world.press("washer-2");
    assert!(world.plant("washer-2").closed);
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.watched.len(), 0);
}

#[test]
fn the_selection_ends_by_itself() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    world.run(21);
    assert_eq!(world.watched.len(), 0);
    world.press("washer-1");
    assert_eq!(world.started(), 0);
}

#[test]
fn nobody_presses_on_somebody_elses_account() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    world.tap("door", boris());
    assert!(world.denied(Denial::SelectionOpen));
    world.press("washer-1");
    assert_eq!(world.view("washer-1").session.expect("hers").user, Some("u-anna".into()));
}

#[test]
fn the_same_users_tap_closes_the_selection() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    world.tap("door", annas_second());
    assert_eq!(world.watched.len(), 0);
    world.press("washer-1");
    assert_eq!(world.started(), 0);
}

#[test]
fn the_button_of_a_station_that_was_taken_meanwhile_is_refused() {
    let mut site = laundry(Selection::Button);
    site.readers.push(site.readers[0].clone());
    site.readers[1].id = "back-door".into();
    let mut world = World::new(site);
    world.tap("door", anna());
    world.press("washer-1");
    world.run(6);
    world.tap("door", boris());
    assert!(!world.watched.contains(&"washer-1".into()));
    world.press("washer-1");
    assert!(world.denied(Denial::Occupied));
}

#[test]
fn a_new_allowlist_decides_at_the_press_and_disturbs_nobody() {
    for (grants, opens) in [("group:laundry", true), ("group:garage", false)] {
        let mut world = World::new(laundry(Selection::Button));
        world.tap("door", anna());
        let grants = vec![Grant::parse(grants).expect("a grant")];
        world.allowlist.get_mut(&anna()).expect("Anna").grants = grants;
        world.push_allowlist();
        assert_eq!(world.watched.len(), 3);
        world.press("washer-1");
        assert_eq!(world.started(), usize::from(opens));
        assert_eq!(world.denied(Denial::NotGranted), !opens);
    }
}

#[test]
fn a_new_allowlist_without_the_badge_closes_its_selection() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    world.allowlist.remove(&anna());
    world.push_allowlist();
    world.press("washer-1");
    assert_eq!(world.started(), 0);
}

fn chargers(selection: Selection) -> World {
    let stations = ["charger-1", "charger-2"].map(|id| station(id, StationKind::Charger));
    let mut site = site(selection, stations.to_vec());
    site.policy.max_concurrent.charger = 2;
    let mut world = World::new(site);
    for plant in ["charger-1", "charger-2"] {
        world.plant(plant).load(&CHARGE);
    }
    world
}

#[test]
fn first_free_stops_ones_own_before_it_starts_another() {
    let mut world = chargers(Selection::FirstFree);
    world.tap("door", anna());
    world.run(60);
    assert_eq!(world.state("charger-1"), "in_use");

    world.tap("door", anna());

    assert_eq!(world.last_shown(), Some(Feedback::Stopped));
    assert_eq!(world.started(), 1);
    assert!(!world.plant("charger-2").closed);
}

#[test]
fn first_free_starts_another_where_ones_own_cannot_be_stopped() {
    let mut world = World::new(laundry(Selection::FirstFree));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run(10);

    world.tap("door", anna());

    assert_eq!(world.view("washer-2").session.expect("also hers").user, Some("u-anna".into()));
}

#[test]
fn first_free_hands_over_only_where_nothing_is_free() {
    let mut site = laundry(Selection::FirstFree);
    site.stations.truncate(2);
    site.readers[0].stations.truncate(2);
    let mut world = World::new(site);
    world.plant("washer-1").load(&[(900, 2_000), (1, 2)]);
    world.plant("washer-2").load(&[(7_200, 2_000)]);
    world.tap("door", anna());
    world.run(1_360);
    let dirk = uid(0xD1);
    world.allowlist.insert(dirk, entry("b-dirk", "u-dirk"));

    world.tap("door", boris());
    assert_eq!(world.view("washer-2").session.expect("the free one").user, Some("u-boris".into()));
    world.run(10);
    world.tap("door", dirk);

    assert_eq!(world.view("washer-1").session.expect("handed on").user, Some("u-dirk".into()));
    assert_eq!(world.ended().remove(0).reason, EndReason::Handover);
}

#[test]
fn first_free_denies_with_the_reason_of_the_best_candidate() {
    let mut site = laundry(Selection::FirstFree);
    site.stations[2].groups = vec!["elsewhere".into()];
    let mut world = World::new(site);
    world.allowlist.get_mut(&boris()).expect("Boris").grants = vec![Grant::Group("laundry".into())];
    world.disk.out_of_service = vec![("washer-1".into(), None)];
    world.kill();
    world.plant("washer-2").load(&WASH);
    world.tap("door", anna());
    world.run(10);

    world.tap("door", boris());

    // Washer 1 is out of service, washer 2 occupied, the dryer not granted.
    assert!(world.denied(Denial::Occupied));
    let told = world.notices.last().expect("a refusal");
    assert!(
        matches!(told, Notice::Denied { station: Some(id), .. } if id.as_str() == "washer-2"),
        "{told:?}"
    );
}

#[test]
fn a_button_stops_ones_own_charging() {
    let mut world = chargers(Selection::Button);
    world.tap("door", anna());
    world.press("charger-2");
    world.run(60);
    assert_eq!(world.state("charger-2"), "in_use");

    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::SelectStation));
    assert_eq!(world.watched.len(), 2, "one to start, one to stop");
    world.press("charger-2");

    assert_eq!(world.last_shown(), Some(Feedback::Stopped));
    world.run(5);
    assert_eq!(world.ended().remove(0).reason, EndReason::Tapped);
}

#[test]
fn a_badge_that_is_blocked_while_it_chooses_gets_no_machine() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    let blocked = |badge: &str| Event::BadgeOverridden {
        badge: Some(badge.into()),
        action: OverrideAction::Blocked,
        by: "a technician".into(),
        running: Vec::new(),
    };
    world.happens(blocked("b-boris"));
    assert_eq!(world.watched.len(), 3, "another badge");
    world.happens(blocked("b-anna"));
    assert_eq!(world.watched.len(), 0);
    world.press("washer-1");
    assert_eq!(world.started(), 0);
}

#[test]
fn with_buttons_a_badge_that_may_nothing_opens_no_selection() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", stranger());
    assert!(world.denied(Denial::UnknownBadge));
    assert_eq!(world.watched.len(), 0);
    world.press("washer-1");
    assert_eq!(world.started(), 0);
}

#[test]
fn a_selection_refuses_strangers_too_and_still_names_a_card_that_is_no_badge() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    world.tap("door", stranger());
    assert!(world.denied(Denial::SelectionOpen));
    world.tap("door", Uid::new(&[0x08, 1, 2, 3]).expect("four bytes"));
    assert!(world.denied(Denial::RandomUid));
    world.press("washer-1");
    assert_eq!(world.started(), 1, "the selection is still hers");
}

#[test]
fn a_button_without_a_selection_does_nothing() {
    let mut world = World::new(laundry(Selection::Button));
    world.press("washer-1");
    assert_eq!((world.started(), world.shown.len()), (0, 0));
}

#[test]
fn the_decision_is_taken_again_at_the_press() {
    let mut site = laundry(Selection::Button);
    site.stations[0].rules.allowlist_max_age = Some(seconds(10));
    let mut world = World::new(site);
    world.tap("door", anna());
    assert_eq!(world.watched.len(), 3);
    world.run(15);
    world.press("washer-1");
    assert!(world.denied(Denial::AllowlistTooOld));
    assert_eq!(world.started(), 0);
}
