//! Lists in parts and by deltas.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::allowlists::{ANNA, BORIS, LIST, anna, apply, badge, digest, refusal, version_of, with};
use super::*;
use crate::core::badge::Uid;
use crate::io::store::{ApplyOutcome, ListJob, ListNews, Offer, Origin};
use crate::protocol::allowlist::RefusalReason;
use crate::protocol::cloud::PartRequest;

/// Bytes of a chunk, so that small parts have several.
const CHUNK: usize = 700;

/// A part as the cloud has it.
#[derive(Clone)]
struct Content(Vec<u8>);

impl Content {
    fn of(entries: &[String]) -> Content {
        Content(entries.iter().flat_map(|entry| format!("{entry}\n").into_bytes()).collect())
    }

    fn name(&self) -> String {
        hex::encode(Sha256::digest(&self.0))
    }

    fn named(&self) -> Value {
        json!({"sha256": self.name(), "bytes": self.0.len()})
    }

    /// Its chunks as they are published.
    fn chunks(&self) -> Vec<Vec<u8>> {
        use base64::Engine as _;
        let n = self.0.chunks(CHUNK).len();
        let published = |(i, bytes): (usize, &[u8])| {
            let data = base64::engine::general_purpose::STANDARD.encode(bytes);
            let chunk = json!({"sha256": self.name(), "i": i, "n": n, "data": data});
            chunk.to_string().into_bytes()
        };
        self.0.chunks(CHUNK).enumerate().map(published).collect()
    }
}

fn badges(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(badge).collect()
}

fn head_in_parts(version: u64, entries: &[String], parts: &[Content]) -> Value {
    let all: Vec<&str> = entries.iter().map(String::as_str).collect();
    json!({
        "list": LIST, "version": version, "count": entries.len(), "digest": digest(&all),
        "issued_at": "2026-11-22T10:00:00Z",
        "parts": parts.iter().map(Content::named).collect::<Vec<_>>(),
    })
}

/// Two parts of ten badges each.
fn in_two_parts(version: u64, entries: &[String]) -> (Value, Vec<Content>) {
    let parts: Vec<Content> = entries.chunks(10).map(Content::of).collect();
    (head_in_parts(version, entries, &parts), parts)
}

/// A cloud that offers a list and hears what becomes of it.
struct Cloud<'a> {
    store: &'a Store,
    heard: mpsc::Receiver<ListNews>,
}

impl Cloud<'_> {
    async fn offering<'a>(store: &'a Store, head: &Value) -> Cloud<'a> {
        Cloud::offering_as(Origin::Cloud, store, head).await
    }

    async fn offering_as<'a>(origin: Origin, store: &'a Store, head: &Value) -> Cloud<'a> {
        let (news, heard) = mpsc::channel(64);
        let payload = head.to_string().into_bytes();
        let offer = Offer { origin, payload, now: second(50), news };
        store.lists().send(ListJob::Head(offer)).await.expect("the thread runs");
        Cloud { store, heard }
    }

    async fn hears(&mut self) -> ApplyOutcome {
        self.heard.recv().await.expect("news").outcome
    }

    async fn wanted(&mut self) -> Vec<PartRequest> {
        match self.hears().await {
            ApplyOutcome::Wanted(parts) => parts,
            other => panic!("nothing is asked for: {other:?}"),
        }
    }

    async fn send(&self, chunk: Vec<u8>) {
        self.store.lists().send(ListJob::Chunk(chunk)).await.expect("the thread runs");
    }

    async fn serve(&self, content: &Content) {
        for chunk in content.chunks() {
            self.send(chunk).await;
        }
    }
}

fn asked(parts: &[(&Content, u64)]) -> Vec<PartRequest> {
    parts.iter().map(|(part, from)| PartRequest { sha256: part.name(), from: *from }).collect()
}

