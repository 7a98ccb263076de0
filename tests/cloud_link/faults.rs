//! Lines that go silent, brokers that are slow or refuse, and clients that take the gateway's id.

use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, MqttOptions};
use serde_json::json;
use tapgate::demo::cloud::{StandInCloud, View};
use tapgate::io::mqtt::{CloudEvent, Timing};

use crate::support::broker::Broker;
use crate::support::gateway::{GATEWAY, Gateway, cloud, lost, sequence, wait};
use crate::support::ledger::MemoryLedger;
use crate::support::proxy::Proxy;

/// The contract's bound.
const NOTICED_WITHIN: Duration = Duration::from_secs(45);

#[derive(Clone, Copy, Debug)]
struct Silence {
    up: bool,
    down: bool,
    publishing: bool,
}

/// How long the gateway takes to notice, with the times that it has on a site.
fn time_to_notice(silence: Silence) -> Duration {
    let broker = Broker::start();
    let _cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let proxy = Proxy::to(broker.port());
    let mut gateway =
        Gateway::start_as(cloud(proxy.port()), MemoryLedger::new(), Timing::default());
    gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
    proxy.set_silent_up(silence.up);
    proxy.set_silent_down(silence.down);
    let begin = Instant::now();
    if silence.publishing {
        gateway.append(20_000);
    }
    gateway.wait_for(lost);
    begin.elapsed()
}

#[test]
fn a_link_that_goes_silent_in_either_direction_is_noticed_within_45_s() {
    let cases = [(true, true), (true, false), (false, true)]
        .into_iter()
        .flat_map(|(up, down)| [false, true].map(|publishing| Silence { up, down, publishing }));
    let running: Vec<_> =
        cases.map(|case| (case, std::thread::spawn(move || time_to_notice(case)))).collect();
    for (case, noticed) in running {
        let noticed = noticed.join().expect("it is noticed at all");
        eprintln!("{case:?}: noticed after {noticed:.1?}");
        assert!(noticed < NOTICED_WITHIN, "{case:?}: {noticed:?}");
    }
}

#[test]
fn a_slow_line_carries_every_record() {
    let broker = Broker::start();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let proxy = Proxy::to(broker.port());
    // Some 50 kB/s, and 160 ms for a packet and its answer.
    proxy.set_delay(Duration::from_millis(80));
    let gateway = Gateway::start_as(cloud(proxy.port()), MemoryLedger::new(), Timing::default());
    gateway.append(1_000);
    let view = wait(&stand_in, |view| view.usage.held() == 1_000);
    assert_eq!(sequence(&view), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(view.connections, [1], "slow is not silent");
}

#[test]
fn a_wiped_broker_gets_everything_that_is_retained_again() {
    let mut broker = Broker::start();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let gateway = Gateway::start(broker.port());
    gateway.append(10);
    wait(&stand_in, |view| view.usage.held() == 10 && view.online());
    drop(stand_in);

    broker.kill9();
    gateway.append(10);
    broker.restart();

    // A cloud that lost everything as well.
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    stand_in.ack_wrongly(0, [0; 32]);
    let view = wait(&stand_in, |view| view.online() && view.usage.epoch.is_empty().eq(&false));
    assert!(view.connections.iter().all(|conn| *conn >= 2), "{:?}", view.connections);
}

#[test]
fn a_broker_that_refuses_the_password_is_tried_again_with_patience() {
    let mut broker = Broker::absent();
    broker.restart_with("password_file /dev/null\nallow_anonymous false");
    let mut gateway = Gateway::start(broker.port());
    let reason = gateway.wait_for(lost);
    assert!(reason.contains("refuses the gateway"), "{reason}");
    assert!(reason.contains("check username and password"), "{reason}");

    broker.restart();
    gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
}

#[test]
fn another_client_with_the_gateways_id_is_suspected_to_be_a_clone() {
    let broker = Broker::start();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let mut gateway = Gateway::start(broker.port());
    wait(&stand_in, View::online);
    let port = broker.port();
    let clone = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (_client, mut eventloop) =
                AsyncClient::new(MqttOptions::new(GATEWAY, "127.0.0.1", port), 1);
            let mut thrown_out = 0;
            while thrown_out < 2 {
                thrown_out += u32::from(eventloop.poll().await.is_err());
            }
        });
    });

    gateway.wait_for(|event| matches!(event, CloudEvent::CloneSuspected).then_some(()));
    let view = wait(&stand_in, |view| view.events_of("clone_suspected").count() == 1);
    clone.join().expect("the gateway comes back each time");

    let event = view.events_of("clone_suspected").next().expect("just seen").clone();
    assert!(event["detail"].as_str().is_some_and(|detail| detail.contains("clone")), "{event}");
    assert!(gateway.link.status().clone_suspected.is_some());
}

#[test]
fn a_broker_that_restarts_is_no_clone() {
    let mut broker = Broker::start();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let mut gateway = Gateway::start(broker.port());
    for _ in 0..3 {
        wait(&stand_in, View::online);
        broker.kill9();
        gateway.wait_for(lost);
        // An attempt fails before it is back.
        let reason = gateway.wait_for(lost);
        assert!(reason.contains("cannot be reached"), "{reason}");
        broker.restart();
        gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
    }
    assert_eq!(gateway.link.status().clone_suspected, None);
}

#[test]
fn a_subscription_that_the_broker_starves_leaves_the_records_unacknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let acl = folder.path().join("acl");
    let rules = "user nobody\ntopic readwrite #\n";
    std::fs::write(&acl, rules).expect("a file");
    let mut broker = Broker::absent();
    broker.restart_with(&format!("user root\nacl_file {}", acl.display()));
    let mut gateway = Gateway::start(broker.port());
    gateway.append(3);
    gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
    // MQTT 3.1.1 confirms what it drops: only the cloud's acknowledgement counts.
    assert_eq!(gateway.ledger.books().acked, 0);

    std::fs::write(&acl, "topic readwrite tapgate/#\n").expect("a file");
    broker.restart_with(&format!("user root\nacl_file {}", acl.display()));
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let view = wait(&stand_in, |view| view.usage.held() == 3 && view.online());
    assert_eq!(view.state.map(|state| state["head"].clone()), Some(json!(3)));
}
