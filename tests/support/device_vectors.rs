//! What each simulated device holds and what must be made of it, see `device_vectors.py`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Function code, address and words of a write.
pub(crate) type Write = (u8, u16, Vec<u16>);
/// Table, address and words.
pub(crate) type Cells = (String, u16, Vec<u16>);

#[derive(Clone, Deserialize)]
pub(crate) struct Vector {
    pub(crate) most: u16,
    pub(crate) strict: bool,
    pub(crate) even: bool,
    pub(crate) without_function_6: bool,
    pub(crate) registers: Vec<Cells>,
    pub(crate) expected: Expected,
    pub(crate) charger: Option<Charger>,
    pub(crate) relay: Option<Relay>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Expected {
    pub(crate) wh: Option<i64>,
    pub(crate) mw: Option<i64>,
    pub(crate) mv: Option<i64>,
    pub(crate) serial: Option<String>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Charger {
    #[serde(default)]
    pub(crate) startup: Vec<Write>,
    pub(crate) start: Vec<Write>,
    pub(crate) stop: Vec<Write>,
    pub(crate) heartbeat: Option<Write>,
    /// The longest pause between two heartbeats, in seconds.
    pub(crate) heartbeat_s: Option<u64>,
    /// How long a set-point is valid, in seconds.
    pub(crate) refresh_s: Option<u64>,
    /// The shortest pause between two writes, in seconds.
    pub(crate) write_gap_s: Option<u64>,
    /// What is written cannot be read.
    #[serde(default)]
    pub(crate) blind: bool,
    /// Registers, and the letter that they stand for.
    pub(crate) states: Vec<(Vec<Cells>, char)>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Relay {
    pub(crate) function: u8,
    pub(crate) first: u16,
    pub(crate) count: u16,
    pub(crate) on: u16,
    pub(crate) off: u16,
    /// Table and address of the first input.
    pub(crate) inputs: Option<(String, u16)>,
    pub(crate) startup: Vec<Write>,
}

/// All of them by the name of their profile.
pub(crate) fn all() -> BTreeMap<String, Vector> {
    serde_json::from_str(include_str!("device_vectors.json")).expect("written by a script")
}
