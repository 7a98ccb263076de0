//! Slots of one device: beside the one where badges are held it can have others, for a SAM or for
//! contact cards, and pcscd lists each as a reader.

use std::collections::BTreeSet;

use super::binding::PresentReader;

/// Of readers that one socket or serial number means, the slot where badges are held; all of them
/// where they are not one device.
pub(super) fn badge_slot(present: &[PresentReader], matching: Vec<usize>) -> Vec<usize> {
    let readers: Vec<&PresentReader> = matching.iter().map(|at| &present[*at]).collect();
    if readers.len() < 2 || !are_one_device(&readers) {
        return matching;
    }
    let first = |slots: &mut dyn Iterator<Item = usize>| slots.min_by_key(|at| &present[*at].name);
    let contactless =
        first(&mut matching.iter().copied().filter(|at| is_contactless(&present[*at].name)));
    contactless.or(first(&mut matching.iter().copied())).into_iter().collect()
}

fn are_one_device(readers: &[&PresentReader]) -> bool {
    let count = readers.len();
    let names: BTreeSet<&str> = readers.iter().map(|reader| reader.name.as_str()).collect();
    let ports: BTreeSet<Option<&String>> = readers.iter().map(|r| r.usb_port.as_ref()).collect();
    if names.len() < count || ports.len() > 1 {
        return false;
    }
    if !ports.contains(&None) {
        return true;
    }
    let parts: Vec<Parts<'_>> = readers.iter().filter_map(|r| Parts::of(&r.name)).collect();
    let distinct = |part: fn(&Parts<'_>) -> String| -> usize {
        parts.iter().map(part).collect::<BTreeSet<_>>().len()
    };
    let interfaces = distinct(|parts| parts.interface.into());
    let same_index = interfaces == 1 && distinct(|parts| parts.index.into()) == 1;
    parts.len() == count
        && distinct(|parts| parts.device.into()) == 1
        && (interfaces == count || same_index)
}

/// What pcscd makes a name of: `DEVICE [INTERFACE] (SERIAL) INDEX SLOT`.
struct Parts<'a> {
    device: &'a str,
    /// Empty where the device has one only.
    interface: &'a str,
    /// Of the reader among all of its driver.
    index: &'a str,
}

impl Parts<'_> {
    fn of(name: &str) -> Option<Parts<'_>> {
        let (rest, _slot) = name.rsplit_once(' ')?;
        let (rest, index) = rest.rsplit_once(' ')?;
        let rest = rest.rsplit_once(" (").map_or(rest, |(rest, _serial)| rest);
        let (device, interface) = rest.split_once('[').unwrap_or((rest, ""));
        Some(Parts { device, interface, index })
    }
}

/// Whether a slot says that it is the contactless one: `PICC`, `CL`, `5422CL`.
fn is_contactless(name: &str) -> bool {
    let said = Parts::of(name).map_or(name, |parts| match parts.interface {
        "" => parts.device,
        interface => interface,
    });
    let said = said.to_lowercase();
    said.contains("contactless")
        || said.split(|c: char| !c.is_alphanumeric()).any(|word| {
            let model = word.strip_suffix("cl").unwrap_or("-");
            matches!(word, "picc" | "nfc" | "rfid") || model.bytes().all(|b| b.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slot that is chosen of readers with these names, at one socket where `port` says so.
    fn chosen(names: &[&str], port: Option<&str>) -> Vec<String> {
        let reader = |name: &&str| PresentReader {
            name: (*name).into(),
            serial: None,
            usb_port: port.map(str::to_owned),
        };
        let present: Vec<PresentReader> = names.iter().map(reader).collect();
        let matching = (0..present.len()).collect();
        badge_slot(&present, matching).into_iter().map(|at| present[at].name.clone()).collect()
    }

    const SAM: &str = "ACS ACR1252 1S CL Reader [ACR1252 Dual Reader SAM] 00 00";
    const PICC: &str = "ACS ACR1252 1S CL Reader [ACR1252 Dual Reader PICC] 01 00";
    const CONTACT: &str =
        "Identiv uTrust 4701 F Dual Interface Reader [uTrust 4701 F Contact Reader] (5504) 00 00";
    const CL: &str =
        "Identiv uTrust 4701 F Dual Interface Reader [uTrust 4701 F CL Reader] (5504) 01 00";

    #[test]
    fn of_a_device_with_several_slots_the_contactless_one_is_meant() {
        for (names, meant) in [
            ([SAM, PICC], PICC),
            ([CONTACT, CL], CL),
            (
                ["OMNIKEY 5422 [5422 Smartcard Reader] 00 00", "OMNIKEY 5422 [5422CL] 01 00"],
                "OMNIKEY 5422 [5422CL] 01 00",
            ),
            (["Laundry (RR-1) 00 01", "Laundry (RR-1) 00 00"], "Laundry (RR-1) 00 00"),
        ] {
            for port in [None, Some("1-1.2")] {
                assert_eq!(chosen(&names, port), [meant], "{port:?}");
            }
        }
    }

    #[test]
    fn several_devices_stay_several() {
        for names in [
            // Two of the same model that have the same serial number.
            &["ACS ACR122U PICC Interface 00 00", "ACS ACR122U PICC Interface 01 00"][..],
            &[SAM, PICC, "ACS ACR1252 1S CL Reader [ACR1252 Dual Reader PICC] 02 00"],
            &["Left (S-1) 00 00", "Right (S-1) 00 00"],
            // Names that cannot be told apart.
            &["ACR 00 00", "ACR 00 00"],
        ] {
            assert_eq!(chosen(names, None), names, "{names:?}");
        }
        assert_eq!(chosen(&["ACR 00 00", "ACR 00 00"], Some("1-1")).len(), 2);
        assert_eq!(chosen(&[PICC], None), [PICC]);
    }

    #[test]
    fn readers_at_different_sockets_are_different_devices() {
        let at = |port: &str, name: &str| PresentReader {
            name: name.into(),
            serial: Some("S-1".into()),
            usb_port: Some(port.into()),
        };
        assert_eq!(badge_slot(&[at("1-1", SAM), at("1-2", PICC)], vec![0, 1]), [0, 1]);
    }
}
