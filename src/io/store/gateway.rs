//! The gateway's own small state, which must outlive damage to the ledger: counters, clock floor,
//! marks, local blocks, and which allowlist decides.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::core::event::Allowlist;
use crate::core::ids::StationId;
use crate::core::time::{Stamp, Wall};
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::files::Files;
use crate::io::store::ledger::{signed, unsigned};
use crate::io::store::lookup::Lookup;
use crate::io::store::worker::Worker;
use crate::io::store::{database, schema};

/// Which allowlist decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) generation: u64,
    pub(super) allowlist: Allowlist,
    pub(super) issued_at: Wall,
    /// When a valid head arrived last.
    pub(super) arrived: Option<Stamp>,
    /// The parts that it was pulled in, by their hashes.
    pub(super) parts: Vec<String>,
}

/// The one connection to the gateway's state.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) connection: Connection,
    pub(super) files: Files,
    pub(super) current: Option<Current>,
    pub(super) lookup: Worker<Lookup>,
    /// What staging leaves free on the disk.
    pub(super) reserve_bytes: u64,
}

/// The counters as they are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) boot: u32,
    pub(super) boot_id: String,
    pub(super) connections: u64,
    pub(super) clock_floor: Wall,
    /// When the gateway was seen running last, beside its records.
    pub(super) seen: Option<Stamp>,
    pub(super) ledger_epoch: Option<String>,
}

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    database::open(path, &schema::GATEWAY)
}

/// The counters; `None` in a new database.
pub(super) fn counters(connection: &Connection) -> Result<Option<Counters>, Fault> {
    let sql = "SELECT boot, boot_id, connections, clock_floor, seen, ledger_epoch FROM gateway";
    let mut select = connection.prepare(sql)?;
    let mut rows = select.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Counters {
        boot: row.get(0)?,
        boot_id: row.get(1)?,
        connections: unsigned(row.get(2)?),
        clock_floor: Wall(row.get(3)?),
        seen: parse_stamp(row.get(4)?)?,
        ledger_epoch: row.get(5)?,
    }))
}

pub(super) fn save_counters(connection: &Connection, counters: &Counters) -> rusqlite::Result<()> {
    let Counters { boot, boot_id, connections, clock_floor, seen, ledger_epoch } = counters;
    let sql = "INSERT OR REPLACE INTO gateway
               (id, boot, boot_id, connections, clock_floor, seen, ledger_epoch)
               VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)";
    let seen = seen.as_ref().map(stamp_json);
    let values = params![boot, boot_id, signed(*connections), clock_floor.0, seen, ledger_epoch];
    connection.execute(sql, values).map(drop)
}

/// The generation that was current, and when its head arrived last.
pub(super) fn pointer(connection: &Connection) -> Result<Option<(u64, Option<Stamp>)>, Fault> {
    let row: Option<(i64, Option<String>)> = connection
        .query_row("SELECT generation, arrived FROM allowlist", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((generation, arrived)) = row else { return Ok(None) };
    Ok(Some((unsigned(generation), parse_stamp(arrived)?)))
}

fn stamp_json(stamp: &Stamp) -> String {
    serde_json::to_string(stamp).expect("a stamp is plain JSON")
}

fn parse_stamp(json: Option<String>) -> Result<Option<Stamp>, Fault> {
    let stamp = json.as_deref().map(serde_json::from_str).transpose();
    stamp.map_err(|error| Fault::Damaged(error.to_string()))
}

pub(super) fn save_pointer(
    connection: &Connection,
    generation: u64,
    arrived: Option<Stamp>,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO allowlist (id, generation, arrived) VALUES (1, ?1, ?2)",
            params![signed(generation), arrived.as_ref().map(stamp_json)],
        )
        .map(drop)
}

/// The stations that are out of service, with their notes.
pub(super) fn out_of_service(
    connection: &Connection,
) -> rusqlite::Result<Vec<(StationId, Option<String>)>> {
    let mut select = connection.prepare("SELECT station, note FROM out_of_service")?;
    let marks = select.query_map([], |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))?;
    marks.collect()
}

impl Gateway {
    /// The number of the connection that is about to be made; grows for ever.
    pub(super) fn next_connection(&mut self) -> Result<u64, StoreError> {
        self.within_transaction("count a connection in", |transaction| {
            let sql = "UPDATE gateway SET connections = connections + 1 RETURNING connections";
            Ok(unsigned(transaction.query_row(sql, [], |row| row.get(0))?))
        })
    }

    pub(super) fn take_out_of_service(
        &mut self,
        station: &StationId,
        note: Option<&str>,
    ) -> Result<(), StoreError> {
        self.within_transaction("mark a station in", |transaction| {
            let sql = "INSERT OR REPLACE INTO out_of_service (station, note) VALUES (?1, ?2)";
            transaction.execute(sql, params![station.as_str(), note])?;
            Ok(())
        })
    }

    pub(super) fn return_to_service(&mut self, station: &StationId) -> Result<(), StoreError> {
        self.within_transaction("mark a station in", |transaction| {
            let sql = "DELETE FROM out_of_service WHERE station = ?1";
            transaction.execute(sql, [station.as_str()])?;
            Ok(())
        })
    }

    /// The stations that are out of service, with their notes.
    pub(super) fn marks(&self) -> Result<Vec<(StationId, Option<String>)>, StoreError> {
        out_of_service(&self.connection)
            .map_err(|error| Fault::Sqlite(error).at("read marks in", &self.files.gateway))
    }

    /// Only a trustworthy clock sets the floor, and may set it back.
    pub(super) fn keep_time(&mut self, now: Stamp) -> Result<(), StoreError> {
        self.within_transaction("keep the time in", |transaction| {
            transaction.execute("UPDATE gateway SET seen = ?1", [stamp_json(&now)])?;
            if now.synced {
                transaction.execute("UPDATE gateway SET clock_floor = ?1", [now.wall.0])?;
            }
            Ok(())
        })
    }

    pub(super) fn within_transaction<R>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        let run = || -> Result<R, Fault> {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|fault| fault.at(doing, &self.files.gateway))
    }
}
