//! What a technician does to a station from the console: a session of its own kind, on record like
//! any other. It needs no badge and no service, only a station that nobody uses.

use crate::core::gateway::Gateway;
use crate::core::ids::{SessionId, StationId};
use crate::core::ledger::{Authority, EndReason};
use crate::core::station::{PendingStart, Turn};

impl Gateway {
    /// Starts a session on a free station; nothing happens on one that is used.
    pub(super) fn on_technician_starts(
        &mut self,
        id: &StationId,
        candidate: SessionId,
        turn: &mut Turn<'_>,
    ) {
        let deadline = turn.uptime() + turn.policy.start_read_timeout;
        let Some(station) = self.station_mut(id) else { return };
        if station.session.is_some() || station.pending.is_some() {
            return;
        }
        let pending = PendingStart {
            candidate,
            user: None,
            badge: None,
            uid: None,
            technology: None,
            authorised_by: Authority::Technician,
            allowlist_version: None,
            reader: None,
            order: None,
            deadline,
            retry_at: None,
            alternatives: None,
        };
        station.begin_start(pending, turn);
    }

    /// Ends the technician's own session; never a resident's.
    pub(super) fn on_technician_ends(&mut self, id: &StationId, turn: &mut Turn<'_>) {
        let Some(station) = self.station_mut(id) else { return };
        let is_theirs = |authority| authority == Authority::Technician;
        if station.pending.as_ref().is_some_and(|pending| is_theirs(pending.authorised_by)) {
            station.pending = None;
        }
        let session = station.session.as_ref();
        if session.is_some_and(|session| is_theirs(session.start.authorised_by)) {
            station.begin_end(EndReason::Technician, turn);
        }
    }
}
