//! Bad input changes nothing: it is refused with what, where and what to do, and the next tap
//! works.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use tapgate::protocol::cloud::Down;

use crate::broken::{Dice, mutated};
use crate::daemon::refused;
use crate::people::{self, ANNA, CHARGER_COIL, DRYER_METER};
use crate::site::{Site, records};

/// A config in a folder of its own, changed here and there.
fn config_with(folder: &Path, changes: &[(&str, &str)]) -> std::path::PathBuf {
    let bus = "transport = \"tcp\"\naddress = \"127.0.0.1:9\"";
    let mut text = people::config(folder, bus, 1883);
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    let file = folder.join("config.toml");
    fs::write(&file, text).expect("a config");
    file
}

/// Line and column of a text in a file, from 1.
fn place_of(file: &Path, wanted: &str) -> String {
    let text = fs::read_to_string(file).expect("the config");
    let at = text.find(wanted).expect("it is there");
    let line = text[..at].matches('\n').count() + 1;
    let column = at - text[..at].rfind('\n').map_or(0, |newline| newline + 1) + 1;
    format!("{}:{line}:{column}: ", file.display())
}

#[test]
fn a_broken_config_is_refused_with_all_its_errors() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let changes = [
        ("timezone = \"Europe/Zurich\"", "timezone = \"Europe/Zuriich\""),
        ("profile = \"waveshare-relay-8\"", "profile = \"waveshare-relay-9\""),
        ("idle_after = \"2s\"", "idle_after = 2"),
        ("switch = \"relays/relay-2\"", "switch = \"relays/relay-1\""),
        ("unit = 13", "unti = 13"),
    ];
    let file = config_with(folder.path(), &changes);

    let (code, said) = refused(&file);

    assert_eq!(code, Some(78), "{said}");
    for wrong in ["\"Europe/Zuriich\"", "\"waveshare-relay-9\"", "2\nmin_duration", "unti"] {
        let place = place_of(&file, wrong);
        assert!(said.contains(&place), "{place} in\n{said}");
    }
    assert!(said.contains("unknown key") && said.contains("waveshare-relay-8"), "{said}");
    assert!(!folder.path().join("store").exists(), "a refused start leaves nothing behind");

    fs::write(&file, "[gateway\nid = 1").expect("a config");
    let (code, said) = refused(&file);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("config.toml:1:"), "{said}");
    let (code, said) = refused(&folder.path().join("none.toml"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("none.toml"), "{said}");
}

#[test]
fn a_store_that_cannot_be_written_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("file"), "").expect("a file");
    let own = format!("{}/store/tapgate.db", folder.path().display());
    let below_a_file = format!("{}/file/tapgate.db", folder.path().display());
    for store in [below_a_file.as_str(), "/proc/tapgate/tapgate.db"] {
        let file = config_with(folder.path(), &[(&own, store)]);
        let (code, said) = refused(&file);
        assert!(matches!(code, Some(74 | 77)), "{code:?} {said}");
        let folder = Path::new(store).parent().expect("a folder").display().to_string();
        assert!(said.contains(&folder) && said.contains("check the disk"), "{said}");
    }
}

#[test]
fn a_store_of_a_newer_version_is_left_as_it_is() {
    let mut site = Site::running();
    assert_eq!(site.terminate().0.code(), Some(0));
    let store = site.path("store/tapgate.db");
    let newer = Connection::open(&store).expect("the store");
    newer.pragma_update(None, "user_version", 99).expect("a number");
    newer.close().expect("closed");
    let before = fs::read(&store).expect("the store");

    let (code, said) = refused(&site.config());

    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("written by a newer tapgate (schema 99"), "{said}");
    assert_eq!(fs::read(&store).expect("the store"), before);
}

#[test]
fn the_database_of_another_program_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = config_with(folder.path(), &[]);
    fs::create_dir(folder.path().join("store")).expect("a new directory");
    let store = folder.path().join("store/tapgate.db");
    let other = Connection::open(&store).expect("a new database");
    other.execute_batch("CREATE TABLE music (title TEXT)").expect("a table");
    other.close().expect("closed");
    let before = fs::read(&store).expect("the database");

    let (code, said) = refused(&file);

    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("another program; correct [storage] path"), "{said}");
    assert_eq!(fs::read(&store).expect("the database"), before);
}

#[test]
fn a_charger_whose_meter_is_out_of_reach_is_refused_until_it_is_back() {
    let mut site = Site::running();
    let port = site.peer.port();
    site.peer.kill();
    site.until("the bus is missed", |site| {
        site.status()["alarms"].to_string().contains("bus room cannot be opened")
    });
    let event = site.tap_in_vain("Garage", &ANNA);
    assert_eq!(
        (&event["reason"], &event["station"]),
        (&json!("out_of_service"), &json!("charger-1"))
    );

    site.peer = crate::modbus_peer::Peer::tcp(port);
    site.wire_meters();
    site.until_ready();
    let card = site.present("Drying", &ANNA);
    site.record("session_started", 1);
    drop(card);
    site.tap_to_start("Garage", &ANNA);
    site.until("the relay is closed", |site| site.is_closed(CHARGER_COIL));
}

