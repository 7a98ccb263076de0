//! Records, events and messages between the link and the stand-in cloud.

use std::time::{Duration, Instant};

use serde_json::json;
use tapgate::config::Cloud;
use tapgate::core::access::Denial;
use tapgate::core::badge::Technology;
use tapgate::demo::cloud::{Options, StandInCloud, View};
use tapgate::io::mqtt::{Clock, CloudEvent, Timing};
use tapgate::protocol::cloud::{Down, EventBody, EventMessage, LocalState, StationStatus};

use crate::support::broker::Broker;
use crate::support::gateway::{
    GATEWAY, Gateway, TestClock, cloud, local, lost, sequence, station, wait,
};
use crate::support::ledger::MemoryLedger;
use crate::support::proxy::Proxy;

#[test]
fn every_record_is_counted_once_in_order_over_three_broker_crashes() {
    let mut broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    // What reaches the broker before the cloud has subscribed again is lost until the ack timer.
    let hurried = Timing { ack_timeout: Duration::from_secs(1), ..Timing::default() };
    let mut gateway = Gateway::start_as(self::cloud(broker.port()), MemoryLedger::new(), hurried);
    let begin = Instant::now();
    for crash in 1..=3 {
        gateway.append(60);
        wait(&cloud, |view| view.usage.held() > (crash - 1) * 100);
        broker.kill9();
        gateway.append(40);
        broker.restart();
    }
    gateway.append(100);

    let view = wait(&cloud, |view| view.usage.held() == 400);
    let upto = gateway.wait_for(|event| match event {
        CloudEvent::Acknowledged { upto: 400 } => Some(400),
        _ => None,
    });

    eprintln!(
        "400 records, 3 crashes: {:?}, {} duplicates, {} early batches, connections {:?}",
        begin.elapsed(),
        view.usage.duplicates,
        view.usage.early_batches,
        view.connections
    );
    assert_eq!(sequence(&view), (1..=400).collect::<Vec<_>>());
    assert_eq!(view.usage.conflicts, Vec::<String>::new());
    let books = gateway.ledger.books();
    assert_eq!((books.acked, upto), (400, 400));
    assert!(books.accepted.is_sorted(), "cumulative: {:?}", books.accepted);
    assert!(view.connections.is_sorted(), "conn grows: {:?}", view.connections);
}

#[test]
fn a_month_of_records_drains_quickly_once_the_broker_is_there() {
    let mut broker = Broker::absent();
    let gateway = Gateway::start(broker.port());
    gateway.append(30_000);
    broker.restart();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");

    wait(&cloud, |view| view.usage.held() > 0);
    let (begin, held) = (Instant::now(), cloud.view().usage.held());
    // Nobody takes the gateway's events meanwhile: the drain does not wait for the daemon.
    let view = wait(&cloud, |view| view.usage.held() == 30_000);

    let rate = (30_000 - held) as f64 / begin.elapsed().as_secs_f64();
    eprintln!("{rate:.0} records/s, {} duplicates", view.usage.duplicates);
    assert_eq!(sequence(&view), (1..=30_000).collect::<Vec<_>>());
}

#[test]
fn connects_when_the_broker_appears_after_the_start() {
    let mut broker = Broker::absent();
    let mut gateway = Gateway::start(broker.port());
    gateway.append(3);
    let reason = gateway.wait_for(lost);
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert_eq!(gateway.link.status().last_error, Some(reason));

    broker.restart();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");

    let view = wait(&cloud, |view| view.usage.held() == 3 && view.online());
    assert_eq!(view.connections, [1], "failed attempts spend no number");
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 3 }).then_some(()));
    let status = gateway.link.status();
    assert!(status.connected_since.is_some());
    assert_eq!((status.conn, status.head, status.acked), (1, 3, 3));
}

#[test]
fn a_dead_link_and_a_clean_stop_both_show_as_offline() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let ledger = MemoryLedger::new();

    let gateway = Gateway::start_as(self::cloud(broker.port()), ledger.clone(), Timing::default());
    wait(&cloud, View::online);
    drop(gateway);
    let view = wait(&cloud, |view| view.state == Some(json!({"online": false, "conn": 1})));
    assert_eq!(view.connections, [1], "the broker published the last will");

    let gateway = Gateway::start_as(self::cloud(broker.port()), ledger, Timing::default());
    wait(&cloud, View::online);
    let begin = Instant::now();
    assert!(gateway.stop());
    assert!(begin.elapsed() < Duration::from_secs(2));
    wait(&cloud, |view| view.state == Some(json!({"online": false, "conn": 2})));
}

