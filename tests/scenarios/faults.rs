//! Relays and meters that fail while somebody uses them.

use tapgate::core::access::Denial;
use tapgate::core::event::{Event, Notice};
use tapgate::core::ledger::{EndReason, Fact, InterruptionCause, UnattributedCause};
use tapgate::core::orders::OrderedBy;

use crate::world::*;

fn washing() -> World {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(5);
    world
}

#[test]
fn a_relay_that_reset_is_closed_again_with_an_interruption_on_record() {
    let mut world = washing();
    world.plant("washer-1").closed = false;
    world.run(3);
    assert!(world.plant("washer-1").closed);
    let reset = |fact: &Fact| {
        matches!(fact, Fact::Interruption { cause: InterruptionCause::SwitchOpened, .. })
    };
    assert_eq!(world.count(reset), 1);
    world.run_minutes(60);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
}

#[test]
fn a_relay_that_resets_again_and_again_is_faulted_and_the_session_stays() {
    let mut world = washing();
    for _ in 0..4 {
        world.plant("washer-1").closed = false;
        world.run(3);
    }
    assert_eq!(interruptions(&world), 3);
    assert_eq!(world.state("washer-1"), "faulted");
    assert!(world.view("washer-1").session.is_some());
    assert!(!world.plant("washer-1").closed);
}

#[test]
fn a_relay_that_does_not_close_again_is_a_fault_and_not_an_end() {
    let mut world = washing();
    world.plant("washer-1").closed = false;
    world.plant("washer-1").relay = Relay::Stuck;
    world.run(30);
    assert_eq!(world.state("washer-1"), "faulted");
    assert_eq!(world.ended().len(), 0);
    world.tap("door", boris());
    assert!(world.denied(Denial::OutOfService));
}

#[test]
fn a_relay_board_that_answers_again_takes_up_the_session() {
    let mut world = washing();
    world.plant("washer-1").relay = Relay::Silent;
    world.run(60);
    assert!(world.plant("washer-1").closed, "silence cuts nobody");
    assert_eq!(world.state("washer-1"), "in_use");
    world.plant("washer-1").relay = Relay::Obeys;
    world.run_minutes(60);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
}

#[test]
fn a_switch_that_does_not_open_ends_the_session_and_the_rest_is_nobodys() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.plant("charger-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.run(5);
    assert_eq!(world.ended().len(), 1);
    assert_eq!(world.state("charger-1"), "faulted");
    world.tap("door", boris());
    assert!(world.denied(Denial::OutOfService));

    world.run_minutes(5);
    assert!(world.notices.iter().any(|n| matches!(n, Notice::Unattributed { .. })));
    world.plant("charger-1").relay = Relay::Obeys;
    world.run(31);
    assert!(!world.plant("charger-1").closed);
    assert!(world.disk.unattributed_wh() > 500);
    world.run(60);
    assert_eq!(world.state("charger-1"), "available");
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_machine_that_still_draws_a_little_does_not_hold_up_the_end() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.plant("charger-1").bypass_w = 5;
    world.tap("door", anna());
    world.run(4);
    assert_eq!(world.ended().len(), 1);
}

#[test]
fn a_meter_silent_at_the_end_leaves_the_rest_to_nobody_and_names_the_session() {
    for slots in [true, false] {
        let mut site = single(charger());
        site.policy.slots = slots;
        let mut world = World::new(site);
        world.plant("charger-1").load(&CHARGE);
        world.tap("door", anna());
        world.run_minutes(5);
        world.plant("charger-1").answer = Answer::Silent;
        world.run_minutes(5);
        world.tap("door", anna());
        world.run(15);
        let end = world.ended().remove(0);
        assert_eq!(end.end_register_wh, None);
        assert!(end.energy_wh.is_some_and(|energy| energy < 1_000));

        world.plant("charger-1").answer = Answer::Right;
        world.run(20);
        let named = world.count(|fact| {
            matches!(fact, Fact::Unattributed { sessions, .. } if *sessions == [end.start.session])
        });
        assert_eq!(named, 1);
        world.assert_every_watt_hour_is_accounted_for();
    }
}

/// A charger that starts without its meter; Anna stops and Boris starts while it is silent.
fn two_sessions_across_one_silence() -> World {
    let mut plan = charger();
    plan.rules.require_meter = false;
    let mut world = World::new(single(plan));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.plant("charger-1").answer = Answer::Silent;
    world.run_minutes(5);
    world.tap("door", anna());
    world.run(15);
    world.tap("door", boris());
    world.run_minutes(5);
    assert_eq!(world.started(), 2);
    world
}

