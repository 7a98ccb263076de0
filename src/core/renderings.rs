//! The ways in which owners, door systems and card printers write the number of a badge.
//!
//! There is no rule how to turn a UID into a number: each vendor has its own. All known ways are
//! shown beside each other, so that the one on a list or a card can be found by eye, and those that
//! hold the whole number are read back.

use serde::{Deserialize, Serialize};

use crate::core::badge::{Uid, without_prefix};

/// One way to write a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendering {
    /// Its name, such as `decimal-reversed`.
    pub form: String,
    /// Where it is met.
    pub about: String,
    /// The number written so.
    pub text: String,
    /// It holds only a part of the number: other badges can look the same.
    pub ambiguous: bool,
}

/// Start of the CRC_A of ISO/IEC 14443-3, which the short numbers of 7-byte cards are made of.
const CRC_A_START: u16 = 0x6363;

/// All ways to write this number, the canonical one first.
pub fn renderings(uid: Uid) -> Vec<Rendering> {
    let bytes = uid.as_bytes();
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    let mut list = List(Vec::new());
    list.whole("hex", "as tapgate writes it: first transmitted byte first", hex(bytes));
    list.whole("hex-colons", "the same, with colons", colons(bytes));
    list.whole("hex-reversed", "last byte first: Wiegand readers, some wallboxes", hex(&reversed));
    list.whole("hex-reversed-colons", "the same, with colons", colons(&reversed));
    match *bytes {
        [a, b, c, d] => list.four([a, b, c, d]),
        [a, b, c, d, e, f, g] => list.seven([a, b, c, d, e, f, g]),
        _ => {
            list.whole("decimal", "as one number", number(bytes).to_string());
            list.whole("decimal-reversed", "of the reversed bytes", number(&reversed).to_string());
        }
    }
    list.0
}

struct List(Vec<Rendering>);

impl List {
    fn whole(&mut self, form: &str, about: &str, text: String) {
        let (form, about) = (form.into(), about.into());
        self.0.push(Rendering { form, about, text, ambiguous: false });
    }

    fn part(&mut self, form: &str, about: &str, text: String) {
        let (form, about) = (form.into(), about.into());
        self.0.push(Rendering { form, about, text, ambiguous: true });
    }

    /// The forms of 4-byte numbers, most of them from the time of 125 kHz tags.
    fn four(&mut self, uid: [u8; 4]) {
        let (be, le) = (u32::from_be_bytes(uid), u32::from_le_bytes(uid));
        let two = |n: u32| format!("{:05}{:05}", n >> 16, n & 0xFFFF);
        let joined = |digits: fn(&u8) -> String| uid.iter().map(digits).collect::<String>();
        let check = uid.iter().fold(0, |check, byte| check ^ byte);
        self.whole("decimal", "Wiegand 34, 10 digits (8H10D)", format!("{be:010}"));
        self.whole("decimal-reversed", "most USB keyboard readers", format!("{le:010}"));
        self.whole("bytes", "each byte in decimal, joined", joined(|byte| byte.to_string()));
        self.whole("bytes-padded", "each in three digits", joined(|byte| format!("{byte:03}")));
        self.whole("decimal-5-5", "two halves in five digits each (4H4H>5D5D)", two(be));
        self.whole("decimal-5-5-reversed", "of the reversed bytes", two(le));
        self.whole("hex-check", "with its check byte", hex(&uid) + &format!("{check:02X}"));
        self.whole("hex-padded-right", "in six bytes", hex(&uid) + "0000");
        self.whole("hex-padded-left", "in seven bytes", "000000".to_owned() + &hex(&uid));
        let about = "Wiegand 26, facility and number";
        self.part("wiegand-26", about, facility(be));
        self.part("wiegand-26-reversed", "of the reversed bytes", facility(le));
        self.part("wiegand-26-high", "of the first three bytes", facility(be >> 8));
        self.part("wiegand-26-high-reversed", "of the last three, reversed", facility(le >> 8));
        self.part("decimal-24", "24 bits, 8 digits (6H8D)", format!("{:08}", be & 0xFF_FFFF));
        let reversed = format!("{:08}", le & 0xFF_FFFF);
        self.part("decimal-24-reversed", "of the reversed bytes", reversed);
    }