#[test]
fn stations_are_published_on_change_and_removed_ones_are_cleared() {
    let mut broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let gateway = Gateway::start(broker.port());
    gateway.link.publish_station("washer-1".into(), station(StationStatus::Available));
    wait(&cloud, |view| view.stations.contains_key("washer-1"));

    gateway.link.publish_station("washer-1".into(), station(StationStatus::InUse));
    wait(&cloud, |view| view.stations.get("washer-1").is_some_and(|s| s["state"] == "in_use"));
    gateway.link.publish_state(LocalState { boot: 2, ..local() });
    wait(&cloud, |view| view.state.as_ref().is_some_and(|state| state["boot"] == 2));
    assert!(!cloud.view().stations.contains_key("washer-9"));

    drop(cloud);
    broker.restart();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    wait(&cloud, |view| view.stations.contains_key("washer-1") && view.online());
}

#[test]
fn a_new_epoch_shows_in_the_state_at_once_unlike_mere_counters() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let never = Timing { counters_pause: Duration::from_secs(86_400), ..Timing::default() };
    let gateway = Gateway::start_as(self::cloud(broker.port()), MemoryLedger::new(), never);
    wait(&cloud, View::online);
    gateway.append(3);
    wait(&cloud, |view| view.usage.held() == 3);

    let epoch = gateway.ledger.open_epoch();
    gateway.append(1);

    let view = wait(&cloud, |view| view.state.as_ref().is_some_and(|it| it["epoch"] == *epoch));
    assert_eq!(view.connections, [1], "on the same connection");
}

#[test]
fn totals_of_many_meters_are_published_although_no_broker_need_retain_them() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    wait(&cloud, |view| view.connected);
    let ledger = MemoryLedger::new();
    ledger.books().checkpoint_bytes = 40 * 1024;
    let _gateway = Gateway::start_as(self::cloud(broker.port()), ledger, Timing::default());
    let view = wait(&cloud, |view| view.checkpoint.is_some());
    assert!(view.checkpoint.is_some_and(|jws| jws.len() > 40 * 1024));
}

#[test]
fn malformed_messages_change_nothing_and_valid_ones_still_work() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let mut gateway = Gateway::start(broker.port());
    gateway.append(5);
    wait(&cloud, |view| view.usage.held() == 5);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 5 }).then_some(()));
    let epoch = gateway.ledger.books().epoch.clone();
    let hash = "0".repeat(64);
    let deep = "[".repeat(20_000);
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(70_000));
    let mut rubbish: Vec<Vec<u8>> = ["{", "[]", "null", "\u{1}", "{\"a\":1}}", &deep, &long]
        .map(|text| text.as_bytes().to_vec())
        .to_vec();
    rubbish.push(vec![0xff, 0x00, 0xc3]);
    for down in [Down::Ack, Down::Allowlist, Down::Part, Down::Command] {
        for payload in &rubbish {
            cloud.publish_raw(down, payload.clone(), false);
        }
        cloud.publish_raw(down, "", true);
    }
    for ack in [
        format!(
            r#"{{"epoch":"{epoch}","upto":-1,"hash":"{hash}","issued_at":"2026-11-22T10:00:00Z"}}"#
        ),
        format!(
            r#"{{"epoch":"{epoch}","upto":"0","hash":"{hash}","issued_at":"2026-11-22T10:00:00Z"}}"#
        ),
        format!(r#"{{"epoch":"{epoch}","upto":0,"issued_at":"2026-11-22T10:00:00Z"}}"#),
        format!(r#"{{"epoch":"{epoch}","upto":0,"hash":"{hash}"}}"#),
    ] {
        cloud.publish_raw(Down::Ack, ack, false);
    }
    cloud.publish_raw(Down::Command, command("retained"), true);
    cloud.publish_raw(Down::Command, command("live"), false);

    // Mosquitto delivers a retained command to an existing subscription without the flag.
    let command = gateway.wait_for(|event| match event {
        CloudEvent::Command { command, .. } if command.id != "retained" => Some(command.id),
        CloudEvent::AllowlistHead(_) | CloudEvent::AllowlistPart(_) => panic!("{event:?}"),
        _ => None,
    });
    assert_eq!(command, "live");
    assert_eq!(gateway.ledger.books().acked, 5);

    gateway.append(5);
    let view =
        wait(&cloud, |view| view.usage.held() == 10 && view.events_of("bad_message").count() == 30);
    assert_eq!(view.usage.duplicates, 0);
    assert_eq!(view.connections, [1], "no message broke the connection");
    cloud.push_allowlist(vec![], 1);
    gateway.wait_for(|event| matches!(event, CloudEvent::AllowlistHead(_)).then_some(()));
}

#[test]
fn a_retained_command_is_ignored_and_told() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    cloud.publish_raw(Down::Command, command("old"), true);
    cloud.push_allowlist(vec![], 1);
    // What the cloud published is with the broker once something of later has come back.
    let mut first = Gateway::start(broker.port());
    first.wait_for(|event| matches!(event, CloudEvent::AllowlistHead(_)).then_some(()));
    drop(first);

    let mut gateway = Gateway::start(broker.port());
    gateway.wait_for(|event| matches!(event, CloudEvent::AllowlistHead(_)).then_some(()));
    cloud.publish_raw(Down::Command, command("new"), false);
    let command = gateway.wait_for(|event| match event {
        CloudEvent::Command { command, .. } => Some(command.id),
        _ => None,
    });
    assert_eq!(command, "new");
    let view = wait(&cloud, |view| view.events_of("bad_message").count() > 0);
    let detail = view.events_of("bad_message").next().expect("just seen")["detail"].clone();
    assert!(detail.as_str().is_some_and(|it| it.contains("without retain")), "{detail}");
}

