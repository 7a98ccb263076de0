//! Who lives at the site, and what is installed there.

use std::path::Path;

use serde_json::{Value, json};
use tapgate::demo::card::{ATR_CLASSIC_1K, ATR_DESFIRE};

pub(crate) const GATEWAY: &str = "e2e-house-1";
/// Readers, as pcscd lists them: of the washer, the charger and the dryer.
pub(crate) const READERS: [&str; 3] = ["Laundry", "Garage", "Drying"];
pub(crate) const WASHER_METER: u8 = 11;
pub(crate) const CHARGER_METER: u8 = 12;
pub(crate) const DRYER_METER: u8 = 13;
/// Coils of the relay board, from 0 as on the wire.
pub(crate) const WASHER_COIL: u8 = 0;
pub(crate) const CHARGER_COIL: u8 = 1;

/// A card that somebody holds to a reader.
pub(crate) struct Card {
    pub(crate) uid: &'static [u8],
    pub(crate) atr: &'static [u8],
}

const fn classic(uid: &'static [u8]) -> Card {
    Card { uid, atr: &ATR_CLASSIC_1K }
}

pub(crate) const ANNA: Card = classic(&[0x04, 0xA1, 0xB2, 0x01]);
pub(crate) const BORIS: Card = classic(&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0x02]);
/// Reported lost.
pub(crate) const DAVID: Card = classic(&[0x04, 0xA1, 0xB2, 0x04]);
/// Like Anna, but her card is a DESFire.
pub(crate) const GINA: Card =
    Card { uid: &[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0x07], atr: &ATR_DESFIRE };
pub(crate) const STRANGER: Card = classic(&[0x04, 0xFF, 0xEE, 0x08]);
/// Its number is drawn anew each time.
pub(crate) const PHONE: Card = Card { uid: &[0x08, 0x12, 0x34, 0x56], atr: &ATR_DESFIRE };

/// The list that every site starts with, as version 1.
pub(crate) fn allowlist() -> Vec<Value> {
    let laundry_and_garage = json!(["group:laundry", "place:P-12"]);
    vec![
        entry("b-1", &ANNA, "active", laundry_and_garage.clone()),
        entry("b-2", &BORIS, "active", json!(["group:laundry"])),
        entry("b-4", &DAVID, "blocked", laundry_and_garage.clone()),
        entry("b-7", &GINA, "active", laundry_and_garage),
    ]
}

pub(crate) fn entry(badge: &str, card: &Card, status: &str, grants: Value) -> Value {
    json!({
        "badge": badge,
        "uid": hex::encode_upper(card.uid),
        "user": badge.replace('b', "u"),
        "origin": "issued",
        "status": status,
        "grants": grants,
    })
}

/// The config, with times for tests; the bus is `transport = …` and what belongs to it.
pub(crate) fn config(folder: &Path, bus: &str, broker: u16) -> String {
    let folder = folder.display();
    let mut text = format!(
        r#"[gateway]
id = "{GATEWAY}"
timezone = "Europe/Zurich"
billing = "managed"

[storage]
path = "{folder}/store/tapgate.db"

[control]
socket = "{folder}/control.sock"

[cloud]
url = "mqtt://127.0.0.1:{broker}"

[[bus]]
id = "room"
{bus}

[[device]]
id = "relays"
bus = "room"
unit = 1
profile = "waveshare-relay-8"
"#
    );
    let laundry = "groups = [\"laundry\"]\nmax_power = \"50kW\"\nidle_after = \"2s\"\n\
                   min_duration = \"1s\"\nhandover_after = \"off\"\n";
    let washer = format!("{laundry}start_timeout = \"60s\"");
    let dryer = format!("{laundry}start_timeout = \"3s\"");
    text += &station("washer", "Laundry", 1, WASHER_METER, &washer);
    text += &station("charger", "Garage", 2, CHARGER_METER, "private = true\nplace = \"P-12\"");
    text += &station("dryer", "Drying", 3, DRYER_METER, &dryer);
    text
}

/// A station with a meter and a reader of its own.
fn station(kind: &str, reader: &str, relay: u8, meter: u8, rules: &str) -> String {
    let id = reader.to_lowercase();
    format!(
        r#"
[[device]]
id = "meter-{kind}"
bus = "room"
unit = {meter}
profile = "eastron-sdm120"

[[reader]]
id = "{id}"
name = "{reader} 00 00"
selection = "single"

[[station]]
id = "{kind}-1"
kind = "{kind}"
label = "The {kind}"
reader = "{id}"
switch = "relays/relay-{relay}"
meter = "meter-{kind}"
{rules}
"#
    )
}
