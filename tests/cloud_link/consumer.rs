//! The consumer of docs/examples with signatures, and what it makes of rubbish.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rumqttc::{AsyncClient, MqttOptions, QoS};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, verify};
use crate::support::gateway::{GATEWAY, Gateway};
use crate::support::program::{Program, plain};

#[test]
fn signs_what_it_acknowledges() {
    let broker = Broker::start();
    let seed = [9; 32];
    let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    let trusted = URL_SAFE_NO_PAD.encode(key.to_bytes());
    let cloud = format!("{}\ntrusted_keys = [\"{trusted}\"]", plain(broker.port()));
    let mut program = Program::with_cloud(&cloud);
    let sign_key = program.secret("sign.key", &URL_SAFE_NO_PAD.encode(seed));
    let database = program.path("usage.db");
    let settled = |status: &serde_json::Value| {
        let ledger = &status["ledger"];
        ledger["head"].as_u64() > Some(0) && ledger["head"] == ledger["acked"]
    };

    program.start(&[]);
    let unsigned = Consumer::start(&database, broker.port(), None);
    program.until("the records have come, and the daemon answers", |status| {
        status["ledger"].is_object() && verify(&database).0[GATEWAY]["records"].as_u64() > Some(0)
    });
    assert_eq!(program.cloud()["ledger"]["acked"], 0, "unsigned, so it does not count");
    drop(unsigned);

    let _consumer = Consumer::start(&database, broker.port(), Some(&sign_key));
    program.until("a signed acknowledgement counts", settled);
    assert!(verify(&database).1);
}

#[test]
fn quarantines_what_it_does_not_understand_and_acknowledges_it() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = folder.path().join("usage.db");
    let _consumer = Consumer::start(&database, broker.port(), None);
    let mut gateway = Gateway::start(broker.port());
    gateway.ledger.append_text(r#"{"seq":1,"kind":"from_the_future"}"#);
    gateway.ledger.append_text("no JSON at all");
    gateway.append(500);
    rubbish(broker.port());

    gateway.wait_for(|event| {
        matches!(event, tapgate::io::mqtt::CloudEvent::Acknowledged { upto: 502 }).then_some(())
    });

    let (report, fine) = verify(&database);
    assert!(!fine, "quarantined records want a human");
    let gateway = &report[GATEWAY];
    assert_eq!((&gateway["records"], &gateway["quarantined"]), (&502.into(), &2.into()));
    assert_eq!(gateway["faults"], serde_json::json!([]));
}

#[test]
fn counts_a_carried_record_once() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = folder.path().join("usage.db");
    verify(&database); // makes it, so that nobody is in the consumer's way while it starts
    let _consumer = Consumer::start(&database, broker.port(), None);
    let used = |seq: u64, energy: i64| {
        json!({"seq": seq, "kind": "session_ended", "user": "u-1", "meter": null,
            "energy_wh": energy})
        .to_string()
    };
    let (held, lost) = (used(1, 850), used(2, 50));
    let (held_hash, lost_hash) = (chain([0; 32], &held), chain(chain([0; 32], &held), &lost));
    let carried = |seq: u64, carried_seq: u64, hash: [u8; 32], record: &str| {
        json!({"seq": seq, "kind": "carried", "epoch": "old", "carried_seq": carried_seq,
            "hash": hex::encode(hash), "record": record})
        .to_string()
    };

    publish_until_held(&broker, &database, 1, &batch("old", &[&held]));
    let opened = json!({"seq": 1, "kind": "epoch_opened"}).to_string();
    let first = carried(2, 1, held_hash, &held);
    let second = carried(3, 2, lost_hash, &lost);
    publish_until_held(&broker, &database, 4, &batch("new", &[&opened, &first, &second]));

    let (report, fine) = verify(&database);
    assert!(fine, "{report:#}");
    assert_eq!(report[GATEWAY]["users_wh"], json!({"u-1": 900}));
}

fn chain(last: [u8; 32], record: &str) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(b"tapgate-ledger-1").chain_update(last);
    hash.chain_update(record).finalize().into()
}

/// All records of an epoch.
fn batch(epoch: &str, records: &[&str]) -> String {
    json!({"epoch": epoch, "first": 1, "last": records.len(), "prev": hex::encode([0; 32]),
        "records": records, "replay": false})
    .to_string()
}

/// Again and again, as a gateway does that hears no acknowledgement.
fn publish_until_held(broker: &Broker, database: &Path, records: u64, batch: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while verify(database).0[GATEWAY]["records"] != records {
        assert!(Instant::now() < deadline, "the consumer does not hold {records} records");
        publish(broker.port(), &[batch]);
    }
}

/// Messages on `up/usage` that are no batches, and one that contradicts what is held.
fn rubbish(port: u16) {
    let miscounted = r#"{"epoch":"e","first":1,"last":9,"prev":"","records":[],"replay":false}"#;
    publish(port, &["{", "[]", "7", "\"records\"", miscounted]);
}

/// On `up/usage`; returns when the broker has them.
fn publish(port: u16, payloads: &[&str]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, mut eventloop) =
            AsyncClient::new(MqttOptions::new("a-gateway", "127.0.0.1", port), 8);
        let topic = format!("tapgate/1/{GATEWAY}/up/usage");
        for payload in payloads {
            client.try_publish(&topic, QoS::AtLeastOnce, false, *payload).expect("room");
        }
        let mut confirmed = 0;
        while confirmed < payloads.len() {
            let event = eventloop.poll().await.expect("a broker");
            let puback = matches!(event, rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)));
            confirmed += usize::from(puback);
        }
    });
}