/// A command with a whole frame.
fn command(id: &str) -> String {
    let expires = "2126-11-22T10:00:00Z";
    json!({"id": id, "nonce": "n", "ctr": 1, "expires": expires, "op": "x", "args": {}}).to_string()
}

#[test]
fn a_message_of_any_size_changes_nothing_and_the_connection_stays() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let everywhere = |size| {
        for down in [Down::Ack, Down::Allowlist, Down::Part, Down::Command] {
            cloud.publish_raw(down, vec![b'x'; size], true);
        }
    };
    wait(&cloud, |view| view.connected);
    // What lies there when the gateway comes; then a little too long, and far too long.
    everywhere(4_000_000);
    let mut gateway = Gateway::start(broker.port());
    for (told, size) in [(4, 65_537), (8, 4_000_000), (12, 0)] {
        wait(&cloud, |view| view.events_of("bad_message").count() == told);
        everywhere(size);
    }
    gateway.append(1);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 1 }).then_some(()));
    assert_eq!(gateway.link.status().conn, 1);
}

#[test]
fn a_line_that_is_slow_and_busy_is_alive() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let proxy = Proxy::to(broker.port());
    let hurried = Timing {
        keep_alive: Duration::from_secs(1),
        silence: Duration::from_secs(2),
        ..Timing::default()
    };
    let mut gateway = Gateway::start_as(self::cloud(proxy.port()), MemoryLedger::new(), hurried);
    wait(&cloud, View::online);
    // Some 200 kB a second: both take several times as long as a silence may last.
    proxy.set_delay(Duration::from_millis(20));
    cloud.publish_raw(Down::Part, vec![b'x'; 1_500_000], true);
    for _ in 0..20 {
        cloud.publish_raw(Down::Part, vec![b'x'; 60_000], false);
    }
    for _ in 0..21 {
        let is_bad = |event| matches!(event, CloudEvent::BadMessage { .. }).then_some(());
        gateway.wait_for(is_bad);
    }
    gateway.append(1);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 1 }).then_some(()));
    assert_eq!(gateway.link.status().conn, 1);
}

#[test]
fn withheld_acks_are_waited_for_and_then_asked_for_again() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    cloud.withhold_acks(true);
    let hurried = Timing { ack_timeout: Duration::from_millis(300), ..Timing::default() };
    let mut gateway = Gateway::start_as(self::cloud(broker.port()), MemoryLedger::new(), hurried);
    wait(&cloud, View::online);
    gateway.append(10);
    // No new record comes: the timer alone drives this.
    wait(&cloud, |view| view.usage.duplicates >= 20);
    assert_eq!(gateway.ledger.books().acked, 0);

    cloud.withhold_acks(false);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 10 }).then_some(()));
}

#[test]
fn a_cloud_that_restored_a_backup_gets_everything_again() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let mut gateway = Gateway::start(broker.port());
    gateway.append(50);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 50 }).then_some(()));

    cloud.forget(20);
    let view = wait(&cloud, |view| view.usage.held() == 50);
    assert!(gateway.ledger.books().accepted.contains(&20));
    assert_eq!(sequence(&view), (1..=50).collect::<Vec<_>>());
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 50 }).then_some(()));
}

