//! Ways in which others lost data, with the whole program; docs/cloud-protocol.md lists all.

use std::fs;

use serde_json::{Value, json};
use tapgate::protocol::cloud::Down;

use crate::people::{self, ANNA, BORIS, DRYER_METER, STRANGER, WASHER_COIL, WASHER_METER};
use crate::site::{Site, records};

/// A session of the dryer that ends by itself.
fn use_the_dryer(site: &mut Site) {
    let head = |site: &Site| site.status()["ledger"]["head"].as_u64();
    let before = head(site).expect("a ledger");
    let card = site.present("Drying", &BORIS);
    site.until("a whole session is on record", |site| head(site) >= Some(before + 3));
    card.remove();
}

#[test]
fn f03_there_is_one_truth_to_resend_after_a_crash() {
    let mut site = Site::running();
    site.settled();
    site.cloud.withhold_acks(true);
    use_the_dryer(&mut site);
    site.kill9();
    site.start();
    site.until_ready();
    site.kill9();
    site.cloud.withhold_acks(false);
    site.start();
    site.until_ready();

    let view = site.settled();

    assert_eq!(records(&view, "session_started").len(), 1);
    assert_eq!(records(&view, "session_ended").len(), 1);
    assert_eq!(records(&view, "gateway_started").len(), 3);
}

#[test]
fn f05_a_corrupt_store_is_set_aside_and_badges_still_work() {
    let mut site = Site::running();
    let before = site.settled().usage.epoch;
    site.terminate();
    let ledger = site.path("store/tapgate.db");
    let length = fs::metadata(&ledger).expect("a store").len() as usize;
    fs::write(&ledger, vec![0x5a; length]).expect("ruined");
    // Its log would heal it.
    fs::write(site.path("store/tapgate.db-wal"), "").expect("ruined");

    site.start();

    site.seen("the alarm", |view| view.events_of("store_set_aside").count() == 1);
    let opened = site.seen("a new epoch", |view| records(view, "epoch_opened").len() == 2);
    let opened = records(&opened, "epoch_opened")[1].clone();
    assert_eq!(opened["previous_epoch"], before.as_str());
    site.until_ready();
    site.tap_to_start("Laundry", &ANNA);
    site.until("power flows", |site| site.is_closed(WASHER_COIL));
    assert!(fs::metadata(site.path("store/tapgate.db.damaged-1")).is_ok(), "nothing is deleted");
}

#[test]
fn f06_a_changed_config_leaves_the_store_as_it_is() {
    let mut site = Site::running();
    use_the_dryer(&mut site);
    site.cloud.withhold_acks(true);
    let before = site.status()["ledger"].clone();
    site.change_config("label = \"The washer\"", "label = \"Machine one\"");

    let reload = site.command(&["reload"]);

    assert_eq!(reload.status.code(), Some(0));
    site.until("the new config is taken over", |site| {
        site.station("washer-1")["label"] == "Machine one"
    });
    let after = site.status()["ledger"].clone();
    assert_eq!(after["epoch"], before["epoch"]);
    assert!(after["head"].as_u64() > before["head"].as_u64(), "it counts on");
    site.cloud.withhold_acks(false);
    assert_eq!(records(&site.settled(), "session_ended").len(), 1);
}

#[test]
fn f10_what_is_committed_is_never_rolled_back() {
    let mut site = Site::running();
    let mut entries = people::allowlist();
    entries.push(people::entry("b-9", &STRANGER, "active", json!(["*"])));
    site.cloud.push_allowlist(entries.clone(), 2);
    site.seen("version 2 decides", |view| view.applied_version() == Some(2));
    let start = site.tap_to_start("Laundry", &ANNA);
    // Killed before anything could be reported in full; the cloud offers the list from before.
    site.kill9();
    site.cloud.push_allowlist(people::allowlist(), 1);
    site.start();

    let refused = site.seen("the old list is refused", |view| {
        view.allowlist_reports.iter().any(|report| report["refused"]["reason"] == "rollback")
    });
    let report = refused.allowlist_reports.last().expect("one");
    assert_eq!(report["current"]["version"], 2, "{report}");
    assert_eq!(site.status()["allowlist"]["version"], 2);
    assert_eq!(site.station("washer-1")["session"]["session"], start["session"]);
}

#[test]
fn f12_a_reference_to_nothing_is_refused_and_never_guessed() {
    let mut site = Site::running();
    site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 2_000);
    site.until_in_use("washer-1");
    let before = site.station("washer-1")["session"]["session"].clone();
    let nobody = "0190b5a0-7c3e-7d4e-8f00-000000000001";
    let epoch = site.status()["ledger"]["epoch"].clone();
    let cases: [(&str, Value, &str); 5] = [
        ("station.stop", json!({"session": nobody, "now": true}), "no_session"),
        ("station.stop", json!({"station": "washer-9", "now": true}), "unknown_station"),
        ("station.out_of_service", json!({"station": ""}), "unknown_station"),
        ("badge.override.clear", json!({"badge": "b-404"}), "not_blocked"),
        ("ledger.hash", json!({"epoch": nobody, "seqs": [1]}), "range_unavailable"),
    ];
    for (number, (op, args, code)) in cases.into_iter().enumerate() {
        let id = format!("c-{number}");
        let command = json!({"id": id, "op": op, "args": args, "expires": "2126-01-01T00:00:00Z"});
        site.cloud.publish_signed(Down::Command, command, false);
        let view = site.seen("a reply", |view| !view.replies_to(&id).is_empty());
        assert_eq!(view.replies_to(&id)[0]["code"], code, "{op}");
    }
    let ack = json!({"epoch": nobody, "upto": 1, "hash": "0".repeat(64),
        "issued_at": "2026-11-22T10:00:00Z"});
    site.cloud.publish_raw(Down::Ack, ack.to_string(), false);
    assert_eq!(site.status()["ledger"]["epoch"], epoch);
    assert_eq!(site.station("washer-1")["session"]["session"], before);
    assert!(site.is_closed(WASHER_COIL));
}

#[test]
fn f14_retries_count_once() {
    let mut site = Site::running();
    site.settled();
    site.cloud.withhold_acks(true);
    site.draw(DRYER_METER, 36_000);
    site.tap_to_start("Drying", &BORIS);
    site.until_in_use("dryer-1");
    site.until("some energy flows", |site| site.register(DRYER_METER) > 20);
    site.draw(DRYER_METER, 0);
    site.record("session_ended", 1);
    site.seen("the records come again and again", |view| view.usage.duplicates >= 3);

    site.cloud.withhold_acks(false);

    let view = site.settled();
    assert_eq!(records(&view, "session_ended").len(), 1);
    let ended = records(&view, "session_ended")[0];
    let meter = &view.usage.meters["meter-dryer"];
    assert!(meter.sessions_wh > 0);
    assert_eq!(Some(meter.sessions_wh), ended["energy_wh"].as_i64());
}
