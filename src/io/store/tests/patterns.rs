//! Ways in which others lost data, as far as a store can lose it. The others are in
//! `tests/cloud_link/patterns.rs` and `tests/e2e/patterns.rs`; docs/cloud-protocol.md lists all.

use std::time::Duration;

use super::*;
use crate::io::store::{AckOutcome, Acknowledgement, Settled};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// A moment long after all records.
fn years_later() -> Stamp {
    Stamp { wall: Wall(TEN) + 20 * YEAR, ..second(1_000) }
}

async fn everything(store: &Store) -> usize {
    store.records(1, 10_000).await.expect("read").len()
}

#[tokio::test]
async fn f01_nothing_is_deleted_before_the_cloud_has_acknowledged_it() {
    let place = Place::new();
    let (store, recovered) = place.open();
    for when in 2..=10 {
        store.commit(vec![at(when, started())]).await.expect("recorded");
    }
    let records = store.records(1, 100).await.expect("read");
    let batch = store.batch(0, 200, 60_000).await.expect("read").expect("records");
    assert_eq!(batch.records.len(), 10, "sent, and still here");
    assert_eq!(store.prune(Duration::ZERO, Settled::ByCloud, years_later()).await, Ok(0));

    let ack = Acknowledgement {
        epoch: recovered.standing.head.epoch,
        upto: 4,
        hash: records[3].hash,
        issued_at: Wall(TEN),
        at: second(1),
    };
    assert_eq!(store.acknowledge(ack).await, Ok(AckOutcome::Accepted { acked: 4 }));
    assert_eq!(store.prune(Duration::ZERO, Settled::ByCloud, years_later()).await, Ok(4));
    assert_eq!(everything(&store).await, 6);
}

#[tokio::test]
async fn f07_no_age_deletes_what_is_not_acknowledged() {
    let place = Place::new();
    let (store, _) = place.open();
    for when in 2..=50 {
        store.commit(vec![at(when, started())]).await.expect("recorded");
    }
    for _ in 0..10 {
        assert_eq!(
            store.prune(Duration::from_secs(1), Settled::ByCloud, years_later()).await,
            Ok(0)
        );
    }
    store.close().await;

    let (store, _) = place.open();
    assert_eq!(everything(&store).await, 50);
}

#[tokio::test]
async fn f11_a_clock_that_jumps_makes_no_number_or_session_twice() {
    let place = Place::new();
    let (store, _) = place.open();
    let day = Duration::from_secs(24 * 3_600);
    let walls = [Wall(TEN), Wall(0), Wall(TEN) + day, Wall(TEN)];
    for wall in walls {
        let now = Stamp { wall, synced: false, ..second(2) };
        let head = store.commit(vec![Record { at: now, fact: started() }]).await;
        head.expect("recorded whatever the clock says");
    }
    let numbers: Vec<u64> =
        store.records(1, 100).await.expect("read").iter().map(|record| record.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    // Session ids are random in 62 bits beside their time.
    let ids: std::collections::BTreeSet<_> = (0..10_000)
        .map(|_| uuid::Builder::from_unix_timestamp_millis(0, &random()).into_uuid())
        .collect();
    assert_eq!(ids.len(), 10_000, "in one and the same millisecond of 1970");
}

fn random() -> [u8; 10] {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[6..].try_into().expect("ten of sixteen")
}

#[tokio::test]
async fn f13_a_record_costs_the_same_in_a_long_ledger_as_in_a_short_one() {
    let place = Place::new();
    let (store, _) = place.open();
    let log = place.beside("tapgate.db-wal");
    let written = || std::fs::metadata(&log).map_or(0, |log| log.len());
    for when in 2..=40 {
        let many = vec![at(when, started()); 100];
        store.commit(many).await.expect("recorded");
    }
    // The log is written over again, not grown: a rewrite of all would need far more.
    for when in 41..=140 {
        store.commit(vec![at(when, started())]).await.expect("recorded");
    }
    let all = everything(&store).await as u64 * 300;
    assert!(all > 1_000_000, "a ledger of a megabyte");
    assert!(written() < 2 * 1024 * 1024, "{} bytes of log", written());
}

#[tokio::test]
async fn f15_energy_that_goes_backwards_is_refused_and_nothing_changes() {
    let place = Place::new();
    let (store, _) = place.open();
    let records = vec![
        at(2, commissioned(1_000)),
        at(3, Fact::SessionStarted(start(WASH, Some(1_000)))),
        at(4, slot(WASH, 1_000, 1_200)),
    ];
    let head = store.commit(records).await.expect("recorded");

    let backwards = [
        slot(WASH, 1_200, 1_100),
        slot(WASH, 1_000, 1_200),
        unattributed(1_200, 1_199),
        ended(start(WASH, Some(1_000)), Some(1_100), Some(100)),
        ended(start(WASH, Some(1_000)), Some(1_200), Some(-200)),
    ];
    for fact in backwards {
        let refused = store.commit(vec![at(5, fact.clone())]).await;
        assert!(matches!(refused, Err(StoreError::Impossible { .. })), "{fact:?}: {refused:?}");
    }
    assert_eq!(store.standing().await.expect("read").head, head);
    store.verify().await.expect("whole");
}
