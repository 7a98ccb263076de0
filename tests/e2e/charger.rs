//! A charger with its own Modbus control, in the daemon's hands from plugging in to unplugging.

use std::sync::mpsc::channel;
use std::thread;

use crate::people::ANNA;
use crate::simulated_device::Simulated;
use crate::site::Site;
use crate::vectors::{self, Charger, Write};

/// Registers of a Mennekes Amtron Compact.
const VEHICLE: u16 = 0x0100;
const POWER: u16 = 0x0512;
const ENERGY: u16 = 0x1000;
/// No car, plugged in, charging.
const A: u16 = 1;
const B: u16 = 2;
const C: u16 = 5;

/// The charger, on a port of its own for as long as the test runs.
fn amtron() -> (Simulated, Charger, u16) {
    let vector = vectors::all().remove("mennekes-amtron-compact").expect("a built-in profile");
    let charger = vector.charger.clone().expect("it is one");
    let (served, ready) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            drop(served.send(Simulated::serve(vector).await));
            std::future::pending::<()>().await;
        });
    });
    let (device, port) = ready.recv().expect("it serves");
    (device, charger, port)
}

fn shows(device: &Simulated, vehicle: u16, watts: f32, kwh: f32) {
    let words = |value: f32| vec![(value.to_bits() >> 16) as u16, value.to_bits() as u16];
    let mut state = device.state();
    for (address, words) in [(VEHICLE, vec![vehicle]), (POWER, words(watts)), (ENERGY, words(kwh))]
    {
        state.set(&("holding".into(), address, words));
    }
}

/// How often all of these were written.
fn written(device: &Simulated, wanted: &[Write]) -> usize {
    let written = device.state().written.clone();
    wanted.iter().map(|write| written.iter().filter(|w| *w == write).count()).min().unwrap_or(0)
}

/// The last that was written to the register which stops it.
fn is_stopped(device: &Simulated, charger: &Charger) -> bool {
    let (_, address, words) = &charger.stop[0];
    let written = device.state().written.clone();
    written.iter().rev().find(|(_, at, _)| at == address).is_some_and(|(_, _, last)| last == words)
}

#[test]
fn a_charger_with_its_own_control_charges_until_the_car_leaves() {
    let (device, charger, port) = amtron();
    shows(&device, A, 0.0, 12_345.6);
    let mut site = Site::ready_to_start();
    site.change_config(
        "[[device]]\nid = \"relays\"",
        &format!(
            "[[bus]]\nid = \"wallbox\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n\
             [[device]]\nid = \"wallbox\"\nbus = \"wallbox\"\n\
             profile = \"mennekes-amtron-compact\"\n\n[[device]]\nid = \"relays\""
        ),
    );
    site.change_config(
        "switch = \"relays/relay-2\"\nmeter = \"meter-charger\"",
        "charger = \"wallbox\"\ncurrent_limit = \"16A\"",
    );
    site.start();
    site.until_ready();
    site.until("its fail-safe is set", |_| written(&device, &charger.startup) == 1);

    shows(&device, B, 0.0, 12_345.6);
    let start = site.tap_to_start("Garage", &ANNA);
    site.until("it is released with its limit", |_| written(&device, &charger.start) > 0);
    shows(&device, C, 11_000.0, 12_345.604);
    site.until_in_use("charger-1");
    let heartbeat = charger.heartbeat.clone().expect("it wants one");
    let beats = written(&device, std::slice::from_ref(&heartbeat));
    site.until("its heart beats", |_| written(&device, std::slice::from_ref(&heartbeat)) > beats);

    device.state().hang_up = true;
    site.until("its fail-safe is set anew", |_| written(&device, &charger.startup) == 2);
    assert!(!is_stopped(&device, &charger), "a lost connection stops no car");

    shows(&device, A, 0.0, 12_345.604);
    let end = site.record("session_ended", 1);
    assert_eq!((&end["session"], &end["reason"]), (&start["session"], &"unplugged".into()));
    assert_eq!((&end["energy_wh"], &end["quality"]), (&4.into(), &"measured".into()));
    site.until("it is stopped", |_| is_stopped(&device, &charger));
    site.until("it is free", |site| site.station("charger-1")["state"] == "available");
    site.settled();
}
