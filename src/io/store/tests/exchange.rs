use std::time::Duration;

use super::*;
use crate::io::store::{AckOutcome, Acknowledgement, Export, Hash, MAX_BATCH_BYTES, Settled};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The store, with `count` records, and the hash of each from 0 on.
async fn store_with(place: &Place, count: u64) -> (Store, String, Vec<Hash>) {
    let (store, recovered) = place.open();
    let epoch = recovered.standing.head.epoch;
    let mut hashes = vec![[0; 32], recovered.standing.head.hash];
    for seq in 2..=count {
        let head = store.commit(vec![at(seq, started())]).await.expect("recorded");
        hashes.push(head.hash);
    }
    (store, epoch, hashes)
}

fn ack(epoch: &str, upto: u64, hash: Hash, issued: i64) -> Acknowledgement {
    let issued_at = Wall(TEN + issued);
    Acknowledgement { epoch: epoch.into(), upto, hash, issued_at, at: second(1) }
}

#[tokio::test]
async fn acknowledgements_are_cumulative_and_may_go_backwards() {
    let place = Place::new();
    let (store, epoch, hashes) = store_with(&place, 6).await;
    for (upto, issued) in [(4, 0), (6, 1), (6, 1), (2, 2), (0, 3), (3, 3)] {
        let outcome = store.acknowledge(ack(&epoch, upto, hashes[upto as usize], issued)).await;
        assert_eq!(outcome, Ok(AckOutcome::Accepted { acked: upto }));
        assert_eq!(store.standing().await.expect("read").acked, upto);
    }
    store.close().await;

    let (_store, recovered) = place.open();
    assert_eq!(recovered.standing.acked, 3);
    assert_eq!(recovered.acknowledged_at, Some(Wall(TEN + 3)));
}

#[tokio::test]
async fn what_does_not_fit_is_not_acknowledged() {
    let place = Place::new();
    let (store, epoch, hashes) = store_with(&place, 6).await;
    let accepted = store.acknowledge(ack(&epoch, 4, hashes[4], 100)).await;
    assert_eq!(accepted, Ok(AckOutcome::Accepted { acked: 4 }));

    let other = "0190b5a0-7c3e-4d4e-8f00-000000000001";
    let cases = [
        (ack(other, 5, hashes[5], 200), AckOutcome::OtherEpoch),
        (ack(&epoch, 5, hashes[5], 99), AckOutcome::Older),
        (ack(&epoch, 7, hashes[6], 200), AckOutcome::BeyondHead),
        (ack(&epoch, u64::MAX, hashes[6], 200), AckOutcome::BeyondHead),
        (ack(&epoch, 5, hashes[4], 200), AckOutcome::HashMismatch),
        (ack(&epoch, 0, hashes[1], 200), AckOutcome::HashMismatch),
    ];
    for (ack, outcome) in cases {
        assert_eq!(store.acknowledge(ack).await, Ok(outcome));
    }
    // None of them moved the time either.
    let next = store.acknowledge(ack(&epoch, 5, hashes[5], 100)).await;
    assert_eq!(next, Ok(AckOutcome::Accepted { acked: 5 }));
}

#[tokio::test]
async fn a_time_from_the_future_does_not_silence_the_cloud_for_ever() {
    let place = Place::new();
    let (store, epoch, hashes) = store_with(&place, 6).await;
    let lost = Stamp { wall: Wall(0), synced: false, ..second(1) };
    let year = 365 * 24 * 3_600_000;
    let wrong = Acknowledgement { at: lost, ..ack(&epoch, 4, hashes[4], year) };
    assert_eq!(store.acknowledge(wrong).await, Ok(AckOutcome::Accepted { acked: 4 }));

    let honest = ack(&epoch, 6, hashes[6], 0);
    let unsure = Acknowledgement { at: lost, ..honest.clone() };
    assert_eq!(store.acknowledge(unsure).await, Ok(AckOutcome::Older));
    assert_eq!(store.acknowledge(honest).await, Ok(AckOutcome::Accepted { acked: 6 }));
}

