use std::time::{Duration, Instant};

use super::*;
use crate::core::badge::Uid;
use crate::io::store::ApplyOutcome;
use crate::protocol::allowlist::{Head, ListDigest, entry_hash, judge};

const BADGES: u32 = 100_000;

fn uid(n: u32) -> String {
    format!("04{:06X}", n.wrapping_mul(2_654_435_761) & 0xff_ffff)
}

fn big_head() -> Head {
    let entry = |n: u32| {
        let uid = uid(n);
        format!(
            r#"{{"badge":"b-{n}","uid":"{uid}","user":"u-{n}","origin":"issued","status":"active","grants":["group:laundry","place:P-{n}"]}}"#
        )
    };
    let entries: Vec<String> = (0..BADGES).map(entry).collect();
    let mut hashes: Vec<_> = entries
        .iter()
        .map(|raw| judge(raw).expect("good"))
        .map(|(uid, _, bytes)| (uid.as_bytes().to_vec(), entry_hash(&bytes)))
        .collect();
    hashes.sort();
    let mut digest = ListDigest::default();
    hashes.iter().for_each(|(_, hash)| digest.add(hash));
    let json = format!(
        r#"{{"list":"5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11","version":1,"count":{BADGES},"digest":"{}","issued_at":"2026-11-22T10:00:00Z","entries":[{}]}}"#,
        digest.finish(),
        entries.join(",")
    );
    Head::parse(json.as_bytes()).expect("a good head")
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Prints what it measures: `cargo test --lib measures -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn measures_commits_and_lookups_with_100_000_badges() {
    let place = Place::new();
    let (store, _) = place.open();
    let head = big_head();
    let began = Instant::now();
    let outcome = store.apply_allowlist(head, second(1)).await.expect("runs");
    assert!(matches!(outcome, ApplyOutcome::Applied { .. }), "{outcome:?}");
    let applied = began.elapsed();
    store.close().await;

    let began = Instant::now();
    let (store, _) = place.open();
    let opened = began.elapsed();
    let mut lookups = Vec::new();
    for n in 0..20_000u32 {
        let wanted: Uid = uid(n * 5).parse().expect("a UID");
        let began = Instant::now();
        assert!(store.lookup(wanted).await.expect("looked up").is_some());
        lookups.push(began.elapsed());
    }
    let mut commits = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        store.commit(vec![at(2, started())]).await.expect("recorded");
        commits.push(began.elapsed());
    }
    println!("apply {applied:?}, open {opened:?}");
    println!("lookup median, 99 %: {:?}", median(lookups));
    println!("commit median, 99 %: {:?}", median(commits));
}
