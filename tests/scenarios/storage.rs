//! A full disk, and a daemon that is killed between any two of its effects.

use tapgate::core::access::Denial;
use tapgate::core::event::Feedback;
use tapgate::core::ledger::{EndReason, Fact};

use crate::world::*;

#[test]
fn a_full_disk_denies_the_start_without_power() {
    let mut world = World::new(single(washer()));
    world.disk.full = true;
    world.tap("door", anna());
    assert!(world.denied(Denial::StorageFailure));
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "available");

    world.disk.full = false;
    world.run(6);
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
    assert!(world.plant("washer-1").closed);
}

#[test]
fn a_running_session_ends_on_a_full_disk_and_its_record_is_written_once() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.disk.full = true;
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Stopped));
    world.run(30);
    assert!(!world.plant("charger-1").closed, "the switch opens all the same");
    assert_eq!(world.ended().len(), 0);

    world.tap("door", boris());
    assert!(world.denied(Denial::StorageFailure));
    world.disk.full = false;
    world.run(30);
    assert_eq!(world.ended().len(), 1);
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
    assert_eq!(world.ended()[0].energy_wh, Some(world.plant("charger-1").register_wh() - 5_000));
}

#[test]
fn a_hand_over_that_cannot_be_saved_leaves_the_first_session_as_it_was() {
    for slots in [true, false] {
        let mut site = single(washer());
        site.policy.slots = slots;
        let mut world = World::new(site);
        world.plant("washer-1").load(&[(900, 2_000), (1, 2)]);
        world.tap("door", anna());
        world.run(900 + 460);
        world.disk.full = true;
        world.tap("door", boris());
        assert!(world.denied(Denial::StorageFailure));
        assert!(world.plant("washer-1").closed);
        assert_eq!(world.view("washer-1").session.expect("hers").user, Some("u-anna".into()));

        world.disk.full = false;
        world.run(60);
        assert_eq!(world.ended()[0].reason, EndReason::Finished);
        assert_eq!(world.ended()[0].energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
        world.assert_every_watt_hour_is_accounted_for();
    }
}

#[test]
fn a_failed_save_does_not_open_a_switch_that_somebody_else_uses() {
    let mut plan = washer();
    plan.meter = None;
    let mut world = World::new(single(plan));
    world.plant("washer-1").load(&[(1, 300)]);
    world.plant("washer-1").closed = true;
    world.run(20);
    world.disk.full = true;
    world.tap("door", anna());
    assert!(world.denied(Denial::StorageFailure));
    assert!(world.plant("washer-1").closed, "power under load stays");
}

#[test]
fn a_disk_that_stays_full_keeps_the_machine_running() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(20_000, 1_000), (1, 0)]);
    world.tap("door", anna());
    world.run(10);
    world.disk.full = true;
    world.run_minutes(4 * 60);
    assert!(world.plant("washer-1").closed);
    world.disk.full = false;
    world.run_minutes(4 * 60);
    assert_eq!(world.ended().len(), 1);
    assert_eq!(world.ended()[0].energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
}

/// One whole session with a kill after `effects` effects; whether it came that far.
fn session_killed_after(effects: usize, slots: bool) -> bool {
    let mut plan = charger();
    plan.rules.idle_after = Some(seconds(60));
    plan.has_lamp = true;
    let mut site = single(plan);
    site.policy.slots = slots;
    let mut world = World::new(site);
    let begun = world.starts;
    world.kill_after = Some(effects);
    world.plant("charger-1").load(&[(10, 0), (1_200, 11_000), (1, 0)]);
    world.tap("door", anna());
    world.run(10);
    if world.started() == 0 {
        world.tap("door", anna());
        world.run(10);
    }
    assert!(world.plant("charger-1").closed, "killed after {effects}: no power");
    world.run_minutes(15);
    assert!(world.plant("charger-1").closed, "killed after {effects}: cut under load");
    world.run_minutes(15);
    assert_eq!(world.ended().len(), 1, "killed after {effects}");
    assert_eq!(world.started(), 1, "killed after {effects}");
    assert_eq!(world.disk.open_sessions(), 0);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert!(!world.plant("charger-1").closed);
    let used = world.plant("charger-1").register_wh() - 5_000;
    assert_eq!(world.disk.sessions_wh() + world.disk.unattributed_wh(), used);
    assert_eq!(world.disk.unattributed_wh(), 0, "killed after {effects}");
    let switched = world.count(|fact| matches!(fact, Fact::Interruption { .. }));
    assert_eq!(switched, 0, "killed after {effects}: nothing took its power");
    world.assert_every_watt_hour_is_accounted_for();
    world.starts > begun
}

