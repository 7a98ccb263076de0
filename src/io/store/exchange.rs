//! The ledger towards the cloud: batches, acknowledgements, and pruning what is acknowledged.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::ids::SessionId;
use crate::core::time::{Stamp, Wall};
use crate::io::store::books::MeterAccount;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::ledger::{Hash, Head, Ledger, signed, unsigned};
use crate::io::store::verify::{Bounds, hash_before};

/// Records in a batch, by the contract.
pub const MAX_BATCH_RECORDS: usize = 200;

/// A batch as published, by the contract.
pub const MAX_BATCH_BYTES: usize = 64 * 1024;

/// What a batch's payload takes beside its records: ids, numbers, hash and member names.
const BATCH_ENVELOPE_BYTES: usize = 256;

/// Rows that one call of prune deletes: keeps the writing thread free for commits.
const MAX_PRUNED_RECORDS: u64 = 500;

/// Consecutive records to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Names the ledger.
    pub epoch: String,
    /// Sequence number of the first record.
    pub first: u64,
    /// Sequence number of the last one.
    pub last: u64,
    /// Hash of the record before the first.
    pub previous: Hash,
    /// The stored bytes.
    pub records: Vec<String>,
}

/// What the cloud says it has stored for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `down/ack`")]
pub struct Acknowledgement {
    pub epoch: String,
    pub upto: u64,
    pub hash: Hash,
    pub issued_at: Wall,
    /// When it came here.
    pub at: Stamp,
}

/// What became of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// Taken; sending goes on after `acked`, which may lie further back than before.
    Accepted {
        /// The last record that the cloud has.
        acked: u64,
    },
    /// Taken, but the cloud lacks records that are no longer here.
    Gap {
        /// Sending goes on after this one, the last that was pruned.
        acked: u64,
    },
    /// For another ledger; ignored.
    OtherEpoch,
    /// Issued before the newest one taken; ignored.
    Older,
    /// Another history than this ledger's; ignored here.
    HashMismatch,
    /// More than was ever recorded here; ignored here.
    BeyondHead,
}

/// By whom a record must be held before it may go here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The cloud has acknowledged it.
    ByCloud,
    /// There is no cloud: it was exported.
    ByExport,
}

/// Consecutive records that were written to a file for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Names the ledger.
    pub epoch: String,
    /// The first one.
    pub from: u64,
    /// The last one.
    pub upto: u64,
}

/// Where the ledger stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest record.
    pub head: Head,
    /// The last record that the cloud has.
    pub acked: u64,
    /// The oldest record that is kept.
    pub floor: u64,
}

/// All that a checkpoint says, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Head, acknowledged, floor.
    pub standing: Standing,
    /// Sessions that run, in order of their ids.
    pub open: Vec<SessionId>,
    /// In order of their names; every one balances.
    pub meters: Vec<MeterAccount>,
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its sequence number.
    pub seq: u64,
    /// The ledger's hash there.
    pub hash: Hash,
    /// Its bytes.
    pub record: String,
}

