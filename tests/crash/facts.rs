//! What happens at a small site, as records, and lists of badges.

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tapgate::core::badge::Uid;
use tapgate::core::ids::SessionId;
use tapgate::core::ledger::{
    Authority, EndReason, Fact, InterruptionCause, MeterChange, Quality, SessionEnd, SessionStart,
    SwitchPosition, UnattributedCause,
};
use tapgate::core::memo::Memo;
use tapgate::core::site::StationKind;
use tapgate::core::time::Wall;
use tapgate::protocol::allowlist::judge;

/// 2026-11-22T10:00:00Z.
pub const TEN: i64 = 1_795_341_600_000;

const LIST: &str = "5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11";

/// Bytes of a part's chunk: small parts have several.
const CHUNK: usize = 700;

pub fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

pub fn uid(n: u32) -> Uid {
    let [_, a, b, c] = n.to_be_bytes();
    Uid::new(&[4, a, b, c]).expect("four bytes")
}

pub fn started() -> Fact {
    Fact::GatewayStarted { version: "1.0.0".into(), boot_id: "kernel-1".into() }
}

pub fn commissioned(station: u8, register: i64) -> Fact {
    Fact::MeterCommissioned(MeterChange {
        station: format!("washer-{station}").into(),
        meter: format!("meter-{station}").into(),
        old_serial: None,
        old_register_wh: None,
        new_serial: Some(format!("SN-{station}")),
        new_register_wh: register,
    })
}

pub fn replaced(station: u8, old: i64, new: i64) -> Fact {
    Fact::MeterReplaced(MeterChange {
        station: format!("washer-{station}").into(),
        meter: format!("meter-{station}").into(),
        old_serial: Some(format!("SN-{station}")),
        old_register_wh: Some(old),
        new_serial: Some(format!("SN-{station}-b")),
        new_register_wh: new,
    })
}

fn start(n: u8, station: u8, register: i64) -> SessionStart {
    SessionStart {
        session: session(n),
        station: format!("washer-{station}").into(),
        station_kind: StationKind::Washer,
        user: Some(format!("u-{n}").into()),
        badge: Some(format!("b-{n}").into()),
        authorised_by: Authority::Allowlist,
        allowlist_version: Some(1),
        meter: Some(format!("meter-{station}").into()),
        register_wh: Some(register),
        missing: false,
        uid: Some(uid(n.into())),
    }
}

pub fn begins(n: u8, station: u8, register: i64) -> Fact {
    Fact::SessionStarted(start(n, station, register))
}

pub fn slot(n: u8, from_wh: i64, to_wh: i64) -> Fact {
    let (session, slot) = (session(n), Wall(TEN));
    Fact::SessionSlot { session, slot, from_wh, to_wh, estimated: false, since: None, until: None }
}

pub fn ending(n: u8) -> Fact {
    Fact::SessionEnding { session: session(n), reason: EndReason::Tapped }
}

pub fn interrupted(n: u8, register: i64) -> Fact {
    Fact::Interruption {
        session: session(n),
        cause: InterruptionCause::PowerLoss,
        register_wh_before: Some(register),
        register_wh_after: Some(register),
        outage_s: Some(30),
    }
}

pub fn ends(n: u8, station: u8, registers: (i64, i64)) -> Fact {
    let (from, to) = registers;
    Fact::SessionEnded(SessionEnd {
        start: start(n, station, from),
        reason: EndReason::Finished,
        end_register_wh: Some(to),
        energy_wh: Some(to - from),
        duration_s: 60,
        quality: Quality::Measured,
    })
}

pub fn unattributed(station: u8, from_wh: i64, to_wh: i64) -> Fact {
    Fact::Unattributed {
        station: format!("washer-{station}").into(),
        meter: format!("meter-{station}").into(),
        serial: None,
        from_wh,
        to_wh,
        since: Wall(TEN),
        until: Wall(TEN),
        switch: SwitchPosition::Open,
        sessions: Vec::new(),
        cause: UnattributedCause::NoSession,
    }
}

pub fn clock_set() -> Fact {
    Fact::ClockSet { wall: Wall(TEN + 5_000), before: Wall(5_000) }
}

pub fn memo(n: u8, reclosed: u32) -> Memo {
    Memo {
        session: session(n),
        ended: Some(EndReason::Tapped),
        end_when_idle: None,
        reclosed,
        opens: Some("washer-1".into()),
        idleness: None,
    }
}

/// The badge with this number: it opens everything, or nothing.
pub fn badge(n: u32, status: &str) -> String {
    format!(
        r#"{{"badge":"b-{n}","uid":"04{n:06X}","user":"u-{n}","origin":"issued","status":"{status}","grants":["*"]}}"#
    )
}

pub fn badges(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| badge(n, "active")).collect()
}

fn head(version: u64, entries: &[String]) -> Value {
    let hashes: Vec<u8> = entries
        .iter()
        .map(|entry| judge(entry.as_bytes()).unwrap_or_else(|bad| panic!("{entry}: {bad:?}")))
        .flat_map(|(.., canonical)| Sha256::digest(canonical))
        .collect();
    json!({
        "list": LIST, "version": version, "count": entries.len(),
        "digest": hex::encode(Sha256::digest(hashes)), "issued_at": "2026-11-22T10:00:00Z",
    })
}

fn parsed(entries: &[String]) -> Vec<Value> {
    entries.iter().map(|entry| serde_json::from_str(entry).expect("JSON")).collect()
}

/// A list with the content that its head names.
#[derive(Clone, Debug)]
pub struct Offered {
    pub head: Value,
    /// Its parts, in chunks as they are published.
    pub chunks: Vec<(String, Vec<Vec<u8>>)>,
}

/// A whole list in its head.
pub fn inline(version: u64, entries: &[String]) -> Offered {
    let mut head = head(version, entries);
    head["entries"] = parsed(entries).into();
    Offered { head, chunks: Vec::new() }
}

/// A list in parts of so many badges.
pub fn in_parts(version: u64, entries: &[String], badges: usize) -> Offered {
    let mut head = head(version, entries);
    let parts: Vec<Vec<u8>> = entries
        .chunks(badges)
        .map(|part| part.iter().flat_map(|entry| format!("{entry}\n").into_bytes()).collect())
        .collect();
    let name = |part: &Vec<u8>| hex::encode(Sha256::digest(part));
    head["parts"] =
        parts.iter().map(|part| json!({"sha256": name(part), "bytes": part.len()})).collect();
    Offered { head, chunks: parts.iter().map(|part| (name(part), chunks(part))).collect() }
}

fn chunks(part: &[u8]) -> Vec<Vec<u8>> {
    let (name, n) = (hex::encode(Sha256::digest(part)), part.chunks(CHUNK).len());
    let published = |(i, bytes): (usize, &[u8])| {
        let data = base64::engine::general_purpose::STANDARD.encode(bytes);
        json!({"sha256": name, "i": i, "n": n, "data": data}).to_string().into_bytes()
    };
    part.chunks(CHUNK).enumerate().map(published).collect()
}

impl Offered {
    /// The same list with a delta that leads to it.
    pub fn with_delta(mut self, base: u64, remove: &[u32], upsert: &[String]) -> Offered {
        let remove: Vec<String> = remove.iter().map(|n| format!("04{n:06X}")).collect();
        self.head["deltas"] = json!([{"base": base, "remove": remove, "upsert": parsed(upsert)}]);
        self
    }
}
