//! Raw words and bits to values and back, exactly as a profile's point says.
//!
//! Energy is floor(Wh) of what the meter shows, power is milliwatts, both integers. Integer
//! registers are computed exactly; floats go through their shortest decimal form, which is what the
//! meter's display shows: an f32 of 12.346 kWh is 12346 Wh, not the 12345 of its binary fraction.

mod number;
#[cfg(test)]
mod tests;

use crate::config::profile::{Point, Table, ValueType, WordOrder};
use crate::core::event::Vehicle;
pub(crate) use number::Number;

/// What a device answered for one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// A coil or discrete input.
    Bit(bool),
    /// Registers, in wire order.
    Words(Vec<u16>),
}

/// What is written for one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// One coil.
    Coil(u16, bool),
    /// One register.
    Register(u16, u16),
    /// Several registers, in wire order.
    Registers(u16, Vec<u16>),
}

/// Run-time exponents beyond this are no exponents but noise.
const MAX_EXPONENT: i64 = 12;

/// A point that a value is made of, what was read for it, and the value of the point that
/// [`Point::exponent`] names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) point: &'a Point,
    pub(crate) raw: &'a Raw,
    pub(crate) exponent: Option<i64>,
}

/// Floor of the sum in watt-hours; `None` where a part has no value, for a negative sum and for one
/// beyond 64 bits.
pub(crate) fn energy_wh(parts: &[Part<'_>]) -> Option<i64> {
    let wh = sum(parts, |unit| match unit {
        "Wh" => Some(1),
        "kWh" => Some(1_000),
        "MWh" => Some(1_000_000),
        _ => None,
    })?;
    i64::try_from(wh.floor()).ok().filter(|wh| *wh >= 0)
}

/// Milliwatts, negative for export; `None` for no value.
pub(crate) fn power_mw(parts: &[Part<'_>]) -> Option<i64> {
    let mw = sum(parts, |unit| match unit {
        "mW" => Some(1),
        "W" => Some(1_000),
        "kW" => Some(1_000_000),
        _ => None,
    })?;
    i64::try_from(mw.floor()).ok()
}

/// Millivolts; `None` for no value.
pub(crate) fn voltage_mv(point: &Point, raw: &Raw, exponent: Option<i64>) -> Option<i64> {
    let part = Part { point, raw, exponent };
    let mv = sum(&[part], |unit| match unit {
        "mV" => Some(1),
        "V" => Some(1_000),
        _ => None,
    })?;
    i64::try_from(mv.floor()).ok()
}

/// The parts together, each in the unit that `factor` leads to.
fn sum(parts: &[Part<'_>], factor: impl Fn(&str) -> Option<i128>) -> Option<Number> {
    parts.iter().try_fold(Number::from(0_i64), |sum, part| {
        let factor = factor(part.point.unit.as_deref()?)?;
        sum.plus(physical(part.point, part.raw, part.exponent)?.times(factor)?)
    })
}

/// The floor of the value in the point's own unit; `None` for no value.
pub(crate) fn whole(point: &Point, raw: &Raw) -> Option<i64> {
    i64::try_from(physical(point, raw, None)?.floor()).ok()
}

/// Whether a coil, an input or a register says yes; `None` for no value.
pub(crate) fn is_on(point: &Point, raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Bit(bit) => Some(*bit),
        Raw::Words(_) => Some(!number(point, raw)?.is_zero()),
    }
}

/// A string without its padding, a number in decimal; `None` where it is empty or no value.
pub(crate) fn text(point: &Point, raw: &Raw) -> Option<String> {
    match (raw, point.value) {
        (Raw::Words(words), ValueType::String(_)) => string(point, words),
        (Raw::Words(_), _) => Some(number(point, raw)?.floor().to_string()),
        (Raw::Bit(bit), _) => Some(u8::from(*bit).to_string()),
    }
}

/// A number with its decimals, in the point's own unit; `None` for strings and for no value.
pub(crate) fn decimal(point: &Point, raw: &Raw, exponent: Option<i64>) -> Option<String> {
    Some(physical(point, raw, exponent)?.to_f64().to_string())
}

/// The state of the car: by the point's value map, else by the first letter of a string.
pub(crate) fn vehicle(point: &Point, raw: &Raw) -> Option<Vehicle> {
    let shown = text(point, raw)?;
    let letter = point.values.get(&shown).unwrap_or(&shown);
    match letter.chars().next()? {
        'A' => Some(Vehicle::Absent),
        'B' => Some(Vehicle::Connected),
        'C' | 'D' => Some(Vehicle::Charging),
        'E' | 'F' => Some(Vehicle::Fault),
        _ => None,
    }
}

/// The write that sets a point to a value in its own unit (raw = value / scale).
pub(crate) fn encode(point: &Point, value: Number) -> Result<Write, &'static str> {
    let other = point.write.as_ref();
    let address = other.and_then(|write| write.address).unwrap_or(point.address);
    let on_off = other.is_some_and(|write| write.on.is_some() || write.off.is_some());
    if point.value == ValueType::Bool || on_off {
        return Ok(encode_bool(point, address, !value.is_zero()));
    }
    if matches!(point.table, Table::Coil | Table::Discrete) {
        return Ok(Write::Coil(address, !value.is_zero()));
    }
    let raw = value
        .times(point.scale.denominator.into())
        .and_then(|value| value.divided_by(point.scale.numerator.into()))
        .ok_or("the value is out of range")?;
    let words = words_of(point, raw).ok_or("the value does not fit the point's type")?;
    Ok(registers(point, address, words))
}

/// By function 6 where that does, else by function 16.
fn registers(point: &Point, address: u16, words: Vec<u16>) -> Write {
    let (multiple, copies) =
        point.write.as_ref().map_or((false, 1), |write| (write.multiple, write.copies));
    match words.repeat(usize::from(copies)).as_slice() {
        [word] if !multiple => Write::Register(address, *word),
        words => Write::Registers(address, words.to_vec()),
    }
}

fn encode_bool(point: &Point, address: u16, on: bool) -> Write {
    match point.table {
        Table::Coil | Table::Discrete => Write::Coil(address, on),
        Table::Input | Table::Holding => {
            let write = point.write.as_ref();
            let word = if on {
                write.and_then(|write| write.on).unwrap_or(1)
            } else {
                write.and_then(|write| write.off).unwrap_or(0)
            };
            registers(point, address, vec![word])
        }
    }
}

/// The value in the point's unit: raw × scale × 10^exponent.
fn physical(point: &Point, raw: &Raw, exponent: Option<i64>) -> Option<Number> {
    let exponent = match (&point.exponent, exponent) {
        (Some(_), None) => return None,
        (Some(_), Some(exponent)) if exponent.abs() > MAX_EXPONENT => return None,
        (Some(_), Some(exponent)) => exponent as i32,
        (None, _) => 0,
    };
    number(point, raw)?
        .times(point.scale.numerator.into())?
        .divided_by(point.scale.denominator.into())?
        .times_power_of_ten(exponent)
}

/// The raw number: after word order, sentinels and bit slice, before scale.
fn number(point: &Point, raw: &Raw) -> Option<Number> {
    let words = match raw {
        Raw::Bit(bit) => return Some(Number::from(i64::from(*bit))),
        Raw::Words(words) => words,
    };
    if words.len() != usize::from(point.value.registers()) {
        return None;
    }
    let pattern = in_order(point.word_order, words)
        .iter()
        .fold(0_u64, |pattern, word| pattern << 16 | u64::from(*word));
    match point.value {
        ValueType::Bool | ValueType::U16 | ValueType::U32 | ValueType::U64 => {
            integer(point, pattern, false)
        }
        ValueType::I16 | ValueType::I32 | ValueType::I64 => integer(point, pattern, true),
        ValueType::F32 => float(point, Number::from_shortest(f32::from_bits(pattern as u32))),
        ValueType::F64 => float(point, Number::from_shortest(f64::from_bits(pattern))),
        ValueType::String(_) => None,
    }
}

/// An integer register. A bit slice of a signed type is signed itself.
fn integer(point: &Point, pattern: u64, signed: bool) -> Option<Number> {
    let width = u32::from(point.value.registers()) * 16;
    if is_sentinel(point, pattern, width) {
        return None;
    }
    let (pattern, width) = match point.bits {
        None => (pattern, width),
        Some((shift, slice)) => {
            let slice = u32::from(slice).clamp(1, 64);
            (pattern.checked_shr(shift.into())? & (u64::MAX >> (64 - slice)), slice)
        }
    };
    let value = if signed { sign_extended(pattern, width).into() } else { i128::from(pattern) };
    Some(Number::from(value))
}

/// NaN and infinities are no value already; a sentinel of a float is compared by value.
fn float(point: &Point, value: Option<Number>) -> Option<Number> {
    value.filter(|value| point.sentinels.iter().all(|sentinel| *value != Number::from(*sentinel)))
}

/// Sentinels are compared signed and unsigned: profiles write -1 as well as 65535.
fn is_sentinel(point: &Point, pattern: u64, width: u32) -> bool {
    let signed = sign_extended(pattern, width);
    point
        .sentinels
        .iter()
        .any(|sentinel| *sentinel == signed || i128::from(*sentinel) == i128::from(pattern))
}

fn sign_extended(pattern: u64, width: u32) -> i64 {
    let spare = 64 - width;
    ((pattern << spare) as i64) >> spare
}

/// From wire order to high word first, and back: each order is its own inverse.
fn in_order(order: WordOrder, words: &[u16]) -> Vec<u16> {
    let swapped = words.iter().map(|word| word.swap_bytes());
    match order {
        WordOrder::Big => words.to_vec(),
        WordOrder::Little => words.iter().rev().copied().collect(),
        WordOrder::BigByteSwapped => swapped.collect(),
        WordOrder::LittleByteSwapped => swapped.rev().collect(),
    }
}

/// Strings run from the first register to the last; only the bytes in a register may be swapped.
fn string(point: &Point, words: &[u16]) -> Option<String> {
    let swap = matches!(point.word_order, WordOrder::BigByteSwapped | WordOrder::LittleByteSwapped);
    let text: String = words
        .iter()
        .flat_map(|word| if swap { word.to_le_bytes() } else { word.to_be_bytes() })
        .filter(|byte| *byte != 0)
        .map(|byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' })
        .collect();
    let text = text.trim();
    (!text.is_empty() && text.chars().any(|c| c != '?')).then(|| text.to_owned())
}

/// The registers of a raw value; integers are floored.
fn words_of(point: &Point, raw: Number) -> Option<Vec<u16>> {
    let floor = raw.floor();
    let pattern = match point.value {
        ValueType::Bool => u64::from(floor != 0),
        ValueType::U16 => u16::try_from(floor).ok()?.into(),
        ValueType::I16 => u64::from(i16::try_from(floor).ok()? as u16),
        ValueType::U32 => u32::try_from(floor).ok()?.into(),
        ValueType::I32 => u64::from(i32::try_from(floor).ok()? as u32),
        ValueType::U64 => u64::try_from(floor).ok()?,
        ValueType::I64 => i64::try_from(floor).ok()? as u64,
        ValueType::F32 => (raw.to_f64() as f32).to_bits().into(),
        ValueType::F64 => raw.to_f64().to_bits(),
        ValueType::String(_) => return None,
    };
    let registers = usize::from(point.value.registers());
    let words: Vec<u16> =
        (0..registers).rev().map(|word| (pattern >> (16 * word)) as u16).collect();
    Some(in_order(point.word_order, &words))
}
