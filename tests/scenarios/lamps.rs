//! What the lamps at the machines show.

use tapgate::core::site::{Selection, Site};

use crate::world::*;

fn lit(mut site: Site) -> World {
    site.stations.iter_mut().for_each(|station| station.has_lamp = true);
    World::new(site)
}

/// Lets seconds pass in steps shorter than any flash.
fn look_for(world: &mut World, seconds: u64) {
    (0..seconds * 20).for_each(|_| world.pass(50));
}

/// What the lamp of a station was set to since the last look.
fn shown(world: &mut World, station: &str) -> Vec<bool> {
    let set = std::mem::take(&mut world.lamps);
    set.into_iter().filter(|(id, _)| id.as_str() == station).map(|(_, on)| on).collect()
}

#[test]
fn a_lamp_is_lit_as_long_as_the_machine_is_in_use() {
    let mut world = lit(single(charger()));
    assert_eq!(shown(&mut world, "charger-1"), [false], "whatever it showed before the start");
    world.plant("charger-1").load(&CHARGE);
    world.tap("door", anna());
    world.run(60);
    assert_eq!(shown(&mut world, "charger-1"), [true]);
    world.tap("door", anna());
    world.run(10);
    assert_eq!(shown(&mut world, "charger-1"), [false]);
}

#[test]
fn a_refusal_flashes_three_times_and_leaves_the_lamp_as_it_was() {
    let mut world = lit(single(washer()));
    world.plant("washer-1").load(&WASH);
    shown(&mut world, "washer-1");
    world.tap("door", stranger());
    look_for(&mut world, 5);
    assert_eq!(shown(&mut world, "washer-1"), [true, false, true, false, true, false]);
    world.tap("door", anna());
    look_for(&mut world, 5);
    assert_eq!(shown(&mut world, "washer-1"), [true]);
    world.tap("door", boris());
    look_for(&mut world, 5);
    assert_eq!(shown(&mut world, "washer-1"), [false, true, false, true, false, true]);
}

#[test]
fn the_lamps_that_a_button_could_choose_blink_until_one_is_chosen() {
    let mut world = lit(laundry(Selection::Button));
    world.disk.out_of_service = vec![("dryer-1".into(), None)];
    world.kill();
    world.lamps.clear();
    world.tap("door", anna());
    look_for(&mut world, 2);
    let set = std::mem::take(&mut world.lamps);
    let of = |station: &str| set.iter().filter(|(id, _)| id.as_str() == station).count();
    assert!(of("washer-1") >= 4 && of("washer-2") >= 4, "{set:?}");
    assert_eq!(of("dryer-1"), 0, "out of service");
    world.press("washer-2");
    look_for(&mut world, 3);
    let set = std::mem::take(&mut world.lamps);
    let last = |station: &str| set.iter().rfind(|(id, _)| id.as_str() == station).map(|it| it.1);
    assert_ne!(last("washer-1"), Some(true));
    assert_ne!(last("washer-2"), Some(false));
    look_for(&mut world, 3);
    assert_eq!(world.lamps, [], "nothing blinks any more");
}
