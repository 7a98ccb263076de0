//! Which PC/SC reader is which reader of the config.

use super::Ambiguity;
use super::slots::badge_slot;
use crate::config::wiring::{BindBy, ReaderBinding};
use crate::core::ids::ReaderId;

/// A reader that pcscd lists, with what can be learned of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PresentReader {
    /// The full PC/SC name (`ACS ACR122U PICC Interface 00 00`).
    pub(super) name: String,
    /// Its serial number, from its attributes or from its name.
    pub(super) serial: Option<String>,
    /// The USB socket it is plugged into (`1-1.2`).
    pub(super) usb_port: Option<String>,
}

/// What a present reader is to the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// This reader, and no other could be it.
    Bound(ReaderId),
    /// No binding matches.
    Unbound,
    /// Bindings match, but not one to one: nothing may be authorised from it.
    Ambiguous,
}

/// The outcome of matching readers with bindings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// One for each present reader, in their order.
    pub(super) roles: Vec<Role>,
    /// What is wrong, one for each binding or reader that matches twice.
    pub(super) ambiguities: Vec<Ambiguity>,
}

/// Matches readers with bindings. A reader is bound only where it is meant by exactly one binding
/// that means no other present reader.
pub(super) fn bind(present: &[PresentReader], bindings: &[ReaderBinding]) -> Assignment {
    let meant: Vec<Meant<'_>> =
        bindings.iter().map(|binding| Meant::by(binding, present)).collect();
    let ambiguities = meant.iter().filter_map(|meant| meant.ambiguity(present));
    let of_readers = (0..present.len()).filter_map(|at| reader_ambiguity(at, present, &meant));
    let mut ambiguities: Vec<Ambiguity> = ambiguities.chain(of_readers).collect();
    ambiguities.dedup();
    Assignment { roles: (0..present.len()).map(|at| role_of(at, &meant)).collect(), ambiguities }
}

/// A binding, and which of the present readers it means.
struct Meant<'a> {
    binding: &'a ReaderBinding,
    readers: Vec<usize>,
}

