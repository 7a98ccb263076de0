//! One allowlist as a file of its own: built aside, made durable, never changed afterwards.
//!
//! A list of any size is written once, the ledger's file is not touched by it, and a power cut
//! leaves the old list or the new one. Entries go in ascending by UID, so that every page is
//! written once and nothing is held in memory but eight bytes an entry.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::core::time::Wall;
use crate::io::store::database;
use crate::io::store::error::Fault;
use crate::io::store::files;
use crate::io::store::ledger::{signed, unsigned};
use crate::io::store::lists::{OldList, Pacer};
use crate::io::store::schema;
use crate::protocol::allowlist::{Head, ListDigest, badge_hash, badge_of, entry_hash};

/// Less is left over at the end of each page than with 4096, so less is written to the card.
const PAGE_BYTES: i64 = 8_192;

/// Page cache while a list is built, in KiB: entries only go to the end.
const BUILD_CACHE_KIB: i64 = 512;

/// Page cache of the lookups, in KiB: the upper levels of 100,000 entries; the two pages below come
/// from the kernel's cache.
pub(super) const LOOKUP_CACHE_KIB: i64 = 128;

/// Usable badges that may always become unusable at once.
const SHRINK_ALLOWANCE: u64 = 3;

/// Badges that go into their table before others get a turn.
const INDEXED_AT_ONCE: usize = 20_000;

/// An ordinal's bits in the key of the badge table: more than [`MAX_ENTRIES`] needs. The others are
/// those of the badge's hash.
///
/// [`MAX_ENTRIES`]: crate::protocol::allowlist::MAX_ENTRIES
const ORDINAL_BITS: u32 = 20;

/// Builds a generation from entries that were judged good one by one.
pub(super) struct Builder {
    connection: Connection,
    path: PathBuf,
    pacer: Pacer,
    count: u64,
    digest: ListDigest,
    /// Keys of the badge table: in order of the entries, and sorted at the end.
    badges: Vec<u64>,
    /// How many of them are in the table.
    indexed: Option<usize>,
    duplicate: Option<u64>,
    shrinkage: Option<Shrinkage>,
}

/// What is only known of a list as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Ordinal of an entry whose badge an earlier one has.
    pub(super) duplicate: Option<u64>,
    pub(super) count: u64,
    pub(super) digest: String,
    /// Usable badges of the list before, and how many of them would become unusable.
    pub(super) usable: u64,
    pub(super) lost: u64,
}

impl Whole {
    /// Whether so much is lost that it is more likely a mistake.
    pub(super) fn is_shrunk(&self) -> bool {
        self.lost > SHRINK_ALLOWANCE && self.lost * 2 > self.usable
    }
}

impl Builder {
    /// Starts aside at `path`. `current` is the list that decides now, for the shrink guard.
    pub(super) fn create(path: &Path, current: Option<&Path>) -> Result<Builder, Fault> {
        remove_if_there(path)?;
        files::create_private(path)?;
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        // A file that a power cut tears is thrown away: no journal, no sync until it is whole.
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "cache_size", -BUILD_CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "application_id", schema::ALLOWLIST_APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", schema::ALLOWLIST_VERSION)?;
        connection.execute_batch("BEGIN")?;
        connection.execute_batch(schema::ALLOWLIST)?;
        Ok(Builder {
            connection,
            path: path.to_path_buf(),
            pacer: Pacer::new(File::open(path)?),
            count: 0,
            digest: ListDigest::default(),
            badges: Vec::new(),
            indexed: None,
            duplicate: None,
            shrinkage: current.and_then(|current| Shrinkage::open(current).ok()),
        })
    }

    /// Takes the next entry; the caller keeps the order of the UIDs.
    pub(super) fn push(
        &mut self,
        uid: Uid,
        badge: &str,
        usable: bool,
        canonical: &[u8],
    ) -> Result<(), Fault> {
        let ordinal = signed(self.count);
        self.connection
            .prepare_cached("INSERT INTO entry (ordinal, canonical) VALUES (?1, ?2)")?
            .execute(params![ordinal, canonical])?;
        self.connection
            .prepare_cached("INSERT INTO uid (uid, ordinal, usable) VALUES (?1, ?2, ?3)")?
            .execute(params![uid.as_bytes(), ordinal, usable])?;
        self.badges.push(badge_key(badge) | self.count);
        self.digest.add(&entry_hash(canonical));
        if let Some(shrinkage) = &mut self.shrinkage {
            shrinkage.note(uid, usable);
        }
        self.count += 1;
        self.pacer.wrote(canonical.len() as u64);
        Ok(())
    }