#[test]
fn an_ack_of_another_ledger_raises_an_alarm_and_moves_nothing() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let mut gateway = Gateway::start(broker.port());
    gateway.append(5);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 5 }).then_some(()));

    cloud.ack_wrongly(3, [9; 32]);
    cloud.ack_wrongly(99, [9; 32]);
    for _ in 0..2 {
        gateway.wait_for(|event| matches!(event, CloudEvent::LedgerAlarm(_)).then_some(()));
    }
    assert_eq!(gateway.ledger.books().acked, 5);
    wait(&cloud, |view| view.events_of("ledger_fork").count() == 2);
}

#[test]
fn a_line_that_goes_silent_is_noticed_idle_and_publishing() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let proxy = Proxy::to(broker.port());
    let hurried = Timing {
        keep_alive: Duration::from_secs(2),
        silence: Duration::from_secs(4),
        network: Duration::from_secs(2),
        ack_timeout: Duration::from_millis(200),
        ..Timing::default()
    };
    let mut gateway =
        Gateway::start_as(self::cloud(proxy.port()), MemoryLedger::new(), hurried.clone());
    for publishing in [false, true] {
        gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
        proxy.set_silent(true);
        let begin = Instant::now();
        if publishing {
            gateway.append(2_000);
        }
        gateway.wait_for(lost);
        let noticed = begin.elapsed();
        eprintln!("silence noticed after {noticed:?} (keep-alive 2 s), publishing {publishing}");
        assert!(noticed < hurried.silence + hurried.network, "{noticed:?}");
        proxy.set_silent(false);
    }
    let view = wait(&cloud, |view| view.usage.held() == 2_000);
    assert_eq!(sequence(&view), (1..=2_000).collect::<Vec<_>>());
}

#[test]
fn events_wait_for_a_connection_and_are_limited() {
    let broker = Broker::start();
    let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    wait(&cloud, |view| view.connected);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let password = folder.path().join("mqtt.pass");
    let guarded = Cloud {
        username: Some(GATEWAY.into()),
        password_file: Some(password.clone()),
        ..self::cloud(broker.port())
    };
    let mut gateway = Gateway::start_as(guarded, MemoryLedger::new(), Timing::default());
    let reason = gateway.wait_for(lost);
    assert!(reason.contains("password"), "{reason}");
    for reason in [Denial::UnknownBadge, Denial::BadgeBlocked] {
        for _ in 0..40 {
            let body = EventBody::Denied {
                reader: "laundry-door".into(),
                station: Some("washer-1".into()),
                reason,
                technology: Some(Technology::MifareClassic1k),
                badge: None,
                uid: None,
            };
            gateway.link.event(EventMessage::new(TestClock.stamp(), body));
        }
    }
    std::fs::write(&password, "secret\n").expect("a temporary file");

    wait(&cloud, |view| view.denials().count() == 60);
    assert_eq!(gateway.link.status().events_dropped, 0);
}

#[test]
fn with_trusted_keys_only_signed_messages_count() {
    let broker = Broker::start();
    let seed = [7; 32];
    let trusted = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let keyed = Cloud { trusted_keys: vec![trusted], ..cloud(broker.port()) };
    let mut gateway = Gateway::start_as(keyed, MemoryLedger::new(), Timing::default());
    gateway.append(5);

    let unsigned = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    unsigned.push_allowlist(vec![], 1);
    wait(&unsigned, |view| view.events_of("bad_signature").count() >= 1);
    assert_eq!(gateway.ledger.books().acked, 0);
    drop(unsigned);

    let signing = StandInCloud::start_with(Options {
        port: broker.port(),
        gateway_id: GATEWAY.into(),
        login: None,
        signing_seed: Some(seed),
    })
    .expect("a cloud");
    gateway.append(1);
    signing.push_allowlist(vec![], 2);
    let head = gateway.wait_for(|event| match event {
        CloudEvent::AllowlistHead(head) => Some(head),
        _ => None,
    });
    let head: serde_json::Value = serde_json::from_slice(&head).expect("verified JSON");
    assert_eq!(
        (&head["version"], &head["gw"], &head["typ"]),
        (&json!(2), &json!(GATEWAY), &json!("allowlist"))
    );
}
