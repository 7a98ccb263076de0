//! Looks badges up in the current allowlist, on a thread that never waits for a disk sync.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::{Map, Value};

use crate::core::access::Entry;
use crate::core::badge::Uid;
use crate::core::ids::BadgeId;
use crate::io::store::error::{Fault, StoreError};
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
        let sql = "SELECT canonical FROM entry WHERE badge = ?1";
        let found = read(connection, sql, badge.as_str()).map_err(|fault| self.failed(fault))?;
        Ok(found.map(|(uid, entry)| (uid, self.with_block(uid, entry))))
    }

    /// Everything that is known of a badge, the entry as received included.
    pub(super) fn record(&self, uid: Uid) -> Result<BadgeRecord, StoreError> {
        let locally_blocked = self.blocked.contains(&uid);
        let unknown = BadgeRecord { entry: None, listed: None, locally_blocked };
        let Some((connection, _)) = &self.current else { return Ok(unknown) };
        let sql = "SELECT canonical FROM entry WHERE uid = ?1";
        let found = rows(connection, sql, [uid.as_bytes()]).map_err(|fault| self.failed(fault))?;
        Ok(found.into_iter().next().map_or(unknown, |found| self.record_of(found)))
    }

    /// The first badges after this id, in order of their ids.
    pub(super) fn page(
        &self,
        after: Option<&BadgeId>,
        limit: usize,
    ) -> Result<Vec<BadgeRecord>, StoreError> {
        let Some((connection, _)) = &self.current else { return Ok(Vec::new()) };
        let sql = "SELECT canonical FROM entry WHERE badge > ?1 ORDER BY badge LIMIT ?2";
        // Every id is longer than nothing.
        let after = after.map_or("", BadgeId::as_str);
        let found = rows(connection, sql, rusqlite::params![after, limit as i64]);
        let found = found.map_err(|fault| self.failed(fault))?;
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

/// What a list says of a badge.
pub(super) fn by_uid(list: &Connection, uid: Uid) -> Result<Option<Entry>, Fault> {
    match read(list, "SELECT canonical FROM entry WHERE uid = ?1", uid.as_bytes())? {
        Some((found, _)) if found != uid => {
            Err(Fault::Damaged("an entry lies under another's UID".into()))
        }
        found => Ok(found.map(|(_, entry)| entry)),
    }
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