impl<'a> Meant<'a> {
    fn by(binding: &'a ReaderBinding, present: &[PresentReader]) -> Meant<'a> {
        let matching = (0..present.len()).filter(|at| matches(binding, &present[*at])).collect();
        let readers = match binding.by {
            BindBy::UsbPort(_) | BindBy::Serial(_) => badge_slot(present, matching),
            BindBy::Name(_) => matching,
        };
        Meant { binding, readers }
    }

    fn ambiguity(&self, present: &[PresentReader]) -> Option<Ambiguity> {
        if self.readers.len() < 2 {
            return None;
        }
        let quoted = |at: &usize| format!("\"{}\"", present[*at].name);
        let names: Vec<String> = self.readers.iter().map(quoted).collect();
        let remedy = match self.binding.by {
            BindBy::UsbPort(_) => "bind it by name",
            BindBy::Serial(_) => "bind it by usb_port",
            BindBy::Name(_) => "bind it by usb_port, by serial or by a narrower name",
        };
        let (reader, names) = (self.binding.reader.clone(), names.join(" and "));
        let message = format!("reader {reader} matches {names}; {remedy}");
        Some(Ambiguity { readers: vec![reader], message })
    }
}

fn role_of(at: usize, meant: &[Meant<'_>]) -> Role {
    let mut by = meant.iter().filter(|meant| meant.readers.contains(&at));
    match (by.next(), by.next()) {
        (None, _) => Role::Unbound,
        (Some(one), None) if one.readers.len() == 1 => Role::Bound(one.binding.reader.clone()),
        (Some(_), _) => Role::Ambiguous,
    }
}

fn reader_ambiguity(
    at: usize,
    present: &[PresentReader],
    meant: &[Meant<'_>],
) -> Option<Ambiguity> {
    let by = meant.iter().filter(|meant| meant.readers.contains(&at));
    let readers: Vec<ReaderId> = by.map(|meant| meant.binding.reader.clone()).collect();
    let names: Vec<&str> = readers.iter().map(|reader| reader.as_str()).collect();
    let message = format!(
        "\"{}\" matches readers {}; narrow one of the two in the config",
        present[at].name,
        names.join(" and ")
    );
    (readers.len() > 1).then_some(Ambiguity { readers, message })
}

fn matches(binding: &ReaderBinding, reader: &PresentReader) -> bool {
    match &binding.by {
        BindBy::UsbPort(port) => reader.usb_port.as_ref() == Some(port),
        BindBy::Serial(serial) => reader.serial.as_ref() == Some(serial),
        BindBy::Name(glob) => glob.matches(&reader.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(reader: &str, by: BindBy) -> ReaderBinding {
        ReaderBinding { reader: reader.into(), by, feedback: None }
    }

    fn by_name(reader: &str, glob: &str) -> ReaderBinding {
        by(reader, BindBy::Name(glob::Pattern::new(glob).expect("a valid glob")))
    }

    fn acr(index: u8) -> PresentReader {
        PresentReader {
            name: format!("ACS ACR122U PICC Interface {index:02} 00"),
            ..PresentReader::default()
        }
    }

    fn bound(reader: &str) -> Role {
        Role::Bound(reader.into())
    }

    #[test]
    fn binds_by_name_serial_and_usb_port() {
        let present = [
            acr(0),
            PresentReader { serial: Some("B1234".into()), ..acr(1) },
            PresentReader { usb_port: Some("1-1.2".into()), ..acr(2) },
            acr(3),
        ];
        let bindings = [
            by_name("laundry", "ACS ACR122U*00 00"),
            by("garage", BindBy::Serial("B1234".into())),
            by("door", BindBy::UsbPort("1-1.2".into())),
            by("absent", BindBy::UsbPort("1-1.3".into())),
        ];

        let assignment = bind(&present, &bindings);

        let roles = vec![bound("laundry"), bound("garage"), bound("door"), Role::Unbound];
        assert_eq!(assignment, Assignment { roles, ambiguities: Vec::new() });
    }

    #[test]
    fn two_readers_that_match_one_binding_are_both_refused_and_named() {
        let assignment = bind(&[acr(0), acr(1)], &[by_name("laundry", "ACS*")]);

        assert_eq!(assignment.roles, [Role::Ambiguous, Role::Ambiguous]);
        let Ambiguity { readers, message } = assignment.ambiguities.first().expect("one");
        assert_eq!(readers[..], ["laundry".into()]);
        assert!(message.contains("reader laundry"), "{message}");
        assert!(message.contains("Interface 00 00"), "{message}");
        assert!(message.contains("Interface 01 00"), "{message}");
    }

    #[test]
    fn one_reader_that_matches_two_bindings_is_refused_and_both_are_named() {
        let bindings = [by_name("laundry", "ACS*"), by_name("garage", "*ACR122U*")];

        let assignment = bind(&[acr(0)], &bindings);

        assert_eq!(assignment.roles, [Role::Ambiguous]);
        let Ambiguity { readers, message } = assignment.ambiguities.first().expect("one");
        assert_eq!(readers[..], ["laundry".into(), "garage".into()]);
        assert!(message.contains("laundry and garage"), "{message}");
    }

    #[test]
    fn an_ambiguity_leaves_other_readers_alone() {
        let present = [acr(0), acr(1), PresentReader { serial: Some("7".into()), ..acr(2) }];
        let bindings =
            [by_name("laundry", "*Interface 0[01] 00"), by("garage", BindBy::Serial("7".into()))];

        let assignment = bind(&present, &bindings);

        assert_eq!(assignment.roles, [Role::Ambiguous, Role::Ambiguous, bound("garage")]);
    }

    #[test]
    fn a_serial_number_counts_only_where_it_is_unique() {
        let twin = |index| PresentReader { serial: Some("A02014090501".into()), ..acr(index) };
        let bindings = [by("laundry", BindBy::Serial("A02014090501".into()))];

        assert_eq!(bind(&[twin(0)], &bindings).roles, [bound("laundry")]);
        assert_eq!(bind(&[twin(0), twin(1)], &bindings).roles, [Role::Ambiguous, Role::Ambiguous]);
    }

    #[test]
    fn a_socket_means_the_slot_where_badges_are_held_and_the_others_are_not_bound() {
        let slot = |name: &str| PresentReader {
            name: name.into(),
            usb_port: Some("1-1.2".into()),
            ..PresentReader::default()
        };
        let present = [slot("ACR1252 [SAM] 00 00"), slot("ACR1252 [PICC] 01 00"), acr(0)];
        let bindings =
            [by("laundry", BindBy::UsbPort("1-1.2".into())), by_name("garage", "*ACR122U*")];

        let assignment = bind(&present, &bindings);

        let roles = vec![Role::Unbound, bound("laundry"), bound("garage")];
        assert_eq!(assignment, Assignment { roles, ambiguities: Vec::new() });
    }

    #[test]
    fn two_readers_of_the_same_name_cannot_be_told_apart() {
        let bindings = [by_name("laundry", "ACS*")];

        assert_eq!(bind(&[acr(0), acr(0)], &bindings).roles, [Role::Ambiguous, Role::Ambiguous]);
    }
}
