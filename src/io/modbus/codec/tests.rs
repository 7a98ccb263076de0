//! Vectors from register maps of real devices.

use super::*;
use crate::config::profile::{Scale, WriteAs};

fn point(value: ValueType, unit: &str, scale: (i64, i64)) -> Point {
    Point {
        scale: Scale { numerator: scale.0, denominator: scale.1 },
        unit: Some(unit.into()),
        writable: true,
        ..Point::new(Table::Input, 72, value)
    }
}

fn energy(point: &Point, raw: &Raw, exponent: Option<i64>) -> Option<i64> {
    energy_wh(&[Part { point, raw, exponent }])
}

fn power(point: &Point, raw: &Raw) -> Option<i64> {
    power_mw(&[Part { point, raw, exponent: None }])
}

fn words(words: &[u16]) -> Raw {
    Raw::Words(words.to_vec())
}

fn f32_words(value: f32) -> Raw {
    let bits = value.to_bits();
    words(&[(bits >> 16) as u16, bits as u16])
}

fn f64_words(value: f64) -> Raw {
    let bits = value.to_bits();
    words(&[(bits >> 48) as u16, (bits >> 32) as u16, (bits >> 16) as u16, bits as u16])
}

#[test]
fn energy_is_the_floor_of_what_the_meter_shows() {
    use ValueType::{F32, F64, I32, I64, U32, U64};
    let little = |point: Point| Point { word_order: WordOrder::Little, ..point };
    let cases = [
        ("SDM120 12.346 kWh", point(F32, "kWh", (1, 1)), words(&[0x4145, 0x8937]), 12_346),
        ("SDM630 0.1 kWh", point(F32, "kWh", (1, 1)), f32_words(0.1), 100),
        ("SDM120 zero", point(F32, "kWh", (1, 1)), words(&[0, 0]), 0),
        ("minus zero", point(F32, "kWh", (1, 1)), f32_words(-0.0), 0),
        ("tiny", point(F32, "kWh", (1, 1)), f32_words(1e-40), 0),
        ("EM112 1234.5 kWh", little(point(I32, "kWh", (1, 10))), words(&[12_345, 0]), 1_234_500),
        ("EM112 hires", little(point(I64, "Wh", (1, 1))), words(&[0x4240, 0xF, 0, 0]), 1_000_000),
        ("ABB B23 0.01 kWh", point(U64, "kWh", (1, 100)), words(&[0, 0, 1, 0x2345]), 745_650),
        ("iEM3150", point(I64, "Wh", (1, 1)), words(&[0, 1, 0, 0]), 1 << 32),
        ("KEBA 0.1 Wh", point(U32, "Wh", (1, 10)), words(&[0, 12_349]), 1_234),
        ("PAC2200", point(F64, "Wh", (1, 1)), f64_words(16_777_217.9), 16_777_217),
        ("Alfen", point(F64, "Wh", (1, 1)), f64_words(0.3), 0),
        ("Finder f32 Wh", point(F32, "Wh", (1, 1)), f32_words(16_777_216.0), 16_777_216),
    ];
    for (name, point, raw, wh) in cases {
        assert_eq!(energy(&point, &raw, None), Some(wh), "{name}");
    }
}

#[test]
fn every_watt_hour_below_16_mwh_survives_an_f32_of_kilowatt_hours() {
    let point = point(ValueType::F32, "kWh", (1, 1));
    for wh in (0..16_384_000_i64).step_by(61) {
        let shown = (wh as f64 / 1_000.0) as f32;
        assert_eq!(energy(&point, &f32_words(shown), None), Some(wh));
    }
}

#[test]
fn no_value_is_never_a_number() {
    use ValueType::{F32, I32, I64, U32, U64};
    let sentinel = |point: Point, value| Point { sentinels: vec![value], ..point };
    let kwh = |value| point(value, "kWh", (1, 1));
    let cases = [
        ("NaN", kwh(F32), f32_words(f32::NAN)),
        ("infinity", kwh(F32), f32_words(f32::INFINITY)),
        ("negative", kwh(F32), f32_words(-0.5)),
        ("beyond 64 bits", kwh(F32), f32_words(3e38)),
        ("i64 kWh overflow", kwh(I64), words(&[0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF])),
        ("Gavazzi overflow", sentinel(kwh(I32), 0x7FFF_FFFF), words(&[0x7FFF, 0xFFFF])),
        ("ABB all ones", sentinel(kwh(U64), -1), words(&[0xFFFF; 4])),
        ("Bender", sentinel(kwh(U32), 0xFFFF_FFFF), words(&[0xFFFF, 0xFFFF])),
        ("float sentinel", sentinel(kwh(F32), 9_999), f32_words(9_999.0)),
        ("too short", kwh(F32), words(&[0x4145])),
        ("too long", kwh(F32), words(&[0x4145, 0x8937, 0])),
        ("apparent energy", point(U32, "VAh", (1, 1)), words(&[0, 1])),
        ("no unit", Point { unit: None, ..kwh(U32) }, words(&[0, 1])),
        ("zero scale", point(U32, "kWh", (1, 0)), words(&[0, 1])),
    ];
    for (name, point, raw) in cases {
        assert_eq!(energy(&point, &raw, None), None, "{name}");
    }
}

