//! Reads a profile file: the register map of a device model as a technician writes it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::{At, Document, Entry, Section};
use super::problem::Problem;
use super::profile::{
    Class, Confidence, Defaults, Heartbeat, Identify, OnSilence, PointWrite, Profile, Table,
    ValueType, WordOrder,
};
use super::profile_points::{self, Named};
use super::values;
use super::wiring::Parity;

/// Modbus application protocol 1.1b3, section 6.3: 250 bytes of answer.
pub(super) const MAX_REGISTERS_PER_READ: u16 = 125;
/// Longer gaps would make one device block its bus.
const MAX_GAP: Duration = Duration::from_secs(10);
/// A device that answers later than this is not usable for a tap.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(10);
const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) const PARITIES: [(&str, Parity); 3] =
    [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];
/// What serial adapters offer.
pub(super) const BAUD_RATES: [i64; 9] =
    [1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200, 230_400];

/// The profile that `text` describes, or all that is wrong with it.
pub(super) fn parse(file: &str, text: &str) -> Result<Profile, Vec<Problem>> {
    let document = Document::new(file, text);
    let profile = document.parse().and_then(|table| read(Section::root(&document, &table)));
    match (profile, document.into_problems().0) {
        (Some(profile), errors) if errors.is_empty() => Ok(profile),
        (_, errors) => Err(errors),
    }
}

fn read(file: Section<'_>) -> Option<Profile> {
    for (key, example) in [("name", "\"vendor-model\""), ("class", "\"meter\"")] {
        file.require(key, example);
    }
    let name = file.parsed("name", "vendor-model", profile_name);
    let class = file.choice("class", &CLASSES);
    let most = i64::from(MAX_REGISTERS_PER_READ);
    let max_registers_per_read = file
        .integer("max_registers_per_read", 1..=most)
        .and_then(|at| u16::try_from(at.value).ok())
        .unwrap_or(MAX_REGISTERS_PER_READ);
    let points = profile_points::read(&file, max_registers_per_read);
    let actions = Actions::read(&file, &points);
    if let Some(class) = &class {
        check_class(&file, class, &points);
    }
    let profile = Profile {
        name: name.map(|at| at.value).unwrap_or_default(),
        class: class.map_or(Class::Io, |at| at.value),
        vendor: owned(file.text("vendor")),
        model: owned(file.text("model")),
        source: owned(file.text("source")),
        confidence: file.choice("confidence", &CONFIDENCES).map(|at| at.value),
        defaults: file.table("defaults").map(read_defaults).unwrap_or_default(),
        max_registers_per_read,
        max_hole: file.integer("max_hole", 0..=most).and_then(|at| u16::try_from(at.value).ok()),
        min_gap: gap(&file, "min_gap").unwrap_or_default(),
        min_write_gap: gap(&file, "min_write_gap").unwrap_or_default(),
        timeout: file.duration("timeout", "500ms", MILLISECOND..=MAX_TIMEOUT).map(|at| at.value),
        identify: identify(&file, &points),
        points: points.into_iter().map(|(name, named)| (name, named.point)).collect(),
        startup: actions.startup,
        heartbeat: actions.heartbeat,
        start: actions.start,
        stop: actions.stop,
        refresh: file.duration("refresh", "30s", SECOND..=values::MAX_DURATION).map(|at| at.value),
        on_silence: file.choice("on_silence", &ON_SILENCE).map(|at| at.value),
    };
    file.finish();
    Some(profile)
}

const SECOND: Duration = Duration::from_secs(1);
const CLASSES: [(&str, Class); 4] = [
    ("relay", Class::Relay),
    ("meter", Class::Meter),
    ("charger", Class::Charger),
    ("io", Class::Io),
];
const CONFIDENCES: [(&str, Confidence); 2] =
    [("high", Confidence::High), ("medium", Confidence::Medium)];
const ON_SILENCE: [(&str, OnSilence); 3] =
    [("keep", OnSilence::Keep), ("open", OnSilence::Open), ("limit", OnSilence::Limit)];
pub(super) const TABLES: [(&str, Table); 4] = [
    ("coil", Table::Coil),
    ("discrete", Table::Discrete),
    ("input", Table::Input),
    ("holding", Table::Holding),
];
pub(super) const WORD_ORDERS: [(&str, WordOrder); 4] = [
    ("big", WordOrder::Big),
    ("little", WordOrder::Little),
    ("big-byte-swapped", WordOrder::BigByteSwapped),
    ("little-byte-swapped", WordOrder::LittleByteSwapped),
];

/// Profiles and points are named in lower case, so that they read alike everywhere.
pub(super) fn profile_name(name: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name.into());
    }
    Err(format!("`{name}` is no name: 1 to 64 of a-z, 0-9, - and _"))
}

