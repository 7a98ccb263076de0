//! Commands of the operator, over a real broker: each acts once, and safety comes first.

use serde_json::{Value, json};
use tapgate::protocol::cloud::Down;

use crate::people::{ANNA, CHARGER_COIL, DRYER_METER, WASHER_COIL, WASHER_METER};
use crate::site::{Site, records};

/// Sends a command on the connection that is up.
fn command(site: &mut Site, id: &str, ctr: u64, op: &str, args: Value) {
    let nonce = site.cloud.view().state.expect("a birth")["nonce"].clone();
    let content = json!({"id": id, "nonce": nonce, "ctr": ctr, "op": op, "args": args,
        "expires": "2126-11-22T10:00:00Z"});
    site.cloud.publish_signed(Down::Command, content, false);
}

/// Waits for the last reply to a command: one that is not `accepted`.
fn answer(site: &Site, id: &str) -> Value {
    let over = |reply: &&Value| reply["status"] != "accepted";
    let view =
        site.seen(&format!("the answer to {id}"), |view| view.replies_to(id).iter().any(over));
    view.replies_to(id).into_iter().find(over).expect("just seen").clone()
}

fn ask(site: &mut Site, id: &str, ctr: u64, op: &str, args: Value) -> Value {
    command(site, id, ctr, op, args);
    answer(site, id)
}

fn word<'a>(reply: &'a Value, member: &str) -> &'a str {
    reply[member].as_str().unwrap_or_default()
}

#[test]
fn an_operator_starts_and_stops_a_station_once() {
    let mut site = Site::running_with_keys();
    let start = json!({"station": "washer-1", "user": "u-9"});

    let reply = ask(&mut site, "c-1", 1, "station.start", start.clone());

    assert_eq!(word(&reply, "status"), "done", "{reply}");
    site.until("the relay is closed", |site| site.is_closed(WASHER_COIL));
    let started = site.record("session_started", 1);
    assert_eq!(
        (&started["user"], &started["authorised_by"], &started["session"]),
        (&json!("u-9"), &json!("command"), &reply["data"]["session"])
    );

    // The same command again, as a broker may deliver it: the same reply, and nothing else.
    let replies = site.cloud.view().replies_to("c-1").len();
    command(&mut site, "c-1", 1, "station.start", start.clone());
    let view = site.seen("the reply again", |view| view.replies_to("c-1").len() > replies);
    assert_eq!(view.replies_to("c-1").last(), Some(&&reply));
    let second = ask(&mut site, "c-2", 2, "station.start", start);
    assert_eq!((word(&second, "status"), word(&second, "code")), ("rejected", "occupied"));
    assert_eq!(records(&site.settled(), "session_started").len(), 1);

    // A washer under load is not cut: the stop waits for its idle moment.
    site.draw(WASHER_METER, 2_000);
    site.until_in_use("washer-1");
    command(&mut site, "c-3", 3, "station.stop", json!({"station": "washer-1"}));
    let view = site.seen("it is accepted", |view| !view.replies_to("c-3").is_empty());
    assert_eq!(view.replies_to("c-3")[0]["status"], "accepted");
    assert!(site.is_closed(WASHER_COIL), "no load is cut");
    site.kill9();
    site.start_again();
    assert!(site.is_closed(WASHER_COIL), "nor by a restart");
    site.draw(WASHER_METER, 0);
    assert_eq!(word(&answer(&site, "c-3"), "status"), "done");
    let ended = site.record("session_ended", 1);
    assert_eq!(ended["reason"], "remote");
    site.until("the relay is open", |site| !site.is_closed(WASHER_COIL));
}

#[test]
fn a_reply_survives_a_restart_and_is_sent_again() {
    let mut site = Site::running_with_keys();
    let mark = json!({"station": "dryer-1", "note": "drum broken"});
    let reply = ask(&mut site, "c-1", 1, "station.out_of_service", mark.clone());
    assert_eq!(word(&reply, "status"), "done");
    site.seen("the portal shows it", |view| {
        view.stations["dryer-1"]["state"] == "out_of_service"
            && view.stations["dryer-1"]["note"] == "drum broken"
    });

    site.kill9();
    site.start_again();

    site.seen("it is still out", |view| view.stations["dryer-1"]["state"] == "out_of_service");
    let event = site.tap_in_vain("Drying", &ANNA);
    assert_eq!(event["reason"], "out_of_service");
    let refused =
        ask(&mut site, "c-2", 1, "station.start", json!({"station": "dryer-1", "user": "u-1"}));
    assert_eq!(word(&refused, "code"), "out_of_service");
    let replies = site.cloud.view().replies_to("c-1").len();
    command(&mut site, "c-1", 2, "station.out_of_service", mark);
    let view = site.seen("the reply again", |view| view.replies_to("c-1").len() > replies);
    assert_eq!(view.replies_to("c-1").last(), Some(&&reply));
    let back = ask(&mut site, "c-3", 3, "station.in_service", json!({"station": "dryer-1"}));
    assert_eq!(word(&back, "status"), "done");
    site.seen("it is back", |view| view.stations["dryer-1"]["state"] == "available");
    let unknown = ask(&mut site, "c-4", 4, "station.in_service", json!({"station": "sauna"}));
    assert_eq!(word(&unknown, "code"), "unknown_station");
}

