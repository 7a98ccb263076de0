//! What commands and the daemon say to each other over the control socket: one JSON object a line
//! each way, one request a connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::ids::{BusId, ReaderId, StationId};
use crate::core::time::Wall;
use crate::core::view::StationView;
pub use crate::protocol::badges::{BadgeReply, BadgeRequest, ReadersReport, Taps};
pub use crate::protocol::field::{BusAnswer, BusFailure, BusOrder, FailureKind, StationTest};
use crate::protocol::figures::Figures;
use crate::protocol::lists::{ListReply, ListRequest, MAX_IMPORT_HEAD_BYTES};
pub use crate::protocol::maintenance::{Maintenance, NOTE_MAX_CHARS};
use crate::protocol::watch::TapStatus;

/// Longest request line: the head of a list that is imported, with its quotes escaped.
pub const REQUEST_MAX_BYTES: usize = 2 * MAX_IMPORT_HEAD_BYTES;
/// Longest answer line: a site of 64 stations takes some 40 KiB.
pub const REPLY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long the daemon waits for a card before it answers that there was none.
pub const TAP_PATIENCE: Duration = Duration::from_secs(20);

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything that `tapgate status` shows. The braces make serde refuse unknown members.
    Status {},
    /// One request to one unit of a bus, after all that the gateway itself has to do there.
    Bus {
        /// Which bus.
        bus: BusId,
        /// The unit id.
        unit: u8,
        /// What to ask or write.
        order: BusOrder,
    },
    /// Closes the station's switch for two seconds, on record.
    TestStation {
        /// Which.
        station: StationId,
    },
    /// What a technician wants done to a station or session, on record.
    Maintenance {
        /// What.
        order: Maintenance,
    },
    /// About the allowlist.
    Allowlist {
        /// What.
        ask: ListRequest,
    },
    /// From now on everything that happens, see [`crate::protocol::watch`], until the command
    /// hangs up.
    Watch {},
    /// Take over what the config file says now.
    Reload {},
    /// About a badge.
    Badge {
        /// What.
        ask: BadgeRequest,
    },
    /// The readers of the config and those that pcscd lists.
    Readers {},
    /// The cards that are presented from now on: answered at the next one, or with none after a
    /// while.
    NextTap {
        /// The number that the answer before named; `None` to begin.
        after: Option<u64>,
    },
    /// A page of the ledger, from this record on.
    LedgerRecords {
        /// The first one; one beyond the head asks for the bounds alone.
        from: u64,
    },
    /// These records are in a file for good.
    LedgerExported {
        /// The ledger's database.
        epoch: String,
        /// The first one.
        from: u64,
        /// The last one.
        upto: u64,
    },
    /// Check the whole ledger.
    LedgerVerify {},
    /// Who the gateway is to its cloud.
    Identity {},
}

