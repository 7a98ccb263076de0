//! What can go wrong with the store, sorted by what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store did not do what it was asked. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    #[error("cannot {doing} {file}: no space left; free space on its file system")]
    Full { doing: &'static str, file: PathBuf },
    #[error("cannot {doing} {file}: {reason}; check the disk and who may write there")]
    Io { doing: &'static str, file: PathBuf, reason: String },
    #[error("cannot {doing} {file}: damaged ({reason}); restart tapgate, which sets it aside")]
    Damaged { doing: &'static str, file: PathBuf, reason: String },
    #[error("cannot {doing} {file}: another process holds it; stop the other tapgate first")]
    Locked { doing: &'static str, file: PathBuf },
    #[error(
        "cannot open {file}: written by a newer tapgate (schema {found}, this one knows up to \
         {known}); install that version or restore a backup"
    )]
    Newer { file: PathBuf, found: i64, known: i64 },
    #[error("cannot open {file}: a database of another program; correct [storage] path")]
    Foreign { file: PathBuf },
    #[error("cannot record {kind}: {reason}; nothing was recorded, report this with the journal")]
    Impossible { kind: &'static str, reason: String },
    #[error("cannot {doing}: {limit} reached; {remedy}")]
    Limit { doing: &'static str, limit: &'static str, remedy: &'static str },
    #[error("the store is closed; restart tapgate")]
    Closed,
}

/// What happened inside, before it is known to which file.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Io(std::io::Error),
    Impossible { kind: &'static str, reason: String },
    Damaged(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sqlite(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Fault::Io(error)
    }
}

/// Bad sectors, short files and checksum failures: the medium or the file, not the moment.
const READ_DAMAGE: [i32; 4] = [
    rusqlite::ffi::SQLITE_IOERR_READ,
    rusqlite::ffi::SQLITE_IOERR_SHORT_READ,
    rusqlite::ffi::SQLITE_IOERR_DATA,
    rusqlite::ffi::SQLITE_IOERR_CORRUPTFS,
];

impl Fault {
    /// The error with its operation and file.
    pub(super) fn at(self, doing: &'static str, file: &Path) -> StoreError {
        let file = file.to_path_buf();
        match self {
            Fault::Sqlite(error) => sqlite(&error, doing, file),
            Fault::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                StoreError::Full { doing, file }
            }
            Fault::Io(error) => StoreError::Io { doing, file, reason: error.to_string() },
            Fault::Impossible { kind, reason } => StoreError::Impossible { kind, reason },
            Fault::Damaged(reason) => StoreError::Damaged { doing, file, reason },
        }
    }
}

fn sqlite(error: &rusqlite::Error, doing: &'static str, file: PathBuf) -> StoreError {
    let reason = error.to_string();
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        // Every other variant is a row or value that our own schema does not allow.
        return StoreError::Damaged { doing, file, reason };
    };
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full { doing, file },
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Locked { doing, file },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            StoreError::Damaged { doing, file, reason }
        }
        ErrorCode::SystemIoFailure if READ_DAMAGE.contains(&failure.extended_code) => {
            StoreError::Damaged { doing, file, reason }
        }
        _ => StoreError::Io { doing, file, reason },
    }
}
