//! Looks badges up in the current allowlist, on a thread that never waits for a disk sync.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::{Map, Value};

use crate::core::access::Entry;
use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::core::ids::BadgeId;
use crate::core::time::Wall;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::generation::{badge_keys, ordinal_of, read_head};
use crate::protocol::allowlist::parse_entry;

/// The reading side of the current generation, with the local blocks over it.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    pub(super) current: Option<(Connection, PathBuf)>,
    pub(super) blocked: BTreeSet<Uid>,
}

impl Lookup {
    /// What the allowlist says of a badge now; `None` where it is not in it.
    pub(super) fn by_uid(&self, uid: Uid) -> Result<Option<Entry>, StoreError> {
        let Some((connection, _)) = &self.current else { return Ok(None) };
        let found = by_uid(connection, uid).map_err(|fault| self.failed(fault))?;
        Ok(found.map(|entry| self.with_block(uid, entry)))
    }

    /// The same by the operator's id of the badge.
    pub(super) fn by_badge(&self, badge: &BadgeId) -> Result<Option<(Uid, Entry)>, StoreError> {
        let Some((connection, _)) = &self.current else { return Ok(None) };
        let found = by_badge(connection, badge).map_err(|fault| self.failed(fault))?;
        Ok(found.map(|(uid, entry)| (uid, self.with_block(uid, entry))))
    }

    /// Everything that is known of a badge, the entry as received included.
    pub(super) fn record(&self, uid: Uid) -> Result<BadgeRecord, StoreError> {
        let locally_blocked = self.blocked.contains(&uid);
        let unknown = BadgeRecord { entry: None, listed: None, locally_blocked };
        let Some((connection, _)) = &self.current else { return Ok(unknown) };
        let found = rows(connection, BY_UID, [uid.as_bytes()]);
        let found = found.map_err(|fault| self.failed(fault))?;
        Ok(found.into_iter().next().map_or(unknown, |found| self.record_of(found)))
    }

    /// The first badges after this one, in order of their UIDs; none after one that the list does
    /// not know.
    pub(super) fn badges(
        &self,
        after: Option<&BadgeId>,
        limit: usize,
    ) -> Result<Vec<BadgeRecord>, StoreError> {
        let Some((connection, _)) = &self.current else { return Ok(Vec::new()) };
        let read = || -> Result<Vec<Row>, Fault> {
            let after = match after {
                Some(badge) => match by_badge(connection, badge)? {
                    Some((uid, _)) => uid.as_bytes().to_vec(),
                    None => return Ok(Vec::new()),
                },
                None => Vec::new(),
            };
            let sql = "SELECT entry.canonical FROM uid
                       CROSS JOIN entry ON entry.ordinal = uid.ordinal
                       WHERE uid.uid > ?1 ORDER BY uid.uid LIMIT ?2";
            rows(connection, sql, rusqlite::params![after, limit as i64])
        };
        let found = read().map_err(|fault| self.failed(fault))?;
        Ok(found.into_iter().map(|found| self.record_of(found)).collect())
    }

    fn record_of(&self, (uid, entry, mut listed): Row) -> BadgeRecord {
        listed.remove("uid");
        BadgeRecord {
            entry: Some(self.with_block(uid, entry)),
            listed: Some(listed),
            locally_blocked: self.blocked.contains(&uid),
        }
    }

    /// Entries after a UID, in order, as the digest covers them; for reading a whole list by the
    /// page. With the list that they are of, since another may decide before the next page.
    pub(super) fn page(&self, after: Option<Uid>, most: usize) -> Result<Page, StoreError> {
        let Some((connection, path)) = &self.current else { return Ok(Page::default()) };
        read_page(connection, after, most).map_err(|fault| fault.at("read", path))
    }

    fn with_block(&self, uid: Uid, mut entry: Entry) -> Entry {
        entry.blocked |= self.blocked.contains(&uid);
        entry
    }

    fn failed(&self, fault: Fault) -> StoreError {
        let path = self.current.as_ref().map(|(_, path)| path.clone()).unwrap_or_default();
        fault.at("look a badge up in", &path)
    }
}

