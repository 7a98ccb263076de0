//! Whether a device is what its profile says: pure, for `doctor` and for a scan of a bus.

use super::codec::{self, Raw};
use crate::config::profile::{Point, Profile, Scale, WordOrder};

/// What a phase of a low-voltage grid shows, in millivolts: 230 V with more than EN 50160 allows.
const GRID_MV: std::ops::RangeInclusive<i64> = 200_000..=260_000;

/// The word orders as a profile names them.
const ORDERS: [(WordOrder, &str); 4] = [
    (WordOrder::Big, "big"),
    (WordOrder::Little, "little"),
    (WordOrder::BigByteSwapped, "big-byte-swapped"),
    (WordOrder::LittleByteSwapped, "little-byte-swapped"),
];
/// Scales that profiles get wrong, as they name them.
const SCALES: [(i64, &str); 4] = [(1, "1"), (10, "0.1"), (100, "0.01"), (1_000, "0.001")];

/// A voltage that no grid has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("voltage: 200 to 260 V expected, got {shown}: {help}")]
pub struct WrongVoltage {
    /// What the registers say under this profile.
    pub shown: String,
    /// What to try.
    pub help: String,
}

/// The millivolts that the registers of a profile's `voltage` point show, where a grid can have
/// them; else what is probably wrong. `exponent` is the value of [`Point::exponent`]'s point.
pub fn check_voltage(
    point: &Point,
    words: &[u16],
    exponent: Option<i64>,
) -> Result<i64, WrongVoltage> {
    let raw = Raw::Words(words.to_vec());
    let voltage = |point: &Point| codec::voltage_mv(point, &raw, exponent);
    let fits = |point: &Point| voltage(point).is_some_and(|mv| GRID_MV.contains(&mv));
    let shown = voltage(point);
    if let Some(mv) = shown.filter(|mv| GRID_MV.contains(mv)) {
        return Ok(mv);
    }
    let ordered = |order| Point { word_order: order, ..point.clone() };
    let scaled =
        |denominator| Point { scale: Scale { numerator: 1, denominator }, ..point.clone() };
    let order = ORDERS.iter().find(|(order, _)| fits(&ordered(*order)));
    let scale = SCALES.iter().find(|(denominator, _)| fits(&scaled(*denominator)));
    let help = match (order, scale) {
        (Some((_, word)), _) => format!("try word_order = \"{word}\" for all of its values"),
        (None, Some((_, text))) => format!("try scale = {text}"),
        (None, None) => "check address, table and type, and that it is connected".into(),
    };
    let shown = match shown {
        Some(mv) => format!("{}.{} V", mv / 1_000, mv.rem_euclid(1_000) / 100),
        None => "no value".into(),
    };
    Err(WrongVoltage { shown, help })
}

/// Whether the registers of the point that [`Profile::identify`] names show this model.
pub fn is_model(profile: &Profile, words: &[u16]) -> bool {
    let Some(identify) = &profile.identify else { return false };
    let Some(point) = profile.points.get(&identify.point) else { return false };
    let shown = codec::text(point, &Raw::Words(words.to_vec()));
    shown.is_some_and(|shown| identify.equals.contains(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::profile::{Table, ValueType};

    fn volts(value: ValueType) -> Point {
        Point { unit: Some("V".into()), ..Point::new(Table::Input, 0, value) }
    }

    #[test]
    fn a_grid_voltage_passes_and_a_turned_one_names_the_order_to_try() {
        let bits = 231.4_f32.to_bits();
        let (high, low) = ((bits >> 16) as u16, bits as u16);
        let point = volts(ValueType::F32);

        assert_eq!(check_voltage(&point, &[high, low], None), Ok(231_400));

        let swap = |words: [u16; 2]| words.map(u16::swap_bytes);
        for (words, order) in [
            ([low, high], "little"),
            (swap([high, low]), "big-byte-swapped"),
            (swap([low, high]), "little-byte-swapped"),
        ] {
            let wrong = check_voltage(&point, &words, None).expect_err("it is turned");
            let help = format!("try word_order = \"{order}\" for all of its values");
            assert_eq!(wrong.help, help);
        }
    }

    #[test]
    fn a_wrong_scale_and_a_wrong_register_are_told_apart() {
        let point = volts(ValueType::U16);
        let wrong = check_voltage(&point, &[2_310], None).expect_err("tenths of volts");
        assert_eq!(
            wrong.to_string(),
            "voltage: 200 to 260 V expected, got 2310.0 V: try scale = 0.1"
        );
        let wrong = check_voltage(&volts(ValueType::U32), &[0, 0], None).expect_err("nothing");
        assert!(wrong.help.starts_with("check address"), "{wrong}");
        let nan = check_voltage(&volts(ValueType::F32), &[0x7FC0, 0], None).expect_err("NaN");
        assert_eq!(nan.shown, "no value");
    }
}
