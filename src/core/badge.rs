//! What a badge is: its UID and the technology that its ATR shows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An ISO/IEC 14443-3 number of 4, 7 or 10 bytes, first transmitted byte first.
///
/// `Debug` masks it: a UID is personal and never reaches a log above debug level by accident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    length: u8,
    bytes: [u8; 10],
}

impl Uid {
    /// A UID from what the reader answered; `None` for any length but 4, 7 and 10.
    pub fn new(bytes: &[u8]) -> Option<Uid> {
        if !matches!(bytes.len(), 4 | 7 | 10) {
            return None;
        }
        let mut uid = Uid { length: bytes.len() as u8, bytes: [0; 10] };
        uid.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(uid)
    }

    /// The bytes, first transmitted byte first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// ISO 14443-3: a 4-byte UID that starts with 08 is drawn anew at every presentation.
    pub fn is_random(&self) -> bool {
        self.length == 4 && self.bytes[0] == 0x08
    }

    /// A 4-byte UID that starts with the cascade tag 88 is the torn-off start of a longer one.
    pub fn is_truncated(&self) -> bool {
        self.length == 4 && self.bytes[0] == 0x88
    }

    /// The wire form: exactly upper-case hex without separators.
    pub fn from_wire(text: &str) -> Option<Uid> {
        let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        text.bytes().all(upper).then(|| text.parse().ok()).flatten()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({} bytes)", self.length)
    }
}

impl FromStr for Uid {
    type Err = &'static str;

    /// Every way in which a person types a UID: `04:a2:b3:c4`, `04A2B3C4`, `04 a2 b3 c4` and
    /// `0x04a2b3c4`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a UID is 4, 7 or 10 bytes in hex, such as 04A2B3C4 or 04:a2:b3:c4";
        let digits: Vec<u8> =
            without_prefix(text).bytes().filter(|b| !matches!(b, b':' | b'-' | b' ')).collect();
        let nibble = |b: u8| (b as char).to_digit(16).map(|digit| digit as u8);
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?))
            .collect();
        bytes.and_then(|bytes| Uid::new(&bytes)).ok_or(FORM)
    }
}

/// The digits of a number that programmers wrote.
pub(super) fn without_prefix(text: &str) -> &str {
    text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text)
}

/// What kind of card it is, read from the ATR (PC/SC part 3, section 3.1.3.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the products' own")]
pub enum Technology {
    #[serde(rename = "mifare-classic-1k")]
    MifareClassic1k,
    #[serde(rename = "mifare-classic-4k")]
    MifareClassic4k,
    MifareClassicMini,
    #[serde(rename = "mifare-plus-sl1")]
    MifarePlusSl1,
    MifareUltralight,
    Desfire,
    #[serde(rename = "iso14443-4")]
    Iso14443_4,
    Other,
}

impl Technology {
    /// All of them, in the contract's order.
    pub const ALL: [Technology; 8] = [
        Technology::MifareClassic1k,
        Technology::MifareClassic4k,
        Technology::MifareClassicMini,
        Technology::MifarePlusSl1,
        Technology::MifareUltralight,
        Technology::Desfire,
        Technology::Iso14443_4,
        Technology::Other,
    ];

    /// MIFARE Classic and what behaves like it: all that chargers and third-party badges may be.
    pub const CLASSIC: [Technology; 4] = [
        Technology::MifareClassic1k,
        Technology::MifareClassic4k,
        Technology::MifareClassicMini,
        Technology::MifarePlusSl1,
    ];

    /// The contract's name, such as `mifare-classic-1k`.
    pub fn as_str(self) -> &'static str {
        match self {
            Technology::MifareClassic1k => "mifare-classic-1k",
            Technology::MifareClassic4k => "mifare-classic-4k",
            Technology::MifareClassicMini => "mifare-classic-mini",
            Technology::MifarePlusSl1 => "mifare-plus-sl1",
            Technology::MifareUltralight => "mifare-ultralight",
            Technology::Desfire => "desfire",
            Technology::Iso14443_4 => "iso14443-4",
            Technology::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_way_people_type_a_uid() {
        let uid = Uid::new(&[0x04, 0xA2, 0xB3, 0xC4]).expect("four bytes");
        for typed in ["04:a2:b3:c4", "04A2B3C4", "04 a2 b3 c4", "04-A2-b3-C4", "0x04a2b3c4"] {
            assert_eq!(typed.parse(), Ok(uid));
        }
        for wrong in ["", "0x", "04A2B3", "04A2B3C", "04A2B3C4D5", "xxA2B3C4", "04A2B3é4"] {
            assert!(wrong.parse::<Uid>().is_err(), "{wrong}");
        }
        assert_eq!(uid.to_string(), "04A2B3C4");
        assert_eq!(format!("{uid:?}"), "Uid(4 bytes)");
    }

    #[test]
    fn the_wire_form_is_strict() {
        assert!(Uid::from_wire("04A2B3C4").is_some());
        for wrong in ["04a2b3c4", "04:A2:B3:C4", "04A2B3", ""] {
            assert_eq!(Uid::from_wire(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn technologies_are_named_as_in_the_contract() {
        for technology in Technology::CLASSIC {
            let json = serde_json::to_string(&technology).expect("a plain string");
            assert_eq!(json, format!("\"{}\"", technology.as_str()));
        }
        assert_eq!(
            serde_json::from_str::<Technology>("\"iso14443-4\"").expect("known"),
            Technology::Iso14443_4
        );
    }
}