#[test]
fn old_foreign_and_unknown_commands_are_rejected() {
    let mut site = Site::running_with_keys();
    let args = json!({"station": "charger-1", "user": "u-1"});
    assert_eq!(word(&ask(&mut site, "c-1", 5, "state.report", json!({})), "status"), "done");

    for (id, ctr) in [("c-2", 5), ("c-3", 4)] {
        let reply = ask(&mut site, id, ctr, "station.start", args.clone());
        assert_eq!((word(&reply, "status"), word(&reply, "code")), ("rejected", "stale"));
        let nonce = site.cloud.view().state.expect("a birth")["nonce"].clone();
        assert_eq!(reply["data"]["nonce"], nonce);
    }
    let other = json!({"id": "c-4", "nonce": "of-another-connection", "ctr": 99,
        "expires": "2126-11-22T10:00:00Z", "op": "station.start", "args": args});
    site.cloud.publish_signed(Down::Command, other, false);
    assert_eq!(word(&answer(&site, "c-4"), "code"), "stale");
    // With the right nonce, the rejected one is a new command.
    let unknown = ask(&mut site, "c-4", 6, "station.explode", args.clone());
    assert_eq!(word(&unknown, "code"), "stale", "the first reply of all: {unknown}");
    site.seen("then the operation is looked at", |view| {
        view.replies_to("c-4").iter().any(|reply| reply["code"] == "unknown_op")
    });
    assert!(!site.is_closed(CHARGER_COIL));
    assert_eq!(records(&site.settled(), "session_started").len(), 0);
}

#[test]
fn a_remote_start_obeys_the_rules_of_a_tap() {
    let mut site = Site::running_with_keys();
    let cases = [
        ("b-4", "washer-1", "badge_blocked"),
        ("b-9", "washer-1", "unknown_badge"),
        ("b-2", "charger-1", "not_granted"),
        ("b-1", "sauna", "unknown_station"),
    ];
    for (number, (badge, station, code)) in (1..).zip(cases) {
        let id = format!("c-{number}");
        let args = json!({"station": station, "user": badge.replace('b', "u"), "badge": badge});
        let reply = ask(&mut site, &id, number, "station.start", args);
        assert_eq!((word(&reply, "status"), word(&reply, "code")), ("rejected", code), "{badge}");
    }
    let args = json!({"station": "charger-1", "user": "u-1", "badge": "b-1"});
    assert_eq!(word(&ask(&mut site, "c-5", 5, "station.start", args), "status"), "done");
    assert_eq!(site.record("session_started", 1)["badge"], "b-1");
    let stop = json!({"session": site.record("session_started", 1)["session"]});
    assert_eq!(word(&ask(&mut site, "c-6", 6, "station.stop", stop.clone()), "status"), "done");
    assert_eq!(site.record("session_ended", 1)["reason"], "remote");
    assert_eq!(word(&ask(&mut site, "c-7", 7, "station.stop", stop), "code"), "no_session");
}

#[test]
fn without_keys_nobody_starts_a_station_remotely() {
    let mut site = Site::running();
    let args = json!({"station": "washer-1", "user": "u-1"});
    let reply = ask(&mut site, "c-1", 1, "station.start", args);
    assert_eq!((word(&reply, "status"), word(&reply, "code")), ("rejected", "unsigned"));
    let report = ask(&mut site, "c-2", 1, "allowlist.report", json!({}));
    assert_eq!(report["data"]["current"]["version"], 1, "the rest works");

    site.tap_to_start("Drying", &ANNA);
    site.draw(DRYER_METER, 2_000);
    site.until_in_use("dryer-1");
    let stop = json!({"station": "dryer-1", "now": true});
    assert_eq!(word(&ask(&mut site, "c-3", 1, "station.stop", stop), "status"), "done");
    site.record("session_ended", 1);
}

