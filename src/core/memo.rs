//! What an open session must remember over a restart beyond what its records say.
//!
//! The ledger has no record for it, or could take none: an end that a full disk did not record, an
//! end that waits for an idle moment, how often a switch was closed again, how long a machine has
//! been idle. The shell keeps memos where a full disk does not matter, and brings them back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::gateway::Gateway;
use crate::core::ids::{SessionId, StationId};
use crate::core::ledger::{EndReason, Fact};
use crate::core::session::{Idleness, Session};
use crate::core::station::{Fault, Station, Turn};
use crate::core::time::Stamp;

/// The memo of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// Whose.
    pub session: SessionId,
    /// It has ended, or is to end at once, whatever the ledger says: its switch never closes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndReason>,
    /// It ends at the next idle moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_when_idle: Option<EndReason>,
    /// Times that its switch was closed again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reclosed: u32,
    /// It is over and the switch of this station must still open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<StationId>,
    /// How its load stood, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idleness: Option<(Stamp, Idleness)>,
}

impl Memo {
    fn is_empty(&self) -> bool {
        let Memo { session: _, ended, end_when_idle, reclosed, opens, idleness } = self;
        let waits = ended.is_some() || end_when_idle.is_some() || opens.is_some();
        !waits && *reclosed == 0 && idleness.is_none()
    }
}

/// An idle time goes on over a pause of the daemon no longer than this: a machine that was loaded
/// meanwhile would have to have heated and stopped within it.
const PAUSE: Duration = Duration::from_secs(60);

impl Gateway {
    /// What must be kept now; with how long machines have been idle where the daemon stops.
    pub fn memos(&self, stopping_at: Option<Stamp>) -> Vec<Memo> {
        let ended = self.unsaved.iter().filter_map(|record| match &record.fact {
            Fact::SessionEnding { session, reason } => Some((*session, *reason)),
            Fact::SessionEnded(end) => Some((end.start.session, end.reason)),
            Fact::GatewayStarted { .. }
            | Fact::SessionStarted(_)
            | Fact::SessionSlot { .. }
            | Fact::Interruption { .. }
            | Fact::Unattributed { .. }
            | Fact::MeterCommissioned(_)
            | Fact::MeterReplaced(_)
            | Fact::ClockSet { .. }
            | Fact::AllowlistApplied { .. }
            | Fact::BadgeOverride { .. }
            | Fact::EpochOpened { .. }
            | Fact::Carried { .. } => None,
        });
        let ended = ended.map(|(session, reason)| Memo { ended: Some(reason), ..blank(session) });
        let open = self.stations.iter().filter_map(|station| station.session.as_ref());
        let open = open.map(|session| session.memo(stopping_at));
        let stuck = self.stations.iter().filter_map(Station::stuck_memo);
        // Of two memos of one session, the one that ends it comes first.
        ended.chain(open).chain(stuck).filter(|memo| !memo.is_empty()).collect()
    }
}

impl Station {
    /// A switch that did not open is tried again for as long as it takes. Over a restart that must
    /// be known where no meter tells whether it has a load; else it is opened once it has none.
    fn stuck_memo(&self) -> Option<Memo> {
        let unknown = self.switch.must_open && self.meter.is_none() && self.session.is_none();
        let session = self.switch.stuck_after.filter(|_| unknown)?;
        let opens = Some(self.plan.id.clone());
        Some(Memo { opens, ..blank(session) })
    }

    /// The last run did not get the switch to open.
    pub(super) fn remember_stuck(&mut self, memo: &Memo, turn: &mut Turn<'_>) {
        let here = memo.opens.as_ref() == Some(&self.plan.id);
        if here && self.meter.is_none() && self.session.is_none() {
            self.switch.stuck_after = Some(memo.session);
            self.fault = Some(Fault::SwitchStuck);
            self.open_again(turn);
        }
    }
}

impl Session {
    fn memo(&self, stopping_at: Option<Stamp>) -> Memo {
        Memo {
            end_when_idle: self.end_when_idle,
            reclosed: self.reclosed,
            idleness: stopping_at.map(|at| (at, self.idleness())),
            ..blank(self.start.session)
        }
    }

    /// Takes up what was kept.
    pub(super) fn remember(&mut self, memo: &Memo, now: Stamp) {
        self.end_when_idle = memo.end_when_idle;
        self.reclosed = memo.reclosed;
        let Some((at, idleness)) = memo.idleness else { return };
        let pause = now.uptime.since(at.uptime);
        if at.boot == now.boot && pause <= PAUSE {
            self.take_up(idleness, now.uptime);
        }
    }
}

fn blank(session: SessionId) -> Memo {
    let (ended, end_when_idle, opens, idleness) = (None, None, None, None);
    Memo { session, ended, end_when_idle, reclosed: 0, opens, idleness }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
