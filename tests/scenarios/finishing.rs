//! How sessions end, and what may not end them.

use tapgate::core::event::{Event, Feedback, Reading, Vehicle};
use tapgate::core::ledger::{EndReason, Quality};
use tapgate::core::site::{OnRevoked, StationKind};

use crate::world::*;

fn washing() -> World {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world
}

fn charging() -> World {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world
}

#[test]
fn idle_ends_the_wash_finished_and_bills_the_register_difference() {
    let mut world = washing();
    world.run_minutes(15);
    assert_eq!(world.state("washer-1"), "in_use");
    world.run_minutes(60);

    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Finished);
    assert_eq!(end.quality, Quality::Measured);
    assert_eq!(end.energy_wh, Some(world.plant("washer-1").register_wh() - 5_000));
    assert_eq!(world.state("washer-1"), "available");
    assert!(!world.plant("washer-1").closed);
    assert!(world.plant("washer-1").is_done());
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn an_unloaded_station_is_free_within_a_second_of_its_end() {
    let mut world = washing();
    while world.plant("washer-1").closed {
        world.pass(200);
    }
    world.pass(1_000);
    assert_eq!(world.state("washer-1"), "available");
}

#[test]
fn nobody_presses_start_and_the_station_gives_not_used_and_opens() {
    let mut world = World::new(single(washer()));
    world.tap("door", anna());
    world.run_minutes(9);
    assert_eq!(world.ended().len(), 0);
    world.run_minutes(2);
    let end = world.ended().remove(0);
    assert_eq!((end.reason, end.energy_wh), (EndReason::NotUsed, Some(0)));
    assert!(!world.plant("washer-1").closed);
}

#[test]
fn a_delayed_start_is_waited_for() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(3_600, 4), (600, 2_000), (1, 0)]);
    world.tap("door", anna());
    world.run_minutes(59);
    assert_eq!(world.ended().len(), 0);
    world.run_minutes(30);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
}

#[test]
fn a_meter_that_falls_silent_ends_nothing() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(120, 0), (3_600, 2_000), (1, 0)]);
    world.tap("door", anna());
    world.run_minutes(1);
    world.plant("washer-1").answer = Answer::Slow;
    world.run_minutes(15);
    world.happens(tapgate::core::event::Event::MeterSilent { station: "washer-1".into() });
    world.run_minutes(5);
    assert_eq!(world.ended().len(), 0, "nobody knows that there was no load");

    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(120);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert_eq!(world.ended()[0].energy_wh, Some(2_000));
}

#[test]
fn a_lost_answer_now_and_then_keeps_nobody_waiting_for_the_machine() {
    let mut world = washing();
    for _ in 0..45 {
        world.run(60);
        world.happens(Event::MeterSilent { station: "washer-1".into() });
    }
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert!(world.plant("washer-1").is_done());
}

#[test]
fn a_meter_whose_power_hangs_at_nothing_does_not_cut_the_wash_that_its_register_shows() {
    for load in [vec![(60, 2_000), (3_600, 300), (1, 2)], vec![(3_660, 300), (1, 2)]] {
        let mut world = World::new(single(washer()));
        world.plant("washer-1").load(&load);
        world.tap("door", anna());
        if load.len() == 3 {
            world.run(60);
        }
        world.plant("washer-1").hung_power_w = Some(0);
        world.run_minutes(58);
        assert_eq!((world.ended().len(), world.cuts_under_load), (0, 0));
        world.run_minutes(20);
        assert_eq!(world.ended()[0].reason, EndReason::Finished);
    }
}

#[test]
fn a_bus_that_stalls_while_the_machine_soaks_does_not_cut_the_spin() {
    let mut world = World::new(laundry(tapgate::core::site::Selection::FirstFree));
    world.plant("washer-1").load(&[(700, 2_000), (60, 0), (3_600, 400), (1, 0)]);
    world.tap("door", anna());
    world.run(730);
    world.plant("washer-1").answer = Answer::Slow;
    world.run_minutes(5);
    world.tap("door", boris());
    world.run_minutes(15);
    let running = world.view("washer-1").session.expect("it runs on");
    assert_eq!(running.phase, "running");
}

#[test]
fn nobody_is_cut_under_load_at_the_limit() {
    let mut plan = washer();
    plan.rules.max_duration = Some(seconds(1_200));
    let mut world = World::new(single(plan));
    world.plant("washer-1").load(&[(2_400, 2_000), (1, 20)]);
    world.tap("door", anna());
    world.run(2_390);
    assert_eq!(world.ended().len(), 0);

    world.run(600);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Limit, "20 W of electronics are no load at the limit");
    assert!(world.plant("washer-1").is_done());
}

