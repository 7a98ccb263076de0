//! What a technician asks about badges and readers, at a running site.

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::TAPGATE;
use crate::people::{ANNA, BORIS, DAVID, PHONE, STRANGER};
use crate::site::{Site, records};

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json_of(output: &Output) -> Value {
    let (_, out, error) = said(output);
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("no JSON: {out}{error}"))
}

fn why(site: &Site, badge: &str, station: &str) -> Value {
    json_of(&site.command(&["why", badge, station, "--json"]))
}

#[test]
fn why_explains_each_decision_with_rule_entry_and_version() {
    let site = Site::running();
    for (badge, station, decision, rule, reason) in [
        ("04:a1:b2:01", "washer-1", "grant", Value::Null, Value::Null),
        ("04A1B201", "charger-1", "grant", Value::Null, Value::Null),
        ("04a1b2c3d4e502", "charger-1", "deny", json!(7), json!("not_granted")),
        ("b-4", "washer-1", "deny", json!(3), json!("badge_blocked")),
        ("04FFEE08", "washer-1", "deny", json!(2), json!("unknown_badge")),
        ("08123456", "washer-1", "deny", json!(1), json!("random_uid")),
        ("88123456", "washer-1", "deny", json!(1), json!("unreadable")),
    ] {
        let why = why(&site, badge, station);
        assert_eq!(
            (&why["decision"], &why["rule"], &why["reason"]),
            (&json!(decision), &rule, &reason),
            "{badge}"
        );
        assert_eq!(why["allowlist"]["version"], 1);
        assert_eq!(why["station"], station);
    }
    let anna = why(&site, "b-1", "washer-1");
    assert_eq!((&anna["entry"]["user"], &anna["entry"]["uid"]), (&json!("u-1"), &Value::Null));

    let (code, out, _) = said(&site.command(&["why", "04", "a1", "b2", "04", "washer-1"]));
    assert_eq!(code, Some(0));
    for shown in ["deny: badge_blocked (row 3", "b-4", "u-4", "version 1"] {
        assert!(out.contains(shown), "{shown} in\n{out}");
    }
    let desfire = ["why", "b-1", "charger-1", "--technology", "desfire", "--json"];
    assert_eq!(json_of(&site.command(&desfire))["reason"], "technology_not_accepted");
}

#[test]
fn why_judges_another_moment_and_refuses_what_does_not_exist() {
    let mut site = Site::running();
    let start = site.tap_to_start("Laundry", &ANNA);
    assert_eq!(start["user"], "u-1");
    site.until("it is hers", |site| why(site, "b-1", "washer-1")["decision"] == "yours_running");
    assert_eq!(why(&site, "b-2", "washer-1")["reason"], "occupied");

    let at = ["why", "b-1", "dryer-1", "--at", "2031-01-02T03:04:05Z", "--json"];
    let later = json_of(&site.command(&at));
    assert_eq!((&later["decision"], &later["clock"]), (&json!("grant"), &json!("synced")));
    assert!(later["at"].as_str().is_some_and(|at| at.starts_with("2031-01-02T03:04:05")));

    for (arguments, hint) in [
        (["why", "04A1B2", "washer-1"], "readers watch"),
        (["why", "213,02000", "washer-1"], "readers watch"),
        (["why", "b-1", "washer-9"], "washer-1"),
        (["why", "b-99", "washer-1"], "b-99"),
    ] {
        let (code, out, error) = said(&site.command(&arguments));
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}: {error}");
        assert!(error.contains(hint), "{error}");
    }
    let (code, _, error) = said(&site.command(&["why", "b-1", "washer-1", "--at", "soon"]));
    assert_eq!(code, Some(64), "{error}");
}

#[test]
fn a_blocked_badge_is_dead_at_once_and_after_a_restart_until_it_is_unblocked() {
    let mut site = Site::running();
    let (code, out, error) = said(&site.command(&["badge", "block", "04:a1:b2:01"]));
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("badge b-1 is blocked"), "{out}");
    let record = site.record("badge_override", 1);
    assert_eq!((&record["badge"], &record["action"]), (&json!("b-1"), &json!("blocked")));
    assert!(record["by"].as_str().is_some_and(|by| by.starts_with("technician")), "{record}");
    assert_eq!(site.tap_in_vain("Laundry", &ANNA)["reason"], "badge_blocked");

    site.kill9();
    site.start_again();
    assert_eq!(site.tap_in_vain("Laundry", &ANNA)["reason"], "badge_blocked");
    let shown = json_of(&site.command(&["badge", "show", "b-1", "--json"]));
    let status = (&shown["local_block"], &shown["entry"]["status"]);
    assert_eq!(status, (&json!(true), &json!("active")));

    let (code, out, error) = said(&site.command(&["badge", "unblock", "04A1B201"]));
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("b-1 is lifted"), "{out}");
    assert_eq!(site.record("badge_override", 2)["action"], "cleared");
    assert_eq!(site.tap_to_start("Drying", &ANNA)["badge"], "b-1");

    // What the list blocks is not the technician's to lift, and what is not blocked is not either.
    for (badge, hint) in [("b-4", "by the allowlist"), ("b-2", "not blocked locally")] {
        let (code, _, error) = said(&site.command(&["badge", "unblock", badge]));
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains(hint), "{error}");
    }
    let (code, _, error) = said(&site.command(&["badge", "block", "08123456"]));
    assert_eq!(code, Some(64), "{error}");
    assert_eq!(records(&site.settled(), "badge_override").len(), 2);
    let log = site.log();
    assert!(log.contains("blocked locally by user"), "{log}");
    assert!(!log.to_uppercase().contains("04A1B201") && !log.contains("04:a1:b2:01"), "{log}");
}

