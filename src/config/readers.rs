//! `[[reader]]`: how a reader is found, and what a tap on it means.

use std::time::Duration;

use super::buses::is_twice;
use super::document::{At, Document, Place, Section};
use super::wiring::{BindBy, ReaderBinding};
use crate::core::ids::StationId;
use crate::core::site::{Reader, Selection};

/// A reader as written, before its stations are known.
pub(super) struct ReaderDraft {
    pub(super) id: At<String>,
    selection: Option<At<Selection>>,
    debounce: Duration,
    selection_timeout: Duration,
    feedback: Option<String>,
    bind: Option<BindBy>,
}

/// What a reader needs to know of a station that names it.
pub(super) struct Visitor {
    pub(super) station: StationId,
    pub(super) place: Place,
    pub(super) reader: String,
    pub(super) has_button: bool,
}

const SELECTIONS: [(&str, Selection); 3] = [
    ("single", Selection::Single),
    ("first-free", Selection::FirstFree),
    ("button", Selection::Button),
];
/// Models whose LED and buzzer commands are documented.
const FEEDBACKS: [(&str, Option<&str>); 3] =
    [("none", None), ("acr122u", Some("acr122u")), ("acr1252u", Some("acr1252u"))];
/// The ways to find a reader, as keys.
const BINDINGS: [&str; 3] = ["usb_port", "serial", "name"];

/// All `[[reader]]`s, in order.
pub(super) fn read(root: &Section<'_>) -> Vec<ReaderDraft> {
    let mut readers: Vec<ReaderDraft> = Vec::new();
    let mut bindings: Vec<At<&str>> = Vec::new();
    for section in root.tables("reader") {
        let document = section.document;
        let id = section.id("id", "laundry-door");
        let bind = read_binding(&section, &mut bindings);
        let selection = section.choice("selection", &SELECTIONS);
        let feedback = section.choice("feedback", &FEEDBACKS);
        let debounce = section.duration("debounce", "1s", Duration::ZERO..=seconds(60));
        let window = section.duration("selection_timeout", "20s", seconds(1)..=seconds(600));
        section.finish();
        let Some(id) = id else { continue };
        if is_twice(document, "reader", &id, readers.iter().map(|reader| &reader.id)) {
            continue;
        }
        readers.push(ReaderDraft {
            id,
            selection,
            debounce: debounce.map_or(seconds(1), |at| at.value),
            selection_timeout: window.map_or(seconds(20), |at| at.value),
            feedback: feedback.and_then(|at| at.value).map(str::to_owned),
            bind,
        });
    }
    readers
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn read_binding<'d>(section: &Section<'d>, earlier: &mut Vec<At<&'d str>>) -> Option<BindBy> {
    let usb_port = section.parsed("usb_port", "1-1.2", usb_port);
    let serial = section.text("serial");
    let name = section.parsed("name", "ACS ACR122U*", glob);
    let named: Vec<&str> = BINDINGS.into_iter().filter(|key| section.has(key)).collect();
    let how = "name the reader by one of usb_port, serial or name";
    match named.as_slice() {
        [] => section.document.error(&section.place, "the reader cannot be found", how),
        [key] => check_binding(section, key, earlier),
        several => {
            let message = format!("{} are several bindings", several.join(" and "));
            section.document.error(&section.place, message, how);
        }
    }
    usb_port
        .map(|at| BindBy::UsbPort(at.value))
        .or(serial.map(|at| BindBy::Serial(at.value.to_owned())))
        .or(name.map(|at| BindBy::Name(at.value)))
}

/// No two readers are bound alike, and no binding rests on the plugging order unnoticed.
fn check_binding<'d>(section: &Section<'d>, key: &str, earlier: &mut Vec<At<&'d str>>) {
    let key = BINDINGS.into_iter().find(|binding| *binding == key).unwrap_or("name");
    let Some(entry) = section.get(key) else { return };
    let Some(text) = entry.value().as_str() else { return };
    let binding = At { value: text, place: entry.place };
    if key == "name" && names_an_index(text) {
        let message = "the trailing index of a name moves with the plugging order";
        let help = "bind by usb_port, or by serial where it is unique";
        section.document.warn(&binding.place, message, help);
    }
    let same =
        |other: &&At<&str>| other.value == binding.value && other.place.key == binding.place.key;
    if let Some(other) = earlier.iter().find(same) {
        let line = section.document.line(&other.place);
        let message = format!("the reader on line {line} is bound alike");
        section.document.error(&binding.place, message, "bind each reader to its own");
    }
    earlier.push(binding);
}

/// A USB port path as in /sys/bus/usb/devices: bus, port, and the ports of hubs.
fn usb_port(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no USB port path; `tapgate readers` shows them");
    let (bus, ports) = text.split_once('-').ok_or_else(wrong)?;
    let number =
        |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    (number(bus) && ports.split('.').all(number)).then(|| text.to_owned()).ok_or_else(wrong)
}

fn glob(text: &str) -> Result<glob::Pattern, String> {
    glob::Pattern::new(text).map_err(|error| format!("`{text}` is no glob: {}", error.msg))
}

