//! Whose every watt-hour is.

use tapgate::core::event::{Event, Notice};
use tapgate::core::ledger::{Fact, Quality};
use tapgate::core::site::{Selection, Site};
use tapgate::core::time::Wall;

use crate::world::*;

fn charging_at(wall: i64, site: Site) -> World {
    let mut world = World::new(site);
    world.wall = wall;
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world
}

fn charging() -> World {
    charging_at(MORNING, single(charger()))
}

fn stop(world: &mut World) {
    world.tap("door", anna());
    world.run(15);
    assert_eq!(world.ended().len(), 1);
    world.assert_every_watt_hour_is_accounted_for();
}

fn slots(world: &World) -> Vec<(Wall, i64)> {
    let facts = world.disk.records.iter().map(|record| &record.fact);
    let slots = facts.filter_map(|fact| match fact {
        Fact::SessionSlot { slot, from_wh, to_wh, .. } => Some((*slot, to_wh - from_wh)),
        _ => None,
    });
    slots.collect()
}

#[test]
fn quarter_hours_sum_to_the_energy_of_the_session() {
    let mut world = charging_at(MORNING + 7 * 60_000, single(charger()));
    world.run_minutes(40);
    stop(&mut world);
    let slots = slots(&world);
    assert_eq!(slots.len(), 4, "two whole ones between two partial ones");
    assert_eq!(slots[0].0, Wall(MORNING));
    assert_eq!(slots[3].0, Wall(MORNING + 45 * 60_000));
    let sum: i64 = slots.iter().map(|(_, energy)| energy).sum();
    assert_eq!(world.ended()[0].energy_wh, Some(sum));
}

#[test]
fn the_quarter_hours_of_all_machines_are_written_together() {
    let mut world = World::new(laundry(Selection::FirstFree));
    for (reader_user, machine) in [(anna(), "washer-1"), (boris(), "washer-2")] {
        world.plant(machine).load(&[(3_600, 2_000), (1, 0)]);
        world.tap("door", reader_user);
        world.run_minutes(1);
    }
    world.run_minutes(40);
    let slots: Vec<_> =
        world.disk.records.iter().filter(|r| matches!(r.fact, Fact::SessionSlot { .. })).collect();
    assert_eq!(slots.len(), 4);
    assert!(slots.chunks(2).all(|pair| pair[0].at == pair[1].at), "{slots:?}");
    let of = |record: &tapgate::core::ledger::Record| match &record.fact {
        Fact::SessionSlot { session, .. } => *session,
        other => panic!("{other:?}"),
    };
    assert!(slots.chunks(2).all(|pair| of(pair[0]) != of(pair[1])));
}

#[test]
fn without_slots_the_session_alone_has_it_all() {
    let mut site = single(charger());
    site.policy.slots = false;
    let mut world = charging_at(MORNING, site);
    world.run_minutes(40);
    stop(&mut world);
    assert_eq!(slots(&world), []);
    let used = world.plant("charger-1").register_wh() - 5_000;
    assert_eq!(world.ended()[0].energy_wh, Some(used));
}

#[test]
fn a_session_over_midnight_is_one_session() {
    let evening = MORNING + 13 * 3_600_000 + 50 * 60_000;
    let mut world = charging_at(evening, single(charger()));
    world.run_minutes(30);
    stop(&mut world);
    assert_eq!(world.disk.unattributed_wh(), 0);
    assert_eq!(world.ended()[0].quality, Quality::Measured);
}

#[test]
fn a_zero_is_not_believed() {
    let mut world = charging();
    world.plant("charger-1").answer = Answer::Shows(0);
    world.run(20);
    world.plant("charger-1").answer = Answer::Right;
    world.run(60);
    stop(&mut world);
    let used = world.plant("charger-1").register_wh() - 5_000;
    assert_eq!(world.ended()[0].energy_wh, Some(used));
}

#[test]
fn two_glitches_in_a_row_are_no_exchange() {
    let mut world = charging();
    for shown in [4_900, 0] {
        world.plant("charger-1").answer = Answer::Shows(shown);
        world.run(40);
    }
    world.plant("charger-1").answer = Answer::Right;
    world.run(60);
    stop(&mut world);
    let used = world.plant("charger-1").register_wh() - 5_000;
    let end = world.ended().remove(0);
    assert_eq!((end.energy_wh, end.quality), (Some(used), Quality::Measured));
}

