//! A changed config while residents wash: taken over, or refused and nothing changes.

use std::fs;

use crate::people::{ANNA, BORIS, DRYER_METER, WASHER_COIL, WASHER_METER};
use crate::site::Site;

/// A second washer on relay 4, with a reader that is not there.
const NEW_STATION: &str = r#"
[[reader]]
id = "corner"
name = "Corner 00 00"
selection = "single"

[[station]]
id = "washer-2"
kind = "washer"
label = "Machine 2"
reader = "corner"
groups = ["laundry"]
switch = "relays/relay-4"
"#;

fn edit(site: &Site, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(site.config()).expect("a config");
    fs::write(site.config(), change(text)).expect("a config");
}

/// `tapgate reload`: its exit code and all that it says.
fn reload(site: &Site) -> (Option<i32>, String) {
    let output = site.command(&["reload"]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_reload_adds_a_station_and_running_sessions_go_on() {
    let mut site = Site::running();
    site.draw(WASHER_METER, 36_000);
    site.tap_to_start("Laundry", &ANNA);
    site.until_in_use("washer-1");
    let (session, pid) = (site.station("washer-1")["session"]["session"].clone(), site.pid());
    let writes = site.writes();
    edit(&site, |text| text + NEW_STATION);

    let (code, said) = reload(&site);

    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("new: washer-2"), "{said}");
    site.until("the new station is there", |site| {
        site.status()["stations"].as_array().is_some_and(|all| all.len() == 4)
    });
    site.until("the session goes on", |site| {
        let view = site.station("washer-1")["session"].clone();
        view["session"] == session && view["phase"] == "running"
    });
    assert_eq!(site.pid(), pid, "it is the same process");
    assert_eq!(site.writes(), writes, "no switch was touched");
    assert!(site.is_closed(WASHER_COIL));

    site.draw(WASHER_METER, 0);
    site.record("session_ended", 1);
    site.draw(DRYER_METER, 36_000);
    site.tap_to_start("Drying", &BORIS);
    site.until_in_use("dryer-1");
    site.draw(DRYER_METER, 0);
    site.record("session_ended", 2);
    site.settled();
}

#[test]
fn a_reload_that_takes_a_running_station_away_changes_nothing_and_names_it() {
    let mut site = Site::running();
    site.draw(WASHER_METER, 36_000);
    site.tap_to_start("Laundry", &ANNA);
    site.until_in_use("washer-1");
    for (from, to) in [("id = \"washer-1\"", "id = \"washer-9\""), ("relay-1\"", "relay-5\"")] {
        edit(&site, |text| text.replace(from, to));

        let (code, said) = reload(&site);

        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("station washer-1 is in use"), "{said}");
        assert!(!site.station("washer-1")["session"].is_null());
        edit(&site, |text| text.replace(to, from));
    }
    assert!(site.is_closed(WASHER_COIL));
}

#[test]
fn a_reload_of_a_config_with_errors_keeps_the_running_one() {
    let mut site = Site::running();
    let pid = site.pid();
    edit(&site, |text| text + "\ncolour = \"blue\"\n");

    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid"),
        rustix::process::Signal::HUP,
    )
    .expect("it runs");

    site.until("the journal says why", |site| {
        let log = site.log();
        log.contains("reload refused, the running config stays") && log.contains("colour")
    });
    assert_eq!(site.pid(), pid);
    assert_eq!(reload(&site).0, Some(78), "the command sees the errors itself");
    edit(&site, |text| text.replace("colour = \"blue\"", ""));
    assert_eq!(reload(&site).0, Some(0));
    site.until_ready();
}
