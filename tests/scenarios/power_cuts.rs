//! Power, or the daemon alone, is gone after every single effect (a commit, a command) of every
//! scenario. Whatever survives: nobody pays for what another used, nothing is lost, no switch stays
//! closed for nobody, and no machine is stopped because of it.

use tapgate::core::access::Grant;
use tapgate::core::event::Vehicle;
use tapgate::core::orders::OrderedBy::{Operator, Technician};
use tapgate::core::site::{Selection, Site, Station};

use crate::world::*;

/// One story, short enough to be told once for each of its effects.
struct Story {
    site: Site,
    tell: fn(&mut World),
    /// It is about a machine that is stopped under load.
    cuts: bool,
}

/// More effects than any story has.
const EFFECTS_MAX: usize = 2_000;

fn hasty(mut plan: Station) -> Station {
    plan.rules.min_duration = seconds(60);
    plan.rules.idle_after = Some(seconds(60));
    plan.rules.handover_after = Some(seconds(40));
    plan.rules.start_timeout = Some(seconds(60));
    plan
}

fn washer_story(tell: fn(&mut World)) -> Story {
    Story { site: single(hasty(washer())), tell, cuts: false }
}

fn charger_story(tell: fn(&mut World)) -> Story {
    let mut plan = charger();
    (plan.private, plan.place) = (true, Some("P-12".into()));
    Story { site: single(plan), tell, cuts: true }
}

fn load(world: &mut World) {
    for id in world.site.stations.iter().map(|station| station.id.clone()).collect::<Vec<_>>() {
        world.plant(id.as_str()).load(&[(5, 3), (120, 2_000), (30, 0), (60, 300), (1, 1)]);
    }
}

/// Tells a story with a death after `effects` effects; whether it came that far.
fn survives(story: &Story, effects: usize, death: Death) -> bool {
    let mut world = World::new(story.site.clone());
    for badge in [anna(), boris()] {
        let grants = &mut world.allowlist.get_mut(&badge).expect("a resident").grants;
        grants.push(Grant::Place("P-12".into()));
    }
    load(&mut world);
    world.death = death;
    world.kill_after = Some(effects);
    (story.tell)(&mut world);
    let reached = world.kill_after.take().is_none();
    for plant in world.plants.values_mut() {
        (plant.relay, plant.answer) = (Relay::Obeys, Answer::Right);
    }
    world.disk.full = false;
    world.run_minutes(8);
    judge(&world, story, (effects, death));
    reached
}

fn judge(world: &World, story: &Story, place: (usize, Death)) {
    world.assert_every_watt_hour_is_accounted_for();
    for end in world.ended() {
        let flowed = world.flowed_in(end.start.session);
        let billed = end.energy_wh.unwrap_or(0);
        assert!(billed <= flowed + 2, "{billed} Wh of {flowed} Wh billed, {place:?}");
    }
    for (id, plant) in &world.plants {
        let used = world.disk.has_running_session(id) || plant.power_w() > 5;
        assert!(!plant.closed || used, "{id} is closed for nobody, {place:?}");
    }
    assert!(story.cuts || world.cuts_under_load == 0, "cut under load, {place:?}");
    assert_eq!(world.gateway.unsaved(), 0, "{place:?}");
}

fn cut_everywhere(story: &Story) {
    let powers = [
        Death::Daemon,
        Death::Power { minutes: 5, synced: true },
        Death::Power { minutes: 5, synced: false },
        Death::Power { minutes: 24 * 60, synced: true },
    ];
    for death in powers {
        let count = (0..EFFECTS_MAX).take_while(|effects| survives(story, *effects, death)).count();
        assert!((5..EFFECTS_MAX).contains(&count), "{count} effects");
    }
}

#[test]
fn a_wash() {
    cut_everywhere(&washer_story(|world| {
        world.tap("door", anna());
        world.run_minutes(7);
    }));
}

#[test]
fn a_wash_that_nobody_starts() {
    cut_everywhere(&washer_story(|world| {
        world.plant("washer-1").load(&[(1, 0)]);
        world.tap("door", anna());
        world.run_minutes(3);
    }));
}

#[test]
fn a_wash_over_a_quarter_hour() {
    cut_everywhere(&washer_story(|world| {
        world.run_minutes(13);
        world.tap("door", anna());
        world.run_minutes(7);
    }));
}

