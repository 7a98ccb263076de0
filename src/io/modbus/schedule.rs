//! When what is due on a bus. Pure: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::event::Pace;

/// Meters and switches of running stations: within the second that the contract asks for, with room
/// for a request that is under way.
const RUNNING: Duration = Duration::from_millis(900);
/// Meters of stations that wait for power to go to zero: within 200 ms.
const ENDING: Duration = Duration::from_millis(170);
/// Idle meters: within a minute, see [`PATIENCE`].
const IDLE_METER: Duration = Duration::from_secs(50);
/// Switches of idle stations: within 10 s, so that a relay board that reset is seen.
const IDLE_SWITCH: Duration = Duration::from_secs(8);
/// Buttons: a short press is some 100 ms.
const BUTTONS: Duration = Duration::from_millis(60);
/// Least pause between two turns of one duty on a line that is too slow for its interval.
const BREATH: Duration = Duration::from_millis(10);
/// An idle poll that waited this long goes before those of running stations.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something that is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Write the heartbeat of this unit.
    Heartbeat(usize),
    /// Write the set-point of this station's charger again.
    Refresh(usize),
    /// Read the watched buttons.
    Buttons,
    /// Read the meter of this station.
    Meter(usize),
    /// Read the switches on this unit.
    Switches(usize),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    duty: Duty,
    due: Instant,
    interval: Duration,
    urgency: Urgency,
}

/// What goes first when several are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// Heartbeats, and set-points that a charger forgets.
    Heartbeat,
    Button,
    Running,
    Idle,
}

/// The duties of one bus.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
}

impl Schedule {
    /// A duty with an interval of its own (heartbeats, refreshes), due at once.
    pub(super) fn every(&mut self, duty: Duty, interval: Duration, now: Instant) {
        let urgency = match duty {
            Duty::Buttons => Urgency::Button,
            Duty::Heartbeat(_) | Duty::Refresh(_) | Duty::Meter(_) | Duty::Switches(_) => {
                Urgency::Heartbeat
            }
        };
        self.entries.push(Entry { duty, due: now, interval, urgency });
    }

    /// A poll at idle pace, due at once.
    pub(super) fn poll(&mut self, duty: Duty, now: Instant) {
        let (interval, urgency) = pace_of(duty, Pace::Idle);
        self.entries.push(Entry { duty, due: now, interval, urgency });
    }

    /// Changes the pace of a poll. A faster one is due at once.
    pub(super) fn pace(&mut self, duty: Duty, pace: Pace, now: Instant) {
        let (interval, urgency) = pace_of(duty, pace);
        for entry in self.entries.iter_mut().filter(|entry| entry.duty == duty) {
            if interval < entry.interval {
                entry.due = entry.due.min(now);
            }
            (entry.interval, entry.urgency) = (interval, urgency);
        }
    }

    /// Watches the buttons, or stops doing so.
    pub(super) fn watch_buttons(&mut self, watch: bool, now: Instant) {
        self.entries.retain(|entry| entry.duty != Duty::Buttons);
        if watch {
            self.every(Duty::Buttons, BUTTONS, now);
        }
    }

    /// A duty is done now whenever it was due.
    pub(super) fn hurry(&mut self, which: impl Fn(Duty) -> bool, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| which(entry.duty)) {
            entry.due = entry.due.min(now);
        }
    }

    /// A duty was done, between these moments. Something else gets its turn before it is due again.
    pub(super) fn done(&mut self, duty: Duty, begun: Instant, ended: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.duty == duty) {
            entry.due = (begun + entry.interval).max(ended + BREATH);
        }
    }

    /// What is due, the most urgent first, then the longest due, and whether it is timed. `ready`
    /// says from when on the device of a duty may be asked.
    pub(super) fn next(
        &self,
        now: Instant,
        ready: impl Fn(Duty) -> Option<Instant>,
    ) -> Option<(Duty, bool)> {
        let is_ready = |duty| ready(duty).is_none_or(|at| at <= now);
        let due = self.entries.iter().filter(|entry| entry.due <= now && is_ready(entry.duty));
        due.min_by_key(|entry| {
            let starving = entry.urgency == Urgency::Idle && now >= entry.due + PATIENCE;
            (if starving { Urgency::Running } else { entry.urgency }, entry.due)
        })
        .map(|entry| (entry.duty, entry.urgency <= Urgency::Button))
    }

    /// When the next duty is due and its device may be asked.
    pub(super) fn next_due(&self, ready: impl Fn(Duty) -> Option<Instant>) -> Option<Instant> {
        let due = |entry: &Entry| ready(entry.duty).map_or(entry.due, |at| at.max(entry.due));
        self.entries.iter().map(due).min()
    }
}

