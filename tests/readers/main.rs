//! Badges through a real pcscd, one private pcscd for each test.
//!
//! libpcsclite reads where pcscd listens once per process, from the environment: every test runs
//! itself again in a process of its own. Nothing is proved by waiting for silence: that an event
//! does not come is seen by the next one that does.

#![cfg(feature = "demo")]

mod trouble;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tapgate::config::wiring::{BindBy, ReaderBinding};
use tapgate::core::access::Denial;
use tapgate::core::badge::{Technology, Uid};
use tapgate::core::event::Feedback;
use tapgate::demo::card::{
    ATR_CLASSIC_1K, ATR_DESFIRE, ATR_ULTRALIGHT, CardFace, UidAnswer, VirtualCard,
};
use tapgate::demo::pcscd::{PrivatePcscd, SOCKET_VARIABLE};
use tapgate::io::pcsc::{Pcsc, ReaderEvent, spawn};
use tokio::sync::mpsc::{Receiver, channel};

/// Names the directory of the private pcscd to the process that runs the test.
const DIR_VARIABLE: &str = "TAPGATE_TEST_PCSCD";

/// Longest wait for any event: the lister's longest rest and a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

const ANNA: [u8; 4] = [0x04, 0xA2, 0xB3, 0xC4];
const BORIS: [u8; 7] = [0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0xF6];

