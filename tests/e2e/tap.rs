//! What residents experience: a tap, power, a bill that is right; or a refusal.

use std::time::Instant;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::people::{
    ANNA, BORIS, CHARGER_COIL, CHARGER_METER, DAVID, DRYER_METER, GINA, PHONE, STRANGER,
    WASHER_COIL, WASHER_METER,
};
use crate::site::{REPEAT, Site, records};

#[test]
fn a_tap_powers_the_washer_and_its_end_is_metered() {
    washes(Site::running());
}

#[test]
fn a_tap_powers_the_washer_and_its_end_is_metered_over_a_serial_line() {
    washes(Site::running_on_a_serial_line());
}

fn washes(mut site: Site) {
    let before = site.register(WASHER_METER);
    let start = site.tap_to_start("Laundry", &ANNA);
    let session = start["session"].as_str().expect("a session").to_owned();
    let expected = json!({
        "kind": "session_started", "session": session, "station": "washer-1",
        "station_kind": "washer", "user": "u-1", "badge": "b-1", "authorised_by": "allowlist",
        "allowlist_version": 1, "meter": "meter-washer", "register_wh": 12_346,
    });
    assert_eq!(before, 12_346);
    assert_eq!(without(&start, &["seq", "at"]), expected);
    assert_eq!(uuid::Uuid::parse_str(&session).expect("a UUID").get_version_num(), 7);
    site.until("the relay is closed", |site| site.is_closed(WASHER_COIL));

    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    site.until("10 Wh were used", |site| site.register(WASHER_METER) >= before + 10);
    site.draw(WASHER_METER, 0);
    let end = site.record("session_ended", 1);

    let after = site.register(WASHER_METER);
    let mut expected = without(&expected, &["kind"]);
    for (member, value) in [
        ("kind", json!("session_ended")),
        ("reason", json!("finished")),
        ("end_register_wh", json!(after)),
        ("energy_wh", json!(after - before)),
        ("quality", json!("measured")),
    ] {
        expected[member] = value;
    }
    assert_eq!(without(&end, &["seq", "at", "duration_s"]), expected);
    assert!(!site.is_closed(WASHER_COIL));
    assert_eq!(site.writes(), [(WASHER_COIL, true), (WASHER_COIL, false)]);
    site.listener.until("station/washer-1", |_| {
        site.listener.states_of("washer-1")
            == ["available", "starting", "in_use", "idle", "available"]
    });
    site.settled();
}

fn without(record: &Value, members: &[&str]) -> Value {
    let mut record = record.clone();
    let object = record.as_object_mut().expect("an object");
    members.iter().for_each(|member| drop(object.remove(*member)));
    record
}

#[test]
fn no_relay_closes_before_the_start_is_on_disk() {
    let mut site = Site::running();
    // With no acknowledgement nothing but the start is written meanwhile.
    site.settled();
    site.cloud.withhold_acks(true);
    let (store, copy) = (site.path("store"), site.path("copy"));
    site.peer.order(json!({"do": "witness", "folder": store, "copy": copy}));

    let start = site.tap_to_start("Laundry", &ANNA);
    site.until("the relay is closed", |site| site.is_closed(WASHER_COIL));

    let disk = Connection::open(copy.join("tapgate.db")).expect("a copy of the store");
    let sql = "SELECT bytes FROM record ORDER BY seq DESC LIMIT 1";
    let newest: Vec<u8> = disk.query_row(sql, [], |row| row.get(0)).expect("a record");
    let newest: Value = serde_json::from_slice(&newest).expect("JSON");
    assert_eq!(newest, start);
}

#[test]
fn a_charger_stops_at_its_users_second_tap() {
    let mut site = Site::running();
    let before = site.register(CHARGER_METER);
    site.draw(CHARGER_METER, 11_000);
    let tapped = Instant::now();
    let start = site.tap_to_start("Garage", &ANNA);
    site.until_in_use("charger-1");

    // A second look of the same hand is no stop: what tells is that the session goes on.
    let again = site.present("Garage", &ANNA);
    assert!(again.next_apdu().is_some(), "the card is read");
    again.remove();
    site.until("the same tap has worn off", |_| tapped.elapsed() > REPEAT);
    assert_eq!(site.station("charger-1")["session"]["session"], start["session"]);
    let card = site.present("Garage", &ANNA);
    let end = site.record("session_ended", 1);
    drop(card);

    let after = site.register(CHARGER_METER);
    assert_eq!(end["session"], start["session"]);
    assert_eq!(end["reason"], "tapped");
    assert_eq!(end["energy_wh"], after - before);
    assert!(after > before + 10, "{before} {after}");
    assert_eq!(site.writes(), [(CHARGER_COIL, true), (CHARGER_COIL, false)]);
    site.settled();
}

#[test]
fn a_station_that_nobody_uses_is_free_again() {
    let mut site = Site::running();
    let before = site.register(DRYER_METER);
    let start = site.tap_to_start("Drying", &BORIS);
    let end = site.record("session_ended", 1);

    assert_eq!(end["session"], start["session"]);
    assert_eq!((&end["reason"], &end["energy_wh"]), (&json!("not_used"), &json!(0)));
    assert_eq!(end["end_register_wh"], before);
    assert_eq!(site.writes(), [(2, true), (2, false)]);
    site.until("the dryer is available", |site| site.station("dryer-1")["state"] == "available");
    site.settled();
}

#[test]
fn refused_taps_switch_nothing_and_are_reported_without_the_uid() {
    let mut site = Site::running();
    site.tap_to_start("Drying", &ANNA);
    site.draw(DRYER_METER, 2_000);
    site.until_in_use("dryer-1");
    let classic = "mifare-classic-1k";
    let cases = [
        ("Laundry", STRANGER, "unknown_badge", json!("washer-1"), json!(null), classic),
        ("Laundry", DAVID, "badge_blocked", json!("washer-1"), json!("b-4"), classic),
        ("Laundry", PHONE, "random_uid", json!(null), json!(null), "desfire"),
        ("Garage", GINA, "technology_not_accepted", json!("charger-1"), json!("b-7"), "desfire"),
        ("Garage", BORIS, "not_granted", json!("charger-1"), json!("b-2"), classic),
        ("Drying", BORIS, "occupied", json!("dryer-1"), json!("b-2"), classic),
    ];
    for (reader, card, reason, station, badge, technology) in &cases {
        let event = site.tap_in_vain(reader, card);
        let expected = json!({
            "kind": "denied", "reader": reader.to_lowercase(), "station": station,
            "reason": reason, "technology": technology, "badge": badge,
        });
        assert_eq!(without(&event, &["at"]), expected);
        let uid = hex::encode(card.uid);
        assert!(!site.listener.has_heard(&uid), "the UID {uid} left the gateway");
        assert!(!site.log().to_lowercase().contains(&uid), "the UID {uid} is in the log");
    }
    assert_eq!(site.writes(), [(2, true)]);
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 1);
}

#[test]
fn a_card_left_lying_is_one_tap() {
    let mut site = Site::running();
    let left = site.present("Laundry", &ANNA);
    site.record("session_started", 1);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    site.draw(WASHER_METER, 0);
    site.record("session_ended", 1);
    site.until("the washer is free", |site| site.station("washer-1")["state"] == "available");

    // The card lies there still. Whatever it did would be on record before this.
    site.tap_in_vain("Garage", &BORIS);
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 1);

    left.remove();
    site.tap_to_start("Laundry", &BORIS);
}
