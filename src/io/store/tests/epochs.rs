use super::*;
use crate::core::ledger::EpochReason;
use crate::io::store::{Forked, KeptReply, MAX_REPLIES, StoredRecord};

const DAY_S: u64 = 24 * 3_600;

/// A washer in use: 1 Wh without a session, then 300 Wh in one that goes on.
async fn a_ledger_in_use(place: &Place) -> (Store, String) {
    let (store, recovered) = place.open();
    let wash = start(WASH, Some(1_001));
    let records = vec![
        at(2, commissioned(1_000)),
        at(3, unattributed(1_000, 1_001)),
        at(4, Fact::SessionStarted(wash)),
        at(5, slot(WASH, 1_001, 1_301)),
    ];
    store.commit(records).await.expect("recorded");
    (store, recovered.standing.head.epoch)
}

async fn fork(store: &Store, when: u64, running_since: u64) -> Option<Forked> {
    store.fork(Uptime(1000 * running_since), second(when)).await.expect("the disk takes it")
}

async fn facts(store: &Store) -> Vec<Fact> {
    let records = store.records(1, 1_000).await.expect("read");
    let fact = |stored: StoredRecord| serde_json::from_str::<Record>(&stored.record);
    records.into_iter().map(|stored| fact(stored).expect("a record").fact).collect()
}