/// All that the store knows of a badge.
#[derive(Clone, Debug, PartialEq)]
pub struct BadgeRecord {
    /// What decides: the allowlist's entry with the local block over it.
    pub entry: Option<Entry>,
    /// The entry as received, without its UID.
    pub listed: Option<Map<String, Value>>,
    /// Whether it is blocked on this gateway.
    pub locally_blocked: bool,
}

/// An entry, read and as received.
type Row = (Uid, Entry, Map<String, Value>);

fn rows(
    list: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<Row>, Fault> {
    let mut select = list.prepare_cached(sql)?;
    let mut rows = select.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let canonical: Vec<u8> = row.get(0)?;
        found.push(row_of(&canonical)?);
    }
    Ok(found)
}

fn row_of(canonical: &[u8]) -> Result<Row, Fault> {
    let value: Value = serde_json::from_slice(canonical)
        .map_err(|_| Fault::Damaged("an entry is not JSON".into()))?;
    let (uid, entry) = parse_entry(&value)
        .map_err(|bad| Fault::Damaged(format!("an entry has a bad {}", bad.field)))?;
    match value {
        Value::Object(listed) => Ok((uid, entry, listed)),
        _ => Err(Fault::Damaged("an entry is no object".into())),
    }
}

/// One entry; the tables are joined in this order.
const BY_UID: &str = "SELECT entry.canonical FROM uid
     CROSS JOIN entry ON entry.ordinal = uid.ordinal WHERE uid.uid = ?1";

/// What a list says of a badge.
pub(super) fn by_uid(list: &Connection, uid: Uid) -> Result<Option<Entry>, Fault> {
    match read(list, BY_UID, uid.as_bytes())? {
        Some((found, _)) if found != uid => {
            Err(Fault::Damaged("an entry lies under another's UID".into()))
        }
        found => Ok(found.map(|(_, entry)| entry)),
    }
}

/// What a list says of a badge by the operator's id of it. Other badges' hashes may begin alike.
fn by_badge(list: &Connection, badge: &BadgeId) -> Result<Option<(Uid, Entry)>, Fault> {
    let (first, last) = badge_keys(badge.as_str());
    let keys: Vec<i64> = list
        .prepare_cached("SELECT key FROM badge WHERE key BETWEEN ?1 AND ?2")?
        .query_map([first, last], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in keys {
        let sql = "SELECT canonical FROM entry WHERE ordinal = ?1";
        let found = read(list, sql, ordinal_of(key))?;
        if let Some((uid, entry)) = found.filter(|(_, entry)| entry.badge == *badge) {
            return Ok(Some((uid, entry)));
        }
    }
    Ok(None)
}

/// A list without its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageHead {
    /// Which.
    pub allowlist: Allowlist,
    /// When the cloud issued it.
    pub issued_at: Wall,
}

/// Consecutive entries of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The list; `None` where there is none yet.
    pub head: Option<PageHead>,
    /// UIDs and entries, canonical.
    pub entries: Vec<(Uid, String)>,
}

fn read_page(list: &Connection, after: Option<Uid>, most: usize) -> Result<Page, Fault> {
    let (allowlist, issued_at) = read_head(list)?;
    let mut select = list.prepare_cached(
        "SELECT uid.uid, entry.canonical FROM uid
         CROSS JOIN entry ON entry.ordinal = uid.ordinal
         WHERE uid.uid > ?1 ORDER BY uid.uid LIMIT ?2",
    )?;
    let after = after.as_ref().map_or(&[][..], |uid| uid.as_bytes());
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = select.query(rusqlite::params![after, most])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let uid = Uid::new(&row.get::<_, Vec<u8>>(0)?)
            .ok_or_else(|| Fault::Damaged("an entry has no UID".into()))?;
        let canonical = String::from_utf8(row.get(1)?)
            .map_err(|_| Fault::Damaged("an entry is not UTF-8".into()))?;
        entries.push((uid, canonical));
    }
    Ok(Page { head: Some(PageHead { allowlist, issued_at }), entries })
}

/// Reads one entry; its bytes were judged good when the list was applied.
fn read(
    connection: &Connection,
    sql: &str,
    key: impl rusqlite::ToSql,
) -> Result<Option<(Uid, Entry)>, Fault> {
    let found = rows(connection, sql, [key])?.into_iter().next();
    Ok(found.map(|(uid, entry, _)| (uid, entry)))
}