impl Ledger {
    /// The totals; an error where any account does not balance.
    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        let books = self.books()?;
        books.check().map_err(|reason| Fault::Damaged(reason).at("add up", &self.path))?;
        Ok(Totals {
            standing: self.standing()?,
            open: books.open.into_keys().collect(),
            meters: books.meters.into_values().collect(),
        })
    }

    /// The hashes at `seqs`, in their order; `None` for one that is not kept or not there yet.
    pub(super) fn hashes(&self, seqs: &[u64]) -> Result<Vec<Option<Hash>>, StoreError> {
        let read = || -> Result<Vec<Option<Hash>>, Fault> {
            let bounds = Bounds::read(&self.connection)?;
            let kept = |seq: u64| seq <= bounds.head.seq && seq + 1 >= bounds.floor;
            let hash =
                |seq: &u64| kept(*seq).then(|| hash_before(&self.connection, seq + 1)).transpose();
            seqs.iter().map(hash).collect()
        };
        read().map_err(|fault| fault.at("read hashes of", &self.path))
    }

    /// At most `most` records from `from` on.
    pub(super) fn records(&self, from: u64, most: usize) -> Result<Vec<StoredRecord>, StoreError> {
        let read = || -> Result<Vec<StoredRecord>, Fault> {
            let mut select = self.connection.prepare_cached(
                "SELECT seq, hash, bytes FROM record WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = select.query(params![signed(from), most as i64])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                let record = String::from_utf8(row.get(2)?)
                    .map_err(|_| Fault::Damaged("a record is not UTF-8".into()))?;
                records.push(StoredRecord {
                    seq: unsigned(row.get(0)?),
                    hash: row.get(1)?,
                    record,
                });
            }
            Ok(records)
        };
        read().map_err(|fault| fault.at("read records of", &self.path))
    }

    pub(super) fn standing(&self) -> Result<Standing, StoreError> {
        let bounds = Bounds::read(&self.connection).map_err(|error| self.failed("read", error))?;
        let acked = self.unsaved_ack.map_or(bounds.acked, |(acked, _)| acked);
        Ok(Standing { head: bounds.head, acked, floor: bounds.floor })
    }

    /// The records after `after`, as many as fit; `None` where there are none.
    pub(super) fn batch(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, StoreError> {
        batch(&self.connection, after, max_records, max_bytes)
            .map_err(|fault| fault.at("read records of", &self.path))
    }

    pub(super) fn acknowledge(&mut self, ack: &Acknowledgement) -> Result<AckOutcome, StoreError> {
        let newest = self.acknowledged_at()?;
        let outcome = judge(&self.connection, ack, newest)
            .map_err(|fault| fault.at("acknowledge records of", &self.path))?;
        if let AckOutcome::Accepted { acked } | AckOutcome::Gap { acked } = outcome {
            self.unsaved_ack = Some((acked, ack.issued_at));
        }
        Ok(outcome)
    }

    /// Puts the newest acknowledgement on disk, if it is not there yet.
    pub(super) fn keep_acknowledgement(&mut self) -> Result<(), StoreError> {
        match self.unsaved_ack {
            Some(_) => self.within_transaction("acknowledge records of", |_| Ok(())),
            None => Ok(()),
        }
    }

    /// When the cloud issued the newest acknowledgement.
    pub(super) fn acknowledged_at(&self) -> Result<Option<Wall>, StoreError> {
        if let Some((_, at)) = self.unsaved_ack {
            return Ok(Some(at));
        }
        issued_at(&self.connection).map_err(|error| self.failed("read", error))
    }

    /// Records `from` to `upto` were written to a file for good. False where they are of another
    /// epoch, or leave a gap behind those that were exported before: that changes nothing.
    pub(super) fn note_exported(&mut self, export: &Export) -> Result<bool, StoreError> {
        self.within_transaction("note an export of", |transaction| {
            let bounds = Bounds::read(transaction)?;
            let exported = exported(transaction)?;
            let follows = export.from <= bounds.floor.max(exported + 1);
            if export.epoch != bounds.head.epoch || !follows || export.upto > bounds.head.seq {
                return Ok(false);
            }
            let sql = "UPDATE ledger SET exported = max(exported, ?1)";
            transaction.execute(sql, [signed(export.upto)])?;
            Ok(true)
        })
    }

    /// Deletes `settled` records that are older than `retention`; returns how many. More may be
    /// left where it is the most that one call deletes. An untrustworthy clock deletes none.
    pub(super) fn prune(
        &mut self,
        retention: Duration,
        settled: Settled,
        now: Stamp,
    ) -> Result<u64, StoreError> {
        if !now.synced {
            return Ok(0);
        }
        let age = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let before = Wall(now.wall.0.saturating_sub(age));
        self.within_transaction("prune", |transaction| {
            let bounds = Bounds::read(transaction)?;
            let settled = match settled {
                Settled::ByCloud => bounds.acked,
                Settled::ByExport => exported(transaction)?,
            };
            let Some(last) = last_older_than(transaction, &bounds, settled, before)? else {
                return Ok(0);
            };
            let hash = hash_before(transaction, last + 1)?;
            transaction.execute("DELETE FROM record WHERE seq <= ?1", [signed(last)])?;
            // A cloud that comes later gets what is left.
            transaction.execute(
                "UPDATE ledger SET floor = ?1 + 1, floor_hash = ?2, acked = max(acked, ?1)",
                params![signed(last), hash],
            )?;
            Ok(last + 1 - bounds.floor)
        })
    }
}

