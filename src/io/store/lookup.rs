//! Looks badges up in the current allowlist, on a thread that never waits for a disk sync.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension};

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

    fn with_block(&self, uid: Uid, mut entry: Entry) -> Entry {
        entry.blocked |= self.blocked.contains(&uid);
        entry
    }

    fn failed(&self, fault: Fault) -> StoreError {
        let path = self.current.as_ref().map(|(_, path)| path.clone()).unwrap_or_default();
        fault.at("look a badge up in", &path)
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
    let canonical: Option<Vec<u8>> =
        connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
    let Some(canonical) = canonical else { return Ok(None) };
    let value = serde_json::from_slice(&canonical)
        .map_err(|_| Fault::Damaged("an entry is not JSON".into()))?;
    parse_entry(&value)
        .map(Some)
        .map_err(|bad| Fault::Damaged(format!("an entry has a bad {}", bad.field)))
}
