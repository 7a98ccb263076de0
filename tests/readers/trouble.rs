//! Cards, drivers, programs and services that misbehave.

use std::time::{Duration, Instant};

use pcsc::{Context, Disposition, Protocols, Scope, ShareMode};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// What the readers promise: a card is given up after two seconds, and looked at once a second.
const CARD_DEADLINE: Duration = Duration::from_secs(2);

fn laundry_and_garage(dir: &Path) -> (PrivatePcscd, Watched) {
    let pcscd = PrivatePcscd::start(dir, &["Laundry", "Garage"]).expect("a private pcscd");
    let bindings = vec![by_name("garage", "Garage 00 00"), by_name("laundry", "Laundry 00 00")];
    let mut watched = Watched::start(bindings);
    watched.expect_all(&["garage: found as Garage 00 00", "laundry: found as Laundry 00 00"]);
    (pcscd, watched)
}

fn silent(answer: UidAnswer) -> CardFace {
    CardFace::new(&ANNA, &ATR_CLASSIC_1K).answering(answer)
}

#[test]
fn recovers_when_pcscd_is_stopped_and_started() {
    with_own_pcscd("trouble::recovers_when_pcscd_is_stopped_and_started", |dir| {
        let (mut pcscd, mut watched) = laundry(dir);
        let pid = pcscd.pid().and_then(|pid| Pid::from_raw(pid as i32)).expect("it runs");
        kill_process(pid, Signal::TERM).expect("it runs");
        watched.expect_all(&["laundry: lost", "pcscd unavailable"]);
        pcscd.restart().expect("pcscd again");
        watched.expect(&["pcscd back", "laundry: found as Laundry 00 00"]);
        let _card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
    });
}

#[test]
fn watches_every_reader_that_pcscd_has_room_for() {
    with_own_pcscd("trouble::watches_every_reader_that_pcscd_has_room_for", |dir| {
        // Two slots each: sixteen readers.
        let names = ["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"];
        let pcscd = PrivatePcscd::start(dir, &names).expect("a private pcscd");
        let bindings: Vec<ReaderBinding> = names
            .iter()
            .flat_map(|name| ["00", "01"].map(|slot| (name, slot)))
            .map(|(name, slot)| {
                by_name(&format!("{}-{slot}", name.to_lowercase()), &format!("{name} 00 {slot}"))
            })
            .collect();
        let mut watched = Watched::start(bindings);
        let found: Vec<String> = (0..16).map(|_| watched.next_said()).collect();
        assert!(found.iter().all(|said| said.contains(": found as R")), "{found:?}");
        for (reader, port) in [("r1-00", pcscd.port("R1")), ("r8-01", pcscd.port("R8") + 1)] {
            let card = VirtualCard::insert(port, &ANNA, &ATR_CLASSIC_1K).expect("a reader");
            watched.expect(&[&format!("{reader}: 04A2B3C4 mifare-classic-1k")]);
            card.remove();
            watched.expect(&[&format!("{reader}: removed")]);
        }
    });
}

#[test]
fn a_card_that_never_answers_is_unreadable_in_time() {
    with_own_pcscd("trouble::a_card_that_never_answers_is_unreadable_in_time", |dir| {
        let (pcscd, mut watched) = laundry_and_garage(dir);
        let card = put_face(&pcscd, silent(UidAnswer::Never));
        assert!(card.next_apdu().is_some());
        // The neighbour's reader does not wait for it.
        let other = put(&pcscd, "Garage", &BORIS);
        watched.expect(&["garage: 04A1B2C3D4E5F6 mifare-classic-1k"]);
        other.remove();
        watched.expect(&["garage: removed", "laundry: unreadable mifare-classic-1k"]);
        let given_up = card.inserted_at.elapsed();
        assert!(given_up >= CARD_DEADLINE, "{given_up:?}");
        card.remove();
        watched.expect(&["laundry: removed"]);
        let _card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
    });
}

#[test]
fn a_number_that_comes_too_late_does_not_count() {
    with_own_pcscd("trouble::a_number_that_comes_too_late_does_not_count", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let card = put_face(&pcscd, silent(UidAnswer::Late(2 * CARD_DEADLINE)));
        watched.expect(&["laundry: unreadable mifare-classic-1k"]);
        assert!(card.is_at_rest(), "it answered and was powered down");
        card.remove();
        watched.expect(&["laundry: removed"]);
        let _card = put(&pcscd, "Laundry", &BORIS);
        watched.expect(&["laundry: 04A1B2C3D4E5F6 mifare-classic-1k"]);
    });
}

#[test]
fn a_reader_that_hangs_is_lost_and_works_again_when_it_answers() {
    with_own_pcscd("trouble::a_reader_that_hangs_is_lost_and_works_again_when_it_answers", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let card = put_face(&pcscd, silent(UidAnswer::Never));
        watched.expect(&["laundry: unreadable mifare-classic-1k", "laundry: lost"]);
        card.remove();
        watched.expect(&["laundry: found as Laundry 00 00"]);
        let _card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
    });
}

#[test]
fn waits_for_another_program_that_has_the_card_for_itself() {
    with_own_pcscd("trouble::waits_for_another_program_that_has_the_card_for_itself", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let first = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        let context = Context::establish(Scope::System).expect("pcscd runs");
        let connect = || context.connect(c"Laundry 00 00", ShareMode::Exclusive, Protocols::ANY);
        let until = Instant::now() + PATIENCE;
        let greedy = loop {
            match connect() {
                Ok(card) => break card,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        };
        first.remove();
        watched.expect(&["laundry: removed"]);
        // Its handle stays and keeps the reader, whatever card lies there.
        let second = put(&pcscd, "Laundry", &BORIS);
        assert!(second.is_noticed());
        greedy.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).expect("let go");
        watched.expect(&["laundry: 04A1B2C3D4E5F6 mifare-classic-1k"]);
    });
}

#[test]
fn shares_the_card_with_another_program() {
    with_own_pcscd("trouble::shares_the_card_with_another_program", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        let card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
        let context = Context::establish(Scope::System).expect("pcscd runs");
        for _ in 0..3 {
            let other = context
                .connect(c"Laundry 00 00", ShareMode::Shared, Protocols::ANY)
                .expect("a card that can be shared");
            // It even resets the card: that is no arrival.
            other.disconnect(Disposition::ResetCard).map_err(|(_, error)| error).expect("reset");
        }
        card.remove();
        watched.expect(&["laundry: removed"]);
    });
}

#[test]
fn a_mute_card_is_unreadable() {
    with_own_pcscd("trouble::a_mute_card_is_unreadable", |dir| {
        let (pcscd, mut watched) = laundry(dir);
        // An answer to reset that is none.
        let mute = VirtualCard::insert(pcscd.port("Laundry"), &ANNA, &[0x00]).expect("a reader");
        watched.expect(&["laundry: unreadable other"]);
        mute.remove();
        watched.expect(&["laundry: removed"]);
        let _card = put(&pcscd, "Laundry", &ANNA);
        watched.expect(&["laundry: 04A2B3C4 mifare-classic-1k"]);
    });
}