    /// The forms of 7-byte numbers: whole, or cut down for systems that know four bytes.
    fn seven(&mut self, uid: [u8; 7]) {
        let reversed: Vec<u8> = uid.iter().rev().copied().collect();
        let ten = |bytes: &[u8]| format!("{:010}", number(bytes));
        self.whole("decimal", "as one number", number(&uid).to_string());
        self.whole("decimal-reversed", "of the reversed bytes", number(&reversed).to_string());
        self.whole("hex-padded-left", "in eight bytes", "00".to_owned() + &hex(&uid));
        self.part("hex-first-4", "the first four bytes", hex(&uid[..4]));
        self.part("hex-last-4", "the last four bytes", hex(&uid[3..]));
        self.part("hex-first-6", "the first six bytes", hex(&uid[..6]));
        self.part("hex-cascade", "as a reader cuts it short", "88".to_owned() + &hex(&uid[..3]));
        self.part("decimal-first-4", "the first four bytes, reversed", ten(&reversed[3..]));
        self.part("decimal-last-4", "the last four bytes, reversed", ten(&reversed[..4]));
        let last = u32::from_be_bytes([uid[3], uid[4], uid[5], uid[6]]);
        self.part("wiegand-34", "Wiegand 34, the last four bytes", format!("{last:010}"));
        let first = u32::from_le_bytes([uid[0], uid[1], uid[2], uid[3]]);
        let about = "Wiegand 26, of the last three bytes";
        self.part("wiegand-26", about, facility(last));
        self.part("wiegand-26-reversed", "of the first three, reversed", facility(first));
        self.part("nuid", "the 4-byte number that NXP derives from it", hex(&nuid(uid)));
    }
}

/// The UIDs that a written number can stand for, each with the form that it is read in. Forms that
/// hold only a part of the number are not read back.
pub fn uids_written_as(text: &str) -> Vec<(&'static str, Uid)> {
    let digits = without_prefix(text);
    let digits: String = digits.chars().filter(|c| !matches!(c, ' ' | ':' | '-')).collect();
    let mut found = Found(Vec::new());
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return found.0;
    }
    found.hexadecimal(&digits.to_ascii_uppercase());
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        found.decimal(&digits);
    }
    found.0
}

