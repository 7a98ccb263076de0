//! How each unit is doing, and when a silent one may be asked again.
//!
//! A unit that does not answer is suspect, then down. Asking a silent unit costs the whole bus a
//! time-out, so over all silent units of a bus that happens at most once in [`SILENCE_BUDGET`].

use std::time::Duration;

use tokio::time::Instant;

use crate::core::ids::{BusId, DeviceId};
use crate::protocol::figures::Figures;

/// Over all silent units of a bus, at most one time-out in this span (spec: config).
pub(super) const SILENCE_BUDGET: Duration = Duration::from_secs(10);

/// A unit that was silent this often in a row is down.
const DOWN_AFTER: u32 = 2;

/// A suspect unit that cannot be asked again for this long, because others are silent too, is down.
const SUSPECT_FOR: Duration = Duration::from_secs(3);

/// Pauses before a silent unit is asked again, by how often it was silent in a row.
const BACKOFF_S: [u64; 5] = [1, 2, 5, 10, 30];

/// How a unit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Ok,
    /// It did not answer once.
    Suspect,
    /// It does not answer.
    Down,
}

/// What status and doctor show of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitHealth {
    /// The bus it hangs on.
    pub bus: BusId,
    /// Its unit id.
    pub unit: u8,
    /// Its name in the config.
    pub device: DeviceId,
    /// How it is doing.
    pub state: UnitState,
    /// The last error since the start, even if all is well again.
    pub last_error: Option<String>,
    /// What it refuses of all that stations live by, though it answers.
    pub trouble: Option<String>,
    /// What it has done.
    pub figures: Figures,
    /// How long the last answer took.
    pub latency_ms: Option<u32>,
}

/// What status and doctor show of a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusHealth {
    /// Its name in the config.
    pub bus: BusId,
    /// Why it cannot be opened, and what to do; `None` while it can.
    pub error: Option<String>,
    /// What it has done.
    pub figures: Figures,
}

/// What a unit and its bus had done when the unit went down or came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say it")]
pub struct UnitAndBus {
    pub unit: Figures,
    pub bus: Figures,
}

/// A change that others should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Down,
    Back,
}

/// When the next time-out of a silent unit is affordable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    affordable_at: Instant,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Silence {
        Silence { affordable_at: now }
    }
}

/// The pulse of one unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    pub(super) state: UnitState,
    failures: u32,
    /// When its own backoff lets it be asked again.
    retry_at: Instant,
    suspect_since: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Pulse {
        Pulse { state: UnitState::Unknown, failures: 0, retry_at: now, suspect_since: now }
    }

    /// Whether it may be asked without anybody insisting.
    pub(super) fn may_be_asked(&self, now: Instant, silence: Silence) -> bool {
        now >= self.askable_at(silence)
    }

    /// From when on it may be asked.
    pub(super) fn askable_at(&self, silence: Silence) -> Instant {
        match self.state {
            UnitState::Unknown | UnitState::Ok => self.retry_at,
            UnitState::Suspect | UnitState::Down => self.retry_at.max(silence.affordable_at),
        }
    }

    /// Who of several comes first: the one that was asked in vain less often, since that may have
    /// been the line, then the one whose turn it has been for longest.
    fn turn(&self) -> (usize, Instant) {
        ((self.failures as usize).min(BACKOFF_S.len()), self.retry_at)
    }

    /// It answered.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Change> {
        let back = self.state == UnitState::Down;
        *self = Pulse { state: UnitState::Ok, failures: 0, retry_at: now, suspect_since: now };
        back.then_some(Change::Back)
    }

    /// It did not.
    pub(super) fn failed(&mut self, now: Instant, silence: &mut Silence) -> Option<Change> {
        if matches!(self.state, UnitState::Suspect | UnitState::Down) {
            silence.affordable_at = now + SILENCE_BUDGET;
        } else {
            self.suspect_since = now;
        }
        let pause = BACKOFF_S[(self.failures as usize).min(BACKOFF_S.len() - 1)];
        self.retry_at = now + Duration::from_secs(pause);
        self.failures = self.failures.saturating_add(1);
        let was_down = self.state == UnitState::Down;
        self.state = if self.failures >= DOWN_AFTER { UnitState::Down } else { UnitState::Suspect };
        (self.state == UnitState::Down && !was_down).then_some(Change::Down)
    }

    /// A suspect whose second chance does not come is down.
    pub(super) fn given_up(&mut self, now: Instant) -> Option<Change> {
        let waited = now.saturating_duration_since(self.suspect_since) >= SUSPECT_FOR;
        if self.state != UnitState::Suspect || !waited {
            return None;
        }
        self.state = UnitState::Down;
        Some(Change::Down)
    }
}

