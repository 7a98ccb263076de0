//! What a valid config becomes; `errors` has what is refused.

mod errors;
mod profiles;

use std::time::Duration;

use super::wiring::{BindBy, Control, Parity, Transport};
use super::*;
use crate::core::badge::Technology;
use crate::core::site::{
    IdleBurst, MaxConcurrent, OnRevoked, Selection, SessionRules, StationKind,
};

const EXAMPLE: &str = include_str!("../../../config.example.toml");

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

fn config(text: &str) -> Config {
    parse(text, "c.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// `SITE` with pieces replaced; what replaces nothing is appended.
fn site_with(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(SITE.to_owned(), |text, (from, to)| {
        if from.is_empty() {
            return text + to;
        }
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
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
                if ["password_file", "ca_file", "client_", "serial", "name"]
                    .iter()
                    .any(|k| key.starts_with(k)) =>
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
    let text = site_with(&[(
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
    )]);

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