/// Runs a scenario in a process whose libpcsclite knows only the pcscd of its own.
fn with_own_pcscd(test: &str, scenario: impl FnOnce(&Path)) {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        return scenario(&PathBuf::from(dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = Command::new(std::env::current_exe().expect("the test's program"))
        .args([test, "--exact", "--nocapture"])
        .env(DIR_VARIABLE, dir.path())
        .env(SOCKET_VARIABLE, PrivatePcscd::socket_in(dir.path()))
        .output()
        .expect("the test's program runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("1 passed"), "the test is not named {test}");
    said.lines().filter(|line| line.contains("latency")).for_each(|line| println!("{line}"));
}

/// The watched readers and what they report.
struct Watched {
    pcsc: Pcsc,
    events: Receiver<ReaderEvent>,
    runtime: tokio::runtime::Runtime,
}

impl Watched {
    fn start(bindings: Vec<ReaderBinding>) -> Watched {
        let (sender, events) = channel(64);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Watched { pcsc: spawn(bindings, sender), events, runtime }
    }

    fn next(&mut self) -> ReaderEvent {
        self.next_within(PATIENCE).expect("an event in time")
    }

    fn next_within(&mut self, patience: Duration) -> Option<ReaderEvent> {
        let next = async { tokio::time::timeout(patience, self.events.recv()).await };
        self.runtime.block_on(next).ok().map(|event| event.expect("running readers"))
    }

    /// The next event as text, without the moment.
    fn next_said(&mut self) -> String {
        said(&self.next())
    }

    fn expect(&mut self, events: &[&str]) {
        for event in events {
            assert_eq!(self.next_said(), *event);
        }
    }

    /// The next events in any order.
    fn expect_all(&mut self, events: &[&str]) {
        let mut seen: Vec<String> = events.iter().map(|_| self.next_said()).collect();
        seen.sort();
        assert_eq!(seen, events);
    }
}

fn said(event: &ReaderEvent) -> String {
    match event {
        ReaderEvent::Presented { reader, uid, technology, .. } => {
            format!("{reader}: {uid} {}", technology.as_str())
        }
        ReaderEvent::Unreadable { reader, technology } => {
            format!("{reader}: unreadable {}", technology.as_str())
        }
        ReaderEvent::Removed { reader } => format!("{reader}: removed"),
        ReaderEvent::Found { reader, name } => format!("{reader}: found as {name}"),
        ReaderEvent::Lost { reader, .. } => format!("{reader}: lost"),
        ReaderEvent::UnboundTap { name, technology } => {
            format!("unbound {name}: {}", technology.as_str())
        }
        ReaderEvent::Ambiguous { ambiguities } => {
            let messages: Vec<&str> = ambiguities.iter().map(|it| it.message.as_str()).collect();
            format!("ambiguous: {}", messages.join("; "))
        }
        ReaderEvent::PcscdUnavailable { .. } => "pcscd unavailable".to_owned(),
        ReaderEvent::PcscdBack => "pcscd back".to_owned(),
    }
}

fn by_name(reader: &str, glob: &str) -> ReaderBinding {
    let glob = glob::Pattern::new(glob).expect("a valid glob");
    ReaderBinding { reader: reader.into(), by: BindBy::Name(glob), feedback: None }
}

/// The reader `laundry` alone, watched.
fn laundry(dir: &Path) -> (PrivatePcscd, Watched) {
    let pcscd = PrivatePcscd::start(dir, &["Laundry"]).expect("a private pcscd");
    let mut watched = Watched::start(vec![by_name("laundry", "Laundry 00 00")]);
    watched.expect(&["laundry: found as Laundry 00 00"]);
    (pcscd, watched)
}

fn put(pcscd: &PrivatePcscd, reader: &str, uid: &[u8]) -> VirtualCard {
    VirtualCard::insert(pcscd.port(reader), uid, &ATR_CLASSIC_1K).expect("a listening reader")
}

fn put_face(pcscd: &PrivatePcscd, face: CardFace) -> VirtualCard {
    VirtualCard::insert_face(pcscd.port("Laundry"), face).expect("a listening reader")
}

#[test]
fn reports_a_tap_with_uid_and_technology_and_its_end() {
    with_own_pcscd("reports_a_tap_with_uid_and_technology_and_its_end", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let cards: [(&[u8], &[u8], &str); 3] = [
            (&ANNA, &ATR_CLASSIC_1K, "laundry: 04A2B3C4 mifare-classic-1k"),
            (&BORIS, &ATR_ULTRALIGHT, "laundry: 04A1B2C3D4E5F6 mifare-ultralight"),
            (&BORIS, &ATR_DESFIRE, "laundry: 04A1B2C3D4E5F6 desfire"),
        ];
        for (uid, atr, tap) in cards {
            let card = VirtualCard::insert(pcscd.port("Laundry"), uid, atr).expect("a reader");
            watched.expect(&[tap]);
            card.remove();
            watched.expect(&["laundry: removed"]);
        }
        watched.pcsc.stop();
    });
}

#[test]
fn a_card_left_on_the_reader_is_one_tap() {
    with_own_pcscd("a_card_left_on_the_reader_is_one_tap", |dir| {
        let pcscd = PrivatePcscd::start(dir, &["Laundry", "Garage"]).expect("a private pcscd");
        let bindings = vec![by_name("garage", "Garage * 00"), by_name("laundry", "Laundry * 00")];
        let mut watched = Watched::start(bindings);
        watched.expect_all(&["garage: found as Garage 00 00", "laundry: found as Laundry 00 00"]);
        let left = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        for _ in 0..3 {
            let card = put(&pcscd, "Garage", &BORIS);
            watched.expect(&["garage: 04A1B2C3D4E5F6 mifare-classic-1k"]);
            card.remove();
            watched.expect(&["garage: removed"]);
        }
        left.remove();
        watched.expect(&["laundry: removed"]);
    });
}

#[test]
fn ignores_a_card_that_lies_there_at_the_start_until_it_was_removed() {
    with_own_pcscd("ignores_a_card_that_lies_there_at_the_start_until_it_was_removed", |dir| {
        let pcscd = PrivatePcscd::start(dir, &["Laundry"]).expect("a private pcscd");
        let forgotten = put(&pcscd, "Laundry", &ANNA);
        assert!(forgotten.is_noticed());
        let mut watched = Watched::start(vec![by_name("laundry", "Laundry 00 00")]);
        watched.expect(&["laundry: found as Laundry 00 00"]);

        forgotten.remove();
        let _card = put(&pcscd, "Laundry", &BORIS);

        watched.expect(&["laundry: 04A1B2C3D4E5F6 mifare-classic-1k"]);
    });
}

#[test]
fn a_swap_of_cards_is_two_taps() {
    with_own_pcscd("a_swap_of_cards_is_two_taps", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let first = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        assert!(first.is_at_rest());
        // The second waits in line and is there the moment the first leaves.
        let _second = put(&pcscd, "Laundry", &BORIS);
        first.remove();
        watched.expect(&["laundry: removed", "laundry: 04A1B2C3D4E5F6 mifare-classic-1k"]);
    });
}

#[test]
fn an_answer_without_a_number_is_unreadable() {
    with_own_pcscd("an_answer_without_a_number_is_unreadable", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let bad = [
            UidAnswer::Bytes(vec![0x63, 0x00]),
            UidAnswer::Bytes(vec![0x6A, 0x81]),
            UidAnswer::Bytes(vec![1, 2, 3, 4, 5, 0x90, 0x00]),
            UidAnswer::Bytes(vec![0x90]),
            UidAnswer::Leave,
        ];
        for answer in bad {
            let face = CardFace::new(&ANNA, &ATR_CLASSIC_1K).answering(answer);
            let card = put_face(&pcscd, face);
            watched.expect(&["laundry: unreadable mifare-classic-1k"]);
            card.remove();
            watched.expect(&["laundry: removed"]);
        }
    });
}