    /// What the list is as a whole, after the last entry. Takes several calls for a long list:
    /// `None` means one more.
    pub(super) fn conclude(&mut self) -> Result<Option<Whole>, Fault> {
        let Some(indexed) = self.indexed else {
            self.badges.sort_unstable();
            self.duplicate = self.find_duplicate()?;
            self.indexed = Some(if self.duplicate.is_some() { self.badges.len() } else { 0 });
            return Ok(None);
        };
        let until = self.badges.len().min(indexed + INDEXED_AT_ONCE);
        let mut insert = self.connection.prepare_cached("INSERT INTO badge (key) VALUES (?1)")?;
        for key in &self.badges[indexed..until] {
            insert.execute([signed(*key)])?;
            self.pacer.wrote(size_of::<u64>() as u64);
        }
        self.indexed = Some(until);
        if until < self.badges.len() {
            return Ok(None);
        }
        let (usable, lost) = self.shrinkage.as_mut().map_or((0, 0), Shrinkage::finish);
        let digest = std::mem::take(&mut self.digest).finish();
        let (duplicate, count) = (self.duplicate, self.count);
        Ok(Some(Whole { duplicate, count, digest, usable, lost }))
    }

    /// Makes the list durable, still aside.
    pub(super) fn seal(self, head: &Head) -> Result<(), Fault> {
        self.connection.execute(
            "INSERT INTO head (id, list, version, digest, count, issued_at)
             VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            params![
                head.list,
                signed(head.version),
                head.digest,
                signed(head.count),
                head.issued_at.0
            ],
        )?;
        for part in head.parts() {
            self.connection
                .prepare_cached("INSERT INTO part (sha256) VALUES (?1)")?
                .execute([&part.sha256])?;
        }
        self.connection.execute_batch("COMMIT")?;
        self.connection.close().map_err(|(_, error)| error)?;
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }

    /// Throws away what was built.
    pub(super) fn discard(self) -> Result<(), Fault> {
        drop(self.connection);
        Ok(remove_if_there(&self.path)?)
    }

    /// An entry whose badge an earlier one has. Few share their hash's first bits, and only
    /// these are compared.
    fn find_duplicate(&self) -> Result<Option<u64>, Fault> {
        let mask = (1 << ORDINAL_BITS) - 1;
        for (at, key) in self.badges.iter().enumerate() {
            let others = self.badges[at + 1..].iter();
            for other in others.take_while(|other| **other & !mask == *key & !mask) {
                let (one, two) = (key & mask, other & mask);
                if self.badge_at(one)? == self.badge_at(two)? {
                    return Ok(Some(one.max(two)));
                }
            }
        }
        Ok(None)
    }

    fn badge_at(&self, ordinal: u64) -> Result<String, Fault> {
        let mut select =
            self.connection.prepare_cached("SELECT canonical FROM entry WHERE ordinal = ?1")?;
        let canonical: Vec<u8> = select.query_row([signed(ordinal)], |row| row.get(0))?;
        named(&canonical)
    }
}

/// The keys that the entries of a badge can have; the last one included.
pub(super) fn badge_keys(badge: &str) -> (i64, i64) {
    let first = badge_key(badge);
    (signed(first), signed(first | ((1 << ORDINAL_BITS) - 1)))
}

/// The ordinal in a key.
pub(super) fn ordinal_of(key: i64) -> i64 {
    key & ((1 << ORDINAL_BITS) - 1)
}

/// The badge's hash where the ordinal leaves room for it, without the sign.
fn badge_key(badge: &str) -> u64 {
    badge_hash(badge) >> 1 >> ORDINAL_BITS << ORDINAL_BITS
}

/// The badge of an entry that was judged good.
pub(super) fn named(canonical: &[u8]) -> Result<String, Fault> {
    badge_of(canonical).ok_or_else(|| Fault::Damaged("an entry without a badge".into()))
}

