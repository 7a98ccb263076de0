use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::core::badge::Uid;
use crate::core::ids::BadgeId;
use crate::core::ledger::OverrideAction;
use crate::io::store::ApplyOutcome;
use crate::protocol::allowlist::{RefusalReason, judge};

pub(super) const LIST: &str = "5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11";
const OTHER: &str = "00000000-4b53-4e0e-9d1c-2f0f3f0b7a11";
pub(super) const ANNA: &str = r#"{"badge":"b-1042","uid":"04A2B3C4","user":"u-77","origin":"issued","status":"active","grants":["*"]}"#;
const LOST: &str = r#"{"badge":"b-1042","uid":"04A2B3C4","user":"u-77","origin":"issued","status":"blocked","grants":["*"]}"#;
pub(super) const BORIS: &str = r#"{"badge":"b-7","uid":"04112233445566","user":"u-78","origin":"issued","status":"active","grants":["*"]}"#;

pub(super) fn anna() -> Uid {
    Uid::new(&[4, 0xA2, 0xB3, 0xC4]).expect("four bytes")
}

pub(super) fn badge(n: usize) -> String {
    format!(
        r#"{{"badge":"b-{n}","uid":"04{n:06X}","user":"u-{n}","origin":"issued","status":"active","grants":["*"]}}"#
    )
}

/// As the contract says, apart from the code under test.
pub(super) fn digest(entries: &[&str]) -> String {
    let mut judged: Vec<_> = entries.iter().filter_map(|raw| judge(raw.as_bytes()).ok()).collect();
    judged.sort_by_key(|(uid, ..)| uid.as_bytes().to_vec());
    let hashes: Vec<u8> = judged.iter().flat_map(|(.., bytes)| Sha256::digest(bytes)).collect();
    hex::encode(Sha256::digest(hashes))
}

pub(super) fn head_of(version: u64, entries: &[&str]) -> Value {
    let entries_json: Vec<Value> = entries
        .iter()
        .map(|entry| serde_json::from_str(entry).expect("JSON without a member twice"))
        .collect();
    json!({
        "list": LIST, "version": version, "count": entries.len(), "digest": digest(entries),
        "issued_at": "2026-11-22T10:00:00Z", "entries": entries_json,
    })
}

pub(super) fn with(mut head: Value, member: &str, value: Value) -> Value {
    head[member] = value;
    head
}

pub(super) async fn apply(store: &Store, head: Value) -> ApplyOutcome {
    apply_raw(store, head.to_string()).await
}

pub(super) async fn apply_raw(store: &Store, head: String) -> ApplyOutcome {
    store.apply_allowlist(head.into_bytes(), second(50)).await.expect("the store runs")
}

pub(super) async fn refusal(store: &Store, head: Value) -> (RefusalReason, String) {
    refusal_of(apply(store, head).await)
}

fn refusal_of(outcome: ApplyOutcome) -> (RefusalReason, String) {
    match outcome {
        ApplyOutcome::Refused { refusal, .. } => (refusal.reason, refusal.detail),
        other => panic!("not refused: {other:?}"),
    }
}

pub(super) fn version_of(outcome: &ApplyOutcome) -> Option<u64> {
    match outcome {
        ApplyOutcome::Applied { allowlist, .. } => Some(allowlist.version),
        ApplyOutcome::Unchanged(_) | ApplyOutcome::Refused { .. } | ApplyOutcome::Wanted(_) => None,
    }
}

#[tokio::test]
async fn a_list_is_applied_looked_up_and_survives() {
    let place = Place::new();
    let (store, recovered) = place.open();
    assert_eq!(recovered.allowlist, None);
    assert_eq!(store.lookup(anna()).await, Ok(None));

    assert_eq!(version_of(&apply(&store, head_of(3, &[ANNA, BORIS])).await), Some(3));

    let entry = store.lookup(anna()).await.expect("looked up").expect("in the list");
    assert_eq!((entry.badge.as_str(), entry.blocked), ("b-1042", false));
    let by_badge = store.lookup_badge("b-1042".into()).await.expect("looked up");
    assert_eq!(by_badge.map(|(uid, _)| uid), Some(anna()));
    assert!(store.lookup(Uid::new(&[1, 2, 3, 4]).expect("four")).await.expect("ok").is_none());
    store.close().await;
    let (store, recovered) = place.open();
    let list = recovered.allowlist.clone().expect("kept");
    assert_eq!((list.version, list.count, list.digest), (3, 2, digest(&[ANNA, BORIS])));
    assert_eq!(recovered.allowlist_arrived, Some(second(50)));
    assert_eq!(recovered.allowlist_issued_at, Some(Wall(TEN)));
    assert_eq!(store.lookup(anna()).await.expect("looked up"), Some(entry));
}

