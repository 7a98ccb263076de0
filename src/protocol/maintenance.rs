//! What a technician orders over the control socket.

use serde::{Deserialize, Serialize};

use crate::core::ids::StationId;

/// Longest note on a station that is out of service.
pub const NOTE_MAX_CHARS: usize = 200;

/// Something done to a station or a session by hand; the daemon says in words what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Maintenance {
    /// Gives a free station power until it is switched off, as a technician's session.
    SwitchOn {
        /// Which.
        station: StationId,
    },
    /// Ends a technician's session, or opens a switch that is closed without a session.
    SwitchOff {
        /// Which.
        station: StationId,
    },
    /// Starts no session there any more, across restarts.
    TakeOutOfService {
        /// Which.
        station: StationId,
        /// Why; at most [`NOTE_MAX_CHARS`].
        note: Option<String>,
    },
    /// The other way round.
    ReturnToService {
        /// Which.
        station: StationId,
    },
    /// Ends a session.
    EndSession {
        /// Its id, or its station.
        session: String,
        /// Also a machine under load.
        now: bool,
    },
    /// The station's meter was exchanged.
    ReplaceMeter {
        /// Which station's.
        station: StationId,
    },
}
