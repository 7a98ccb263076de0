//! The ledger database: records, their chain, and the accounts that they post to, in one
//! transaction.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use crate::core::ledger::{EpochReason, Fact, Record};
use crate::core::memo::Memo;
use crate::core::time::{Stamp, Wall};
use crate::io::store::books::Books;
use crate::io::store::epoch::{self, Succession};
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::notebook::Notebook;
use crate::io::store::salvage::Remains;
use crate::io::store::{accounts, database, exchange, schema, verify};

/// A record's stored bytes.
pub const MAX_RECORD_BYTES: usize = 4 * 1024;

/// A record that holds another one as a JSON string, whose quotes are escaped.
const MAX_CARRIED_BYTES: usize = 3 * MAX_RECORD_BYTES;

/// Separates the chain's hashes from all others.
const CHAIN_TAG: &[u8; 16] = b"tapgate-ledger-1";

/// A link of the chain.
pub type Hash = [u8; 32];

/// The hash before the first record.
pub(super) const ORIGIN: Hash = [0; 32];

/// The newest record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Names the ledger database.
    pub epoch: String,
    /// Its sequence number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What an epoch follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) epoch: Option<String>,
    pub(super) last: Option<(u64, Hash)>,
}

/// The one connection to the ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// The accounts as they are on disk: this connection is the only one. `None` where they must be
    /// read first, at the start and after every failure.
    books: Option<Books>,
    pub(super) notebook: Notebook,
    /// The newest acknowledgement, where it is not on disk yet: it goes there with whatever is
    /// written next (decision 0024).
    pub(super) unsaved_ack: Option<(u64, Wall)>,
}

impl Ledger {
    /// Opens and checks the database. It may be without an epoch yet.
    pub(super) fn open(path: &Path) -> Result<Ledger, StoreError> {
        let connection = database::open(path, &schema::LEDGER)?;
        let ledger = Ledger {
            connection,
            path: path.to_path_buf(),
            books: None,
            notebook: Notebook::default(),
            unsaved_ack: None,
        };
        if ledger.head()?.is_some() {
            let checked = verify::at_start(&ledger.connection);
            checked.map_err(|fault| fault.at("check", path))?;
        }
        Ok(ledger)
    }

    /// A ledger that is only read.
    pub(super) fn at_rest(connection: Connection, path: &Path) -> Ledger {
        let (path, notebook) = (path.to_path_buf(), Notebook::default());
        Ledger { connection, path, books: None, notebook, unsaved_ack: None }
    }

    /// The newest record; `None` before an epoch is opened.
    pub(super) fn head(&self) -> Result<Option<Head>, StoreError> {
        head(&self.connection).optional().map_err(|error| self.failed("read", error))
    }

    /// When the newest record was made.
    pub(super) fn newest(&self) -> Result<Option<Stamp>, StoreError> {
        let text: Option<String> = self
            .connection
            .query_row("SELECT newest FROM ledger", [], |row| row.get(0))
            .optional()
            .map_err(|error| self.failed("read", error))?
            .flatten();
        let parse = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| Fault::Damaged(error.to_string()).at("read", &self.path))
        };
        text.map(parse).transpose()
    }

    /// The identity of the allowlist that was recorded last.
    pub(super) fn recorded_allowlist(&self) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row("SELECT allowlist FROM ledger", [], |row| row.get(0))
            .map_err(|error| self.failed("read", error))
    }

    /// Open sessions and meters.
    pub(super) fn books(&self) -> Result<Books, StoreError> {
        accounts::load(&self.connection).map_err(|fault| fault.at("read", &self.path))
    }

    /// Starts a new chain; its first record says what it follows.
    pub(super) fn open_epoch(
        &mut self,
        id: &str,
        mut remains: Remains,
        at: Stamp,
    ) -> Result<(), StoreError> {
        let previous = std::mem::take(&mut remains.previous);
        let follows = previous.epoch.is_some() || previous.last.is_some();
        remains.previous.epoch.clone_from(&previous.epoch);
        let succession = Succession {
            reason: if follows { EpochReason::StoreDamaged } else { EpochReason::First },
            previous,
            books: std::mem::take(&mut remains.books),
            goes_on: &epoch::nothing_goes_on,
        };
        self.within_transaction("open an epoch in", |transaction| {
            epoch::open(transaction, id, &succession, &mut || Ok(remains.next_carried()), at)
        })
    }

    /// Keeps what sessions remember beyond their records, also on a full disk.
    pub(super) fn keep_memos(&mut self, memos: &[Memo]) -> Result<(), StoreError> {
        let text = serde_json::to_vec(memos).expect("memos are plain JSON");
        self.notebook
            .write(&text)
            .map_err(|error| Fault::Io(error).at("keep memos beside", &self.path))
    }

    /// Records facts, all or none. On `Ok`, they survive a power cut.
    pub(super) fn commit(&mut self, records: &[Record]) -> Result<Head, StoreError> {
        let known = self.books.take();
        let append = |transaction: &Transaction<'_>| append(transaction, records, known);
        let (head, books) = self.within_transaction("record in", append)?;
        self.books = Some(books);
        Ok(head)
    }

    /// The accounts are read anew before the next commit.
    pub(super) fn forget_books(&mut self) {
        self.books = None;
    }

    pub(super) fn within_transaction<R>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        let run = || -> Result<R, Fault> {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(ack) = self.unsaved_ack {
                exchange::save_ack(&transaction, ack)?;
            }
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        let result = run().map_err(|fault| fault.at(doing, &self.path))?;
        self.unsaved_ack = None;
        Ok(result)
    }

    pub(super) fn failed(&self, doing: &'static str, error: rusqlite::Error) -> StoreError {
        Fault::Sqlite(error).at(doing, &self.path)
    }
}