#[tokio::test]
async fn a_list_in_parts_is_asked_for_pulled_and_applied() {
    let place = Place::new();
    let (store, _) = place.open();
    let entries = badges(0..20);
    let (head, parts) = in_two_parts(7, &entries);

    let mut cloud = Cloud::offering(&store, &head).await;

    assert_eq!(cloud.wanted().await, asked(&[(&parts[0], 0), (&parts[1], 0)]));
    assert_eq!(store.list_taken().map(|taken| (taken.version, taken.missing)), Some((7, 2)));
    // Backwards, twice, with rubbish in between, and the second part before the first.
    for part in parts.iter().rev() {
        for chunk in part.chunks().into_iter().rev() {
            cloud.send(chunk[..chunk.len() / 2].to_vec()).await;
            cloud.send(chunk.clone()).await;
            cloud.send(chunk).await;
        }
        cloud.serve(&Content::of(&badges(90..95))).await;
    }
    assert_eq!(version_of(&cloud.hears().await), Some(7));
    let uid = Uid::new(&[4, 0, 0, 19]).expect("four bytes");
    let found = store.lookup(uid).await.expect("looked up").expect("in the list");
    assert_eq!(found.badge.as_str(), "b-19");
    let by_badge = store.lookup_badge("b-3".into()).await.expect("looked up");
    assert_eq!(by_badge.map(|(uid, _)| uid), Uid::new(&[4, 0, 0, 3]));
    assert_eq!(store.lookup_badge("b-20".into()).await, Ok(None));
    store.close().await;
    assert_eq!(place.open().1.allowlist.map(|list| list.version), Some(7));
}

#[tokio::test]
async fn parts_that_did_not_change_are_not_pulled_again() {
    let place = Place::new();
    let (store, _) = place.open();
    let entries = badges(0..20);
    let (head, parts) = in_two_parts(1, &entries);
    let mut cloud = Cloud::offering(&store, &head).await;
    cloud.wanted().await;
    cloud.serve(&parts[0]).await;
    cloud.serve(&parts[1]).await;
    assert_eq!(version_of(&cloud.hears().await), Some(1));
    store.close().await;
    let (store, _) = place.open();
    let changed = [badges(0..10), badges(10..21)].concat();
    let second_part = Content::of(&changed[10..]);
    let head = head_in_parts(2, &changed, &[parts[0].clone(), second_part.clone()]);

    let mut cloud = Cloud::offering(&store, &head).await;

    assert_eq!(cloud.wanted().await, asked(&[(&second_part, 0)]));
    cloud.serve(&second_part).await;
    assert_eq!(version_of(&cloud.hears().await), Some(2));
}

#[tokio::test]
async fn a_pull_goes_on_after_a_restart_where_it_was() {
    let place = Place::new();
    let (store, _) = place.open();
    let (head, parts) = in_two_parts(1, &badges(0..20));
    let mut cloud = Cloud::offering(&store, &head).await;
    cloud.wanted().await;
    cloud.serve(&parts[1]).await;
    let chunks = parts[0].chunks();
    assert!(chunks.len() > 1, "{}", chunks.len());
    cloud.send(chunks[0].clone()).await;
    store.close().await;

    let (store, _) = place.open();
    let mut cloud = Cloud::offering(&store, &head).await;

    assert_eq!(cloud.wanted().await, asked(&[(&parts[0], 1)]));
    for chunk in &chunks[1..] {
        cloud.send(chunk.clone()).await;
    }
    assert_eq!(version_of(&cloud.hears().await), Some(1));
}

#[tokio::test]
async fn content_with_another_hash_is_pulled_from_its_start() {
    let place = Place::new();
    let (store, _) = place.open();
    let (head, parts) = in_two_parts(1, &badges(0..10));
    let mut cloud = Cloud::offering(&store, &head).await;
    cloud.wanted().await;
    let name = parts[0].name();
    let other = Content(vec![b'x'; parts[0].0.len()]);
    for chunk in other.chunks() {
        let forged = String::from_utf8(chunk).expect("JSON").replace(&other.name(), &name);
        cloud.send(forged.into_bytes()).await;
    }

    assert_eq!(cloud.wanted().await, asked(&[(&parts[0], 0)]));

    cloud.serve(&parts[0]).await;
    assert_eq!(version_of(&cloud.hears().await), Some(1));
}

