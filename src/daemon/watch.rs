//! What the tasks last said of themselves, for the watchdog and for `tapgate status`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::core::ids::{BusId, ReaderId, StationId};
use crate::core::time::Stamp;
use crate::daemon::event_loop::Chore;
use crate::io::pcsc::{Ambiguity, ReaderEvent};
use crate::protocol::cloud::EventKind;
use crate::protocol::control::ReaderStatus;

/// Readers, chores and bus progress.
pub(super) struct Watch {
    pub(super) started: Instant,
    readers: Vec<(ReaderId, ReaderState)>,
    ambiguities: Vec<Ambiguity>,
    pcscd_failure: Option<String>,
    done: BTreeMap<Chore, Instant>,
    buses: BTreeMap<BusId, (u64, Instant)>,
    /// Buses that cannot be reached, and why.
    unreachable: BTreeMap<BusId, String>,
    buttons: BTreeMap<ReaderId, Vec<StationId>>,
    /// Files of the store that were set aside.
    damaged: Vec<String>,
    /// What the cloud's acknowledgements contradict, until one is accepted again.
    ledger_alarms: BTreeSet<EventKind>,
    /// When this disk was found to be rolled back or cloned.
    pub(super) forked: Option<Stamp>,
    /// What was found wrong with the site at the last look.
    conditions: BTreeSet<EventKind>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ReaderState {
    Ready(String),
    Missing(String),
}

/// A bus task advances even when every unit times out; one that does not is stuck. Longer than the
/// slowest honest request: a call that breaks (10 s), the line opened again (5 s) and listened to
/// (21 s), the call repeated (10 s).
const BUS_STUCK: Duration = Duration::from_secs(60);

impl Watch {
    pub(super) fn new(readers: impl Iterator<Item = ReaderId>) -> Watch {
        let missing = || ReaderState::Missing("not found yet; run: pcsc_scan".into());
        Watch {
            started: Instant::now(),
            readers: readers.map(|reader| (reader, missing())).collect(),
            ambiguities: Vec::new(),
            pcscd_failure: None,
            done: BTreeMap::new(),
            buses: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            buttons: BTreeMap::new(),
            damaged: Vec::new(),
            ledger_alarms: BTreeSet::new(),
            forked: None,
            conditions: BTreeSet::new(),
        }
    }

    pub(super) fn note_damaged(&mut self, files: &[PathBuf]) {
        self.damaged = files.iter().map(|file| file.display().to_string()).collect();
    }