#[tokio::test]
async fn badges_are_listed_a_page_at_a_time_with_their_blocks_and_without_their_uids() {
    let place = Place::new();
    let (store, _) = place.open();
    assert_eq!(store.badge_page(None, 3).await, Ok(Vec::new()));
    let badges: Vec<String> = (0..8).map(badge).collect();
    let badges: Vec<&str> = badges.iter().map(String::as_str).collect();
    apply(&store, head_of(1, &badges)).await;
    let blocked = Uid::new(&[4, 0, 0, 5]).expect("four bytes");
    store.block_badge(blocked, Some("b-5".into()), "a technician".into()).await.expect("blocked");

    let mut seen = Vec::new();
    let mut after: Option<BadgeId> = None;
    loop {
        let page = store.badge_page(after.clone(), 3).await.expect("a page");
        after = page.last().and_then(|record| Some(record.entry.as_ref()?.badge.clone()));
        if page.is_empty() {
            break;
        }
        for record in page {
            let entry = record.entry.expect("listed");
            let listed = record.listed.expect("listed");
            assert_eq!((listed.get("uid"), &listed["status"]), (None, &"active".into()));
            assert_eq!(entry.blocked, record.locally_blocked);
            seen.push((entry.badge.to_string(), record.locally_blocked));
        }
    }
    let expected: Vec<(String, bool)> = (0..8).map(|n| (format!("b-{n}"), n == 5)).collect();
    assert_eq!(seen, expected);
    assert!(store.badge_record(anna()).await.expect("asked").entry.is_none());
}

#[tokio::test]
async fn the_ledger_tells_whether_a_list_was_recorded() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, head_of(3, &[ANNA])).await;
    store.close().await;
    let (store, recovered) = place.open();
    let list = recovered.unrecorded_allowlist().expect("applied and not recorded");
    let fact = Fact::AllowlistApplied {
        list: list.list,
        version: list.version,
        digest: list.digest,
        count: list.count,
    };
    store.commit(vec![at(60, fact)]).await.expect("recorded");
    store.close().await;

    assert_eq!(place.open().1.unrecorded_allowlist(), None);
}

#[tokio::test]
async fn the_same_head_again_changes_nothing_but_the_lists_age() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, head_of(3, &[ANNA])).await;

    let later = Stamp { uptime: Uptime(500_000), ..second(50) };
    let again = store.apply_allowlist(head_of(3, &[ANNA]).to_string().into_bytes(), later).await;
    let again = again.expect("runs");

    assert!(matches!(again, ApplyOutcome::Unchanged(list) if list.version == 3));
    assert!(!place.beside("tapgate-allowlist-2.db").exists());
    store.close().await;
    assert_eq!(place.open().1.allowlist_arrived, Some(later));
}

#[tokio::test]
async fn each_refusal_leaves_the_old_list() {
    use RefusalReason as R;
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, head_of(3, &[ANNA, BORIS])).await;
    let other = || with(head_of(4, &[ANNA]), "list", json!(OTHER));
    let long = ANNA.replace("u-77", &"u".repeat(5000));
    let bad = ANNA.replace("04A2B3C4", "04a2b3c4");
    let twin = BORIS.replace("04112233445566", "04112233445577");
    let cases = [
        (json!({"version": 4}), R::BadMessage, "list"),
        (
            with(head_of(4, &[ANNA]), "issued_at", json!("2026-11-24T10:00:00Z")),
            R::BadMessage,
            "24 h",
        ),
        (other(), R::OtherList, ""),
        (with(other(), "replaces", json!(OTHER)), R::OtherList, ""),
        (head_of(2, &[ANNA]), R::Rollback, "2"),
        (head_of(3, &[ANNA]), R::Equivocation, ""),
        (with(head_of(4, &[ANNA]), "count", json!(1_000_001)), R::TooLarge, "1000000"),
        (head_of(4, &[ANNA, &long]), R::TooLarge, "entry 1"),
        (head_of(4, &[BORIS, &bad]), R::BadEntry, "entry 1, uid"),
        (head_of(4, &[ANNA, "7"]), R::BadEntry, "entry 1, json"),
        (head_of(4, &[ANNA, BORIS, ANNA]), R::Duplicate, "entry 2"),
        (head_of(4, &[BORIS, &twin]), R::Duplicate, "entry 1"),
        (with(head_of(4, &[ANNA, BORIS]), "count", json!(3)), R::CountMismatch, "2"),
        (with(head_of(4, &[ANNA]), "digest", json!("0".repeat(64))), R::DigestMismatch, ""),
        (head_of(4, &[]), R::Shrink, ""),
    ];
    for (head, reason, detail) in cases {
        let found = refusal(&store, head).await;
        assert_eq!(found.0, reason, "{}", found.1);
        assert!(found.1.contains(detail), "{}", found.1);
        assert!(!found.1.contains("04A2") && !found.1.contains("04a2"), "{}", found.1);
    }
    assert!(store.lookup(anna()).await.expect("looked up").is_some());
    assert!(!place.beside("tapgate-allowlist.staging").exists());
    store.close().await;
    assert_eq!(place.open().1.allowlist.map(|list| list.version), Some(3));
}

