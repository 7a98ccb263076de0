//! What arrives from a bus.

use std::sync::OnceLock;

use super::Choices;
use crate::config::Library;
use crate::config::profile::Point;
use crate::io::modbus::outside::{Asked, Heard, checksum, energy_wh, hear, power_mw};
use crate::io::modbus::shown;
use crate::protocol::field::{BusAnswer, BusOrder};

/// What is asked, and all that arrives. The same bytes in one piece and one by one.
pub(super) fn frames(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let numbered = choices.byte() & 1 == 0;
    let (transaction, unit) = (choices.word(), choices.byte());
    let order = order(&mut choices);
    let heard = choices.rest();
    let asked = Asked { numbered, transaction, unit, order: &order };
    let one_by_one: Vec<&[u8]> = heard.chunks(1).collect();
    for pieces in [&[heard][..], &one_by_one] {
        match hear(asked, pieces) {
            Some(Heard::Answer(answer, frame)) => {
                is_the_answer(&asked, &answer);
                is_a_frame(&asked, &frame, heard);
            }
            Some(Heard::Exception(code, frame)) => {
                is_a_frame(&asked, &frame, heard);
                let place = if numbered { 6 } else { 0 };
                assert!(frame[place + 1] >= 0x80 && frame[place + 2] == code);
            }
            Some(Heard::Wrong(what)) => assert!(!what.is_empty()),
            Some(Heard::Nothing(strange)) => assert_ne!(strange, Some(String::new())),
            None => {}
        }
    }
    if numbered {
        assert_eq!(hear(asked, &[heard]), hear(asked, &one_by_one), "pieces make no difference");
    }
}

fn order(choices: &mut Choices<'_>) -> BusOrder {
    let (kind, address) = (choices.byte(), choices.word());
    match kind % 7 {
        0 => BusOrder::ReadCoils { address, count: choices.word() },
        1 => BusOrder::ReadDiscreteInputs { address, count: choices.word() },
        2 => BusOrder::ReadHoldingRegisters { address, count: choices.byte().into() },
        3 => BusOrder::ReadInputRegisters { address, count: choices.byte().into() },
        4 => BusOrder::WriteCoil { address, on: choices.byte() & 1 == 1 },
        5 => BusOrder::WriteRegister { address, word: choices.word() },
        _ => {
            let count = choices.byte() % 124;
            BusOrder::WriteRegisters { address, words: (0..count).map(u16::from).collect() }
        }
    }
}

/// As many values as were asked for, of the kind that was asked for.
fn is_the_answer(asked: &Asked<'_>, answer: &BusAnswer) {
    let wanted = match asked.order {
        BusOrder::ReadCoils { count, .. } | BusOrder::ReadDiscreteInputs { count, .. } => {
            (Some(*count), None)
        }
        BusOrder::ReadHoldingRegisters { count, .. }
        | BusOrder::ReadInputRegisters { count, .. } => (None, Some(*count)),
        BusOrder::WriteCoil { .. }
        | BusOrder::WriteRegister { .. }
        | BusOrder::WriteRegisters { .. } => (None, None),
    };
    let came = match answer {
        BusAnswer::Bits(bits) => (u16::try_from(bits.len()).ok(), None),
        BusAnswer::Words(words) => (None, u16::try_from(words.len()).ok()),
        BusAnswer::Written => (None, None),
    };
    assert_eq!(came, wanted);
}

/// It lies in what arrived as it is, names the unit, and its number or checksum is right.
fn is_a_frame(asked: &Asked<'_>, frame: &[u8], heard: &[u8]) {
    assert!(heard.windows(frame.len()).any(|window| window == frame));
    if asked.numbered {
        assert_eq!(frame[..2], asked.transaction.to_be_bytes());
        assert_eq!(frame[6], asked.unit);
    } else {
        let (body, sum) = frame.split_at(frame.len() - 2);
        assert_eq!(body[0], asked.unit);
        assert_eq!(checksum(body).to_le_bytes(), sum);
    }
}

/// Any words as the value of any point of any built-in profile.
pub(super) fn registers(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let points = points();
    let point = &points[usize::from(choices.word()) % points.len()];
    let exponent = (choices.byte() & 1 == 1).then(|| i64::from(choices.byte() as i8));
    let bytes = choices.rest();
    let words: Vec<u16> =
        bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    if let Some(wh) = energy_wh(point, &words, exponent) {
        assert!(wh >= 0, "a meter that runs backwards below zero");
    }
    let _ = power_mw(point, &words, exponent);
    let bits = bytes.iter().map(|byte| byte & 1 == 1).collect();
    for answer in [BusAnswer::Words(words), BusAnswer::Bits(bits), BusAnswer::Written] {
        let text = shown(point, &answer, exponent).unwrap_or_default();
        assert!(!text.contains(char::is_control), "{text:?} would reach a terminal");
    }
}

fn points() -> &'static [Point] {
    static POINTS: OnceLock<Vec<Point>> = OnceLock::new();
    POINTS.get_or_init(|| {
        let library = Library::built_in();
        library.iter().flat_map(|(_, it)| it.profile().points.values().cloned()).collect()
    })
}
