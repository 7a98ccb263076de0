//! Whatever is killed, restarted or late: machines go on, and every record counts once.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::refused;
use crate::modbus_peer::Peer;
use crate::people::{
    ANNA, BORIS, CHARGER_COIL, CHARGER_METER, DRYER_METER, WASHER_COIL, WASHER_METER,
};
use crate::site::{Site, records};

/// SIGTERM leaves this much time.
const STOP: Duration = Duration::from_secs(10);

/// Lets the machine run for a while and come to its end, and settles.
fn finish_wash(site: &mut Site, number: usize) -> Value {
    let so_far = site.register(WASHER_METER);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    site.until("something was used", |site| site.register(WASHER_METER) > so_far);
    site.draw(WASHER_METER, 0);
    let end = site.record("session_ended", number);
    site.settled();
    end
}

#[test]
fn a_daemon_killed_at_a_tap_has_the_session_or_has_not_switched() {
    let mut site = Site::running();
    let mut started = 0;
    // Later and later: before the lookup, while the register is read, around the commit, after.
    for delay_ms in [0, 15, 40, 60, 80, 100, 120, 150] {
        let writes = site.writes().len();
        let card = site.present("Laundry", &ANNA);
        assert!(card.next_apdu().is_some(), "the card is read");
        std::thread::sleep(Duration::from_millis(delay_ms));
        site.kill9();
        card.remove();
        let switched = site.writes().len() > writes;

        site.start_again();
        let session = site.station("washer-1")["session"].clone();
        assert!(!switched || !session.is_null(), "power without a record, {delay_ms} ms");
        if session.is_null() {
            assert!(!site.is_closed(WASHER_COIL));
            continue;
        }
        started += 1;
        site.until("the relay is closed", |site| site.is_closed(WASHER_COIL));
        let end = finish_wash(&mut site, started);
        assert_eq!(end["session"], session["session"]);
        let opened = site.writes().iter().filter(|(_, closes)| !closes).count();
        assert_eq!(opened, started, "a relay was opened by a restart");
    }
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), started);
    assert_eq!(records(&view, "session_ended").len(), started);
}

#[test]
fn a_daemon_killed_while_a_machine_runs_goes_on_with_the_same_session() {
    let mut site = Site::running();
    let before = site.register(WASHER_METER);
    let card = site.present("Laundry", &ANNA);
    // The instant that the relay closes, under load, idle.
    site.until("the relay is closed", |site| site.is_closed(WASHER_COIL));
    site.kill9();
    card.remove();
    site.start_again();
    let session = site.station("washer-1")["session"]["session"].clone();
    site.draw(WASHER_METER, 36_000);
    for _ in 0..2 {
        site.until_in_use("washer-1");
        site.kill9();
        let so_far = site.register(WASHER_METER);
        site.until("it runs on alone", |site| site.register(WASHER_METER) > so_far + 5);
        site.start_again();
        assert_eq!(site.station("washer-1")["session"]["session"], session);
    }
    site.until_in_use("washer-1");
    site.draw(WASHER_METER, 0);
    site.kill9();
    site.start_again();

    let end = site.record("session_ended", 1);
    let after = site.register(WASHER_METER);
    assert_eq!(end["session"], session);
    assert_eq!((&end["reason"], &end["energy_wh"]), (&json!("finished"), &json!(after - before)));
    assert_eq!(site.writes(), [(WASHER_COIL, true), (WASHER_COIL, false)]);
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 1);
    assert_eq!(records(&view, "session_ended").len(), 1);
    assert_eq!(records(&view, "interruption").len(), 0);
}

#[test]
fn a_daemon_killed_after_the_intention_to_end_ends_it_once() {
    ends_once(false);
}

#[test]
fn a_daemon_killed_while_power_runs_down_ends_it_once() {
    ends_once(true);
}