/// What a cloud might send, wrong in one thing each, so that no mutation of it is good.
fn messages(status: &Value) -> Vec<(Down, String)> {
    let list = &status["allowlist"]["list"];
    let hash = "5".repeat(64);
    let ack = json!({"epoch": status["ledger"]["epoch"], "upto": 3, "hash": hash,
        "issued_at": "2026-11-22T10:00:00Z"});
    let head = json!({"list": list, "version": 2, "count": 4, "digest": hash,
        "issued_at": "2026-11-22T10:00:00Z", "entries": people::allowlist()});
    let parts = json!({"list": list, "version": 2, "count": 4, "digest": hash,
        "issued_at": "2026-11-22T10:00:00Z", "parts": [{"sha256": hash, "bytes": 1000}]});
    let part = json!({"sha256": hash, "i": 0, "n": 3, "data": "eyJhIjoxfQ=="});
    let command = json!({"id": "c-1", "nonce": "n", "ctr": 1, "expires": "2026-11-22T10:00:00Z",
        "op": "station.stop", "args": {"station": "washer-1", "nonsense": true}});
    vec![
        (Down::Ack, ack.to_string()),
        (Down::Allowlist, head.to_string()),
        (Down::Allowlist, parts.to_string()),
        (Down::Part, part.to_string()),
        (Down::Command, command.to_string()),
    ]
}

#[test]
fn broken_messages_from_the_cloud_change_nothing() {
    const PER_MESSAGE: usize = 100;
    let mut site = Site::running();
    site.tap_to_start("Drying", &ANNA);
    site.draw(DRYER_METER, 2_000);
    site.until_in_use("dryer-1");
    site.settled();
    let (pid, before) = (site.pid(), site.status());
    let mut dice = Dice(0x7467);
    for (down, message) in messages(&before) {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
        let special = ["", " ", "null", "[]", "\u{feff}{}", &deep, &long, &message];
        for payload in special {
            site.cloud.publish_raw(down, payload, false);
        }
        for _ in 0..PER_MESSAGE {
            site.cloud.publish_raw(down, mutated(message.as_bytes(), &mut dice), false);
        }
    }
    // They are handled in order: this one comes after all of them.
    let list = before["allowlist"]["list"].clone();
    site.cloud.publish_raw(
        Down::Allowlist,
        json!({"list": list, "version": 77}).to_string(),
        false,
    );
    let marker = json!({"list": list, "version": 0, "count": 0, "digest": "0".repeat(64),
        "issued_at": "2026-11-22T10:00:00Z", "entries": []});
    site.cloud.publish_raw(Down::Allowlist, marker.to_string(), false);
    site.seen("the last message is answered", |view| {
        let last = view.allowlist_reports.last();
        last.is_some_and(|report| report["refused"]["reason"] == "rollback")
    });

    assert_eq!(site.pid(), pid);
    let after = site.status();
    for member in ["allowlist", "readers"] {
        assert_eq!(after[member], before[member]);
    }
    assert_eq!(after["cloud"]["conn"], before["cloud"]["conn"]);
    assert_eq!(after["ledger"], before["ledger"]);
    assert_eq!(
        site.station("dryer-1")["session"]["session"],
        before["stations"][2]["session"]["session"]
    );
    let view = site.cloud.view();
    assert!(view.events_of("bad_message").count() >= 20, "{:?}", view.events);
    site.tap_to_start("Laundry", &ANNA);
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 2);
    assert_eq!(records(&view, "allowlist_applied").len(), 1);
}

#[test]
fn rubbish_on_the_control_socket_is_answered_and_holds_nobody_up() {
    let mut site = Site::running();
    let pid = site.pid();
    let connect = || UnixStream::connect(site.path("control.sock")).expect("the socket");
    // They ask nothing, and stay.
    let idle: Vec<UnixStream> = (0..6).map(|_| connect()).collect();
    let mut dice = Dice(0x636f);
    let mut rubbish: Vec<Vec<u8>> = (0..40).map(|length| dice.bytes(length * 7)).collect();
    rubbish.push(vec![b'x'; 20_000]);
    rubbish.push("[".repeat(16_000).into_bytes());
    for text in ["{}", "{\"request\":\"explode\"}", "{\"request\":\"status\",\"x\":1}", "null"] {
        rubbish.push(text.into());
    }
    for mut line in rubbish {
        // One line: what follows a newline is not read.
        line.retain(|byte| *byte != b'\n');
        line.push(b'\n');
        let mut stream = connect();
        // It may be cut off before it has said everything.
        let _ = stream.write_all(&line).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut reply = String::new();
        if stream.read_to_string(&mut reply).is_ok() {
            assert!(reply.starts_with("{\"error\":\""), "{reply} to {line:?}");
        }
    }
    for _ in 0..20 {
        drop(connect());
    }
    let (current, status) = (site.pid(), site.status());
    assert_eq!((current, &status["gateway"]), (pid, &json!("e2e-house-1")));
    drop(idle);
    site.tap_to_start("Laundry", &ANNA);
}
