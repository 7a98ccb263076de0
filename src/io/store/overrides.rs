//! Local blocks: a badge that somebody on site blocked stays so until a list says it too, or the
//! block is cleared. Each change leaves a note until the ledger has its record.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::core::badge::Uid;
use crate::core::ids::BadgeId;
use crate::core::ledger::OverrideAction;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::gateway::Gateway;
use crate::io::store::ledger::unsigned;
use crate::io::store::lookup;

/// Badges that can be blocked locally at once: each block ends with the next list that knows of it,
/// so more than this mean a mistake.
pub const MAX_LOCAL_BLOCKS: u64 = 1000;

/// Who ends a block that a list has made needless.
const BY_LIST: &str = "allowlist";

/// A badge that was blocked on site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalBlock {
    /// Its UID.
    pub uid: Uid,
    /// The operator's id of it, where the allowlist knew it.
    pub badge: Option<BadgeId>,
}

/// A change of a local block that the ledger may not hold yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideNote {
    /// Grows with every change.
    pub id: u64,
    /// Where the allowlist knew it.
    pub badge: Option<BadgeId>,
    /// What happened.
    pub action: OverrideAction,
    /// Who or what did it.
    pub by: String,
}

impl Gateway {
    /// Blocks a badge from the next tap on; tells whether it was not blocked locally before.
    pub(super) fn block(
        &mut self,
        uid: Uid,
        badge: Option<&BadgeId>,
        by: &str,
    ) -> Result<bool, StoreError> {
        self.change_blocks(|transaction| {
            let count: i64 =
                transaction.query_row("SELECT count(*) FROM local_block", [], |row| row.get(0))?;
            let sql = "SELECT 1 FROM local_block WHERE uid = ?1";
            let known = transaction.query_row(sql, [uid.as_bytes()], |_| Ok(())).optional()?;
            if known.is_some() {
                return Ok(Ok(false));
            }
            if unsigned(count) >= MAX_LOCAL_BLOCKS {
                return Ok(Err(StoreError::Limit {
                    doing: "block a badge locally",
                    limit: "1000 local blocks",
                    remedy: "block badges in the allowlist",
                }));
            }
            let sql = "INSERT INTO local_block (uid, badge) VALUES (?1, ?2)";
            transaction.execute(sql, params![uid.as_bytes(), badge.map(BadgeId::as_str)])?;
            note(transaction, badge.map(BadgeId::as_str), OverrideAction::Blocked, by)?;
            Ok(Ok(true))
        })?
    }

    /// Ends a local block; tells whether there was one.
    pub(super) fn unblock(&mut self, uid: Uid, by: &str) -> Result<bool, StoreError> {
        self.change_blocks(|transaction| end(transaction, uid, by))
    }

    /// The badges that are blocked locally, in order of their UIDs.
    pub(super) fn local_blocks(&self) -> Result<Vec<LocalBlock>, StoreError> {
        let read = || -> Result<Vec<LocalBlock>, Fault> {
            let sql = "SELECT uid, badge FROM local_block ORDER BY uid";
            let mut select = self.connection.prepare(sql)?;
            let mut rows = select.query([])?;
            let mut blocks = Vec::new();
            while let Some(row) = rows.next()? {
                let badge: Option<String> = row.get(1)?;
                let uid = Uid::new(&row.get::<_, Vec<u8>>(0)?);
                blocks.extend(uid.map(|uid| LocalBlock { uid, badge: badge.map(BadgeId::from) }));
            }
            Ok(blocks)
        };
        read().map_err(|fault| fault.at("read", &self.files.gateway))
    }

    /// The changes that the ledger may not hold yet, oldest first.
    pub(super) fn override_notes(&self) -> Result<Vec<OverrideNote>, StoreError> {
        let read = || -> rusqlite::Result<Vec<OverrideNote>> {
            let sql = "SELECT id, badge, cleared, by FROM override_note ORDER BY id";
            let mut select = self.connection.prepare(sql)?;
            let notes = select.query_map([], |row| {
                let badge: Option<String> = row.get(1)?;
                let action =
                    if row.get(2)? { OverrideAction::Cleared } else { OverrideAction::Blocked };
                let id = unsigned(row.get(0)?);
                Ok(OverrideNote { id, badge: badge.map(BadgeId::from), action, by: row.get(3)? })
            })?;
            notes.collect()
        };
        read().map_err(|error| Fault::Sqlite(error).at("read", &self.files.gateway))
    }

    /// The ledger holds the changes up to this one.
    pub(super) fn forget_override_notes(&mut self, upto: u64) -> Result<(), StoreError> {
        self.within_transaction("keep changes of blocks in", |transaction| {
            let upto = i64::try_from(upto).unwrap_or(i64::MAX);
            transaction.execute("DELETE FROM override_note WHERE id <= ?1", [upto])?;
            Ok(())
        })
    }

    /// Changes the blocks on disk, then what the lookups see.
    fn change_blocks<R>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        let (result, blocked) = self.within_transaction("block a badge in", |transaction| {
            let result = change(transaction)?;
            Ok((result, blocked(transaction)?))
        })?;
        self.lookup.run_blocking(|lookup| lookup.blocked = blocked)?;
        Ok(result)
    }
}

/// The badges that are blocked locally.
pub(super) fn blocked(connection: &Connection) -> rusqlite::Result<BTreeSet<Uid>> {
    let mut select = connection.prepare("SELECT uid FROM local_block")?;
    let uids = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
    uids.filter_map(|uid| uid.map(|uid| Uid::new(&uid)).transpose()).collect()
}

/// Deletes the local blocks that the new list makes needless.
pub(super) fn end_needless(
    transaction: &Transaction<'_>,
    list: &Connection,
) -> Result<Vec<Uid>, Fault> {
    let mut ended = Vec::new();
    for uid in blocked(transaction)? {
        let found = lookup::by_uid(list, uid)?;
        if found.is_none_or(|entry| entry.blocked) {
            end(transaction, uid, BY_LIST)?;
            ended.push(uid);
        }
    }
    Ok(ended)
}

fn end(transaction: &Transaction<'_>, uid: Uid, by: &str) -> Result<bool, Fault> {
    let sql = "DELETE FROM local_block WHERE uid = ?1 RETURNING badge";
    let ended: Option<Option<String>> =
        transaction.query_row(sql, [uid.as_bytes()], |row| row.get(0)).optional()?;
    let Some(badge) = ended else { return Ok(false) };
    note(transaction, badge.as_deref(), OverrideAction::Cleared, by)?;
    Ok(true)
}

fn note(
    transaction: &Transaction<'_>,
    badge: Option<&str>,
    action: OverrideAction,
    by: &str,
) -> Result<(), Fault> {
    let sql = "INSERT INTO override_note (badge, cleared, by) VALUES (?1, ?2, ?3)";
    transaction.execute(sql, params![badge, action == OverrideAction::Cleared, by])?;
    Ok(())
}