fn assert_boris_pays_nothing_of_the_silence(world: &mut World) {
    let silent_wh = world.plant("charger-1").register_wh();
    world.plant("charger-1").answer = Answer::Right;
    world.run_minutes(5);
    world.tap("door", boris());
    world.run(15);
    let end = world.ended().remove(1);
    let used = world.plant("charger-1").register_wh() - silent_wh;
    let energy = end.energy_wh.expect("metered");
    assert!((used - 5..=used).contains(&energy), "{energy} of {used}");
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn two_sessions_across_one_silence_are_both_named() {
    let mut world = two_sessions_across_one_silence();
    assert_boris_pays_nothing_of_the_silence(&mut world);
    let both =
        |fact: &Fact| matches!(fact, Fact::Unattributed { sessions, .. } if sessions.len() == 2);
    assert_eq!(world.count(both), 1);
}

#[test]
fn nobody_pays_for_a_neighbour_whose_end_the_meter_missed_after_a_restart() {
    let mut world = two_sessions_across_one_silence();
    world.kill();
    assert_boris_pays_nothing_of_the_silence(&mut world);
}

#[test]
fn nobody_pays_for_a_neighbour_whose_end_the_meter_missed_before_a_restart() {
    let mut plan = charger();
    plan.rules.require_meter = false;
    let mut world = World::new(single(plan));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(5);
    world.plant("charger-1").answer = Answer::Silent;
    world.run_minutes(5);
    world.tap("door", anna());
    world.run(15);
    world.kill();
    world.run(5);
    world.tap("door", boris());
    world.run_minutes(5);
    assert_eq!(world.started(), 2);
    assert_boris_pays_nothing_of_the_silence(&mut world);
}

#[test]
fn nobody_pays_for_what_a_stuck_relay_let_through_before_a_start_without_register() {
    let mut world = washing();
    world.run_minutes(5);
    world.plant("washer-1").relay = Relay::Stuck;
    world.order_stop("washer-1", OrderedBy::Technician, true);
    world.run(20);
    assert_eq!(world.ended().len(), 1);
    world.plant("washer-1").answer = Answer::Silent;
    world.plant("washer-1").load(&[(600, 2_000), (1, 0)]);
    world.run_minutes(5);
    world.plant("washer-1").relay = Relay::Obeys;
    world.run_minutes(2);
    assert_eq!(world.state("washer-1"), "available");
    let before = world.plant("washer-1").register_wh();
    world.tap("door", boris());
    world.run_minutes(1);
    world.plant("washer-1").answer = Answer::Right;
    world.run_minutes(30);
    let end = world.ended().remove(1);
    let used = world.plant("washer-1").register_wh() - before;
    assert!(end.energy_wh.is_some_and(|energy| energy <= used), "{:?} of {used}", end.energy_wh);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_free_machine_whose_switch_does_not_answer_shows_it_and_is_refused() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").relay = Relay::Silent;
    world.run(40);
    assert_eq!(world.state("washer-1"), "faulted");
    assert_eq!(world.view("washer-1").fault.as_deref(), Some("switch_silent"));
    world.tap("door", anna());
    assert!(world.denied(Denial::OutOfService));
    assert_eq!(world.started(), 0);
    world.plant("washer-1").relay = Relay::Obeys;
    world.run(10);
    assert_eq!(world.state("washer-1"), "available");
}

#[test]
fn a_free_machine_whose_contactor_feedback_is_lost_shows_it_and_a_running_one_goes_on() {
    let mut plan = washer();
    plan.has_feedback = true;
    let mut world = World::new(single(plan));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.plant("washer-1").feedback = false;
    world.run_minutes(5);
    assert_eq!(world.state("washer-1"), "in_use");
    assert_eq!(world.view("washer-1").fault.as_deref(), Some("feedback_silent"));
    world.run_minutes(40);
    assert_eq!(world.ended()[0].reason, EndReason::Finished);
    assert_eq!(world.state("washer-1"), "faulted");
    world.tap("door", boris());
    assert!(world.denied(Denial::OutOfService));
}

#[test]
fn a_fault_does_not_clear_while_its_switch_says_nothing() {
    let mut world = World::new(single(charger()));
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run_minutes(1);
    world.plant("charger-1").relay = Relay::Stuck;
    world.tap("door", anna());
    world.run(20);
    world.plant("charger-1").closed = false;
    world.run(11);
    world.plant("charger-1").relay = Relay::Silent;
    world.run_minutes(5);
    assert_eq!(world.view("charger-1").fault.as_deref(), Some("switch_stuck"));
    world.plant("charger-1").relay = Relay::Obeys;
    world.run_minutes(2);
    assert_eq!(world.state("charger-1"), "available");
}

#[test]
fn a_meter_that_is_silent_for_months_names_no_more_sessions_than_a_record_can_hold() {
    let mut plan = charger();
    plan.rules.require_meter = false;
    let mut world = World::new(single(plan));
    world.plant("charger-1").answer = Answer::Silent;
    for _ in 0..40 {
        world.tap("door", anna());
        world.run(10);
    }
    world.plant("charger-1").count_wh(9);
    world.plant("charger-1").answer = Answer::Right;
    world.run(20);
    let bounded =
        |fact: &Fact| matches!(fact, Fact::Unattributed { sessions, .. } if sessions.len() == 16);
    assert_eq!(world.count(bounded), 1);
}

#[test]
fn closings_are_counted_over_restarts() {
    let mut world = washing();
    for _ in 0..3 {
        world.plant("washer-1").closed = false;
        world.run(3);
        world.kill();
        world.run(3);
    }
    assert!(world.plant("washer-1").closed);
    world.plant("washer-1").closed = false;
    world.run(10);
    assert!(!world.plant("washer-1").closed, "a board that resets for ever is left open");
    assert_eq!(interruptions(&world), 3);
    assert_eq!(world.state("washer-1"), "faulted");
    assert_eq!(world.ended().len(), 0);
}

#[test]
fn a_lost_reader_prevents_taps_and_nothing_else() {
    let mut world = washing();
    let reader = || "door".into();
    world.happens(Event::ReaderLost { reader: reader() });
    assert_eq!(world.state("washer-1"), "in_use");
    assert_eq!(world.view("washer-1").fault.as_deref(), Some("reader_lost"));
    world.run_minutes(60);
    assert_eq!(world.ended().len(), 1);
    assert_eq!(world.state("washer-1"), "faulted");
    world.order_start("washer-1", OrderedBy::Operator, Some("u-boris"));
    assert!(world.plant("washer-1").closed, "an operator starts it all the same");
    world.happens(Event::ReaderFound { reader: reader() });
    assert_eq!(world.view("washer-1").fault, None);
}

#[test]
fn what_a_machine_draws_after_its_end_is_residue_of_its_session() {
    let mut world = washing();
    world.order_stop("washer-1", OrderedBy::Technician, true);
    world.run(6);
    let session = world.ended().remove(0).start.session;
    world.plant("washer-1").bypass_w = 700;
    world.run(20);
    world.plant("washer-1").bypass_w = 0;
    world.run_minutes(3);
    let residue = |fact: &Fact| match fact {
        Fact::Unattributed { cause: UnattributedCause::Residue, sessions, .. } => {
            *sessions == [session]
        }
        _ => false,
    };
    assert_eq!(world.count(residue), 1);
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_switch_that_did_not_open_is_told_again_after_a_restart_whoever_knows_of_its_load() {
    for metered in [true, false] {
        let mut plan = washer();
        plan.rules.max_duration = Some(seconds(60));
        plan.rules.start_timeout = Some(seconds(30));
        if !metered {
            plan.meter = None;
        }
        let mut world = World::new(single(plan));
        world.tap("door", anna());
        world.plant("washer-1").relay = Relay::Stuck;
        world.run_minutes(3);
        assert_eq!((world.ended().len(), world.disk.open_sessions()), (1, 0));
        assert!(world.plant("washer-1").closed);
        for restart in [World::restart, World::kill] {
            restart(&mut world);
            world.run_minutes(1);
            assert_eq!(world.view("washer-1").fault.as_deref(), Some("switch_stuck"));
        }
        world.plant("washer-1").relay = Relay::Obeys;
        world.run(35);
        assert!(!world.plant("washer-1").closed, "it opens, metered: {metered}");
        world.run_minutes(2);
        assert_eq!(world.state("washer-1"), "available");
        assert!(world.disk.memos.is_empty(), "nothing is left to remember");
    }
}
