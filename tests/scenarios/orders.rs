//! What an operator orders from afar, or a technician at the console.

use tapgate::core::access::{Denial, Entry, Grant, Origin};
use tapgate::core::badge::Uid;
use tapgate::core::ledger::{Authority, EndReason, Fact};
use tapgate::core::orders::Answer;
use tapgate::core::orders::OrderedBy::{Operator, Technician};
use tapgate::core::site::Billing;

use crate::world::*;

fn ordered(station: tapgate::core::site::Station) -> World {
    let mut world = World::new(single(station));
    let id = world.site.stations[0].id.clone();
    world.plant(id.as_str()).load(&[(20, 3), (3_600, 2_000), (1, 2)]);
    world.order_start(id.as_str(), Operator, Some("u-anna"));
    world.run(30);
    world
}

#[test]
fn an_operator_starts_a_machine_for_a_resident_who_can_stop_it_with_a_tap() {
    let mut world = ordered(charger());
    assert!(matches!(world.answers[..], [Answer::Starting(a), Answer::Running(b)] if a == b));
    assert!(world.plant("charger-1").closed);
    assert_eq!(world.shown, [], "nobody stands at the reader");
    world.tap("door", anna());
    world.run(10);
    let end = world.ended().remove(0);
    assert_eq!((end.reason, end.start.authorised_by), (EndReason::Tapped, Authority::Command));
    assert_eq!((end.start.user, end.start.badge), (Some("u-anna".into()), None));
}

#[test]
fn an_operators_start_obeys_the_rows_on_the_station() {
    let mut world = ordered(washer());
    world.order_start("washer-1", Operator, Some("u-boris"));
    assert_eq!(world.last_answer(), Some(Answer::Refused(Denial::Occupied)));
    world.order_start("washer-9", Operator, Some("u-boris"));
    assert_eq!(world.last_answer(), Some(Answer::NoStation));

    let mut world = World::new(single(washer()));
    world.take_out_of_service("washer-1", None);
    world.order_start("washer-1", Operator, Some("u-boris"));
    assert_eq!(world.last_answer(), Some(Answer::Refused(Denial::OutOfService)));
    assert_eq!(world.started(), 0);
}

#[test]
fn an_operators_start_for_a_badge_obeys_the_rows_on_the_badge() {
    let card = |first: u8| Uid::new(&[first, 1, 2, 3]).expect("four bytes");
    let blocked = Entry { blocked: true, ..entry("b-x", "u-x") };
    let third_party = Entry { origin: Origin::ThirdParty, ..entry("b-x", "u-x") };
    let elsewhere = Entry { grants: vec![Grant::Place("P-9".into())], ..entry("b-x", "u-x") };
    for (uid, badge, reason) in [
        (card(0x08), entry("b-x", "u-x"), Denial::RandomUid),
        (card(0x88), entry("b-x", "u-x"), Denial::Unreadable),
        (card(0x04), blocked, Denial::BadgeBlocked),
        (card(0x04), third_party, Denial::OriginNotAccepted),
        (card(0x04), elsewhere, Denial::NotGranted),
    ] {
        let mut site = single(washer());
        site.policy.billing = Billing::Managed;
        let mut world = World::new(site);
        world.order_start_for("washer-1", uid, badge);
        assert_eq!(world.last_answer(), Some(Answer::Refused(reason)));
        assert_eq!(world.started(), 0);
    }
    let mut world = World::new(single(washer()));
    world.order_start_for("washer-1", card(0x04), entry("b-x", "u-x"));
    world.run(5);
    assert_eq!(world.view("washer-1").session.expect("started").badge, Some("b-x".into()));
}

#[test]
fn an_operators_start_on_a_full_disk_gives_no_power() {
    let mut world = World::new(single(washer()));
    world.disk.full = true;
    world.order_start("washer-1", Operator, Some("u-anna"));
    world.run(2);
    assert_eq!(world.answers, [Answer::Refused(Denial::StorageFailure)]);
    assert!(!world.plant("washer-1").closed);
}

#[test]
fn an_operator_hears_of_a_switch_that_does_not_close() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Stuck;
    world.order_start("washer-1", Operator, Some("u-anna"));
    world.run(10);
    assert!(matches!(world.answers[..], [Answer::Starting(_), Answer::NotClosed(_)]));
    assert_eq!(world.ended()[0].reason, EndReason::SwitchFailed);
}