#[test]
fn power_is_milliwatts_and_may_be_negative() {
    use ValueType::{F32, I16, I32, U16};
    let cases = [
        ("SDM120", point(F32, "W", (1, 1)), f32_words(2_012.4), 2_012_400),
        ("iEM3000 kW", point(F32, "W", (1_000, 1)), f32_words(1.5), 1_500_000),
        ("EM112 0.1 W", point(I32, "W", (1, 10)), words(&[0xFFFF, 0xFFFE]), -200),
        ("SBC 10 W", point(I16, "W", (10, 1)), words(&[7]), 70_000),
        ("kW", point(U16, "kW", (1, 100)), words(&[250]), 2_500_000),
        ("export", point(F32, "W", (1, 1)), f32_words(-3.25), -3_250),
    ];
    for (name, point, raw, mw) in cases {
        assert_eq!(power(&point, &raw), Some(mw), "{name}");
    }
}

#[test]
fn all_word_orders_find_the_same_number() {
    let orders = [
        (WordOrder::Big, [0x0102, 0x0304]),
        (WordOrder::Little, [0x0304, 0x0102]),
        (WordOrder::BigByteSwapped, [0x0201, 0x0403]),
        (WordOrder::LittleByteSwapped, [0x0403, 0x0201]),
    ];
    for (word_order, wire) in orders {
        let point = Point { word_order, ..point(ValueType::U32, "Wh", (1, 1)) };
        assert_eq!(energy(&point, &words(&wire), None), Some(0x0102_0304), "{word_order:?}");
        let written = encode(&point, Number::from(0x0102_0304_i64));
        assert_eq!(written, Ok(Write::Registers(72, wire.to_vec())), "{word_order:?}");
    }
}

#[test]
fn a_run_time_exponent_scales_the_value() {
    let counter =
        Point { exponent: Some("energy_exponent".into()), ..point(ValueType::I32, "Wh", (1, 1)) };
    let raw = words(&[0, 12_345]);
    assert_eq!(energy(&counter, &raw, Some(1)), Some(123_450));
    assert_eq!(energy(&counter, &raw, Some(-2)), Some(123));
    assert_eq!(energy(&counter, &raw, None), None);
    assert_eq!(energy(&counter, &raw, Some(99)), None);
}

#[test]
fn tariffs_are_added_before_the_floor_is_taken() {
    let tariff = point(ValueType::U16, "Wh", (1, 10));
    let (first, second) = (words(&[17]), words(&[25]));
    let part = |raw| Part { point: &tariff, raw, exponent: None };
    assert_eq!(energy_wh(&[part(&first), part(&second)]), Some(4));
    let short = words(&[]);
    assert_eq!(energy_wh(&[part(&first), part(&short)]), None, "half a sum is no sum");
}

#[test]
fn bit_slices_of_signed_types_are_signed() {
    // Iskra T6: eight bits of exponent, 24 bits of mantissa.
    let t6 = [0xFFFF, 0xFF9C];
    let mantissa = Point { bits: Some((0, 24)), ..point(ValueType::I32, "W", (1, 1)) };
    let exponent = Point { bits: Some((24, 8)), ..point(ValueType::I32, "", (1, 1)) };
    assert_eq!(power(&mantissa, &words(&t6)), Some(-100_000));
    assert_eq!(whole(&exponent, &words(&t6)), Some(-1));
    let unsigned = Point { bits: Some((24, 8)), ..point(ValueType::U32, "", (1, 1)) };
    assert_eq!(whole(&unsigned, &words(&t6)), Some(255));
}

