//! Awkward moments, named after what happens to people.

use tapgate::core::access::Denial;
use tapgate::core::event::Feedback;
use tapgate::core::ledger::EndReason;

use crate::world::*;

fn washing() -> World {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(5);
    world
}

#[test]
fn whoever_taps_while_the_station_is_faulted_is_refused_and_pays_nothing() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run(20);
    world.plant("charger-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.run(30);
    assert_eq!(world.state("charger-1"), "faulted");
    world.tap("door", boris());
    assert!(world.denied(Denial::OutOfService));
    world.run_minutes(10);
    assert_eq!(world.started(), 1);
    world.plant("charger-1").relay = Relay::Obeys;
    world.run_minutes(2);
    assert!(world.disk.unattributed_wh() > 1_000, "what the stuck relay lets through is nobody's");
    world.tap("door", boris());
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
}

#[test]
fn a_tap_that_races_the_end_of_an_unused_session_starts_one_or_is_refused() {
    for early_ms in (0..=3_000).step_by(100) {
        let mut world = World::new(single(washer()));
        world.tap("door", anna());
        world.run(600 - 3);
        world.pass(early_ms);
        world.tap("door", boris());
        let granted = world.last_shown() == Some(Feedback::Granted);
        assert!(granted || world.denied(Denial::Occupied), "{:?}", world.last_shown());
        world.run(10);
        assert_eq!(world.ended()[0].reason, EndReason::NotUsed);
        assert_eq!(world.plant("washer-1").closed, granted);
        assert_eq!(world.disk.open_sessions(), usize::from(granted));
    }
}

#[test]
fn a_tap_that_races_the_hand_over_gets_the_machine_once() {
    for early_ms in (0..=2_000).step_by(100) {
        let mut world = washing();
        while !world.plant("washer-1").is_done() {
            world.run(1);
        }
        world.run(449);
        world.pass(early_ms);
        world.tap("door", boris());
        world.run(5);
        let user = world.view("washer-1").session.expect("somebody's").user;
        let handed_over = user == Some("u-boris".into());
        assert_eq!(world.ended().len(), usize::from(handed_over));
        assert!(world.plant("washer-1").closed);
        world.assert_every_watt_hour_is_accounted_for();
    }
}

#[test]
fn a_wash_whose_meter_is_silent_from_start_to_end_is_not_cut_and_its_energy_is_its_own() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.plant("washer-1").answer = Answer::Silent;
    world.tap("door", anna());
    world.run_minutes(40);
    assert!(world.plant("washer-1").is_done());
    assert!(world.plant("washer-1").closed, "nobody knows whether it still runs");
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(20);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Finished);
    assert_eq!(end.energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_bus_that_is_dead_for_half_a_wash_costs_nobody_the_wash() {
    let mut world = washing();
    world.plant("washer-1").relay = Relay::Silent;
    world.plant("washer-1").answer = Answer::Silent;
    world.run_minutes(12);
    assert!(world.plant("washer-1").closed);
    world.plant("washer-1").relay = Relay::Obeys;
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(30);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Finished);
    assert_eq!(interruptions(&world), 0);
    assert_eq!(end.energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
}

#[test]
fn a_tap_on_a_dead_bus_is_told_to_the_person_and_leaves_nothing_closed() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Silent;
    world.plant("washer-1").answer = Answer::Silent;
    world.tap("door", anna());
    world.run(30);
    assert!(world.denied(Denial::OutOfService));
    assert_eq!(world.ended()[0].reason, EndReason::SwitchFailed);
    world.plant("washer-1").relay = Relay::Obeys;
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(2);
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "available");
}

/// A whole charging with a disk that is full from its `commits`th commit on, for some minutes.
fn charged_with_a_disk_full_after(commits: usize) -> bool {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.disk.full_after = Some(commits);
    world.tap("door", anna());
    world.run_minutes(20);
    world.tap("door", anna());
    world.run_minutes(2);
    assert!(!world.plant("charger-1").closed, "her tap stops it, or nothing had started");
    let filled = world.disk.full;
    world.disk.full = false;
    world.disk.full_after = None;
    world.run_minutes(2);
    assert_eq!((world.gateway.unsaved(), world.disk.open_sessions()), (0, 0));
    assert_eq!(world.ended().len(), world.started());
    for end in world.ended() {
        assert!(end.energy_wh.expect("metered") <= world.flowed_in(end.start.session) + 1);
    }
    world.assert_every_watt_hour_is_accounted_for();
    filled
}

#[test]
fn a_disk_that_gets_full_at_any_step_cuts_nobody_short_and_bills_nothing_twice() {
    let steps = (0..100).take_while(|commits| charged_with_a_disk_full_after(*commits)).count();
    assert!((4..100).contains(&steps), "{steps}");
}