#[tokio::test]
async fn a_fork_freezes_the_ledger_and_carries_what_the_cloud_may_lack() {
    let place = Place::new();
    let (store, old) = a_ledger_in_use(&place).await;
    let before = store.records(1, 100).await.expect("read");
    let hash = before[2].hash;
    let ack = crate::io::store::Acknowledgement {
        epoch: old.clone(),
        upto: 3,
        hash,
        issued_at: Wall(TEN),
        at: second(1),
    };
    store.acknowledge(ack).await.expect("accepted");

    let forked = fork(&store, 100, 50).await.expect("the first fork");

    let facts = facts(&store).await;
    let last = &before[4];
    assert_eq!(
        facts[0],
        Fact::EpochOpened {
            previous_epoch: Some(old.clone()),
            last_seq: Some(5),
            last_hash: Some(hex::encode(last.hash)),
            reason: EpochReason::Fork,
        }
    );
    let carried = |index: usize| Fact::Carried {
        epoch: old.clone(),
        carried_seq: before[index].seq,
        hash: hex::encode(before[index].hash),
        record: before[index].record.clone(),
    };
    assert_eq!(facts[1..3], [carried(3), carried(4)]);
    assert_eq!(facts[3], commissioned(1_001));
    let Fact::SessionEnded(end) = &facts[4] else { panic!("{:?}", facts[4]) };
    assert_eq!((end.reason, end.start.session), (EndReason::PowerLoss, WASH));
    assert_eq!((end.end_register_wh, end.energy_wh), (Some(1_301), Some(300)));
    assert_eq!(facts.len(), 5);
    assert_eq!((forked.standing.acked, forked.standing.floor), (0, 1));
    assert_ne!(forked.standing.head.epoch, old);
    assert!(forked.open_sessions.is_empty());
    assert_eq!((forked.meters[0].last_wh, forked.meters[0].sessions_wh), (1_301, 300));
    let frozen = place.beside(&format!("tapgate-epoch-{old}.db"));
    assert!(std::fs::metadata(&frozen).expect("a copy").permissions().readonly());
    let count: i64 = rusqlite::Connection::open(&frozen)
        .and_then(|copy| copy.query_row("SELECT count(*) FROM record", [], |row| row.get(0)))
        .expect("a whole ledger");
    assert_eq!(count, 5);

    store.commit(vec![at(101, unattributed(1_301, 1_310))]).await.expect("it goes on");
    store.verify().await.expect("the new epoch is whole");
    store.close().await;
    let (_, recovered) = place.open();
    assert_eq!(recovered.standing.head.seq, 6);
    assert_eq!(recovered.opened.map(|opened| opened.is_fork()), Some(true));
    assert_eq!(recovered.set_aside, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_session_that_started_since_the_daemon_runs_goes_on_over_a_fork() {
    let place = Place::new();
    let (store, _) = a_ledger_in_use(&place).await;

    let forked = fork(&store, 100, 4).await.expect("the first fork");

    assert_eq!(forked.open_sessions.len(), 1);
    assert_eq!((forked.meters[0].first_wh, forked.meters[0].open_wh), (1_001, 300));
    let end = ended(start(WASH, Some(1_001)), Some(1_400), Some(399));
    store.commit(vec![at(101, end)]).await.expect("the session ends as if nothing was");
    store.verify().await.expect("whole");
}

#[tokio::test]
async fn at_most_one_fork_a_day() {
    let place = Place::new();
    let (store, _) = a_ledger_in_use(&place).await;
    let first = fork(&store, 100, 0).await.expect("the first fork").standing;

    assert_eq!(fork(&store, 100 + DAY_S - 1, 0).await, None);
    assert_eq!(store.standing().await.expect("read"), first);
    let second = fork(&store, 100 + DAY_S, 0).await.expect("another day");

    // What was carried once is carried on as it is, not wrapped twice.
    let carried: Vec<Record> = facts(&store).await.iter().filter_map(inner).collect();
    assert_eq!(carried.len() as u64, first.head.seq);
    assert!(carried.iter().all(|record| !matches!(record.fact, Fact::Carried { .. })));
    assert_ne!(second.standing.head.epoch, first.head.epoch);
}

fn inner(fact: &Fact) -> Option<Record> {
    let Fact::Carried { record, .. } = fact else { return None };
    Some(serde_json::from_str(record).expect("a record"))
}

#[tokio::test]
async fn a_meter_that_was_replaced_in_a_session_balances_in_the_new_epoch() {
    let place = Place::new();
    let (store, _) = a_ledger_in_use(&place).await;
    store.commit(vec![at(6, replaced(1_400, 5))]).await.expect("recorded");

    let forked = fork(&store, 100, 50).await.expect("the first fork");

    assert!(forked.meters[0].is_balanced());
    assert_eq!((forked.meters[0].last_wh, forked.meters[0].sessions_wh), (5, 399));
}

#[tokio::test]
async fn the_last_replies_are_kept_over_a_restart_and_the_oldest_go() {
    let place = Place::new();
    let (store, _) = place.open();
    let kept = |number: u64, reply: &str| KeptReply {
        id: format!("c-{number}"),
        command: "{}".into(),
        reply: reply.into(),
        delivered: false,
    };
    for number in 0..MAX_REPLIES + 3 {
        store.keep_reply(kept(number, "accepted")).await.expect("kept");
    }
    store.keep_reply(kept(5, "done")).await.expect("kept");
    store.reply_delivered("c-5".into(), "accepted".into()).await.expect("kept");
    store.reply_delivered("c-6".into(), "accepted".into()).await.expect("kept");
    store.close().await;

    let (store, _) = place.open();
    let replies = store.replies().await.expect("read");
    assert_eq!(replies.len() as u64, MAX_REPLIES);
    assert_eq!(replies[0].id, "c-3");
    assert_eq!(store.reply("c-2".into()).await, Ok(None));
    assert_eq!(store.reply("c-5".into()).await, Ok(Some(kept(5, "done"))));
    let delivered = replies.iter().filter(|reply| reply.delivered).map(|reply| &reply.id);
    assert_eq!(delivered.collect::<Vec<_>>(), ["c-6"]);
}

#[tokio::test]
async fn stations_that_were_shown_and_are_gone_are_remembered() {
    let place = Place::new();
    let (store, _) = place.open();
    let ids = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    assert_eq!(store.show_stations(ids(&["a", "b"])).await, Ok(vec![]));
    assert_eq!(store.show_stations(ids(&["b", "c"])).await, Ok(ids(&["a"])));
    store.close().await;

    let (store, _) = place.open();
    assert_eq!(store.show_stations(ids(&["c"])).await, Ok(ids(&["a", "b"])));
    assert_eq!(store.show_stations(ids(&["a", "b", "c"])).await, Ok(vec![]));
}