/// The silent unit that is to be asked next, by its index, and from when on.
pub(super) fn next_probe<'p>(
    pulses: impl Iterator<Item = &'p Pulse>,
    silence: Silence,
    now: Instant,
) -> Option<(usize, Instant)> {
    let silent = |pulse: &Pulse| matches!(pulse.state, UnitState::Suspect | UnitState::Down);
    let silent = pulses.enumerate().filter(|(_, pulse)| silent(pulse));
    let at = |pulse: &Pulse| pulse.askable_at(silence).max(now);
    let next = silent.min_by_key(|(_, pulse)| (at(pulse), pulse.turn()));
    next.map(|(unit, pulse)| (unit, at(pulse)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_units_together_cost_at_most_one_timeout_per_budget() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut units = vec![Pulse::new(start); 8];
        for unit in &mut units {
            unit.failed(start, &mut silence);
        }

        let mut timeouts = Vec::new();
        for second in 1..=300 {
            let now = start + Duration::from_secs(second);
            let askable = units.iter_mut().find(|unit| unit.may_be_asked(now, silence));
            if let Some(unit) = askable {
                unit.failed(now, &mut silence);
                timeouts.push(second);
            }
        }

        assert!(timeouts.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{timeouts:?}");
        assert!(timeouts.len() >= 25, "dead units are still probed: {timeouts:?}");
    }

    /// Who is probed in so many seconds, and when, while nobody answers.
    fn probed(
        units: &mut [Pulse],
        silence: &mut Silence,
        start: Instant,
        seconds: u64,
    ) -> Vec<(usize, u64)> {
        let mut probed = Vec::new();
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            let next = next_probe(units.iter(), *silence, now);
            if let Some((unit, _)) = next.filter(|(_, at)| *at <= now) {
                units[unit].failed(now, silence);
                probed.push((unit, second));
            }
        }
        probed
    }

    fn down(units: &mut [Pulse], silence: &mut Silence, now: Instant) {
        for unit in units {
            unit.failed(now, silence);
            unit.failed(now, silence);
        }
    }

    #[test]
    fn every_silent_unit_is_probed_in_turn_however_many_there_are() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut units = vec![Pulse::new(start); 8];
        down(&mut units, &mut silence, start);

        let probed = probed(&mut units, &mut silence, start, 600);

        for unit in 0..units.len() {
            let turns: Vec<u64> =
                probed.iter().filter(|(who, _)| *who == unit).map(|(_, second)| *second).collect();
            assert!(turns.windows(2).all(|pair| pair[1] - pair[0] <= 90), "{unit}: {turns:?}");
            assert!(turns.len() >= 6, "{unit}: {turns:?}");
        }
    }

    #[test]
    fn a_unit_that_just_fell_silent_is_probed_before_those_long_dead() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut units = vec![Pulse::new(start); 8];
        down(&mut units[..7], &mut silence, start);
        probed(&mut units, &mut silence, start, 600);

        let later = start + Duration::from_secs(600);
        down(&mut units[7..], &mut silence, later);
        let next = probed(&mut units, &mut silence, later, 12);

        assert_eq!(next.first().map(|(unit, _)| *unit), Some(7), "{next:?}");
    }

    #[test]
    fn a_unit_goes_down_once_and_comes_back_once() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut unit = Pulse::new(start);

        assert_eq!(unit.failed(start, &mut silence), None);
        assert_eq!(unit.state, UnitState::Suspect);
        assert_eq!(unit.failed(start, &mut silence), Some(Change::Down));
        assert_eq!(unit.failed(start, &mut silence), None);
        assert_eq!(unit.answered(start), Some(Change::Back));
        assert_eq!(unit.answered(start), None);
    }

    #[test]
    fn a_suspect_that_cannot_be_asked_again_is_given_up() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        let mut unit = Pulse::new(start);
        unit.failed(start, &mut silence);

        assert_eq!(unit.given_up(start + Duration::from_secs(1)), None);
        assert_eq!(unit.given_up(start + SUSPECT_FOR), Some(Change::Down));
        assert_eq!(unit.given_up(start + SUSPECT_FOR), None);
    }
}
