//! What became of the cloud's commands, and which stations it was shown: small facts that must
//! outlive a restart so that no command acts twice and no station haunts a portal.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use crate::core::ids::StationId;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::gateway::Gateway;
use crate::io::store::ledger::{signed, unsigned};

/// Replies that are kept, by the contract. The oldest goes.
pub const MAX_REPLIES: u64 = 256;

/// Stations whose retained state may still lie at a broker; the one named longest ago goes.
const MAX_SHOWN_STATIONS: u64 = 512;

/// A command and its newest reply, both as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptReply {
    /// The command's id.
    pub id: String,
    /// What was begun, for whoever has to go on with it after a restart.
    pub command: String,
    /// The reply.
    pub reply: String,
    /// Whether the broker has taken it.
    pub delivered: bool,
}

impl Gateway {
    /// The reply to a command that came before; `None` for a new one.
    pub(super) fn reply(&self, id: &str) -> Result<Option<KeptReply>, StoreError> {
        let sql = "SELECT id, command, reply, delivered FROM reply WHERE id = ?1";
        let found = self.connection.query_row(sql, [id], kept).optional();
        found.map_err(|error| Fault::Sqlite(error).at("read a reply in", &self.files.gateway))
    }

    /// Keeps a command's newest reply.
    pub(super) fn keep_reply(&mut self, kept: &KeptReply) -> Result<(), StoreError> {
        self.within_transaction("keep a reply in", |transaction| {
            transaction.execute(
                "INSERT INTO reply (id, command, reply, delivered) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET reply = ?3, delivered = ?4",
                params![kept.id, kept.command, kept.reply, kept.delivered],
            )?;
            let newest: i64 =
                transaction.query_row("SELECT max(number) FROM reply", [], |row| row.get(0))?;
            let oldest = signed(unsigned(newest).saturating_sub(MAX_REPLIES));
            transaction.execute("DELETE FROM reply WHERE number <= ?1", [oldest])?;
            Ok(())
        })
    }

    /// The broker has taken this reply; another one that came meanwhile stays to be sent.
    pub(super) fn reply_delivered(&mut self, id: &str, reply: &str) -> Result<(), StoreError> {
        self.within_transaction("keep a reply in", |transaction| {
            let sql = "UPDATE reply SET delivered = 1 WHERE id = ?1 AND reply = ?2";
            transaction.execute(sql, [id, reply])?;
            Ok(())
        })
    }

    /// All kept replies, oldest first.
    pub(super) fn replies(&self) -> Result<Vec<KeptReply>, StoreError> {
        let read = || -> rusqlite::Result<Vec<KeptReply>> {
            let sql = "SELECT id, command, reply, delivered FROM reply ORDER BY number";
            self.connection.prepare(sql)?.query_map([], kept)?.collect()
        };
        read().map_err(|error| Fault::Sqlite(error).at("read replies in", &self.files.gateway))
    }

    /// Remembers the stations of this config, and gives those that were shown before and are gone.
    pub(super) fn show_stations(
        &mut self,
        stations: &[StationId],
    ) -> Result<Vec<StationId>, StoreError> {
        self.within_transaction("remember stations in", |transaction| {
            let known: BTreeSet<StationId> = transaction
                .prepare("SELECT station FROM shown_station")?
                .query_map([], |row| row.get::<_, String>(0))?
                .map(|name| name.map(StationId::from))
                .collect::<Result<_, _>>()?;
            for station in stations.iter().filter(|station| !known.contains(*station)) {
                let sql = "INSERT INTO shown_station (station) VALUES (?1)";
                transaction.execute(sql, [station.as_str()])?;
            }
            transaction.execute(
                "DELETE FROM shown_station WHERE number <=
                     (SELECT max(number) FROM shown_station) - ?1",
                [signed(MAX_SHOWN_STATIONS)],
            )?;
            Ok(known.into_iter().filter(|station| !stations.contains(station)).collect())
        })
    }

    /// The ledger's epoch, for the day on which its file cannot be read.
    pub(super) fn note_epoch(&mut self, epoch: &str) -> Result<(), StoreError> {
        self.within_transaction("note the epoch in", |transaction| {
            transaction.execute("UPDATE gateway SET ledger_epoch = ?1", [epoch])?;
            Ok(())
        })
    }
}

fn kept(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeptReply> {
    Ok(KeptReply {
        id: row.get(0)?,
        command: row.get(1)?,
        reply: row.get(2)?,
        delivered: row.get(3)?,
    })
}
