//! What is refused, each with the exact place that it names.

use std::os::unix::fs::PermissionsExt;

use super::{EXAMPLE, SITE, site_with};
use crate::config::{ConfigErrors, load, parse};

/// Marks where an error is expected; not part of the file.
const HERE: char = '‸';

/// Edits of the site, the key of the one error that they cause, and a piece of its message.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

fn errors(text: &str) -> ConfigErrors {
    parse(text, "c.toml").err().unwrap_or_else(|| panic!("is valid: {text}"))
}

/// Checks that each case has just one error: where it is marked, with this key and message.
fn assert_errors(cases: &[Case<'_>]) {
    for (edits, key, message) in cases {
        let marked = site_with(edits);
        let (before, _) = marked.split_once(HERE).unwrap_or_else(|| panic!("no mark: {edits:?}"));
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;

        let found = errors(&marked.replace(HERE, ""));

        let shown: Vec<_> =
            found.problems().iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
        assert_eq!(shown, [(line, column, *key)], "{edits:?}\n{found}");
        let problem = &found.problems()[0];
        assert!(problem.message.contains(message), "{message}: {found}");
        assert!(!problem.help.is_empty(), "{found}");
    }
}

#[test]
fn refuses_wrong_values_of_gateway_and_buses() {
    let port = "port = \"/dev/ttyUSB0\"\n";
    assert_errors(&[
        (&[("\"gw\"", "‸\"GW\"")], "gateway.id", "no gateway id"),
        (&[("\"gw\"", "‸7")], "gateway.id", "expected a string, found a whole number"),
        (&[("\"Europe/Zurich\"", "‸\"Europe/Zurch\"")], "gateway.timezone", "did you mean"),
        (&[("id = \"gw\"", "id = \"gw\"\n‸biling = \"owner\"")], "gateway.biling", "unknown key"),
        (&[("id = \"gw\"", "id = \"gw\"\nbilling = ‸\"both\"")], "gateway.billing", "`both`"),
        (&[("", "\n[‸acces]\n")], "acces", "unknown key"),
        (&[("", "\n[access]\nmax_concurrent = { washer = ‸0 }")], MAX_WASHER, "between 1 and"),
        (&[("", "\n[storage]\nretention = ‸\"1h\"")], "storage.retention", "between 1d and"),
        (&[("", "\n[metering]\nslots = ‸\"off\"")], "metering.slots", "true or false"),
        (&[("\"rtu\"", "‸\"can\"")], "bus.transport", "unknown"),
        (&[(port, ""), ("[[bus]]", "‸[[bus]]")], "bus.port", "missing"),
        (&[(port, &format!("{port}baud = ‸9601\n"))], "bus.baud", "usual"),
        (&[(port, &format!("{port}parity = ‸\"E\"\n"))], "bus.parity", "unknown"),
        (&[(port, &format!("{port}stop_bits = ‸3\n"))], "bus.stop_bits", "between 1 and 2"),
        (&[(port, &format!("{port}timeout = ‸200\n"))], "bus.timeout", "found a whole number"),
        (&[(port, &format!("{port}timeout = ‸\"2\"\n"))], "bus.timeout", "no duration"),
        (&[(port, &format!("{port}timeout = ‸\"1h\"\n"))], "bus.timeout", "between 10ms and 10s"),
        (&[(port, &format!("{port}‸address = \"a\"\n"))], "bus.address", "unknown key"),
        (&[("\"10.20.0.5\"", "‸\"10.20.0.5:x\"")], "bus.address", "HOST:PORT"),
        (&[("address = \"10.20.0.5\"\n", ""), NET_HERE], "bus.address", "missing"),
        (&[("\"tcp\"\naddress", "\"rtu-over-tcp\"\naddress"), UNIT_HERE], "device.unit", "missing"),
        (
            &[("", "\n[[bus]]\nid = ‸\"net\"\ntransport = \"tcp\"\naddress = \"b\"")],
            "bus.id",
            "line",
        ),
        (&[("", SECOND_ENDPOINT)], "bus.address", "already a bus on line 14"),
        (
            &[("carlo-gavazzi-em112", "eastron-sdm120"), ("\"line\"", "‸\"line\"")],
            "bus.baud",
            "diff",
        ),
    ]);
}

const MAX_WASHER: &str = "access.max_concurrent.washer";
const NET_HERE: (&str, &str) = ("[[bus]]\nid = \"net\"", "‸[[bus]]\nid = \"net\"");
const UNIT_HERE: (&str, &str) = ("[[device]]\nid = \"box\"", "‸[[device]]\nid = \"box\"");
const SECOND_ENDPOINT: &str =
    "\n[[bus]]\nid = \"n-2\"\ntransport = \"rtu-over-tcp\"\naddress = ‸\"10.20.0.5:502\"";

#[test]
fn refuses_what_is_wrong_with_a_device() {
    let meter = "id = \"meter-1\"\nbus = \"line\"\nunit = 11";
    assert_errors(&[
        (&[("unit = 11", "unit = ‸248")], "device.unit", "between 1 and 247"),
        (&[("unit = 11", "unit = ‸0")], "device.unit", "between 1 and 247"),
        (&[("bus = \"net\"", "bus = ‸\"nett\"")], "device.bus", "there is no bus `nett`"),
        (&[("\"carlo-gavazzi-em112\"", "‸\"carlo\"")], "device.profile", "there is no profile"),
        (
            &[(meter, "id = ‸\"meter-1\"\nbus = \"line\"\nunit = 1")],
            "device.id",
            "is unit 1 of bus `line`, as is `relays`",
        ),
        (
            &[("", "\n[[device]]\nid = ‸\"box\"\nbus = \"net\"\nunit = 7\nprofile = \"abb-b23\"")],
            "device.id",
            "already on line",
        ),
        (
            &[("", "\n‸[[device]]\nid = \"m\"\nbus = \"net\"\nprofile = \"wiren-board-mr6c\"")],
            "device.unit",
            "missing",
        ),
    ]);
}

#[test]
fn refuses_readers_that_cannot_work() {
    let column = "[[reader]]\nid = \"column\"\nserial = \"RR171-004512\"";
    assert_errors(&[
        (&[("\"1-1.2\"", "‸\"usb1\"")], "reader.usb_port", "no USB port path"),
        (&[("serial = \"RR171-004512\"", "name = ‸\"ACS [\"")], "reader.name", "no glob"),
        (&[("serial = \"RR171-004512\"", "usb_port = ‸\"1-1.2\"")], "reader.usb_port", "alike"),
        (&[(column, "‸[[reader]]\nid = \"column\"")], "reader", "cannot be found"),
        (&[(column, &format!("‸{column}\nname = \"A*\""))], "reader", "several bindings"),
        (&[("", "\n[[reader]]\nid = ‸\"spare\"\nserial = \"X\"")], "reader.id", "no station names"),
        (&[("\"first-free\"", "‸\"single\"")], "reader.selection", "`door` has 2 stations"),
        (
            &[("selection = \"first-free\"\n", ""), ("\"door\"", "‸\"door\"")],
            "reader.id",
            "is for one",
        ),
        (&[("usb_port", "feedback = ‸\"beep\"\nusb_port")], "reader.feedback", "`beep` is unknown"),
        (
            &[
                ("\"first-free\"", "\"button\""),
                ("relay-1\"", "relay-1\"\nbutton = \"relays/input-1\""),
                ("\"dryer-1\"", "‸\"dryer-1\""),
            ],
            "station.id",
            "`dryer-1` has no button",
        ),
    ]);
}

#[test]
fn refuses_wrong_values_of_a_station() {
    let limit = "\"16A\"";
    let then = |more: &str| format!("{limit}\n{more}");
    assert_errors(&[
        (&[("\"dryer-1\"", "‸\"dryer 1\"")], "station.id", "no id"),
        (&[("\"dryer\"", "‸\"drier\"")], "station.kind", "`drier` is unknown"),
        (&[(limit, "‸\"5.9A\"")], "station.current_limit", "between 6A and 80A"),
        (&[(limit, "‸16")], "station.current_limit", "expected a string"),
        (&[(limit, &then("max_power = ‸\"0W\""))], "station.max_power", "no power"),
        (&[(limit, &then("max_energy = ‸\"3kW\""))], "station.max_energy", "no energy"),
        (&[(limit, &then("tap_to_stop = ‸\"yes\""))], "station.tap_to_stop", "true or false"),
        (&[(limit, &then("groups = ‸\"laundry\""))], "station.groups", "a list of strings"),
        (&[(limit, &then("groups = [\"a\", ‸1]"))], "station.groups", "found a whole number"),
        (&[(limit, &then("label = ‸\" \""))], "station.label", "is empty"),
        (&[(limit, &then("idle_burst = ‸\"400W\""))], "station.idle_burst", "a table"),
        (&[(limit, &then("on_revoked = ‸\"cut\""))], "station.on_revoked", "unknown"),
        (&[(limit, &then("‸idle_afer = \"8m\""))], "station.idle_afer", "unknown key"),
        (&[(limit, &then("accepted_technologies = ‸[]"))], TECHNOLOGIES, "no badge"),
        (&[(limit, &then("accepted_technologies = [‸\"mifare\"]"))], TECHNOLOGIES, "technology"),
        (
            &[(limit, &then("opening_hours = [\"Mon 07:00-08:00\", ‸\"Tue 7-8\"]"))],
            "station.opening_hours",
            "no time of day",
        ),
        (
            &[(limit, &then("idle_burst = { power = \"4W\", ‸time = \"1s\", duration = \"1s\" }"))],
            "station.idle_burst.time",
            "unknown key",
        ),
        (
            &[
                ("timezone = \"Europe/Zurich\"\n", ""),
                ("[gateway]", "‸[gateway]"),
                (limit, &then("opening_hours = [\"Mon 07:00-08:00\"]")),
            ],
            "gateway",
            "timezone is missing",
        ),
    ]);
}

const TECHNOLOGIES: &str = "station.accepted_technologies";

#[test]
fn refuses_points_and_devices_that_do_not_fit() {
    let relay = "\"relays/relay-2\"";
    let then = |more: &str| format!("{relay}\n{more}");
    assert_errors(&[
        (&[(relay, "‸\"relays/relay-9\"")], "station.switch", "there is no point"),
        (&[(relay, "‸\"relay/relay-2\"")], "station.switch", "there is no device `relay`"),
        (&[(relay, "‸\"relay-2\"")], "station.switch", "no device/point"),
        (&[(relay, "‸\"relays/input-2\"")], "station.switch", "cannot switch"),
        (&[(relay, "‸\"relays/relay-1\"")], "station.switch", "switch of `washer-1` (line 46)"),
        (&[(relay, &then("lamp = ‸\"relays/relay-1\""))], "station.lamp", "already the switch"),
        (&[(relay, &then("lamp = ‸\"relays/relay-2\""))], "station.lamp", "of this station"),
        (&[(relay, &then("lamp = ‸\"relays/input-1\""))], "station.lamp", "can be written"),
        (&[(relay, &then("button = ‸\"relays/mode-1\""))], "station.button", "can be read"),
        (&[(relay, &then("meter = ‸\"meter-1\""))], "station.meter", "the meter of `washer-1`"),
        (&[(relay, &then("meter = ‸\"relays\""))], "station.meter", "no point `energy_import`"),
        (&[(relay, &then("meter = ‸\"meters\""))], "station.meter", "there is no device"),
        (&[(relay, &then("current_limit = ‸\"6A\""))], "station.current_limit", "goes with"),
        (&[(relay, &then("‸reader = \"door\""))], "TOML syntax", "duplicate key"),
        (&[("charger = \"box\"", "charger = ‸\"relays\"")], "station.charger", "`current_limit`"),
        (
            &[("\"box\"\ncurrent_limit = \"16A\"", "\"box\""), CHARGER_HERE],
            "station.current_limit",
            "missing",
        ),
        (&[("kind = \"charger\"", "kind = ‸\"other\"")], "station.kind", "only a charger"),
        (&[("switch = \"relays/relay-2\"\n", ""), DRYER_HERE], "station", "nothing gives it power"),
        (
            &[
                ("charger = \"box\"", "charger = \"box\"\nswitch = \"relays/relay-3\""),
                CHARGER_HERE,
            ],
            "station",
            "both",
        ),
        (&[(relay, &then("require_meter = true")), DRYER_HERE], "station", "names none"),
        (&[(relay, &then("private = true")), DRYER_HERE], "station", "private"),
    ]);
}

const DRYER_HERE: (&str, &str) = ("[[station]]\nid = \"dryer", "‸[[station]]\nid = \"dryer");
const CHARGER_HERE: (&str, &str) = ("[[station]]\nid = \"charger", "‸[[station]]\nid = \"charger");

#[test]
fn refuses_what_serves_two_stations() {
    /// A second dryer with `more`.
    fn dryer_2(more: &str) -> String {
        let head = "\n[[station]]\nid = \"dryer-2\"\nkind = \"dryer\"\nreader = \"door\"\n";
        format!("{head}switch = \"relays/relay-4\"\n{more}\n")
    }
    let both = |line: &str| {
        let first = format!("\"relays/relay-2\"\n{line}");
        let second = dryer_2(&line.replacen("= ", "= ‸", 1));
        [("\"relays/relay-2\"".to_owned(), first), (String::new(), second)]
    };
    for (line, key) in [
        ("place = \"P-1\"", "station.place"),
        ("serial = \"S-1\"", "station.serial"),
        ("contactor_feedback = \"relays/input-1\"", "station.contactor_feedback"),
        ("button = \"relays/input-1\"", "station.button"),
    ] {
        let edits = both(line);
        let edits = edits.each_ref().map(|(from, to)| (from.as_str(), to.as_str()));
        assert_errors(&[(&edits, key, "of `dryer-1` (line ")]);
    }
    let column = "[[station]]\nid = \"c-2\"\nkind = \"charger\"\nreader = \"door\"\n";
    let second =
        format!("\n{column}charger = ‸\"box\"\ncurrent_limit = \"6A\"\nmeter = \"m\"\n{METER}");
    assert_errors(&[(&[("", &second)], "station.charger", "already the charger of `charger-1`")]);
    let twice = dryer_2("").replace("\"dryer-2\"", "‸\"dryer-1\"");
    assert_errors(&[(&[("", &twice)], "station.id", "already on line")]);
}

const METER: &str = "[[device]]\nid = \"m\"\nbus = \"net\"\nunit = 9\nprofile = \"abb-b23\"";

#[test]
fn refuses_a_cloud_that_would_leak_or_not_connect() {
    let url = "\n[cloud]\nurl = \"mqtts://mqtt.example.com\"\n";
    let cloud = |more: &str| format!("{url}{more}\n");
    let here = |more: &str| cloud(more).replace("[cloud]", "‸[cloud]");
    assert_errors(&[
        (&[("", "\n‸[cloud]\n")], "cloud.url", "missing"),
        (&[("", "\n[cloud]\nurl = ‸\"mqtt://10.0.0.1\"")], "cloud.url", "neither encrypted"),
        (&[("", "\n[cloud]\nurl = ‸\"http://10.0.0.1\"")], "cloud.url", "not supported"),
        (&[("", "\n[cloud]\nurl = ‸\"10.0.0.1\"")], "cloud.url", "no scheme"),
        (&[("", "\n[cloud]\nurl = ‸\"mqtts://me:pw@b\"")], "cloud.url", "would show in logs"),
        (&[("", "\n[cloud]\nurl = ‸\"mqtts://b/topic\"")], "cloud.url", "HOST:PORT"),
        (&[("", &here("password_file = \"/x\""))], "cloud.username", "missing"),
        (&[("", &here("client_cert_file = \"/x\""))], "cloud.client_key_file", "missing"),
        (&[("", &here("client_key_file = \"/x\""))], "cloud.client_cert_file", "missing"),
        (
            &[("", &here("username = \"u\"\npassword_file = \"/x\"\ncredential = \"c\""))],
            "cloud",
            "two sources",
        ),
        (&[("", &cloud("credential = ‸\"a/b\"\nusername = \"u\""))], "cloud.credential", "no cred"),
        (&[("", &cloud("trusted_keys = [‸\"abc\"]"))], "cloud.trusted_keys", "no Ed25519"),
    ]);
    for url in ["mqtt://localhost", "mqtt://127.0.0.1:1884", "mqtt://[::1]", "mqtts://b:8883/"] {
        assert!(parse(&site_with(&[("", &format!("\n[cloud]\nurl = \"{url}\""))]), "c").is_ok());
    }
}

#[test]
fn shows_all_errors_of_a_file_at_once_in_its_order() {
    let text = "[gateway]\nid = \"GW\"\nbiling = 1\n\n[[bus]]\nid = \"b\"\ntransport = \"rtu\"\n\
                baud = 1\n\n[[device]]\nid = \"d\"\nbus = \"c\"\nunit = 500\nprofile = \"x\"\n\n\
                [[station]]\nid = \"s\"\nkind = \"washer\"\nreader = \"r\"\n\
                switch = \"d/relay-1\"\n\
                idle_power = 5\n";

    let found = errors(text);

    let shown: Vec<_> =
        found.problems().iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
    let expected = [
        (2, 6, "gateway.id"),
        (3, 1, "gateway.biling"),
        (5, 1, "bus.port"),
        (8, 8, "bus.baud"),
        (12, 7, "device.bus"),
        (13, 8, "device.unit"),
        (14, 11, "device.profile"),
        (19, 10, "station.reader"),
        (21, 14, "station.idle_power"),
    ];
    assert_eq!(shown, expected, "{found}");
    for problem in found.problems() {
        let start = format!("c.toml:{}:{}: {}: ", problem.line, problem.column, problem.key);
        assert!(found.to_string().lines().any(|line| line.starts_with(&start)), "{start}");
    }
}

#[test]
fn counts_columns_in_characters() {
    let text = "[gateway]\nid = \"gw\"\n[access]\nmax_concurrent = { washer = 1, \"é\" = 2 }\n";
    let found = errors(text);
    assert_eq!((found.problems()[0].line, found.problems()[0].column), (4, 32));
}

#[test]
fn warns_of_what_is_valid_but_not_wise() {
    let text = site_with(&[
        ("serial = \"RR171-004512\"", "name = \"ACS ACR122U * 00 01\""),
        (
            "\"relays/relay-2\"",
            "\"relays/relay-2\"\nlast_start = \"1h\"\nbutton = \"relays/input-1\"",
        ),
        ("", "\n[cloud]\nurl = \"mqtt://10.0.0.1\"\nallow_plaintext = true\n"),
    ]);

    let warnings = parse(&text, "c.toml").expect("valid").warnings;

    let keys: Vec<_> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    // The index, an unmetered dryer, last_start without hours, a button without use, the cloud.
    let expected = ["reader.name", "station", "station", "station.id", "cloud", "cloud.url"];
    assert_eq!(keys, expected);
    let globs = ["ACS ACR122U*", "ACS ACR122U ?? ??", "ACS ACR1252 Dual Reader", "* (A1) *"];
    for glob in globs {
        let name = format!("name = \"{glob}\"");
        let text = site_with(&[("serial = \"RR171-004512\"", &name)]);
        let warnings = parse(&text, "c.toml").expect("valid").warnings;
        assert!(!warnings.iter().any(|warning| warning.key == "reader.name"), "{glob}");
    }
}

#[test]
fn warns_of_a_key_that_can_sign_nothing() {
    let warned = |key: &str| {
        let cloud = format!("\n[cloud]\nurl = \"mqtts://b.example\"\ntrusted_keys = [\"{key}\"]\n");
        let warnings = parse(&site_with(&[("", &cloud)]), "c.toml").expect("valid").warnings;
        warnings.iter().any(|warning| warning.key == "cloud.trusted_keys")
    };
    assert!(warned(&"A".repeat(43)), "the neutral point");
    assert!(warned(&format!("{}E", "_".repeat(42))), "no point");
    assert!(!warned("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
}

#[test]
fn no_text_makes_the_check_panic() {
    let deep = format!("a = {}", "[".repeat(10_000));
    let nested = format!("a = {}{}", "{ a = ".repeat(5_000), "}".repeat(5_000));
    let large = "#".repeat(2 << 20);
    for text in [
        "",
        "\u{feff}",
        "\0",
        "=",
        "[[",
        "[gateway",
        "gateway = 1",
        "[[gateway]]",
        "bus = [1, [2]]",
        "[bus]",
        "station = [{}]",
        "[gateway]\nid = \"\u{0}\"",
        "[gateway]\nid = '''\n'''",
        "id = 1979-05-27",
        "[[station]]\nswitch = \"/\"",
        "[[station]]\nswitch = \"é/é\"",
        "[[reader]]\nname = \" 00\"",
        "[[reader]]\nname = \"é 00 00\"",
        "[[reader]]\nname = \"é00 é\"",
        "[[device]]\nunit = 99999999999999999999",
        "[[device]]\nunit = 0xFFFFFFFFFFFFFFFFFF",
        "[gateway]\nid.x = 1",
        "\"\".\"\" = 1",
        "\r\n\r",
        "[cloud]\nurl = \"mqtts://[\"",
        "[metering]\nunattributed_alarm = \"99999999999999999999999MWh\"",
        &deep,
        &nested,
        &large,
    ] {
        assert!(parse(text, "c.toml").is_err());
    }
    // Every way to cut a file short, and to lose one of its lines.
    for (end, _) in EXAMPLE.char_indices().step_by(7) {
        let _ = parse(&EXAMPLE[..end], "c.toml");
    }
    for (i, line) in SITE.lines().enumerate() {
        let rest = SITE.lines().enumerate().filter(|(j, _)| *j != i).map(|(_, line)| line);
        let text = rest.collect::<Vec<_>>().join("\n");
        if let Err(errors) = parse(&text, "c.toml") {
            assert!(!errors.problems().is_empty(), "{line}");
        }
    }
}

#[test]
fn loads_a_file_with_the_files_and_profiles_that_it_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let in_folder = |name: &str| folder.path().join(name);
    let password = in_folder("mqtt.pass");
    let config = in_folder("config.toml");
    let profiles = in_folder("profiles");
    std::fs::create_dir(&profiles).expect("created");
    let extra = format!(
        "\n[storage]\nprofiles = \"{}\"\n[cloud]\nurl = \"mqtts://b\"\nusername = \"u\"\n\
         password_file = \"{}\"\nca_file = \"/nonexistent/ca.pem\"\n",
        profiles.display(),
        password.display(),
    );
    std::fs::write(&config, site_with(&[("", &extra)])).expect("written");
    std::fs::write(&password, "secret").expect("written");
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).expect("set");
    std::fs::write(profiles.join("broken.toml"), "name = \"broken\"\n").expect("written");

    let found = load(&config).expect_err("an open secret, a missing file, a broken profile");

    let keys: Vec<_> = found.problems().iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["cloud.password_file", "cloud.ca_file", "class"], "{found}");
    assert!(found.problems()[0].message.contains("mode 0644"), "{found}");
    assert!(found.problems()[2].file.ends_with("broken.toml"), "{found}");

    let extra = extra.lines().filter(|line| !line.starts_with("ca_file")).collect::<Vec<_>>();
    std::fs::write(&config, site_with(&[("", &extra.join("\n"))])).expect("written");
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o640)).expect("set");
    std::fs::remove_file(profiles.join("broken.toml")).expect("removed");

    assert_eq!(load(&config).expect("mended").storage.profiles, profiles);
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let latin_1 = folder.path().join("latin-1.toml");
    std::fs::write(&latin_1, b"[gateway]\nid = \"caf\xE9\"\n").expect("written");
    for (path, message) in [
        (folder.path().join("none.toml"), "none.toml: cannot be read: No such file"),
        (folder.path().to_owned(), ": cannot be read: Is a directory"),
        (latin_1, "latin-1.toml: is no UTF-8 text (byte 19)"),
    ] {
        let found = load(&path).expect_err("cannot be read").to_string();
        assert!(found.contains(message) && found.contains("\n  help: "), "{found}");
    }
}

#[test]
fn a_syntax_error_is_one_error_with_its_place() {
    let found = errors("[gateway]\nid = \"gw\"\ntimezone = Europe/Zurich\n");
    assert_eq!(found.problems().len(), 1);
    assert!(found.to_string().starts_with("c.toml:3:12: TOML syntax: "), "{found}");
}
