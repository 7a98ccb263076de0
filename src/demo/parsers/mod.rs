//! Every parser that meets the outside, as one function each: it takes any bytes, and panics where
//! something does not hold that must hold of any. What is refused is refused without a trace, since
//! parsers keep nothing; what is accepted says the same when it is written and read again.
//!
//! `tests/parsers.rs` runs them on the kept corpus and on seeded mutations of it, `fuzz/` runs them
//! under libFuzzer.

mod badges;
mod cloud;
mod field;
mod site;

/// A parser and what must hold of it.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Its name, also of its folder under `tests/corpus`.
    pub name: &'static str,
    /// Panics where something does not hold.
    pub check: fn(&[u8]),
}

macro_rules! parsers {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$(Parser { name: stringify!($name), check: $module::$name }),*]
    };
}

/// All of them.
pub const PARSERS: [Parser; 16] = parsers![
    cloud::ack,
    cloud::command,
    cloud::head,
    cloud::entry,
    cloud::part,
    cloud::jws,
    cloud::down,
    cloud::broker,
    cloud::packets,
    site::config,
    site::profile,
    site::control,
    field::frames,
    field::registers,
    badges::card,
    badges::number,
];

/// Checks one of them, by its name.
pub fn check(name: &str, bytes: &[u8]) {
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    (parser.expect("a parser of that name").check)(bytes);
}

/// Choices that a parser's surroundings make, taken off the front of the bytes; 0 where there are
/// none left.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}
