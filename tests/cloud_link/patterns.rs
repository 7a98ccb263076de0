//! Ways in which others lost data between gateway and cloud; docs/cloud-protocol.md lists all.

use std::time::Duration;

use tapgate::demo::cloud::StandInCloud;
use tapgate::io::mqtt::{CloudEvent, Timing};

use crate::support::broker::Broker;
use crate::support::gateway::{GATEWAY, Gateway, cloud, lost, sequence, wait};
use crate::support::ledger::MemoryLedger;
use crate::support::proxy::Proxy;

fn hurried(ack_timeout: Duration) -> Timing {
    Timing {
        keep_alive: Duration::from_secs(2),
        silence: Duration::from_secs(4),
        ack_timeout,
        ..Timing::default()
    }
}

#[test]
fn f02_what_only_the_broker_has_taken_is_not_acknowledged() {
    let broker = Broker::start();
    let timing = hurried(Duration::from_millis(500));
    let mut gateway = Gateway::start_as(cloud(broker.port()), MemoryLedger::new(), timing);
    gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
    // The broker confirms every message, and nobody has subscribed.
    gateway.append(50);
    while gateway.link.status().head < 50 {
        std::thread::yield_now();
    }
    assert_eq!(gateway.ledger.books().acked, 0);

    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let view = wait(&stand_in, |view| view.usage.held() == 50);

    assert_eq!(sequence(&view), (1..=50).collect::<Vec<_>>());
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 50 }).then_some(()));
}

#[test]
fn f04_the_backlog_drains_without_any_new_record() {
    let mut broker = Broker::start();
    let timing = hurried(Duration::from_millis(500));
    let mut gateway = Gateway::start_as(cloud(broker.port()), MemoryLedger::new(), timing);
    gateway.wait_for(|event| matches!(event, CloudEvent::Connected).then_some(()));
    broker.kill9();
    gateway.append(3_000);
    // From here on no record comes: reconnect and timer alone drive what follows.
    broker.restart();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");

    let view = wait(&stand_in, |view| view.usage.held() == 3_000);

    assert_eq!(sequence(&view), (1..=3_000).collect::<Vec<_>>());
}

#[test]
fn f08_a_line_that_goes_silent_while_draining_loses_and_doubles_nothing() {
    let broker = Broker::start();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let proxy = Proxy::to(broker.port());
    let timing = hurried(Duration::from_secs(1));
    let mut gateway = Gateway::start_as(cloud(proxy.port()), MemoryLedger::new(), timing);
    let connected = |event| matches!(event, CloudEvent::Connected).then_some(());
    gateway.wait_for(connected);
    gateway.append(20_000);
    for held in [2_000, 8_000] {
        wait(&stand_in, |view| view.usage.held() >= held);
        proxy.set_silent(true);
        // No FIN and no RST: the gateway has to notice by itself.
        gateway.wait_for(lost);
        proxy.set_silent(false);
        gateway.wait_for(connected);
    }
    let view = wait(&stand_in, |view| view.usage.held() == 20_000);

    assert_eq!(sequence(&view), (1..=20_000).collect::<Vec<_>>());
    assert_eq!(view.usage.conflicts, Vec::<String>::new());
}

#[test]
fn f09_a_cursor_outside_the_ledger_wedges_nothing() {
    let broker = Broker::start();
    let stand_in = StandInCloud::start(broker.port(), GATEWAY).expect("a cloud");
    let mut gateway = Gateway::start(broker.port());
    gateway.append(20);
    wait(&stand_in, |view| view.usage.held() == 20);
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 20 }).then_some(()));

    stand_in.ack_wrongly(1_000_000, [9; 32]);
    wait(&stand_in, |view| view.events_of("ledger_fork").count() == 1);
    gateway.append(20);

    let view = wait(&stand_in, |view| view.usage.held() == 40);
    assert_eq!(sequence(&view), (1..=40).collect::<Vec<_>>());
    gateway.wait_for(|event| matches!(event, CloudEvent::Acknowledged { upto: 40 }).then_some(()));
}
