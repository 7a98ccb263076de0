//! The cloud contract, version 1: what travels over MQTT between a gateway and its cloud.
//!
//! Payloads are UTF-8 JSON with integers within ±(2^53−1) and no floats; hashes are lower-case
//! hex. A payload that comes down is read strictly: a missing or mistyped member is an error,
//! unknown members are ignored.

mod checkpoint;
pub mod command;
mod event;
#[cfg(test)]
mod schema;
mod topics;

use serde::{Deserialize, Serialize, Serializer};

use crate::core::event::Allowlist;
use crate::core::site::StationKind;
use crate::core::time::Wall;
use crate::protocol::json;

pub use checkpoint::{Checkpoint, CheckpointType, MeterTotals};
pub use command::{CommandReply, ReplyStatus};
pub use event::{EventBody, EventKind, EventMessage, UnitEvent};
pub use topics::{Down, Topics};

pub use crate::core::view::State as StationStatus;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Every integer of the contract fits into a JSON number of any implementation.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Largest payload in either direction, and largest retained list head (AWS, Azure and small
/// brokers take this much).
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// Largest retained payload that goes up.
pub const MAX_RETAINED_BYTES: usize = 32 * 1024;
/// Largest number of ledger records in one batch.
pub const MAX_BATCH_RECORDS: usize = 200;
/// Batches that may be on their way without an acknowledgement by the cloud.
pub const MAX_OPEN_BATCHES: usize = 8;

/// `up/state`, retained: what the gateway is, published on every connect and on change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Grows with every connection.
    pub conn: u64,
    /// Random per connection; commands name it.
    pub nonce: String,
    /// The ledger's database.
    pub epoch: String,
    /// Last record.
    pub head: u64,
    /// Last record that the cloud stored for good.
    pub acked: u64,
    /// What the link does not know by itself.
    pub local: LocalState,
}

/// The part of [`State`] that the daemon knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalState {
    /// Counts kernel boots.
    pub boot: u32,
    /// Of the program.
    pub version: String,
    /// Which allowlist decides; `None` without a list.
    pub allowlist: Option<AllowlistStanding>,
    /// Whether wall times can be trusted.
    pub clock: ClockState,
    /// The gateway's own Ed25519 key, base64url.
    pub public_key: Option<String>,
    /// What is wrong at present.
    pub alarms: Vec<EventKind>,
}

/// Whether the wall clock was synchronised in this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum ClockState {
    Synced,
    Unsynced,
}

/// [`State`] as it travels.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct StateWire<'a> {
    online: bool,
    conn: u64,
    boot: u32,
    version: &'a str,
    epoch: &'a str,
    head: u64,
    acked: u64,
    allowlist: Option<&'a AllowlistStanding>,
    clock: ClockState,
    nonce: &'a str,
    public_key: Option<&'a str>,
    alarms: &'a [EventKind],
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let local = &self.local;
        StateWire {
            online: true,
            conn: self.conn,
            boot: local.boot,
            version: &local.version,
            epoch: &self.epoch,
            head: self.head,
            acked: self.acked,
            allowlist: local.allowlist.as_ref(),
            clock: local.clock,
            nonce: &self.nonce,
            public_key: local.public_key.as_deref(),
            alarms: &local.alarms,
        }
        .serialize(serializer)
    }
}

/// The last will on `up/state`, also published by a clean stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Offline {
    online: bool,
    conn: u64,
}

impl Offline {
    /// The will of connection `conn`.
    pub fn new(conn: u64) -> Offline {
        Offline { online: false, conn }
    }
}

/// Where the gateway stands with its allowlist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the names are the contract's")]
pub struct AllowlistStanding {
    pub list: String,
    pub version: u64,
    pub digest: String,
    pub count: u64,
}

impl From<&Allowlist> for AllowlistStanding {
    fn from(allowlist: &Allowlist) -> Self {
        AllowlistStanding {
            list: allowlist.list.clone(),
            version: allowlist.version,
            digest: allowlist.digest.clone(),
            count: allowlist.count,
        }
    }
}

/// `up/station/{station}`, retained: what a portal shows. Names no user and no badge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the names are the contract's")]
pub struct StationState {
    pub state: StationStatus,
    pub since: Wall,
    pub kind: StationKind,
    pub label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `up/usage`: consecutive records of the ledger, as the very bytes that are stored and hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UsageBatch {
    /// The ledger's database.
    pub epoch: String,
    /// Sequence number of the first record.
    pub first: u64,
    /// Sequence number of the last record.
    pub last: u64,
    /// Hash of the record before the first.
    #[serde(with = "hash_hex")]
    #[cfg_attr(test, schemars(with = "schema::Hash"))]
    pub prev: Hash,
    /// Each record as a JSON string.
    pub records: Vec<String>,
    /// Whether the cloud asked for it again with `ledger.replay`.
    pub replay: bool,
}

/// `down/ack`, retained: everything up to `upto` is stored for good by the cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ack {
    /// The ledger's database.
    #[serde(deserialize_with = "uuid_text")]
    #[cfg_attr(test, schemars(with = "schema::Uuid"))]
    pub epoch: String,
    /// Last record stored; 0 where none is.
    #[serde(deserialize_with = "bounded")]
    pub upto: u64,
    /// The ledger's hash there.
    #[serde(with = "hash_hex")]
    #[cfg_attr(test, schemars(with = "schema::Hash"))]
    pub hash: Hash,
    /// When the cloud said so; an older one than the newest accepted says nothing.
    pub issued_at: Wall,
}

impl Ack {
    /// Reads a payload; the error says which member is wrong.
    pub fn parse(payload: &[u8]) -> Result<Ack, String> {
        let value = json::parse_object(payload).map_err(|error| error.to_string())?;
        serde_json::from_value(value).map_err(|error| error.to_string())
    }
}

/// `up/allowlist`: what is needed of a list, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AllowlistReport {
    /// Chunks that are missing.
    Get {
        /// At most 8 parts at a time.
        get: Vec<PartRequest>,
    },
    /// This list decides now.
    Applied {
        /// Which.
        applied: AllowlistStanding,
    },
    /// The old list stays.
    Refused {
        /// Why.
        refused: Refusal,
        /// Which list decides.
        current: Option<AllowlistStanding>,
    },
}

/// A part of a list that is not whole here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartRequest {
    /// Its name.
    pub sha256: String,
    /// First missing chunk.
    pub from: u64,
}

/// Why a list was refused. The detail names no UID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Refusal {
    /// Of the refused list, where it could be read.
    pub version: Option<u64>,
    /// The contract's word, such as `digest_mismatch`.
    pub reason: String,
    /// What exactly, and where.
    pub detail: String,
}

/// Hashes as lower-case hex, nothing else.
mod hash_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let mut hash = [0; 32];
        let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !lower || hex::decode_to_slice(&text, &mut hash).is_err() {
            return Err(D::Error::custom("a hash is 64 digits of lower-case hex"));
        }
        Ok(hash)
    }
}

fn bounded<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(from)?;
    if number > MAX_INTEGER {
        return Err(serde::de::Error::custom("an integer is at most 2^53-1"));
    }
    Ok(number)
}

fn uuid_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match uuid::Uuid::parse_str(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(serde::de::Error::custom("an epoch is a UUID")),
    }
}

#[cfg(test)]
mod tests;
