//! From the tap to the power.

use tapgate::core::access::Denial;
use tapgate::core::badge::Technology;
use tapgate::core::event::{Feedback, Notice};
use tapgate::core::explain::Verdict;
use tapgate::core::ledger::{EndReason, Quality};
use tapgate::core::orders::OrderedBy;
use tapgate::core::site::{Selection, StationKind};

use crate::world::*;

#[test]
fn a_tap_starts_the_washer_and_the_record_has_all_its_facts() {
    let mut world = World::new(single(washer()));
    world.tap("door", anna());

    assert_eq!(world.last_shown(), Some(Feedback::Granted));
    assert!(world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "starting");
    let session = world.view("washer-1").session.expect("it has started");
    assert_eq!(session.user, Some("u-anna".into()));
    assert_eq!(session.badge, Some("b-anna".into()));
    assert_eq!(session.phase, "running");
}

#[test]
fn two_badges_at_once_start_one_session() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").answer = Answer::Slow;
    world.present("door", anna(), Technology::MifareClassic1k);
    world.present("door", boris(), Technology::MifareClassic1k);
    assert!(world.denied(Denial::Occupied));

    world.plant("washer-1").answer = Answer::Right;
    world.run(10);
    assert_eq!(world.started(), 1);
    let session = world.view("washer-1").session.expect("it has started");
    assert_eq!(session.user, Some("u-anna".into()));
}

#[test]
fn the_owner_of_a_start_that_waits_for_its_register_is_not_refused() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").answer = Answer::Slow;
    world.present("door", anna(), Technology::MifareClassic1k);
    world.present("door", annas_second(), Technology::MifareClassic1k);
    assert_eq!(world.last_shown(), Some(Feedback::YoursRunning));
}

#[test]
fn a_silent_meter_refuses_a_charger() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").answer = Answer::Silent;
    world.run(15);
    // Whoever asks why hears the same.
    let entry = world.allowlist[&anna()].clone();
    let badge = (anna(), Technology::MifareClassic1k);
    let verdict = world.gateway.verdict(&"charger-1".into(), badge, Some(&entry), world.now());
    assert_eq!(verdict, Some(Verdict::Deny(Denial::OutOfService)));
    world.tap("door", anna());
    world.run(3);

    assert!(world.denied(Denial::OutOfService));
    assert!(!world.plant("charger-1").closed);
    assert_eq!(world.started(), 0);
    let names_card = |notice: &Notice| match notice {
        Notice::Denied { technology, badge, .. } => technology.is_some() && badge.is_some(),
        _ => false,
    };
    assert!(world.notices.iter().any(names_card), "{:?}", world.notices);
}

fn two_chargers() -> World {
    let stations = ["charger-1", "charger-2"].map(|id| station(id, StationKind::Charger));
    let mut site = site(Selection::FirstFree, stations.to_vec());
    site.policy.max_concurrent.charger = 2;
    World::new(site)
}

#[test]
fn first_free_passes_over_a_charger_whose_meter_is_silent() {
    let mut world = two_chargers();
    world.plant("charger-1").answer = Answer::Silent;
    world.tap("door", anna());
    world.run(3);

    assert_eq!(world.last_shown(), Some(Feedback::Granted));
    assert_eq!(world.view("charger-2").session.expect("hers").badge, Some("b-anna".into()));
    assert!(!world.plant("charger-1").closed);
    assert_eq!((world.started(), world.notices.len()), (1, 0), "{:?}", world.notices);
}

#[test]
fn first_free_refuses_once_where_no_charger_can_start() {
    for (second, reason) in
        [(Answer::Silent, Denial::OutOfService), (Answer::Right, Denial::Occupied)]
    {
        let mut world = two_chargers();
        if second == Answer::Right {
            world.plant("charger-1").answer = Answer::Silent;
            world.plant("charger-2").load(&CHARGE);
            world.tap("door", boris());
            world.run(10);
            assert_eq!(world.started(), 1);
        }
        world.plant("charger-1").answer = Answer::Silent;
        world.plant("charger-2").answer = second;
        world.tap("door", anna());
        world.run(5);

        assert_eq!(world.last_shown(), Some(Feedback::Denied(reason)));
        let told = world.notices.iter().filter(|it| matches!(it, Notice::Denied { .. })).count();
        assert_eq!(told, 1, "{:?}", world.notices);
        // The next tap counts at once.
        world.plant("charger-1").answer = Answer::Right;
        world.tap("door", anna());
        world.run(1);
        assert_eq!(world.view("charger-1").session.expect("hers").user, Some("u-anna".into()));
    }
}

#[test]
fn a_tap_that_is_passed_on_stops_nothing_that_was_started_meanwhile() {
    let mut world = two_chargers();
    world.plant("charger-1").answer = Answer::Silent;
    world.present("door", anna(), Technology::MifareClassic1k);
    world.order_start("charger-2", OrderedBy::Operator, Some("u-anna"));
    world.run(10);

    assert_eq!(world.last_shown(), Some(Feedback::YoursRunning));
    assert!(world.plant("charger-2").closed);
    assert_eq!((world.started(), world.ended().len()), (1, 0));
}

#[test]
fn a_refused_charger_starts_at_the_next_tap_although_it_comes_soon() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").answer = Answer::Silent;
    world.tap("door", anna());
    world.run(2);
    world.plant("charger-1").answer = Answer::Right;
    world.tap("door", anna());
    world.run(1);
    assert_eq!(world.last_shown(), Some(Feedback::Granted));
    assert!(world.plant("charger-1").closed);
}

