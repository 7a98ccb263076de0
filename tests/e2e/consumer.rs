//! The consumer of docs/examples takes the place of the cloud: it alone acknowledges.

use std::path::Path;

use serde_json::Value;

use crate::consumer_process::{Consumer, verify};
use crate::people::{ANNA, BORIS, Card, GATEWAY};
use crate::site::Site;

/// Waits until the gateway knows that the consumer holds everything.
fn until_acknowledged(site: &mut Site) {
    site.until("the consumer has acknowledged everything", |site| {
        let ledger = &site.status()["ledger"];
        ledger["head"].as_u64() > Some(0) && ledger["head"] == ledger["acked"]
    });
}

/// Another card than before: the same one within seconds only repeats its feedback.
fn use_the_dryer(site: &mut Site, card: &Card) {
    let head = |site: &Site| site.status()["ledger"]["head"].as_u64();
    let before = head(site).expect("a ledger");
    let card = site.present("Drying", card);
    site.until("a whole session is on record", |site| head(site) >= Some(before + 3));
    card.remove();
}

fn log(database: &Path) -> String {
    std::fs::read_to_string(database.with_extension("log")).unwrap_or_default()
}

#[test]
fn the_example_consumer_stores_verifies_and_acknowledges_over_kills() {
    let mut site = Site::ready_to_start();
    site.cloud.withhold_acks(true);
    let database = site.path("usage.db");
    let consumer = Consumer::start(&database, site.broker.port(), None);
    site.start();
    site.until_ready();
    use_the_dryer(&mut site, &BORIS);
    until_acknowledged(&mut site);

    // The consumer, the daemon and the broker die, one after the other.
    drop(consumer);
    use_the_dryer(&mut site, &ANNA);
    let _consumer = Consumer::start(&database, site.broker.port(), None);
    site.kill9();
    site.start_again();
    use_the_dryer(&mut site, &BORIS);
    site.broker.kill9();
    site.broker.restart().expect("mosquitto again");
    use_the_dryer(&mut site, &ANNA);
    until_acknowledged(&mut site);

    let head = site.status()["ledger"]["head"].clone();
    let (report, fine) = verify(&database);
    assert!(fine, "{report:#}\n{}", log(&database));
    let gateway = &report[GATEWAY];
    assert_eq!((&gateway["records"], &gateway["quarantined"]), (&head, &0.into()));
    let energy: i64 = users(gateway).values().filter_map(Value::as_i64).sum();
    let billed: i64 = site.cloud.view().usage.sessions.values().filter_map(ended_wh).sum();
    assert_eq!(energy, billed, "both consumers count the same: {report:#}");
}

fn users(gateway: &Value) -> &serde_json::Map<String, Value> {
    gateway["users_wh"].as_object().expect("users")
}

fn ended_wh(session: &tapgate::demo::cloud::Session) -> Option<i64> {
    session.end.as_ref().and_then(|end| end.energy_wh)
}