/// What makes a reason hold of a head that would be applied.
type Wrong = (RefusalReason, fn(&mut Value, &mut Vec<String>));

const WRONG: [Wrong; 10] = [
    (RefusalReason::BadMessage, |head, _| head["issued_at"] = json!(7)),
    (RefusalReason::OtherList, |head, _| head["list"] = json!(OTHER)),
    (RefusalReason::Rollback, |head, _| head["version"] = json!(2)),
    (RefusalReason::Equivocation, |head, _| head["version"] = json!(3)),
    (RefusalReason::TooLarge, |_, entries| entries.push(ANNA.replace("u-77", &"u".repeat(5000)))),
    (RefusalReason::BadEntry, |_, entries| entries.push(ANNA.replace("u-77", ""))),
    (RefusalReason::Duplicate, |_, entries| entries.push(BORIS.into())),
    (RefusalReason::CountMismatch, |head, _| head["count"] = json!(99)),
    (RefusalReason::DigestMismatch, |head, _| head["digest"] = json!("0".repeat(64))),
    (RefusalReason::Shrink, |_, entries| entries.retain(|entry| !entry.contains("u-1"))),
];

/// A head of version 4 of which these reasons hold.
fn wrong_in(wrong: &[&Wrong]) -> Value {
    let mut entries: Vec<String> = (10..16).map(badge).chain([BORIS.to_owned()]).collect();
    let mut members = json!({});
    wrong.iter().for_each(|(_, make)| make(&mut members, &mut entries));
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let mut head = head_of(4, &entries);
    let members = members.as_object().expect("an object").clone();
    head.as_object_mut().expect("an object").extend(members);
    head
}

#[tokio::test]
async fn of_any_two_reasons_the_first_in_the_contracts_order_is_given() {
    let place = Place::new();
    let (store, _) = place.open();
    let current: Vec<String> = (10..16).map(badge).collect();
    let current: Vec<&str> = current.iter().map(String::as_str).collect();
    apply(&store, head_of(3, &current)).await;
    for (at, first) in WRONG.iter().enumerate() {
        let alone = refusal(&store, wrong_in(&[first])).await;
        assert_eq!(alone.0, first.0, "{}", alone.1);
        for second in &WRONG[at + 1..] {
            let both = refusal(&store, wrong_in(&[second, first])).await;
            assert_eq!(both.0, first.0, "and {:?}: {}", second.0, both.1);
        }
    }
    assert!(WRONG.is_sorted_by_key(|(reason, _)| *reason));
    assert_eq!(version_of(&apply(&store, wrong_in(&[])).await), Some(4));
}

#[tokio::test]
async fn another_list_needs_to_say_that_it_replaces_this_one() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, head_of(9, &[ANNA])).await;
    let head = with(head_of(1, &[ANNA, BORIS]), "replaces", json!(LIST));

    let outcome = apply(&store, with(head, "list", json!(OTHER))).await;

    assert_eq!(version_of(&outcome), Some(1));
}

#[tokio::test]
async fn more_than_half_of_the_usable_badges_cannot_vanish_by_accident() {
    let place = Place::new();
    let (store, _) = place.open();
    let badges: Vec<String> = (0..8).map(badge).collect();
    let all: Vec<&str> = badges.iter().map(String::as_str).collect();
    apply(&store, head_of(1, &all)).await;
    let blocked: Vec<String> = badges.iter().map(|b| b.replace("active", "blocked")).collect();
    let mixed: Vec<&str> =
        all[..3].iter().copied().chain(blocked[3..].iter().map(String::as_str)).collect();

    assert_eq!(refusal(&store, head_of(2, &mixed)).await.0, RefusalReason::Shrink);
    assert_eq!(refusal(&store, head_of(2, &all[..3])).await.0, RefusalReason::Shrink);
    // Exactly half, and then three of four, may go.
    assert_eq!(version_of(&apply(&store, head_of(2, &all[..4])).await), Some(2));
    assert_eq!(version_of(&apply(&store, head_of(3, &all[..1])).await), Some(3));
    assert_eq!(refusal(&store, head_of(4, &[])).await.0, RefusalReason::Shrink);
    let emptied = apply(&store, with(head_of(4, &[]), "allow_shrink", json!(true))).await;
    assert_eq!(version_of(&emptied), Some(4));
    store.close().await;
    // An empty list is a list.
    assert_eq!(place.open().1.allowlist.map(|list| list.count), Some(0));
}

