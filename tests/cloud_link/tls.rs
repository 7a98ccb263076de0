//! TLS: whom the link trusts, what it shows, and which time it judges certificates by.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tapgate::config::Cloud;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::demo::cloud::{Options, StandInCloud};
use tapgate::io::mqtt::{self, Clock, CloudEvent, Setup, Timing};

use crate::support::authority::{Authority, Validity};
use crate::support::broker::Broker;
use crate::support::gateway::{GATEWAY, Gateway, cloud, local, lost};
use crate::support::ledger::MemoryLedger;
use crate::support::proxy::Proxy;

/// A broker with a certificate and more lines of configuration.
fn tls_broker(authority: &Authority, (cert, key): (&Path, &Path), lines: &str) -> Broker {
    tls_broker_at("127.0.0.1", authority, (cert, key), lines)
}

fn tls_broker_at(
    address: &str,
    authority: &Authority,
    (cert, key): (&Path, &Path),
    lines: &str,
) -> Broker {
    let mut broker = Broker::absent();
    let port = broker.port();
    let (ca, cert, key) = (authority.ca_file(), cert.display(), key.display());
    let ca = ca.display();
    broker.restart_with(&format!(
        "user root\nlistener {port} {address}\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n{lines}"
    ));
    broker
}

fn good(authority: &Authority, port: u16) -> Cloud {
    Cloud { host: "localhost".into(), tls: true, ca_file: Some(authority.ca_file()), ..cloud(port) }
}

fn first_event(cloud: Cloud) -> CloudEvent {
    let mut gateway = Gateway::start_as(cloud, MemoryLedger::new(), Timing::default());
    let first = gateway.wait_for(Some);
    gateway.stop();
    first
}

#[track_caller]
fn fails_with(cloud: Cloud, hint: &str) {
    let mut gateway = Gateway::start_as(cloud, MemoryLedger::new(), Timing::default());
    let reason = gateway.wait_for(lost);
    assert!(reason.contains(hint), "{reason}");
}

#[test]
fn connects_with_a_client_certificate_and_says_what_is_wrong_with_another() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["localhost"], Validity::Now);
    let broker = tls_broker(&authority, (&cert, &key), "require_certificate true");
    let client = authority.issue("client", &[GATEWAY], Validity::Now);
    let good = Cloud { client_cert: Some(client.clone()), ..good(&authority, broker.port()) };

    assert_eq!(first_event(good.clone()), CloudEvent::Connected);

    let with = |pair| Cloud { client_cert: Some(pair), ..good.clone() };
    fails_with(Cloud { client_cert: None, ..good.clone() }, "client certificate?");
    fails_with(
        with(authority.issue("old", &[GATEWAY], Validity::Expired)),
        "(valid) client certificate?",
    );
    fails_with(with((client.0.clone(), key)), "do they belong together?");
    fails_with(with((client.0.clone(), authority.ca_file())), "PEM");
}

#[test]
fn a_certificate_that_is_not_the_brokers_is_refused_with_its_reason() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["localhost"], Validity::Now);
    let broker = tls_broker(&authority, (&cert, &key), "");
    let good = good(&authority, broker.port());
    fails_with(Cloud { ca_file: None, ..good.clone() }, "unknown authority; set ca_file");
    fails_with(Cloud { ca_file: Some(Authority::new().ca_file()), ..good.clone() }, "ca_file");
    fails_with(Cloud { host: "127.0.0.1".into(), ..good.clone() }, "is for another name");

    for (validity, hint) in
        [(Validity::Expired, "has expired; renew it"), (Validity::NotYet, "is not valid yet")]
    {
        let (cert, key) = authority.issue("broker", &["localhost"], validity);
        let broker = tls_broker(&authority, (&cert, &key), "");
        fails_with(Cloud { port: broker.port(), ..good.clone() }, hint);
    }

    let plain = Broker::start();
    fails_with(Cloud { port: plain.port(), ..good.clone() }, "TLS");
    // And the other way round: plain text to a TLS port.
    fails_with(Cloud { tls: false, host: "127.0.0.1".into(), ..good }, "; ");
}

#[test]
fn addresses_serve_as_names_where_the_certificate_has_them() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["127.0.0.1", "::1"], Validity::Now);
    for host in ["127.0.0.1", "::1"] {
        let broker = tls_broker_at(host, &authority, (&cert, &key), "");
        let cloud = Cloud { host: host.into(), ..good(&authority, broker.port()) };
        assert_eq!(first_event(cloud), CloudEvent::Connected, "{host}");
    }
}

