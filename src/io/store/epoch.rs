//! Opens an epoch: the first one, or one that follows another whose ledger cannot go on.
//!
//! A new epoch starts with `epoch_opened` and every record that the cloud may not have (`carried`).
//! Each meter is commissioned anew at the register where the accounts stood when its open session
//! started, so that the epoch balances by itself. Sessions of which nobody knows whether they still
//! run end with `power_loss` at their last stored register; what the meters have counted since
//! goes to nobody, with the first reading.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::core::ledger::{EndReason, EpochReason, Fact, MeterChange, Quality, Record, SessionEnd};
use crate::core::metering::elapsed;
use crate::core::time::{Stamp, Uptime};
use crate::io::store::accounts;
use crate::io::store::books::{Books, MeterAccount, OpenSession};
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::files::{Files, sync_name};
use crate::io::store::ledger::{Hash, Ledger, ORIGIN, Previous, append, chain, signed, unsigned};
use crate::io::store::verify::Bounds;

/// A disk that is rolled back again and again, or two clones that run at once, must not fill it
/// with epochs.
const FORK_PAUSE: Duration = Duration::from_secs(24 * 3_600);

/// Carried records that are in memory at once.
const CARRIED_AT_ONCE: usize = 200;

/// What an epoch follows, and what it takes over from there.
pub(super) struct Succession<'a> {
    /// Why it is opened.
    pub(super) reason: EpochReason,
    /// What is known of the one before.
    pub(super) previous: Previous,
    /// The accounts as that one left them.
    pub(super) books: Books,
    /// Whether a session surely still runs.
    pub(super) goes_on: &'a dyn Fn(&OpenSession) -> bool,
}

/// A record of the previous epoch.
pub(super) struct Carried {
    pub(super) epoch: String,
    pub(super) seq: u64,
    pub(super) hash: Hash,
    pub(super) bytes: Vec<u8>,
}

/// Where carried records come from, in their order.
pub(super) type Source<'a> = &'a mut dyn FnMut() -> Result<Option<Carried>, Fault>;

/// Makes the ledger that of a new epoch. Whatever `record` holds of another one is the caller's.
pub(super) fn open(
    transaction: &Transaction<'_>,
    epoch: &str,
    succession: &Succession<'_>,
    carried: Source<'_>,
    at: Stamp,
) -> Result<(), Fault> {
    transaction.execute_batch("DELETE FROM open_session; DELETE FROM meter;")?;
    transaction.execute(
        "INSERT INTO ledger (id, epoch, head, head_hash, floor, floor_hash, acked)
         VALUES (1, ?1, 0, ?2, 1, ?2, 0)
         ON CONFLICT (id) DO UPDATE SET epoch = ?1, head = 0, head_hash = ?2, floor = 1,
             floor_hash = ?2, acked = 0, ack_issued_at = NULL, exported = 0",
        params![epoch, ORIGIN],
    )?;
    let previous = &succession.previous;
    let opened = Fact::EpochOpened {
        previous_epoch: previous.epoch.clone(),
        last_seq: previous.last.map(|(seq, _)| seq),
        last_hash: previous.last.map(|(_, hash)| hex::encode(hash)),
        reason: succession.reason,
    };
    chain(transaction, &[Record { at, fact: opened }])?;
    carry(transaction, carried, at)?;
    take_over(transaction, succession, at)
}

fn carry(transaction: &Transaction<'_>, carried: Source<'_>, at: Stamp) -> Result<(), Fault> {
    let mut records = Vec::with_capacity(CARRIED_AT_ONCE);
    while let Some(next) = carried()? {
        records.push(Record { at, fact: carried_fact(next)? });
        if records.len() == CARRIED_AT_ONCE {
            chain(transaction, &records)?;
            records.clear();
        }
    }
    chain(transaction, &records).map(drop)
}

/// What was carried into the previous epoch already goes on as it is, not wrapped twice.
fn carried_fact(carried: Carried) -> Result<Fact, Fault> {
    let record = String::from_utf8(carried.bytes)
        .map_err(|_| Fault::Damaged("a record is not UTF-8".into()))?;
    let inner = serde_json::from_str::<Record>(&record).ok().map(|record| record.fact);
    Ok(match inner {
        Some(fact @ Fact::Carried { .. }) => fact,
        Some(_) | None => Fact::Carried {
            epoch: carried.epoch,
            carried_seq: carried.seq,
            hash: hex::encode(carried.hash),
            record,
        },
    })
}

/// Commissions the meters in the new epoch and ends what nobody knows to run.
fn take_over(
    transaction: &Transaction<'_>,
    succession: &Succession<'_>,
    at: Stamp,
) -> Result<(), Fault> {
    let old = &succession.books;
    let books = Books {
        meters: old
            .meters
            .iter()
            .map(|(id, meter)| (id.clone(), commissioned(meter, at)))
            .collect(),
        open: old.open.clone(),
    };
    let commissionings: Vec<Record> = books
        .meters
        .values()
        .map(|meter| Record { at, fact: Fact::MeterCommissioned(change(meter)) })
        .collect();
    chain(transaction, &commissionings)?;
    accounts::save(transaction, &Books::default(), &books)?;
    let ends: Vec<Record> = books
        .open
        .values()
        .filter(|session| !(succession.goes_on)(session))
        .map(|session| Record { at, fact: Fact::SessionEnded(lost(session, &books, at)) })
        .collect();
    append(transaction, &ends, Some(books)).map(drop)
}

