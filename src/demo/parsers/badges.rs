//! What a card shows, and what a person types.

use super::Choices;
use crate::core::atr::classify;
use crate::core::badge::{Technology, Uid};
use crate::core::renderings::{Rendering, renderings, uids_written_as};
use crate::io::pcsc::uid_in;

/// An ATR, its length first, then the answer to GET DATA.
pub(super) fn card(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let length = usize::from(choices.byte());
    let rest = choices.rest();
    let (atr, answer) = rest.split_at(length.min(rest.len()));
    let technology = classify(atr);
    assert_eq!(technology, classify(atr));
    if Technology::CLASSIC.contains(&technology) {
        // Only the reader makes these up, with nothing left out: PC/SC part 3, 3.1.3.2.3.
        let named = &[0x80, 0x01, 0x80, 0x4F];
        assert!(atr.len() >= 19 && atr[2..6] == *named && atr[7..13] == [0xA0, 0, 0, 3, 6, 3]);
    }
    let number = uid_in(answer);
    let good = matches!(answer.len(), 6 | 9 | 12) && answer.ends_with(&[0x90, 0]);
    assert_eq!(number.is_some(), good);
    if let Some(uid) = number {
        assert_eq!(uid.as_bytes(), &answer[..answer.len() - 2]);
        all_forms(uid);
    }
}

/// A badge's number as somebody types it.
pub(super) fn number(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(uid) = text.parse::<Uid>() {
        all_forms(uid);
    }
    if let Some(uid) = Uid::from_wire(text) {
        assert_eq!(uid.to_string(), text);
    }
    for (form, uid) in uids_written_as(text) {
        assert!(matches!(uid.as_bytes().len(), 4 | 7 | 10), "{form}");
        assert_eq!(uids_written_as(text).iter().filter(|other| other.1 == uid).count(), 1);
    }
}

/// Each form that holds the whole number leads back to it, and `Debug` shows none of it.
fn all_forms(uid: Uid) {
    assert_eq!(Uid::from_wire(&uid.to_string()), Some(uid));
    assert_eq!(uid.to_string().to_lowercase().parse(), Ok(uid));
    assert_eq!(format!("{uid:?}"), format!("Uid({} bytes)", uid.as_bytes().len()));
    for form in renderings(uid).into_iter().filter(|form| is_read_back(uid, form)) {
        let found = uids_written_as(&form.text);
        assert!(found.iter().any(|(_, read)| *read == uid), "{} {}", form.form, form.text);
    }
}

/// Joined bytes can be cut apart in many ways, and in decimal neither numbers of ten bytes nor
/// seven bytes that would also be four are told apart.
fn is_read_back(uid: Uid, form: &Rendering) -> bool {
    let hex = form.form.starts_with("hex");
    let digits = form.text.parse::<u64>().is_ok_and(|number| u32::try_from(number).is_ok());
    match uid.as_bytes() {
        [0, ..] if uid.as_bytes().len() > 4 => false,
        _ if form.ambiguous || form.form == "bytes" => false,
        four if four.len() == 4 => true,
        seven if seven.len() == 7 => hex || !digits,
        _ => hex,
    }
}
