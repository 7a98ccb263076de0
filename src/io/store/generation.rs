//! One allowlist as a file of its own: built aside, made durable, never changed afterwards.
//!
//! A list of any size is written once, the ledger's file is not touched by it, and a power cut
//! leaves the old list or the new one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::core::event::Allowlist;
use crate::core::time::Wall;
use crate::io::store::database;
use crate::io::store::error::Fault;
use crate::io::store::files;
use crate::io::store::ledger::{signed, unsigned};
use crate::io::store::schema;
use crate::protocol::allowlist::{
    BadField, Head, ListDigest, MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_LIST_BYTES, Refusal,
    RefusalReason, entry_hash, is_usable, judge,
};

/// Page cache while a list is built, in KiB: enough that unsorted entries do not thrash.
const BUILD_CACHE_KIB: i64 = 2048;

/// Page cache of the lookups, in KiB: the upper two levels of 100,000 entries; the two pages below
/// come from the kernel's cache.
pub(super) const LOOKUP_CACHE_KIB: i64 = 128;

/// Usable badges that may always become unusable at once.
const SHRINK_ALLOWANCE: i64 = 3;

/// Builds a generation, and finds the first reason to refuse it.
pub(super) struct Builder {
    connection: Connection,
    path: PathBuf,
    seen: u64,
    bytes: u64,
    refusal: Option<Refusal>,
}

impl Builder {
    /// Starts aside at `path`. `current` is the list that decides now, for the shrink guard.
    pub(super) fn create(path: &Path, current: Option<&Path>) -> Result<Builder, Fault> {
        remove_if_there(path)?;
        files::create_private(path)?;
        let connection = Connection::open(path)?;
        // A file that a power cut tears is thrown away: no journal, no sync until it is whole.
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "cache_size", -BUILD_CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "application_id", schema::ALLOWLIST_APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", schema::ALLOWLIST_VERSION)?;
        if let Some(current) = current {
            connection.execute("ATTACH ?1 AS current", [current.to_string_lossy()])?;
        }
        connection.execute_batch("BEGIN")?;
        connection.execute_batch(schema::ALLOWLIST)?;
        Ok(Builder { connection, path: path.to_path_buf(), seen: 0, bytes: 0, refusal: None })
    }