#[test]
fn asks_again_with_the_length_that_the_reader_wants() {
    with_own_pcscd("asks_again_with_the_length_that_the_reader_wants", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let face = CardFace::new(&BORIS, &ATR_CLASSIC_1K).answering(UidAnswer::WrongLength);

        let card = put_face(&pcscd, face);

        watched.expect(&["laundry: 04A1B2C3D4E5F6 mifare-classic-1k"]);
        assert_eq!(card.next_apdu().as_deref(), Some(&[0xFF, 0xCA, 0, 0, 0][..]));
        assert_eq!(card.next_apdu().as_deref(), Some(&[0xFF, 0xCA, 0, 0, 7][..]));
    });
}

#[test]
fn recovers_when_pcscd_is_killed_and_restarted() {
    with_own_pcscd("recovers_when_pcscd_is_killed_and_restarted", |dir| {
        let (mut pcscd, mut watched) = laundry(dir);
        for _ in 0..2 {
            pcscd.kill();
            watched.expect_all(&["laundry: lost", "pcscd unavailable"]);
            pcscd.restart().expect("pcscd again");
            watched.expect(&["pcscd back", "laundry: found as Laundry 00 00"]);
            let card = put(&pcscd, "Laundry", &ANNA);
            watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
            card.remove();
            watched.expect(&["laundry: removed"]);
        }
    });
}

#[test]
fn waits_for_a_pcscd_that_is_absent_at_the_start() {
    with_own_pcscd("waits_for_a_pcscd_that_is_absent_at_the_start", |dir| {
        let mut watched = Watched::start(vec![by_name("laundry", "Laundry 00 00")]);
        watched.expect(&["pcscd unavailable"]);
        let pcscd = PrivatePcscd::start(dir, &["Laundry"]).expect("a private pcscd");
        watched.expect(&["pcscd back", "laundry: found as Laundry 00 00"]);
        let _card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
    });
}

#[test]
fn a_tap_on_an_unbound_reader_has_no_uid() {
    with_own_pcscd("a_tap_on_an_unbound_reader_has_no_uid", |dir| {
        let pcscd = PrivatePcscd::start(dir, &["Laundry", "Garage"]).expect("a private pcscd");
        let mut watched = Watched::start(vec![by_name("laundry", "Laundry 00 00")]);
        watched.expect(&["laundry: found as Laundry 00 00"]);
        // Nothing tells when the watch of an unbound reader begins: tapped until it has.
        let event = (0..10).find_map(|_| {
            let card = put(&pcscd, "Garage", &ANNA);
            assert!(card.is_noticed());
            watched.next_within(Duration::from_secs(1))
        });
        assert_eq!(
            event.as_ref().map(said).as_deref(),
            Some("unbound Garage 00 00: mifare-classic-1k")
        );
    });
}