impl Request {
    /// How long the daemon may take for the answer.
    pub fn patience(&self) -> Duration {
        match self {
            Request::Status {}
            | Request::Watch {}
            | Request::Reload {}
            | Request::Badge { .. }
            | Request::Allowlist { .. }
            | Request::LedgerRecords { .. }
            | Request::LedgerExported { .. }
            | Request::Identity {} => Duration::from_secs(5),
            Request::LedgerVerify {} => LEDGER_PATIENCE,
            // A reader's driver may take its time to tell its serial number.
            Request::Readers {} => Duration::from_secs(10),
            Request::NextTap { .. } => TAP_PATIENCE + Duration::from_secs(5),
            // A slow device's time-out is 10 s at most, behind one of another unit.
            Request::Bus { .. } => Duration::from_secs(25),
            // Start register, then closing with two more tries.
            Request::Maintenance { .. } => Duration::from_secs(25),
            // Start register, closing with two more tries, two seconds, end register.
            Request::TestStation { .. } => Duration::from_secs(45),
        }
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Bus`].
    Bus(BusAnswer),
    /// To [`Request::Bus`] that brought no answer that can be used.
    BusFailed(BusFailure),
    /// To [`Request::TestStation`].
    StationTest(Box<StationTest>),
    /// To [`Request::Allowlist`].
    List(ListReply),
    /// To [`Request::LedgerRecords`].
    LedgerRecords(LedgerPage),
    /// To [`Request::LedgerVerify`].
    LedgerVerified(LedgerVerified),
    /// To [`Request::Identity`].
    Identity {
        /// The gateway's id.
        gateway: String,
        /// Its Ed25519 key, base64url.
        public_key: String,
    },
    /// To [`Request::Watch`]; events follow, a line each.
    Watching {},
    /// To a request that changed something; says what.
    Done(String),
    /// To [`Request::Badge`].
    Badge(BadgeReply),
    /// To [`Request::Readers`].
    Readers(Box<ReadersReport>),
    /// To [`Request::NextTap`].
    Taps(Taps),
    /// What the request names does not exist; says what does.
    Unknown(String),
    /// The store failed; nothing was changed.
    Storage(String),
    /// The request cannot be served; says why and what to do.
    Error(String),
}

/// Records in one page: with the longest ones it stays below [`REPLY_MAX_BYTES`].
pub const LEDGER_PAGE: usize = 100;

/// A slow card reads some thousand records a second.
const LEDGER_PATIENCE: Duration = Duration::from_secs(600);

/// Consecutive records of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the cloud contract")]
pub struct LedgerPage {
    pub epoch: String,
    pub head: u64,
    pub acked: u64,
    pub floor: u64,
    pub records: Vec<LedgerRecord>,
}

/// One record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the cloud contract")]
pub struct LedgerRecord {
    pub seq: u64,
    pub hash: String,
    pub record: String,
}

/// What a check of the ledger found whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerified {
    /// Always true; a damaged ledger is an error.
    pub whole: bool,
    /// The ledger's database.
    pub epoch: String,
    /// Records whose hash was computed anew.
    pub records: u64,
    /// The last one.
    pub head: u64,
    /// The hash there.
    pub hash: String,
    /// Whether the accounts were rebuilt from the records and compared.
    pub accounts_rebuilt: bool,
}

/// The gateway at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's id.
    pub gateway: String,
    /// Version of the daemon.
    pub version: String,
    /// Counts kernel boots.
    pub boot: u32,
    /// Since the daemon started.
    pub running_s: u64,
    /// `synced` or `unsynced`.
    pub clock: String,
    /// In config order.
    pub stations: Vec<StationView>,
    /// In config order.
    pub readers: Vec<ReaderStatus>,
    /// In config order.
    #[serde(default)]
    pub buses: Vec<BusStatus>,
    /// Every unit of every bus, in config order.
    pub devices: Vec<DeviceStatus>,
    /// Null on a stand-alone site.
    pub cloud: Option<CloudStatus>,
    /// Null as long as there is no list.
    pub allowlist: Option<AllowlistStatus>,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// The last taps since the daemon started, the newest first.
    #[serde(default)]
    pub taps: Vec<TapStatus>,
    /// What a technician should look at, each with its next step.
    pub alarms: Vec<String>,
}

/// A reader as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderStatus {
    /// Its name in the config.
    pub reader: ReaderId,
    /// `ready`, `missing` or `ambiguous`.
    pub state: String,
    /// The PC/SC name it is bound to, or why there is none.
    pub detail: String,
}

/// A bus as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusStatus {
    /// Its name in the config.
    pub bus: String,
    /// Why it cannot be opened, and what to do; null while it can.
    pub error: Option<String>,
    /// What it has done, all its units together.
    #[serde(flatten)]
    pub figures: Figures,
}

/// A unit on a bus as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// The bus's name in the config.
    pub bus: String,
    /// The unit id.
    pub unit: u8,
    /// The device's name in the config.
    pub device: String,
    /// `unknown`, `ok`, `suspect` or `down`.
    pub state: String,
    /// What it has done; its load is its share of the bus's.
    #[serde(flatten)]
    pub figures: Figures,
    /// Time of the last answer in milliseconds.
    pub latency_ms: Option<u64>,
    /// The last failure.
    pub last_error: Option<String>,
    /// What it refuses of all that stations live by, though it answers.
    #[serde(default)]
    pub trouble: Option<String>,
}

impl DeviceStatus {
    /// What is wrong with it now.
    pub fn complaint(&self) -> Option<&str> {
        let silent = self.last_error.as_deref().filter(|_| self.state != "ok");
        silent.or(self.trouble.as_deref())
    }
}

/// The link to the cloud as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudStatus {
    /// Whether the broker is connected.
    pub connected: bool,
    /// The broker's address.
    pub broker: String,
    /// Connections ever made.
    pub conn: u64,
    /// Why it is not connected.
    pub last_error: Option<String>,
    /// Events that wait for the broker.
    #[serde(default)]
    pub events_waiting: u64,
    /// Events that were dropped because the link was away for long.
    pub events_dropped: u64,
    /// Since how many seconds it is connected.
    pub connected_s: Option<u64>,
    /// How many seconds ago the cloud acknowledged records; null where it has not since the start.
    pub last_ack_s: Option<u64>,
    /// How many seconds ago another client seemed to use this gateway's id.
    pub clone_suspected_s: Option<u64>,
    /// Certificates are judged by no earlier time.
    pub clock_floor: Wall,
}

/// The allowlist as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the cloud contract")]
pub struct AllowlistStatus {
    pub list: String,
    pub version: u64,
    pub digest: String,
    pub count: u64,
}

/// The ledger as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the cloud contract")]
pub struct LedgerStatus {
    pub epoch: String,
    pub head: u64,
    pub acked: u64,
    /// Records that the cloud has not stored yet.
    pub unacknowledged: u64,
    /// Records that could not be written yet: the disk is full or broken.
    pub unsaved: u64,
}
