//! Clocks that are wrong, and become right.

use tapgate::core::access::Denial;
use tapgate::core::event::Event;
use tapgate::core::ledger::{EndReason, Fact};
use tapgate::core::time::Wall;

use crate::world::*;

const HOUR_MS: i64 = 3_600_000;

fn slots_wh(world: &World) -> i64 {
    let facts = world.disk.records.iter().map(|record| &record.fact);
    facts
        .map(|fact| match fact {
            Fact::SessionSlot { from_wh, to_wh, .. } => to_wh - from_wh,
            _ => 0,
        })
        .sum()
}

fn washed_while(jump: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(10);
    jump(&mut world);
    world.run_minutes(30);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Finished);
    assert_eq!(end.energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
    assert_eq!(Some(slots_wh(&world)), end.energy_wh, "the slots are all of it");
    assert!((30 * 60..35 * 60).contains(&end.duration_s), "{} s", end.duration_s);
    world.assert_every_watt_hour_is_accounted_for();
    world
}

#[test]
fn a_clock_set_back_neither_ends_nor_lengthens_a_wash() {
    washed_while(|world| world.wall -= 5 * HOUR_MS);
}

#[test]
fn time_that_has_surely_passed_ends_a_badge_without_a_clock() {
    let mut world = World::new(single(washer()));
    world.synced = false;
    let until = Wall(MORNING + HOUR_MS);
    world.allowlist.get_mut(&anna()).expect("Anna").valid_until = Some(until);
    world.happens(Event::TimePassed { floor: Wall(until.0 - 1) });
    world.tap("door", anna());
    assert_eq!(world.started(), 1);

    let mut world = World::new(single(washer()));
    world.synced = false;
    world.allowlist.get_mut(&anna()).expect("Anna").valid_until = Some(until);
    world.happens(Event::TimePassed { floor: until });
    // What was known is known: time does not go back.
    world.happens(Event::TimePassed { floor: Wall(0) });
    world.tap("door", anna());
    assert!(world.denied(Denial::Expired));
}

#[test]
fn a_clock_set_forth_neither_ends_nor_lengthens_a_wash() {
    washed_while(|world| world.wall += 40 * 24 * HOUR_MS);
}

#[test]
fn a_pi_that_believes_it_is_1970_washes_and_says_later_when_it_was() {
    let mut world = World::new(single(washer()));
    (world.wall, world.synced) = (86_400_000, false);
    world.kill();
    world.run(5);
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(10);
    let before = Wall(world.wall);
    (world.wall, world.synced) = (MORNING, true);
    world.happens(Event::ClockSynchronised { before });
    world.run_minutes(30);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    let set = world.disk.records.iter().find_map(|record| match record.fact {
        Fact::ClockSet { wall, before } => Some((record.at, wall, before)),
        _ => None,
    });
    let (at, wall, told) = set.expect("on record");
    assert_eq!((wall, told), (Wall(MORNING), before));
    let start = world.disk.records.iter().find(|r| matches!(r.fact, Fact::SessionStarted(_)));
    let start = start.expect("it started").at;
    assert!(!start.synced && start.boot == at.boot);
    let corrected = wall.0 - i64::try_from(at.uptime.0 - start.uptime.0).expect("ten minutes");
    assert_eq!(corrected, MORNING - (wall.0 - corrected), "anyone can tell when it was");
    assert!((wall.0 - corrected - 600_000).abs() < 5_000);
}

#[test]
fn energy_without_a_session_is_on_record_once_whatever_the_clock_does_at_midnight() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").bypass_w = 100;
    world.wall = MORNING + 14 * HOUR_MS - 60_000;
    world.run_minutes(2);
    world.wall -= 120_000;
    world.run_minutes(3);
    world.wall += 3 * 24 * HOUR_MS;
    world.run_minutes(2);
    world.assert_every_watt_hour_is_accounted_for();
    assert!(world.disk.unattributed_wh() <= world.plant("washer-1").register_wh() - 5_000);
}

#[test]
fn a_clock_that_becomes_right_while_no_daemon_runs_is_told_at_the_next_start() {
    let mut world = World::new(single(washer()));
    world.cut_power(5, false);
    let newest = world.disk.records.last().expect("the daemon started").at;
    world.run(10);
    (world.wall, world.synced) = (MORNING + 5 * HOUR_MS, true);
    world.kill();
    let before = newest.wall + world.now().uptime.since(newest.uptime);
    let set = Fact::ClockSet { wall: Wall(MORNING + 5 * HOUR_MS), before };
    assert_eq!(world.count(|fact| *fact == set), 1);
    world.kill();
    assert_eq!(world.count(|fact| matches!(fact, Fact::ClockSet { .. })), 1);
}