#[tokio::test]
async fn only_old_acknowledged_records_are_pruned() {
    let place = Place::new();
    let (store, epoch, hashes) = store_with(&place, 10).await;
    let later = |days: i64, seconds: i64| {
        let wall = Wall(TEN + days * 86_400_000 + seconds * 1000);
        Stamp { boot: 1, uptime: Uptime(0), wall, synced: true }
    };
    assert_eq!(store.prune(DAY, Settled::ByCloud, later(9, 0)).await, Ok(0));
    store.acknowledge(ack(&epoch, 8, hashes[8], 0)).await.expect("accepted");
    assert_eq!(
        store.prune(DAY, Settled::ByCloud, Stamp { synced: false, ..later(9, 0) }).await,
        Ok(0)
    );

    // Records 1 to 4 are older than a day: record n was made at second n, that is TEN + n - 1.
    assert_eq!(store.prune(DAY, Settled::ByCloud, later(1, 4)).await, Ok(4));
    assert_eq!(store.prune(DAY, Settled::ByCloud, later(9, 0)).await, Ok(4));

    let standing = store.standing().await.expect("read");
    assert_eq!((standing.floor, standing.acked, standing.head.seq), (9, 8, 10));
    let verified = store.verify().await.expect("whole");
    assert_eq!((verified.records, verified.accounts_rebuilt), (2, false));
    let batch = store.batch(0, 200, MAX_BATCH_BYTES).await.expect("read").expect("two");
    assert_eq!((batch.first, batch.last, batch.previous), (9, 10, hashes[8]));
    // The hash before the floor is kept; further back there is a gap.
    let at_floor = store.acknowledge(ack(&epoch, 8, hashes[8], 1)).await;
    assert_eq!(at_floor, Ok(AckOutcome::Accepted { acked: 8 }));
    let below = store.acknowledge(ack(&epoch, 3, hashes[3], 2)).await;
    assert_eq!(below, Ok(AckOutcome::Gap { acked: 8 }));
    store.close().await;
    assert!(place.open().1.set_aside.is_empty());
}

#[tokio::test]
async fn a_wrong_clock_does_not_make_records_old() {
    let place = Place::new();
    let (store, epoch, _) = store_with(&place, 1).await;
    let unsynced = Stamp { wall: Wall(0), synced: false, ..second(2) };
    let records = vec![
        Record { at: unsynced, fact: started() },
        Record { at: second(3 * 86_400), fact: started() },
    ];
    let head = store.commit(records).await.expect("recorded");
    store.acknowledge(ack(&epoch, 3, head.hash, 0)).await.expect("accepted");

    let now = second(3 * 86_400 + 1);

    assert_eq!(store.prune(2 * DAY, Settled::ByCloud, now).await, Ok(1));
    assert_eq!(store.standing().await.expect("read").floor, 2);
}

#[tokio::test]
async fn a_pruned_ledger_goes_on_counting_where_it_was() {
    let place = Place::new();
    let (store, epoch, hashes) = store_with(&place, 3).await;
    store.acknowledge(ack(&epoch, 3, hashes[3], 0)).await.expect("accepted");
    assert_eq!(store.prune(Duration::ZERO, Settled::ByCloud, second(100)).await, Ok(3));
    assert_eq!(store.batch(0, 200, MAX_BATCH_BYTES).await, Ok(None));
    store.close().await;

    let (store, recovered) = place.open();

    assert!(recovered.set_aside.is_empty());
    let head = store.commit(vec![at(4, started())]).await.expect("recorded");
    assert_eq!(head.seq, 4);
    store.verify().await.expect("whole");
}

