//! What the real daemon publishes is what the schemas say, read by a validator of another make.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tapgate::protocol::cloud::Down;

use crate::consumer_process::python;
use crate::listener::Listener;
use crate::people::{ANNA, DAVID, DRYER_METER, STRANGER};
use crate::site::Site;

/// How many valid messages and records of each kind there were.
fn validated(listener: &Listener) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/heard.py");
    let mut check = Command::new(python())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python of .venv, made by `make python`");
    let mut heard = check.stdin.take().expect("it is piped");
    for message in listener.all() {
        let line = [message.topic.as_bytes(), b"\t", &message.payload, b"\n"].concat();
        // It may have found a fault already, and says so.
        let _ = heard.write_all(&line);
    }
    drop(heard);
    let output = check.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn everything_that_goes_up_is_as_its_schema_says() {
    let mut site = Site::running_with_keys();
    site.tap_to_start("Drying", &ANNA);
    site.draw(DRYER_METER, 36_000);
    site.until_in_use("dryer-1");
    site.tap_in_vain("Laundry", &DAVID);
    site.tap_in_vain("Laundry", &STRANGER);
    for (number, op, args) in [
        (1, "station.out_of_service", json!({"station": "washer-1", "note": "pump"})),
        (2, "allowlist.report", json!({})),
        (3, "ledger.replay", json!({"epoch": site.cloud.view().usage.epoch, "from": 1, "to": 3})),
        (4, "station.explode", json!({})),
        (5, "station.stop", json!({"station": "dryer-1", "now": true})),
    ] {
        let nonce = site.cloud.view().state.expect("a birth")["nonce"].clone();
        let id = format!("c-{number}");
        let command = json!({"id": id, "nonce": nonce, "ctr": number, "op": op, "args": args,
            "expires": "2126-11-22T10:00:00Z"});
        site.cloud.publish_signed(Down::Command, command, false);
        site.seen(op, |view| view.replies_to(&id).iter().any(|it| it["status"] != "accepted"));
    }
    site.cloud.publish_raw(Down::Ack, "{}", false);
    site.record("session_ended", 1);
    site.peer.kill();
    site.seen("a unit is down", |view| view.events_of("unit_down").count() > 0);
    site.terminate();
    site.listener
        .until("state", |heard| heard.last().is_some_and(|it| it.json()["online"] == false));

    let heard = validated(&site.listener);

    for kind in [
        "state",
        "station",
        "usage",
        "checkpoint",
        "allowlist",
        "event",
        "reply",
        "epoch_opened",
        "gateway_started",
        "meter_commissioned",
        "allowlist_applied",
        "session_started",
        "session_slot",
        "session_ending",
        "session_ended",
    ] {
        assert!(heard[kind].as_u64() > Some(0), "{kind} in {heard}");
    }
}
