//! Restarts, power cuts, and what is found afterwards.

use tapgate::core::access::Denial;
use tapgate::core::event::{Event, Notice, Vehicle};
use tapgate::core::ledger::{EndReason, Fact, InterruptionCause, UnattributedCause};
use tapgate::core::site::{Selection, SessionRules, StationKind};
use tapgate::core::time::Wall;

use crate::world::*;

fn washing() -> World {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(5);
    world
}

fn resumed(world: &World) -> bool {
    world.count(|fact| {
        matches!(fact, Fact::Interruption { cause: InterruptionCause::PowerLoss, .. })
    }) > 0
}

#[test]
fn a_restart_of_the_daemon_leaves_the_wash_running() {
    let mut world = washing();
    world.kill();
    assert!(world.plant("washer-1").closed);
    world.run_minutes(60);
    assert_eq!(interruptions(&world), 0);
    assert_eq!(world.ended().len(), 1);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert_eq!(world.ended()[0].energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
}

#[test]
fn what_flowed_while_the_daemon_was_away_is_the_open_sessions() {
    let mut world = washing();
    world.plant("washer-1").count_wh(3);
    world.kill();
    world.run(5);
    let estimated = |fact: &Fact| matches!(fact, Fact::SessionSlot { estimated: true, .. });
    assert_eq!(world.count(estimated), 1);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn what_flowed_without_a_session_while_the_daemon_was_away_is_nobodys() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").count_wh(3);
    world.kill();
    world.run(5);
    let away = |fact: &Fact| {
        matches!(fact, Fact::Unattributed { cause: UnattributedCause::GatewayDown, .. })
    };
    assert_eq!(world.count(away), 1);
}

#[test]
fn a_short_outage_is_on_record_and_the_wash_goes_on() {
    let mut world = washing();
    world.cut_power(30, true);
    world.run(20);
    assert!(world.plant("washer-1").closed);
    assert_eq!(interruptions(&world), 1);
    world.run_minutes(60);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert_eq!(world.started(), 1);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_long_outage_ends_power_loss() {
    let mut world = washing();
    world.cut_power(5 * 60, true);
    world.run(20);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::PowerLoss);
    assert_eq!(end.energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "available");
}

#[test]
fn machines_come_back_two_seconds_apart_even_if_a_meter_is_late() {
    let mut world = World::new(laundry(Selection::FirstFree));
    for (plant, badge) in [("washer-1", anna()), ("washer-2", boris()), ("dryer-1", anna())] {
        world.plant(plant).load(&[(5_000, 2_000), (1, 0)]);
        world.tap("door", badge);
        world.run(6);
    }
    world.run_minutes(1);
    world.plant("washer-1").answer = Answer::Slow;
    world.cut_power(10, true);
    let mut closings: Vec<u64> = vec![world.uptime];
    assert_eq!(world.plants.values().filter(|plant| plant.closed).count(), 1);
    for _ in 0..200 {
        let before = world.plants.values().filter(|plant| plant.closed).count();
        if world.uptime > 23_900 {
            world.plant("washer-1").answer = Answer::Right;
        }
        world.pass(100);
        let after = world.plants.values().filter(|plant| plant.closed).count();
        assert!(after <= before + 1, "two at once");
        if after > before {
            closings.push(world.uptime);
        }
    }
    assert_eq!(closings.len(), 3);
    assert!(closings.windows(2).all(|pair| pair[1] - pair[0] >= 1_900), "{closings:?}");
}

#[test]
fn without_a_clock_a_washer_resumes_at_once() {
    let mut world = washing();
    world.cut_power(5, false);
    world.run(20);
    assert!(world.plant("washer-1").closed);
}

fn charging(private: bool, sees_car: bool) -> World {
    let mut plan = charger();
    plan.private = private;
    plan.place = Some("P-12".into());
    plan.has_vehicle_state = sees_car;
    plan.rules = SessionRules::defaults(StationKind::Charger, private, sees_car);
    let mut world = World::new(single(plan));
    let place = vec![tapgate::core::access::Grant::Place("P-12".into())];
    world.allowlist.get_mut(&anna()).expect("Anna").grants.extend(place);
    world.plant("charger-1").load(&CHARGE);
    world.plant("charger-1").vehicle = sees_car.then_some(Vehicle::Charging);
    world.tap("door", anna());
    world.run_minutes(5);
    world
}

#[test]
fn without_a_clock_a_charger_waits_ten_minutes_and_ends() {
    let mut world = charging(true, false);
    world.cut_power(5, false);
    world.run_minutes(9);
    assert!(!world.plant("charger-1").closed);
    assert_eq!(world.ended().len(), 0);
    world.run_minutes(2);
    assert_eq!(world.ended()[0].reason, EndReason::PowerLoss);
}

#[test]
fn a_charger_goes_on_when_the_clock_tells_that_it_was_short() {
    let mut world = charging(true, false);
    world.cut_power(5, false);
    world.run_minutes(3);
    world.synced = true;
    let before = Wall(world.wall - 1_000);
    world.happens(Event::ClockSynchronised { before });
    world.run(5);
    assert!(world.plant("charger-1").closed);
    assert!(resumed(&world));
}

#[test]
fn a_stamp_that_was_never_right_cannot_tell_how_long_it_took() {
    let mut world = charging(true, false);
    world.synced = false;
    world.run_minutes(20);
    world.cut_power(5, false);
    world.run_minutes(1);
    world.synced = true;
    let before = Wall(world.wall);
    world.happens(Event::ClockSynchronised { before });
    world.run(5);
    assert_eq!(world.ended()[0].reason, EndReason::PowerLoss);
}

#[test]
fn a_shared_charger_ends_after_a_longer_outage() {
    let mut world = charging(false, false);
    world.cut_power(20, true);
    world.run(20);
    assert_eq!(world.ended()[0].reason, EndReason::PowerLoss);
}

#[test]
fn a_shared_charger_goes_on_for_the_car_that_stayed() {
    let mut world = charging(false, true);
    world.cut_power(20, true);
    world.run(20);
    assert!(world.plant("charger-1").closed);
    assert_eq!(world.ended().len(), 0);
}

#[test]
fn a_shared_charger_ends_when_the_car_has_left_meanwhile() {
    let mut world = charging(false, true);
    world.plant("charger-1").vehicle = Some(Vehicle::Absent);
    world.cut_power(20, true);
    world.run(20);
    assert_eq!(world.ended()[0].reason, EndReason::PowerLoss);
    assert!(!world.plant("charger-1").closed);
}

#[test]
fn an_intended_end_is_finished_after_a_power_cut_and_never_closed_again() {
    let mut world = charging(true, false);
    world.plant("charger-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.plant("charger-1").relay = Relay::Obeys;
    world.cut_power(1, true);
    world.run(20);
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
    assert!(!world.plant("charger-1").closed);
}

#[test]
fn a_switch_found_closed_without_a_session_opens_where_nothing_draws() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").closed = true;
    world.kill();
    world.run(20);
    assert!(!world.plant("washer-1").closed);
}

#[test]
fn a_switch_found_closed_under_load_is_left_alone_and_told() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").closed = true;
    world.plant("washer-1").load(&[(3_600, 500), (1, 0)]);
    world.kill();
    world.run_minutes(50);
    assert!(world.plant("washer-1").closed);
    let noticed = Notice::SwitchWithoutSession { station: "washer-1".into() };
    assert_eq!(world.notices.iter().filter(|notice| **notice == noticed).count(), 1);
    world.run_minutes(20);
    assert!(!world.plant("washer-1").closed, "opened once it is done");
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_station_removed_from_the_config_ends_its_session_at_the_last_register() {
    let mut world = World::new(laundry(Selection::FirstFree));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(20);
    world.site.stations.remove(0);
    world.site.readers[0].stations.remove(0);
    world.plants.remove(&"washer-1".into());
    world.kill();
    assert_eq!(world.ended()[0].reason, EndReason::Technician);
    assert_eq!(world.disk.open_sessions(), 0);
}

#[test]
fn a_station_that_got_another_meter_ends_its_session_on_the_old_one() {
    let mut world = washing();
    world.site.stations[0].meter = Some("meter-new".into());
    world.kill();
    world.run(20);
    assert_eq!(world.disk.open_sessions(), 0);
    assert!(world.plant("washer-1").closed, "laundry may be in it");
}

#[test]
fn meters_that_change_stations_keep_their_accounts() {
    let mut world = World::new(laundry(Selection::FirstFree));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(60);
    assert_eq!(world.ended().len(), 1);
    world.site.stations[0].meter = Some("meter-washer-2".into());
    world.site.stations[1].meter = Some("meter-washer-1".into());
    let second = world.plants.remove(&"washer-2".into()).expect("a machine");
    let first = world.plants.insert("washer-1".into(), second).expect("a machine");
    world.plants.insert("washer-2".into(), first);
    world.kill();
    world.run(20);
    world.plant("washer-1").load(&WASH);
    world.tap("door", boris());
    world.run_minutes(60);
    assert_eq!(world.ended().len(), 2);
    assert_eq!(world.count(|fact| matches!(fact, Fact::MeterCommissioned(_))), 3);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_bus_that_boots_slowly_after_a_long_outage_still_tells_the_end_register() {
    let mut world = washing();
    world.run_minutes(10);
    world.plant("washer-1").answer = Answer::Silent;
    world.cut_power(24 * 60, true);
    world.run(40);
    world.plant("washer-1").answer = Answer::Right;
    world.run(20);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::PowerLoss);
    assert_eq!(end.end_register_wh, Some(world.plant("washer-1").register_wh()));
    assert_eq!(end.energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
}

#[test]
fn a_charger_whose_car_left_during_the_outage_is_not_given_power_again() {
    let mut world = charging(true, true);
    world.plant("charger-1").vehicle = Some(Vehicle::Absent);
    world.cut_power(5, true);
    world.run(20);
    assert_eq!(world.ended()[0].reason, EndReason::Unplugged);
    assert_eq!(interruptions(&world), 0);
}

#[test]
fn a_restart_right_after_the_record_closes_the_switch_without_an_interruption() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.plant("washer-1").relay = Relay::Obeys;
    world.kill();
    world.run(5);
    assert!(world.plant("washer-1").closed);
    assert_eq!(interruptions(&world), 0);
}

#[test]
fn a_relay_that_reset_while_the_daemon_was_away_is_on_record() {
    for slots in [true, false] {
        let mut world = washing();
        world.site.policy.slots = slots;
        world.plant("washer-1").closed = false;
        world.kill();
        world.run(5);
        assert!(world.plant("washer-1").closed);
        assert_eq!(interruptions(&world), 1);
    }
}

#[test]
fn what_lost_its_session_with_the_store_is_left_running_until_it_is_surely_idle() {
    let mut world = washing();
    let opened = world.now();
    world.disk.lose_sessions(opened);
    world.plant("washer-1").load(&[(300, 2_000), (180, 0), (300, 400), (1, 2)]);
    world.kill();
    world.run_minutes(4);
    assert_eq!(world.state("washer-1"), "faulted");
    world.tap("door", boris());
    assert!(world.denied(Denial::OutOfService), "nobody pays for a neighbour's wash");
    world.run_minutes(9);
    assert!(world.plant("washer-1").is_done());
    assert!(world.plant("washer-1").closed, "it soaked meanwhile");
    world.run_minutes(9);
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "available");
    let epoch =
        |fact: &Fact| matches!(fact, Fact::Unattributed { cause: UnattributedCause::Epoch, .. });
    assert_eq!(world.count(epoch), 1);
    world.assert_every_watt_hour_is_accounted_for();
}