/// The account starts where that of the open session on it started.
fn commissioned(old: &MeterAccount, at: Stamp) -> MeterAccount {
    // A meter that was replaced in the middle of a session may show less than the session used.
    let first_wh = (old.last_wh - old.open_wh).max(0);
    MeterAccount {
        first_wh,
        last_at: at,
        sessions_wh: 0,
        unattributed_wh: 0,
        replaced_wh: old.last_wh - old.open_wh - first_wh,
        ..old.clone()
    }
}

fn change(meter: &MeterAccount) -> MeterChange {
    MeterChange {
        station: meter.station.clone(),
        meter: meter.meter.clone(),
        old_serial: None,
        old_register_wh: None,
        new_serial: meter.serial.clone(),
        new_register_wh: meter.first_wh,
    }
}

fn lost(session: &OpenSession, books: &Books, at: Stamp) -> SessionEnd {
    let meter = session.start.meter.as_ref().and_then(|meter| books.meters.get(meter));
    SessionEnd {
        start: session.start.clone(),
        reason: EndReason::PowerLoss,
        end_register_wh: meter.map(|meter| meter.last_wh),
        energy_wh: meter.map(|_| session.posted_wh),
        duration_s: elapsed(session.started, at).unwrap_or_default().as_secs(),
        quality: if meter.is_some() { Quality::Estimated } else { Quality::Unmetered },
    }
}

impl Ledger {
    /// Freezes a copy of this ledger, then opens a new epoch in its place, in one transaction.
    /// Sessions that started at `running_since` or later in this boot go on. False, and nothing is
    /// changed, where the last fork is less than a day ago or may be.
    pub(super) fn fork(&mut self, running_since: Uptime, at: Stamp) -> Result<bool, StoreError> {
        let forked = self.opened().map(|opened| opened.filter(Opened::is_fork))?;
        let too_soon = |opened: Opened| elapsed(opened.at, at).is_none_or(|age| age < FORK_PAUSE);
        if forked.is_some_and(too_soon) {
            return Ok(false);
        }
        let Some(head) = self.head()? else { return Ok(false) };
        let archive = Files::beside(&self.path).frozen(&head.epoch);
        freeze(&self.connection, &archive)
            .map_err(|fault| fault.at("freeze the ledger as", &archive))?;
        let epoch = uuid::Uuid::new_v4().to_string();
        let goes_on = |session: &OpenSession| {
            session.started.boot == at.boot && session.started.uptime >= running_since
        };
        self.forget_books();
        self.within_transaction("open an epoch in", |transaction| {
            let bounds = Bounds::read(transaction)?;
            let succession = Succession {
                reason: EpochReason::Fork,
                previous: Previous {
                    epoch: Some(bounds.head.epoch.clone()),
                    last: Some((bounds.head.seq, bounds.head.hash)),
                },
                books: accounts::load(transaction)?,
                goes_on: &goes_on,
            };
            // The old records make room for the numbers of the new ones, and go at the end.
            transaction.execute("DELETE FROM record WHERE seq <= ?1", [signed(bounds.acked)])?;
            transaction.execute("UPDATE record SET seq = -seq", [])?;
            let mut last = bounds.acked;
            let mut unacknowledged = || {
                let next = moved_after(transaction, last, &bounds.head.epoch)?;
                last = next.as_ref().map_or(last, |next| next.seq);
                Ok(next)
            };
            open(transaction, &epoch, &succession, &mut unacknowledged, at)?;
            transaction.execute("DELETE FROM record WHERE seq < 0", [])?;
            Ok(())
        })?;
        Ok(true)
    }

    /// How this epoch began; `None` once that record is pruned.
    pub(super) fn opened(&self) -> Result<Option<Opened>, StoreError> {
        let sql = "SELECT bytes FROM record WHERE seq = 1";
        let bytes: Option<Vec<u8>> = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .optional()
            .map_err(|error| self.failed("read", error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::Damaged(error.to_string()).at("read", &self.path))?;
        Ok(match record.fact {
            Fact::EpochOpened { reason, .. } => Some(Opened { at: record.at, reason }),
            _ => None,
        })
    }
}

/// How an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// When.
    pub at: Stamp,
    /// Why.
    pub reason: EpochReason,
}

impl Opened {
    /// Whether this disk was found to be rolled back or cloned.
    pub fn is_fork(&self) -> bool {
        self.reason == EpochReason::Fork
    }
}

/// The next old record, by the negative number under which it waits.
fn moved_after(connection: &Connection, seq: u64, epoch: &str) -> Result<Option<Carried>, Fault> {
    let found = connection
        .prepare_cached(
            "SELECT -seq, hash, bytes FROM record WHERE seq < ?1 AND seq < 0
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([-signed(seq)], |row| {
            Ok(Carried {
                epoch: epoch.to_owned(),
                seq: unsigned(row.get(0)?),
                hash: row.get(1)?,
                bytes: row.get(2)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// A read-only copy of the whole ledger, on disk before it has its name.
fn freeze(connection: &Connection, archive: &Path) -> Result<(), Fault> {
    let staging = archive.with_extension("staging");
    if staging.exists() {
        fs::remove_file(&staging)?;
    }
    let name = staging.to_str().ok_or_else(|| Fault::Damaged("a path is not UTF-8".into()))?;
    connection.execute("VACUUM INTO ?1", [name])?;
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o440))?;
    fs::File::open(&staging)?.sync_all()?;
    fs::rename(&staging, archive)?;
    Ok(sync_name(archive)?)
}

/// No session is known to run.
pub(super) fn nothing_goes_on(_: &OpenSession) -> bool {
    false
}