/// What tells one allowlist from all others.
pub(super) fn identity(list: &str, version: u64, digest: &str) -> String {
    format!("{list} {version} {digest}")
}

/// The newest record, as the one row of `ledger` has it.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    connection.prepare_cached("SELECT epoch, head, head_hash FROM ledger")?.query_row([], |row| {
        Ok(Head { epoch: row.get(0)?, seq: unsigned(row.get(1)?), hash: row.get(2)? })
    })
}

/// Appends records and posts them; `known` are the accounts before, where they are in memory.
pub(super) fn append(
    transaction: &Transaction<'_>,
    records: &[Record],
    known: Option<Books>,
) -> Result<(Head, Books), Fault> {
    let before = match known {
        Some(books) => books,
        None => accounts::load(transaction)?,
    };
    let Some(last) = records.last() else { return Ok((head(transaction)?, before)) };
    let mut books = before.clone();
    for record in records {
        books
            .post(record.at, &record.fact)
            .map_err(|reason| Fault::Impossible { kind: kind(&record.fact), reason })?;
    }
    books.check().map_err(|reason| Fault::Impossible { kind: kind(&last.fact), reason })?;
    accounts::save(transaction, &before, &books)?;
    Ok((chain(transaction, records)?, books))
}

/// Appends records to the chain alone; the caller posts them.
pub(super) fn chain(transaction: &Transaction<'_>, records: &[Record]) -> Result<Head, Fault> {
    let mut head = head(transaction)?;
    let Some(last) = records.last() else { return Ok(head) };
    for record in records {
        head.seq += 1;
        let bytes = encode(head.seq, record)?;
        head.hash = link(&head.hash, bytes.as_bytes());
        insert(transaction, &head, record, &bytes)?;
    }
    let stamp = serde_json::to_string(&last.at).expect("a stamp is plain JSON");
    let allowlist = records.iter().rev().find_map(|record| match &record.fact {
        Fact::AllowlistApplied { list, version, digest, .. } => {
            Some(identity(list, *version, digest))
        }
        _ => None,
    });
    transaction
        .prepare_cached(
            "UPDATE ledger SET head = ?1, head_hash = ?2, newest = ?3,
             allowlist = coalesce(?4, allowlist)",
        )?
        .execute(params![signed(head.seq), head.hash, stamp, allowlist])?;
    Ok(head)
}

fn insert(
    transaction: &Transaction<'_>,
    head: &Head,
    record: &Record,
    bytes: &str,
) -> rusqlite::Result<()> {
    let trusted_wall = record.at.synced.then_some(record.at.wall.0);
    transaction
        .prepare_cached(
            "INSERT INTO record (seq, hash, bytes, trusted_wall) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![signed(head.seq), head.hash, bytes.as_bytes(), trusted_wall])
        .map(drop)
}

/// `hash(n)` from `hash(n − 1)` and the record's bytes.
pub(super) fn link(previous: &Hash, bytes: &[u8]) -> Hash {
    Sha256::new()
        .chain_update(CHAIN_TAG)
        .chain_update(previous)
        .chain_update(bytes)
        .finalize()
        .into()
}

/// The bytes of a record: `seq`, `kind`, `at`, then the fact's own members.
fn encode(seq: u64, record: &Record) -> Result<String, Fault> {
    let fact = serde_json::to_string(&record.fact).expect("facts are plain JSON");
    let at = serde_json::to_string(&record.at).expect("a stamp is plain JSON");
    let kind = kind(&record.fact);
    let tag = format!("{{\"kind\":\"{kind}\"");
    let rest = fact.strip_prefix(&tag).expect("a fact's tag comes first");
    let bytes = format!("{{\"seq\":{seq},\"kind\":\"{kind}\",\"at\":{at}{rest}");
    let carried = matches!(record.fact, Fact::Carried { .. });
    let most = if carried { MAX_CARRIED_BYTES } else { MAX_RECORD_BYTES };
    if bytes.len() > most {
        let reason = format!("{} bytes are more than {most}", bytes.len());
        return Err(Fault::Impossible { kind, reason });
    }
    Ok(bytes)
}

/// The contract's word for a fact.
pub(super) fn kind(fact: &Fact) -> &'static str {
    match fact {
        Fact::GatewayStarted { .. } => "gateway_started",
        Fact::SessionStarted(_) => "session_started",
        Fact::SessionSlot { .. } => "session_slot",
        Fact::SessionEnding { .. } => "session_ending",
        Fact::Interruption { .. } => "interruption",
        Fact::SessionEnded(_) => "session_ended",
        Fact::Unattributed { .. } => "unattributed",
        Fact::MeterCommissioned(_) => "meter_commissioned",
        Fact::MeterReplaced(_) => "meter_replaced",
        Fact::ClockSet { .. } => "clock_set",
        Fact::AllowlistApplied { .. } => "allowlist_applied",
        Fact::BadgeOverride { .. } => "badge_override",
        Fact::EpochOpened { .. } => "epoch_opened",
        Fact::Carried { .. } => "carried",
    }
}

/// SQLite's integers are signed; ours count from zero and never come near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a counter reaches 2^63 in no gateway's life")
}

/// The other way round; a negative one can only come from a damaged file and counts as none.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
