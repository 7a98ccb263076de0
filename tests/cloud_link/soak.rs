//! Weeks without a cloud, and then everything at once, while broker, gateway and cloud are killed.

use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, verify};
use crate::support::gateway::GATEWAY;
use crate::support::offline::{self, RECORDS_PER_SESSION};
use crate::support::program::{Program, plain};

/// Longest wait for any record to be acknowledged: a broker that came back before its cloud costs
/// the ack timer, and backoffs add up on a busy machine.
const STUCK: Duration = Duration::from_secs(180);
/// Between two looks at the progress.
const LOOK: Duration = Duration::from_millis(100);
/// Peak memory of the daemon meanwhile: a few batches beside what it always takes.
const MAX_PEAK_KIB: u64 = 24 * 1024;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Broker,
    Gateway,
    Cloud,
    All,
}

/// A site that comes back after weeks; its broker forgets everything with each crash.
struct Reunion {
    program: Program,
    broker: Broker,
    cloud: Option<Consumer>,
    peak_kib: u64,
}

impl Reunion {
    fn after(sessions: u64) -> Reunion {
        let broker = Broker::start();
        let program = Program::with_cloud(&plain(broker.port()));
        offline::fill(&program.path("store/tapgate.db"), sessions);
        Reunion { program, broker, cloud: None, peak_kib: 0 }
    }

    fn start_cloud(&mut self) {
        let database = self.program.path("usage.db");
        self.cloud = None;
        self.cloud = Some(Consumer::start(&database, self.broker.port(), None));
    }

    fn kill(&mut self, victim: Victim) {
        self.look_at_memory();
        match victim {
            Victim::Broker => self.broker.restart(),
            Victim::Gateway => self.program.start(&[]),
            Victim::Cloud => self.start_cloud(),
            Victim::All => {
                self.program.kill9();
                self.broker.restart();
                self.start_cloud();
                self.program.start(&[]);
            }
        }
    }

    fn look_at_memory(&mut self) {
        self.peak_kib = self.peak_kib.max(self.program.peak_kib().unwrap_or(0));
    }

    /// Head and acknowledgement, where there is a daemon to ask.
    fn standing(&mut self) -> Option<(u64, u64)> {
        self.look_at_memory();
        let ledger = &self.program.cloud()["ledger"];
        Some((ledger["head"].as_u64()?, ledger["acked"].as_u64()?))
    }

    /// Waits until so many records are acknowledged, or all of them.
    fn until_acknowledged(&mut self, wanted: Option<u64>) -> u64 {
        let (mut best, mut since) = (0, Instant::now());
        loop {
            if let Some((head, acked)) = self.standing() {
                if wanted.map_or(head > 0 && acked == head, |wanted| acked >= wanted.min(head)) {
                    return acked;
                }
                if acked > best {
                    (best, since) = (acked, Instant::now());
                }
            }
            assert!(since.elapsed() < STUCK, "stuck at {best}: {}", self.program.cloud());
            std::thread::sleep(LOOK);
        }
    }
}

/// Numbers that a seed repeats (Knuth's constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }
}

fn drain(sessions: u64, kills: u64) {
    let seed = std::env::var("TAPGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u128() as u64 >> 1);
    eprintln!("repeat with TAPGATE_SEED={seed}");
    let mut dice = Dice(seed);
    let records = sessions * RECORDS_PER_SESSION;
    let mut reunion = Reunion::after(sessions);
    reunion.start_cloud();
    reunion.program.start(&[]);
    let mut moments: Vec<u64> = (0..kills).map(|_| 1 + dice.below(records)).collect();
    moments.sort_unstable();
    let begin = Instant::now();
    for moment in moments {
        let acked = reunion.until_acknowledged(Some(moment));
        let victims = [Victim::Broker, Victim::Gateway, Victim::Cloud, Victim::All];
        let victim = victims[dice.below(victims.len() as u64) as usize];
        eprintln!("{:>6.1?} {acked:>6} acknowledged, killing {victim:?}", begin.elapsed());
        reunion.kill(victim);
    }
    let head = reunion.until_acknowledged(None);
    eprintln!("{head} records in {:.1?}, peak {} KiB", begin.elapsed(), reunion.peak_kib);

    assert!(head > records, "{head}");
    assert!(reunion.peak_kib < MAX_PEAK_KIB, "{} KiB", reunion.peak_kib);
    let (report, fine) = verify(&reunion.program.path("usage.db"));
    assert!(fine, "{report:#}");
    assert_eq!(report[GATEWAY]["records"], head);
    let users = report[GATEWAY]["users_wh"].as_object().expect("users");
    let billed: u64 = users.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(billed, sessions * offline::WASH_WH as u64, "each watt-hour once");
}

#[test]
fn a_week_offline_comes_in_whole_over_kills_of_everything() {
    drain(1_100, 4);
}

/// `make soak`: eight weeks, 60,000 records.
#[test]
#[ignore = "takes many minutes: make soak"]
fn eight_weeks_offline_come_in_whole_over_kills_of_everything() {
    drain(8_600, 24);
}