#[test]
fn a_number_is_found_in_the_forms_in_which_owners_write_it() {
    let site = Site::running();
    // 04A1B201: reversed, in decimal, reversed in decimal, with its check byte.
    for typed in ["01B2A104", "0077705729", "0028483844", "04A1B20116", "0118545569"] {
        let shown = json_of(&site.command(&["badge", "show", typed, "--json"]));
        let named = shown["entry"]["badge"] == "b-1"
            || shown["hints"].to_string().contains("that of badge b-1");
        assert!(named, "{typed}: {shown}");
    }
    let (code, out, _) = said(&site.command(&["badge", "show", "04:a1:b2:01"]));
    assert_eq!(code, Some(0));
    for shown in ["04A1B201", "01B2A104", "0077705729", "0028483844", "161,45569", "washer-1 grant"]
    {
        assert!(out.contains(shown), "{shown} in\n{out}");
    }
    let (code, out, _) = said(&site.command(&["badge", "list"]));
    assert_eq!(code, Some(0));
    assert_eq!(out.lines().count(), 4, "{out}");
    assert!(!out.to_uppercase().contains("04A1B2"), "no UIDs in\n{out}");
    let list = json_of(&site.command(&["badge", "list", "--json"]));
    let badges: Vec<&Value> =
        list.as_array().expect("a list").iter().map(|known| &known["entry"]["badge"]).collect();
    assert_eq!(badges, ["b-1", "b-4", "b-2", "b-7"], "in order of their UIDs");
    assert!(!list.to_string().contains("uid"), "{list}");
    let blocked = json_of(&site.command(&["badge", "list", "--blocked", "--json"]));
    assert_eq!(blocked[0]["entry"]["badge"], "b-4");
    assert_eq!(blocked.as_array().map(Vec::len), Some(1));
}

#[test]
fn readers_are_listed_with_their_bindings() {
    let mut site = Site::running();
    let output = site.command(&["readers", "--json"]);
    let report = json_of(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let laundry = &report["readers"][0];
    assert_eq!(laundry["state"], "ready");
    assert_eq!(laundry["binding"], "name = \"Laundry 00 00\"");
    assert_eq!(laundry["stations"], json!(["washer-1"]));
    let present = report["present"].as_array().expect("readers");
    let find = |name: &str| present.iter().find(|it| it["name"] == name).expect("listed");
    assert_eq!(find("Laundry 00 00")["reader"], "laundry");
    assert_eq!(find("Laundry 00 01")["reader"], Value::Null);

    site.pcscd.kill();
    site.until("the readers are lost", |site| {
        let output = site.command(&["readers"]);
        let (code, out, _) = said(&output);
        code == Some(1) && out.contains("missing") && out.contains("pcscd")
    });
}

#[test]
fn watching_the_readers_shows_each_card_with_its_numbers_and_its_standing() {
    let site = Site::running();
    let config = site.config();
    let watcher = || {
        let mut command = Command::new(TAPGATE);
        command.args(["readers", "watch", "--json", "--config"]).arg(&config).arg("--once");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program runs")
    };
    for (reader, card, technology, badge) in [
        ("Garage", &BORIS, "mifare-classic-1k", json!("b-2")),
        ("Laundry", &DAVID, "mifare-classic-1k", json!("b-4")),
        ("Laundry", &STRANGER, "mifare-classic-1k", Value::Null),
        ("Drying", &PHONE, "desfire", Value::Null),
    ] {
        let mut watching = watcher();
        // The card is tapped until the watch has begun and ended with it.
        while watching.try_wait().expect("a child").is_none() {
            let card = site.present(reader, card);
            thread::sleep(Duration::from_millis(300));
            card.remove();
            thread::sleep(Duration::from_millis(1_100));
        }
        let output = watching.wait_with_output().expect("a child");
        let tap = json_of(&output);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(tap["reader"], reader.to_lowercase());
        assert_eq!(tap["technology"], technology);
        assert_eq!(tap["badge"]["uid"], hex::encode_upper(card.uid));
        assert_eq!(tap["badge"]["entry"]["badge"], badge, "{tap}");
        assert!(tap["badge"]["renderings"].as_array().is_some_and(|all| all.len() > 10));
        assert_eq!(tap["badge"]["stations"][0]["decision"], "deny", "{tap}");
    }
}

#[test]
fn every_question_without_a_daemon_says_how_to_start_it() {
    let site = Site::ready_to_start();
    let questions: [&[&str]; 7] = [
        &["why", "04A1B201", "washer-1"],
        &["badge", "show", "04A1B201"],
        &["badge", "list"],
        &["badge", "block", "04A1B201"],
        &["badge", "unblock", "04A1B201"],
        &["readers"],
        &["readers", "watch"],
    ];
    for question in questions {
        let (code, out, error) = said(&site.command(question));
        assert_eq!((code, out.as_str()), (Some(69), ""), "{question:?}: {error}");
        assert!(error.contains("systemctl start tapgate"), "{error}");
    }
}