#[test]
fn a_charger_is_cut_at_its_limits() {
    let mut plan = charger();
    plan.rules.max_energy_wh = Some(1_000);
    let mut world = World::new(single(plan));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(10);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Limit);
    assert!(end.energy_wh.is_some_and(|energy| (1_000..1_010).contains(&energy)));
}

#[test]
fn a_second_tap_stops_the_charger() {
    let mut world = charging();
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::Stopped));
    world.run(4);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Tapped);
    assert_eq!(end.energy_wh, Some(world.plant("charger-1").register_wh() - 5_000));
    assert_eq!(world.state("charger-1"), "available");
}

#[test]
fn a_second_tap_on_a_washer_says_yours_running() {
    let mut world = washing();
    world.run_minutes(1);
    world.tap("door", anna());
    assert_eq!(world.last_shown(), Some(Feedback::YoursRunning));
    assert!(world.plant("washer-1").closed);
}

#[test]
fn a_removed_badge_still_stops_the_charging_that_it_started() {
    let mut plan = charger();
    plan.rules.on_revoked = OnRevoked::Finish;
    let mut world = World::new(single(plan));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.allowlist.remove(&anna());
    world.push_allowlist();
    assert!(world.plant("charger-1").closed);
    world.tap("door", anna());
    world.run(4);
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
}

#[test]
fn revoked_while_charging_stops() {
    let mut world = charging();
    world.allowlist.get_mut(&anna()).expect("Anna").blocked = true;
    world.push_allowlist();
    world.run(4);
    assert_eq!(world.ended()[0].reason, EndReason::Revoked);
    assert!(!world.plant("charger-1").closed);
}

#[test]
fn a_badge_that_now_is_somebody_elses_is_revoked_too() {
    let mut world = charging();
    world.allowlist.insert(anna(), entry("b-anna", "u-clara"));
    world.push_allowlist();
    world.run(4);
    assert_eq!(world.ended()[0].reason, EndReason::Revoked);
}

#[test]
fn revoked_while_washing_finishes() {
    let mut world = washing();
    world.run_minutes(5);
    world.allowlist.remove(&anna());
    world.push_allowlist();
    world.run_minutes(60);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert!(world.plant("washer-1").is_done());
}

#[test]
fn a_revoked_wash_without_a_meter_is_not_cut() {
    let mut plan = washer();
    plan.meter = None;
    plan.rules.on_revoked = OnRevoked::Stop;
    let mut world = World::new(single(plan));
    world.tap("door", anna());
    world.allowlist.remove(&anna());
    world.push_allowlist();
    world.run_minutes(60);
    assert!(world.plant("washer-1").closed);
}

#[test]
fn unplugging_ends_a_charger_that_sees_the_car() {
    let mut plan = charger();
    plan.has_vehicle_state = true;
    plan.rules = tapgate::core::site::SessionRules::defaults(StationKind::Charger, false, true);
    let mut world = World::new(single(plan));
    world.plant("charger-1").load(&CHARGE);
    world.plant("charger-1").vehicle = Some(Vehicle::Connected);
    world.tap("door", anna());
    world.run_minutes(90);
    assert_eq!(world.ended().len(), 0, "a full car still stands there");
    world.plant("charger-1").vehicle = Some(Vehicle::Absent);
    world.run(5);
    assert_eq!(world.ended()[0].reason, EndReason::Unplugged);
}

fn charger_that_sees_the_car() -> World {
    let mut plan = charger();
    plan.has_vehicle_state = true;
    plan.rules = tapgate::core::site::SessionRules::defaults(StationKind::Charger, false, true);
    World::new(single(plan))
}

#[test]
fn a_car_that_leaves_while_the_daemon_is_away_does_not_leave_its_charging_to_the_next() {
    let mut world = charger_that_sees_the_car();
    world.plant("charger-1").load(&CHARGE);
    world.plant("charger-1").vehicle = Some(Vehicle::Charging);
    world.tap("door", anna());
    world.run_minutes(5);
    world.plant("charger-1").vehicle = Some(Vehicle::Absent);
    world.plant("charger-1").load(&[(1, 0)]);
    world.kill();
    world.run(5);
    assert_eq!(world.ended()[0].reason, EndReason::Unplugged);
    assert!(!world.plant("charger-1").closed);
}

