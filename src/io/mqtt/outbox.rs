//! What the daemon wants published, as it stands now: later values replace earlier ones, so that
//! months without a broker take no more memory than an hour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::events::EventQueue;
use crate::core::ids::StationId;
use crate::protocol::cloud::{AllowlistReport, LocalState, StationState};

/// Reports kept while the broker is away; the state says on connect which list decides, and the
/// retained head comes again, so that older ones say nothing new.
const MAX_REPORTS: usize = 16;

/// What is to be published beside the ledger.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) local: LocalState,
    /// Whether `local` changed since it was last published.
    pub(super) local_changed: bool,
    stations: BTreeMap<StationId, StationState>,
    /// Removed from the config: their retained state is to be cleared.
    removed: Vec<StationId>,
    unpublished: BTreeSet<StationId>,
    pub(super) events: EventQueue,
    reports: VecDeque<AllowlistReport>,
    /// Whether the ledger grew since it was last looked at.
    pub(super) records_committed: bool,
}

impl Outbox {
    pub(super) fn new(local: LocalState, removed: Vec<StationId>) -> Outbox {
        Outbox {
            local,
            local_changed: false,
            stations: BTreeMap::new(),
            removed,
            unpublished: BTreeSet::new(),
            events: EventQueue::default(),
            reports: VecDeque::new(),
            records_committed: false,
        }
    }

    /// A new connection: the broker may have forgotten everything that was retained.
    pub(super) fn on_connected(&mut self) {
        self.unpublished = self.stations.keys().chain(&self.removed).cloned().collect();
    }

    pub(super) fn set_local(&mut self, local: LocalState) {
        self.local_changed |= self.local != local;
        self.local = local;
    }

    pub(super) fn set_station(&mut self, station: StationId, state: StationState) {
        if self.stations.get(&station) != Some(&state) {
            self.removed.retain(|removed| *removed != station);
            self.unpublished.insert(station.clone());
            self.stations.insert(station, state);
        }
    }

    pub(super) fn report(&mut self, report: AllowlistReport) {
        if self.reports.len() == MAX_REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }

    /// The next station to publish; without a state its retained message is cleared.
    pub(super) fn next_station(&mut self) -> Option<(StationId, Option<StationState>)> {
        let station = self.unpublished.pop_first()?;
        let state = self.stations.get(&station).cloned();
        Some((station, state))
    }

    pub(super) fn next_report(&mut self) -> Option<AllowlistReport> {
        self.reports.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::site::StationKind;
    use crate::protocol::cloud::{ClockState, StationStatus};

    fn outbox(removed: &[&str]) -> Outbox {
        let local = LocalState {
            boot: 1,
            version: "1".into(),
            allowlist: None,
            clock: ClockState::Synced,
            public_key: None,
            alarms: vec![],
        };
        Outbox::new(local, removed.iter().map(|id| StationId::from(*id)).collect())
    }

    fn station(state: StationStatus) -> StationState {
        StationState {
            state,
            since: Default::default(),
            kind: StationKind::Washer,
            label: "Machine 1".into(),
            fault: None,
            note: None,
        }
    }

    #[test]
    fn publishes_changed_stations_once_and_all_of_them_on_connect() {
        let mut outbox = outbox(&[]);
        let free = station(StationStatus::Available);
        outbox.set_station("a".into(), free.clone());
        outbox.set_station("b".into(), free.clone());
        let drain = |outbox: &mut Outbox| -> Vec<_> {
            std::iter::from_fn(|| outbox.next_station()).map(|(id, _)| id.to_string()).collect()
        };
        assert_eq!(drain(&mut outbox), ["a", "b"]);

        outbox.set_station("a".into(), free);
        outbox.set_station("b".into(), station(StationStatus::InUse));
        assert_eq!(drain(&mut outbox), ["b"]);

        outbox.on_connected();
        assert_eq!(drain(&mut outbox), ["a", "b"]);
    }

    #[test]
    fn clears_removed_stations_unless_they_are_back() {
        let mut outbox = outbox(&["gone", "back"]);
        outbox.set_station("back".into(), station(StationStatus::Available));
        outbox.on_connected();

        assert!(matches!(outbox.next_station(), Some((id, Some(_))) if id.as_str() == "back"));
        assert_eq!(outbox.next_station(), Some(("gone".into(), None)));
        assert_eq!(outbox.next_station(), None);
    }

    #[test]
    fn an_unchanged_state_is_no_change() {
        let mut outbox = outbox(&[]);
        outbox.set_local(outbox.local.clone());
        assert!(!outbox.local_changed);
        outbox.set_local(LocalState { boot: 2, ..outbox.local.clone() });
        assert!(outbox.local_changed);
    }
}
