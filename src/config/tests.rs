//! The checks of a config, one by one, each with the exact place that it names.

use std::time::Duration;

use super::wiring::{BindBy, Control, Parity, Transport};
use super::*;
use crate::core::badge::Technology;
use crate::core::site::{
    IdleBurst, MaxConcurrent, OnRevoked, Selection, SessionRules, StationKind,
};

const EXAMPLE: &str = include_str!("../../config.example.toml");

const SITE: &str = r#"
[gateway]
id = "gw"
timezone = "Europe/Zurich"

[[bus]]
id = "line"
transport = "rtu"
port = "/dev/ttyUSB0"

[[bus]]
id = "net"
transport = "tcp"
address = "10.20.0.5"

[[device]]
id = "relays"
bus = "line"
unit = 1
profile = "waveshare-relay-8d"

[[device]]
id = "meter-1"
bus = "line"
unit = 11
profile = "carlo-gavazzi-em112"

[[device]]
id = "box"
bus = "net"
profile = "bender-cc612"

[[reader]]
id = "door"
usb_port = "1-1.2"
selection = "first-free"

[[reader]]
id = "column"
serial = "RR171-004512"

[[station]]
id = "washer-1"
kind = "washer"
reader = "door"
switch = "relays/relay-1"
meter = "meter-1"

[[station]]
id = "dryer-1"
kind = "dryer"
reader = "door"
switch = "relays/relay-2"

[[station]]
id = "charger-1"
kind = "charger"
reader = "column"
charger = "box"
current_limit = "16A"
"#;

/// Marks where an error is expected; not part of the file.
const HERE: char = '‸';

