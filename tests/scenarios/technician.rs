//! A technician who tests a station from the console.

use tapgate::core::access::Denial;
use tapgate::core::event::Event;
use tapgate::core::ids::SessionId;
use tapgate::core::ledger::{Authority, EndReason};

use crate::world::*;

fn starts(world: &mut World) {
    let candidate = SessionId([0x7E; 16]);
    world.happens(Event::TechnicianStarts { station: "washer-1".into(), candidate });
}

fn ends(world: &mut World) {
    world.happens(Event::TechnicianEnds { station: "washer-1".into() });
}

#[test]
fn a_test_is_a_session_of_nobody_on_record() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&[(600, 1_800)]);
    starts(&mut world);
    world.run(2);
    assert!(world.plant("washer-1").closed);
    ends(&mut world);
    world.run(15);

    let end = world.ended().remove(0);
    assert_eq!((end.start.user, end.start.badge), (None, None));
    assert_eq!(end.start.authorised_by, Authority::Technician);
    assert_eq!(end.reason, EndReason::Technician);
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.state("washer-1"), "available");
    world.assert_every_watt_hour_is_accounted_for();
}

#[test]
fn a_resident_who_taps_during_a_test_is_told_that_it_is_occupied() {
    let mut world = World::new(single(washer()));
    starts(&mut world);
    world.run(1);
    world.tap("door", anna());
    assert!(world.denied(Denial::Occupied));
    ends(&mut world);
    world.run(15);
    world.tap("door", anna());
    assert!(world.plant("washer-1").closed);
}

#[test]
fn a_technician_neither_takes_over_nor_ends_a_residents_session() {
    let mut world = World::new(single(washer()));
    world.plant("washer-1").load(&WASH);
    world.tap("door", anna());
    world.run_minutes(5);
    starts(&mut world);
    ends(&mut world);
    world.run(30);
    assert!(world.plant("washer-1").closed);
    assert_eq!(world.ended().len(), 0);
    assert_eq!(world.view("washer-1").session.expect("hers").user, Some("u-anna".into()));
}

#[test]
fn a_full_disk_gives_a_technician_no_power_either() {
    let mut world = World::new(single(washer()));
    world.disk.full = true;
    starts(&mut world);
    world.run(1);
    assert!(!world.plant("washer-1").closed);
    assert_eq!(world.last_shown(), None, "nobody stands at the reader");
}