#[tokio::test]
async fn two_generations_are_kept() {
    let place = Place::new();
    let (store, _) = place.open();
    for version in 1..=4 {
        apply(&store, head_of(version, &[ANNA])).await;
    }
    let there = |n: u64| place.beside(&format!("tapgate-allowlist-{n}.db")).exists();
    assert_eq!([1, 2, 3, 4].map(there), [false, false, true, true]);
}

#[tokio::test]
async fn a_local_block_holds_until_a_list_has_the_badge_blocked_or_not_at_all() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, head_of(1, &[ANNA, BORIS])).await;
    let by = || "technician".to_owned();
    assert_eq!(store.block_badge(anna(), Some("b-1042".into()), by()).await, Ok(true));
    assert_eq!(store.block_badge(anna(), None, by()).await, Ok(false));
    let blocked = async |store: &Store| {
        store.lookup(anna()).await.expect("looked up").is_some_and(|entry| entry.blocked)
    };
    assert!(blocked(&store).await);
    store.close().await;
    let (store, _) = place.open();
    assert!(blocked(&store).await);
    // A list that still has it active does not know yet.
    apply(&store, head_of(2, &[ANNA, BORIS])).await;
    assert!(blocked(&store).await);

    let outcome = apply(&store, head_of(3, &[LOST, BORIS])).await;

    let ApplyOutcome::Applied { unblocked, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(unblocked, [anna()]);
    assert_eq!(store.local_blocks().await, Ok(Vec::new()));
    // Blocked again and cleared while the ledger was told of nothing: two notes are due.
    let notes = store.override_notes().await.expect("read");
    let told: Vec<_> = notes.iter().map(|n| (n.action, n.badge.clone(), n.by.as_str())).collect();
    let anna_badge = || Some(BadgeId::from("b-1042"));
    assert_eq!(
        told,
        [
            (OverrideAction::Blocked, anna_badge(), "technician"),
            (OverrideAction::Cleared, anna_badge(), "allowlist")
        ]
    );
    store.forget_override_notes(notes[0].id).await.expect("forgotten");
    assert_eq!(store.override_notes().await.expect("read"), notes[1..]);
    apply(&store, head_of(4, &[ANNA, BORIS])).await;
    assert!(!blocked(&store).await);
    store.block_badge(anna(), None, by()).await.expect("blocked");
    assert_eq!(store.unblock_badge(anna(), by()).await, Ok(true));
    assert_eq!(store.unblock_badge(anna(), by()).await, Ok(false));
    assert!(!blocked(&store).await);
}

#[tokio::test]
async fn staging_leaves_room_for_the_ledger() {
    let place = Place::new();
    let (store, _) = place.open();
    store.gateway.run(|gateway| gateway.reserve_bytes = u64::MAX / 2).await.expect("runs");

    let (reason, detail) = refusal(&store, head_of(1, &[ANNA])).await;

    assert_eq!(reason, RefusalReason::TooLarge);
    assert!(detail.contains("free"), "{detail}");
}

#[tokio::test]
async fn a_disk_that_fails_refuses_with_storage() {
    let place = Place::new();
    let (store, _) = place.open();
    std::fs::create_dir(place.beside("tapgate-allowlist.staging")).expect("in the way");

    let (reason, _) = refusal(&store, head_of(1, &[ANNA])).await;

    assert_eq!(reason, RefusalReason::Storage);
    assert_eq!(store.lookup(anna()).await, Ok(None));
}

#[tokio::test]
async fn a_list_built_but_not_switched_to_does_not_decide() {
    let place = Place::new();
    let (store, _) = place.open();
    apply(&store, head_of(1, &[ANNA])).await;
    apply(&store, head_of(2, &[ANNA, BORIS])).await;
    store
        .gateway
        .run(|gateway| gateway.connection.execute("UPDATE allowlist SET generation = 1", []))
        .await
        .expect("runs")
        .expect("as if power went before the switch");
    store.close().await;

    let (store, recovered) = place.open();

    assert_eq!(recovered.allowlist.map(|list| list.version), Some(1));
    assert_eq!(version_of(&apply(&store, head_of(2, &[ANNA, BORIS])).await), Some(2));
}
