//! What the record of the line says about a master: the same for all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::line::{BYTE, LATENCY, Line, SILENCE, Turn};
use crate::{METERS, TIMEOUT};

/// So far back lies no request that is still under way.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// The line sees a request this soon after the master sent it: one that begins within this time
/// after an order was on its way before.
const SEEN: Duration = Duration::from_millis(1);
/// What was measured while the line was late for more than this part of the time is left out.
const DISTURBED: u32 = 50;
/// Whatever took this long was not the machine's fault: a request takes 250 ms at most.
const LONG: Duration = Duration::from_millis(500);
const READ_INPUTS: u8 = 4;
/// Bytes of a read of two registers and its answer.
const READ_BYTES: usize = 17;

/// How long switches waited.
#[derive(Default)]
pub(crate) struct Switches {
    /// From the order to the last bit of the coil write, when the relay acts.
    pub(crate) waits: Vec<Duration>,
    /// From the end of the request that was in flight (the order, where none was) to the first bit
    /// of the write.
    pub(crate) excesses: Vec<Duration>,
    /// So many orders found a request in flight.
    pub(crate) busy: usize,
    /// So many are left out, since the simulated line itself was late meanwhile.
    pub(crate) disturbed: usize,
}

impl Switches {
    /// Takes in the switch that was ordered then. False where the line has not seen it (yet).
    pub(crate) fn note(&mut self, line: &Line, ordered: Instant) -> bool {
        let Some(written) = line.written(ordered) else { return false };
        let turns = line.turns(ordered - UNDER_WAY);
        let before = |turn: &&Turn| turn.begun < ordered + SEEN && turn.begun < written.begun;
        let before = turns.iter().rfind(before).filter(|turn| ends(turn) > ordered);
        let begun = before.map_or(ordered, |turn| turn.begun);
        if is_disturbed(line, begun, written.asked) {
            self.disturbed += 1;
            return true;
        }
        let free = before.map_or(ordered, ends);
        self.busy += usize::from(free > ordered);
        self.waits.push(written.asked - ordered);
        self.excesses.push(written.begun.saturating_duration_since(free.max(ordered)));
        true
    }
}

/// Whether the simulated line was late for a part of this time that matters.
pub(crate) fn is_disturbed(line: &Line, from: Instant, to: Instant) -> bool {
    to - from < LONG && line.late(from, to) > (to - from) / DISTURBED
}

/// When the master gives this request up, or has its answer.
fn ends(turn: &Turn) -> Instant {
    // Time-out, and the time that request and answer take on the line.
    let given_up = || turn.begun + TIMEOUT + BYTE * 20;
    turn.answered.unwrap_or_else(given_up)
}

/// How fast all meters were read.
pub(crate) struct Sweep {
    /// Between two reads of the register that waits longest, in the mean: a sweep of all.
    pub(crate) took: Duration,
    /// What the reads of one sweep take on the line at least.
    pub(crate) least: Duration,
    /// The same with all other answered requests of that time: a master also looks at its relays.
    pub(crate) least_of_all: Duration,
    /// Requests that nobody answered.
    pub(crate) timeouts: usize,
    /// Requests that began before the silence after an answer was over: a real device may not
    /// take them for requests.
    pub(crate) hasty: usize,
    pub(crate) requests: usize,
    /// How long the simulated line itself was late, in percent of the time.
    pub(crate) late_percent: f64,
}

impl Sweep {
    /// `None` where a live meter was not read twice.
    pub(crate) fn of(line: &Line, from: Instant, dead: &[u8]) -> Option<Sweep> {
        let turns = line.turns(from);
        let mut reads: BTreeMap<(u8, u8), Vec<Instant>> = BTreeMap::new();
        for turn in turns.iter().filter(|turn| turn.function == READ_INPUTS) {
            if turn.answered.is_some() {
                reads.entry((turn.unit, turn.first)).or_default().push(turn.begun);
            }
        }
        let registers = 2 * (METERS - dead.len());
        let between = |times: &Vec<Instant>| {
            let (first, last) = (times.first()?, times.last()?);
            let rounds = times.len() as u32 - 1;
            (rounds > 0).then(|| (*last - *first) / rounds)
        };
        let rounds: Option<Vec<Duration>> = reads.values().map(between).collect();
        let took = rounds.filter(|rounds| rounds.len() == registers)?.into_iter().max()?;
        let read = BYTE * READ_BYTES as u32 + LATENCY + SILENCE;
        let least = read * registers as u32;
        let span = turns.last()?.begun - turns.first()?.begun;
        let late = line.late(from, turns.last()?.begun);
        let answered = turns.iter().filter(|turn| turn.answered.is_some());
        let others = answered.filter(|turn| turn.function != READ_INPUTS).map(Turn::least);
        let share = took.as_secs_f64() / span.as_secs_f64();
        Some(Sweep {
            took,
            least,
            least_of_all: least + others.sum::<Duration>().mul_f64(share),
            timeouts: turns.iter().filter(|turn| turn.answered.is_none()).count(),
            hasty: turns.windows(2).filter(|pair| is_hasty(&pair[0], &pair[1])).count(),
            requests: turns.len(),
            late_percent: 100.0 * late.as_secs_f64() / span.as_secs_f64(),
        })
    }

    /// How much longer than the least for the meters alone, and for all that was asked.
    pub(crate) fn ratios(&self) -> [f64; 2] {
        [self.least, self.least_of_all].map(|least| self.took.as_secs_f64() / least.as_secs_f64())
    }
}

fn is_hasty(before: &Turn, turn: &Turn) -> bool {
    before.answered.is_some_and(|answered| turn.begun < answered + SILENCE)
}

/// Several times, sorted.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    /// At least one.
    pub(crate) fn of(mut times: Vec<Duration>) -> Spread {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Spread(times)
    }

    pub(crate) fn ms(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0[index].as_secs_f64() * 1_000.0
    }

    /// The share of those up to a limit.
    pub(crate) fn within_percent(&self, limit: Duration) -> f64 {
        let within = self.0.iter().filter(|time| **time <= limit).count();
        100.0 * within as f64 / self.0.len() as f64
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}
