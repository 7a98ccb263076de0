//! The readers that are plugged in, over all plugging and unplugging, and what each is to the
//! config.

use std::ffi::{CStr, CString};

use super::Ambiguity;
use super::binding::{PresentReader, Role, bind};
use crate::config::wiring::ReaderBinding;

/// Readers that are watched, each with a thread: twice what pcscd has room for before 2.5.0. Those
/// of the config come first.
const WATCHED_MAX: usize = 32;

/// What pcscd listed last, with what is known of each.
#[derive(Debug, Default)]
pub(super) struct Roster {
    present: Vec<(CString, PresentReader)>,
}

/// Who is to be watched as what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watchlist {
    /// By PC/SC name.
    pub(super) roles: Vec<(CString, Role)>,
    /// What does not match one to one.
    pub(super) ambiguities: Vec<Ambiguity>,
    /// Readers for which there is no room.
    pub(super) left_out: usize,
}

impl Roster {
    /// Takes what pcscd lists now and asks about those that are new.
    pub(super) fn refresh(
        &mut self,
        names: Vec<CString>,
        mut describe: impl FnMut(&CStr) -> PresentReader,
    ) {
        let mut known = std::mem::take(&mut self.present);
        self.present = names
            .into_iter()
            .map(|name| match known.iter().position(|(known, _)| *known == name) {
                Some(index) => known.swap_remove(index),
                None => {
                    let reader = describe(&name);
                    (name, reader)
                }
            })
            .collect();
    }

    /// What is known of a reader no longer holds: if it is listed again, it is asked again.
    pub(super) fn forget(&mut self, name: &CStr) {
        self.present.retain(|(known, _)| known.as_c_str() != name);
    }

    pub(super) fn clear(&mut self) {
        self.present.clear();
    }

    pub(super) fn lists(&self, name: &CStr) -> bool {
        self.present.iter().any(|(listed, _)| listed.as_c_str() == name)
    }

    pub(super) fn watchlist(&self, bindings: &[ReaderBinding]) -> Watchlist {
        let readers: Vec<PresentReader> =
            self.present.iter().map(|(_, reader)| reader.clone()).collect();
        let assignment = bind(&readers, bindings);
        let names = self.present.iter().map(|(name, _)| name.clone());
        let mut roles: Vec<(CString, Role)> = names.zip(assignment.roles).collect();
        roles.sort_by_key(|(_, role)| !matches!(role, Role::Bound(_)));
        let left_out = roles.len().saturating_sub(WATCHED_MAX);
        roles.truncate(WATCHED_MAX);
        Watchlist { roles, ambiguities: assignment.ambiguities, left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::wiring::BindBy;

    fn by_port(reader: &str, port: &str) -> ReaderBinding {
        ReaderBinding { reader: reader.into(), by: BindBy::UsbPort(port.into()), feedback: None }
    }

    /// A recorded plugging: what pcscd listed, and the socket behind each name at that time.
    type Plugged<'a> = &'a [(&'a str, &'a str)];

    fn plug(roster: &mut Roster, plugged: Plugged<'_>) {
        let name = |(name, _): &(&str, &str)| CString::new(*name).expect("no NUL");
        roster.refresh(plugged.iter().map(name).collect(), |name| {
            let found = plugged.iter().find(|(known, _)| known.as_bytes() == name.to_bytes());
            PresentReader {
                name: name.to_string_lossy().into_owned(),
                serial: None,
                usb_port: found.map(|(_, port)| (*port).to_owned()),
            }
        });
    }

    fn bound(roster: &Roster, bindings: &[ReaderBinding]) -> Vec<(String, String)> {
        let list = roster.watchlist(bindings);
        assert_eq!(list.ambiguities, []);
        let bound = list.roles.into_iter().filter_map(|(name, role)| match role {
            Role::Bound(reader) => Some((reader.to_string(), name.to_string_lossy().into_owned())),
            Role::Unbound | Role::Ambiguous => None,
        });
        let mut bound: Vec<_> = bound.collect();
        bound.sort();
        bound
    }

    #[test]
    fn readers_keep_their_sockets_whatever_order_they_are_plugged_in() {
        let bindings = [by_port("garage", "1-1.3"), by_port("laundry", "1-1.2")];
        let mut roster = Roster::default();
        plug(&mut roster, &[("ACR 00 00", "1-1.2"), ("ACR 01 00", "1-1.3")]);
        let both = |laundry: &str, garage: &str| {
            [("garage".to_owned(), garage.to_owned()), ("laundry".into(), laundry.into())]
        };
        assert_eq!(bound(&roster, &bindings), both("ACR 00 00", "ACR 01 00"));

        // The first is unplugged; the other keeps its index.
        plug(&mut roster, &[("ACR 01 00", "1-1.3")]);
        assert_eq!(bound(&roster, &bindings), both("", "ACR 01 00")[..1]);

        // Both are unplugged and plugged in the other way round: the indexes swap.
        plug(&mut roster, &[]);
        assert_eq!(bound(&roster, &bindings), []);
        plug(&mut roster, &[("ACR 00 00", "1-1.3")]);
        plug(&mut roster, &[("ACR 00 00", "1-1.3"), ("ACR 01 00", "1-1.2")]);
        assert_eq!(bound(&roster, &bindings), both("ACR 01 00", "ACR 00 00"));
    }

    #[test]
    fn a_reader_that_moves_between_two_looks_is_asked_again() {
        let bindings = [by_port("garage", "1-1.3"), by_port("laundry", "1-1.2")];
        let mut roster = Roster::default();
        plug(&mut roster, &[("ACR 00 00", "1-1.2")]);
        // Its thread saw it go; the list never did.
        roster.forget(c"ACR 00 00");
        plug(&mut roster, &[("ACR 00 00", "1-1.3")]);
        assert_eq!(bound(&roster, &bindings), [("garage".into(), "ACR 00 00".into())]);
        assert!(roster.lists(c"ACR 00 00"));
    }

    #[test]
    fn readers_of_the_config_are_watched_before_all_others() {
        let names: Vec<String> = (0..40).map(|index| format!("ACR {index:02} 00")).collect();
        let plugged: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        let mut roster = Roster::default();
        plug(&mut roster, &plugged);
        let glob = glob::Pattern::new("ACR 39 00").expect("a glob");
        let by = BindBy::Name(glob);
        let binding = ReaderBinding { reader: "laundry".into(), by, feedback: None };

        let list = roster.watchlist(&[binding]);

        assert_eq!(list.roles[0], (c"ACR 39 00".to_owned(), Role::Bound("laundry".into())));
        assert_eq!((list.roles.len(), list.left_out), (WATCHED_MAX, 8));
    }
}
