//! Golden bytes of contract version 1: added to, never edited. What is written here, every cloud
//! that was ever built can read.
//!
//! `check.py` reads them without any code of this program: schemas, hashes, digest, signatures.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tapgate::core::ids::SessionId;
use tapgate::core::ledger::{
    Authority, EndReason, Fact, InterruptionCause, MeterChange, OverrideAction, Quality, Record,
    SessionEnd, SessionStart, SwitchPosition, UnattributedCause,
};
use tapgate::core::site::StationKind;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::store::{Opening, Store};
use tapgate::protocol::allowlist::{Head, ListDigest, entry_hash, judge};
use tapgate::protocol::cloud::{Ack, Hash, UsageBatch};

/// Set to write files that are not there yet; what is there is never written again.
const WRITE: &str = "TAPGATE_WRITE_GOLDENS";
const EPOCH: &str = "0190b5a0-7c3e-7d4e-8f00-010203040506";
const GATEWAY: &str = "ch-lausanne-012-a";
/// 2026-11-22T10:00:00Z.
const TEN: Wall = Wall(1_795_341_600_000);
/// The seed of the key that signs here.
const SEED: [u8; 32] = [7; 32];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(name)
}

#[track_caller]
fn is_golden(name: &str, text: &str) {
    let file = path("v1").join(name);
    if std::env::var_os(WRITE).is_some() && !file.exists() {
        fs::write(&file, text).expect("a golden file can be written");
    }
    let golden = fs::read_to_string(&file).expect("a golden file");
    assert_eq!(text, golden, "{name}: version 1 of the contract is not changed");
}

fn at(second: u64, fact: Fact) -> Record {
    let wall = Wall(TEN.0 + second as i64 * 1_000);
    Record { at: Stamp { boot: 1, uptime: Uptime(second * 1_000), wall, synced: true }, fact }
}

fn session() -> SessionStart {
    SessionStart {
        session: SessionId([
            0x01, 0x90, 0xb5, 0xa0, 0x7c, 0x3e, 0x7d, 0x4e, 0x8f, 0, 1, 2, 3, 4, 5, 6,
        ]),
        station: "washer-1".into(),
        station_kind: StationKind::Washer,
        user: Some("u-77".into()),
        badge: Some("b-1042".into()),
        authorised_by: Authority::Allowlist,
        allowlist_version: Some(42),
        meter: Some("meter-washer-1".into()),
        register_wh: Some(12_345),
        missing: false,
        uid: None,
    }
}

/// One record of every kind that a gateway without trouble writes, in a possible order.
fn records() -> Vec<Record> {
    let start = session();
    let id = start.session;
    let meter = |old: Option<i64>, new| MeterChange {
        station: "washer-1".into(),
        meter: "meter-washer-1".into(),
        old_serial: old.map(|_| "SN-1".into()),
        old_register_wh: old,
        new_serial: Some(if old.is_some() { "SN-2" } else { "SN-1" }.into()),
        new_register_wh: new,
    };
    let facts = [
        Fact::GatewayStarted { version: "1.2.0".into(), boot_id: "k-1".into() },
        Fact::ClockSet { wall: TEN, before: Wall(0) },
        Fact::AllowlistApplied {
            list: "5a7c0c0e-9f0b-4c55-9f52-4f1f6a3c2b1a".into(),
            version: 42,
            digest: "ab".repeat(32),
            count: 118,
        },
        Fact::MeterCommissioned(meter(None, 12_345)),
        Fact::SessionStarted(start.clone()),
        Fact::SessionSlot {
            session: id,
            slot: TEN,
            from_wh: 12_345,
            to_wh: 12_845,
            estimated: false,
            since: None,
            until: None,
        },
        Fact::Interruption {
            session: id,
            cause: InterruptionCause::PowerLoss,
            register_wh_before: Some(12_845),
            register_wh_after: None,
            outage_s: Some(40),
        },
        Fact::SessionEnding { session: id, reason: EndReason::Finished },
        Fact::SessionEnded(SessionEnd {
            start,
            reason: EndReason::Finished,
            end_register_wh: Some(13_195),
            energy_wh: Some(850),
            duration_s: 2_700,
            quality: Quality::Measured,
        }),
        Fact::Unattributed {
            station: "washer-1".into(),
            meter: "meter-washer-1".into(),
            serial: Some("SN-1".into()),
            from_wh: 13_195,
            to_wh: 13_196,
            since: TEN,
            until: TEN,
            switch: SwitchPosition::Open,
            sessions: vec![id],
            cause: UnattributedCause::Residue,
        },
        Fact::MeterReplaced(meter(Some(13_196), 5)),
        Fact::BadgeOverride {
            badge: Some("b-1042".into()),
            action: OverrideAction::Blocked,
            by: "technician \"A\" – é".into(),
        },
    ];
    (1..).zip(facts).map(|(second, fact)| at(second, fact)).collect()
}