#[test]
fn an_operators_stop_lets_the_wash_finish_and_then_is_the_reason() {
    let mut world = ordered(washer());
    world.order_stop("washer-1", Operator, false);
    assert!(matches!(world.last_answer(), Some(Answer::EndsWhenIdle(_))));
    world.run_minutes(30);
    assert!(world.plant("washer-1").closed, "not under load");
    world.run_minutes(45);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Remote);
    assert!(world.plant("washer-1").is_done());
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn an_operators_stop_that_must_not_wait_does_not() {
    let mut world = ordered(washer());
    world.order_stop("washer-1", Operator, true);
    assert!(matches!(world.last_answer(), Some(Answer::Ending(_))));
    world.run(10);
    assert_eq!(world.ended()[0].reason, EndReason::Remote);
    world.order_stop("washer-1", Operator, true);
    assert_eq!(world.last_answer(), Some(Answer::NoSession));
}

#[test]
fn an_operators_stop_ends_a_charger_at_once() {
    let mut world = ordered(charger());
    world.order_stop("charger-1", Operator, false);
    world.run(10);
    assert_eq!(world.ended()[0].reason, EndReason::Remote);
    assert!(!world.plant("charger-1").closed);
}

#[test]
fn a_stop_that_waits_for_an_idle_moment_outlives_a_restart() {
    let mut world = ordered(washer());
    world.order_stop("washer-1", Operator, false);
    world.kill();
    world.run_minutes(75);
    assert_eq!(world.ended()[0].reason, EndReason::Remote);
}

#[test]
fn a_technician_opens_a_switch_that_is_closed_without_a_session() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").closed = true;
    world.plant("washer-1").load(&[(3_600, 500), (1, 0)]);
    world.kill();
    world.run(20);
    assert!(world.plant("washer-1").closed);
    world.order_stop("washer-1", Technician, true);
    assert_eq!(world.last_answer(), Some(Answer::Opening));
    world.run(5);
    assert!(!world.plant("washer-1").closed);
}

#[test]
fn a_meter_exchanged_by_hand_goes_on_from_its_own_register() {
    let mut world = ordered(washer());
    world.run_minutes(30);
    let before = world.plant("washer-1").register_wh();
    world.plant("washer-1").count_wh(777_000);
    world.exchange_meter("washer-1");
    let Some(Answer::MeterReplaced { old_wh: Some(old), new_wh }) = world.last_answer() else {
        panic!("{:?}", world.answers)
    };
    assert!((before - 1..=before).contains(&old) && new_wh >= before + 777_000);
    world.run_minutes(60);
    let end = world.ended().remove(0);
    assert!(end.energy_wh.expect("metered") < 3_000, "no lifetime is billed");
    assert_eq!(world.count(|fact| matches!(fact, Fact::MeterReplaced(_))), 1);
    world.disk.check();
}

#[test]
fn an_exchange_of_a_meter_that_is_silent_changes_nothing() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").answer = crate::world::Answer::Silent;
    world.exchange_meter("washer-1");
    assert_eq!(world.last_answer(), Some(Answer::MeterSilent));
    world.plant("washer-1").answer = crate::world::Answer::Right;
    world.run_minutes(2);
    assert_eq!(world.count(|fact| matches!(fact, Fact::MeterReplaced(_))), 0);
}

#[test]
fn a_station_taken_out_of_service_lets_the_running_wash_finish_and_starts_no_other() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(5);
    world.take_out_of_service("washer-1", Some("pump"));
    assert_eq!(world.state("washer-1"), "in_use");
    assert_eq!(world.view("washer-1").note.as_deref(), Some("pump"));
    world.kill();
    world.run_minutes(45);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert_eq!(world.state("washer-1"), "out_of_service");
    world.tap("door", boris());
    assert!(world.denied(Denial::OutOfService));
    world.return_to_service("washer-1");
    assert_eq!(world.state("washer-1"), "available");
    world.run(6);
    world.tap("door", boris());
    assert!(world.plant("washer-1").closed);
}

#[test]
fn a_technicians_session_needs_no_service_and_no_load_and_is_nobodys_to_take_over() {
    let mut world = World::new(single(washer()));
    world.take_out_of_service("washer-1", Some("new pump"));
    world.plant("washer-1").load(&[(60, 2_000), (1, 0)]);
    world.order_start("washer-1", Technician, None);
    world.run_minutes(40);
    world.return_to_service("washer-1");
    world.tap("door", boris());
    assert!(world.denied(Denial::Occupied));
    assert!(world.plant("washer-1").closed);
    world.order_stop("washer-1", Technician, false);
    world.run(10);
    let end = world.ended().remove(0);
    assert_eq!((end.reason, end.start.user), (EndReason::Technician, None));
    let technicians = |fact: &Fact| match fact {
        Fact::SessionStarted(start) => start.authorised_by == Authority::Technician,
        _ => false,
    };
    assert_eq!(world.count(technicians), 1);
    world.assert_every_watt_hour_is_accounted_for();
}