/// Whether a glob depends on the digits of the ` 00 00` that pcscd appends.
fn names_an_index(glob: &str) -> bool {
    let (begin, end) = glob.rsplit_once('*').unwrap_or(("", glob));
    let tokens = tokens(end);
    if tokens.is_empty() {
        // The star may stand for the rest of the index.
        let tokens = self::tokens(begin);
        return (2..=INDEX.len()).any(|length| {
            let from = tokens.len().checked_sub(length);
            from.is_some_and(|from| is_index(&tokens[from..], &INDEX[..length]))
        });
    }
    let length = tokens.len().min(INDEX.len());
    is_index(&tokens[tokens.len() - length..], &INDEX[INDEX.len() - length..])
}

/// What pcscd appends to a name: true is a digit.
const INDEX: [bool; 6] = [false, true, true, false, true, true];

/// Characters of a glob; a class of characters counts as one.
fn tokens(glob: &str) -> Vec<char> {
    let mut tokens = Vec::new();
    let mut rest = glob;
    while let Some(first) = rest.chars().next() {
        let class = (first == '[').then(|| rest[1..].find(']')).flatten();
        rest = class.map_or(&rest[first.len_utf8()..], |end| &rest[end + 2..]);
        tokens.push(first);
    }
    tokens
}

/// Whether all tokens can stand in an index and one of them says which digit.
fn is_index(tokens: &[char], places: &[bool]) -> bool {
    let fits = |(token, is_digit): (&char, &bool)| match is_digit {
        true => token.is_ascii_hexdigit() || matches!(token, '?' | '['),
        false => matches!(token, ' ' | '?'),
    };
    let says = tokens.iter().any(|token| token.is_ascii_digit() || *token == '[');
    tokens.iter().zip(places).all(fits) && says
}

/// The readers with their stations, and what does not fit.
pub(super) fn finish(
    document: &Document<'_>,
    drafts: Vec<ReaderDraft>,
    visitors: &[Visitor],
) -> (Vec<Reader>, Vec<ReaderBinding>) {
    let mut readers = Vec::new();
    let mut bindings = Vec::new();
    for draft in drafts {
        let own: Vec<&Visitor> =
            visitors.iter().filter(|visitor| visitor.reader == draft.id.value).collect();
        let selection = draft.selection.as_ref().map_or(Selection::Single, |at| at.value);
        check_selection(document, &draft, selection, &own);
        let id: crate::core::ids::ReaderId = draft.id.value.as_str().into();
        readers.push(Reader {
            id: id.clone(),
            selection,
            debounce: draft.debounce,
            selection_timeout: draft.selection_timeout,
            stations: own.iter().map(|visitor| visitor.station.clone()).collect(),
        });
        let Some(by) = draft.bind else { continue };
        bindings.push(ReaderBinding { reader: id, by, feedback: draft.feedback });
    }
    (readers, bindings)
}

fn check_selection(
    document: &Document<'_>,
    draft: &ReaderDraft,
    selection: Selection,
    own: &[&Visitor],
) {
    let id = &draft.id.value;
    if own.is_empty() {
        let message = format!("no station names the reader `{id}`: taps on it could do nothing");
        let help = format!("write reader = \"{id}\" in a station, or remove the reader");
        document.error(&draft.id.place, message, help);
    }
    match selection {
        Selection::Single if own.len() > 1 => {
            let place = draft.selection.as_ref().map_or(&draft.id.place, |at| &at.place);
            let message = format!("`{id}` has {} stations, `single` is for one", own.len());
            let help = "write selection = \"first-free\" or \"button\"";
            document.error(place, message, help);
        }
        Selection::Button => {
            for visitor in own.iter().filter(|visitor| !visitor.has_button) {
                let message = format!(
                    "`{}` has no button, its reader `{id}` selects by button",
                    visitor.station
                );
                let help = "add button = \"device/point\", or write another selection";
                document.error(&visitor.place, message, help);
            }
        }
        Selection::Single | Selection::FirstFree => {}
    }
    if selection != Selection::Button {
        for visitor in own.iter().filter(|visitor| visitor.has_button) {
            let message = format!("the button of `{}` has no effect", visitor.station);
            let help = format!("write selection = \"button\" at reader `{id}`");
            document.warn(&visitor.place, message, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_noticed_however_it_is_written() {
        for glob in [
            "Laundry 00 00",
            "Laun* 00 00",
            "Laundry ?? 00",
            "Laun*00 00",
            "*00 00",
            "ACS ACR122U*00 0?",
            "Laundry 00 0[01]",
            "Laundry [0-9]* 00",
            "Laundry 01*",
            "Laundry 00 *",
        ] {
            assert!(names_an_index(glob), "{glob}");
        }
        for glob in
            ["Laundry*", "*", "ACS ACR122U*", "ACR122U ?? ??", "uTrust 3700 F*", "OMNIKEY 5022 CL*"]
        {
            assert!(!names_an_index(glob), "{glob}");
        }
    }
}
