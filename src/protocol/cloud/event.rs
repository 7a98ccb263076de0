//! `up/event`: alarms, denials, health. May be dropped, oldest first, and says how many were.

use serde::{Deserialize, Serialize};

use crate::core::access::Denial;
use crate::core::badge::Technology;
use crate::core::event::Notice;
use crate::core::ids::{BadgeId, BusId, DeviceId, ReaderId, StationId};
use crate::core::time::Stamp;
use crate::protocol::figures::Figures;

/// One message on `up/event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventMessage {
    /// When.
    pub at: Stamp,
    /// What.
    #[serde(flatten)]
    pub body: EventBody,
    /// How many of the same kind (denials: of the same reason) the rate limit left out before.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl EventMessage {
    /// An event before which none was left out.
    pub fn new(at: Stamp, body: EventBody) -> EventMessage {
        EventMessage { at, body, left_out: 0 }
    }
}

/// What an event says; the tag is its `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the kinds are those of the cloud contract")]
pub enum EventBody {
    Denied {
        reader: ReaderId,
        station: Option<StationId>,
        reason: Denial,
        /// `None` where the refusal came after the tap.
        #[serde(skip_serializing_if = "Option::is_none")]
        technology: Option<Technology>,
        /// `None` for a badge that the allowlist does not know.
        badge: Option<BadgeId>,
        /// Only of unknown badges, and only where the config says so.
        #[serde(skip_serializing_if = "Option::is_none")]
        uid: Option<String>,
    },
    BadSignature {
        topic: String,
        detail: String,
    },
    BadMessage {
        topic: String,
        detail: String,
    },
    Unattributed {
        station: StationId,
        energy_wh: i64,
    },
    SwitchFailed {
        station: StationId,
    },
    SwitchWithoutSession {
        station: StationId,
    },
    MeterImplausible {
        station: StationId,
    },
    ReaderLost {
        reader: ReaderId,
    },
    ReaderBack {
        reader: ReaderId,
    },
    UnitDown(Box<UnitEvent>),
    UnitBack(Box<UnitEvent>),
    LedgerFork {
        detail: String,
    },
    StoreSetAside {
        detail: String,
    },
    CloneSuspected {
        detail: String,
    },
    ClockUnsynchronised,
    DiskLow {
        free_bytes: u64,
    },
    /// What lies between is no longer kept here.
    LedgerGap {
        from: u64,
        to: u64,
    },
    AllowlistStale {
        age_s: u64,
    },
    /// So many older events gave way to newer ones.
    EventsDropped {
        count: u64,
    },
}

/// A unit that went down or came back, and what it and its bus had done until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the fields say it")]
pub struct UnitEvent {
    pub device: DeviceId,
    pub bus: BusId,
    pub unit: u8,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub unit_figures: Figures,
    pub bus_figures: Figures,
}

/// The name of an event; `up/state` lists those that are an alarm at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the kinds are those of the cloud contract")]
pub enum EventKind {
    Denied,
    BadSignature,
    BadMessage,
    Unattributed,
    SwitchFailed,
    SwitchWithoutSession,
    MeterImplausible,
    ReaderLost,
    ReaderBack,
    UnitDown,
    UnitBack,
    LedgerFork,
    StoreSetAside,
    CloneSuspected,
    ClockUnsynchronised,
    DiskLow,
    LedgerGap,
    AllowlistStale,
    EventsDropped,
}

impl EventBody {
    /// Its name.
    pub fn kind(&self) -> EventKind {
        match self {
            EventBody::Denied { .. } => EventKind::Denied,
            EventBody::BadSignature { .. } => EventKind::BadSignature,
            EventBody::BadMessage { .. } => EventKind::BadMessage,
            EventBody::Unattributed { .. } => EventKind::Unattributed,
            EventBody::SwitchFailed { .. } => EventKind::SwitchFailed,
            EventBody::SwitchWithoutSession { .. } => EventKind::SwitchWithoutSession,
            EventBody::MeterImplausible { .. } => EventKind::MeterImplausible,
            EventBody::ReaderLost { .. } => EventKind::ReaderLost,
            EventBody::ReaderBack { .. } => EventKind::ReaderBack,
            EventBody::UnitDown(_) => EventKind::UnitDown,
            EventBody::UnitBack(_) => EventKind::UnitBack,
            EventBody::LedgerFork { .. } => EventKind::LedgerFork,
            EventBody::StoreSetAside { .. } => EventKind::StoreSetAside,
            EventBody::CloneSuspected { .. } => EventKind::CloneSuspected,
            EventBody::ClockUnsynchronised => EventKind::ClockUnsynchronised,
            EventBody::DiskLow { .. } => EventKind::DiskLow,
            EventBody::LedgerGap { .. } => EventKind::LedgerGap,
            EventBody::AllowlistStale { .. } => EventKind::AllowlistStale,
            EventBody::EventsDropped { .. } => EventKind::EventsDropped,
        }
    }

    /// What a notice of the core says to the cloud. The UID of an unknown badge travels only with
    /// `report_unknown_uids`.
    /// `None` where the journal alone hears of it.
    pub fn from_notice(notice: &Notice, report_unknown_uids: bool) -> Option<EventBody> {
        Some(match notice {
            Notice::Denied { reader, station, reason, technology, badge, uid } => {
                let unknown = badge.is_none() && *reason == Denial::UnknownBadge;
                EventBody::Denied {
                    reader: reader.clone(),
                    station: station.clone(),
                    reason: *reason,
                    technology: *technology,
                    badge: badge.clone(),
                    uid: uid.filter(|_| unknown && report_unknown_uids).map(|uid| uid.to_string()),
                }
            }
            Notice::SwitchFailed { station } => {
                EventBody::SwitchFailed { station: station.clone() }
            }
            Notice::SwitchWithoutSession { station } => {
                EventBody::SwitchWithoutSession { station: station.clone() }
            }
            Notice::Unattributed { station, energy_wh } => {
                EventBody::Unattributed { station: station.clone(), energy_wh: *energy_wh }
            }
            Notice::MeterImplausible { station } | Notice::MeterFrozen { station, .. } => {
                EventBody::MeterImplausible { station: station.clone() }
            }
            Notice::MeterDoubted { .. } => return None,
        })
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
