use super::*;

const LIST: &str = "5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11";
const ANNA: &str = r#"{"badge":"b-1042","uid":"04A2B3C4","user":"u-77","origin":"issued","status":"active","grants":["group:laundry","place:P-12"],"valid_from":"2026-01-01T00:00:00Z","valid_until":null,"max_concurrent":1,"label":"Zoë"}"#;
const BORIS: &str = r#"{"x-new":{"b":[1,-2],"a":null},"badge":"b-7","uid":"04112233445566","user":"u-78","origin":"third_party","status":"blocked","blocked_reason":"lost","grants":["*"]}"#;

/// Hashes computed with another JSON library, sorted members and `hashlib`.
const ANNA_HASH: &str = "7d226e813de95e69f8e251d31874e3b1df3f48921394f3512f3c8b8846b1c424";
const BORIS_HASH: &str = "931ab0f1150c2a4ab2a793c1ce52c1c6d611eb078ad83895b272578d2207db2a";
const BOTH_DIGEST: &str = "62765788898d3766163bd03653eb3a0a3da48564615be344ef9d5382a7c83387";
const EMPTY_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn head(rest: &str) -> String {
    format!(
        r#"{{"list":"{LIST}","version":43,"count":2,"digest":"{BOTH_DIGEST}","issued_at":"2026-11-22T10:00:00Z",{rest}}}"#
    )
}

fn with(name: &str, value: &str) -> Value {
    let mut entry = json::parse(ANNA.as_bytes()).expect("strict");
    entry[name] = json::parse(value.as_bytes()).expect("strict");
    entry
}

#[test]
fn an_entry_is_read_as_the_contract_says() {
    let (uid, entry, _) = judge(ANNA.as_bytes()).expect("a good entry");

    assert_eq!(uid, Uid::new(&[0x04, 0xA2, 0xB3, 0xC4]).expect("four bytes"));
    assert_eq!(
        entry,
        Entry {
            badge: "b-1042".into(),
            user: "u-77".into(),
            origin: Origin::Issued,
            blocked: false,
            grants: vec![Grant::Group("laundry".into()), Grant::Place("P-12".into())],
            valid_from: Some(Wall(1_767_225_600_000)),
            valid_until: None,
            max_concurrent: Some(1),
        }
    );
    assert!(is_usable(&entry));
    let (_, entry, _) = judge(BORIS.as_bytes()).expect("unknown members have no effect");
    assert!(entry.blocked && !is_usable(&entry));
}

#[test]
fn digests_are_those_of_an_independent_implementation() {
    let hash = |raw: &str| entry_hash(&judge(raw.as_bytes()).expect("good").2);
    let mut both = ListDigest::default();
    both.add(&hash(BORIS));
    both.add(&hash(ANNA));

    assert_eq!(hex::encode(hash(ANNA)), ANNA_HASH);
    assert_eq!(hex::encode(hash(BORIS)), BORIS_HASH);
    assert_eq!(both.finish(), BOTH_DIGEST);
    assert_eq!(ListDigest::default().finish(), EMPTY_DIGEST);
}