fn owned(text: Option<At<&str>>) -> String {
    text.map(|at| at.value.to_owned()).unwrap_or_default()
}

fn gap(file: &Section<'_>, key: &'static str) -> Option<Duration> {
    file.duration(key, "100ms", Duration::ZERO..=MAX_GAP).map(|at| at.value)
}

fn read_defaults(section: Section<'_>) -> Defaults {
    let defaults = Defaults {
        baud: baud(&section),
        parity: section.choice("parity", &PARITIES).map(|at| at.value),
        stop_bits: section.integer("stop_bits", 1..=2).map(|at| at.value as u8),
        unit: section.integer("unit", 0..=255).map(|at| at.value as u8),
    };
    section.finish();
    defaults
}

/// `baud`, one of the usual rates.
pub(super) fn baud(section: &Section<'_>) -> Option<u32> {
    let baud = section.integer("baud", 1_200..=230_400)?;
    if BAUD_RATES.contains(&baud.value) {
        return u32::try_from(baud.value).ok();
    }
    let rates = BAUD_RATES.map(|rate| rate.to_string()).join(", ");
    let message = format!("{} baud is no usual rate", baud.value);
    section.document.error(&baud.place, message, format!("write one of {rates}"));
    None
}

/// A meter without its register, or a relay board without a relay, is a file cut short.
fn check_class(file: &Section<'_>, class: &At<Class>, points: &BTreeMap<String, Named>) {
    // What is there and wrong is reported as such.
    let written = |name: &str| {
        let written = file.get("points");
        written
            .is_some_and(|entry| entry.value().as_table().is_some_and(|it| it.contains_key(name)))
    };
    let has = |name: &str| points.contains_key(name) || written(name);
    let needs = match class.value {
        Class::Meter => (!has("energy_import"))
            .then_some(("a meter needs the point `energy_import`", "add [points.energy_import]")),
        Class::Relay => (!points.values().any(|named| named.point.writable))
            .then_some(("a relay board needs a point with access = \"rw\"", RELAY_HELP)),
        Class::Charger => (!has("current_limit"))
            .then_some(("a charger needs the point `current_limit`", "add [points.current_limit]")),
        Class::Io => None,
    };
    if let Some((message, help)) = needs {
        file.document.error(&class.place, message, help);
    }
}

const RELAY_HELP: &str =
    "add [[point_range]] with name = \"relay\", count, table, address and access = \"rw\"";

/// What the gateway writes of its own accord.
struct Actions {
    startup: Vec<PointWrite>,
    heartbeat: Option<Heartbeat>,
    start: Vec<PointWrite>,
    stop: Vec<PointWrite>,
}

impl Actions {
    fn read(file: &Section<'_>, points: &BTreeMap<String, Named>) -> Actions {
        Actions {
            startup: writes(file, "startup", points),
            heartbeat: heartbeat(file, points),
            start: writes(file, "start", points),
            stop: writes(file, "stop", points),
        }
    }
}

/// A list of `{ point = "...", value = N }`.
fn writes(
    file: &Section<'_>,
    key: &'static str,
    points: &BTreeMap<String, Named>,
) -> Vec<PointWrite> {
    let read = |section: Section<'_>| {
        let write = point_write(&section, points);
        section.finish();
        write
    };
    file.tables(key).into_iter().filter_map(read).collect()
}

fn heartbeat(file: &Section<'_>, points: &BTreeMap<String, Named>) -> Option<Heartbeat> {
    let section = file.table("heartbeat")?;
    section.require("interval", "\"5s\"");
    let interval = section.duration("interval", "5s", SECOND..=values::MAX_DURATION);
    let write = point_write(&section, points);
    section.finish();
    let PointWrite { point, value } = write?;
    Some(Heartbeat { point, value, interval: interval?.value })
}

/// `identify = { point = "model", equals = [341, "B23"] }`.
fn identify(file: &Section<'_>, points: &BTreeMap<String, Named>) -> Option<Identify> {
    let section = file.table("identify")?;
    section.require("point", "\"model\"");
    section.require("equals", "[341]");
    let point = section.text("point");
    let equals = section.get("equals");
    section.finish();
    let (point, equals) = (point?, equals?);
    let Some(elements) = equals.elements() else {
        equals.wrong_type("a list of numbers or strings", "write equals = [341]");
        return None;
    };
    if !points.get(point.value).is_some_and(|named| named.point.readable) {
        let message = format!("`{}` is no readable point of this file", point.value);
        file.document.error(&point.place, message, "name a point, and what it shows");
    }
    let shown = |entry: &Entry<'_>| match entry.value().as_str() {
        Some(text) => Some(text.to_owned()),
        None => entry.integer(i64::MIN..=i64::MAX).map(|at| at.value.to_string()),
    };
    let equals = elements.iter().filter_map(shown).collect();
    Some(Identify { point: point.value.into(), equals })
}