    /// Takes the next entry as received.
    pub(super) fn add(&mut self, raw: &str) -> Result<(), Fault> {
        let index = self.seen;
        self.seen += 1;
        self.bytes += raw.len() as u64;
        if let Some(refusal) = self.outgrown(index, raw) {
            self.refuse(refusal);
            return Ok(());
        }
        let (uid, entry, canonical) = match judge(raw) {
            Ok(judged) => judged,
            Err(BadField { field }) => {
                let detail = format!("entry {index}, {field}");
                self.refuse(Refusal::new(RefusalReason::BadEntry, detail));
                return Ok(());
            }
        };
        if self.refusal.is_some() {
            return Ok(());
        }
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO main.entry (uid, badge, usable, canonical)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![uid.as_bytes(), entry.badge.as_str(), is_usable(&entry), canonical])?;
        if inserted == 0 {
            let detail = format!("entry {index}, uid or badge of an earlier one");
            self.refuse(Refusal::new(RefusalReason::Duplicate, detail));
        }
        Ok(())
    }

    /// Judges the whole and makes it durable, still aside.
    pub(super) fn finish(
        mut self,
        head: &Head,
        current: Option<&Allowlist>,
    ) -> Result<Result<(), Refusal>, Fault> {
        if let Some(refusal) = self.judge_whole(head, current)? {
            self.refuse(refusal);
        }
        if let Some(refusal) = self.refusal {
            drop(self.connection);
            remove_if_there(&self.path)?;
            return Ok(Err(refusal));
        }
        self.connection.execute(
            "INSERT INTO main.head (id, list, version, digest, count, issued_at)
             VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            params![
                head.list,
                signed(head.version),
                head.digest,
                signed(head.count),
                head.issued_at.0
            ],
        )?;
        self.connection.execute_batch("COMMIT")?;
        self.connection.close().map_err(|(_, error)| error)?;
        File::open(&self.path)?.sync_all()?;
        Ok(Ok(()))
    }

    fn outgrown(&self, index: u64, raw: &str) -> Option<Refusal> {
        let detail = if raw.len() > MAX_ENTRY_BYTES {
            format!("entry {index} has more than {MAX_ENTRY_BYTES} bytes")
        } else if self.seen > MAX_ENTRIES {
            format!("more than {MAX_ENTRIES} entries")
        } else if self.bytes > MAX_LIST_BYTES {
            format!("more than {MAX_LIST_BYTES} bytes")
        } else {
            return None;
        };
        Some(Refusal::new(RefusalReason::TooLarge, detail))
    }

    /// Keeps the reason that comes first in the contract's order, and of these the first found.
    fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.as_ref().is_none_or(|first| refusal.reason < first.reason) {
            self.refusal = Some(refusal);
        }
    }

    fn judge_whole(
        &self,
        head: &Head,
        current: Option<&Allowlist>,
    ) -> Result<Option<Refusal>, Fault> {
        let refusal = |reason, detail: &str| Ok(Some(Refusal::new(reason, detail)));
        if self.refusal.is_some() {
            return Ok(None);
        }
        if self.seen != head.count {
            let detail = format!("{} entries, {} in the head", self.seen, head.count);
            return refusal(RefusalReason::CountMismatch, &detail);
        }
        let (_, digest) = digest(&self.connection)?;
        if digest != head.digest {
            return refusal(RefusalReason::DigestMismatch, &format!("the entries have {digest}"));
        }
        match current {
            Some(current) if !head.allow_shrink => {
                let shrunk = self.shrunk(current.count, head.count)?;
                Ok(shrunk.map(|detail| Refusal::new(RefusalReason::Shrink, detail)))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn shrunk(&self, before: u64, after: u64) -> Result<Option<String>, Fault> {
        let (usable, lost): (i64, i64) = self.connection.query_row(
            "SELECT count(*), coalesce(sum(NOT EXISTS (
                 SELECT 1 FROM main.entry AS new WHERE new.uid = old.uid AND new.usable)), 0)
             FROM current.entry AS old WHERE old.usable",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let emptied = before > 0 && after == 0;
        let shrunk = lost > SHRINK_ALLOWANCE && lost * 2 > usable;
        let detail = format!("{lost} of {usable} usable badges would become unusable");
        Ok((emptied || shrunk).then_some(detail))
    }
}

/// A generation that was checked.
pub(super) struct Generation {
    pub(super) connection: Connection,
    pub(super) allowlist: Allowlist,
    pub(super) issued_at: Wall,
}

/// Opens a generation and computes its digest anew: bits rot, and a torn file must not decide.
pub(super) fn open_verified(path: &Path) -> Result<Generation, Fault> {
    let generation = open(path)?;
    database::check_with_indexes(&generation.connection)?;
    let (count, digest) = digest(&generation.connection)?;
    let Allowlist { count: expected, digest: of_head, .. } = &generation.allowlist;
    if (count, &digest) != (*expected, of_head) {
        return Err(Fault::Damaged("its entries are not those of its digest".into()));
    }
    Ok(generation)
}

/// Opens a generation that was just built.
pub(super) fn open(path: &Path) -> Result<Generation, Fault> {
    let connection = database::open_to_read(path, LOOKUP_CACHE_KIB)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != schema::ALLOWLIST_VERSION {
        return Err(Fault::Damaged(format!("form {version} is not known to this version")));
    }
    let (allowlist, issued_at) = connection.query_row(
        "SELECT list, version, digest, count, issued_at FROM head",
        [],
        |row| {
            let allowlist = Allowlist {
                list: row.get(0)?,
                version: unsigned(row.get(1)?),
                digest: row.get(2)?,
                count: unsigned(row.get(3)?),
            };
            Ok((allowlist, Wall(row.get(4)?)))
        },
    )?;
    Ok(Generation { connection, allowlist, issued_at })
}

fn digest(connection: &Connection) -> rusqlite::Result<(u64, String)> {
    let mut select = connection.prepare("SELECT canonical FROM main.entry ORDER BY uid")?;
    let mut rows = select.query([])?;
    let (mut count, mut digest) = (0, ListDigest::default());
    while let Some(row) = rows.next()? {
        digest.add(&entry_hash(row.get_ref(0)?.as_blob()?));
        count += 1;
    }
    Ok((count, digest.finish()))
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
