//! The points of a profile file: `[points.NAME]` and `[[point_range]]`.

use std::collections::BTreeMap;

use super::document::{At, Entry, Place, Section};
use super::profile::{Point, Scale, Table, ValueType, WordOrder, WriteAs};
use super::profile_file::{TABLES, WORD_ORDERS, address, number_text, profile_name, value_type};
use super::values;

/// A point and where the file names it.
pub(super) struct Named {
    pub(super) point: Point,
    place: Place,
}

/// No module has more outputs of one kind on one unit.
const MAX_RANGE: i64 = 256;
/// Scales are powers of ten in practice; keeps `raw × scale` of 64-bit registers within 128 bits.
const MAX_SCALE_DIGITS: usize = 12;

/// All points by name; what refers to another point resolves.
pub(super) fn read(file: &Section<'_>, max_registers: u16) -> BTreeMap<String, Named> {
    let mut points = BTreeMap::new();
    if let Some(section) = file.table("points") {
        for (name, entry) in section.entries() {
            if let Err(message) = profile_name(name.value) {
                section.document.error(&name.place, message, "rename the point");
            }
            let Some(point) = entry.into_section().and_then(read_point) else { continue };
            points.insert(name.value.to_owned(), Named { point, place: name.place });
        }
    }
    for range in file.tables("point_range") {
        read_range(range, &mut points);
    }
    for (name, named) in &points {
        check(file, name, named, &points, max_registers);
    }
    points
}

fn read_point(section: Section<'_>) -> Option<Point> {
    let point = point_of(&section);
    section.finish();
    point
}

/// `relay-1`, `relay-2`, ...: points that follow each other.
fn read_range(section: Section<'_>, points: &mut BTreeMap<String, Named>) {
    section.require("name", "\"relay\"");
    section.require("count", "8");
    let name = section.parsed("name", "relay", profile_name);
    let count = section.integer("count", 1..=MAX_RANGE).map(|at| at.value);
    let step = section.integer("step", 1..=MAX_RANGE).map(|at| at.value);
    let first = point_of(&section);
    let (document, place) = (section.document, section.place.clone());
    section.finish();
    let (Some(name), Some(count), Some(first)) = (name, count, first) else { return };
    let step = step.unwrap_or(i64::from(first.value.registers()));
    for index in 0..count {
        let Some(point) = shifted(&first, index * step) else {
            let help = "lower count, step or address";
            document.error(&place, "the range passes address 65535", help);
            return;
        };
        let name = format!("{}-{}", name.value, index + 1);
        let named = Named { point, place: place.clone() };
        if let Some(other) = points.insert(name.clone(), named) {
            let line = document.line(&other.place);
            let message = format!("`{name}` is also the name of a point on line {line}");
            document.error(&place, message, "give the range another name");
        }
    }
}

fn shifted(first: &Point, offset: i64) -> Option<Point> {
    let shift = |address: u16| u16::try_from(i64::from(address) + offset).ok();
    let mut point = Point { address: shift(first.address)?, ..first.clone() };
    if let Some(write) = &mut point.write {
        write.address = write.address.map(|address| shift(address).ok_or(())).transpose().ok()?;
    }
    Some(point)
}

fn point_of(section: &Section<'_>) -> Option<Point> {
    section.require("table", "\"holding\"");
    section.require("address", "0");
    let table = section.choice("table", &TABLES).map(|at| at.value);
    let (readable, writable) = access(section, table);
    let address = address(section, table);
    let value = value_type(section, table);
    let point = Point {
        table: table.unwrap_or(Table::Holding),
        address: address.unwrap_or_default(),
        value: value.unwrap_or(ValueType::U16),
        word_order: section
            .choice("word_order", &WORD_ORDERS)
            .map_or(WordOrder::Big, |at| at.value),
        scale: scale(section).unwrap_or(Scale::ONE),
        unit: section.text("unit").map(|at| at.value.to_owned()),
        writable,
        readable,
        sentinels: sentinels(section, value),
        bits: bits(section, value),
        exponent: section.text("exponent").map(|at| at.value.to_owned()),
        write: section.table("write").map(|write| write_as(write, writable)),
        values: section.table("values").map(meanings).unwrap_or_default(),
        plus: plus(section),
    };
    (table.is_some() && address.is_some() && value.is_some()).then_some(point)
}