#[test]
fn a_charging_that_a_tap_stops() {
    cut_everywhere(&charger_story(|world| {
        world.tap("door", anna());
        world.run_minutes(2);
        world.tap("door", anna());
        world.run_minutes(1);
    }));
}

#[test]
fn a_charging_that_ends_when_the_car_leaves() {
    let mut story = charger_story(|world| {
        world.plant("charger-1").vehicle = Some(Vehicle::Charging);
        world.tap("door", anna());
        world.run_minutes(2);
        world.plant("charger-1").vehicle = Some(Vehicle::Absent);
        world.plant("charger-1").load(&[(1, 0)]);
        world.run_minutes(1);
    });
    story.site.stations[0].has_vehicle_state = true;
    cut_everywhere(&story);
}

#[test]
fn a_charging_whose_badge_is_revoked() {
    cut_everywhere(&charger_story(|world| {
        world.tap("door", anna());
        world.run_minutes(2);
        world.allowlist.remove(&anna());
        world.push_allowlist();
        world.run_minutes(1);
    }));
}

#[test]
fn a_machine_that_is_handed_over() {
    cut_everywhere(&washer_story(|world| {
        world.tap("door", anna());
        world.run(5 + 120 + 30 + 60 + 45);
        world.tap("door", boris());
        load(world);
        world.run_minutes(6);
    }));
}

#[test]
fn two_machines_of_two_residents() {
    let machines = vec![hasty(washer()), hasty(station("washer-2", washer().kind))];
    let story = Story {
        site: site(Selection::FirstFree, machines),
        tell: |world| {
            world.tap("door", anna());
            world.tap("door", boris());
            world.run_minutes(7);
        },
        cuts: false,
    };
    cut_everywhere(&story);
}

#[test]
fn a_meter_that_falls_silent_over_the_end() {
    cut_everywhere(&washer_story(|world| {
        world.tap("door", anna());
        world.run_minutes(2);
        world.plant("washer-1").answer = Answer::Silent;
        world.run_minutes(6);
    }));
}

#[test]
fn a_meter_that_is_exchanged_by_hand() {
    cut_everywhere(&washer_story(|world| {
        world.tap("door", anna());
        world.run_minutes(1);
        world.exchange_meter("washer-1");
        world.run_minutes(6);
    }));
}

#[test]
fn a_relay_that_resets() {
    cut_everywhere(&washer_story(|world| {
        world.tap("door", anna());
        world.run_minutes(1);
        world.plant("washer-1").closed = false;
        world.run_minutes(7);
    }));
}

#[test]
fn a_relay_that_does_not_close() {
    cut_everywhere(&washer_story(|world| {
        world.plant("washer-1").relay = Relay::Stuck;
        world.tap("door", anna());
        world.run_minutes(2);
    }));
}

#[test]
fn a_relay_that_does_not_open() {
    cut_everywhere(&charger_story(|world| {
        world.tap("door", anna());
        world.run_minutes(2);
        world.plant("charger-1").relay = Relay::Stuck;
        world.tap("door", anna());
        world.run_minutes(2);
    }));
}

#[test]
fn a_disk_that_is_full_at_the_end() {
    cut_everywhere(&charger_story(|world| {
        world.tap("door", anna());
        world.run_minutes(2);
        world.disk.full = true;
        world.tap("door", anna());
        world.run_minutes(2);
    }));
}

#[test]
fn an_operators_start_and_stop() {
    cut_everywhere(&charger_story(|world| {
        world.order_start("charger-1", Operator, Some("u-anna"));
        world.run_minutes(2);
        world.order_stop("charger-1", Operator, false);
        world.run_minutes(1);
    }));
}

#[test]
fn an_operators_stop_that_waits_for_the_wash() {
    cut_everywhere(&washer_story(|world| {
        world.tap("door", anna());
        world.run_minutes(1);
        world.order_stop("washer-1", Operator, false);
        world.run_minutes(6);
    }));
}

#[test]
fn a_technicians_maintenance() {
    let mut story = washer_story(|world| {
        world.take_out_of_service("washer-1", Some("pump"));
        world.order_start("washer-1", Technician, None);
        world.run_minutes(1);
        world.order_stop("washer-1", Technician, true);
        world.run(20);
        world.return_to_service("washer-1");
        world.run(20);
    });
    story.cuts = true;
    cut_everywhere(&story);
}