#[test]
fn killed_between_any_two_effects_it_is_one_session_and_no_watt_hour_is_lost() {
    for slots in [true, false] {
        let cuts = (0..).take_while(|effects| session_killed_after(*effects, slots)).count();
        assert!(cuts > 15, "only {cuts} places to die");
    }
}

/// A hand-over with a kill after `effects` effects.
fn hand_over_killed_after(effects: usize) -> bool {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(900, 2_000), (1, 2)]);
    world.tap("door", anna());
    world.run(900 + 460);
    let begun = world.starts;
    world.kill_after = Some(effects);
    world.tap("door", boris());
    world.plant("washer-1").load(&WASH);
    world.run(2);
    assert!(world.plant("washer-1").closed, "killed after {effects}");
    world.run_minutes(120);
    let sessions = world.started();
    assert_eq!(world.ended().len(), sessions, "killed after {effects}");
    assert!(world.plant("washer-1").is_done());
    world.assert_every_watt_hour_is_accounted_for();
    world.starts > begun
}

#[test]
fn a_hand_over_killed_between_any_two_effects_leaves_nobody_without_power() {
    let cuts = (0..).take_while(|effects| hand_over_killed_after(*effects)).count();
    assert!(cuts > 5);
}

fn charging_with_full_disk() -> World {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.disk.full = true;
    world.tap("door", anna());
    world.run(20);
    assert!(!world.plant("charger-1").closed, "the tap stops it, disk or not");
    world
}

#[test]
fn a_session_that_ended_on_a_full_disk_stays_ended_over_a_restart() {
    let mut world = charging_with_full_disk();
    world.disk.full = false;
    world.kill();
    world.run_minutes(5);
    assert!(!world.plant("charger-1").closed);
    assert_eq!(world.ended().len(), 1);
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
    assert_eq!(world.disk.open_sessions(), 0);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_session_that_ended_on_a_full_disk_stays_ended_over_a_power_cut() {
    let mut world = charging_with_full_disk();
    world.disk.full = false;
    world.cut_power(5, true);
    world.run_minutes(5);
    assert!(!world.plant("charger-1").closed, "nobody charges on Anna's account");
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
}

#[test]
fn a_session_that_ended_on_a_disk_that_stays_full_stays_ended() {
    let mut world = charging_with_full_disk();
    world.kill();
    world.run_minutes(30);
    assert!(!world.plant("charger-1").closed);
    world.disk.full = false;
    world.run(20);
    assert_eq!(world.ended().len(), 1);
}

#[test]
fn a_session_that_ended_on_a_full_disk_stays_ended_over_two_crashes() {
    for full in [true, false] {
        for effects in 0..8 {
            let mut world = charging_with_full_disk();
            world.disk.full = full;
            world.kill_after = Some(effects);
            world.kill();
            world.run(1);
            world.kill();
            world.run_minutes(10);
            world.disk.full = false;
            world.run(20);
            assert!(!world.plant("charger-1").closed, "after {effects} effects");
            assert_eq!(world.ended().len(), 1);
            assert_eq!(world.ended()[0].reason, EndReason::Tapped);
        }
    }
}