#[test]
fn the_vehicle_state_is_read_by_map_or_letter() {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(raw, state)| ((*raw).into(), (*state).into())).collect()
    };
    let terra = Point {
        bits: Some((8, 7)),
        values: map(&[("0", "A"), ("1", "B"), ("4", "C")]),
        ..point(ValueType::U32, "", (1, 1))
    };
    let alfen = point(ValueType::String(5), "", (1, 1));
    let cases = [
        (&terra, words(&[0, 0x8400]), Some(Vehicle::Charging)),
        (&terra, words(&[0, 0x0100]), Some(Vehicle::Connected)),
        (&terra, words(&[0, 0x0000]), Some(Vehicle::Absent)),
        (&terra, words(&[0, 0x7F00]), None),
        (&alfen, words(&[0x4332, 0, 0, 0, 0]), Some(Vehicle::Charging)),
        (&alfen, words(&[0x4600, 0, 0, 0, 0]), Some(Vehicle::Fault)),
        (&alfen, words(&[0, 0, 0, 0, 0]), None),
    ];
    for (point, raw, state) in cases {
        assert_eq!(vehicle(point, &raw), state, "{raw:?}");
    }
}

#[test]
fn serial_numbers_are_trimmed_text_or_decimal() {
    let ascii = point(ValueType::String(4), "", (1, 1));
    let swapped = Point { word_order: WordOrder::BigByteSwapped, ..ascii.clone() };
    assert_eq!(text(&ascii, &words(&[0x424B, 0x3132, 0x2020, 0])), Some("BK12".into()));
    assert_eq!(text(&swapped, &words(&[0x4B42, 0x3231, 0, 0])), Some("BK12".into()));
    assert_eq!(text(&ascii, &words(&[0xFFFF; 4])), None);
    assert_eq!(text(&ascii, &words(&[0x2020, 0, 0, 0])), None);
    let number = point(ValueType::U32, "", (1, 1));
    assert_eq!(text(&number, &words(&[0x013F, 0x8A21])), Some("20941345".into()));
}

#[test]
fn writes_are_encoded_as_the_device_wants_them() {
    let coil = Point { table: Table::Coil, address: 3, ..point(ValueType::Bool, "", (1, 1)) };
    let eletechsup = Point {
        table: Table::Holding,
        address: 1,
        write: Some(WriteAs { on: Some(0x0100), off: Some(0x0200), ..WriteAs::default() }),
        ..point(ValueType::Bool, "", (1, 1))
    };
    let elsewhere = Point {
        table: Table::Holding,
        write: Some(WriteAs { address: Some(900), ..WriteAs::default() }),
        ..point(ValueType::U16, "", (1, 1))
    };
    let alfen = Point { table: Table::Holding, ..point(ValueType::F32, "A", (1, 1)) };
    let multiple = |copies| Some(WriteAs { multiple: true, copies, ..WriteAs::default() });
    let charx =
        Point { write: multiple(1), table: Table::Holding, ..point(ValueType::U16, "A", (1, 1)) };
    let ebox = Point { write: multiple(3), ..alfen.clone() };
    let heidelberg = Point { table: Table::Holding, ..point(ValueType::U16, "A", (1, 10)) };
    let keba = Point { table: Table::Holding, ..point(ValueType::U16, "A", (1, 1_000)) };
    let amps = |ma: i64| Number::from(ma).divided_by(1_000).expect("not zero");
    let cases = [
        (&coil, Number::from(1_i64), Ok(Write::Coil(3, true))),
        (&coil, Number::from(0_i64), Ok(Write::Coil(3, false))),
        (&eletechsup, Number::from(1_i64), Ok(Write::Register(1, 0x0100))),
        (&eletechsup, Number::from(0_i64), Ok(Write::Register(1, 0x0200))),
        (&elsewhere, Number::from(5_i64), Ok(Write::Register(900, 5))),
        (&alfen, amps(16_000), Ok(Write::Registers(72, vec![0x4180, 0]))),
        (&charx, amps(16_000), Ok(Write::Registers(72, vec![16]))),
        (&ebox, amps(16_000), Ok(Write::Registers(72, [0x4180, 0].repeat(3)))),
        (&heidelberg, amps(6_500), Ok(Write::Register(72, 65))),
        (&keba, amps(16_000), Ok(Write::Register(72, 16_000))),
        (&keba, amps(66_000), Err("the value does not fit the point's type")),
    ];
    for (point, value, write) in cases {
        assert_eq!(encode(point, value), write);
    }
}