#[test]
fn an_ambiguous_binding_names_both_readers_and_authorises_nothing() {
    with_own_pcscd("an_ambiguous_binding_names_both_readers_and_authorises_nothing", |dir| {
        let pcscd = PrivatePcscd::start(dir, &["Laundry", "Garage"]).expect("a private pcscd");
        let bindings = vec![by_name("laundry", "Laundry*"), by_name("garage", "Garage 00 00")];
        let mut watched = Watched::start(bindings);
        let message = watched.next_said();
        assert!(
            message.contains("Laundry 00 00") && message.contains("Laundry 00 01"),
            "{message}"
        );
        watched.expect(&["garage: found as Garage 00 00"]);

        let card = put(&pcscd, "Garage", &ANNA);
        watched.expect(&["garage: 04A2B3C4 mifare-classic-1k"]);
        card.remove();
        watched.expect(&["garage: removed"]);
        let _card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["unbound Laundry 00 00: mifare-classic-1k"]);
    });
}

#[test]
fn a_serial_number_means_the_slot_where_badges_are_held() {
    with_own_pcscd("a_serial_number_means_the_slot_where_badges_are_held", |dir| {
        let pcscd = PrivatePcscd::start(dir, &["ACR (RR171-004512)"]).expect("a private pcscd");
        let by = BindBy::Serial("RR171-004512".into());
        let binding = ReaderBinding { reader: "laundry".into(), by, feedback: None };
        let mut watched = Watched::start(vec![binding]);
        watched.expect(&["laundry: found as ACR (RR171-004512) 00 00"]);
        let card = put(&pcscd, "ACR (RR171-004512)", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        card.remove();
        watched.expect(&["laundry: removed"]);
    });
}

#[test]
fn shows_feedback_while_the_card_is_present() {
    with_own_pcscd("shows_feedback_while_the_card_is_present", |dir| {
        let pcscd = PrivatePcscd::start(dir, &["Laundry"]).expect("a private pcscd");
        let binding = ReaderBinding {
            feedback: Some("acr122u".to_owned()),
            ..by_name("laundry", "Laundry 00 00")
        };
        let mut watched = Watched::start(vec![binding]);
        watched.expect(&["laundry: found as Laundry 00 00"]);
        let laundry = "laundry".into();

        let card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        watched.pcsc.show(&laundry, Feedback::Denied(Denial::UnknownBadge));
        let denied = card.next_feedback().expect("a command for LED and buzzer");
        assert_eq!(denied, [0xFF, 0x00, 0x40, 0x0D, 0x04, 0x01, 0x01, 0x02, 0x01]);
        card.remove();
        // Feedback is no event: the card was not reset and did not arrive again.
        watched.expect(&["laundry: removed"]);

        let card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        watched.pcsc.show(&laundry, Feedback::Granted);
        let granted = card.next_feedback().expect("a command for LED and buzzer");
        assert_eq!(granted, [0xFF, 0x00, 0x40, 0x0E, 0x04, 0x01, 0x00, 0x01, 0x01]);
    });
}

#[test]
fn misses_no_tap_of_many() {
    with_own_pcscd("misses_no_tap_of_many", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let mut latencies: Vec<Duration> = (0..50u8)
            .map(|number| {
                let uid = [0x04, 0xA2, 0xB3, number];
                let card = put(&pcscd, "Laundry", &uid);
                let tap = watched.next();
                let ReaderEvent::Presented { uid: read, technology, read_at, .. } = tap else {
                    panic!("{}", said(&tap));
                };
                assert_eq!(Some(read), Uid::new(&uid));
                assert_eq!(technology, Technology::MifareClassic1k);
                let latency = read_at - card.inserted_at;
                card.remove();
                watched.expect(&["laundry: removed"]);
                latency
            })
            .collect();
        latencies.sort();
        println!(
            "latency insertion to UID: median {:?}, longest {:?}",
            latencies[25], latencies[49]
        );
    });
}

#[test]
fn stops_within_two_seconds() {
    with_own_pcscd("stops_within_two_seconds", |dir| {
        let (_pcscd, mut watched) = laundry(dir);
        let asked = Instant::now();
        watched.pcsc.stop();
        assert!(asked.elapsed() < Duration::from_millis(1900), "the threads ended by themselves");
        assert_eq!(watched.events.try_recv().ok(), None);
        assert!(watched.events.is_closed(), "no thread is left");
    });
}
