//! The demo's building: what is installed, who lives there, what the config says.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::card;
use super::devices::{Building, LoadProfile, Machine};

/// MQTT identity of the demo's gateway.
pub(super) const GATEWAY: &str = "demo-house-1";
/// Unit id of the relay board.
const BOARD: u8 = 1;
/// Readers, as pcscd lists them.
pub(super) const READERS: [&str; 3] = ["Laundry", "Dryers", "Garage"];

/// One machine of the building.
pub(super) struct Installed {
    pub(super) station: &'static str,
    kind: &'static str,
    label: &'static str,
    reader: &'static str,
    pub(super) meter: u8,
    start_wh: i64,
    /// Seconds and watts, one after the other.
    load: &'static [(u64, u32)],
}

/// A wash takes some seconds here, with a soak in the middle that must not end it.
const WASH: &[(u64, u32)] = &[(1, 60), (3, 2_100), (1, 2), (2, 350)];
const DRY: &[(u64, u32)] = &[(4, 2_400), (1, 150)];
const CAR: &[(u64, u32)] = &[(3_600, 11_000)];

/// Everything with a plug, in config order.
pub(super) const INSTALLED: [Installed; 6] = [
    Installed::new("washer-1", "washer", "Machine 1", "laundry", 11, 4_512_007, WASH),
    Installed::new("washer-2", "washer", "Machine 2", "laundry", 12, 88_430, WASH),
    Installed::new("washer-3", "washer", "Machine 3", "laundry", 13, 0, WASH),
    Installed::new("dryer-1", "dryer", "Dryer 1", "dryers", 14, 902_114, DRY),
    Installed::new("dryer-2", "dryer", "Dryer 2", "dryers", 15, 12_500, DRY),
    Installed::new("charger-12", "charger", "Parking P-12", "garage", 16, 1_204_988, CAR),
];

impl Installed {
    const fn new(
        station: &'static str,
        kind: &'static str,
        label: &'static str,
        reader: &'static str,
        meter: u8,
        start_wh: i64,
        load: &'static [(u64, u32)],
    ) -> Installed {
        Installed { station, kind, label, reader, meter, start_wh, load }
    }
}

/// Somebody with a card.
pub(super) struct Resident {
    pub(super) name: &'static str,
    pub(super) uid: &'static [u8],
    pub(super) atr: &'static [u8],
    badge: Option<&'static str>,
    origin: &'static str,
    status: &'static str,
    valid_until: Option<&'static str>,
    grants: &'static [&'static str],
}

const LAUNDRY: &[&str] = &["group:laundry"];
const EVERYTHING: &[&str] = &["group:laundry", "place:P-12"];

const fn resident(
    name: &'static str,
    uid: &'static [u8],
    badge: &'static str,
    grants: &'static [&'static str],
) -> Resident {
    Resident {
        name,
        uid,
        atr: &card::ATR_CLASSIC_1K,
        badge: Some(badge),
        origin: "issued",
        status: "active",
        valid_until: None,
        grants,
    }
}

const fn stranger(name: &'static str, uid: &'static [u8], atr: &'static [u8]) -> Resident {
    Resident { badge: None, atr, ..resident(name, uid, "", &[]) }
}

pub(super) const ANNA: Resident = resident("Anna", &[0x04, 0xA1, 0xB2, 0x01], "b-1", EVERYTHING);
pub(super) const BORIS: Resident = resident("Boris", &[0x04, 0xA1, 0xB2, 0x02], "b-2", LAUNDRY);
pub(super) const CHIARA: Resident =
    resident("Chiara", &[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0x03], "b-3", LAUNDRY);
pub(super) const DAVID: Resident = Resident {
    status: "blocked",
    ..resident("David (badge lost)", &[0x04, 0xA1, 0xB2, 0x04], "b-4", EVERYTHING)
};
pub(super) const ELENA: Resident = Resident {
    valid_until: Some("2020-12-31T23:00:00Z"),
    ..resident("Elena (moved out)", &[0x04, 0xA1, 0xB2, 0x05], "b-5", LAUNDRY)
};
pub(super) const FELIX: Resident = Resident {
    origin: "third_party",
    ..resident("Felix (door badge)", &[0x04, 0xA1, 0xB2, 0x06], "b-6", LAUNDRY)
};
pub(super) const GINA: Resident = Resident {
    atr: &card::ATR_DESFIRE,
    ..resident("Gina (DESFire)", &[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0x07], "b-7", EVERYTHING)
};
pub(super) const STRANGER: Resident =
    stranger("a stranger", &[0x04, 0xFF, 0xEE, 0x08], &card::ATR_CLASSIC_1K);
pub(super) const PHONE: Resident =
    stranger("a phone", &[0x08, 0x12, 0x34, 0x56], &card::ATR_DESFIRE);

/// Everybody whom the allowlist names.
const LISTED: [Resident; 7] = [ANNA, BORIS, CHIARA, DAVID, ELENA, FELIX, GINA];

/// The allowlist that the stand-in cloud pushes.
pub(super) fn allowlist() -> Vec<Value> {
    let entry = |resident: &Resident| {
        json!({
            "badge": resident.badge,
            "uid": hex::encode_upper(resident.uid),
            "user": resident.badge.map(|badge| badge.replace('b', "u")),
            "origin": resident.origin,
            "status": resident.status,
            "grants": resident.grants,
            "valid_until": resident.valid_until,
        })
    };
    LISTED.iter().map(entry).collect()
}

/// The machines, behind one relay board with a meter each.
pub(super) fn building() -> Building {
    let building = Building::new(1);
    building.add_board(BOARD, INSTALLED.len(), 0);
    for (relay, installed) in (0..).zip(&INSTALLED) {
        building.add_machine(Machine {
            meter: installed.meter,
            serial: 20_000_000 + u32::from(installed.meter),
            start_wh: installed.start_wh,
            relay: (BOARD, relay),
            load: LoadProfile::of(installed.load),
        });
    }
    building
}

/// Where the daemon listens.
pub(super) fn control_socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// The config that a technician would have written, with times for people who watch.
pub(super) fn config(folder: &Path, modbus: std::net::SocketAddr, broker: u16) -> String {
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
id = "technical-room"
transport = "tcp"
address = "{modbus}"
timeout = "500ms"

[[device]]
id = "relays"
bus = "technical-room"
unit = {BOARD}
profile = "waveshare-relay-8"
"#
    );
    for reader in READERS {
        let id = reader.to_lowercase();
        let selection = if id == "garage" { "single" } else { "first-free" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[reader]]\nid = \"{id}\"\nname = \"{reader} 00 00\"\nselection = \"{selection}\"\n"
        );
    }
    for (relay, installed) in (1..).zip(&INSTALLED) {
        station(&mut text, relay, installed);
    }
    text
}

fn station(text: &mut String, relay: u32, installed: &Installed) {
    let Installed { station, kind, label, reader, meter, .. } = installed;
    let _ = write!(
        text,
        r#"
[[device]]
id = "meter-{station}"
bus = "technical-room"
unit = {meter}
profile = "eastron-sdm630"

[[station]]
id = "{station}"
kind = "{kind}"
label = "{label}"
reader = "{reader}"
switch = "relays/relay-{relay}"
meter = "meter-{station}"
"#
    );
    let _ = if *kind == "charger" {
        write!(text, "groups = [\"garage\"]\nprivate = true\nplace = \"P-12\"\n")
    } else {
        write!(
            text,
            "groups = [\"laundry\"]\nidle_after = \"2s\"\nmin_duration = \"3s\"\n\
             start_timeout = \"5s\"\nhandover_after = \"off\"\n"
        )
    };
}