#[test]
fn a_charger_without_a_car_is_free_again_even_if_its_meter_is_silent() {
    let mut world = charger_that_sees_the_car();
    world.plant("charger-1").vehicle = Some(Vehicle::Absent);
    world.tap("door", anna());
    world.plant("charger-1").answer = Answer::Silent;
    let absent = Reading { vehicle: Some(Vehicle::Absent), ..Reading::default() };
    for _ in 0..16 * 60 {
        world.run(1);
        let reading = absent.clone();
        world.happens(Event::MeterRead { station: "charger-1".into(), reading });
    }
    assert_eq!(world.ended()[0].reason, EndReason::NotUsed);
}

#[test]
fn a_charger_that_tells_of_the_car_alone_says_nothing_of_its_power() {
    let mut plan = charger();
    plan.has_vehicle_state = true;
    let mut world = World::new(single(plan));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run(20);
    let power_mw = world.view("charger-1").power_mw;
    assert!(power_mw.is_some());
    let reading = Reading { vehicle: Some(Vehicle::Charging), ..Reading::default() };
    world.happens(Event::MeterRead { station: "charger-1".into(), reading });
    assert_eq!(world.view("charger-1").power_mw, power_mw);
    let reading = Reading { vehicle: Some(Vehicle::Absent), ..Reading::default() };
    world.happens(Event::MeterRead { station: "charger-1".into(), reading });
    world.run(5);
    assert_eq!(world.ended()[0].reason, EndReason::Unplugged);
}

#[test]
fn anti_crease_bursts_do_not_keep_a_dryer() {
    let mut program = vec![(1_800, 2_500)];
    for _ in 0..40 {
        program.extend([(170, 2), (15, 250)]);
    }
    program.push((1, 2));
    let mut world = World::new(single(station("dryer-1", StationKind::Dryer)));
    world.plant("dryer-1").load(&program);
    world.tap("door", anna());
    world.run_minutes(29);
    assert_eq!(world.state("dryer-1"), "in_use");
    world.run_minutes(10);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
}

#[test]
fn a_dryer_that_heats_again_is_no_burst() {
    let mut world = World::new(single(station("dryer-1", StationKind::Dryer)));
    world.plant("dryer-1").load(&[(1_200, 2_500), (300, 2), (1_200, 350), (1, 2)]);
    world.tap("door", anna());
    world.run(2_600);
    assert_eq!(world.ended().len(), 0);
    world.run_minutes(10);
    assert!(world.plant("dryer-1").is_done());
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
}

fn washer_whose_meter_tells_no_power() -> World {
    let mut plan = washer();
    plan.meter_tells_power = false;
    let mut world = World::new(single(plan));
    world.plant("washer-1").tells_power = false;
    world
}

#[test]
fn a_meter_without_power_finishes_a_wash_by_its_register() {
    let mut world = washer_whose_meter_tells_no_power();
    world.plant("washer-1").load(&[(20, 3), (1_200, 2_000), (600, 150), (1, 1)]);
    world.tap("door", anna());
    world.run_minutes(31);
    assert!(world.plant("washer-1").closed);
    world.run_minutes(40);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Finished);
    assert!(!world.plant("washer-1").closed);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_meter_without_power_does_not_cut_a_wash_that_soaks() {
    let mut world = washer_whose_meter_tells_no_power();
    world.plant("washer-1").load(&[(600, 2_000), (400, 0), (600, 2_000), (1, 1)]);
    world.tap("door", anna());
    world.run_minutes(27);
    assert!(world.plant("washer-1").is_done());
    assert_eq!(world.ended().len(), 0);
}

#[test]
fn a_meter_without_power_waits_for_a_delayed_start() {
    let mut world = washer_whose_meter_tells_no_power();
    world.plant("washer-1").load(&[(7_200, 4), (600, 2_000), (1, 1)]);
    world.tap("door", anna());
    world.run_minutes(121);
    assert!(world.plant("washer-1").closed);
    assert_eq!(world.ended().len(), 0);
}

#[test]
fn a_restart_that_is_announced_does_not_begin_the_idle_time_anew() {
    let mut world = washing();
    world.run_minutes(23 + 4);
    assert_eq!(world.state("washer-1"), "idle");
    world.restart();
    world.run_minutes(5);
    assert_eq!(world.ended().len(), 1, "eight minutes in all");
}