#[tokio::test]
async fn without_a_cloud_old_records_go_once_they_were_exported() {
    let place = Place::new();
    let (store, epoch, _) = store_with(&place, 8).await;
    let export = |from, upto| Export { epoch: epoch.clone(), from, upto };
    let later = second(100);
    assert_eq!(store.prune(Duration::ZERO, Settled::ByExport, later).await, Ok(0));

    for useless in [export(2, 8), export(1, 9), Export { epoch: "other".into(), ..export(1, 8) }] {
        assert_eq!(store.note_exported(useless).await, Ok(false));
    }
    for (from, upto) in [(1, 3), (1, 2), (4, 5)] {
        assert_eq!(store.note_exported(export(from, upto)).await, Ok(true));
    }
    assert_eq!(store.prune(Duration::ZERO, Settled::ByCloud, later).await, Ok(0), "a cloud");
    assert_eq!(store.prune(Duration::ZERO, Settled::ByExport, later).await, Ok(5));

    // A cloud that comes later gets what is left, not an error.
    let standing = store.standing().await.expect("read");
    assert_eq!((standing.floor, standing.acked, standing.head.seq), (6, 5, 8));
    let batch = store.batch(5, 200, MAX_BATCH_BYTES).await.expect("read").expect("records");
    assert_eq!((batch.first, batch.last), (6, 8));
    assert_eq!(store.note_exported(export(6, 8)).await, Ok(true), "from the floor on");
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_taken_over() {
    let place = Place::new();
    let (store, epoch, _) = store_with(&place, 3).await;
    store.close().await;
    let old = rusqlite::Connection::open(place.path()).expect("opens");
    old.execute_batch("ALTER TABLE ledger DROP COLUMN exported; PRAGMA user_version = 1;")
        .expect("the first version");
    drop(old);

    let (store, recovered) = place.open();

    assert_eq!((recovered.set_aside.len(), recovered.standing.head.seq), (0, 3));
    assert_eq!(store.note_exported(Export { epoch, from: 1, upto: 3 }).await, Ok(true));
    store.verify().await.expect("whole");
}

#[tokio::test]
async fn accounts_of_the_second_version_are_taken_over() {
    let place = Place::new();
    let (store, ..) = store_with(&place, 1).await;
    let wash = start(WASH, Some(1_000));
    let facts = [
        commissioned(1_000),
        Fact::SessionStarted(wash.clone()),
        slot(WASH, 1_000, 1_200),
        Fact::SessionEnding { session: WASH, reason: crate::core::ledger::EndReason::Tapped },
    ];
    store.commit(facts.into_iter().map(|fact| at(2, fact)).collect()).await.expect("recorded");
    store.close().await;
    let old = rusqlite::Connection::open(place.path()).expect("opens");
    old.execute_batch(
        "CREATE TABLE meter_2 (meter TEXT PRIMARY KEY, station TEXT NOT NULL, serial TEXT,
             first_wh INTEGER NOT NULL, last_wh INTEGER NOT NULL, last_at TEXT NOT NULL,
             sessions_wh INTEGER NOT NULL, open_wh INTEGER NOT NULL,
             unattributed_wh INTEGER NOT NULL, replaced_wh INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         INSERT INTO meter_2 SELECT meter, station, serial, first_wh, last_wh, last_at,
             sessions_wh, open_wh, unattributed_wh, replaced_wh FROM meter;
         DROP TABLE meter;
         ALTER TABLE meter_2 RENAME TO meter;
         CREATE TABLE session_2 (session TEXT PRIMARY KEY, station TEXT NOT NULL UNIQUE,
             meter TEXT UNIQUE, start TEXT NOT NULL, uid BLOB, started TEXT NOT NULL,
             posted_wh INTEGER NOT NULL, ending TEXT, ending_at TEXT) STRICT, WITHOUT ROWID;
         INSERT INTO session_2 SELECT start ->> 'session', start ->> 'station', start ->> 'meter',
             start, uid, started, 200, ending, ending_at FROM open_session;
         DROP TABLE open_session;
         ALTER TABLE session_2 RENAME TO open_session;
         PRAGMA user_version = 2;",
    )
    .expect("the second version");
    drop(old);

    let (store, recovered) = place.open();

    assert_eq!(recovered.set_aside.len(), 0);
    let open = &recovered.open_sessions[0];
    assert_eq!((&open.start, open.posted_wh, open.ending.is_some()), (&wash, 200, true));
    let ends = vec![at(3, ended(wash, Some(1_250), Some(250)))];
    store.commit(ends).await.expect("it ends as it would have");
    store.verify().await.expect("whole");
}

#[tokio::test]
async fn an_acknowledgement_goes_to_the_disk_with_the_next_record() {
    let place = Place::new();
    let (store, epoch, hashes) = store_with(&place, 3).await;
    store.acknowledge(ack(&epoch, 3, hashes[3], 5)).await.expect("taken");
    assert_eq!(store.standing().await.expect("read").acked, 3);
    let on_disk = |place: &Place| {
        for (from, to) in [("tapgate.db", "copy.db"), ("tapgate.db-wal", "copy.db-wal")] {
            std::fs::copy(place.beside(from), place.beside(to)).expect("copied");
        }
        let copy = rusqlite::Connection::open(place.beside("copy.db")).expect("opens");
        let sql = "SELECT acked FROM ledger";
        copy.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("read")
    };
    assert_eq!(on_disk(&place), 0, "no write for it alone");
    let older = store.acknowledge(ack(&epoch, 3, hashes[3], 4)).await;
    assert_eq!(older, Ok(AckOutcome::Older));

    let head = store.commit(vec![at(6, started())]).await.expect("recorded");
    assert_eq!(on_disk(&place), 3);
    store.acknowledge(ack(&epoch, 4, head.hash, 7)).await.expect("taken");
    store.close().await;
    let (_store, recovered) = place.open();
    assert_eq!(recovered.standing.acked, 4, "a clean end keeps it");
}

#[tokio::test]
async fn batches_are_bounded_and_never_empty() {
    let place = Place::new();
    let (store, ..) = store_with(&place, 1).await;
    // Quotes and backslashes double in a JSON string.
    let awkward =
        |n: usize| Fact::GatewayStarted { version: "\"\\ä".repeat(n), boot_id: "k".into() };
    let records: Vec<_> = (0..300).map(|n| at(2, awkward(n % 500))).collect();
    store.commit(records).await.expect("recorded");

    let mut after = 0;
    while let Some(batch) = store.batch(after, 200, MAX_BATCH_BYTES).await.expect("read") {
        assert_eq!(batch.first, after + 1);
        assert_eq!(batch.last, after + batch.records.len() as u64);
        assert!((1..=200).contains(&batch.records.len()));
        let payload = serde_json::json!({
            "epoch": batch.epoch, "first": batch.first, "last": batch.last,
            "prev": hex::encode(batch.previous), "records": batch.records, "replay": false,
        });
        assert!(payload.to_string().len() <= MAX_BATCH_BYTES);
        after = batch.last;
    }
    assert_eq!(after, 301);
    let single = store.batch(250, 200, 10).await.expect("read").expect("one");
    assert_eq!(single.records.len(), 1);
    assert_eq!(store.batch(u64::MAX, 200, 10).await, Ok(None));
}