fn batch(
    connection: &Connection,
    after: u64,
    max_records: usize,
    max_bytes: usize,
) -> Result<Option<Batch>, Fault> {
    let bounds = Bounds::read(connection)?;
    let first = bounds.floor.max(after.saturating_add(1));
    if first > bounds.head.seq {
        return Ok(None);
    }
    let mut room = max_bytes.min(MAX_BATCH_BYTES).saturating_sub(BATCH_ENVELOPE_BYTES);
    let limit = max_records.clamp(1, MAX_BATCH_RECORDS) as i64;
    let mut records: Vec<String> = Vec::new();
    let mut select = connection
        .prepare_cached("SELECT bytes FROM record WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = select.query(params![signed(first), limit])?;
    while let Some(row) = rows.next()? {
        let record = String::from_utf8(row.get(0)?)
            .map_err(|_| Fault::Damaged("a record is not UTF-8".into()))?;
        let bytes = bytes_in_batch(&record);
        // A single record always fits the contract's bound, and must not stop the others.
        if bytes > room && !records.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes);
        records.push(record);
    }
    let previous = hash_before(connection, first)?;
    let last = first + records.len() as u64 - 1;
    Ok(Some(Batch { epoch: bounds.head.epoch, first, last, previous, records }))
}

/// Quotes, comma, and a backslash before each quote and backslash; a record has nothing else that
/// JSON escapes.
fn bytes_in_batch(record: &str) -> usize {
    let escaped = record.bytes().filter(|b| matches!(b, b'"' | b'\\')).count();
    record.len() + escaped + 3
}

/// The same one again, as with every connection, writes nothing.
pub(super) fn save_ack(connection: &Connection, (acked, at): (u64, Wall)) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE ledger SET acked = ?1, ack_issued_at = ?2
             WHERE acked <> ?1 OR ack_issued_at IS NOT ?2",
        )?
        .execute(params![signed(acked), at.0])
        .map(drop)
}

fn judge(
    connection: &Connection,
    ack: &Acknowledgement,
    newest: Option<Wall>,
) -> Result<AckOutcome, Fault> {
    let bounds = Bounds::read(connection)?;
    // What a trustworthy clock contradicts was accepted before there was one.
    let newest = newest.filter(|newest| !ack.at.contradicts(*newest));
    if ack.epoch != bounds.head.epoch {
        return Ok(AckOutcome::OtherEpoch);
    }
    if newest.is_some_and(|newest| ack.issued_at < newest) {
        return Ok(AckOutcome::Older);
    }
    if ack.upto > bounds.head.seq {
        return Ok(AckOutcome::BeyondHead);
    }
    if ack.upto + 1 < bounds.floor {
        return Ok(AckOutcome::Gap { acked: bounds.floor - 1 });
    }
    if hash_before(connection, ack.upto + 1)? != ack.hash {
        return Ok(AckOutcome::HashMismatch);
    }
    Ok(AckOutcome::Accepted { acked: ack.upto })
}

fn exported(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT exported FROM ledger", [], |row| row.get(0)).map(unsigned)
}

fn issued_at(connection: &Connection) -> rusqlite::Result<Option<Wall>> {
    let sql = "SELECT ack_issued_at FROM ledger";
    connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map(|at| at.map(Wall))
}

/// The last record that one call may delete. A record whose clock was wrong is as old as the next
/// one whose clock was right.
fn last_older_than(
    connection: &Connection,
    bounds: &Bounds,
    settled: u64,
    before: Wall,
) -> Result<Option<u64>, Fault> {
    let mut next_trusted = connection.prepare_cached(
        "SELECT seq, trusted_wall FROM record WHERE seq >= ?1 AND trusted_wall IS NOT NULL
         ORDER BY seq LIMIT 1",
    )?;
    let most = settled.min(bounds.floor + MAX_PRUNED_RECORDS - 1);
    let mut last = None;
    let mut from = bounds.floor;
    while from <= most {
        let found: Option<(i64, i64)> = next_trusted
            .query_row([signed(from)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((seq, wall)) = found else { break };
        if Wall(wall) >= before {
            break;
        }
        last = Some(unsigned(seq).min(most));
        from = unsigned(seq) + 1;
    }
    Ok(last)
}