#[test]
fn the_ledger_is_replayed_and_its_hashes_are_told() {
    let mut site = Site::running_with_keys();
    let view = site.settled();
    let epoch = view.usage.epoch.clone();
    let head = view.usage.records.len() as u64;

    let args = json!({"epoch": epoch, "from": 2, "to": head});
    assert_eq!(word(&ask(&mut site, "c-1", 1, "ledger.replay", args), "status"), "done");

    let replayed: Vec<Value> = site
        .listener
        .until("usage", |heard| heard.iter().any(|batch| batch.json()["replay"] == true))
        .iter()
        .map(crate::listener::Message::json)
        .filter(|it| it["replay"] == true)
        .collect();
    assert_eq!(replayed[0]["first"], 2);
    assert_eq!(replayed.last().expect("one")["last"], head);
    assert_eq!(site.cloud.view().usage.conflicts, Vec::<String>::new());

    let args = json!({"epoch": epoch, "seqs": [0, head]});
    let hashes = ask(&mut site, "c-2", 2, "ledger.hash", args)["data"]["hashes"].clone();
    assert_eq!(hashes[0], json!({"seq": 0, "hash": "0".repeat(64)}));
    assert_eq!(hashes[1]["hash"].as_str().map(str::len), Some(64));
    for (id, ctr, op, args) in [
        ("c-3", 3, "ledger.hash", json!({"epoch": epoch, "seqs": [head + 1_000]})),
        ("c-4", 4, "ledger.replay", json!({"epoch": epoch, "from": 1, "to": head + 1_000})),
        ("c-5", 5, "ledger.replay", json!({"epoch": epoch, "from": 0, "to": 1})),
        ("c-6", 6, "ledger.replay", json!({"epoch": "another", "from": 1, "to": 1})),
    ] {
        let reply = ask(&mut site, id, ctr, op, args);
        assert_eq!(
            (word(&reply, "status"), word(&reply, "code")),
            ("rejected", "range_unavailable")
        );
    }
    let level = json!({"level": "trace", "for": "1m"});
    assert_eq!(word(&ask(&mut site, "c-7", 7, "log.level", level), "status"), "done");
    site.tap_to_start("Laundry", &ANNA);
    site.until("more is logged", |site| site.log().contains("DEBUG"));
    let clear = json!({"badge": "b-1"});
    let reply = ask(&mut site, "c-8", 8, "badge.override.clear", clear);
    assert_eq!(word(&reply, "code"), "not_blocked");
}

/// As if the records up to `last` were older than their retention.
fn prune(site: &Site, last: u64) {
    let ledger = rusqlite::Connection::open(site.path("store/tapgate.db")).expect("opens");
    let sql = format!(
        "UPDATE ledger SET floor = {last} + 1,
             floor_hash = (SELECT hash FROM record WHERE seq = {last});
         DELETE FROM record WHERE seq <= {last};"
    );
    ledger.execute_batch(&sql).expect("acknowledged records");
}

#[test]
fn what_is_no_longer_kept_is_told_and_the_rest_is_sent_again() {
    let mut site = Site::running_with_keys();
    let epoch = site.settled().usage.epoch;
    site.terminate();
    prune(&site, 3);
    site.start_again();
    site.settled();
    let heard = site.listener.on("usage").len();

    // The cloud restored a backup from before.
    site.cloud.forget(1);

    let view = site.seen("the gap", |view| view.events_of("ledger_gap").count() > 0);
    let gap = view.events_of("ledger_gap").next().expect("just seen").clone();
    assert_eq!((&gap["from"], &gap["to"]), (&json!(2), &json!(3)));
    site.listener
        .until("usage", |batches| batches[heard..].iter().any(|it| it.json()["first"] == 4));
    let unavailable = ("rejected".to_owned(), "range_unavailable".to_owned());
    for (number, op, args, available) in [
        (1, "ledger.replay", json!({"epoch": epoch, "from": 3, "to": 5}), false),
        (2, "ledger.replay", json!({"epoch": epoch, "from": 4, "to": 5}), true),
        (3, "ledger.hash", json!({"epoch": epoch, "seqs": [2]}), false),
        (4, "ledger.hash", json!({"epoch": epoch, "seqs": [3, 4]}), true),
    ] {
        let reply = ask(&mut site, &format!("c-{number}"), number, op, args);
        let outcome = (word(&reply, "status").to_owned(), word(&reply, "code").to_owned());
        assert_eq!(outcome != unavailable, available, "{reply}");
        assert_eq!(word(&reply, "status") == "done", available, "{reply}");
    }
}

#[test]
fn a_checkpoint_is_signed_by_the_key_that_the_state_names() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let site = Site::running();
    let view = site.seen("a checkpoint", |view| view.checkpoint.is_some());
    let jws = view.checkpoint.expect("just seen");
    let key = view.state.expect("a birth")["public_key"].as_str().expect("a key").to_owned();
    let key = URL_SAFE_NO_PAD.decode(&key).expect("base64url").try_into().expect("32 bytes");
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).expect("a key");
    let (signed, signature) = jws.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let signature = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
    key.verify_strict(signed.as_bytes(), &signature).expect("signed by the gateway");
    let payload = signed.split_once('.').expect("two parts").1;
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let checkpoint: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(
        (&checkpoint["gw"], &checkpoint["typ"]),
        (&json!("e2e-house-1"), &json!("checkpoint"))
    );
    for meter in checkpoint["meters"].as_array().expect("meters") {
        let number = |member: &str| meter[member].as_i64().expect("a number");
        let accounts = ["sessions_wh", "open_wh", "unattributed_wh"].map(number);
        assert_eq!(number("last_wh") - number("first_wh"), accounts.iter().sum::<i64>());
    }
}
