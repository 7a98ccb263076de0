use super::*;
use crate::io::store::ledger::link;
use crate::io::store::{MAX_RECORD_BYTES, MeterAccount};

async fn commit(store: &Store, facts: Vec<Fact>) -> Result<u64, StoreError> {
    let records = facts.into_iter().map(|fact| at(2, fact)).collect();
    store.commit(records).await.map(|head| head.seq)
}

fn is_impossible(result: &Result<u64, StoreError>) -> bool {
    matches!(result, Err(StoreError::Impossible { .. }))
}

fn account(place: &Place) -> MeterAccount {
    let (_, recovered) = place.open();
    recovered.meters[0].clone()
}

/// Hashes computed with `hashlib` over the bytes that the contract prescribes.
#[tokio::test]
async fn bytes_and_chain_are_those_of_an_independent_implementation() {
    let place = Place::new();
    let (store, recovered) = place.open();
    let genesis = "0164a6318dc8f66fc04a128de37ba91ead3eb91a54c4af737f8292ee52ef0aa0";
    assert_eq!(hex::encode(recovered.standing.head.hash), genesis);

    let head = store.commit(vec![at(2, started()), at(2, commissioned(1000))]).await;

    let head = head.expect("recorded");
    let third = "0fb8a12165c6c2decf04c9d15bbfd6393f926590d438bb34167b883ed4c8e0f3";
    assert_eq!((head.seq, hex::encode(head.hash).as_str()), (3, third));
    let batch = store.batch(1, 200, 65_536).await.expect("read").expect("two records");
    assert_eq!(
        batch.records,
        [
            r#"{"seq":2,"kind":"gateway_started","at":{"boot":1,"uptime_ms":2000,"wall":"2026-11-22T10:00:01.000Z","synced":true},"version":"1.0.0","boot_id":"k-1"}"#,
            r#"{"seq":3,"kind":"meter_commissioned","at":{"boot":1,"uptime_ms":2000,"wall":"2026-11-22T10:00:01.000Z","synced":true},"station":"washer-1","meter":"meter-1","old_serial":null,"old_register_wh":null,"new_serial":"SN-1","new_register_wh":1000}"#,
        ]
    );
    assert_eq!(hex::encode(batch.previous), genesis);
    let chained = batch.records.iter().fold(batch.previous, |hash, r| link(&hash, r.as_bytes()));
    assert_eq!(chained, head.hash);
}

#[tokio::test]
async fn sequence_and_chain_go_on_after_a_restart() {
    let place = Place::new();
    let (store, first) = place.open();
    assert_eq!(commit(&store, vec![started()]).await, Ok(2));
    store.close().await;

    let (store, second) = place.open();

    assert_eq!(second.standing.head.epoch, first.standing.head.epoch);
    assert_eq!(second.standing.head.seq, 2);
    assert_eq!(second.newest, Some(super::second(2)));
    assert!(second.set_aside.is_empty() && second.same_boot);
    assert_eq!(commit(&store, vec![started(), started()]).await, Ok(4));
    assert_eq!(commit(&store, vec![]).await, Ok(4));
    let verified = store.verify().await.expect("whole");
    assert_eq!((verified.records, verified.accounts_rebuilt), (4, true));
}

#[tokio::test]
async fn an_open_session_survives_with_its_badge_and_what_was_posted() {
    let place = Place::new();
    let (store, _) = place.open();
    let begin = start(WASH, Some(1000));
    commit(&store, vec![commissioned(1000), Fact::SessionStarted(begin.clone())])
        .await
        .expect("recorded");
    commit(&store, vec![slot(WASH, 1000, 1250)]).await.expect("recorded");
    let ending = Fact::SessionEnding { session: WASH, reason: EndReason::Tapped };
    commit(&store, vec![ending]).await.expect("recorded");
    store.verify().await.expect("whole with a session open");
    store.close().await;

    let (_, recovered) = place.open();

    let session = &recovered.open_sessions[0];
    assert_eq!((&session.start, session.posted_wh), (&begin, 250));
    assert_eq!(session.ending, Some((EndReason::Tapped, second(2))));
    let meter = &recovered.meters[0];
    assert_eq!((meter.last_wh, meter.open_wh, meter.sessions_wh), (1250, 250, 0));
    assert_eq!(meter.last_at, second(2));
}

