//! Several stations behind one reader, and machines that pass from one hand to the next.

use tapgate::core::access::Denial;
use tapgate::core::badge::Technology;
use tapgate::core::event::Feedback;
use tapgate::core::ledger::EndReason;
use tapgate::core::site::Selection;

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
fn a_new_allowlist_closes_open_selections() {
    let mut world = World::new(laundry(Selection::Button));
    world.tap("door", anna());
    world.allowlist.remove(&anna());
    world.push_allowlist();
    world.press("washer-1");
    assert_eq!(world.started(), 0);
}