#[test]
fn a_spike_is_not_believed() {
    let mut world = charging();
    world.plant("charger-1").answer = Answer::Shows(900_000);
    world.run(20);
    world.plant("charger-1").answer = Answer::Right;
    world.run(60);
    stop(&mut world);
    let used = world.plant("charger-1").register_wh() - 5_000;
    assert_eq!(world.ended()[0].energy_wh, Some(used));
}

#[test]
fn a_rise_that_stays_is_believed_and_told() {
    let mut world = charging();
    world.plant("charger-1").count_wh(3_000);
    world.run(90);
    stop(&mut world);
    assert_eq!(world.ended()[0].quality, Quality::Estimated);
    let told = Notice::MeterImplausible { station: "charger-1".into() };
    assert_eq!(world.notices.iter().filter(|notice| **notice == told).count(), 1);
    assert!(world.ended()[0].energy_wh.is_some_and(|energy| energy > 3_000));
}

#[test]
fn an_exchange_at_an_idle_station_is_clear_within_two_minutes() {
    let mut world = World::new(single(charger()));
    world.run(5);
    world.plant("charger-1").count_wh(-4_000);
    world.run(120);
    assert_eq!(world.count(|fact| matches!(fact, Fact::MeterReplaced(_))), 1);
}

#[test]
fn another_meter_is_no_jump() {
    for slots in [true, false] {
        let mut site = single(charger());
        site.policy.slots = slots;
        let mut world = charging_at(MORNING, site);
        let before = world.plant("charger-1").register_wh() - 5_000;
        world.plant("charger-1").count_wh(-4_000);
        world.run_minutes(2);
        stop(&mut world);
        assert_eq!(world.count(|fact| matches!(fact, Fact::MeterReplaced(_))), 1);
        let energy = world.ended()[0].energy_wh.expect("metered");
        assert!((before..before + 400).contains(&energy), "{before} and then {energy}");
    }
}

#[test]
fn a_meter_that_showed_zero_for_long_and_comes_back_bills_no_lifetime() {
    let mut world = charging();
    world.plant("charger-1").answer = Answer::Shows(0);
    world.run_minutes(3);
    world.plant("charger-1").answer = Answer::Right;
    world.run_minutes(3);
    stop(&mut world);
    let energy = world.ended()[0].energy_wh.expect("metered");
    assert!(energy < 3_000, "the whole register became energy: {energy}");
}

#[test]
fn what_flowed_while_a_meter_showed_zero_is_not_lost() {
    let mut world = charging();
    world.plant("charger-1").answer = Answer::Shows(0);
    world.run_minutes(30);
    world.plant("charger-1").answer = Answer::Right;
    world.run_minutes(3);
    stop(&mut world);
    let end = world.ended().remove(0);
    assert_eq!(end.energy_wh, Some(world.plant("charger-1").register_wh() - 5_000));
    assert_eq!(end.quality, Quality::Estimated);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_register_that_is_not_believed_is_told_once() {
    let mut world = charging();
    for _ in 0..2 {
        world.plant("charger-1").answer = Answer::Shows(0);
        world.run(20);
        world.plant("charger-1").answer = Answer::Right;
        world.run(20);
    }
    let doubts = world.notices.iter().filter(|n| matches!(n, Notice::MeterDoubted { .. })).count();
    assert_eq!(doubts, 2);
}

#[test]
fn a_register_that_stands_still_while_a_car_charges_is_told_once() {
    let mut world = charging();
    let stands = world.plant("charger-1").register_wh();
    world.plant("charger-1").answer = Answer::Shows(stands);
    world.run_minutes(30);
    let told = |notice: &&Notice| matches!(notice, Notice::MeterFrozen { .. });
    assert_eq!(world.notices.iter().filter(told).count(), 1);
    stop(&mut world);
    assert_eq!(world.ended()[0].quality, Quality::Estimated);
}

#[test]
fn energy_without_a_session_is_on_record_at_midnight_and_alarms() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").bypass_w = 100;
    world.run_minutes(40);
    let alarms = |world: &World| {
        world.notices.iter().filter(|n| matches!(n, Notice::Unattributed { .. })).count()
    };
    assert_eq!(alarms(&world), 1);
    world.run_minutes(14 * 60);
    assert_eq!(alarms(&world), 1, "told once");
    assert_eq!(world.count(|fact| matches!(fact, Fact::Unattributed { .. })), 1);
    assert!(world.disk.unattributed_wh() > 1_000);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn what_flowed_before_a_session_is_not_its_own() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").bypass_w = 1_000;
    world.run_minutes(3);
    world.plant("charger-1").bypass_w = 0;
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    stop(&mut world);
    assert_eq!(world.disk.unattributed_wh(), 50);
}