#[tokio::test]
async fn every_watt_hour_is_in_one_account() {
    let place = Place::new();
    let (store, _) = place.open();
    let facts = vec![
        commissioned(1000),
        unattributed(1000, 1010),
        Fact::SessionStarted(start(WASH, Some(1010))),
        slot(WASH, 1010, 1200),
        // Hand-over: the same register ends one session and starts the next.
        ended(start(WASH, Some(1010)), Some(1300), Some(290)),
        Fact::SessionStarted(start(DRY, Some(1300))),
        // What the old meter showed at last is the running session's.
        replaced(1350, 5),
        slot(DRY, 5, 25),
        ended(start(DRY, Some(1300)), Some(30), Some(75)),
        unattributed(30, 31),
    ];
    commit(&store, facts).await.expect("recorded");
    store.verify().await.expect("whole");
    store.close().await;

    let meter = account(&place);

    assert!(meter.is_balanced());
    assert_eq!((meter.first_wh, meter.last_wh, meter.serial.as_deref()), (1000, 31, Some("SN-2")));
    assert_eq!((meter.sessions_wh, meter.open_wh), (290 + 75, 0));
    assert_eq!((meter.unattributed_wh, meter.replaced_wh), (11, 5 - 1350));
}

#[tokio::test]
async fn a_session_without_slots_posts_all_its_energy_at_its_end() {
    let place = Place::new();
    let (store, _) = place.open();
    let begin = start(WASH, Some(1000));
    let facts = vec![
        commissioned(1000),
        Fact::SessionStarted(begin.clone()),
        // The meter fell silent before the end.
        ended(begin, None, Some(400)),
    ];
    commit(&store, facts).await.expect("recorded");
    store.close().await;

    let meter = account(&place);

    assert_eq!((meter.last_wh, meter.sessions_wh), (1400, 400));
}

#[tokio::test]
async fn a_meter_that_never_answered_ends_a_session_without_energy() {
    let place = Place::new();
    let (store, _) = place.open();
    for energy in [None, Some(0)] {
        let begin = start(WASH, None);
        let facts = vec![Fact::SessionStarted(begin.clone()), ended(begin, None, energy)];
        commit(&store, facts).await.expect("recorded");
    }
    // Found during a session, it is commissioned and counts from there.
    let begin = start(DRY, None);
    let facts = vec![
        Fact::SessionStarted(begin.clone()),
        commissioned(7000),
        slot(DRY, 7000, 7100),
        ended(begin, Some(7100), Some(100)),
    ];
    commit(&store, facts).await.expect("recorded");
}

#[tokio::test]
async fn what_would_lose_or_double_energy_is_refused_and_changes_nothing() {
    let place = Place::new();
    let (store, _) = place.open();
    let begin = start(WASH, Some(1000));
    let head = commit(&store, vec![commissioned(1000), Fact::SessionStarted(begin.clone())]).await;
    let other_station = SessionStart { station: "dryer-1".into(), ..start(DRY, Some(1000)) };
    let impossible = [
        vec![commissioned(1000)],
        vec![unattributed(999, 1001)],
        vec![unattributed(1001, 1002)],
        vec![unattributed(1000, 999)],
        vec![slot(WASH, 1010, 1020)],
        vec![slot(DRY, 1000, 1020)],
        vec![slot(WASH, 1000, 1 << 53)],
        vec![slot(WASH, 1000, i64::MAX)],
        vec![ended(begin.clone(), Some(1100), Some(99))],
        vec![ended(begin.clone(), Some(900), Some(-100))],
        vec![ended(begin.clone(), None, Some(i64::MAX))],
        vec![slot(WASH, 1000, 1100), ended(begin.clone(), Some(1100), Some(0))],
        vec![slot(WASH, 1000, 1100), ended(begin.clone(), Some(1100), None)],
        vec![ended(SessionStart { meter: None, ..begin.clone() }, None, None)],
        vec![ended(start(DRY, None), None, None)],
        vec![Fact::SessionStarted(begin.clone())],
        vec![Fact::SessionStarted(start(DRY, Some(1000)))],
        vec![Fact::SessionStarted(other_station)],
        vec![
            ended(begin.clone(), Some(1000), Some(0)),
            Fact::SessionStarted(start(DRY, Some(1001))),
        ],
        vec![replaced(999, 0)],
        vec![started(), Fact::SessionEnding { session: DRY, reason: EndReason::Tapped }],
    ];
    for facts in impossible {
        let described = format!("{facts:?}");
        let result = commit(&store, facts).await;
        assert!(is_impossible(&result), "{described}: {result:?}");
    }
    let standing = store.standing().await.expect("read");
    assert_eq!(Ok(standing.head.seq), head);
    store.verify().await.expect("whole");
    assert_eq!(store.meters().await.expect("read")[0].last_wh, 1000);
}

