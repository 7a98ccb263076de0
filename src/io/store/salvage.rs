//! What can still be read of a ledger that was set aside: its accounts, if they are whole, and the
//! records that the cloud may not have.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::core::ledger::Record;
use crate::io::store::books::Books;
use crate::io::store::epoch::Carried;
use crate::io::store::error::Fault;
use crate::io::store::ledger::{self, Hash, Previous, signed};
use crate::io::store::verify::Bounds;
use crate::io::store::{accounts, database};

/// The remains of a ledger.
#[derive(Default)]
pub(super) struct Remains {
    /// Its epoch and newest record, where they can be read.
    pub(super) previous: Previous,
    /// Its accounts; empty where they cannot be trusted.
    pub(super) books: Books,
    /// The file, and the next record of it that may have to be carried.
    records: Option<(Connection, u64, u64)>,
}

impl Remains {
    /// Reads what is left; nothing at all where the file is too damaged for that.
    pub(super) fn of(aside: &Path) -> Remains {
        let Ok(connection) = database::open_remains(aside) else { return Remains::default() };
        let Ok(head) = ledger::head(&connection) else { return Remains::default() };
        let bounds = Bounds::read(&connection).ok();
        let acked = bounds.as_ref().map_or(0, |bounds| bounds.acked);
        let books = whole_books(&connection).or_else(|| rebuilt_books(&connection, head.seq));
        Remains {
            previous: Previous {
                epoch: Some(head.epoch.clone()),
                last: Some((head.seq, head.hash)),
            },
            books: books.unwrap_or_default(),
            records: Some((connection, acked + 1, head.seq)),
        }
    }

    /// The next record that the cloud may not have. One that cannot be read is left out: the ones
    /// after it count all the same.
    pub(super) fn next_carried(&mut self) -> Option<Carried> {
        let epoch = self.previous.epoch.clone()?;
        let (connection, next, last) = self.records.as_mut()?;
        while *next <= *last {
            let seq = *next;
            *next += 1;
            let found = connection
                .prepare_cached("SELECT hash, bytes FROM record WHERE seq = ?1")
                .and_then(|mut select| {
                    let row = |row: &Row<'_>| Ok((row.get::<_, Hash>(0)?, row.get(1)?));
                    let found: Option<(Hash, Vec<u8>)> =
                        select.query_row(params![signed(seq)], row).optional()?;
                    Ok(found)
                });
            match found {
                Ok(Some((hash, bytes))) if is_record(&bytes) => {
                    return Some(Carried { epoch, seq, hash, bytes });
                }
                Ok(Some(_) | None) | Err(_) => {
                    tracing::error!(record = seq, "cannot be read in the ledger set aside");
                }
            }
        }
        None
    }
}

fn is_record(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Record>(bytes).is_ok()
}

/// The accounts as they are kept, where they balance.
fn whole_books(connection: &Connection) -> Option<Books> {
    accounts::load(connection).ok().filter(|books| books.check().is_ok())
}

/// The accounts as the records give them, where every one of them can be read.
fn rebuilt_books(connection: &Connection, head: u64) -> Option<Books> {
    let replay = || -> Result<Books, Fault> {
        let mut books = Books::default();
        let mut select = connection.prepare("SELECT seq, bytes FROM record ORDER BY seq")?;
        let mut rows = select.query([])?;
        let mut last = 0;
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let record: Record =
                serde_json::from_slice(bytes).map_err(|error| Fault::Damaged(error.to_string()))?;
            last += 1;
            if ledger::unsigned(row.get(0)?) != last {
                return Err(Fault::Damaged(format!("record {last} is missing")));
            }
            books.post(record.at, &record.fact).map_err(Fault::Damaged)?;
        }
        if last == head { Ok(books) } else { Err(Fault::Damaged("records are missing".into())) }
    };
    replay().ok()
}
