//! What a profile file may say, and what is refused.

use std::time::Duration;

use crate::config::profile::*;
use crate::config::profile_file::parse;
use crate::config::{Library, parse_with};

/// Everything that a profile can say.
const FULL: &str = r#"
name = "box"
class = "charger"
vendor = "Vendor"
model = "Box"
source = "manual 1.0"
defaults = { baud = 2400, parity = "odd", stop_bits = 2, unit = 50 }
confidence = "medium"
max_registers_per_read = 10
max_hole = 2
min_gap = "100ms"
min_write_gap = "5s"
timeout = "1s"
refresh = "25s"
on_silence = "limit"
startup = [{ point = "failsafe_current", value = 6 }]
start = [{ point = "enable", value = 1 }]
stop = [{ point = "enable", value = 0 }]
heartbeat = { point = "heartbeat", value = 0x55AA, interval = "5s" }
identify = { point = "serial_number", equals = [341, "B23"] }

[points.energy_import]
table = "input"
address = 0x9C41
type = "i64"
word_order = "little-byte-swapped"
unit = "Wh"
scale = 0.1
sentinels = [-1, 0x7FFF]
exponent = "exponent"
plus = ["tariff"]

[points.tariff]
table = "input"
address = 0x9C45
type = "u32"

[points.exponent]
table = "holding"
address = 1
type = "i16"

[points.current_limit]
table = "holding"
address = 2
type = "f32"
unit = "A"
access = "rw"
write = { function = "multiple", copies = 3 }

[points.failsafe_current]
table = "holding"
address = 4
type = "u16"
unit = "A"
access = "w"

[points.enable]
table = "holding"
address = 5
type = "bool"
access = "rw"
write = { address = 6, on = 256, off = 512 }

[points.heartbeat]
table = "holding"
address = 7
type = "u16"
access = "w"

[points.vehicle_state]
table = "holding"
address = 8
type = "u16"
bits = { shift = 8, width = 7 }
values = { "1" = "A", "2" = "B" }

[points.serial_number]
table = "holding"
address = 9
type = "string"
length = 7

[[point_range]]
name = "relay"
count = 2
step = 2
table = "holding"
address = 20
type = "bool"
access = "rw"
write = { address = 40, on = 1, off = 2 }
"#;

/// A meter with the lines of its only point given.
fn meter(point: &str) -> String {
    format!("name = \"m\"\nclass = \"meter\"\n[points.energy_import]\n{point}")
}

#[test]
fn reads_everything_that_a_profile_can_say() {
    let profile = parse("box.toml", FULL).expect("valid");

    assert_eq!(profile.class, Class::Charger);
    assert_eq!(profile.defaults.unit, Some(50));
    assert_eq!(profile.max_registers_per_read, 10);
    assert_eq!(profile.min_gap, Duration::from_millis(100));
    assert_eq!(profile.confidence, Some(Confidence::Medium));
    assert_eq!(profile.max_hole, Some(2));
    assert_eq!(profile.min_write_gap, Duration::from_secs(5));
    let identify =
        Identify { point: "serial_number".into(), equals: vec!["341".into(), "B23".into()] };
    assert_eq!(profile.identify, Some(identify));
    let several = WriteAs { multiple: true, copies: 3, ..WriteAs::default() };
    assert_eq!(profile.points["current_limit"].write, Some(several));
    assert_eq!(profile.timeout, Some(Duration::from_secs(1)));
    assert_eq!(profile.refresh, Some(Duration::from_secs(25)));
    assert_eq!(profile.on_silence, Some(OnSilence::Limit));
    assert_eq!(profile.startup, [PointWrite { point: "failsafe_current".into(), value: 6 }]);
    assert_eq!(profile.start, [PointWrite { point: "enable".into(), value: 1 }]);
    assert_eq!(profile.stop, [PointWrite { point: "enable".into(), value: 0 }]);
    let interval = Duration::from_secs(5);
    let heartbeat = Heartbeat { point: "heartbeat".into(), value: 0x55AA, interval };
    assert_eq!(profile.heartbeat, Some(heartbeat));
    let energy = Point {
        word_order: WordOrder::LittleByteSwapped,
        scale: Scale { numerator: 1, denominator: 10 },
        unit: Some("Wh".into()),
        sentinels: vec![-1, 0x7FFF],
        exponent: Some("exponent".into()),
        plus: vec!["tariff".into()],
        ..Point::new(Table::Input, 40_001, ValueType::I64)
    };
    assert_eq!(profile.points["energy_import"], energy);
    let state = &profile.points["vehicle_state"];
    assert_eq!(state.bits, Some((8, 7)));
    assert_eq!(state.values["2"], "B");
    assert_eq!(profile.points["serial_number"].value, ValueType::String(7));
    assert!(!profile.points["heartbeat"].readable);
    let relay = &profile.points["relay-2"];
    assert_eq!(relay.address, 22);
    assert_eq!(
        relay.write,
        Some(WriteAs { address: Some(42), on: Some(1), off: Some(2), ..WriteAs::default() })
    );
}

#[test]
fn energy_scales_of_built_in_meters_are_exact() {
    let library = Library::built_in();
    for (name, scale) in [
        ("eastron-sdm120", Scale::ONE),
        ("carlo-gavazzi-em340", Scale { numerator: 1, denominator: 10 }),
        ("abb-b23", Scale { numerator: 1, denominator: 100 }),
    ] {
        let profile = library.find(name).expect("built in").profile();
        assert_eq!(profile.points["energy_import"].scale, scale, "{name}");
    }
}