#[test]
fn a_silent_meter_starts_a_washer_whose_start_register_is_missing() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.plant("washer-1").answer = Answer::Silent;
    world.tap("door", anna());
    world.run(3);
    assert!(world.plant("washer-1").closed);

    world.run(60);
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(60);
    let end = world.ended().remove(0);
    assert!(end.start.missing);
    assert_eq!(end.start.register_wh, None);
    assert_eq!(end.quality, Quality::Estimated);
    let used = world.plant("washer-1").register_wh() - 5_000;
    assert_eq!(end.energy_wh, Some(used), "the switch was open before: all of it is hers");
}

#[test]
fn a_meter_that_was_never_read_bills_nothing_and_blocks_nothing() {
    let mut plan = charger();
    plan.rules.require_meter = false;
    let mut world = World::new(single(plan));
    world.disk = Disk::default();
    world.plant("charger-1").answer = Answer::Silent;
    world.start_daemon();
    world.tap("door", anna());
    world.run(10);
    assert!(world.plant("charger-1").closed);
    world.tap("door", anna());
    world.run(15);
    let end = world.ended().remove(0);
    assert_eq!((end.reason, end.energy_wh), (EndReason::Tapped, None));
    assert_eq!(end.quality, Quality::Unmetered);
    world.plant("charger-1").answer = Answer::Right;
    world.run(20);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_switch_that_does_not_close_ends_switch_failed_and_bills_only_the_register() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.run(20);

    let end = world.ended().remove(0);
    assert_eq!((end.reason, end.energy_wh), (EndReason::SwitchFailed, Some(0)));
    assert!(world.denied(Denial::OutOfService));
    assert_eq!(world.state("washer-1"), "faulted");
    assert!(world.notices.contains(&Notice::SwitchFailed { station: "washer-1".into() }));
}

#[test]
fn a_fault_clears_by_itself_and_the_next_tap_works() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.run(20);
    world.plant("washer-1").relay = Relay::Obeys;
    world.run(90);
    assert_eq!(world.state("washer-1"), "available");
    world.tap("door", anna());
    assert!(world.plant("washer-1").closed);
}

#[test]
fn a_switch_that_never_answers_ends_the_start_and_is_opened_until_it_reports() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(1, 500)]);
    world.plant("washer-1").relay = Relay::Silent;
    world.tap("door", anna());
    world.run(30);

    assert_eq!(world.ended()[0].reason, EndReason::SwitchFailed);
    assert_eq!(world.state("washer-1"), "faulted");
    world.plant("washer-1").closed = true;
    world.run(40);
    assert!(!world.plant("washer-1").closed, "told again at least every 30 s");
    world.plant("washer-1").relay = Relay::Obeys;
    world.run(120);
    assert_eq!(world.state("washer-1"), "available");
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_fast_poll_does_not_put_off_the_next_try_to_close() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Stuck;
    world.present("door", anna(), Technology::MifareClassic1k);
    for _ in 0..40 {
        let report = world.plant("washer-1").switch_event(&"washer-1".into());
        world.happens(report.expect("an answer"));
        world.pass(100);
    }
    assert_eq!(world.ended().len() + usize::from(world.state("washer-1") == "faulted"), 2);
}

#[test]
fn an_unmetered_station_starts_at_once_and_its_session_has_no_energy() {
    let mut plan = washer();
    plan.meter = None;
    let mut world = World::new(single(plan));
    world.plant("washer-1").load(&WASH);
    world.present("door", anna(), Technology::MifareClassic1k);
    assert!(world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "in_use", "nobody knows its load");

    world.run_minutes(5 * 60 + 59);
    assert_eq!(world.ended().len(), 0, "nobody knows its load: only the limit ends it");
    world.run_minutes(2);
    let end = world.ended().remove(0);
    assert_eq!(end.reason, EndReason::Limit);
    assert_eq!((end.energy_wh, end.quality), (None, Quality::Unmetered));
    assert!(!world.plant("washer-1").closed);
}

#[test]
fn a_card_that_flaps_is_one_tap() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    for _ in 0..10 {
        world.present("door", anna(), Technology::MifareClassic1k);
        world.pass(200);
        world.remove("door");
        world.pass(200);
    }
    assert_eq!(world.shown, [Feedback::Granted]);
}

#[test]
fn two_cards_in_one_wallet_that_flap_in_turn_are_one_tap_each() {
    let mut world = World::new(laundry_of_chargers());
    for _ in 0..20 {
        for card in [anna(), boris()] {
            world.present("door", card, Technology::MifareClassic1k);
            world.pass(200);
            world.remove("door");
            world.pass(200);
        }
    }
    assert_eq!(world.shown.len(), 2);
}

fn laundry_of_chargers() -> tapgate::core::site::Site {
    let second = station("charger-2", tapgate::core::site::StationKind::Charger);
    site(Selection::FirstFree, vec![charger(), second])
}

#[test]
fn the_same_badge_within_five_seconds_changes_nothing() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run(2);
    world.tap("door", anna());
    assert_eq!(world.shown, [Feedback::Granted, Feedback::Granted]);
    assert!(world.plant("charger-1").closed);

    world.run(5);
    world.tap("door", anna());
    world.run(5);
    assert_eq!(world.last_shown(), Some(Feedback::Stopped));
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
}

#[test]
fn another_badge_of_the_same_user_stops_at_once() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.tap("door", annas_second());
    world.run(5);
    assert_eq!(world.ended()[0].reason, EndReason::Tapped);
}

#[test]
fn a_badge_that_is_blocked_while_its_start_register_is_read_gets_no_power() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").answer = Answer::Slow;
    world.present("door", anna(), Technology::MifareClassic1k);
    world.allowlist.get_mut(&anna()).expect("Anna").blocked = true;
    world.push_allowlist();
    world.plant("washer-1").answer = Answer::Right;
    world.run(10);

    assert!(world.denied(Denial::BadgeBlocked));
    assert_eq!(world.started(), 0);
}
