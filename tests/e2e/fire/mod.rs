//! The real program under fire: killed again and again while machines run and people tap, with a
//! broker that dies and forgets, and readers that go away. Afterwards the books are looked at.

mod crime_scene;
mod faults;

use std::time::{Duration, Instant};

use tapgate::demo::card::VirtualCard;

use crate::broken::Dice;
use crate::people::{
    ANNA, BORIS, CHARGER_METER, Card, DAVID, DRYER_METER, GINA, READERS, STRANGER, WASHER_METER,
};
use crate::site::{Site, records};
use crime_scene::CrimeScene;

/// Whoever comes by: most of them may.
const PEOPLE: [&Card; 7] = [&ANNA, &BORIS, &GINA, &ANNA, &BORIS, &DAVID, &STRANGER];
/// Machines: their meters, in the order of their relays, and whether somebody may stop them under
/// load by a tap.
const MACHINES: [(u8, bool); 3] =
    [(WASHER_METER, false), (CHARGER_METER, true), (DRYER_METER, false)];
/// Between two things that people and machines do.
const BEAT: Duration = Duration::from_millis(60);
/// The longest life of a daemon, in beats: long enough to get from a start to a finished wash.
const LIFE: usize = 60;

/// A site on fire.
struct Fire {
    site: Site,
    dice: Dice,
    scene: CrimeScene,
    /// A card on each reader, where somebody holds one there.
    cards: [Option<VirtualCard>; READERS.len()],
    begun: Instant,
}

impl Fire {
    fn light(seed: u64) -> Fire {
        eprintln!("repeat with TAPGATE_SEED={seed}");
        let mut site = Site::ready_to_start();
        site.change_config("start_timeout = \"60s\"", "start_timeout = \"4s\"");
        site.start();
        site.until_ready();
        for (meter, _) in MACHINES {
            site.draw(meter, 36_000);
        }
        let begun = Instant::now();
        let scene = CrimeScene::default();
        Fire { site, dice: Dice(seed), scene, cards: [const { None }; 3], begun }
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.dice.below(times) == 0
    }

    /// One life of the daemon, and its end.
    fn burn(&mut self) {
        // Many die young: in the middle of a start.
        let beats = if self.once_in(3) { self.dice.below(8) } else { self.dice.below(LIFE) };
        for _ in 0..beats {
            self.beat();
            std::thread::sleep(BEAT);
        }
        if self.once_in(8) {
            self.site.broker.kill9();
            if self.once_in(2) {
                self.site.broker.wipe().expect("a stopped broker");
            }
        }
        self.site.kill9();
        self.scene.inspect(&mut self.site);
        if self.once_in(3) {
            // It comes back before, with or after the daemon.
            self.site.broker.restart().expect("mosquitto");
        }
        if self.once_in(25) {
            self.cards = [const { None }; 3];
            self.site.pcscd.restart().expect("pcscd");
        }
        self.site.start();
    }

    /// Something happens.
    fn beat(&mut self) {
        let reader = self.dice.below(READERS.len());
        match self.dice.below(6) {
            0 | 1 => match self.cards[reader].take() {
                Some(card) => card.remove(),
                None => {
                    let person = PEOPLE[self.dice.below(PEOPLE.len())];
                    self.cards[reader] = Some(self.site.present(READERS[reader], person));
                }
            },
            2 | 3 => self.machine_works(reader),
            4 => {
                let withhold = self.once_in(2);
                self.site.cloud.withhold_acks(withhold);
            }
            _ => {}
        }
    }

    /// A machine draws power from the moment that it is switched on, and comes to its end. It never
    /// begins again by itself: then nobody could tell whether it was cut.
    fn machine_works(&mut self, number: usize) {
        let (meter, _) = MACHINES[number];
        if self.site.is_closed(number as u8) {
            if self.once_in(2) {
                self.site.draw(meter, 0);
            }
        } else {
            let idle = self.once_in(6);
            self.site.draw(meter, if idle { 0 } else { 36_000 });
        }
    }

    /// All is well again, every session ends; then the books must be right.
    fn put_out(mut self) {
        self.cards = [const { None }; 3];
        self.site.cloud.withhold_acks(false);
        self.site.broker.restart().expect("mosquitto");
        self.site.until_ready();
        for (meter, _) in MACHINES {
            self.site.draw(meter, 0);
        }
        self.stop_charging();
        self.site.until("every session has ended", |site| {
            let status = site.status();
            let stations = status["stations"].as_array();
            stations.is_some_and(|all| all.iter().all(|it| it["session"].is_null()))
        });
        self.books_are_right();
    }

    fn stop_charging(&mut self) {
        let stop = ["session", "end", "charger-1", "--now"];
        if !self.site.station("charger-1")["session"].is_null() {
            let ended = self.site.command(&stop);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(ended.status.success() || said.contains("no session"), "{said}");
        }
    }

    fn books_are_right(&mut self) {
        let view = self.site.settled();
        let verified = self.site.command(&["ledger", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        let started = records(&view, "session_started").len();
        let ended = records(&view, "session_ended");
        assert_eq!(started, ended.len());
        assert_eq!(started, view.usage.sessions.len(), "a session came twice");
        for end in &ended {
            let reason = end["reason"].as_str().unwrap_or_default();
            assert!(["finished", "tapped", "not_used", "technician"].contains(&reason), "{end}");
        }
        for (coil, (meter, by_tap)) in (0_u8..).zip(MACHINES) {
            let register = self.site.register(meter);
            let name = ["meter-washer", "meter-charger", "meter-dryer"][usize::from(coil)];
            let account = &view.usage.meters[name];
            let accounted = account.first_wh + account.sessions_wh + account.unattributed_wh;
            assert_eq!((accounted, account.open_sessions), (register, 0), "{name}");
            let cut = self.site.cuts().iter().any(|(at, _)| *at == coil);
            assert!(by_tap || !cut, "{name} was cut: {:?}", self.site.cuts());
        }
        assert!(!self.site.log().contains("panicked"), "{}", self.site.log());
        let (kills, power) = (self.scene.inspected, self.scene.with_power);
        eprintln!(
            "{kills} kills, {power} of them with power on, {started} sessions, {} records, {:.0?}",
            view.usage.records.len(),
            self.begun.elapsed()
        );
    }
}

/// `TAPGATE_SEED`, else one that nobody chose.
fn seed() -> u64 {
    let set = std::env::var("TAPGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    set.unwrap_or_else(|| uuid::Uuid::new_v4().as_u128() as u64 >> 1)
}

fn survive(kills: usize) {
    let mut fire = Fire::light(seed());
    for _ in 0..kills {
        fire.burn();
    }
    fire.put_out();
}

#[test]
fn a_few_kills_while_people_tap_lose_nothing() {
    survive(5);
}

/// `make soak`; `TAPGATE_KILLS` for another number.
#[test]
#[ignore = "takes a quarter of an hour: make soak"]
fn five_hundred_kills_while_people_tap_lose_nothing() {
    let kills = std::env::var("TAPGATE_KILLS").ok().and_then(|kills| kills.parse().ok());
    survive(kills.unwrap_or(500));
}