struct Found(Vec<(&'static str, Uid)>);

impl Found {
    fn add(&mut self, form: &'static str, bytes: &[u8]) {
        if let Some(uid) = Uid::new(bytes)
            && !self.0.iter().any(|(_, known)| *known == uid)
        {
            self.0.push((form, uid));
        }
    }

    fn hexadecimal(&mut self, digits: &str) {
        let bytes: Option<Vec<u8>> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect();
        let Some(bytes) = bytes else { return };
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        self.add("hex", &bytes);
        self.add("hex-reversed", &reversed);
        match bytes[..] {
            [a, b, c, d, check] if a ^ b ^ c ^ d == check => self.add("hex-check", &bytes[..4]),
            [_, _, _, _, 0, 0] => self.add("hex-padded-right", &bytes[..4]),
            [0, 0, 0, _, _, _, _] => self.add("hex-padded-left", &bytes[3..]),
            [0, _, _, _, _, _, _, _] => self.add("hex-padded-left", &bytes[1..]),
            _ => {}
        }
    }

    fn decimal(&mut self, digits: &str) {
        /// The longest number of seven bytes has 17 digits.
        const DIGITS_MAX: usize = 17;
        let Some(number) = (digits.len() <= DIGITS_MAX).then(|| digits.parse::<u64>().ok()) else {
            return;
        };
        let Some(number) = number else { return };
        if let Ok(number) = u32::try_from(number) {
            self.add("decimal", &number.to_be_bytes());
            self.add("decimal-reversed", &number.to_le_bytes());
        } else if let [0, seven @ ..] = number.to_be_bytes() {
            let reversed: Vec<u8> = seven.iter().rev().copied().collect();
            self.add("decimal", &seven);
            self.add("decimal-reversed", &reversed);
        }
        let part = |from: usize, to: usize| digits.get(from..to)?.parse::<u32>().ok();
        if let (10, Some(high), Some(low)) = (digits.len(), part(0, 5), part(5, 10))
            && let (Ok(high), Ok(low)) = (u16::try_from(high), u16::try_from(low))
        {
            let number = u32::from(high) << 16 | u32::from(low);
            self.add("decimal-5-5", &number.to_be_bytes());
            self.add("decimal-5-5-reversed", &number.to_le_bytes());
        }
        if digits.len() == 12 {
            let byte = |at: usize| part(at * 3, at * 3 + 3).and_then(|n| u8::try_from(n).ok());
            if let Some(bytes) = (0..4).map(byte).collect::<Option<Vec<u8>>>() {
                self.add("bytes-padded", &bytes);
            }
        }
    }
}

/// The lowest 24 bits as Wiegand 26 has them.
fn facility(n: u32) -> String {
    format!("{:03},{:05}", n >> 16 & 0xFF, n & 0xFFFF)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// The non-unique 4-byte number that a 7-byte MIFARE Classic can be set to answer (NXP AN10927).
fn nuid(uid: [u8; 7]) -> [u8; 4] {
    let crc = uid[..3].iter().fold(CRC_A_START, |crc, byte| crc_a(crc, *byte));
    let [second, first] = crc.to_be_bytes();
    let crc = uid[3..].iter().fold(crc, |crc, byte| crc_a(crc, *byte));
    let [high, low] = crc.to_be_bytes();
    [second & 0xE0 | 0x0F, first, high, low]
}

/// CRC_A over one more byte (ISO/IEC 14443-3, annex B).
fn crc_a(crc: u16, byte: u8) -> u16 {
    let mixed = byte ^ crc as u8;
    let mixed = u16::from(mixed ^ mixed << 4);
    crc >> 8 ^ mixed << 8 ^ mixed << 3 ^ mixed >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(hex: &str) -> Uid {
        hex.parse().expect("a UID")
    }

    fn written(number: &str, form: &str) -> String {
        let all = renderings(uid(number));
        all.iter().find(|r| r.form == form).map(|r| r.text.clone()).unwrap_or_default()
    }

    #[test]
    fn writes_a_number_as_readers_and_lists_in_the_field_do() {
        for (number, form, text) in [
            ("1EA68671", "hex", "1EA68671"),
            ("1EA68671", "hex-colons", "1E:A6:86:71"),
            ("1EA68671", "hex-reversed", "7186A61E"),
            ("1EA68671", "decimal", "0514229873"),
            ("1EA68671", "decimal-reversed", "1904649758"),
            ("1EA68671", "bytes", "30166134113"),
            ("1EA68671", "bytes-padded", "030166134113"),
            ("1EA68671", "decimal-5-5", "0784634417"),
            ("1EA68671", "decimal-5-5-reversed", "2906242526"),
            ("1EA68671", "wiegand-26", "166,34417"),
            ("1EA68671", "wiegand-26-reversed", "134,42526"),
            ("1EA68671", "wiegand-26-high", "030,42630"),
            ("1EA68671", "wiegand-26-high-reversed", "113,34470"),
            ("1EA68671", "decimal-24", "10913393"),
            ("1EA68671", "decimal-24-reversed", "08824350"),
            ("1EA68671", "hex-check", "1EA686714F"),
            ("1EA68671", "hex-padded-right", "1EA686710000"),
            ("1EA68671", "hex-padded-left", "0000001EA68671"),
            ("00D507D0", "decimal", "0013961168"),
            ("00D507D0", "wiegand-26", "213,02000"),
            ("02B0A5FD", "decimal", "0045131261"),
            ("02B0A5FD", "decimal-5-5", "0068842493"),
            ("02B0A5FD", "decimal-24", "11576829"),
            ("02B0A5FD", "wiegand-26", "176,42493"),
            ("04A1B2C3D4E5F6", "decimal", "1303689068602870"),
            ("04A1B2C3D4E5F6", "decimal-reversed", "69495546249912580"),
            ("04A1B2C3D4E5F6", "hex-first-4", "04A1B2C3"),
            ("04A1B2C3D4E5F6", "hex-last-4", "C3D4E5F6"),
            ("04A1B2C3D4E5F6", "hex-cascade", "8804A1B2"),
            ("04A1B2C3D4E5F6", "nuid", "EFCBD356"),
            ("04A1B2C3D4E5F6", "decimal-first-4", "3283263748"),
            ("04A1B2C3D4E5F6", "decimal-last-4", "4142257347"),
            ("04A1B2C3D4E5F6", "wiegand-34", "3285509622"),
            ("04A1B2C3D4E5F6", "wiegand-26", "212,58870"),
            ("04A1B2C3D4E5F6", "wiegand-26-reversed", "178,41220"),
            ("040D681AB52281", "nuid", "8F430FEF"),
            ("04183F09321B85", "nuid", "4F505D7D"),
            ("00000000000000000102", "decimal", "258"),
        ] {
            assert_eq!(written(number, form), text, "{number} {form}");
        }
    }

    #[test]
    fn what_holds_the_whole_number_is_read_back() {
        for number in ["1EA68671", "00D507D0", "04A1B2C3D4E5F6", "04A1B2C3D4E5F6070809"] {
            for rendering in renderings(uid(number)).into_iter().filter(|r| !r.ambiguous) {
                // The joined bytes without padding can be cut apart in many ways, and numbers of
                // ten bytes are not written in decimal by anybody.
                let read = number.len() < 20 || rendering.form.starts_with("hex");
                if rendering.form == "bytes" || !read {
                    continue;
                }
                let found = uids_written_as(&rendering.text);
                let hit = found.iter().any(|(_, found)| *found == uid(number));
                assert!(hit, "{number} as {}: {}", rendering.form, rendering.text);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_read_back() {
        for text in ["", "b-1042", "04A1B", "213,02000", "é1", "999999999999999999", "x"] {
            assert_eq!(uids_written_as(text), [], "{text}");
        }
    }
}