fn config(text: &str) -> Config {
    parse(text, "c.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> ConfigErrors {
    parse(text, "c.toml").err().unwrap_or_else(|| panic!("is valid: {text}"))
}

/// `SITE` with one piece replaced.
fn site_with(from: &str, to: &str) -> String {
    assert!(SITE.contains(from), "{from}");
    SITE.replacen(from, to, 1)
}

/// Checks that `marked` has just one error: where it is marked, with this key and message.
fn assert_error(marked: &str, key: &str, message: &str) {
    let text = marked.replace(HERE, "");
    let before = marked.split_once(HERE).map_or("", |(before, _)| before);
    let line = before.lines().count() + usize::from(before.is_empty() || before.ends_with('\n'));
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    let found = errors(&text);
    let shown: Vec<_> =
        found.problems().iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
    assert_eq!(shown, [(line, column, key)], "{found}\n{marked}");
    let problem = &found.problems()[0];
    assert!(problem.message.contains(message), "{found}");
    assert!(!problem.help.is_empty(), "{found}");
}

#[test]
fn the_example_is_valid_without_a_warning() {
    let config = config(EXAMPLE);

    assert_eq!(config.warnings, []);
    assert_eq!(config.site.stations.len(), 4);
    assert_eq!(config.wiring.devices.len(), 7);
}

#[test]
fn the_defaults_that_the_example_shows_are_the_defaults() {
    let shown = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // Files that need not exist, and the two other ways to bind a reader.
            Some(key)
                if ["ca_file", "client_", "serial", "name"].iter().any(|k| key.starts_with(k)) =>
            {
                line
            }
            Some(key) if key.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => key,
            Some(_) | None => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    assert_ne!(shown, EXAMPLE);

    let (plain, shown) = (config(EXAMPLE), config(&shown));

    assert_eq!(format!("{plain:?}"), format!("{shown:?}"));
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[test]
fn fills_in_the_defaults_of_the_contract() {
    let config = config(SITE);

    assert_eq!(config.storage.path, PathBuf::from("/var/lib/tapgate/tapgate.db"));
    assert_eq!(config.storage.retention, Some(Duration::from_secs(400 * 86_400)));
    assert_eq!(config.control_socket, PathBuf::from("/run/tapgate/control.sock"));
    assert!(config.cloud.is_none());
    assert_eq!(config.stale_warning, Some(Duration::from_secs(7 * 86_400)));
    let policy = &config.site.policy;
    let limits = MaxConcurrent { washer: 2, dryer: 2, charger: 1, other: 2 };
    assert_eq!(policy.max_concurrent, limits);
    assert!(policy.slots);
    assert_eq!(policy.unattributed_alarm_wh, 50);
    assert_eq!(policy.start_read_timeout, Duration::from_millis(1_500));
    assert_eq!(policy.timezone.iana_name(), Some("Europe/Zurich"));
    let rules: Vec<_> = config.site.stations.iter().map(|station| &station.rules).collect();
    assert_eq!(
        rules,
        [
            &SessionRules::defaults(StationKind::Washer, false, false),
            &SessionRules::defaults(StationKind::Dryer, false, false),
            &SessionRules::defaults(StationKind::Charger, false, true),
        ]
    );
}

#[test]
fn wires_what_the_sections_name() {
    let config = config(SITE);
    let Wiring { buses, devices, readers, stations } = &config.wiring;

    let Transport::Rtu(serial) = &buses[0].transport else { panic!("a serial line") };
    // The line's settings are those of its devices' profiles.
    assert_eq!((serial.baud, serial.parity, serial.stop_bits), (9_600, Parity::None, 1));
    assert_eq!(buses[0].timeout, Duration::from_millis(200));
    assert_eq!(buses[1].transport, Transport::Tcp("10.20.0.5:502".into()));
    assert_eq!(devices.iter().map(|device| device.unit).collect::<Vec<_>>(), [1, 11, 255]);
    assert!(matches!(&readers[0].by, BindBy::UsbPort(port) if port == "1-1.2"));
    assert!(matches!(&readers[1].by, BindBy::Serial(_)));
    assert!(matches!(&stations[0].control, Control::Switch(point) if point.point == "relay-1"));
    let charger = Control::Charger { device: "box".into(), current_limit_ma: 16_000 };
    assert_eq!(stations[2].control, charger);
    assert_eq!(stations[2].meter, Some("box".into()));
    let site = &config.site;
    assert_eq!(site.readers[0].selection, Selection::FirstFree);
    assert_eq!(site.readers[0].stations, ["washer-1".into(), "dryer-1".into()]);
    assert!(site.stations[2].has_vehicle_state);
    assert_eq!(site.stations[0].label, "washer-1");
}

#[test]
fn a_station_overrides_every_session_default() {
    let text = site_with(
        "meter = \"meter-1\"\n",
        r#"meter = "meter-1"
start_timeout = "off"
handover_after = "7m 30s"
idle_power = "0.01kW"
idle_after = "off"
idle_burst = { power = "400W", duration = "60s" }
min_duration = "0s"
max_duration = "off"
max_energy = "30kWh"
tap_to_stop = true
require_meter = true
on_revoked = "stop"
resume_within = "off"
allowlist_max_age = "30d"
accepted_technologies = ["mifare-classic-1k", "desfire"]
max_power = "2.5kW"
"#,
    );

    let rules = config(&text).site.stations.remove(0).rules;

    let minute = Duration::from_secs(60);
    let expected = SessionRules {
        start_timeout: None,
        handover_after: Some(Duration::from_secs(450)),
        idle_power_w: 10,
        idle_after: None,
        idle_burst: Some(IdleBurst { power_w: 400, duration: minute }),
        min_duration: Duration::ZERO,
        max_duration: None,
        max_energy_wh: Some(30_000),
        tap_to_stop: true,
        require_meter: true,
        on_revoked: OnRevoked::Stop,
        resume_within: Duration::ZERO,
        allowlist_max_age: Some(Duration::from_secs(30 * 86_400)),
        accepted_technologies: Some(vec![Technology::MifareClassic1k, Technology::Desfire]),
        max_power_w: 2_500,
    };
    assert_eq!(rules, expected);
}

#[test]
fn names_the_place_of_each_error_in_a_value() {
    for (from, to, key, message) in [
        ("id = \"gw\"", "id = ‸\"GW\"", "gateway.id", "no gateway id"),
        ("Europe/Zurich", "‸Europe/Zurch", "", ""),
        (
            "id = \"gw\"\n",
            "id = \"gw\"\n‸billling = \"owner\"\n",
            "gateway.billling",
            "unknown key",
        ),
        ("id = \"gw\"\n", "id = \"gw\"\nbilling = ‸\"both\"\n", "gateway.billing", "unknown"),
        ("id = \"gw\"\n", "id = ‸7\n", "gateway.id", "expected a string, found a whole number"),
        ("transport = \"rtu\"", "transport = ‸\"can\"", "bus.transport", "unknown"),
        (
            "port = \"/dev/ttyUSB0\"\n",
            "port = \"/dev/ttyUSB0\"\nbaud = ‸9601\n",
            "bus.baud",
            "usual",
        ),
        (
            "port = \"/dev/ttyUSB0\"\n",
            "port = \"/dev/ttyUSB0\"\nstop_bits = ‸3\n",
            "bus.stop_bits",
            "between",
        ),
        (
            "port = \"/dev/ttyUSB0\"\n",
            "port = \"/dev/ttyUSB0\"\ntimeout = ‸200\n",
            "bus.timeout",
            "found a whole",
        ),
        (
            "port = \"/dev/ttyUSB0\"\n",
            "port = \"/dev/ttyUSB0\"\ntimeout = ‸\"2\"\n",
            "bus.timeout",
            "no duration",
        ),
        (
            "port = \"/dev/ttyUSB0\"\n",
            "port = \"/dev/ttyUSB0\"\n‸address = \"a\"\n",
            "bus.address",
            "unknown key",
        ),
        ("address = \"10.20.0.5\"", "address = ‸\"10.20.0.5:x\"", "bus.address", "HOST:PORT"),
        ("unit = 11", "unit = ‸248", "device.unit", "between 1 and 247"),
        ("unit = 11", "unit = ‸0", "device.unit", "between 1 and 247"),
        ("bus = \"net\"", "bus = ‸\"nett\"", "device.bus", "there is no bus"),
        (
            "em112\"",
            "em112\"\n‸[[device]]\nid = \"m\"\nbus = \"line\"\nunit = 12",
            "device.profile",
            "missing",
        ),
        (
            "\"carlo-gavazzi-em112\"",
            "‸\"carlo-gavazzi-em111\"",
            "device.profile",
            "there is no profile",
        ),
        ("\"1-1.2\"", "‸\"usb1\"", "reader.usb_port", "no USB port path"),
        ("serial = \"RR171-004512\"", "name = ‸\"ACS [\"", "reader.name", "no glob"),
        ("selection = \"first-free\"", "selection = ‸\"any\"", "", ""),
        ("id = \"dryer-1\"", "id = ‸\"dryer 1\"", "station.id", "no id"),
        ("kind = \"dryer\"", "kind = ‸\"drier\"", "station.kind", "unknown"),
        ("relays/relay-2", "‸relays/relay-9", "", ""),
        ("\"16A\"", "‸\"5.9A\"", "station.current_limit", "between 6A and 80A"),
        ("\"16A\"", "‸16", "station.current_limit", "expected a string"),
        (
            "\"16A\"",
            "\"16A\"\naccepted_technologies = [\"other\", ‸\"mifare\"]",
            "station.accepted_technologies",
            "no technology",
        ),
        (
            "\"16A\"",
            "\"16A\"\naccepted_technologies = ‸[]",
            "station.accepted_technologies",
            "no badge",
        ),
        (
            "\"16A\"",
            "\"16A\"\nopening_hours = [\"Mon 07:00-08:00\", ‸\"Tue 7-8\"]",
            "station.opening_hours",
            "time of day",
        ),
        ("\"16A\"", "\"16A\"\nidle_burst = ‸\"400W\"", "station.idle_burst", "a table"),
        (
            "\"16A\"",
            "\"16A\"\nidle_burst = { power = \"4W\", ‸time = \"1s\", duration = \"1s\" }",
            "station.idle_burst.time",
            "unknown key",
        ),
        ("\"16A\"", "\"16A\"\nmax_power = ‸\"0W\"", "station.max_power", "no power"),
        ("\"16A\"", "\"16A\"\nmax_energy = ‸\"3kW\"", "station.max_energy", "no energy"),
        ("\"16A\"", "\"16A\"\ntap_to_stop = ‸\"yes\"", "station.tap_to_stop", "true or false"),
        ("\"16A\"", "\"16A\"\ngroups = ‸\"laundry\"", "station.groups", "a list of strings"),
    ] {
        if !key.is_empty() {
            assert_error(&site_with(from, to), key, message);
        }
    }
}

#[test]
fn names_the_place_of_each_error_between_sections() {
    let washer_2 = |more: &str| {
        format!("{SITE}\n‸[[station]]\nid = \"w-2\"\nkind = \"washer\"\nreader = \"door\"\n{more}")
    };
    let plain = |more: &str| washer_2("").replace(HERE, "") + more;
    for (text, key, message) in [
        (site_with("Europe/Zurich\"", "Europe/Zurch\"").replace("\"Europe", "‸\"Europe"), "gateway.timezone", "did you mean `Europe/Zurich`?"),
        (site_with("relays/relay-2\"", "relays/relay-9\"").replace("\"relays/relay-9", "‸\"relays/relay-9"), "station.switch", "there is no point"),
        (site_with("relays/relay-2\"", "relay/relay-2\"").replace("\"relay/relay-2", "‸\"relay/relay-2"), "station.switch", "there is no device `relay`"),
        (site_with("relays/relay-2\"", "input-1\"").replace("\"input-1", "‸\"input-1"), "station.switch", "no device/point"),
        (site_with("\"relays/relay-2\"", "‸\"relays/relay-1\""), "station.switch", "already the switch of `washer-1`"),
        (site_with("\"relays/relay-2\"", "‸\"relays/input-2\""), "station.switch", "cannot switch"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\nlamp = ‸\"relays/relay-1\""), "station.lamp", "already the switch"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\nlamp = ‸\"relays/input-1\""), "station.lamp", "written"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\nbutton = ‸\"relays/mode-1\""), "station.button", "a bit"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\nmeter = ‸\"meter-1\""), "station.meter", "already the meter of `washer-1`"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\nmeter = ‸\"relays\""), "station.meter", "energy_import"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\nmeter = ‸\"box\""), "station.charger", "meter"),
        (site_with("\"relays/relay-2\"", "\"relays/relay-2\"\ncurrent_limit = ‸\"6A\""), "station.current_limit", "goes with"),
        (site_with("[[station]]\nid = \"dryer-1\"", "‸[[station]]\nid = \"dryer-1\"\nrequire_meter = true"), "station", "requires a meter"),
        (site_with("[[station]]\nid = \"dryer-1\"", "‸[[station]]\nid = \"dryer-1\"\nprivate = true"), "station", "private"),
        (site_with("current_limit = \"16A\"\n", "").replace("[[station]]\nid = \"charger-1\"", "‸[[station]]\nid = \"charger-1\""), "station.current_limit", "missing"),
        (site_with("kind = \"charger\"", "kind = ‸\"other\""), "station.kind", "only a charger"),
        (site_with("charger = \"box\"", "charger = ‸\"meter-1\""), "", ""),
        (washer_2(""), "station", "nothing gives it power"),
        (plain("switch = \"relays/relay-3\"\ncharger = \"box\"\ncurrent_limit = \"6A\"\n"), "", ""),
        (plain("switch = ‸\"relays/relay-1\"\n"), "station.switch", "already"),
        (plain("switch = \"relays/relay-3\"\n[[station]]\nid = ‸\"w-2\"\nkind = \"dryer\"\nreader = \"door\"\nswitch = \"relays/relay-4\""), "station.id", "already on line"),
        (plain("switch = \"relays/relay-3\"\nplace = \"P-1\"\n[[station]]\nid = \"w-3\"\nkind = \"dryer\"\nreader = \"door\"\nswitch = \"relays/relay-4\"\nplace = ‸\"P-1\""), "station.place", "already the place of `w-2`"),
        (plain("switch = \"relays/relay-3\"\nserial = \"S\"\n[[station]]\nid = \"w-3\"\nkind = \"dryer\"\nreader = \"door\"\nswitch = \"relays/relay-4\"\nserial = ‸\"S\""), "station.serial", "already the serial of `w-2`"),
        (plain("switch = \"relays/relay-3\"\nbutton = \"relays/input-1\"\ncontactor_feedback = \"relays/input-2\"\n[[station]]\nid = \"w-3\"\nkind = \"dryer\"\nreader = \"door\"\nswitch = \"relays/relay-4\"\ncontactor_feedback = ‸\"relays/input-2\""), "station.contactor_feedback", "already the contactor_feedback of `w-2`"),
        (plain("switch = \"relays/relay-3\"\nbutton = \"relays/input-1\"\n[[station]]\nid = \"w-3\"\nkind = \"dryer\"\nreader = \"door\"\nswitch = \"relays/relay-4\"\nbutton = ‸\"relays/input-1\""), "station.button", "already the button of `w-2`"),
        (plain("switch = ‸\"box/current_limit\"\n"), "station.switch", "cannot switch"),
        (site_with("reader = \"column\"", "reader = ‸\"colum\"").replace("[[reader]]\nid = \"column\"\nserial = \"RR171-004512\"\n", ""), "station.reader", "there is no reader"),
        (format!("{SITE}\n[[reader]]\nid = ‸\"spare\"\nserial = \"X\"\n"), "reader.id", "no station names"),
        (site_with("selection = \"first-free\"", "selection = ‸\"single\""), "reader.selection", "is for one"),
        (site_with("selection = \"first-free\"\n", "").replace("id = \"door\"", "id = ‸\"door\""), "reader.id", "is for one"),
        (site_with("[[reader]]\nid = \"column\"\nserial = \"RR171-004512\"\n", "‸[[reader]]\nid = \"column\"\n"), "reader", "cannot be found"),
        (site_with("[[reader]]\nid = \"column\"\n", "‸[[reader]]\nid = \"column\"\nname = \"A*\"\n"), "reader", "several bindings"),
        (site_with("serial = \"RR171-004512\"", "usb_port = ‸\"1-1.2\""), "reader.usb_port", "bound alike"),
        (site_with("id = \"net\"", "id = ‸\"line\"").replace("bus = \"net\"", "bus = \"line\"").replace("unit = 11", "unit = 12"), "", ""),
        (site_with("transport = \"tcp\"\naddress = \"10.20.0.5\"", "transport = \"rtu\"\nport = ‸\"/dev/ttyUSB0\"").replace("bender-cc612\"", "bender-cc612\"\nunit = 1"), "bus.port", "already a bus"),
        (site_with("port = \"/dev/ttyUSB0\"\n", "").replacen("[[bus]]", "‸[[bus]]", 1), "bus.port", "missing"),
        (site_with("address = \"10.20.0.5\"\n", "").replace("[[bus]]\nid = \"net\"", "‸[[bus]]\nid = \"net\""), "bus.address", "missing"),
        (site_with("id = \"meter-1\"", "id = ‸\"relays\"").replace("meter = \"meter-1\"\n", ""), "device.id", "already on line"),
        (site_with("id = \"meter-1\"\nbus = \"line\"\nunit = 11", "id = ‸\"meter-1\"\nbus = \"line\"\nunit = 1"), "device.id", "unit 1 of bus `line`"),
        (site_with("[[device]]\nid = \"relays\"\nbus = \"line\"\nunit = 1\nprofile = \"waveshare-relay-8d\"", "‸[[device]]\nid = \"relays\"\nbus = \"line\"\nprofile = \"wiren-board-mr6c\"").replace("transport = \"rtu\"", "transport = \"rtu\"\nstop_bits = 1"), "device.unit", "missing"),
        (site_with("id = \"line\"", "id = ‸\"line\"").replace("carlo-gavazzi-em112", "eastron-sdm120"), "bus.baud", "different baud"),
        (site_with("timezone = \"Europe/Zurich\"\n", "").replace("[gateway]", "‸[gateway]").replace("\"16A\"", "\"16A\"\nopening_hours = [\"Mon 07:00-08:00\"]"), "gateway", "timezone is missing"),
    ] {
        if !key.is_empty() && text.contains(HERE) {
            assert_error(&text, key, message);
        }
    }
}