#[test]
fn refuses_the_numbers_of_manuals_with_a_hint() {
    for (table, number, address) in [
        ("holding", 40_001, "address 0 in table holding"),
        ("holding", 40_073, "address 72 in table holding"),
        ("holding", 400_073, "address 72 in table holding"),
        ("input", 30_073, "address 72 in table input"),
        ("discrete", 10_001, "address 0 in table discrete"),
    ] {
        let text = meter(&format!("table = \"{table}\"\naddress = {number}\ntype = \"u16\""));
        let problems = parse("m.toml", &text).expect_err("a manual's number");
        let found = problems.iter().find(|problem| problem.line == 5).expect("named by its line");
        assert_eq!((found.column, found.key.as_str()), (11, "points.energy_import.address"));
        assert!(found.message.contains(address), "{found}");
    }
    let hex = meter("table = \"holding\"\naddress = 0xB02B\ntype = \"f32\"\nunit = \"kWh\"");
    assert!(parse("m.toml", &hex).is_ok());
}

#[test]
fn shows_all_errors_of_a_profile_at_once() {
    let text = "name = \"M 1\"\nclass = \"meter\"\nmin_gap = 100\non_silence = \"off\"\n\
                startup = [{ point = \"nothing\", value = 1 }]\n\
                [points.energy_import]\ntable = \"input\"\naddress = 70000\ntype = \"u24\"\n\
                acces = \"r\"\n[points.power]\ntable = \"input\"\naddress = 1\ntype = \"f32\"\n\
                access = \"rw\"\nscale = 0\n[[point_range]]\nname = \"power\"\n";

    let problems = parse("m.toml", text).expect_err("nearly everything is wrong");

    let shown: Vec<_> = problems.iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
    let expected = [
        (1, 8, "name"),
        (3, 11, "min_gap"),
        (4, 14, "on_silence"),
        (5, 22, "startup.point"),
        (8, 11, "points.energy_import.address"),
        (9, 8, "points.energy_import.type"),
        (10, 1, "points.energy_import.acces"),
        (11, 9, "points.power"),
        (15, 10, "points.power.access"),
        (16, 9, "points.power.scale"),
        (17, 1, "point_range.count"),
        (17, 1, "point_range.table"),
        (17, 1, "point_range.address"),
        (17, 1, "point_range.type"),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_meter_whose_register_is_wrong_is_not_said_to_have_none() {
    let none = parse("m.toml", "name = \"m\"\nclass = \"meter\"\n").expect_err("no register");
    let wrong = parse("m.toml", &meter("table = \"input\"\naddress = 30073\ntype = \"u32\"\n"));

    let keys = |problems: Vec<crate::config::Problem>| {
        problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(none), ["class"]);
    assert_eq!(keys(wrong.expect_err("a manual's number")), ["points.energy_import.address"]);
}

#[test]
fn refuses_points_that_contradict_themselves() {
    let good = "table = \"input\"\naddress = 1\ntype = \"i32\"\nunit = \"kWh\"\n";
    let text = |from: &str, to: &str| meter(&good.replacen(from, to, 1));
    for (text, message) in [
        (text("kWh", "V"), "needs its unit"),
        (text("\"i32\"", "\"bool\""), "no readable number"),
        (text("address = 1", "address = 0xFFFF"), "passes address 65535"),
        (format!("max_registers_per_read = 1\n{}", meter(good)), "takes 2 registers"),
        (meter(good) + "exponent = \"expo\"", "no point of this file"),
        (meter(good) + "plus = [\"tariff\"]", "`tariff` is no readable number"),
        (
            format!("identify = {{ point = \"id\", equals = [1] }}\n{}", meter(good)),
            "no readable point",
        ),
        (meter(good) + "bits = { shift = 30, width = 3 }", "do not fit 32 bits"),
        (meter(good) + "write = { on = 1, off = 0 }", "not writable"),
        (meter(good) + "sentinels = [\"x\"]", "expected a raw whole number"),
        (FULL.replace("off = 512", "other = 1"), "belong together"),
        (FULL.replace("\"2\" = \"B\"", "\"2\" = \"plugged\""), "vehicle states are"),
        (
            FULL.replace("name = \"relay\"", "name = \"relay\"\ncount = 256")
                .replace("count = 2\n", "")
                .replace("address = 20", "address = 0xFF00"),
            "passes address 65535",
        ),
    ] {
        let problems = parse("m.toml", &text).expect_err(message);
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(shown.iter().any(|shown| shown.contains(message)), "{message}: {shown:#?}");
    }
}

#[test]
fn a_profile_that_writes_a_switch_on_connect_is_refused_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Library::built_in().find("waveshare-relay-8d").expect("built in").text.clone();
    let text = relay.replacen("\"mode-1\"", "\"relay-2\"", 1);
    std::fs::write(folder.path().join("own.toml"), text).expect("written");
    let library = Library::with_folder(folder.path(), true).expect("valid");

    let found = parse_with(super::SITE, "c.toml", &library).expect_err("relay-2 is a switch");

    let shown: Vec<_> = found.problems().iter().map(|p| (p.line, p.key.as_str())).collect();
    assert_eq!(shown, [(53, "station.switch")], "{found}");
}

#[test]
fn a_charger_without_a_lifetime_register_or_a_way_to_stop_is_refused() {
    let bender = Library::built_in().find("bender-cc612").expect("built in").text.clone();
    for (from, to, message) in [
        ("[points.energy_import]", "[points.energy_session]", "no lifetime energy register"),
        ("stop = [", "start = [", "no way to stop"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("own.toml"), bender.replacen(from, to, 1))
            .expect("written");
        let library = Library::with_folder(folder.path(), true).expect("valid");

        let found = parse_with(super::SITE, "c.toml", &library).expect_err("it cannot be billed");

        let problems = found.problems();
        assert_eq!((problems.len(), problems[0].line, problems[0].column), (1, 59, 11), "{found}");
        assert!(problems[0].message.contains(message), "{found}");
    }
}