#[test]
fn what_flowed_before_a_start_without_register_is_not_its_own() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").bypass_w = 1_000;
    world.run_minutes(3);
    world.plant("washer-1").bypass_w = 0;
    world.run(20);
    world.plant("washer-1").answer = Answer::Silent;
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run(60);
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(60);
    assert_eq!(world.disk.unattributed_wh(), 50);
    let used = world.plant("washer-1").register_wh() - 5_050;
    assert_eq!(world.ended()[0].energy_wh, Some(used));
}

#[test]
fn a_change_of_the_switch_puts_loose_energy_on_record() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(1, 600)]);
    world.plant("washer-1").closed = true;
    world.run_minutes(5);
    world.plant("washer-1").closed = false;
    world.run(20);
    assert_eq!(world.count(|fact| matches!(fact, Fact::Unattributed { .. })), 1);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_clock_that_becomes_right_is_on_record_and_the_session_goes_on() {
    let mut world = World::new(single(charger()));
    world.synced = false;
    world.wall = 0;
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    let before = Wall(world.wall);
    world.wall = MORNING;
    world.synced = true;
    world.happens(Event::ClockSynchronised { before });
    world.run_minutes(20);
    stop(&mut world);
    assert_eq!(world.count(|fact| matches!(fact, Fact::ClockSet { .. })), 1);
    let end = world.ended().remove(0);
    assert!((1_490..1_510).contains(&end.duration_s), "durations use the boot clock");
    assert_eq!(end.energy_wh, Some(world.plant("charger-1").register_wh() - 5_000));
}

#[test]
fn a_serial_number_that_comes_late_is_on_record_for_the_next_start() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").serial = Some("A1".into());
    world.run(20);
    world.kill();
    world.plant("washer-1").serial = Some("B2".into());
    world.run_minutes(3);
    let exchanges: Vec<(Option<String>, Option<String>)> = world
        .disk
        .records
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::MeterReplaced(change) => {
                Some((change.old_serial.clone(), change.new_serial.clone()))
            }
            _ => None,
        })
        .collect();
    let serial = |serial: &str| Some(serial.to_owned());
    assert_eq!(exchanges, [(None, serial("A1")), (serial("A1"), serial("B2"))]);
}

#[test]
fn what_flowed_while_the_daemon_was_away_has_its_time_bounds() {
    let mut world = charging();
    world.run_minutes(2);
    world.plant("charger-1").next_read = u64::MAX;
    world.run(30);
    let before = world.wall;
    world.kill();
    world.run(5);
    let bounds = world.disk.records.iter().find_map(|record| match &record.fact {
        Fact::SessionSlot { estimated: true, since, until, .. } => Some((*since, *until)),
        _ => None,
    });
    let (Some(since), Some(until)) = bounds.expect("an estimated part") else { panic!("bounds") };
    assert!(since < until && since.0 < before && until.0 >= before);
}

#[test]
fn a_meter_that_errs_first_after_a_restart_bills_nobody_for_what_flowed_before() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").count_wh(4);
    world.plant("washer-1").answer = Answer::Shows(0);
    world.kill();
    world.run(3);
    world.plant("washer-1").answer = Answer::Silent;
    world.tap("door", anna());
    world.run(5);
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(12);
    assert_eq!(world.ended()[0].energy_wh, Some(0));
    assert_eq!(world.disk.unattributed_wh(), 4);
    world.assert_every_watt_hour_is_accounted_for();
}