fn point_write(section: &Section<'_>, points: &BTreeMap<String, Named>) -> Option<PointWrite> {
    section.require("point", "\"watchdog\"");
    section.require("value", "0");
    let value = section.integer("value", i64::MIN..=i64::MAX);
    let point = section.text("point")?;
    let fault = match points.get(point.value) {
        None => Some("this profile has no such point"),
        Some(named) if !named.point.writable => Some("this point is not writable"),
        Some(_) => None,
    };
    if let Some(message) = fault {
        let names = points.keys().map(String::as_str);
        let help = match values::closest(point.value, names) {
            Some(similar) if similar != point.value => format!("did you mean `{similar}`?"),
            Some(_) | None => "name a point of this file with access = \"rw\" or \"w\"".into(),
        };
        section.document.error(&point.place, format!("`{}`: {message}", point.value), help);
    }
    Some(PointWrite { point: point.value.into(), value: value?.value })
}

/// How a value is read, by the word in `type`.
pub(super) fn value_type(section: &Section<'_>, table: Option<Table>) -> Option<ValueType> {
    let bits = matches!(table, Some(Table::Coil | Table::Discrete));
    if !section.has("type") && bits {
        // Known all the same, for the list of keys.
        return section.get("type").is_none().then_some(ValueType::Bool);
    }
    section.require("type", "\"u16\"");
    let value = section.choice("type", &VALUE_TYPES)?;
    if bits && value.value != ValueType::Bool {
        let message = "a coil or a discrete input is one bit";
        section.document.error(&value.place, message, "write type = \"bool\" or leave it out");
    }
    let ValueType::String(_) = value.value else { return Some(value.value) };
    section.require("length", "7");
    let length = section.integer("length", 1..=i64::from(MAX_REGISTERS_PER_READ))?;
    u16::try_from(length.value).ok().map(ValueType::String)
}

const VALUE_TYPES: [(&str, ValueType); 10] = [
    ("bool", ValueType::Bool),
    ("u16", ValueType::U16),
    ("i16", ValueType::I16),
    ("u32", ValueType::U32),
    ("i32", ValueType::I32),
    ("u64", ValueType::U64),
    ("i64", ValueType::I64),
    ("f32", ValueType::F32),
    ("f64", ValueType::F64),
    ("string", ValueType::String(0)),
];

/// `address`, as on the wire; refuses the numbers of manuals that count from 30001 or 40001.
pub(super) fn address(section: &Section<'_>, table: Option<Table>) -> Option<u16> {
    let entry = section.get("address")?;
    let decimal = entry.value().as_integer().is_some_and(|number| number.radix() == 10);
    let documented = entry.value().as_integer().and_then(|number| number.as_str().parse().ok());
    if let Some(number) = documented.filter(|_| decimal)
        && let Some(message) = documentation_number(number, table)
    {
        let hex = format!("{number:#06X}").replace("0X", "0x");
        let help = format!("addresses are as on the wire; where {number} is one, write {hex}");
        section.document.error(&entry.place, message, help);
        return None;
    }
    entry.integer(0..=0xFFFF).and_then(|at| u16::try_from(at.value).ok())
}

/// What a number such as 40001 means in a manual.
fn documentation_number(number: i64, table: Option<Table>) -> Option<String> {
    const NUMBERING: [(Table, &str, i64, i64); 5] = [
        (Table::Holding, "holding", 40_001, 49_999),
        (Table::Input, "input", 30_001, 39_999),
        (Table::Discrete, "discrete", 10_001, 19_999),
        (Table::Holding, "holding", 400_001, 465_536),
        (Table::Input, "input", 300_001, 365_536),
    ];
    let (meant, word, first, _) =
        NUMBERING.into_iter().find(|(_, _, first, last)| (*first..=*last).contains(&number))?;
    // Vendors do use wire addresses from 10001 on in the register tables.
    if meant == Table::Discrete && table != Some(Table::Discrete) {
        return None;
    }
    Some(format!("{number} is a manual's number: address {} in table {word}", number - first))
}

/// An entry that may be a whole or a decimal number, as its text.
pub(super) fn number_text<'d>(entry: &Entry<'d>) -> Option<&'d str> {
    let value = entry.value();
    let whole = value.as_integer().filter(|number| number.radix() == 10);
    whole.map(|number| number.as_str()).or_else(|| value.as_float().map(|float| float.as_str()))
}
