//! What the cloud gets: every record once, in a chain that anyone can verify, and a retained state
//! that is true.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::listener::{Listener, Message};
use crate::people::{ANNA, BORIS};
use crate::site::{Site, records};

/// A session that ends by itself, recorded but not waited for in the cloud.
fn use_the_dryer(site: &mut Site) {
    let head = |site: &Site| site.status()["ledger"]["head"].as_u64();
    let before = head(site).expect("a ledger");
    let card = site.present("Drying", &BORIS);
    // Started, ending, ended.
    site.until("a whole session is on record", |site| head(site) >= Some(before + 3));
    card.remove();
}

fn acked(site: &Site) -> u64 {
    site.status()["ledger"]["acked"].as_u64().expect("a ledger")
}

fn records_in(batch: &Value) -> impl Iterator<Item = &str> {
    batch["records"].as_array().expect("records").iter().map(|it| it.as_str().expect("a string"))
}

#[test]
fn the_chain_of_hashes_can_be_verified_by_anyone() {
    let mut site = Site::running();
    use_the_dryer(&mut site);
    site.settled();
    site.kill9();
    site.start_again();
    use_the_dryer(&mut site);
    let view = site.settled();

    let mut hash = [0_u8; 32];
    let mut next = 1;
    for batch in site.listener.on("usage").iter().map(Message::json) {
        assert!(batch["first"].as_u64() <= Some(next), "a gap before {batch}");
        for (number, record) in
            (batch["first"].as_u64().expect("a number")..).zip(records_in(&batch))
        {
            if number < next {
                continue;
            }
            if number == batch["first"] {
                assert_eq!(batch["prev"], hex::encode(hash), "before record {number}");
            }
            let parsed: Value = serde_json::from_str(record).expect("JSON");
            assert_eq!(parsed["seq"], number);
            let chained = [b"tapgate-ledger-1".as_slice(), &hash, record.as_bytes()].concat();
            hash = Sha256::digest(chained).into();
            next += 1;
        }
        assert_eq!(batch["replay"], false);
        assert_eq!(batch["epoch"], view.usage.epoch.as_str());
    }
    assert_eq!(next - 1, view.usage.records.len() as u64);
    // The last acknowledgement held this hash, and the gateway agreed.
    assert_eq!(acked(&site), next - 1);
    assert_eq!(records(&view, "gateway_started").len(), 2);
}

#[test]
fn records_that_are_not_acknowledged_come_again_and_count_once() {
    let mut site = Site::running();
    let settled = site.settled().usage.records.len() as u64;
    site.cloud.withhold_acks(true);
    use_the_dryer(&mut site);
    let view = site.seen("the records come again", |view| {
        view.usage.duplicates >= 3 && records(view, "session_ended").len() == 1
    });
    assert_eq!(acked(&site), settled);
    assert_eq!(records(&view, "session_started").len(), 1);

    site.cloud.withhold_acks(false);

    site.settled();
}

#[test]
fn a_cloud_that_restored_a_backup_gets_again_what_it_lost() {
    let mut site = Site::running();
    use_the_dryer(&mut site);
    let before = site.settled().usage.records;

    site.cloud.forget(2);

    site.seen("the lost records come again", |view| view.usage.records.len() == before.len());
    assert_eq!(site.settled().usage.records, before);
}

#[test]
fn an_acknowledgement_of_another_history_is_ignored() {
    let mut site = Site::running();
    let settled = site.settled().usage.records.len() as u64;
    site.cloud.withhold_acks(true);
    use_the_dryer(&mut site);
    site.record("session_ended", 1);

    site.cloud.ack_wrongly(settled + 1, [7; 32]);
    site.seen("the alarm", |view| view.events_of("ledger_fork").count() == 1);
    site.cloud.ack_wrongly(settled + 1_000, [7; 32]);
    site.seen("another alarm", |view| view.events_of("ledger_fork").count() == 2);
    assert_eq!(acked(&site), settled);

    site.cloud.withhold_acks(false);
    let view = site.settled();
    assert_eq!(records(&view, "session_ended").len(), 1);
}

#[test]
fn the_retained_state_is_true_while_the_daemon_lives_and_after_its_death() {
    let mut site = Site::running();
    site.listener.until("state", |heard| {
        heard.last().is_some_and(|state| state.json()["allowlist"]["version"] == 1)
    });
    let newest = |topic: &str| {
        let late = Listener::start(site.broker.port());
        let messages = late.until(topic, |messages| !messages.is_empty());
        assert!(messages[0].retained, "{topic} is not retained");
        messages[0].json()
    };
    let state = newest("state");
    assert_eq!((&state["online"], &state["conn"]), (&true.into(), &1.into()));
    let members = ["boot", "version", "epoch", "head", "acked", "clock", "nonce", "alarms"];
    assert!(members.iter().all(|member| !state[*member].is_null()), "{state}");
    assert_eq!(state["allowlist"]["version"], 1);
    for station in ["washer-1", "charger-1", "dryer-1"] {
        let shown = newest(&format!("station/{station}"));
        assert_eq!(shown["state"], "available");
        assert!(shown.get("user").is_none() && shown.get("badge").is_none(), "{shown}");
    }

    site.kill9();

    let will = serde_json::json!({"online": false, "conn": 1});
    site.listener.until("state", |heard| heard.last().is_some_and(|it| it.json() == will));
    let late = Listener::start(site.broker.port());
    let heard = late.until("state", |messages| !messages.is_empty());
    assert_eq!((heard[0].json(), heard[0].retained), (will, true));
    site.start_again();
    assert_eq!(site.cloud.view().connections, [1, 2]);
    site.tap_to_start("Laundry", &ANNA);
    site.until("the station's state has changed", |site| {
        site.cloud.view().stations["washer-1"]["state"] == "starting"
    });
}
