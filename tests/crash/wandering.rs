//! A site's days in an order that nobody thought of: a seed says what comes next.

use std::collections::BTreeMap;

use tapgate::core::ledger::Fact;

use crate::bench::{Bench, Recorded};
use crate::facts::{
    badges, begins, clock_set, commissioned, ending, ends, in_parts, inline, interrupted, memo,
    slot, started, unattributed,
};
use crate::random::Random;

const STATIONS: u8 = 2;

/// What the seed needs to know to say only what can happen.
struct Site {
    random: Random,
    /// Of the stations' meters.
    registers: BTreeMap<u8, i64>,
    /// Station, session, its start register.
    open: BTreeMap<u8, (u8, i64)>,
    sessions: u8,
    version: u32,
    boots: u32,
}

/// So many things happen, each recorded and promised.
pub fn wander(seed: u64, steps: usize) -> Recorded {
    let mut site = Site {
        random: Random::seeded(seed),
        registers: (1..=STATIONS).map(|station| (station, 1_000 * i64::from(station))).collect(),
        open: BTreeMap::new(),
        sessions: 0,
        version: 0,
        boots: 1,
    };
    let mut bench = Bench::new();
    bench.record_from_nothing();
    bench.open();
    bench.commit(vec![started(), commissioned(1, 1_000), commissioned(2, 2_000)]);
    for _ in 0..steps {
        site.step(&mut bench);
    }
    bench.finish()
}

impl Site {
    fn step(&mut self, bench: &mut Bench) {
        match self.random.below(20) {
            0..8 => {
                let facts = self.facts();
                bench.commit(facts);
            }
            8 => self.list(bench),
            9 | 10 => {
                let n = self.random.below(6) as u32;
                if bench.is_blocked(n) { bench.unblock(n) } else { bench.block(n) }
            }
            11 => bench.out_of_service("washer-1", Some("leaks")),
            12 => bench.in_service("washer-1"),
            13 => {
                let id = format!("c-{}", self.random.below(3));
                bench.reply(&id, &format!(r#"{{"n":{}}}"#, self.random.below(100)));
            }
            14 => bench.keep_memos(vec![memo(1, self.random.below(4) as u32)]),
            15 => {
                let (floor, head) = bench.range();
                bench.acknowledge(floor - 1 + self.random.below(head + 2 - floor));
            }
            16 => {
                bench.prune_all();
            }
            17 => bench.keep_time(),
            18 => bench.next_connection(),
            _ => self.reboot(bench),
        }
    }

    /// Up to three facts of one step.
    fn facts(&mut self) -> Vec<Fact> {
        (0..=self.random.below(3)).map(|_| self.fact()).collect()
    }

    fn fact(&mut self) -> Fact {
        let station = 1 + self.random.below(STATIONS.into()) as u8;
        let used = self.random.below(40) as i64;
        let register = self.registers.get_mut(&station).expect("a station's meter");
        let from = *register;
        let Some(&(session, start)) = self.open.get(&station) else {
            if self.random.below(2) == 0 || self.sessions == u8::MAX {
                *register += used;
                return unattributed(station, from, from + used);
            }
            self.sessions += 1;
            self.open.insert(station, (self.sessions, from));
            return begins(self.sessions, station, from);
        };
        match self.random.below(6) {
            0 => interrupted(session, from),
            1 => ending(session),
            2 => {
                self.open.remove(&station);
                *register += used;
                ends(session, station, (start, from + used))
            }
            3 => clock_set(),
            _ => {
                *register += used;
                slot(session, from, from + used)
            }
        }
    }

    fn list(&mut self, bench: &mut Bench) {
        self.version += 1;
        let entries = badges(self.random.below(3) as u32..20 + self.version);
        if self.random.below(2) == 0 {
            bench.apply(inline(self.version.into(), &entries));
        } else {
            bench.apply(in_parts(self.version.into(), &entries, 8));
        }
    }

    fn reboot(&mut self, bench: &mut Bench) {
        bench.close();
        if self.random.below(2) == 0 {
            self.boots += 1;
            bench.boot_as(&format!("kernel-{}", self.boots));
        }
        bench.open();
        bench.commit(vec![started()]);
    }
}