fn ends_once(after_opening: bool) {
    let mut site = Site::running();
    // Somebody bridged the relay: power goes on, so that the end takes its three seconds.
    site.peer.order(json!({"do": "wire", "unit": CHARGER_METER, "coil": 7}));
    site.peer.order(json!({"do": "set_coil", "coil": 7, "on": true}));
    let start = site.tap_to_start("Garage", &ANNA);
    site.draw(CHARGER_METER, 11_000);
    site.until_in_use("charger-1");
    site.kill9();
    site.start_again();
    let card = site.present("Garage", &ANNA);
    site.record("session_ending", 1);
    if after_opening {
        site.until("the relay is open", |site| !site.is_closed(CHARGER_COIL));
    }
    site.kill9();
    card.remove();

    site.start_again();
    let end = site.record("session_ended", 1);

    assert_eq!(end["session"], start["session"]);
    assert_eq!(end["reason"], "tapped");
    assert!(!site.is_closed(CHARGER_COIL), "an intended end never closes again");
    site.peer.order(json!({"do": "set_coil", "coil": 7, "on": false}));
    let view = site.settled();
    assert_eq!(records(&view, "session_ending").len(), 1);
    assert_eq!(records(&view, "session_ended").len(), 1);
}

#[test]
fn a_stop_by_sigterm_leaves_machines_running() {
    let mut site = Site::running();
    let start = site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");

    let (status, took) = site.terminate();

    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", site.log());
    assert!(took < STOP, "{took:?}");
    assert!(site.is_closed(WASHER_COIL));
    assert!(!site.path("control.sock").exists());
    site.seen("the gateway said goodbye", |view| {
        view.state.as_ref().is_some_and(|state| state["online"] == false)
    });
    site.start_again();
    site.until_in_use("washer-1");
    let end = finish_wash(&mut site, 1);
    assert_eq!(end["session"], start["session"]);
    assert_eq!(site.writes(), [(WASHER_COIL, true), (WASHER_COIL, false)]);
}

#[test]
fn a_daemon_that_starts_alone_takes_up_each_part_as_it_comes() {
    let mut site = Site::ready_to_start();
    let port = site.peer.port();
    site.broker.kill9();
    site.pcscd.kill();
    site.peer.kill();
    site.start();
    site.until("it answers", |site| !site.status().is_null());
    let alarms = |site: &Site| site.status()["alarms"].to_string();
    site.until("it misses the bus and the readers", |site| {
        let alarms = alarms(site);
        alarms.contains("reader laundry") && alarms.contains("bus room cannot be opened")
    });
    assert_eq!(site.status()["cloud"]["connected"], false);
    site.until("it says why there is no cloud", |site| {
        site.status()["cloud"]["last_error"].is_string()
    });

    site.peer = Peer::tcp(port);
    site.wire_meters();
    site.until("the bus is taken up", |site| !alarms(site).contains("bus room"));
    site.pcscd.restart().expect("pcscd");
    site.until("the readers are taken up", |site| !alarms(site).contains("reader "));
    site.broker.restart().expect("mosquitto");
    site.until_ready();

    site.tap_to_start("Laundry", &BORIS);
    finish_wash(&mut site, 1);
}

#[test]
fn every_record_counts_once_whatever_happens_to_the_broker() {
    let mut site = Site::running();
    site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");

    // What happens while it is away is recorded, with an outage that loses everything.
    site.broker.kill9();
    site.broker.wipe().expect("a stopped broker");
    let card = site.present("Drying", &BORIS);
    site.until("the dryer's relay is closed", |site| site.is_closed(2));
    card.remove();
    site.until("it ended without a broker", |site| {
        site.station("dryer-1")["state"] == "available" && site.register(DRYER_METER) == 0
    });
    site.broker.restart().expect("mosquitto");
    site.record("session_ended", 1);
    site.seen("the stations are retained again", |view| view.stations.len() == 3);

    // And one in the middle of traffic, which loses nothing that was retained.
    site.draw(WASHER_METER, 0);
    site.broker.kill9();
    site.broker.restart().expect("mosquitto");

    let end = site.record("session_ended", 2);
    assert_eq!((&end["station"], &end["reason"]), (&json!("washer-1"), &json!("finished")));
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 2);
    assert_eq!(records(&view, "session_ended").len(), 2);
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let mut site = Site::running();
    site.tap_to_start("Laundry", &ANNA);

    let (code, said) = refused(&site.config());

    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("another process holds it; stop the other tapgate first"), "{said}");
    site.pid();
    finish_wash(&mut site, 1);
}