#[test]
fn renewed_certificates_count_without_a_restart() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["localhost"], Validity::Now);
    let broker = tls_broker(&authority, (&cert, &key), "require_certificate true");
    let pair = authority.issue("client", &[GATEWAY], Validity::Expired);
    let cloud = Cloud { client_cert: Some(pair), ..good(&authority, broker.port()) };
    let mut gateway = Gateway::start_as(cloud, MemoryLedger::new(), Timing::default());
    gateway.wait_for(lost);

    authority.issue("client", &[GATEWAY], Validity::Now);

    gateway.wait_for(|event| (event == CloudEvent::Connected).then_some(()));
}

#[test]
fn a_server_name_is_sent_for_brokers_behind_one_address() {
    // The first bytes of a connection to a proxy hold the name in clear.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let authority = Authority::new();
    let _gateway =
        Gateway::start_as(good(&authority, port), MemoryLedger::new(), Timing::default());
    let (mut client, _) = listener.accept().expect("the gateway connects");
    let mut hello = [0; 4096];
    let count = std::io::Read::read(&mut client, &mut hello).expect("a ClientHello");
    let found = hello[..count].windows(9).any(|window| window == b"localhost");
    assert!(found, "no SNI in the ClientHello");
}

/// A gateway that believes it is 1970, and what it knows of the time.
struct NoClockChip(Mutex<Wall>);

impl NoClockChip {
    fn knows(floor: Wall) -> Arc<NoClockChip> {
        Arc::new(NoClockChip(Mutex::new(floor)))
    }
}

impl Clock for NoClockChip {
    fn stamp(&self) -> Stamp {
        Stamp { boot: 1, uptime: Uptime(1), wall: Wall(0), synced: false }
    }

    fn floor(&self) -> Wall {
        *self.0.lock().expect("no test panics with it")
    }

    fn learn(&self, passed: Wall) {
        let mut floor = self.0.lock().expect("no test panics with it");
        *floor = (*floor).max(passed);
    }
}

fn start_in_1970(cloud: Cloud, clock: Arc<NoClockChip>) -> Gateway {
    let ledger = MemoryLedger::new();
    let (link, events) = mqtt::spawn(Setup {
        cloud,
        gateway_id: GATEWAY.into(),
        local: local(),
        removed_stations: vec![],
        ledger: ledger.clone(),
        clock,
        timing: Timing::default(),
    })
    .expect("a thread");
    Gateway { link, events, ledger }
}

#[test]
fn a_gateway_in_1970_judges_certificates_by_the_time_that_has_surely_passed() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["localhost"], Validity::Now);
    let broker = tls_broker(&authority, (&cert, &key), "");
    let good = good(&authority, broker.port());

    let mut lost_in_time = start_in_1970(good.clone(), NoClockChip::knows(Wall(0)));
    let reason = lost_in_time.wait_for(lost);
    assert!(reason.contains("not valid yet"), "{reason}");

    let built = Wall(jiff::Timestamp::now().as_millisecond());
    let mut gateway = start_in_1970(good, NoClockChip::knows(built));
    assert_eq!(gateway.wait_for(Some), CloudEvent::Connected);
}

#[test]
fn what_a_trusted_key_signs_tells_the_time_and_other_messages_do_not() {
    let broker = Broker::start();
    let seed = [7; 32];
    let trusted = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let before = Wall(jiff::Timestamp::now().as_millisecond());
    let options = |signing_seed| Options {
        port: broker.port(),
        gateway_id: GATEWAY.into(),
        login: None,
        signing_seed,
    };
    for (keys, learns) in [(vec![trusted], true), (vec![], false)] {
        let seed = learns.then_some(seed);
        let stand_in = StandInCloud::start_with(options(seed)).expect("a cloud");
        stand_in.push_allowlist(vec![], 1);
        let clock = NoClockChip::knows(Wall(0));
        let keyed = Cloud { trusted_keys: keys, ..cloud(broker.port()) };
        let mut gateway = start_in_1970(keyed, clock.clone());
        gateway.wait_for(|event| matches!(event, CloudEvent::AllowlistHead(_)).then_some(()));
        assert_eq!(clock.floor() >= before, learns);
    }
}

#[test]
fn a_tls_handshake_that_hangs_is_given_up() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["localhost"], Validity::Now);
    let broker = tls_broker(&authority, (&cert, &key), "");
    let proxy = Proxy::to(broker.port());
    proxy.set_silent(true);
    let hurried = Timing { network: std::time::Duration::from_secs(2), ..Timing::default() };
    let mut gateway =
        Gateway::start_as(good(&authority, proxy.port()), MemoryLedger::new(), hurried);
    let reason = gateway.wait_for(lost);
    assert!(reason.contains("does not answer"), "{reason}");
    proxy.set_silent(false);
    gateway.wait_for(|event| (event == CloudEvent::Connected).then_some(()));
}
