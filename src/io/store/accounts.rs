//! Open sessions and meters as rows.

use rusqlite::{Connection, Row, Transaction, params};

use crate::core::badge::Uid;
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
    let mut sessions = connection
        .prepare_cached("SELECT start, uid, started, ending, ending_at FROM open_session")?;
    let mut rows = sessions.query([])?;
    while let Some(row) = rows.next()? {
        let mut session = session(row)?;
        let meter = session.start.meter.as_ref().and_then(|meter| books.meters.get(meter));
        session.posted_wh = meter.map_or(0, |meter| meter.open_wh);
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
    for id in before.open.keys().filter(|id| !after.open.contains_key(id)) {
        transaction
            .prepare_cached("DELETE FROM open_session WHERE start ->> 'session' = ?1")?
            .execute([id.to_string()])?;
    }
    for (id, session) in &after.open {
        match before.open.get(id) {
            None => insert_session(transaction, session)?,
            Some(known) if known.ending != session.ending => save_ending(transaction, session)?,
            // What was posted to it is in its meter's account.
            Some(_) => {}
        }
    }
    for (meter, account) in &after.meters {
        match before.meters.get(meter) {
            Some(known) if known == account => {}
            known => save_account(transaction, account, known.is_none())?,
        }
    }
    Ok(())
}

fn insert_session(transaction: &Transaction<'_>, session: &OpenSession) -> Result<(), Fault> {
    let start = &session.start;
    transaction
        .prepare_cached("INSERT INTO open_session (start, uid, started) VALUES (?1, ?2, ?3)")?
        .execute(params![
            to_json(start),
            start.uid.as_ref().map(Uid::as_bytes),
            to_json(&session.started),
        ])?;
    // One that is taken over from another epoch may be on its way to its end.
    save_ending(transaction, session)
}

fn save_ending(transaction: &Transaction<'_>, session: &OpenSession) -> Result<(), Fault> {
    let Some((ending, at)) = &session.ending else { return Ok(()) };
    transaction
        .prepare_cached(
            "UPDATE open_session SET ending = ?2, ending_at = ?3 WHERE start ->> 'session' = ?1",
        )?
        .execute(params![session.start.session.to_string(), to_json(ending), to_json(at)])?;
    Ok(())
}

/// A building has some dozens of meters: finding the row without an index costs no write.
fn save_account(
    transaction: &Transaction<'_>,
    account: &MeterAccount,
    is_new: bool,
) -> Result<(), Fault> {
    let sql = match is_new {
        true => {
            "INSERT INTO meter (meter, station, serial, first_wh, last_wh, last_at, sessions_wh,
                 open_wh, unattributed_wh, replaced_wh)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
        }
        false => {
            "UPDATE meter SET station = ?2, serial = ?3, first_wh = ?4, last_wh = ?5, last_at = ?6,
                 sessions_wh = ?7, open_wh = ?8, unattributed_wh = ?9, replaced_wh = ?10
             WHERE meter = ?1"
        }
    };
    transaction.prepare_cached(sql)?.execute(params![
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
    let ending = row.get::<_, Option<String>>(3)?.as_deref().map(from_json).transpose()?;
    let ending_at = row.get::<_, Option<String>>(4)?.as_deref().map(from_json).transpose()?;
    Ok(OpenSession {
        start,
        started: from_json(&row.get::<_, String>(2)?)?,
        posted_wh: 0,
        ending: ending.zip(ending_at),
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("facts are plain JSON")
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Damaged(error.to_string()))
}
