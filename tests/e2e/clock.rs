//! What only a clock that is synchronised lets happen: commands expire, old records are pruned.

use std::process::Command;

use serde_json::{Value, json};
use tapgate::protocol::cloud::Down;

use crate::people::{ANNA, DRYER_METER};
use crate::site::{Site, records};

const YEAR_S: u64 = 365 * 86_400;

/// The daemon's next start sees a synchronised clock, so many seconds ahead.
fn set_clock(site: &mut Site, ahead_s: u64) {
    let library = site.path("clock.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/clock.c"))
        .status()
        .expect("a C compiler is installed");
    assert!(built.success());
    site.prelude = format!("export LD_PRELOAD='{}' CLOCK_AHEAD_S={ahead_s}", library.display());
}

fn start(site: &mut Site, ahead_s: u64) {
    set_clock(site, ahead_s);
    site.start();
    site.until_ready();
    assert_eq!(site.status()["clock"], "synced");
}

fn ledger(site: &Site) -> Vec<Value> {
    let output = site.command(&["ledger", "list", "--json", "--from", "1", "--limit", "1000"]);
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("a JSON array")
}

#[test]
fn a_command_counts_until_it_expires() {
    let mut site = Site::ready_to_start();
    site.sign(&[7; 32]);
    start(&mut site, 0);
    let send = |id: &str, ctr: u64, expires: &str| {
        let nonce = site.cloud.view().state.expect("a birth")["nonce"].clone();
        let content = json!({"id": id, "nonce": nonce, "ctr": ctr, "op": "station.out_of_service",
            "args": {"station": "dryer-1"}, "expires": expires});
        let answers = site.cloud.view().replies_to(id).len();
        site.cloud.publish_signed(Down::Command, content, false);
        let view = site.seen("its answer", |view| view.replies_to(id).len() > answers);
        view.replies_to(id)[answers].clone()
    };

    let late = send("c-1", 1, "2026-01-01T00:00:00Z");
    assert_eq!((&late["status"], &late["code"]), (&json!("rejected"), &json!("expired")), "{late}");
    let again = send("c-1", 2, "2126-01-01T00:00:00Z");
    assert_eq!(again["code"], "expired", "an id has one answer: {again}");
    let good = send("c-2", 3, "2126-01-01T00:00:00Z");
    assert_eq!(good["status"], "done", "{good}");
    // The counter of a command that had expired is spent.
    let stale = send("c-3", 1, "2126-01-01T00:00:00Z");
    assert_eq!(stale["code"], "stale", "{stale}");
    let event = site.tap_in_vain("Drying", &ANNA);
    assert_eq!(event["reason"], "out_of_service");
}

#[test]
fn acknowledged_records_go_after_their_retention_and_nothing_else_does() {
    let mut site = Site::ready_to_start();
    start(&mut site, 0);
    site.draw(DRYER_METER, 2_000);
    site.tap_to_start("Drying", &ANNA);
    site.until_in_use("dryer-1");
    site.draw(DRYER_METER, 0);
    site.record("session_ended", 1);
    let kept = site.settled().usage.records.len() as u64;
    site.kill9();

    // Not yet old enough.
    start(&mut site, YEAR_S);
    assert_eq!(ledger(&site)[0]["seq"], 1);
    site.settled();
    site.kill9();

    start(&mut site, 2 * YEAR_S);
    site.until("the old ones are gone", |site| ledger(site)[0]["seq"] != 1);
    let left = ledger(&site);
    // The last acknowledgement may have come after the pruning, and then counts for the next one.
    assert!(left[0]["seq"].as_u64().is_some_and(|seq| seq <= kept + 1), "{}", left[0]);
    let verdict = site.command(&["ledger", "verify"]);
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stdout));
    // The cloud has everything once, and what comes is counted on.
    site.draw(DRYER_METER, 2_000);
    site.tap_to_start("Drying", &ANNA);
    site.until_in_use("dryer-1");
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 2);
    assert_eq!(view.usage.conflicts, Vec::<String>::new());
}