#[tokio::test]
async fn a_record_that_is_too_long_is_refused() {
    let place = Place::new();
    let (store, _) = place.open();
    let boot_id = "x".repeat(MAX_RECORD_BYTES);

    let result = commit(&store, vec![Fact::GatewayStarted { version: "1".into(), boot_id }]).await;

    assert!(is_impossible(&result), "{result:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_records_and_goes_on_once_there_is_space() {
    let place = Place::new();
    let (store, _) = place.open();
    let quota = |pages: i64| {
        store.ledger.run(move |ledger| {
            ledger.connection.pragma_update(None, "max_page_count", pages).expect("a pragma");
        })
    };
    quota(1).await.expect("running");

    let mut refused = Ok(0);
    for _ in 0..100 {
        refused = commit(&store, vec![started(); 10]).await;
        if refused.is_err() {
            break;
        }
    }

    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    let before = store.standing().await.expect("still readable");
    quota(1_000_000).await.expect("running");
    assert_eq!(commit(&store, vec![started()]).await, Ok(before.head.seq + 1));
    store.verify().await.expect("whole");
}

/// Copies of the files while the store is open are what a power cut leaves.
#[tokio::test]
async fn what_was_committed_survives_a_power_cut_after_any_commit() {
    let place = Place::new();
    let (store, _) = place.open();
    let mut register = 1000;
    let begin = start(WASH, Some(register));
    commit(&store, vec![commissioned(register), Fact::SessionStarted(begin)])
        .await
        .expect("recorded");
    for cut in 0..20 {
        let seq = commit(&store, vec![slot(WASH, register, register + 10)]).await;
        register += 10;
        let after = Place::new();
        std::fs::create_dir(after.beside("")).expect("a directory");
        for file in ["tapgate.db", "tapgate.db-wal", "tapgate-gateway.db", "tapgate-gateway.db-wal"]
        {
            std::fs::copy(place.beside(file), after.beside(file)).expect("a copy");
        }
        let (copy, recovered) = after.open_in_boot("k-2").expect("opens");
        assert_eq!(Ok(recovered.standing.head.seq), seq, "cut {cut}");
        assert_eq!(recovered.meters[0].last_wh, register);
        assert_eq!((recovered.boot, recovered.same_boot), (2, false));
        copy.verify().await.expect("whole");
    }
}

#[tokio::test]
async fn changed_records_are_found() {
    let place = Place::new();
    let (store, _) = place.open();
    for _ in 0..500 {
        commit(&store, vec![started()]).await.expect("recorded");
    }
    let sql =
        "UPDATE record SET bytes = CAST(replace(CAST(bytes AS TEXT), '1.0.0', '1.0.1') AS BLOB)
               WHERE seq = 17";
    let changed = store.ledger.run(|ledger| ledger.connection.execute(sql, [])).await;
    assert_eq!(changed.expect("running"), Ok(1));

    let error = store.verify().await.expect_err("the chain breaks");

    assert!(error.to_string().contains("record 17"), "{error}");
}

#[tokio::test]
async fn records_that_are_missing_at_the_end_are_found() {
    let place = Place::new();
    let (store, _) = place.open();
    for _ in 0..3 {
        commit(&store, vec![started()]).await.expect("recorded");
    }
    let sql = "DELETE FROM record WHERE seq >= 3";
    let gone = store.ledger.run(|ledger| ledger.connection.execute(sql, [])).await;
    assert!(gone.expect("running").is_ok_and(|rows| rows > 0));

    let error = store.verify().await.expect_err("the end is missing");

    assert!(error.to_string().contains("ends before"), "{error}");
}

#[tokio::test]
async fn a_clock_is_trusted_again_only_where_it_was_so_in_this_boot() {
    let place = Place::new();
    let (store, _) = place.open();
    store.commit(vec![at(2, started())]).await.expect("recorded");
    store.close().await;
    let (store, recovered) = place.open();
    assert!(recovered.clock_was_trusted());
    store.close().await;
    for _ in 0..2 {
        // A daemon that dies before its first record.
        let (store, recovered) = place.open_in_boot("k-2").expect("the store opens");
        assert!(!recovered.clock_was_trusted());
        store.close().await;
    }
}
