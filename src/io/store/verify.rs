//! Whether the ledger is whole: sequence, chain, and every watt-hour in one account.

use rusqlite::{Connection, OptionalExtension, params};

use crate::core::ledger::{EpochReason, Fact, Record};
use crate::io::store::accounts;
use crate::io::store::books::Books;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::ledger::{self, Hash, Head, Ledger, signed, unsigned};

/// Records that one job looks at: a few milliseconds, so that a commit never waits long for it.
const RECORDS_PER_JOB: u64 = 200;

/// Newest records whose chain is computed anew at every start: what a power cut may have touched.
const RECORDS_AT_START: u64 = 200;

/// What was found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Records whose hash was computed anew.
    pub records: u64,
    /// Up to here.
    pub head: Head,
    /// Whether the accounts were rebuilt from the records and compared. Once old records are
    /// pruned, and in an epoch that took accounts over, only their balance can be checked.
    pub accounts_rebuilt: bool,
}

/// How far a verification has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The next record and the hash before it; `None` before the first job.
    next: Option<(u64, Hash)>,
    /// The accounts rebuilt so far; `None` where the ledger no longer starts at its first record.
    books: Option<Books>,
    records: u64,
}

/// What a job came to.
pub(super) enum Verdict {
    More(Progress),
    Whole(Verification),
}

impl Ledger {
    /// Goes on with a verification.
    pub(super) fn verify_some(&self, progress: Progress) -> Result<Verdict, StoreError> {
        verify_some(&self.connection, progress).map_err(|fault| fault.at("verify", &self.path))
    }
}

/// What is checked at every start: the newest records and all balances.
pub(super) fn at_start(connection: &Connection) -> Result<(), Fault> {
    let bounds = Bounds::read(connection)?;
    let (count, first, last): (i64, Option<i64>, Option<i64>) =
        connection.query_row("SELECT count(*), min(seq), max(seq) FROM record", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let (head, floor) = (bounds.head.seq, bounds.floor);
    let kept = (head + 1).checked_sub(floor);
    let gapless = kept == Some(unsigned(count))
        && (count == 0 || (first, last) == (Some(signed(floor)), Some(signed(head))));
    if !gapless {
        return Err(Fault::Damaged(format!("records {floor} to {head} are not all there")));
    }
    let from = floor.max((head + 1).saturating_sub(RECORDS_AT_START));
    let mut next = (from, hash_before(connection, from)?);
    check_chain(connection, &mut next, RECORDS_AT_START, |_| Ok(()))?;
    check_end(&bounds, next)?;
    accounts::load(connection)?.check().map_err(Fault::Damaged)
}

fn verify_some(connection: &Connection, mut progress: Progress) -> Result<Verdict, Fault> {
    let bounds = Bounds::read(connection)?;
    let mut next = match progress.next {
        Some(next) if next.0 >= bounds.floor => next,
        // The first job, or the records were pruned meanwhile.
        Some(_) | None => {
            progress.books = starts_empty(connection, &bounds)?.then(Books::default);
            (bounds.floor, bounds.floor_hash)
        }
    };
    let from = next.0;
    let books = &mut progress.books;
    check_chain(connection, &mut next, RECORDS_PER_JOB, |record| match books {
        Some(books) => books.post(record.at, &record.fact).map_err(Fault::Damaged),
        None => Ok(()),
    })?;
    progress.records += next.0 - from;
    progress.next = Some(next);
    // Where there is no record any more, the end must be the head.
    if next.0 <= bounds.head.seq && next.0 > from {
        return Ok(Verdict::More(progress));
    }
    check_end(&bounds, next)?;
    check_accounts(connection, progress.books.as_ref())?;
    Ok(Verdict::Whole(Verification {
        records: progress.records,
        head: bounds.head,
        accounts_rebuilt: progress.books.is_some(),
    }))
}

/// Whether the kept records alone give the accounts: from the first record of an epoch that took
/// nothing over.
fn starts_empty(connection: &Connection, bounds: &Bounds) -> Result<bool, Fault> {
    if bounds.floor > 1 {
        return Ok(false);
    }
    let first: Option<Vec<u8>> = connection
        .query_row("SELECT bytes FROM record WHERE seq = 1", [], |row| row.get(0))
        .optional()?;
    let first = first.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
    Ok(first.is_some_and(|record| match record.fact {
        Fact::EpochOpened { reason, .. } => reason == EpochReason::First,
        _ => false,
    }))
}

/// Follows the chain over at most `limit` records from `next` on.
fn check_chain(
    connection: &Connection,
    next: &mut (u64, Hash),
    limit: u64,
    mut each: impl FnMut(Record) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut select = connection.prepare_cached(
        "SELECT seq, hash, bytes FROM record WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = select.query(params![signed(next.0), signed(limit)])?;
    while let Some(row) = rows.next()? {
        let (seq, previous) = *next;
        let bytes = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let hash = ledger::link(&previous, bytes);
        if unsigned(row.get(0)?) != seq || row.get::<_, Hash>(1)? != hash {
            return Err(Fault::Damaged(format!("the chain breaks at record {seq}")));
        }
        let record = serde_json::from_slice(bytes)
            .map_err(|error| Fault::Damaged(format!("record {seq}: {error}")))?;
        each(record)?;
        *next = (seq + 1, hash);
    }
    Ok(())
}

fn check_end(bounds: &Bounds, next: (u64, Hash)) -> Result<(), Fault> {
    if next == (bounds.head.seq + 1, bounds.head.hash) {
        return Ok(());
    }
    Err(Fault::Damaged(format!("the chain ends before record {}", bounds.head.seq)))
}

fn check_accounts(connection: &Connection, rebuilt: Option<&Books>) -> Result<(), Fault> {
    let mut kept = accounts::load(connection)?;
    kept.check().map_err(Fault::Damaged)?;
    let Some(rebuilt) = rebuilt else { return Ok(()) };
    for session in kept.open.values_mut() {
        // It is in no record.
        session.start.uid = None;
    }
    if kept == *rebuilt {
        return Ok(());
    }
    Err(Fault::Damaged("the accounts are not those that the records give".into()))
}

/// The one row of `ledger`.
pub(super) struct Bounds {
    pub(super) head: Head,
    pub(super) floor: u64,
    pub(super) floor_hash: Hash,
    pub(super) acked: u64,
}

impl Bounds {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Bounds> {
        let head = ledger::head(connection)?;
        connection.prepare_cached("SELECT floor, floor_hash, acked FROM ledger")?.query_row(
            [],
            |row| {
                Ok(Bounds {
                    head,
                    floor: unsigned(row.get(0)?),
                    floor_hash: row.get(1)?,
                    acked: unsigned(row.get(2)?),
                })
            },
        )
    }
}

/// The hash of the record before `seq`, which is kept where that record is not.
pub(super) fn hash_before(connection: &Connection, seq: u64) -> Result<Hash, Fault> {
    let bounds = Bounds::read(connection)?;
    if seq <= bounds.floor {
        return Ok(bounds.floor_hash);
    }
    let hash = connection
        .prepare_cached("SELECT hash FROM record WHERE seq = ?1")?
        .query_row([signed(seq - 1)], |row| row.get(0))
        .optional()?;
    hash.ok_or_else(|| Fault::Damaged(format!("record {} is missing", seq - 1)))
}
