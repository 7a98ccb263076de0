//! Allowlists that come down: taken whole, or refused with a reason while the old one decides.

use serde_json::{Value, json};
use tapgate::demo::cloud::digest;
use tapgate::protocol::cloud::Down;

use crate::people::{self, ANNA, BORIS, CHARGER_COIL, DAVID, GINA, STRANGER, allowlist, entry};
use crate::site::Site;

/// The list that the site started with; everything below is judged against it.
fn current(site: &Site) -> Value {
    site.status()["allowlist"].clone()
}

fn head(list: &Value, version: u64, entries: Vec<Value>) -> Value {
    json!({
        "list": list, "version": version, "count": entries.len(), "digest": digest(&entries),
        "issued_at": "2026-11-22T10:00:00Z", "entries": entries,
    })
}

fn with(mut head: Value, member: &str, value: Value) -> Value {
    head[member] = value;
    head
}

/// Publishes a head and gives what the gateway makes of it.
fn answer(site: &Site, publish: impl FnOnce(&Site)) -> Value {
    let before = site.cloud.view().allowlist_reports.len();
    publish(site);
    let view = site.seen("an answer to the list", |view| view.allowlist_reports.len() > before);
    view.allowlist_reports[before].clone()
}

fn report(site: &Site, head: &Value) -> Value {
    answer(site, |site| site.cloud.push_head(head.clone()))
}

/// One entry more than the list of the site, so that the stranger is somebody.
fn with_stranger(status: &str) -> Vec<Value> {
    let mut entries = allowlist();
    entries.push(entry("b-9", &STRANGER, status, json!(["*"])));
    entries
}

/// Heads that are refused, by the reason.
fn refusals(list: &Value) -> Vec<(&'static str, Value)> {
    let good = || head(list, 2, with_stranger("active"));
    let replaced = |at: usize, member: &str, value: Value| {
        let mut entries = with_stranger("active");
        entries[at][member] = value;
        head(list, 2, entries)
    };
    let mut without_user = with_stranger("active");
    drop(without_user[4].as_object_mut().expect("an entry").remove("user"));
    vec![
        ("bad_message", with(good(), "digest", json!("00"))),
        ("bad_message", with(good(), "version", json!("2"))),
        ("bad_message", with(good(), "entries", Value::Null)),
        ("bad_message", with(good(), "parts", json!([]))),
        ("other_list", with(good(), "list", json!("6f0c1c38-5a43-4f0c-9d6e-0d9a4f7f2b11"))),
        ("rollback", with(good(), "version", json!(0))),
        ("equivocation", with(good(), "version", json!(1))),
        ("bad_entry", head(list, 2, without_user)),
        ("bad_entry", replaced(4, "uid", json!("04ffee08"))),
        ("bad_entry", replaced(4, "status", json!("lost"))),
        ("bad_entry", replaced(4, "grants", json!("*"))),
        ("duplicate", replaced(4, "badge", json!("b-1"))),
        ("duplicate", replaced(4, "uid", json!(hex::encode_upper(ANNA.uid)))),
        ("count_mismatch", with(good(), "count", json!(4))),
        ("digest_mismatch", with(good(), "digest", json!("0".repeat(64)))),
        ("shrink", head(list, 2, vec![])),
    ]
}

#[test]
fn a_refused_list_changes_nothing_and_the_cloud_is_told_why() {
    let mut site = Site::running();
    let decides = current(&site);
    for (reason, head) in refusals(&decides["list"]) {
        let report = report(&site, &head);
        assert_eq!(report["refused"]["reason"], reason, "{report} to {head}");
        assert_eq!(report["current"], decides, "{report}");
        assert!(!site.listener.has_heard("04FFEE08"), "a detail names a UID: {report}");
    }
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(65_536));
    for payload in ["{}", "[]", "no list at all", long.as_str()] {
        let report = answer(&site, |site| site.cloud.publish_raw(Down::Allowlist, payload, false));
        let refused = (&report["refused"]["reason"], &report["current"]);
        assert_eq!(refused, (&json!("bad_message"), &decides), "{payload:.20}");
    }
    assert_eq!(current(&site), decides);
    assert_eq!(site.tap_in_vain("Laundry", &STRANGER)["reason"], "unknown_badge");

    let head = head(&decides["list"], 2, with_stranger("active"));
    assert_eq!(report_of_applied(&site, &head), 2);
    site.tap_to_start("Drying", &STRANGER);
    site.settled();
}

fn report_of_applied(site: &Site, head: &Value) -> Value {
    let report = report(site, head);
    assert_eq!(report["applied"], current(site), "{report}");
    report["applied"]["version"].clone()
}

#[test]
fn the_same_head_again_is_confirmed_again() {
    let mut site = Site::running();
    let decides = current(&site);
    let again = head(&decides["list"], 1, allowlist());
    for _ in 0..2 {
        assert_eq!(report(&site, &again), json!({"applied": decides}));
    }
    let before = site.cloud.view().allowlist_reports.len();
    site.kill9();
    site.start_again();
    let view = site.seen("confirmed after a restart", |view| view.allowlist_reports.len() > before);
    assert_eq!(view.allowlist_reports[before], json!({"applied": decides}));
    let view = site.settled();
    assert_eq!(crate::site::records(&view, "allowlist_applied").len(), 1);
}

#[test]
fn another_list_takes_over_only_when_it_says_which_it_replaces() {
    let mut site = Site::running();
    let decides = current(&site);
    let new = json!("6f0c1c38-5a43-4f0c-9d6e-0d9a4f7f2b11");
    let replacing =
        with(head(&new, 1, with_stranger("active")), "replaces", decides["list"].clone());

    assert_eq!(report_of_applied(&site, &replacing), 1);

    assert_eq!(current(&site)["list"], new);
    site.tap_to_start("Laundry", &STRANGER);
    site.settled();
}

#[test]
fn an_emptied_list_is_a_list_when_the_cloud_means_it() {
    let mut site = Site::running();
    let decides = current(&site);
    let empty = with(head(&decides["list"], 2, vec![]), "allow_shrink", json!(true));
    assert_eq!(report_of_applied(&site, &empty), 2);
    for card in [ANNA, BORIS, DAVID, GINA] {
        assert_eq!(site.tap_in_vain("Laundry", &card)["reason"], "unknown_badge");
    }
    site.settled();
}

#[test]
fn a_badge_that_is_blocked_while_it_charges_loses_power_and_stays_dead_offline() {
    let mut site = Site::running();
    let decides = current(&site);
    let start = site.tap_to_start("Garage", &ANNA);
    site.draw(people::CHARGER_METER, 11_000);
    site.until_in_use("charger-1");
    let mut entries = allowlist();
    entries[0]["status"] = json!("blocked");
    entries[0]["blocked_reason"] = json!("lost");

    assert_eq!(report_of_applied(&site, &head(&decides["list"], 2, entries)), 2);

    let end = site.record("session_ended", 1);
    assert_eq!((&end["session"], &end["reason"]), (&start["session"], &json!("revoked")));
    assert!(!site.is_closed(CHARGER_COIL));
    assert_eq!(site.tap_in_vain("Laundry", &ANNA)["reason"], "badge_blocked");
    site.settled();
    // No cloud and a power cut: the list on disk decides.
    site.kill9();
    site.broker.kill9();
    site.start();
    site.until("the reader is there", |site| site.status()["readers"][0]["state"] == "ready");
    let card = site.present("Laundry", &ANNA);
    site.until("the tap is refused", |site| site.log().matches("badge_blocked").count() >= 2);
    card.remove();
}