/// The bytes as the store makes them.
fn stored() -> (Vec<String>, Vec<Hash>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let file = folder.path().join("tapgate.db");
        let opening =
            Opening { path: &file, boot_id: "k-1", wall: TEN, uptime: Uptime(0), synced: true };
        let (store, _) = Store::open(&opening).expect("a new store");
        for record in records() {
            store.commit(vec![record]).await.expect("a possible record");
        }
        let stored = store.records(1, 1_000).await.expect("records");
        store.close().await;
        let texts: Vec<String> = stored.iter().map(|record| record.record.clone()).collect();
        let hashes = stored.iter().map(|record| record.hash).collect();
        (texts, hashes)
    })
}

#[test]
fn records_hashes_and_batch_are_golden() {
    let (records, hashes) = stored();
    is_golden("records.jsonl", &(records.join("\n") + "\n"));
    let lines: Vec<String> = hashes.iter().map(hex::encode).collect();
    is_golden("hashes.txt", &(lines.join("\n") + "\n"));
    let batch = UsageBatch {
        epoch: EPOCH.into(),
        first: 3,
        last: records.len() as u64,
        prev: hashes[1],
        records: records[2..].to_vec(),
        replay: false,
    };
    is_golden("up-usage.json", &serde_json::to_string(&batch).expect("plain JSON"));
}

#[test]
fn the_digest_of_an_allowlist_is_golden() {
    let entries = [
        json!({"badge": "b-1", "uid": "04A2B3C4", "user": "u-1", "origin": "issued",
            "status": "active", "grants": ["group:laundry"], "label": "Ä-1", "note": null}),
        json!({"user": "u-2", "uid": "04112233445566", "badge": "b-2", "status": "blocked",
            "origin": "issued", "grants": [], "future": {"b": 1, "a": [true]}}),
    ];
    let mut hashes = Vec::new();
    for entry in &entries {
        let (uid, _, canonical) = judge(entry.to_string().as_bytes()).expect("a good entry");
        hashes.push((uid.as_bytes().to_vec(), entry_hash(&canonical)));
    }
    hashes.sort();
    let mut digest = ListDigest::default();
    hashes.iter().for_each(|(_, hash)| digest.add(hash));
    let head = json!({
        "list": "5a7c0c0e-9f0b-4c55-9f52-4f1f6a3c2b1a", "version": 43, "count": 2,
        "digest": digest.finish(), "issued_at": "2026-11-22T10:00:00Z", "entries": entries,
    });
    let text = head.to_string();
    Head::parse(text.as_bytes()).expect("a good head");
    is_golden("down-allowlist.json", &text);
}

#[test]
fn signatures_are_golden() {
    let key = SigningKey::from_bytes(&SEED);
    is_golden("public-key.txt", &URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes()));
    let hash: Hash = Sha256::digest(b"any").into();
    let ack = Ack { epoch: EPOCH.into(), upto: 1_040, hash, issued_at: TEN };
    let mut ack = serde_json::to_value(&ack).expect("plain JSON");
    is_golden("down-ack.json", &ack.to_string());
    ack["gw"] = GATEWAY.into();
    ack["typ"] = "ack".into();
    is_golden("down-ack.jws", &sign(&key, &ack));
    let checkpoint = fs::read_to_string(path("v1/up-checkpoint.json")).expect("a golden file");
    let checkpoint: Value = serde_json::from_str(&checkpoint).expect("JSON");
    let read: tapgate::protocol::cloud::Checkpoint =
        serde_json::from_value(checkpoint.clone()).expect("a checkpoint");
    assert_eq!(serde_json::to_value(&read).expect("plain JSON"), checkpoint);
    is_golden("up-checkpoint.jws", &sign(&key, &checkpoint));
}

fn sign(key: &SigningKey, payload: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload.to_string()));
    let signature = key.sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_reader_of_another_make_agrees() {
    let python = std::env::var_os("TAPGATE_PYTHON").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"),
        PathBuf::from,
    );
    let output = Command::new(python).arg(path("check.py")).output();
    let output = output.expect("python of .venv, made by `make python`");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{error}");
}
