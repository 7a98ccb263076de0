//! What a technician does to stations and sessions at the console, and to a store that is damaged.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Output;

use serde_json::{Value, json};

use crate::people::{ANNA, BORIS, CHARGER_COIL, WASHER_COIL, WASHER_METER};
use crate::site::{Site, records};

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_technician_switches_a_station_on_and_off_and_both_are_on_record() {
    let mut site = Site::running();
    let (code, out, error) = said(&site.command(&["station", "on", "washer-1"]));
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    assert!(site.is_closed(WASHER_COIL));
    let start = site.record("session_started", 1);
    assert_eq!((&start["authorised_by"], &start["user"]), (&json!("technician"), &json!(null)));
    let listed = json_of(&site.command(&["session", "list", "--json"]));
    assert_eq!(
        (&listed[0]["station"], listed[0]["session"].clone()),
        (&json!("washer-1"), start["session"].clone())
    );
    let (code, _, error) = said(&site.command(&["station", "on", "washer-1"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("in use"), "{error}");

    let (code, _, _) = said(&site.command(&["station", "off", "washer-1"]));
    assert_eq!(code, Some(0));
    let end = site.record("session_ended", 1);
    assert_eq!(end["reason"], "technician");
    site.until("the relay is open", |site| !site.is_closed(WASHER_COIL));

    let (code, _, error) = said(&site.command(&["station", "on", "washer-9"]));
    assert_eq!(code, Some(64));
    assert!(error.contains("washer-1, charger-1, dryer-1"), "{error}");
    site.settled();
}

#[test]
fn a_station_out_of_service_refuses_taps_over_restarts_until_it_is_back() {
    let mut site = Site::running();
    let mark = ["station", "out-of-service", "washer-1", "--note", "pump broken"];
    assert_eq!(said(&site.command(&mark)).0, Some(0));
    site.kill9();
    site.start_again();
    let view = json_of(&site.command(&["station", "show", "washer-1", "--json"]));
    assert_eq!((&view["state"], &view["note"]), (&json!("out_of_service"), &json!("pump broken")));
    assert_eq!(site.tap_in_vain("Laundry", &ANNA)["reason"], "out_of_service");
    assert_eq!(said(&site.command(&["station", "in-service", "washer-1"])).0, Some(0));
    site.tap_to_start("Laundry", &BORIS);
    site.until("the relay is closed", |site| site.is_closed(WASHER_COIL));
}

#[test]
fn a_session_ends_by_hand_at_once_or_when_the_machine_is_idle() {
    let mut site = Site::running();
    site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    let (code, out, _) = said(&site.command(&["session", "end", "washer-1"]));
    assert_eq!(code, Some(0));
    assert!(out.contains("as soon as the machine is idle"), "{out}");
    assert!(site.is_closed(WASHER_COIL));
    let (code, _, error) = said(&site.command(&["station", "off", "washer-1"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("tapgate session end"), "{error}");
    site.draw(WASHER_METER, 0);
    assert_eq!(site.record("session_ended", 1)["reason"], "technician");

    let start = site.tap_to_start("Garage", &ANNA);
    site.until("the charger is on", |site| site.is_closed(CHARGER_COIL));
    let session = start["session"].as_str().expect("an id");
    assert_eq!(said(&site.command(&["session", "end", session])).0, Some(0));
    assert_eq!(site.record("session_ended", 2)["reason"], "technician");
    let (code, _, error) = said(&site.command(&["session", "end", session]));
    assert_eq!(code, Some(1), "{error}");
    site.settled();
}

#[test]
fn an_exchanged_meter_is_told_by_hand() {
    let mut site = Site::running();
    site.peer.order(json!({"do": "energy", "unit": WASHER_METER, "wh": 17.0}));
    let (code, out, error) = said(&site.command(&["meter", "replace", "washer-1"]));
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("17 Wh"), "{out}");
    let replaced = site.record("meter_replaced", 1);
    assert_eq!(
        (&replaced["old_register_wh"], &replaced["new_register_wh"]),
        (&json!(12_346), &json!(17))
    );
    site.settled();
}

#[test]
fn a_store_damaged_while_a_machine_runs_is_set_aside_and_the_machine_runs_on() {
    let mut site = Site::running();
    let start = site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    site.settled();
    let epoch = site.status()["ledger"]["epoch"].clone();
    assert!(site.terminate().0.success());
    // All of it is in the one file by now; the log would only hide what becomes of its pages.
    std::fs::remove_file(site.path("store/tapgate.db-wal")).expect("a log");
    let ledger = OpenOptions::new().write(true).open(site.path("store/tapgate.db")).expect("it");
    let quarter = ledger.metadata().expect("its length").len() / 4;
    ledger.write_all_at(&vec![0x5A; 2 * quarter as usize], quarter).expect("ruined");
    drop(ledger);

    site.start();
    site.until("it is ready", |site| site.status()["ledger"]["epoch"].is_string());
    let status = site.status();
    assert_ne!(status["ledger"]["epoch"], epoch);
    assert!(status["alarms"].to_string().contains("set aside"), "{status}");
    assert!(site.path("store/tapgate.db.damaged-1").exists());
    site.until("the load is seen", |site| {
        site.station("washer-1")["fault"] == "switch_without_session"
    });
    assert_eq!(site.writes(), [(WASHER_COIL, true)], "no switch was touched");
    let event = site.tap_in_vain("Laundry", &BORIS);
    assert_eq!(event["reason"], "out_of_service");
    site.draw(WASHER_METER, 0);
    site.until("the switch opens", |site| !site.is_closed(WASHER_COIL));
    let view = site.seen("the new epoch", |view| !records(view, "epoch_opened").is_empty());
    let _ = (start, view);
}
