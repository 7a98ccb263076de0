//! What kind of card an ATR shows (PC/SC part 3, section 3.1.3.2.3), without any card I/O.
//!
//! A contactless reader makes the ATR up. A storage card gets `3B 8F 80 01 80 4F 0C A0 00 00 03 06
//! SS NN NN 00 00 00 00 TCK`, where SS is the standard and NN the card's name; everything else
//! under `3B 8n 80 01` is an ISO 14443-4 card ("T=CL") with its own historical bytes.

use super::badge::Technology;

/// The PC/SC workgroup's identifier: what follows is the name of a storage card.
const WORKGROUP_RID: [u8; 5] = [0xA0, 0x00, 0x00, 0x03, 0x06];

/// SS of ISO 14443 A, part 3: the only standard under which a MIFARE Classic is named.
const ISO14443A_PART_3: u8 = 0x03;

/// The whole ATS of a DESFire, which some readers copy into the historical bytes.
const DESFIRE_ATS: [u8; 6] = [0x06, 0x75, 0x77, 0x81, 0x02, 0x80];

/// The technology that `atr` shows; the first row of the table that holds decides.
///
/// A wrong check byte (TCK) does not matter: real readers compute it wrongly.
pub fn classify(atr: &[u8]) -> Technology {
    match contactless_historical_bytes(atr) {
        Some([0x80, 0x4F, _, rid @ .., 0, 0, 0, 0]) if rid.starts_with(&WORKGROUP_RID) => {
            storage_card(&rid[WORKGROUP_RID.len()..])
        }
        Some([0x80]) => Technology::Desfire,
        Some(bytes) if bytes.starts_with(&DESFIRE_ATS) => Technology::Desfire,
        // FeliCa as SCM readers show it, and storage cards whose name is cut short.
        Some([0x04, 0x43, ..] | [0x80, 0x4F, ..]) => Technology::Other,
        Some(_) => Technology::Iso14443_4,
        None => Technology::Other,
    }
}

/// SS, NN, NN of a storage card.
fn storage_card(name: &[u8]) -> Technology {
    match name {
        [ISO14443A_PART_3, high, low] => card_name(*high, *low),
        _ => Technology::Other,
    }
}

/// NN under ISO 14443 A part 3; ACS readers give `FF` and the SAK for a card unknown to them.
fn card_name(high: u8, low: u8) -> Technology {
    match (high, low) {
        (0x00, 0x01) | (0xFF, 0x08 | 0x88) => Technology::MifareClassic1k,
        (0x00, 0x02) | (0xFF, 0x18) => Technology::MifareClassic4k,
        (0x00, 0x26) | (0xFF, 0x09) => Technology::MifareClassicMini,
        (0x00, 0x36 | 0x37) => Technology::MifarePlusSl1,
        (0x00, 0x03 | 0x3A | 0x3D) => Technology::MifareUltralight,
        // SAK bit 20 says ISO 14443-4, even beside an emulated Classic (28, 38).
        (0xFF, 0x20 | 0x28 | 0x38) => Technology::Iso14443_4,
        _ => Technology::Other,
    }
}

