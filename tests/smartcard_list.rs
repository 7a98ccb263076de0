//! The classification over every ATR that pcsc-tools knows: no card is taken for a MIFARE Classic
//! that is none.
//!
//! The list is GPL, so it is read where the Debian package puts it (`make setup` installs it).

use std::collections::BTreeSet;
use std::fs;

use tapgate::core::atr::classify;
use tapgate::core::badge::Technology;

const LIST: &str = "/usr/share/pcsc/smartcard_list.txt";

/// A newer list only grows; a much shorter one is not the list.
const ATRS_AT_LEAST: usize = 3_000;

/// What stands for any byte in the list is tried with these: zero, ISO 14443 A part 3, all ones.
const FILLINGS: [&str; 3] = ["00", "03", "FF"];

/// An ATR as the list writes it, and what it says of the card.
struct Line {
    atr: String,
    cards: String,
}

/// The list's lines; `None` where the package is not installed.
fn list() -> Option<Vec<Line>> {
    let Ok(text) = fs::read(LIST) else {
        println!("skipped: {LIST} is missing; try: apt-get install pcsc-tools");
        return None;
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match (line.strip_prefix('\t'), lines.last_mut()) {
            (Some(card), Some(last)) => last.cards.push_str(&format!("{card}; ")),
            (Some(_), None) => {}
            (None, _) => lines.push(Line { atr: line.trim().into(), cards: String::new() }),
        }
    }
    Some(lines)
}

fn technology_of(atr: &str) -> Option<Technology> {
    hex::decode(atr.replace(' ', "")).ok().map(|atr| classify(&atr))
}

fn is_classic(atr: &str) -> bool {
    technology_of(atr).is_some_and(|technology| Technology::CLASSIC.contains(&technology))
}

#[test]
fn of_all_known_cards_only_the_classics_are_classics() {
    let Some(lines) = list() else { return };
    let full: BTreeSet<&str> = lines
        .iter()
        .map(|line| line.atr.as_str())
        .filter(|atr| technology_of(atr).is_some())
        .collect();
    assert!(full.len() >= ATRS_AT_LEAST, "only {} ATRs in {LIST}", full.len());

    let classics: Vec<&str> = full.into_iter().filter(|atr| is_classic(atr)).collect();

    assert_eq!(
        classics,
        [
            "3B 8F 80 01 80 4F 0C A0 00 00 03 06 03 00 01 00 00 00 00 6A",
            "3B 8F 80 01 80 4F 0C A0 00 00 03 06 03 00 02 00 00 00 00 69",
            "3B 8F 80 01 80 4F 0C A0 00 00 03 06 03 FF 88 00 00 00 00 1C",
        ]
    );
}

#[test]
fn of_the_patterns_only_those_that_name_a_classic_are_classics() {
    let Some(lines) = list() else { return };
    let names = ["MIFARE Classic 1K", "MIFARE Classic 4K", "Mifare Mini", "MIFARE Plus SL1"];
    let mut named = BTreeSet::new();
    for line in lines.iter().filter(|line| line.atr.contains("..")) {
        let classic = FILLINGS.iter().any(|filling| is_classic(&line.atr.replace("..", filling)));
        let name = names.into_iter().find(|name| line.cards.contains(name));
        assert_eq!(classic, name.is_some(), "{}: {}", line.atr, line.cards);
        named.extend(name);
    }
    assert_eq!(named, BTreeSet::from(names));
}

#[test]
fn no_desfire_or_other_card_with_a_processor_is_a_storage_card() {
    let Some(lines) = list() else { return };
    let mut desfires = 0;
    for line in lines.iter().filter(|line| line.cards.to_lowercase().contains("desfire")) {
        let Some(technology) = technology_of(&line.atr) else { continue };
        let refused =
            matches!(technology, Technology::Desfire | Technology::Iso14443_4 | Technology::Other);
        assert!(refused, "{}: {} is {}", line.atr, line.cards, technology.as_str());
        desfires += usize::from(technology == Technology::Desfire);
    }
    assert!(desfires >= 2, "the plain DESFire and the one with the whole ATS");
}