/// `access`: whether a point may be read and written.
fn access(section: &Section<'_>, table: Option<Table>) -> (bool, bool) {
    const WORDS: [(&str, (bool, bool)); 3] =
        [("r", (true, false)), ("rw", (true, true)), ("w", (false, true))];
    let Some(access) = section.choice("access", &WORDS) else { return (true, false) };
    if access.value.1 && matches!(table, Some(Table::Discrete | Table::Input)) {
        let message = "discrete inputs and input registers cannot be written";
        section.document.error(&access.place, message, "write table = \"coil\" or \"holding\"");
    }
    access.value
}

fn sentinels(section: &Section<'_>, value: Option<ValueType>) -> Vec<i64> {
    let Some(entry) = section.get("sentinels") else { return Vec::new() };
    let Some(elements) = entry.elements() else {
        entry.wrong_type("a list of numbers", "write sentinels = [0x7FFFFFFF]");
        return Vec::new();
    };
    let read = |element: &Entry<'_>| {
        let number = element.value().as_integer()?;
        // A u64 keeps its bits: 0xFFFF_FFFF_FFFF_FFFF is -1.
        let wide = (value == Some(ValueType::U64))
            .then(|| u64::from_str_radix(number.as_str(), number.radix()).ok())
            .flatten();
        wide.map(u64::cast_signed)
            .or_else(|| i64::from_str_radix(number.as_str(), number.radix()).ok())
    };
    let mut sentinels = Vec::new();
    for element in &elements {
        match read(element) {
            Some(number) => sentinels.push(number),
            None => element.wrong_type("a raw whole number", "write it as the register holds it"),
        }
    }
    sentinels
}

/// `plus = ["energy-tariff-2"]`.
fn plus(section: &Section<'_>) -> Vec<String> {
    let names = section.texts("plus").map(|at| at.value).unwrap_or_default();
    names.into_iter().map(|name| name.value.to_owned()).collect()
}

fn bits(section: &Section<'_>, value: Option<ValueType>) -> Option<(u8, u8)> {
    let section = section.table("bits")?;
    section.require("shift", "8");
    section.require("width", "7");
    let shift = section.integer("shift", 0..=63);
    let width = section.integer("width", 1..=64);
    let (document, place) = (section.document, section.place.clone());
    section.finish();
    let (shift, width) = (shift?.value, width?.value);
    let size = value.map_or(64, |value| i64::from(value.registers()) * 16);
    if shift + width > size {
        let message = format!("bits {shift} to {} do not fit {size} bits", shift + width - 1);
        document.error(&place, message, "lower shift or width, or use a wider type");
        return None;
    }
    Some((shift as u8, width as u8))
}

/// Function 6, which is the default for one register, and function 16.
const FUNCTIONS: [(&str, bool); 2] = [("single", false), ("multiple", true)];
/// A value per phase.
const MAX_COPIES: i64 = 3;

fn write_as(section: Section<'_>, writable: bool) -> WriteAs {
    let number = |key| section.integer(key, 0..=0xFFFF).and_then(|at| u16::try_from(at.value).ok());
    let has_address = section.has("address");
    let write = WriteAs {
        address: has_address.then(|| address(&section, None)).flatten(),
        on: number("on"),
        off: number("off"),
        multiple: section.choice("function", &FUNCTIONS).is_some_and(|at| at.value),
        copies: section
            .integer("copies", 1..=MAX_COPIES)
            .map_or(1, |at| u16::try_from(at.value).unwrap_or(1)),
    };
    if !has_address {
        // Known all the same, for the list of keys.
        let _ = section.get("address");
    }
    if write.on.is_some() != write.off.is_some() {
        let help = "write = { on = 256, off = 512 }";
        section.document.error(&section.place, "`on` and `off` belong together", help);
    }
    if !writable {
        let help = "add access = \"rw\" or leave out write";
        section.document.error(&section.place, "the point is not writable", help);
    }
    section.finish();
    write
}

/// `values = { "1" = "A", "2" = "B" }`: raw value to meaning.
fn meanings(section: Section<'_>) -> BTreeMap<String, String> {
    let read = |(name, entry): (At<&str>, Entry<'_>)| {
        let text = entry.text("a string", "write values = { \"1\" = \"A\" }".into())?;
        Some((name.value.to_owned(), text.value.to_owned()))
    };
    section.entries().filter_map(read).collect()
}

fn scale(section: &Section<'_>) -> Option<Scale> {
    let entry = section.get("scale")?;
    let help = "write scale = 0.1, 1, 10, ...";
    let Some(text) = number_text(&entry) else {
        entry.wrong_type("a number", help);
        return None;
    };
    let scale = exact_decimal(text);
    if scale.is_none() {
        let message = format!("`{text}` is no scale: above 0, at most {MAX_SCALE_DIGITS} digits");
        section.document.error(&entry.place, message, help);
    }
    scale
}