/// The historical bytes where the interface bytes are those of a contactless card: `TD1` 80 and
/// `TD2` 01, nothing between them. `None` for contact cards and for a malformed ATR.
fn contactless_historical_bytes(atr: &[u8]) -> Option<&[u8]> {
    match atr {
        [0x3B | 0x3F, t0, 0x80, 0x01, rest @ ..] if t0 >> 4 == 0x8 => {
            rest.get(..usize::from(t0 & 0x0F))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn technology_of(atr: &str) -> Technology {
        classify(&hex::decode(atr).expect("hex"))
    }

    #[test]
    fn classifies_the_atrs_of_real_cards() {
        use Technology::*;
        let cards = [
            ("3B8F8001804F0CA000000306030001000000006A", MifareClassic1k, "Oyster, GetCharge"),
            ("3B8F8001804F0CA0000003060300020000000069", MifareClassic4k, "OV-chipkaart"),
            ("3B8F8001804F0CA00000030603FF88000000001C", MifareClassic1k, "Infineon SLE66R35"),
            ("3B8F8001804F0CA0000003060300030000000068", MifareUltralight, "Ultralight"),
            ("3B8F8001804F0CA000000306030000000000006B", Other, "card name not given"),
            ("3B8F8001804F0CA0000003060300FF0000000094", Other, "ACTV ticket"),
            ("3B8F8001804F0CA00000030603FF4000000000D4", Other, "Nokia N9, SAK 40"),
            ("3B8F8001804F0CA00000030603F004000000009F", Other, "Topaz"),
            ("3B8F8001804F0CA00000030603F011000000008A", Other, "FeliCa 212"),
            ("3B8F8001804F0CA00000030611003B0000000042", Other, "FeliCa Suica"),
            ("3B8F8001804F0CA0000003060B00140000000077", Other, "ICODE"),
            ("3B8F8001804F0CA0000003060A001C000000007E", Other, "HID iCLASS"),
            ("3B8F8001804F0CA0000003064000000000000028", Other, "HID Prox"),
            ("3B8180018080", Desfire, "DESFire, EnBW"),
            ("3B86800106757781028000", Desfire, "DESFire, whole ATS copied"),
            ("3B878001C1052F2F01BCD6A9", Iso14443_4, "MIFARE Plus SL3"),
            ("3B878001C10521300077C165", Iso14443_4, "MIFARE Plus SL3"),
            ("3B8C80010C75778002C1052F2F0035C7B7", Iso14443_4, "MIFARE Plus, whole ATS"),
            ("3B8680014A434F50333012", Iso14443_4, "JCOP30"),
            ("3B8980014A434F5033315632324A", Iso14443_4, "JCOP31 with Classic emulation"),
            ("3B8880014A434F50763234315E", Iso14443_4, "JCOP v2.4.1"),
            ("3B8580018073C821100E", Iso14443_4, "SmartMX3"),
            ("3B898001665257453250524F4D1C", Iso14443_4, "ChargePoint"),
            ("3B80800101", Iso14443_4, "no historical bytes"),
            ("3B888001000000000071710009", Iso14443_4, "Calypso type B"),
        ];
        for (atr, technology, card) in cards {
            assert_eq!(technology_of(atr), technology, "{card}: {atr}");
        }
    }

    #[test]
    fn classifies_the_names_that_the_standard_and_acs_define() {
        use Technology::*;
        let names = [
            ("030026000000004D", MifareClassicMini),
            ("030036000000005D", MifarePlusSl1),
            ("030037000000005C", MifarePlusSl1),
            ("03003A0000000051", MifareUltralight),
            ("03003D0000000056", MifareUltralight),
            ("0300380000000053", Other),
            ("03FF08000000009C", MifareClassic1k),
            ("03FF18000000008C", MifareClassic4k),
            ("03FF09000000009D", MifareClassicMini),
            ("03FF2800000000BC", Iso14443_4),
            ("03FF3800000000AC", Iso14443_4),
            ("03FF2000000000B4", Iso14443_4),
        ];
        for (name, technology) in names {
            let atr = format!("3B8F8001804F0CA000000306{name}");
            assert_eq!(technology_of(&atr), technology, "{name}");
        }
    }

    #[test]
    fn a_classic_needs_its_standard_its_issuer_and_every_byte() {
        for wrong in [
            "3B8F8001804F0CA000000307030001000000006A", // another RID
            "3B8F8001804F0CA000000306020001000000006A", // ISO 14443 A part 2
            "3B8F8001804F0CA0000003060300",             // cut short
            "3B8B8001804F0CA00000030603000169",         // no reserved bytes
            "3B8F8101804F0CA000000306030001000000006A", // contact interface bytes
            "3B6F0000804F0CA000000306030001000000006A",
            "3B",
            "",
            "00",
        ] {
            assert!(!Technology::CLASSIC.contains(&technology_of(wrong)), "{wrong}");
        }
    }
}