#[test]
fn a_head_is_utf8_also_where_it_is_not_looked_into() {
    let text = head(r#""entries":[],"deltas":[{"base":42,"later":"@"}]"#);
    let [before, after] = text.split('@').collect::<Vec<_>>()[..] else { panic!("one") };
    let with = |bytes: &[u8]| [before.as_bytes(), bytes, after.as_bytes()].concat();

    assert!(Head::parse(&with("ü".as_bytes())).is_ok());
    assert!(Head::parse(&with(b"\xfc")).is_err());
}

#[test]
fn a_bad_entry_names_its_field() {
    let cases = [
        ("badge", r#""b 1""#),
        ("user", r#""""#),
        ("uid", r#""04a2b3c4""#),
        ("uid", r#""04A2B3""#),
        ("uid", "4"),
        ("origin", r#""found""#),
        ("status", r#""lost""#),
        ("blocked_reason", r#""eaten""#),
        ("grants", r#"["floor:3"]"#),
        ("grants", r#"["group:"]"#),
        ("grants", r#""*""#),
        ("valid_from", r#""2026-13-01T00:00:00Z""#),
        ("valid_until", r#""2026-01-01T00:00:00Z[UTC]""#),
        ("valid_until", r#""2026-01-01T00:00Z""#),
        ("valid_until", r#""20260101T000000Z""#),
        ("valid_until", r#""2026-01-01T00:00:00+02""#),
        ("valid_until", r#""2026-01-01T00:00:00""#),
        ("valid_until", r#""2026-01-01 00:00:00Z""#),
        ("valid_until", r#""2026-01-01T00:00:00.Z""#),
        ("valid_until", r#""+002026-01-01T00:00:00Z""#),
        ("valid_until", "1767225600"),
        ("max_concurrent", "-1"),
        ("max_concurrent", r#""1""#),
        ("label", "5"),
    ];
    for (field, value) in cases {
        assert_eq!(parse_entry(&with(field, value)), Err(BadField { field }), "{field} {value}");
    }
    let long = format!("\"{}\"", "ä".repeat(65));
    assert_eq!(parse_entry(&with("label", &long)), Err(BadField { field: "label" }));
}

#[test]
fn times_are_those_of_rfc_3339() {
    for (text, wall) in [
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01T00:00:00.25Z", 1_767_225_600_250),
        ("2026-01-01T02:00:00+02:00", 1_767_225_600_000),
        ("2025-12-31T19:00:00.000-05:00", 1_767_225_600_000),
    ] {
        let (_, entry) = parse_entry(&with("valid_until", &format!("{text:?}"))).expect("good");
        assert_eq!(entry.valid_until, Some(Wall(wall)), "{text}");
    }
}

#[test]
fn an_entry_needs_every_required_member() {
    for field in ["badge", "uid", "user", "origin", "status", "grants"] {
        let mut entry = json::parse(ANNA.as_bytes()).expect("strict");
        entry.as_object_mut().expect("an object").remove(field);
        assert_eq!(parse_entry(&entry), Err(BadField { field }));
    }
    let optional = r#"{"badge":"b","uid":"04A2B3C4","user":"u","origin":"issued","status":"active","grants":[]}"#;
    assert!(judge(optional.as_bytes()).is_ok());
}

#[test]
fn an_entry_that_is_not_strict_is_bad() {
    let cases = [
        ("[]", "json"),
        (r#"{"badge":"a""#, "json"),
        (r#"{"badge":"a","badge":"a"}"#, "badge"),
        (r#"{"uid":"04A2B3C4","max_concurrent":1.5}"#, "max_concurrent"),
        (r#"{"grants":["*",9007199254740992]}"#, "grants"),
        (r#"{"x":1.5}"#, "json"),
    ];
    for (raw, field) in cases {
        assert_eq!(judge(raw.as_bytes()).expect_err("not strict"), BadField { field }, "{raw}");
    }
}

#[test]
fn a_head_carries_its_entries_unjudged() {
    let bytes = head(&format!(r#""entries":[{ANNA},{{"a":1.5,"a":2}}],"x-new":{{"y":1}}"#));

    let head = Head::parse(bytes.as_bytes()).expect("a good head");

    let Content::Entries(entries) = head.content else { panic!("inline") };
    assert_eq!(entries[0].get(), ANNA);
    assert_eq!(entries.len(), 2);
    assert_eq!((head.list.as_str(), head.version, head.count), (LIST, 43, 2));
    assert_eq!(head.issued_at.to_string(), "2026-11-22T10:00:00.000Z");
    assert!(!head.allow_shrink && head.replaces.is_none() && head.deltas.is_empty());
}

#[test]
fn a_head_may_name_parts_and_deltas() {
    let bytes = head(&format!(
        r#""parts":[{{"sha256":"{EMPTY_DIGEST}","bytes":3900000}}],"allow_shrink":true,
           "replaces":"{LIST}","deltas":[{{"base":42,"upsert":[{ANNA}],"remove":["04A2B3C4"]}}]"#
    ));

    let head = Head::parse(bytes.as_bytes()).expect("a good head");

    let Content::Parts(parts) = head.content else { panic!("parts") };
    assert_eq!(parts, [Part { sha256: EMPTY_DIGEST.into(), bytes: 3_900_000 }]);
    assert_eq!(head.deltas[0].base, 42);
    assert_eq!(head.deltas[0].upsert[0].get(), ANNA);
    assert!(head.allow_shrink);
    assert_eq!(head.replaces.as_deref(), Some(LIST));
}

#[test]
fn a_member_that_is_null_is_left_out() {
    let bytes = head(r#""entries":[],"parts":null,"deltas":null,"allow_shrink":null"#);
    let head = Head::parse(bytes.as_bytes()).expect("a good head");
    assert!(matches!(head.content, Content::Entries(entries) if entries.is_empty()));
    assert!(head.deltas.is_empty() && !head.allow_shrink);
}

#[test]
fn a_head_of_the_wrong_form_is_refused() {
    let wrong = [
        String::new(),
        "[]".into(),
        head(r#""x":1"#),
        head(r#""entries":[],"parts":[]"#),
        head(r#""entries":[],"entries":[]"#),
        head(r#""entries":null,"parts":null"#),
        head(r#""entries":[],"parts":null,"parts":null"#),
        head(r#""entries":[],"version":43"#),
        head(r#""entries":[],"x":0.5"#),
        head(r#""entries":{}"#),
        head(r#""entries":[],"allow_shrink":1"#),
        head(r#""entries":[],"replaces":"other""#),
        head(r#""parts":[{"sha256":"AB","bytes":1}]"#),
        head(r#""entries":[],"deltas":[{"base":-1}]"#),
        head(r#""entries":[],"deltas":[{"base":1,"remove":["04a2b3c4"]}]"#),
        head(r#""entries":[]"#).replace("43", "-43"),
        head(r#""entries":[]"#).replace("43", "9007199254740992"),
        head(r#""entries":[]"#).replace(LIST, "my-list"),
        head(r#""entries":[]"#).replace(BOTH_DIGEST, &BOTH_DIGEST.to_uppercase()),
        head(r#""entries":[]"#).replace("2026-11-22T10:00:00Z", "yesterday"),
        format!("{} {{}}", head(r#""entries":[]"#)),
    ];
    for bytes in wrong {
        let error = Head::parse(bytes.as_bytes()).expect_err(&bytes);
        assert!(!error.to_string().contains("04a2b3c4"), "{error}");
    }
}

#[test]
fn reasons_are_in_the_order_of_the_contract() {
    let json = serde_json::to_string(&[
        RefusalReason::BadMessage,
        RefusalReason::OtherList,
        RefusalReason::Rollback,
        RefusalReason::Equivocation,
        RefusalReason::TooLarge,
        RefusalReason::BadEntry,
        RefusalReason::Duplicate,
        RefusalReason::CountMismatch,
        RefusalReason::DigestMismatch,
        RefusalReason::Shrink,
        RefusalReason::Storage,
    ]);
    assert_eq!(
        json.expect("plain words"),
        r#"["bad_message","other_list","rollback","equivocation","too_large","bad_entry","duplicate","count_mismatch","digest_mismatch","shrink","storage"]"#
    );
    assert!(RefusalReason::Rollback < RefusalReason::Equivocation);
}
