//! The consumer of docs/examples with signatures, and what it makes of rubbish.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rumqttc::{AsyncClient, MqttOptions, QoS};

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
    program.until("the records have come", |_| verify(&database).0[GATEWAY]["records"] != 0);
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

/// Messages on `up/usage` that are no batches, and one that contradicts what is held.
fn rubbish(port: u16) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, mut eventloop) =
            AsyncClient::new(MqttOptions::new("rubbish", "127.0.0.1", port), 8);
        let topic = format!("tapgate/1/{GATEWAY}/up/usage");
        let miscounted =
            r#"{"epoch":"e","first":1,"last":9,"prev":"","records":[],"replay":false}"#;
        let payloads = ["{", "[]", "7", "\"records\"", miscounted];
        for payload in payloads {
            client.try_publish(&topic, QoS::AtLeastOnce, false, payload).expect("room");
        }
        let mut confirmed = 0;
        while confirmed < payloads.len() {
            let event = eventloop.poll().await.expect("a broker");
            let puback = matches!(event, rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)));
            confirmed += usize::from(puback);
        }
    });
}