/// Compares the list that decides with the one that is built, both ascending by UID. A list that
/// cannot be read any more protects nobody: then the next one is taken without this guard.
struct Shrinkage {
    old: OldList,
    next: Option<(Uid, bool)>,
    usable: u64,
    lost: u64,
}

impl Shrinkage {
    fn open(current: &Path) -> Result<Shrinkage, Fault> {
        let mut old = OldList::open(current)?;
        let next = old.next_use()?;
        Ok(Shrinkage { old, next, usable: 0, lost: 0 })
    }

    fn note(&mut self, uid: Uid, usable: bool) {
        while let Some((old, was_usable)) = self.next {
            if old.as_bytes() > uid.as_bytes() {
                break;
            }
            self.count(was_usable, old == uid && usable);
        }
    }

    /// Usable badges of the old list, and how many of them are lost.
    fn finish(&mut self) -> (u64, u64) {
        while let Some((_, was_usable)) = self.next {
            self.count(was_usable, false);
        }
        (self.usable, self.lost)
    }

    fn count(&mut self, was_usable: bool, is_usable: bool) {
        self.usable += u64::from(was_usable);
        self.lost += u64::from(was_usable && !is_usable);
        self.next = self.old.next_use().unwrap_or_else(|error| {
            tracing::error!(?error, "the current allowlist cannot be read and guards nothing");
            (self.usable, self.lost) = (0, 0);
            None
        });
    }
}

/// A generation that was opened.
pub(super) struct Generation {
    pub(super) connection: Connection,
    pub(super) allowlist: Allowlist,
    pub(super) issued_at: Wall,
    /// The parts that it was pulled in.
    pub(super) parts: Vec<String>,
}

/// Opens a generation and computes its digest anew: bits rot, and a torn file must not decide.
pub(super) fn open_verified(path: &Path) -> Result<Generation, Fault> {
    let generation = open(path)?;
    database::check(&generation.connection)?;
    let (count, digest) = digest(&generation.connection)?;
    let Allowlist { count: expected, digest: of_head, .. } = &generation.allowlist;
    if (count, &digest) != (*expected, of_head) {
        return Err(Fault::Damaged("its entries are not those of its digest".into()));
    }
    let badges: i64 =
        generation.connection.query_row("SELECT count(*) FROM badge", [], |row| row.get(0))?;
    if unsigned(badges) != count {
        return Err(Fault::Damaged("it has not one badge an entry".into()));
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
    let (allowlist, issued_at) = read_head(&connection)?;
    let parts = connection
        .prepare("SELECT sha256 FROM part ORDER BY position")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Generation { connection, allowlist, issued_at, parts })
}

/// Which list it is, and when the cloud issued it.
pub(super) fn read_head(connection: &Connection) -> rusqlite::Result<(Allowlist, Wall)> {
    let sql = "SELECT list, version, digest, count, issued_at FROM head";
    connection.query_row(sql, [], |row| {
        let allowlist = Allowlist {
            list: row.get(0)?,
            version: unsigned(row.get(1)?),
            digest: row.get(2)?,
            count: unsigned(row.get(3)?),
        };
        Ok((allowlist, Wall(row.get(4)?)))
    })
}

/// Count and digest of the entries as they lie there, each under its own UID.
fn digest(connection: &Connection) -> Result<(u64, String), Fault> {
    let mut select = connection.prepare(
        "SELECT uid.uid, entry.canonical FROM uid
         CROSS JOIN entry ON entry.ordinal = uid.ordinal ORDER BY uid.uid",
    )?;
    let mut rows = select.query([])?;
    let (mut count, mut digest) = (0, ListDigest::default());
    while let Some(row) = rows.next()? {
        let uid: Vec<u8> = row.get(0)?;
        let canonical: Vec<u8> = row.get(1)?;
        if !names_uid(&canonical, &uid) {
            return Err(Fault::Damaged("an entry lies under another's UID".into()));
        }
        digest.add(&entry_hash(&canonical));
        count += 1;
    }
    Ok((count, digest.finish()))
}

fn names_uid(canonical: &[u8], uid: &[u8]) -> bool {
    let member = format!("\"uid\":\"{}\"", hex::encode_upper(uid));
    std::str::from_utf8(canonical).is_ok_and(|canonical| canonical.contains(&member))
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
