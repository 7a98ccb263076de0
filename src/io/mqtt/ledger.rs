//! What the link needs of the ledger, wherever that is kept.

use std::future::Future;

use crate::protocol::cloud::{Ack, Hash};

/// The ledger as the link sees it. All calls may wait for the disk; the link waits with them, the
/// daemon's event loop does not.
pub trait Ledger: Send + 'static {
    /// Where the ledger stands.
    fn standing(&self) -> impl Future<Output = Result<Standing, LedgerError>>;

    /// Consecutive records from `after + 1` on: at most `max_records`, and at most `max_bytes` of
    /// record bytes unless the first alone is longer. `None` where there is no such record.
    fn batch(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Option<Batch>, LedgerError>>;

    /// Judges an acknowledgement and remembers it on disk where it is accepted.
    fn acknowledge(&self, ack: Ack) -> impl Future<Output = Result<AckOutcome, LedgerError>>;

    /// A number higher than every one before, on disk before it returns. It need not be the next
    /// one: reserving a block of them spares writes while the broker is away.
    fn next_connection(&self) -> impl Future<Output = Result<u64, LedgerError>>;

    /// The signed totals as of now: a JWS in compact form.
    fn checkpoint(&self) -> impl Future<Output = Result<String, LedgerError>>;

    /// The broker has taken this reply to command `id`: a restart need not send it again.
    fn reply_delivered(
        &self,
        id: String,
        reply: String,
    ) -> impl Future<Output = Result<(), LedgerError>>;
}

/// Where the ledger stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The ledger's database.
    pub epoch: String,
    /// Last record; 0 where there is none.
    pub head: u64,
    /// Last record that the cloud stored for good.
    pub acked: u64,
}

/// Consecutive records of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The ledger's database.
    pub epoch: String,
    /// Sequence number of the first record.
    pub first: u64,
    /// Hash of the record before it.
    pub prev: Hash,
    /// The records' bytes, at least one.
    pub records: Vec<String>,
}

/// What became of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// The cloud holds everything up to here: forward, backward or where it was.
    Accepted {
        /// Last record that it holds.
        acked: u64,
    },
    /// The cloud wants records that are no longer kept: it gets what there is.
    BelowFloor {
        /// Last record that the cloud holds.
        upto: u64,
        /// Sent again from here.
        floor: u64,
    },
    /// An older `issued_at` than the newest accepted, or another epoch.
    Ignored,
    /// Beyond the head, or another hash: this disk was rolled back or cloned.
    Fork,
}

/// The ledger did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the ledger cannot {operation}: {reason}; look for disk errors in the journal")]
pub struct LedgerError {
    /// What was asked.
    pub operation: &'static str,
    /// Why not.
    pub reason: String,
}
