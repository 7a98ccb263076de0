//! The records of the ledger: what was used, by whom, and what else must be accounted for.
//!
//! A record is a [`Stamp`] and a [`Fact`]. The store gives it its sequence number, makes its bytes
//! and chains their hash within the committing transaction; those bytes are what the cloud gets.
//! Energy is a meter's register in whole watt-hours, floor of what the meter shows.

use serde::{Deserialize, Serialize};

use crate::core::badge::Uid;
use crate::core::ids::{BadgeId, DeviceId, SessionId, StationId, UserId};
use crate::core::site::StationKind;
use crate::core::time::{Stamp, Wall};

/// A fact and when it became one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Record {
    /// When.
    pub at: Stamp,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What a record says; the tag is the record's `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the cloud contract's table of kinds")]
pub enum Fact {
    /// The daemon started.
    GatewayStarted { version: String, boot_id: String },
    /// Committed before the switch closes.
    SessionStarted(SessionStart),
    /// A part of a session's energy that lies in one 15-minute slot of UTC.
    SessionSlot {
        session: SessionId,
        slot: Wall,
        from_wh: i64,
        to_wh: i64,
        estimated: bool,
        /// Of an estimated one: it flowed at some time from here on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Wall>,
        /// Of an estimated one: by then it had flowed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
    /// The intention to end, committed before the switch opens.
    SessionEnding { session: SessionId, reason: EndReason },
    /// The session went on after something took its power.
    Interruption {
        session: SessionId,
        cause: InterruptionCause,
        register_wh_before: Option<i64>,
        register_wh_after: Option<i64>,
        outage_s: Option<u64>,
    },
    /// The whole session, so that this record alone can be billed.
    SessionEnded(SessionEnd),
    /// Energy that flowed without a session.
    Unattributed {
        station: StationId,
        meter: DeviceId,
        serial: Option<String>,
        from_wh: i64,
        to_wh: i64,
        since: Wall,
        until: Wall,
        switch: SwitchPosition,
        sessions: Vec<SessionId>,
        cause: UnattributedCause,
    },
    /// The first register seen of a meter: the accounts of the meter start here.
    MeterCommissioned(MeterChange),
    /// Another meter, or another register, took the old one's place.
    MeterReplaced(MeterChange),
    /// The wall clock became right; lets every reader correct earlier stamps of the same boot.
    ClockSet { wall: Wall, before: Wall },
    /// From here on another allowlist decides.
    AllowlistApplied { list: String, version: u64, digest: String, count: u64 },
    /// A technician blocked a badge locally, or the block ended.
    BadgeOverride { badge: Option<BadgeId>, action: OverrideAction, by: String },
    /// The first record of every epoch.
    EpochOpened {
        previous_epoch: Option<String>,
        last_seq: Option<u64>,
        last_hash: Option<String>,
        reason: EpochReason,
    },
    /// A record of the previous epoch that the cloud may not have; `record` is its stored bytes. It
    /// counts only where (epoch, carried_seq, hash) is not held already.
    Carried { epoch: String, carried_seq: u64, hash: String, record: String },
}

/// Who started what, from which register on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the fields are those of the cloud contract's table of kinds")]
pub struct SessionStart {
    pub session: SessionId,
    pub station: StationId,
    pub station_kind: StationKind,
    pub user: Option<UserId>,
    pub badge: Option<BadgeId>,
    pub authorised_by: Authority,
    pub allowlist_version: Option<u64>,
    pub meter: Option<DeviceId>,
    /// `None` where there is no meter, or where it was silent (then `missing` is set). Never 0 for
    /// "not read".
    pub register_wh: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub missing: bool,
    /// The badge that started it: lets its holder stop it, whatever the allowlist says then. Stays
    /// with the open session in the store and never travels.
    #[serde(skip)]
    pub uid: Option<Uid>,
}

/// The end of a session, with all facts of its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the fields are those of the cloud contract's table of kinds")]
pub struct SessionEnd {
    #[serde(flatten)]
    pub start: SessionStart,
    pub reason: EndReason,
    pub end_register_wh: Option<i64>,
    /// What was posted to the session; `None` when unmetered.
    pub energy_wh: Option<i64>,
    pub duration_s: u64,
    pub quality: Quality,
}

/// A meter that came, or took another's place. `old_*` is `None` at commissioning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the fields are those of the cloud contract's table of kinds")]
pub struct MeterChange {
    pub station: StationId,
    pub meter: DeviceId,
    pub old_serial: Option<String>,
    pub old_register_wh: Option<i64>,
    pub new_serial: Option<String>,
    pub new_register_wh: i64,
}

/// By what right a session started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Authority {
    Allowlist,
    Command,
    Technician,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are those of the sessions contract")]
pub enum EndReason {
    Finished,
    Tapped,
    Unplugged,
    NotUsed,
    Limit,
    Handover,
    Revoked,
    Remote,
    Technician,
    SwitchFailed,
    PowerLoss,
}

impl EndReason {
    /// The word of the cloud contract.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Finished => "finished",
            EndReason::Tapped => "tapped",
            EndReason::Unplugged => "unplugged",
            EndReason::NotUsed => "not_used",
            EndReason::Limit => "limit",
            EndReason::Handover => "handover",
            EndReason::Revoked => "revoked",
            EndReason::Remote => "remote",
            EndReason::Technician => "technician",
            EndReason::SwitchFailed => "switch_failed",
            EndReason::PowerLoss => "power_loss",
        }
    }
}

/// How a session's energy is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are those of the cloud contract")]
pub enum Quality {
    Measured,
    Estimated,
    Unmetered,
}

/// What took a session's power for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum InterruptionCause {
    PowerLoss,
    SwitchOpened,
}

impl InterruptionCause {
    /// The word of the cloud contract.
    pub fn as_str(self) -> &'static str {
        match self {
            InterruptionCause::PowerLoss => "power_loss",
            InterruptionCause::SwitchOpened => "switch_opened",
        }
    }
}

/// Why energy belongs to no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UnattributedCause {
    /// It flowed while no session was open.
    NoSession,
    /// What a machine still drew after its session had ended.
    Residue,
    /// The meter was silent across a session's boundary.
    MeterSilent,
    /// The gateway was not running.
    GatewayDown,
    /// A new epoch starts from the register now.
    Epoch,
}

/// What is known of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum SwitchPosition {
    Open,
    Closed,
}

/// What happened to a local block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum OverrideAction {
    Blocked,
    Cleared,
}

/// Why an epoch was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EpochReason {
    /// A new store.
    First,
    /// The store failed its check and was set aside.
    StoreDamaged,
    /// The cloud holds another history: this disk was rolled back or cloned.
    Fork,
}

fn is_false(flag: &bool) -> bool {
    !flag
}