fn pace_of(duty: Duty, pace: Pace) -> (Duration, Urgency) {
    let idle = match duty {
        Duty::Switches(_) => IDLE_SWITCH,
        Duty::Meter(_) | Duty::Heartbeat(_) | Duty::Refresh(_) | Duty::Buttons => IDLE_METER,
    };
    match (pace, duty) {
        (Pace::Idle, _) => (idle, Urgency::Idle),
        (Pace::Ending, Duty::Meter(_)) => (ENDING, Urgency::Running),
        (Pace::Running | Pace::Ending, _) => (RUNNING, Urgency::Running),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always(_: Duty) -> Option<Instant> {
        None
    }

    #[test]
    fn a_device_that_needs_its_pause_lets_others_go_first() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.poll(Duty::Meter(0), start);
        schedule.poll(Duty::Meter(1), start);
        let pause = |duty| (duty == Duty::Meter(0)).then_some(start + BUTTONS);

        assert_eq!(schedule.next(start, pause), Some((Duty::Meter(1), false)));
        schedule.done(Duty::Meter(1), start, start);
        assert_eq!(schedule.next(start, pause), None);
        assert_eq!(schedule.next_due(pause), Some(start + BUTTONS));
        assert_eq!(schedule.next(start + BUTTONS, pause), Some((Duty::Meter(0), false)));
    }

    #[test]
    fn running_stations_share_a_full_line_and_idle_ones_are_not_forgotten() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        for station in 0..20 {
            schedule.poll(Duty::Meter(station), start);
            if station > 0 {
                schedule.pace(Duty::Meter(station), Pace::Running, start);
            }
        }

        let mut counts = [0; 20];
        for tenth in 0..1_200 {
            let now = start + Duration::from_millis(100 * tenth);
            if let Some((Duty::Meter(station), false)) = schedule.next(now, always) {
                counts[station] += 1;
                schedule.done(Duty::Meter(station), now, now);
            }
        }

        assert!((2..=4).contains(&counts[0]), "the idle one within a minute: {counts:?}");
        let (least, most) = (counts[1..].iter().min(), counts[1..].iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?}");
    }

    #[test]
    fn heartbeats_go_before_buttons_and_both_before_polls() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.poll(Duty::Meter(0), start);
        schedule.watch_buttons(true, start);
        let (due, later) = (start + Duration::from_secs(1), start + Duration::from_secs(2));
        schedule.every(Duty::Heartbeat(0), Duration::from_secs(5), due);

        assert_eq!(schedule.next(later, always), Some((Duty::Heartbeat(0), true)));
        schedule.done(Duty::Heartbeat(0), start, start);
        assert_eq!(schedule.next(later, always), Some((Duty::Buttons, true)));
        schedule.watch_buttons(false, later);
        assert_eq!(schedule.next(start, always), Some((Duty::Meter(0), false)));
        schedule.done(Duty::Meter(0), start, start);
        assert_eq!(schedule.next(start, always), None);
        assert_eq!(schedule.next_due(always), Some(start + Duration::from_secs(5)));
    }

    #[test]
    fn a_faster_pace_takes_effect_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.poll(Duty::Meter(0), start);
        schedule.done(Duty::Meter(0), start, start);

        schedule.pace(Duty::Meter(0), Pace::Running, start);
        assert_eq!(schedule.next(start, always), Some((Duty::Meter(0), false)));
        schedule.done(Duty::Meter(0), start, start);
        schedule.pace(Duty::Meter(0), Pace::Idle, start);
        assert_eq!(schedule.next_due(always), Some(start + RUNNING));
    }
}
