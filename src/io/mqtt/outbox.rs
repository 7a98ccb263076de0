//! What the daemon wants published, as it stands now: later values replace earlier ones, so that
//! months without a broker take no more memory than an hour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::events::EventQueue;
use crate::core::ids::StationId;
use crate::protocol::cloud::{AllowlistReport, CommandReply, LocalState, StationState};

/// Reports kept while the broker is away; the state says on connect which list decides, and the
/// retained head comes again, so that older ones say nothing new.
const MAX_REPORTS: usize = 16;

/// Replies kept while the broker is away; all of them are on disk and sent again when asked for.
const MAX_REPLIES: usize = 256;

/// Replays that wait for each other. One covers any range, so more are a mistake.
const MAX_REPLAYS: usize = 8;

/// Records that the cloud wants again, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The command's id.
    pub id: String,
    /// Of which epoch.
    pub epoch: String,
    /// The next one to send.
    pub next: u64,
    /// The last one.
    pub to: u64,
}

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
    /// Oldest first; the oldest gives way.
    pub(super) replies: VecDeque<CommandReply>,
    /// The first one is being sent.
    pub(super) replays: VecDeque<Replay>,
    /// Whether the cloud asked for the state as it is.
    pub(super) state_wanted: bool,
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
            replies: VecDeque::new(),
            replays: VecDeque::new(),
            state_wanted: false,
            records_committed: false,
        }
    }

    /// A new connection: the broker may have forgotten everything that was retained.
    pub(super) fn on_connected(&mut self) {
        self.unpublished = self.stations.keys().chain(&self.removed).cloned().collect();
        // The head is retained and asks for what is missing now.
        self.reports.retain(|report| !matches!(report, AllowlistReport::Get { .. }));
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

    pub(super) fn reply(&mut self, reply: CommandReply) {
        // Only the newest reply to a command says anything.
        self.replies.retain(|waiting| waiting.id != reply.id || waiting == &reply);
        if self.replies.len() == MAX_REPLIES {
            self.replies.pop_front();
        }
        self.replies.push_back(reply);
    }

    /// Takes replies back, oldest first, that went to a broker which never confirmed them.
    pub(super) fn put_back_replies(&mut self, replies: Vec<CommandReply>) {
        for reply in replies.into_iter().rev() {
            self.replies.push_front(reply);
        }
        while self.replies.len() > MAX_REPLIES {
            self.replies.pop_front();
        }
    }

    /// False where too many wait already.
    pub(super) fn replay(&mut self, replay: Replay) -> bool {
        let room = self.replays.len() < MAX_REPLAYS;
        if room {
            self.replays.push_back(replay);
        }
        room
    }

    /// The cloud wants to see everything that is retained.
    pub(super) fn want_state(&mut self) {
        self.state_wanted = true;
        self.on_connected();
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
