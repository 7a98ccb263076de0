//! What a tap would come to, without one: for the technician who asks why.

use crate::core::access::{Denial, Entry};
use crate::core::badge::{Technology, Uid};
use crate::core::event::Tap;
use crate::core::gateway::Gateway;
use crate::core::ids::{SessionId, StationId};
use crate::core::tap::{Decision, no_badge};
use crate::core::time::Stamp;

/// What a tap on one station would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start a session.
    Start,
    /// Stop the badge's own session.
    Stop,
    /// End another user's idle session and start one.
    HandOver,
    /// Say that the badge's own session is running.
    YoursRunning,
    /// Refuse.
    Deny(Denial),
}

impl Verdict {
    /// `grant`, `stop`, `hand_over`, `yours_running` or `deny`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Start => "grant",
            Verdict::Stop => "stop",
            Verdict::HandOver => "hand_over",
            Verdict::YoursRunning => "yours_running",
            Verdict::Deny(_) => "deny",
        }
    }

    /// Why it is refused, where it is.
    pub fn denial(self) -> Option<Denial> {
        match self {
            Verdict::Deny(denial) => Some(denial),
            Verdict::Start | Verdict::Stop | Verdict::HandOver | Verdict::YoursRunning => None,
        }
    }

    /// What it means and what can be done about it, for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Verdict::Start => "no row of the table refuses it: a tap starts a session",
            Verdict::Stop => "the badge's user has a session there: a tap stops it",
            Verdict::HandOver => "the session there is idle for long enough: a tap takes over",
            Verdict::YoursRunning => {
                "the badge's user has a session there, and taps do not stop it (tap_to_stop)"
            }
            Verdict::Deny(denial) => denial.explanation(),
        }
    }
}

impl Gateway {
    /// What a tap of this badge would come to on a station, as things stand; `None` where there is
    /// no such station.
    pub fn verdict(
        &self,
        station: &StationId,
        (uid, technology): (Uid, Technology),
        entry: Option<&Entry>,
        now: Stamp,
    ) -> Option<Verdict> {
        let station = self.stations.iter().find(|known| &known.plan.id == station)?;
        if let Some(denial) = no_badge(uid) {
            return Some(Verdict::Deny(denial));
        }
        let tap = Tap {
            reader: station.plan.reader.clone(),
            uid,
            technology,
            entry: entry.cloned(),
            candidate: SessionId([0; 16]),
        };
        Some(match self.meaning_at(station, &tap, now) {
            // The tap would find out when it asks for the start register.
            Decision::Start(_) | Decision::AwaitButton(_) | Decision::HandOver(_)
                if station.lacks_start_register() =>
            {
                Verdict::Deny(Denial::OutOfService)
            }
            Decision::Start(_) | Decision::AwaitButton(_) => Verdict::Start,
            Decision::Stop(_) => Verdict::Stop,
            Decision::HandOver(_) => Verdict::HandOver,
            Decision::YoursRunning => Verdict::YoursRunning,
            Decision::Deny(_, denial) => Verdict::Deny(denial),
        })
    }
}
