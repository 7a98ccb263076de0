//! The list that decides, read in order and a page at a time while the next one is built.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::Connection;

use crate::core::badge::Uid;
use crate::io::store::database;
use crate::io::store::error::Fault;
use crate::io::store::generation::LOOKUP_CACHE_KIB;

/// Entries read at once: some 30 KiB.
const PAGE: usize = 256;

/// An entry as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::io::store) struct OldEntry {
    pub(in crate::io::store) uid: Uid,
    pub(in crate::io::store) usable: bool,
    /// Empty where only its use was asked for.
    pub(in crate::io::store) canonical: Vec<u8>,
}

/// A place in a list.
#[derive(Debug)]
pub(in crate::io::store) struct OldList {
    connection: Connection,
    page: VecDeque<OldEntry>,
    /// The last one that was read.
    last: Option<Uid>,
}

impl OldList {
    /// Before the first entry.
    pub(in crate::io::store) fn open(path: &Path) -> Result<OldList, Fault> {
        let connection = database::open_to_read(path, LOOKUP_CACHE_KIB)?;
        Ok(OldList { connection, page: VecDeque::new(), last: None })
    }

    /// The next UID, and whether its badge opens anything.
    pub(in crate::io::store) fn next_use(&mut self) -> Result<Option<(Uid, bool)>, Fault> {
        let next =
            self.next("SELECT uid, usable, x'' FROM uid WHERE uid > ?1 ORDER BY uid LIMIT ?2");
        Ok(next?.map(|entry| (entry.uid, entry.usable)))
    }

    /// The next entry.
    pub(in crate::io::store) fn next_entry(&mut self) -> Result<Option<OldEntry>, Fault> {
        self.next(
            "SELECT uid.uid, uid.usable, entry.canonical FROM uid
             CROSS JOIN entry ON entry.ordinal = uid.ordinal
             WHERE uid.uid > ?1 ORDER BY uid.uid LIMIT ?2",
        )
    }

    fn next(&mut self, sql: &str) -> Result<Option<OldEntry>, Fault> {
        if self.page.is_empty() {
            self.read(sql)?;
        }
        Ok(self.page.pop_front())
    }

    fn read(&mut self, sql: &str) -> Result<(), Fault> {
        let mut select = self.connection.prepare_cached(sql)?;
        let after = self.last.as_ref().map_or(&[][..], |uid| uid.as_bytes());
        let mut rows = select.query(rusqlite::params![after, PAGE as i64])?;
        while let Some(row) = rows.next()? {
            let uid = Uid::new(&row.get::<_, Vec<u8>>(0)?)
                .ok_or_else(|| Fault::Damaged("an entry has no UID".into()))?;
            let entry = OldEntry { uid, usable: row.get(1)?, canonical: row.get(2)? };
            self.page.push_back(entry);
        }
        self.last = self.page.back().map(|entry| entry.uid).or(self.last);
        Ok(())
    }
}
