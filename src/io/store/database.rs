//! Opening a database of ours: settings that survive a power cut, set and read back; check;
//! migration.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, FileControl, OpenFlags, TransactionBehavior};

use crate::io::store::error::{Fault, StoreError};
use crate::io::store::files;

/// One kind of database file.
pub(super) struct Schema {
    /// Tells our files from each other and from those of other programs.
    pub(super) application_id: i64,
    /// Step `n` leads from `user_version` `n` to `n + 1`.
    pub(super) migrations: &'static [&'static str],
    /// Page cache of its one connection, in KiB: the whole daemon has 12 MiB.
    pub(super) cache_kib: i64,
}

/// Pages after which the log is copied back: keeps it at 1 MiB and within reach of a slow card.
/// It is reused and never truncated, which costs a third of the writes of a growing one.
const CHECKPOINT_PAGES: i64 = 2048;
/// A commit changes half a dozen pages, each of them little: the smallest ones fill two blocks of
/// the card instead of seven (decision 0019). A file keeps the size that it was made with.
const PAGE_BYTES: i64 = 512;

/// Opens the file for its one connection of this process's life; creates it where it is missing.
///
/// WAL with `synchronous=FULL` is what keeps a committed record through a power cut; the locking
/// mode keeps other programs out and needs no shared memory.
pub(super) fn open(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    if files::is_orphaned_log(path) {
        let reason = "its log is there without it".to_owned();
        return Err(StoreError::Damaged { doing: "open", file: path.to_path_buf(), reason });
    }
    let failed = |fault: Fault| fault.at("open", path);
    files::create_private(path).map_err(|error| failed(error.into()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| failed(error.into()))?;
    restrict(&connection).map_err(|error| failed(error.into()))?;
    check_owner(&connection, path, schema)?;
    make_durable(&connection, schema).map_err(failed)?;
    check(&connection).map_err(failed)?;
    migrate(&mut connection, schema).map_err(failed)?;
    // It is whole: from here on a clean end leaves everything in the one file.
    checkpoint_on_close(&connection, true).map_err(|error| failed(error.into()))?;
    Ok(connection)
}

/// Opens a file that was set aside to read what is left, and leaves its bytes as they are.
pub(super) fn open_remains(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    restrict(&connection)?;
    Ok(connection)
}

/// Opens a file that is there to look into it; whoever may only read it gets what is not in its
/// log alone.
pub(super) fn open_to_inspect(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let failed = |error: rusqlite::Error| Fault::Sqlite(error).at("open", path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    restrict(&connection).map_err(failed)?;
    check_owner(&connection, path, schema)?;
    Ok(connection)
}

/// Opens a finished file to read it. It has no log and nobody writes it.
pub(super) fn open_to_read(path: &Path, cache_kib: i64) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // The shared lock is kept: a lookup takes none and looks for no changes.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    harden(&connection)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(connection)
}

/// Whether pages and rows are whole, with the first complaint.
pub(super) fn check(connection: &Connection) -> Result<(), Fault> {
    verdict(connection, "PRAGMA quick_check(1)")
}

fn verdict(connection: &Connection, check: &str) -> Result<(), Fault> {
    let verdict: String = connection.query_row(check, [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict)) }
}

/// What is damaged, or not known to be whole yet, must not be written to.
fn checkpoint_on_close(connection: &Connection, wanted: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !wanted).map(drop)
}

fn restrict(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    checkpoint_on_close(connection, false)?;
    harden(connection)
}

/// A file that was tampered with may not run anything or be mapped into memory.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)
}

/// Refuses the files of other programs and of newer versions before anything is written.
fn check_owner(connection: &Connection, path: &Path, schema: &Schema) -> Result<(), StoreError> {
    let number = |pragma: &str| -> Result<i64, StoreError> {
        connection
            .pragma_query_value(None, pragma, |row| row.get(0))
            .map_err(|error| Fault::Sqlite(error).at("open", path))
    };
    let empty = number("schema_version")? == 0;
    if !empty && number("application_id")? != schema.application_id {
        return Err(StoreError::Foreign { file: path.to_path_buf() });
    }
    let (found, known) = (number("user_version")?, schema.migrations.len() as i64);
    if found > known {
        return Err(StoreError::Newer { file: path.to_path_buf(), found, known });
    }
    Ok(())
}

fn make_durable(connection: &Connection, schema: &Schema) -> Result<(), Fault> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -schema.cache_kib)?;
    let mut keep_log = 1;
    connection.file_control(None::<&str>, FileControl::PersistWal(&mut keep_log))?;
    read_back(connection)
}

/// A setting that did not take would lose records silently.
fn read_back(connection: &Connection) -> Result<(), Fault> {
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    let locking: String = connection.pragma_query_value(None, "locking_mode", |row| row.get(0))?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    let foreign_keys: i64 =
        connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
    let as_set = (journal.as_str(), locking.as_str(), synchronous, foreign_keys);
    if as_set == ("wal", "exclusive", 2, 1) {
        return Ok(());
    }
    let reason = format!("settings that survive a power cut do not take: {as_set:?}");
    Err(Fault::Io(std::io::Error::other(reason)))
}

/// Each step and its version in one transaction: a power cut leaves the old or the new schema.
fn migrate(connection: &mut Connection, schema: &Schema) -> Result<(), Fault> {
    let done: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?
        .try_into()
        .map_err(|_| Fault::Damaged("negative schema version".into()))?;
    for (step, sql) in schema.migrations.iter().enumerate().skip(done) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", schema.application_id)?;
        transaction.pragma_update(None, "user_version", step as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
