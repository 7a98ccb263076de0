use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::allowlists::{ANNA, apply, head_of};
use super::*;
use crate::core::ledger::EpochReason;
use crate::core::memo::Memo;
use crate::io::store::Acknowledgement;

fn overwrite(path: &Path, from: usize, length: usize) {
    let mut bytes = fs::read(path).expect("readable");
    let end = bytes.len().min(from + length);
    bytes[from..end].fill(0x5a);
    fs::write(path, bytes).expect("writable");
}

/// Damages a database whose log cannot heal it.
fn ruin(path: &Path, from: usize, length: usize) {
    overwrite(path, from, length);
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    overwrite(Path::new(&log), 0, 32);
}

/// A store with three records and a list, closed.
async fn furnished(place: &Place) -> Recovered {
    let (store, recovered) = place.open();
    store.commit(vec![at(2, started()), at(2, commissioned(1000))]).await.expect("recorded");
    apply(&store, head_of(1, &[ANNA])).await;
    store.take_out_of_service("dryer-1".into(), Some("belt".into())).await.expect("marked");
    store.next_connection().await.expect("counted");
    store.close().await;
    recovered
}

#[tokio::test]
async fn a_damaged_ledger_is_set_aside_and_everything_else_survives() {
    let place = Place::new();
    let before = furnished(&place).await;
    ruin(&place.path(), 100, 8192);

    let (store, after) = place.open();

    assert_eq!(after.set_aside, [place.beside("tapgate.db.damaged-1")]);
    assert!(place.beside("tapgate.db.damaged-1-wal").exists());
    assert_ne!(after.standing.head.epoch, before.standing.head.epoch);
    let first = &store.batch(0, 1, 65_536).await.expect("read").expect("one").records[0];
    assert!(first.contains(r#""reason":"store_damaged""#), "{first}");
    assert!(first.contains(&before.standing.head.epoch), "{first}");
    assert_eq!(after.out_of_service, [("dryer-1".into(), Some("belt".into()))]);
    assert_eq!(after.allowlist.as_ref().map(|list| list.version), Some(1));
    assert_eq!(after.unrecorded_allowlist(), after.allowlist);
    let uid = crate::core::badge::Uid::new(&[4, 0xA2, 0xB3, 0xC4]).expect("four bytes");
    assert!(store.lookup(uid).await.expect("looked up").is_some());
    assert_eq!(store.next_connection().await, Ok(2));
    // A second time: the first copy is kept.
    store.close().await;
    fs::remove_file(place.beside("tapgate.db-wal")).expect("removed");
    fs::write(place.path(), b"no database at all, but long enough to be one").expect("written");
    assert_eq!(place.open().1.set_aside, [place.beside("tapgate.db.damaged-2")]);
}

#[tokio::test]
async fn a_ledger_that_lost_records_is_set_aside() {
    let place = Place::new();
    furnished(&place).await;
    let connection = rusqlite::Connection::open(place.path()).expect("opens");
    connection.execute("DELETE FROM record WHERE seq = 2", []).expect("deleted");
    drop(connection);

    let (store, after) = place.open();

    assert_eq!(after.set_aside.len(), 1);
    let first = &store.batch(0, 1, 65_536).await.expect("read").expect("one").records[0];
    assert!(first.contains(r#""last_seq":3"#), "{first}");
}

#[tokio::test]
async fn a_ledger_that_is_gone_opens_an_epoch_that_names_the_one_before() {
    let place = Place::new();
    let before = furnished(&place).await;
    fs::remove_file(place.path()).expect("removed");

    let (store, after) = place.open();

    // Its log was left, and is kept too.
    assert_eq!(after.set_aside, [place.beside("tapgate.db.damaged-1")]);
    let first = &store.batch(0, 1, 65_536).await.expect("read").expect("one").records[0];
    assert!(first.contains(&before.standing.head.epoch), "{first}");
}

#[tokio::test]
async fn damaged_gateway_state_leaves_ledger_and_allowlist() {
    let place = Place::new();
    let before = furnished(&place).await;
    ruin(&place.beside("tapgate-gateway.db"), 0, 4096);

    let (store, after) = place.open();

    assert_eq!(after.set_aside, [place.beside("tapgate-gateway.db.damaged-1")]);
    assert_eq!(after.standing.head.epoch, before.standing.head.epoch);
    assert_eq!(after.standing.head.seq, 3);
    assert_eq!(after.allowlist.map(|list| list.version), Some(1));
    // Boots and connections never count backwards.
    assert_eq!(after.boot, 2);
    assert!(store.next_connection().await.expect("counted") > 1_000_000);
}

#[tokio::test]
async fn a_damaged_allowlist_leaves_the_one_before_it_deciding() {
    let place = Place::new();
    furnished(&place).await;
    let (store, _) = place.open();
    apply(&store, head_of(2, &[ANNA])).await;
    store.close().await;
    let newest = place.beside("tapgate-allowlist-2.db");
    let position = fs::read(&newest)
        .expect("readable")
        .windows(6)
        .position(|window| window == b"b-1042")
        .expect("in the file");
    overwrite(&newest, position, 1);

    let (store, after) = place.open();

    assert_eq!(after.set_aside, [place.beside("tapgate-allowlist-2.db.damaged-1")]);
    assert_eq!(after.allowlist.map(|list| list.version), Some(1));
    store.close().await;
    assert_eq!(place.open().1.allowlist.map(|list| list.version), Some(1));
}

#[tokio::test]
async fn two_daemons_cannot_share_a_store() {
    let place = Place::new();
    let (store, _) = place.open();

    let error = place.open_in_boot("k-1").expect_err("locked");

    assert!(matches!(&error, StoreError::Locked { .. }));
    assert!(error.to_string().contains("tapgate.lock"), "{error}");
    store.close().await;
    assert!(place.open_in_boot("k-1").is_ok());
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_an_error_and_stays_untouched() {
    let place = Place::new();
    let (store, _) = place.open();
    store.close().await;
    let connection = rusqlite::Connection::open(place.path()).expect("opens");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    let newer = place.open_in_boot("k-1").expect_err("newer");
    assert!(matches!(newer, StoreError::Newer { found: 99, known: 3, .. }), "{newer}");

    let elsewhere = Place::new();
    fs::create_dir(elsewhere.beside("")).expect("a directory");
    let connection = rusqlite::Connection::open(elsewhere.path()).expect("opens");
    connection.execute_batch("CREATE TABLE photos (name TEXT)").expect("created");
    drop(connection);
    let foreign = elsewhere.open_in_boot("k-1").expect_err("foreign");
    assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign}");
    assert!(!elsewhere.beside("tapgate.db.damaged-1").exists());
}

#[tokio::test]
async fn files_are_private_and_settings_survive_power_cuts() {
    let place = Place::new();
    let (store, _) = place.open();
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(place.beside("")) & !0o750, 0);
    for file in ["tapgate.db", "tapgate.db-wal", "tapgate-gateway.db", "tapgate.lock"] {
        assert_eq!(mode(place.beside(file)) & !0o640, 0, "{file}");
    }
    let settings = store
        .ledger
        .run(|ledger| {
            let read = |name: &str| {
                ledger
                    .connection
                    .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                    .expect("a pragma")
            };
            (
                read("synchronous"),
                read("page_size"),
                read("trusted_schema"),
                read("cell_size_check"),
            )
        })
        .await
        .expect("running");
    let integer = rusqlite::types::Value::Integer;
    assert_eq!(settings, (integer(2), integer(512), integer(0), integer(1)));
    store.close().await;
    assert!(place.beside("tapgate.db-wal").exists(), "the log is kept and used again");
}

#[tokio::test]
async fn the_boot_count_grows_with_the_kernels_boot_id() {
    let place = Place::new();
    for (boot_id, boot, same) in [("k-1", 1, false), ("k-1", 1, true), ("k-2", 2, false)] {
        let (store, recovered) = place.open_in_boot(boot_id).expect("opens");
        assert_eq!((recovered.boot, recovered.same_boot), (boot, same));
        store.close().await;
    }
}

#[tokio::test]
async fn the_time_that_was_kept_is_newer_than_the_newest_record() {
    let place = Place::new();
    let (store, recovered) = place.open();
    assert_eq!((recovered.newest, recovered.clock_floor), (None, Wall(0)));
    store.commit(vec![at(5, started())]).await.expect("recorded");
    store.keep_time(second(900)).await.expect("kept");
    let unsynced = Stamp { synced: false, ..second(1000) };
    store.keep_time(unsynced).await.expect("kept");
    store.close().await;

    let (store, recovered) = place.open();

    assert_eq!(recovered.newest, Some(unsynced));
    assert_eq!(recovered.clock_floor, second(900).wall);
    store.return_to_service("dryer-1".into()).await.expect("nothing to do");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let place = Place::new();
    fs::write(place.0.path().join("var"), b"").expect("a file in its place");

    let error = place.open_in_boot("k-1").expect_err("no directory");

    assert!(error.to_string().contains("var"), "{error}");
    assert!(matches!(error, StoreError::Io { .. }));
}

/// Ruins the pages of the records, and leaves the accounts readable where they lie elsewhere.
fn lose_record(place: &Place, seq: i64) {
    let ledger = rusqlite::Connection::open(place.beside("tapgate.db")).expect("a database");
    ledger.execute("DELETE FROM record WHERE seq = ?1", [seq]).expect("gone");
}

#[tokio::test]
async fn what_can_be_read_of_a_damaged_ledger_goes_into_the_new_epoch() {
    let place = Place::new();
    let (store, recovered) = place.open();
    let old = recovered.standing.head.epoch;
    let wash = start(WASH, Some(1_001));
    let records = vec![
        at(2, commissioned(1_000)),
        at(3, unattributed(1_000, 1_001)),
        at(4, Fact::SessionStarted(wash)),
        at(5, slot(WASH, 1_001, 1_301)),
    ];
    store.commit(records).await.expect("recorded");
    let hash = store.records(1, 100).await.expect("read")[1].hash;
    let issued_at = Wall(TEN);
    let ack = Acknowledgement { epoch: old.clone(), upto: 2, hash, issued_at, at: second(1) };
    store.acknowledge(ack).await.expect("accepted");
    store.close().await;
    lose_record(&place, 4);

    let (store, after) = place.open();

    assert_eq!(after.set_aside, [place.beside("tapgate.db.damaged-1")]);
    assert_eq!(after.damaged, after.set_aside);
    let facts: Vec<Fact> = store
        .records(1, 100)
        .await
        .expect("read")
        .iter()
        .map(|stored| serde_json::from_str::<Record>(&stored.record).expect("a record").fact)
        .collect();
    let Fact::EpochOpened { previous_epoch, reason, .. } = &facts[0] else {
        panic!("{:?}", facts[0])
    };
    assert_eq!((previous_epoch.as_ref(), *reason), (Some(&old), EpochReason::StoreDamaged));
    let carried: Vec<u64> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Carried { carried_seq, .. } => Some(*carried_seq),
            _ => None,
        })
        .collect();
    assert_eq!(carried, [3, 5], "all that the cloud may not have but the one that is lost");
    let Some(Fact::SessionEnded(end)) = facts.last() else { panic!("{facts:?}") };
    assert_eq!((end.reason, end.energy_wh), (EndReason::PowerLoss, Some(300)));
    assert_eq!((after.meters[0].last_wh, after.open_sessions.len()), (1_301, 0));
    store.verify().await.expect("whole");
}

#[tokio::test]
async fn memos_survive_a_restart_and_damage_to_the_ledger() {
    let place = Place::new();
    let (store, recovered) = place.open();
    assert_eq!(recovered.memos, []);
    let memo = Memo {
        session: WASH,
        ended: Some(EndReason::Tapped),
        end_when_idle: None,
        reclosed: 2,
        opens: None,
        idleness: None,
    };
    store.keep_memos(vec![memo.clone()]).await.expect("kept");
    store.close().await;
    let (store, recovered) = place.open();
    assert_eq!(recovered.memos, [memo]);
    store.keep_memos(Vec::new()).await.expect("kept");
    store.close().await;
    assert_eq!(place.open().1.memos, []);
}
