//! Open sessions and meters as rows.

use rusqlite::{Connection, Row, Transaction, params};

use crate::core::badge::Uid;
use crate::core::ids::DeviceId;
use crate::core::ledger::SessionStart;
use crate::io::store::books::{Books, MeterAccount, OpenSession};
use crate::io::store::error::Fault;

/// All of them: a building has some dozens.
pub(super) fn load(connection: &Connection) -> Result<Books, Fault> {
    let mut books = Books::default();
    let mut meters = connection.prepare_cached(
        "SELECT meter, station, serial, first_wh, last_wh, last_at, sessions_wh, open_wh,
                unattributed_wh, replaced_wh FROM meter",
    )?;
    let mut rows = meters.query([])?;
    while let Some(row) = rows.next()? {
        let account = account(row)?;
        books.meters.insert(account.meter.clone(), account);
    }
    let mut sessions = connection.prepare_cached(
        "SELECT start, uid, started, posted_wh, ending, ending_at FROM open_session",
    )?;
    let mut rows = sessions.query([])?;
    while let Some(row) = rows.next()? {
        let session = session(row)?;
        books.open.insert(session.start.session, session);
    }
    Ok(books)
}

/// Writes what differs.
pub(super) fn save(
    transaction: &Transaction<'_>,
    before: &Books,
    after: &Books,
) -> Result<(), Fault> {
    // Ended sessions first: their station is free for the next one.
    for id in before.open.keys().filter(|id| !after.open.contains_key(id)) {
        transaction
            .prepare_cached("DELETE FROM open_session WHERE session = ?1")?
            .execute([id.to_string()])?;
    }
    for (id, session) in &after.open {
        if before.open.get(id) != Some(session) {
            save_session(transaction, session)?;
        }
    }
    for (meter, account) in &after.meters {
        if before.meters.get(meter) != Some(account) {
            save_account(transaction, account)?;
        }
    }
    Ok(())
}

fn save_session(transaction: &Transaction<'_>, session: &OpenSession) -> Result<(), Fault> {
    let start = &session.start;
    let (ending, ending_at) = session.ending.unzip();
    transaction
        .prepare_cached(
            "INSERT INTO open_session (session, station, meter, start, uid, started, posted_wh,
                 ending, ending_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (session) DO UPDATE SET posted_wh = excluded.posted_wh,
                 ending = excluded.ending, ending_at = excluded.ending_at",
        )?
        .execute(params![
            start.session.to_string(),
            start.station.as_str(),
            start.meter.as_ref().map(DeviceId::as_str),
            to_json(start),
            start.uid.as_ref().map(Uid::as_bytes),
            to_json(&session.started),
            session.posted_wh,
            ending.as_ref().map(to_json),
            ending_at.as_ref().map(to_json),
        ])?;
    Ok(())
}

fn save_account(transaction: &Transaction<'_>, account: &MeterAccount) -> Result<(), Fault> {
    transaction
        .prepare_cached(
            "INSERT INTO meter (meter, station, serial, first_wh, last_wh, last_at, sessions_wh,
                 open_wh, unattributed_wh, replaced_wh)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (meter) DO UPDATE SET station = excluded.station,
                 serial = excluded.serial, last_wh = excluded.last_wh, last_at = excluded.last_at,
                 sessions_wh = excluded.sessions_wh, open_wh = excluded.open_wh,
                 unattributed_wh = excluded.unattributed_wh, replaced_wh = excluded.replaced_wh",
        )?
        .execute(params![
            account.meter.as_str(),
            account.station.as_str(),
            account.serial,
            account.first_wh,
            account.last_wh,
            to_json(&account.last_at),
            account.sessions_wh,
            account.open_wh,
            account.unattributed_wh,
            account.replaced_wh,
        ])?;
    Ok(())
}

fn account(row: &Row<'_>) -> Result<MeterAccount, Fault> {
    Ok(MeterAccount {
        meter: row.get::<_, String>(0)?.into(),
        station: row.get::<_, String>(1)?.into(),
        serial: row.get(2)?,
        first_wh: row.get(3)?,
        last_wh: row.get(4)?,
        last_at: from_json(&row.get::<_, String>(5)?)?,
        sessions_wh: row.get(6)?,
        open_wh: row.get(7)?,
        unattributed_wh: row.get(8)?,
        replaced_wh: row.get(9)?,
    })
}

fn session(row: &Row<'_>) -> Result<OpenSession, Fault> {
    let mut start: SessionStart = from_json(&row.get::<_, String>(0)?)?;
    start.uid = row.get::<_, Option<Vec<u8>>>(1)?.as_deref().and_then(Uid::new);
    let ending = row.get::<_, Option<String>>(4)?.as_deref().map(from_json).transpose()?;
    let ending_at = row.get::<_, Option<String>>(5)?.as_deref().map(from_json).transpose()?;
    Ok(OpenSession {
        start,
        started: from_json(&row.get::<_, String>(2)?)?,
        posted_wh: row.get(3)?,
        ending: ending.zip(ending_at),
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("facts are plain JSON")
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Damaged(error.to_string()))
}