/// A decimal number as the fraction that it is: no watt-hour is lost to a binary one.
fn exact_decimal(text: &str) -> Option<Scale> {
    let text = text.trim_start_matches('+').to_ascii_lowercase();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    if digits.len() > MAX_SCALE_DIGITS {
        return None;
    }
    let exponent = exponent.parse::<i32>().ok()? - i32::try_from(fraction.len()).ok()?;
    if usize::try_from(exponent.unsigned_abs()).ok()? > MAX_SCALE_DIGITS {
        return None;
    }
    let (mut numerator, power) = (digits.parse::<i64>().ok()?, exponent.unsigned_abs());
    let mut denominator = 1;
    if exponent >= 0 {
        numerator = numerator.checked_mul(10i64.checked_pow(power)?)?;
    } else {
        denominator = 10i64.checked_pow(power)?;
    }
    let common = greatest_common_divisor(numerator, denominator);
    (numerator > 0)
        .then(|| Scale { numerator: numerator / common, denominator: denominator / common })
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a.max(1) } else { greatest_common_divisor(b, a % b) }
}

/// What only shows when all points are known, and what the standard names demand.
fn check(
    file: &Section<'_>,
    name: &str,
    named: &Named,
    points: &BTreeMap<String, Named>,
    max_registers: u16,
) {
    let Named { point, place } = named;
    let report = |message: String, help: &str| file.document.error(place, message, help);
    let length = point.value.registers();
    if length > max_registers {
        let message =
            format!("takes {length} registers, max_registers_per_read is {max_registers}");
        report(message, "shorten the point or raise max_registers_per_read");
    }
    if u32::from(point.address) + u32::from(length) > 0x1_0000 {
        report("passes address 65535".into(), "lower its address");
    }
    if let Some(exponent) = &point.exponent
        && !points.contains_key(exponent)
    {
        let help = match values::closest(exponent, points.keys().map(String::as_str)) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("add [points.{exponent}]"),
        };
        report(format!("exponent `{exponent}` is no point of this file"), &help);
    }
    for other in &point.plus {
        if !points.get(other).is_some_and(|added| is_number(&added.point)) {
            report(format!("plus: `{other}` is no readable number of this file"), "name a point");
        }
    }
    for (message, help) in check_standard(name, point) {
        report(message, help);
    }
}

/// The standard names that the daemon computes with have units that it knows.
fn check_standard(name: &str, point: &Point) -> Vec<(String, &'static str)> {
    let units: &[&str] = match name {
        "energy_import" => &["Wh", "kWh", "MWh"],
        "power" => &["W", "kW"],
        "current_limit" | "failsafe_current" => &["A", "mA"],
        "voltage" => &["V", "mV"],
        _ => &[],
    };
    let mut faults = Vec::new();
    let unit = point.unit.as_deref().unwrap_or_default();
    if !units.is_empty() && !units.contains(&unit) {
        faults.push((format!("`{name}` needs its unit: {}", units.join(" or ")), "add unit = ..."));
    }
    if matches!(name, "energy_import" | "power" | "voltage") && !is_number(point) {
        faults.push((format!("`{name}` is no readable number"), "set type and access"));
    }
    let states = ["A", "B", "C", "F"];
    let is_state = matches!(name, "vehicle_state" | "charging_state");
    if is_state && !point.values.values().all(|to| states.contains(&to.as_str())) {
        faults.push((
            "vehicle states are A (no car), B (car), C (charging) and F (fault)".into(),
            "write values = { \"1\" = \"A\", ... }",
        ));
    }
    faults
}

fn is_number(point: &Point) -> bool {
    let number = match point.value {
        ValueType::Bool | ValueType::String(_) => false,
        ValueType::U16 | ValueType::I16 | ValueType::U32 | ValueType::I32 => true,
        ValueType::U64 | ValueType::I64 | ValueType::F32 | ValueType::F64 => true,
    };
    number && point.readable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_exact_fractions() {
        for (text, numerator, denominator) in [
            ("1", 1, 1),
            ("0.1", 1, 10),
            ("0.01", 1, 100),
            ("0.5", 1, 2),
            ("1000", 1_000, 1),
            ("1000.0", 1_000, 1),
            ("1e-3", 1, 1_000),
            ("2.5E2", 250, 1),
        ] {
            let scale = Scale { numerator, denominator };
            assert_eq!(exact_decimal(text), Some(scale), "{text}");
        }
        for wrong in ["0", "0.0", "-1", "nan", "inf", "1e99", "0.00000000000001", ""] {
            assert_eq!(exact_decimal(wrong), None, "{wrong}");
        }
    }
}
