//! Where the store's files lie, and what is done with whole files.
//!
//! For `[storage] path` `/var/lib/tapgate/tapgate.db`, beside it: `tapgate-gateway.db`,
//! `tapgate-allowlist-N.db`, `tapgate-allowlist.parts/`, `tapgate.lock`. What is damaged is
//! renamed, never deleted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::io::store::error::{Fault, StoreError};

/// Damaged copies of one file that are kept; more mean a dying disk, and a start that must not
/// search for ever.
const MAX_SET_ASIDE: u32 = 1000;

/// What SQLite keeps beside a database file.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The names of the store's files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// Ledger, open sessions, meters.
    pub(super) ledger: PathBuf,
    /// Counters, marks, blocks, which allowlist decides.
    pub(super) gateway: PathBuf,
    directory: PathBuf,
    stem: String,
}

impl Files {
    pub(super) fn beside(ledger: &Path) -> Files {
        let stem = ledger.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let directory = match ledger.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            Some(_) | None => PathBuf::from("."),
        };
        Files {
            ledger: ledger.to_path_buf(),
            gateway: directory.join(format!("{stem}-gateway.db")),
            directory,
            stem,
        }
    }

    /// The file of one allowlist generation.
    pub(super) fn allowlist(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("{}-allowlist-{generation}.db", self.stem))
    }

    /// Where the ledger of an epoch that forked stays, read-only.
    pub(super) fn frozen(&self, epoch: &str) -> PathBuf {
        self.directory.join(format!("{}-epoch-{epoch}.db", self.stem))
    }

    /// What sessions remember beyond their records.
    pub(super) fn memos(&self) -> PathBuf {
        self.directory.join(format!("{}-sessions.memo", self.stem))
    }

    /// The damaged files that were set aside and still lie there.
    pub(super) fn damaged(&self) -> Vec<PathBuf> {
        let Ok(listing) = fs::read_dir(&self.directory) else { return Vec::new() };
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let number = name.rsplit_once(".db.damaged-").map(|(_, number)| number);
            name.starts_with(&self.stem)
                && number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut found: Vec<PathBuf> =
            listing.filter_map(|file| Some(file.ok()?.path())).filter(ours).collect();
        found.sort();
        found
    }

    /// Where the next generation is built; a leftover is of no use and overwritten.
    pub(super) fn staging(&self) -> PathBuf {
        self.directory.join(format!("{}-allowlist.staging", self.stem))
    }

    /// Where parts of lists are kept.
    pub(super) fn parts(&self) -> PathBuf {
        self.directory.join(format!("{}-allowlist.parts", self.stem))
    }

    /// The generations on disk, newest first.
    pub(super) fn generations(&self) -> io::Result<Vec<u64>> {
        let prefix = format!("{}-allowlist-", self.stem);
        let mut generations = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            let name = file?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".db")?.parse().ok());
            generations.extend(number);
        }
        generations.sort_unstable_by(|a, b| b.cmp(a));
        Ok(generations)
    }

    /// Creates the directory where it is missing, readable for owner and group.
    pub(super) fn create_directory(&self) -> Result<(), StoreError> {
        let create = || -> io::Result<()> {
            let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
            let missing: Vec<_> = self.directory.ancestors().take_while(is_missing).collect();
            DirBuilder::new().recursive(true).mode(0o750).create(&self.directory)?;
            missing.into_iter().try_for_each(sync_name)
        };
        create().map_err(|error| Fault::Io(error).at("create directory", &self.directory))
    }

    /// Keeps every other tapgate out for as long as the file is held.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = self.directory.join(format!("{}.lock", self.stem));
        let failed = |error: io::Error| Fault::Io(error).at("lock", &path);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                Err(StoreError::Locked { doing: "lock", file: path })
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Makes renames and new files in the directory last through a power cut.
    pub(super) fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Renames a damaged database and its companions to `….damaged-N`.
    pub(super) fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let aside = asides(path)
            .find(|aside| !aside.exists() && !with_suffix(aside, "-wal").exists())
            .ok_or_else(|| io::Error::other("too many damaged copies are kept beside it"))?;
        // The database first, and for good: without its log it may be an older one that is whole.
        rename_if_there(path, &aside)?;
        self.sync_directory()?;
        self.companions_follow(path, &aside)?;
        Ok(aside)
    }

    /// Power may have gone between a damaged database and its log: the log follows it.
    pub(super) fn finish_setting_aside(&self, path: &Path) -> io::Result<()> {
        if !is_orphaned_log(path) {
            return Ok(());
        }
        let is_alone = |aside: &PathBuf| !with_suffix(aside, "-wal").exists();
        match self.last_aside(path).filter(is_alone) {
            Some(aside) => self.companions_follow(path, &aside),
            None => Ok(()),
        }
    }

    /// The newest damaged copy of a database.
    pub(super) fn last_aside(&self, path: &Path) -> Option<PathBuf> {
        asides(path).filter(|aside| aside.exists()).last()
    }

    fn companions_follow(&self, path: &Path, aside: &Path) -> io::Result<()> {
        for suffix in COMPANIONS {
            rename_if_there(&with_suffix(path, suffix), &with_suffix(aside, suffix))?;
        }
        self.sync_directory()
    }

    /// What an unprivileged process may still write there; `None` where that cannot be told.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.directory).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
}

/// Creates an empty database file for its owner and group, so that its mode is not SQLite's choice.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o640).open(path).map(drop)
}

/// Whether a log lies there whose database is gone: SQLite would delete it.
pub(super) fn is_orphaned_log(path: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    length(path) == 0 && length(&with_suffix(path, "-wal")) > 0
}

/// Makes a new name of a file or folder last through a power cut.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The names that damaged copies may have, oldest first.
fn asides(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=MAX_SET_ASIDE).map(|n| with_suffix(path, &format!(".damaged-{n}")))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
