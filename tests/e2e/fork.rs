//! A disk that was rolled back: its ledger is frozen, a new epoch opens, and nothing counts twice.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::people::{ANNA, WASHER_COIL, WASHER_METER};
use crate::site::{Site, records};

/// Copies a store at rest.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a store") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

fn roll_back(site: &Site) {
    let store = site.path("store");
    fs::remove_dir_all(&store).expect("removed");
    copy(&site.path("image"), &store);
}

fn frozen(site: &Site) -> Vec<String> {
    let names = fs::read_dir(site.path("store")).expect("a store");
    let names = names.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("-epoch-")).collect()
}

/// Anna charges, the disk is copied, she charges on, the copy is put back.
fn a_site_rolled_back(site: &mut Site) -> Value {
    let start = site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    let before = site.register(WASHER_METER);
    site.until("some energy flows", |site| site.register(WASHER_METER) > before + 20);
    site.settled();
    site.terminate();
    copy(&site.path("store"), &site.path("image"));
    site.start_again();
    let before = site.register(WASHER_METER);
    site.until("more energy flows", |site| site.register(WASHER_METER) > before + 20);
    site.settled();
    site.terminate();
    roll_back(site);
    start
}

#[test]
fn a_rolled_back_disk_opens_a_new_epoch_and_counts_nothing_twice() {
    let mut site = Site::running_with_keys();
    let start = a_site_rolled_back(&mut site);
    let old = site.cloud.view().usage.epoch.clone();

    site.start();

    let view = site.seen("a new epoch", |view| {
        view.usage.epoch != old && records(view, "epoch_opened").len() == 2
    });
    let opened = records(&view, "epoch_opened")[1].clone();
    assert_eq!((&opened["reason"], &opened["previous_epoch"]), (&json!("fork"), &json!(old)));
    assert!(opened["last_seq"].is_u64() && opened["last_hash"].is_string(), "{opened}");
    assert!(view.events_of("ledger_fork").count() >= 1);
    let view = site.seen("everything is accounted for", |view| {
        records(view, "unattributed").iter().any(|it| it["cause"] == "epoch")
            && records(view, "session_ended").iter().any(|it| it["reason"] == "power_loss")
    });
    let ended = records(&view, "session_ended");
    assert_eq!(ended.last().expect("one")["session"], start["session"]);
    assert!(view.usage.epoch != old);
    assert_eq!(frozen(&site), [format!("tapgate-epoch-{old}.db")]);
    assert!(site.is_closed(WASHER_COIL), "no load is cut by a ledger");
    site.seen("the alarm shows", |view| {
        view.state.as_ref().is_some_and(|state| {
            state["alarms"].as_array().is_some_and(|alarms| alarms.contains(&json!("ledger_fork")))
        })
    });
    site.until("the new epoch is acknowledged", |site| {
        let ledger = site.status()["ledger"].clone();
        ledger["head"] == ledger["acked"] && ledger["epoch"] != old
    });
    let view = site.cloud.view();
    // What went out before the acknowledgement came stays in the cloud's quarantine.
    assert_eq!(view.usage.imbalances(), [""; 0]);

    // The same card again on the same day: an alarm, and no third epoch.
    let epoch = view.usage.epoch.clone();
    site.terminate();
    copy(&site.path("store"), &site.path("image2"));
    site.start_again();
    site.settled_epoch(&epoch);
    site.tap_to_start("Garage", &ANNA);
    site.settled_epoch(&epoch);
    site.terminate();
    fs::remove_dir_all(site.path("store")).expect("removed");
    copy(&site.path("image2"), &site.path("store"));
    let forks = site.cloud.view().events_of("ledger_fork").count();
    site.start();
    site.seen("another alarm", |view| view.events_of("ledger_fork").count() > forks);
    site.until("the daemon goes on", |site| site.status()["ledger"]["epoch"] == epoch.as_str());
    assert_eq!(frozen(&site).len(), 1);
}

#[test]
fn without_keys_a_fork_is_only_an_alarm() {
    let mut site = Site::running();
    a_site_rolled_back(&mut site);
    let old = site.cloud.view().usage.epoch.clone();

    site.start();

    site.seen("the alarm", |view| view.events_of("ledger_fork").count() >= 1);
    site.draw(WASHER_METER, 0);
    assert_eq!(site.status()["ledger"]["epoch"], old.as_str());
    assert_eq!(frozen(&site), [""; 0]);
}