    pub(super) fn has_damaged_files(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// The chore was not done after all: it is due at once.
    pub(super) fn put_off(&mut self, chore: Chore) {
        self.done.remove(&chore);
    }

    /// Whether `chore` was last done at least `every` ago; then it counts as done now.
    pub(super) fn is_due(&mut self, chore: Chore, every: Duration) -> bool {
        let now = Instant::now();
        let due = self.done.get(&chore).is_none_or(|at| now.duration_since(*at) >= every);
        if due {
            self.done.insert(chore, now);
        }
        due
    }

    /// Something else has just done as much as the chore would.
    pub(super) fn note_done(&mut self, chore: Chore) {
        self.done.insert(chore, Instant::now());
    }

    pub(super) fn stuck_buses(
        &mut self,
        progress: BTreeMap<BusId, u64>,
        now: Instant,
    ) -> Vec<BusId> {
        let mut stuck = Vec::new();
        for (bus, count) in progress {
            match self.buses.get(&bus) {
                Some((last, since)) if *last == count => {
                    if now.duration_since(*since) >= BUS_STUCK {
                        stuck.push(bus);
                    }
                }
                Some(_) | None => {
                    self.buses.insert(bus, (count, now));
                }
            }
        }
        stuck
    }

    pub(super) fn note_bus_down(&mut self, bus: BusId, error: String) {
        self.unreachable.insert(bus, error);
    }

    pub(super) fn note_bus_back(&mut self, bus: &BusId) {
        self.unreachable.remove(bus);
    }

    /// Why a bus cannot be reached; `None` where it can.
    pub(super) fn bus_error(&self, bus: &BusId) -> Option<&String> {
        self.unreachable.get(bus)
    }

    pub(super) fn has_unreachable_bus(&self) -> bool {
        !self.unreachable.is_empty()
    }

    pub(super) fn note_ledger_alarm(&mut self, kind: EventKind) {
        self.ledger_alarms.insert(kind);
    }

    /// Ledger and cloud agree again.
    pub(super) fn note_acknowledged(&mut self) {
        self.ledger_alarms.clear();
    }

    /// Notes whether something is wrong; true where that is news.
    pub(super) fn note_condition(&mut self, kind: EventKind, wrong: bool) -> bool {
        if wrong {
            return self.conditions.insert(kind);
        }
        self.conditions.remove(&kind);
        false
    }

    /// What is wrong with ledger, disk, clock and list, for `up/state`.
    pub(super) fn standing_alarms(&self) -> impl Iterator<Item = EventKind> {
        self.ledger_alarms.iter().chain(&self.conditions).copied()
    }

    /// The buttons of all open selections: each reader has its own.
    pub(super) fn buttons(&mut self, reader: ReaderId, stations: Vec<StationId>) -> Vec<StationId> {
        self.buttons.insert(reader, stations);
        self.buttons.values().flatten().cloned().collect()
    }

    pub(super) fn note_reader(&mut self, event: &ReaderEvent) {
        match event {
            ReaderEvent::Found { reader, name } => {
                self.set_reader(reader, ReaderState::Ready(name.clone()));
            }
            ReaderEvent::Lost { reader, why } => {
                self.set_reader(reader, ReaderState::Missing(why.clone()));
            }
            ReaderEvent::Ambiguous { ambiguities } => self.ambiguities = ambiguities.clone(),
            ReaderEvent::PcscdUnavailable { message } => {
                self.pcscd_failure = Some(message.clone());
            }
            ReaderEvent::PcscdBack => self.pcscd_failure = None,
            ReaderEvent::Presented { .. }
            | ReaderEvent::Unreadable { .. }
            | ReaderEvent::Removed { .. }
            | ReaderEvent::UnboundTap { .. } => {}
        }
    }

    fn set_reader(&mut self, reader: &ReaderId, state: ReaderState) {
        for (id, known) in &mut self.readers {
            if id == reader {
                *known = state.clone();
            }
        }
    }

    pub(super) fn readers(&self) -> Vec<ReaderStatus> {
        let status = |(reader, state): &(ReaderId, ReaderState)| {
            let (state, detail) = match (self.ambiguity_of(reader), state) {
                (Some(message), _) => ("ambiguous", message.to_owned()),
                (None, ReaderState::Ready(name)) => ("ready", name.clone()),
                (None, ReaderState::Missing(why)) => ("missing", why.clone()),
            };
            ReaderStatus { reader: reader.clone(), state: state.into(), detail }
        };
        self.readers.iter().map(status).collect()
    }

    /// Why a reader cannot be told from another.
    fn ambiguity_of(&self, reader: &ReaderId) -> Option<&str> {
        let found = self.ambiguities.iter().find(|it| it.readers.contains(reader));
        found.map(|it| it.message.as_str())
    }

    /// What a technician should look at.
    pub(super) fn alarms(&self) -> Vec<String> {
        let missing = self.readers.iter().filter_map(|(reader, state)| match state {
            ReaderState::Missing(why) if self.ambiguity_of(reader).is_none() => {
                Some(format!("reader {reader}: {why}"))
            }
            ReaderState::Missing(_) | ReaderState::Ready(_) => None,
        });
        let ambiguities = self.ambiguities.iter().map(|it| &it.message);
        let general = self.pcscd_failure.iter().chain(ambiguities).cloned();
        let damaged = self.damaged.iter().map(|file| {
            format!("{file} was damaged and set aside: send it to the operator, then move it away")
        });
        general.chain(damaged).chain(self.unreachable.values().cloned()).chain(missing).collect()
    }

    pub(super) fn has_missing_reader(&self) -> bool {
        let missing = |state: &ReaderState| matches!(state, ReaderState::Missing(_));
        self.readers.iter().any(|(_, state)| missing(state)) || !self.ambiguities.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch::new(std::iter::empty())
    }

    fn progress(count: u64) -> BTreeMap<BusId, u64> {
        BTreeMap::from([("room".into(), count), ("line".into(), 2 * count)])
    }

    #[test]
    fn bus_that_makes_no_progress_is_stuck_and_named() {
        let (mut watch, start) = (watch(), Instant::now());
        assert!(watch.stuck_buses(progress(1), start).is_empty());
        let mut one_stands = progress(2);
        one_stands.insert("line".into(), 2);

        let early = watch.stuck_buses(one_stands.clone(), start + BUS_STUCK / 2);
        let late = watch.stuck_buses(one_stands, start + BUS_STUCK);

        assert_eq!((early, late), (vec![], vec![BusId::from("line")]));
    }

    #[test]
    fn bus_that_moves_again_is_not_stuck() {
        let (mut watch, start) = (watch(), Instant::now());
        watch.stuck_buses(progress(1), start);
        assert_eq!(watch.stuck_buses(progress(1), start + BUS_STUCK).len(), 2);

        assert!(watch.stuck_buses(progress(2), start + BUS_STUCK * 2).is_empty());
    }

    #[test]
    fn chore_that_was_put_off_is_due_at_once() {
        let mut watch = watch();
        let hour = Duration::from_secs(3_600);
        assert!(watch.is_due(Chore::Watchdog, hour));
        assert!(!watch.is_due(Chore::Watchdog, hour));

        watch.put_off(Chore::Watchdog);

        assert!(watch.is_due(Chore::Watchdog, hour));
    }
}
