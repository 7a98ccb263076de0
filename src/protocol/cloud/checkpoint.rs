//! `up/checkpoint`: signed totals, from which anyone can tell whether ledger and cloud agree.

use serde::{Deserialize, Serialize};

use super::{Hash, hash_hex};
use crate::core::ids::{DeviceId, SessionId};
use crate::core::time::Stamp;

/// The payload of the JWS on `up/checkpoint`, retained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Checkpoint {
    /// The gateway's id.
    pub gw: String,
    /// Always `checkpoint`.
    pub typ: CheckpointType,
    /// When it was made.
    pub at: Stamp,
    /// The ledger's database.
    pub epoch: String,
    /// Last record.
    pub head: u64,
    /// The ledger's hash there.
    #[serde(with = "hash_hex")]
    #[cfg_attr(test, schemars(with = "super::schema::Hash"))]
    pub hash: Hash,
    /// Last record that the cloud stored for good.
    pub acked: u64,
    /// Oldest record that is kept here.
    pub floor: u64,
    /// Sessions that run.
    pub open: Vec<SessionId>,
    /// The accounts of every meter.
    pub meters: Vec<MeterTotals>,
}

/// What kind of signed message it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckpointType {
    /// The only one.
    #[default]
    Checkpoint,
}

/// One meter: `last − first = sessions + open + unattributed (+ replaced)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MeterTotals {
    /// Which meter.
    pub meter: DeviceId,
    /// Its own serial number, where it tells one.
    pub serial: Option<String>,
    /// Register at commissioning in this epoch.
    pub first_wh: i64,
    /// Register up to which everything is posted.
    pub last_wh: i64,
    /// Posted to sessions that have ended.
    pub sessions_wh: i64,
    /// Posted to sessions that run.
    pub open_wh: i64,
    /// Posted to nobody.
    pub unattributed_wh: i64,
    /// Sum of the register's jumps at replacements, where there were any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced_wh: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
