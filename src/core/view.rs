//! What the outside may see of the core: for `tapgate status` and for the stations' public state.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::event::Allowlist;
use crate::core::gateway::Gateway;
use crate::core::ids::{BadgeId, SessionId, StationId, UserId};
use crate::core::ledger::Authority;
use crate::core::metering::elapsed;
use crate::core::session::Phase;
use crate::core::site::StationKind;
pub use crate::core::station::{Fault, State};

use crate::core::station::Station;
use crate::core::time::{Stamp, Wall};

/// One station as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationView {
    /// Its name in the config.
    pub station: StationId,
    /// `available`, `starting`, `in_use`, `idle`, `out_of_service` or `faulted`.
    pub state: State,
    /// Since when it is in this state.
    pub since: Wall,
    /// What it is.
    pub kind: StationKind,
    /// What residents call it.
    pub label: String,
    /// Why it is faulted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Why it is out of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Active power in milliwatts, where a meter tells.
    pub power_mw: Option<i64>,
    /// The meter's register in watt-hours.
    pub register_wh: Option<i64>,
    /// The session on it.
    pub session: Option<SessionView>,
}

/// An open session as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the session's records")]
pub struct SessionView {
    pub session: SessionId,
    pub user: Option<UserId>,
    pub badge: Option<BadgeId>,
    pub authorised_by: Authority,
    pub started: Wall,
    pub duration_s: u64,
    /// Posted and outstanding; null when unmetered.
    pub energy_wh: Option<i64>,
    /// `recovering`, `closing`, `running` or `ending`.
    pub phase: String,
}

impl Gateway {
    /// How long ago a valid head came last; `None` where the clock cannot tell.
    pub fn allowlist_age(&self, now: Stamp) -> Option<Duration> {
        elapsed(self.allowlist_arrived?, now)
    }

    /// Which allowlist decides.
    pub fn allowlist(&self) -> Option<&Allowlist> {
        self.allowlist.as_ref()
    }

    /// When a valid head arrived last.
    pub fn allowlist_arrived(&self) -> Option<crate::core::time::Stamp> {
        self.allowlist_arrived
    }

    /// Records that could not be written yet.
    pub fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// All stations, in config order.
    pub fn stations(&self, now: crate::core::time::Stamp) -> Vec<StationView> {
        self.stations.iter().map(|station| station.view(now)).collect()
    }

    /// One station.
    pub fn station(&self, id: &StationId, now: crate::core::time::Stamp) -> Option<StationView> {
        self.stations.iter().find(|station| &station.plan.id == id).map(|s| s.view(now))
    }
}

impl Station {
    fn view(&self, now: crate::core::time::Stamp) -> StationView {
        let meter = self.meter.as_ref();
        StationView {
            station: self.plan.id.clone(),
            state: self.state(),
            since: self.shown.as_ref().map_or(now.wall, |shown| shown.since),
            kind: self.plan.kind,
            label: self.plan.label.clone(),
            fault: self.shown_fault().map(|fault| fault.as_str().into()),
            note: self.out_of_service.clone().flatten(),
            power_mw: meter.and_then(|meter| meter.power()).map(|(power, _)| power),
            register_wh: meter.and_then(|meter| meter.register_wh()),
            session: self.session_view(now),
        }
    }

    fn session_view(&self, now: crate::core::time::Stamp) -> Option<SessionView> {
        let session = self.session.as_ref()?;
        let meter = self.meter.as_ref();
        let outstanding = meter.and_then(|meter| meter.outstanding());
        let energy_wh = session.posted_wh + outstanding.map_or(0, |(from, to)| to - from);
        Some(SessionView {
            session: session.start.session,
            user: session.start.user.clone(),
            badge: session.start.badge.clone(),
            authorised_by: session.start.authorised_by,
            started: session.started.wall,
            duration_s: session.age(now.uptime).as_secs(),
            energy_wh: meter.map(|_| energy_wh),
            phase: match session.phase {
                Phase::Recovering => "recovering",
                Phase::Closing { .. } => "closing",
                Phase::Running => "running",
                Phase::Ending { .. } => "ending",
            }
            .into(),
        })
    }
}