/// What becomes of a list whose parts have these lines, under a head that would be right.
async fn refused_lines(store: &Store, lines: &[&str], count: usize) -> (RefusalReason, String) {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let part = Content::of(&lines);
    let head = with(head_in_parts(9, &lines, std::slice::from_ref(&part)), "count", json!(count));
    let mut cloud = Cloud::offering(store, &head).await;
    loop {
        match cloud.hears().await {
            ApplyOutcome::Wanted(_) => cloud.serve(&part).await,
            ApplyOutcome::Refused { refusal, .. } => return (refusal.reason, refusal.detail),
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[tokio::test]
async fn parts_are_judged_as_inline_entries_are() {
    use RefusalReason as R;
    let place = Place::new();
    let (store, _) = place.open();
    let long = ANNA.replace("u-77", &"u".repeat(5000));
    let bad = BORIS.replace("issued", "found");
    let twin = ANNA.replace("04A2B3C4", "04A2B3C5");
    let cases: [(&[&str], usize, R, &str); 9] = [
        (&[&bad, &long], 2, R::TooLarge, "entry 1"),
        (&[BORIS, ANNA, "{"], 3, R::BadEntry, "entry 2, json"),
        (&[BORIS, "", ANNA], 3, R::BadEntry, "entry 1, json"),
        (&[ANNA, BORIS], 2, R::BadEntry, "entry 1, uid"),
        (&[BORIS, BORIS, &bad], 3, R::BadEntry, "entry 2, origin"),
        (&[BORIS, BORIS], 2, R::Duplicate, "entry 1"),
        (&[BORIS, ANNA, &twin], 3, R::Duplicate, "entry 2"),
        (&[BORIS, ANNA], 3, R::CountMismatch, "2 entries"),
        (&[], 0, R::Shrink, ""),
    ];
    for (lines, count, reason, detail) in cases {
        if lines.is_empty() {
            apply(&store, super::allowlists::head_of(1, &[ANNA])).await;
            let head = head_in_parts(9, &[], &[]);
            assert_eq!(refusal(&store, head).await.0, reason);
            continue;
        }
        let found = refused_lines(&store, lines, count).await;
        assert_eq!(found.0, reason, "{}", found.1);
        assert!(found.1.contains(detail), "{}", found.1);
        assert!(!found.1.contains("04A2"), "{}", found.1);
    }
    assert!(!place.beside("tapgate-allowlist.staging").exists());
    assert!(store.lookup(anna()).await.expect("looked up").is_some());
}

#[tokio::test]
async fn a_list_that_is_too_large_is_refused_before_anything_is_pulled() {
    let place = Place::new();
    let (store, _) = place.open();
    let entries = badges(0..10);
    let (head, _) = in_two_parts(1, &entries);
    let name = |n: u8| hex::encode([n; 32]);
    let mib = 1024 * 1024;
    let many: Vec<Value> = (0..129).map(|n| json!({"sha256": name(n), "bytes": 4 * mib})).collect();
    for parts in [json!(many), json!([{"sha256": name(1), "bytes": 4 * mib + 1}])] {
        let found = refusal(&store, with(head.clone(), "parts", parts)).await;
        assert_eq!(found.0, RefusalReason::TooLarge, "{}", found.1);
    }
    for parts in [
        json!([{"sha256": name(1), "bytes": 0}]),
        json!([{"sha256": name(1), "bytes": 5}, {"sha256": name(1), "bytes": 5}]),
        json!([{"sha256": "04", "bytes": 5}]),
    ] {
        let found = refusal(&store, with(head.clone(), "parts", parts)).await;
        assert_eq!(found.0, RefusalReason::BadMessage, "{}", found.1);
    }
    store.gateway.run(|gateway| gateway.reserve_bytes = u64::MAX / 2).await.expect("runs");
    let (reason, detail) = refusal(&store, head).await;
    assert_eq!(reason, RefusalReason::TooLarge);
    assert!(detail.contains("free"), "{detail}");
    assert!(!place.beside("tapgate-allowlist.parts").exists());
}

#[tokio::test]
async fn a_head_that_was_refused_is_refused_again_without_being_judged() {
    let place = Place::new();
    let (store, _) = place.open();
    let (head, parts) = in_two_parts(1, &badges(0..10));
    let wrong = with(head.clone(), "digest", json!("0".repeat(64)));
    let mut cloud = Cloud::offering(&store, &wrong).await;
    cloud.wanted().await;
    cloud.serve(&parts[0]).await;
    assert!(matches!(cloud.hears().await, ApplyOutcome::Refused { .. }));

    assert_eq!(refusal(&store, wrong).await.0, RefusalReason::DigestMismatch);

    // What was pulled for it is not pulled again for its correction.
    assert_eq!(version_of(&apply(&store, head).await), Some(1));
}

#[tokio::test]
async fn a_newer_head_takes_the_place_of_one_that_is_being_pulled() {
    let place = Place::new();
    let (store, _) = place.open();
    let (two, _) = in_two_parts(2, &badges(0..10));
    let (three, parts) = in_two_parts(3, &badges(0..11));
    Cloud::offering(&store, &two).await.wanted().await;
    let mut cloud = Cloud::offering(&store, &three).await;
    assert_eq!(cloud.wanted().await.len(), 2);
    // Late by another way, and no longer of interest.
    let _late = Cloud::offering(&store, &two).await;
    // The same again, with a new connection: asked for at once.
    let mut again = Cloud::offering(&store, &three).await;
    assert_eq!(again.wanted().await.len(), 2);
    for part in &parts {
        again.serve(part).await;
    }
    assert_eq!(version_of(&again.hears().await), Some(3));
}

#[tokio::test]
async fn an_import_goes_before_the_clouds_list_and_the_cloud_is_answered_all_the_same() {
    let place = Place::new();
    let (store, _) = place.open();
    let (four, parts) = in_two_parts(4, &badges(0..20));
    let mut cloud = Cloud::offering(&store, &four).await;
    assert_eq!(cloud.wanted().await.len(), 2);
    let (three, stick) = in_two_parts(3, &badges(0..11));
    let mut import = Cloud::offering_as(Origin::Import(1), &store, &three).await;
    assert_eq!(import.wanted().await.len(), 2);
    // With another connection the cloud's head comes again; it waits for the technician.
    let mut cloud = Cloud::offering(&store, &four).await;
    for part in &stick {
        import.serve(part).await;
    }
    assert_eq!(version_of(&import.hears().await), Some(3));

    assert_eq!(cloud.wanted().await, asked(&[(&parts[1], 0)]), "the stick had the first one");
    // A newer one from the stick: the cloud learns that its own has become old.
    let newer = with(three, "version", json!(9));
    let mut import = Cloud::offering_as(Origin::Import(2), &store, &newer).await;
    assert_eq!(version_of(&import.hears().await), Some(9));
    let ApplyOutcome::Refused { refusal, current, .. } = cloud.hears().await else {
        panic!("version 4 is older than 9");
    };
    assert_eq!(refusal.reason, RefusalReason::Rollback);
    assert_eq!(current.map(|list| list.version), Some(9));
}

#[tokio::test]
async fn a_list_that_cloud_and_technician_bring_is_applied_once_and_both_are_told() {
    let place = Place::new();
    let (store, _) = place.open();
    let (two, parts) = in_two_parts(2, &badges(0..20));
    let mut cloud = Cloud::offering(&store, &two).await;
    assert_eq!(cloud.wanted().await.len(), 2);
    let mut import = Cloud::offering_as(Origin::Import(1), &store, &two).await;
    assert_eq!(import.wanted().await.len(), 2);
    // The line comes back, and the head with it.
    let mut again = Cloud::offering(&store, &two).await;
    assert_eq!(again.wanted().await.len(), 2);
    assert_eq!(import.wanted().await.len(), 2);
    for part in &parts {
        import.serve(part).await;
    }
    assert_eq!(version_of(&import.hears().await), Some(2));
    assert!(matches!(again.hears().await, ApplyOutcome::Unchanged(list) if list.version == 2));
}

fn delta(base: u64, remove: &[&str], upsert: &[&str]) -> Value {
    let upsert: Vec<Value> =
        upsert.iter().map(|entry| serde_json::from_str(entry).expect("JSON")).collect();
    json!([{"base": base, "remove": remove, "upsert": upsert}])
}

/// A head whose content nobody serves, so that only its delta can lead there.
fn head_by_delta(version: u64, result: &[String], deltas: Value) -> Value {
    let unserved = Content::of(&badges(900..901));
    with(head_in_parts(version, result, &[unserved]), "deltas", deltas)
}

#[tokio::test]
async fn a_delta_from_the_current_version_spares_the_pull() {
    let place = Place::new();
    let (store, _) = place.open();
    let entries = badges(0..600);
    let all: Vec<&str> = entries.iter().map(String::as_str).collect();
    assert_eq!(version_of(&apply(&store, super::allowlists::head_of(1, &all)).await), Some(1));
    let blocked = entries[5].replace("active", "blocked");
    let mut result = entries.clone();
    result[5] = blocked.clone();
    result.remove(599);
    result.remove(0);
    result.push(ANNA.to_owned());
    let deltas =
        delta(1, &["04000000", "04000257", "04000005", "04FFFFFF"], &[ANNA, blocked.as_str()]);

    let outcome = apply(&store, head_by_delta(2, &result, deltas)).await;

    assert_eq!(version_of(&outcome), Some(2), "{outcome:?}");
    let uid = |n: u8| Uid::new(&[4, 0, 0, n]).expect("four bytes");
    assert!(store.lookup(anna()).await.expect("looked up").is_some());
    assert!(store.lookup(uid(5)).await.expect("looked up").expect("kept").blocked);
    assert_eq!(store.lookup(uid(0)).await, Ok(None));
    let page = store.entries_after(None, 1000).await.expect("read");
    assert_eq!(page.entries.len(), 599);
    assert_eq!(page.entries[0].0, uid(1));
    assert_eq!(page.head.map(|head| head.allowlist.version), Some(2));
    let rest = store.entries_after(Some(page.entries[597].0), 10).await.expect("read");
    assert_eq!(rest.entries, page.entries[598..]);
}

#[tokio::test]
async fn where_the_delta_does_not_lead_to_the_list_its_content_does() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, super::allowlists::head_of(1, &[ANNA])).await;
    let inline = |version, deltas| {
        with(super::allowlists::head_of(version, &[ANNA, BORIS]), "deltas", deltas)
    };
    // Of another version; with another result; with a badge that another UID has.
    let head = inline(2, delta(7, &[], &[BORIS]));
    assert_eq!(version_of(&apply(&store, head).await), Some(2));
    let head = inline(3, delta(2, &["04A2B3C4"], &[]));
    assert_eq!(version_of(&apply(&store, head).await), Some(3));
    let twin = ANNA.replace("04A2B3C4", "04A2B3C5");
    let head = inline(4, delta(3, &[], &[&twin]));
    assert_eq!(version_of(&apply(&store, head).await), Some(4));
    let (head, parts) = in_two_parts(5, &badges(0..10));
    let head = with(with(head, "deltas", delta(4, &[], &[])), "allow_shrink", json!(true));
    let mut cloud = Cloud::offering(&store, &head).await;
    assert_eq!(cloud.wanted().await, asked(&[(&parts[0], 0)]));
    cloud.serve(&parts[0]).await;
    assert_eq!(version_of(&cloud.hears().await), Some(5));
}

#[tokio::test]
async fn a_bad_delta_refuses_the_list() {
    use RefusalReason as R;
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, super::allowlists::head_of(1, &[ANNA])).await;
    let head = |deltas| with(super::allowlists::head_of(2, &[ANNA, BORIS]), "deltas", deltas);
    let bad = BORIS.replace("issued", "found");
    let long = BORIS.replace("u-78", &"u".repeat(5000));
    let cases = [
        (delta(1, &[], &[&bad]), R::BadEntry),
        (delta(1, &[], &[&long]), R::TooLarge),
        (delta(1, &["04a2b3c4"], &[]), R::BadMessage),
        (json!([{"upsert": [], "remove": []}]), R::BadMessage),
        (json!({}), R::BadMessage),
    ];
    for (deltas, reason) in cases {
        assert_eq!(refusal(&store, head(deltas)).await.0, reason);
    }
    assert_eq!(version_of(&apply(&store, head(delta(1, &[], &[BORIS]))).await), Some(2));
}

#[tokio::test]
async fn a_delta_that_changes_a_badge_twice_is_left_out() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, super::allowlists::head_of(1, &[ANNA])).await;
    let twice = delta(1, &[], &[BORIS, BORIS]);
    let head = with(super::allowlists::head_of(2, &[ANNA, BORIS]), "deltas", twice);
    assert_eq!(version_of(&apply(&store, head).await), Some(2));
}

#[tokio::test]
async fn a_delta_cannot_empty_the_house() {
    let place = Place::new();
    let (store, _) = place.open();
    let entries = badges(0..10);
    let all: Vec<&str> = entries.iter().map(String::as_str).collect();
    apply(&store, super::allowlists::head_of(1, &all)).await;
    let uids: Vec<String> = (0..6).map(|n| format!("0400000{n}")).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    let head = head_by_delta(2, &entries[6..], delta(1, &uids, &[]));

    assert_eq!(refusal(&store, head.clone()).await.0, RefusalReason::Shrink);
    assert_eq!(version_of(&apply(&store, with(head, "allow_shrink", json!(true))).await), Some(2));
}
