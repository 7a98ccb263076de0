//! Golden bytes of contract version 1: added to, never edited.

use super::*;
use crate::core::access::Denial;
use crate::core::badge::{Technology, Uid};
use crate::core::event::Notice;
use crate::core::time::{Stamp, Uptime};
use crate::protocol::figures::Figures;

const EPOCH: &str = "0190b5a0-7c3e-7d4e-8f00-010203040506";

fn json(payload: &impl Serialize) -> String {
    serde_json::to_string(payload).expect("payloads are plain JSON")
}

fn stamp() -> Stamp {
    Stamp { boot: 31, uptime: Uptime(86_400_123), wall: Wall(1_795_341_662_345), synced: true }
}

fn standing() -> AllowlistStanding {
    AllowlistStanding {
        list: "5a7c0c0e-9f0b-4c55-9f52-4f1f6a3c2b1a".into(),
        version: 42,
        digest: "ab".repeat(32),
        count: 118,
    }
}

fn local() -> LocalState {
    LocalState {
        boot: 31,
        version: "1.2.0".into(),
        allowlist: Some(standing()),
        clock: ClockState::Synced,
        public_key: Some("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into()),
        alarms: vec![EventKind::UnitDown],
    }
}

#[test]
fn birth_is_as_in_the_contract() {
    let state = State {
        conn: 7,
        nonce: "9f3c".into(),
        epoch: EPOCH.into(),
        head: 1042,
        acked: 1040,
        local: local(),
    };

    assert_eq!(
        json(&state),
        format!(
            "{}{}{}{}",
            r#"{"online":true,"conn":7,"boot":31,"version":"1.2.0","#,
            r#""epoch":"0190b5a0-7c3e-7d4e-8f00-010203040506","head":1042,"acked":1040,"#,
            format_args!(
                r#""allowlist":{{"list":"5a7c0c0e-9f0b-4c55-9f52-4f1f6a3c2b1a","version":42,"digest":"{}","count":118}},"#,
                "ab".repeat(32)
            ),
            r#""clock":"synced","nonce":"9f3c","public_key":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","alarms":["unit_down"]}"#
        )
    );
}

#[test]
fn birth_without_a_list_says_null() {
    let local = LocalState {
        allowlist: None,
        clock: ClockState::Unsynced,
        public_key: None,
        alarms: vec![],
        ..local()
    };
    let state = State { conn: 1, nonce: "0".into(), epoch: EPOCH.into(), head: 0, acked: 0, local };

    assert_eq!(
        json(&state),
        r#"{"online":true,"conn":1,"boot":31,"version":"1.2.0","epoch":"0190b5a0-7c3e-7d4e-8f00-010203040506","head":0,"acked":0,"allowlist":null,"clock":"unsynced","nonce":"0","public_key":null,"alarms":[]}"#
    );
}

#[test]
fn the_will_is_as_in_the_contract() {
    assert_eq!(json(&Offline::new(7)), r#"{"online":false,"conn":7}"#);
}

#[test]
fn a_station_shows_neither_user_nor_badge() {
    let mut station = StationState {
        state: StationStatus::InUse,
        since: Wall(1_795_341_662_345),
        kind: StationKind::Washer,
        label: "Machine 1".into(),
        fault: None,
        note: None,
    };
    assert_eq!(
        json(&station),
        r#"{"state":"in_use","since":"2026-11-22T10:01:02.345Z","kind":"washer","label":"Machine 1"}"#
    );

    station.state = StationStatus::OutOfService;
    station.note = Some("pump".into());
    assert_eq!(
        json(&station),
        r#"{"state":"out_of_service","since":"2026-11-22T10:01:02.345Z","kind":"washer","label":"Machine 1","note":"pump"}"#
    );
}

#[test]
fn a_batch_carries_records_as_strings() {
    let batch = UsageBatch {
        epoch: EPOCH.into(),
        first: 1035,
        last: 1035,
        prev: [0xab; 32],
        records: vec![r#"{"seq":1035}"#.into()],
        replay: false,
    };

    assert_eq!(
        json(&batch),
        format!(
            r#"{{"epoch":"{EPOCH}","first":1035,"last":1035,"prev":"{}","records":["{{\"seq\":1035}}"],"replay":false}}"#,
            "ab".repeat(32)
        )
    );
    assert_eq!(serde_json::from_str::<UsageBatch>(&json(&batch)).expect("just written"), batch);
}

#[test]
fn reads_an_ack_and_ignores_unknown_members() {
    let payload = format!(
        r#"{{"epoch":"{EPOCH}","upto":1040,"hash":"{}","issued_at":"2026-11-22T10:01:02.345Z","gw":"x"}}"#,
        "0f".repeat(32)
    );

    assert_eq!(
        Ack::parse(payload.as_bytes()),
        Ok(Ack {
            epoch: EPOCH.into(),
            upto: 1040,
            hash: [0x0f; 32],
            issued_at: Wall(1_795_341_662_345)
        })
    );
}

#[test]
fn an_ack_with_any_member_missing_or_mistyped_is_an_error() {
    let good = [
        ("epoch", format!("\"{EPOCH}\"")),
        ("upto", "1040".into()),
        ("hash", format!("\"{}\"", "0f".repeat(32))),
        ("issued_at", "\"2026-11-22T10:01:02Z\"".into()),
    ];
    let build = |members: &[(&str, String)]| {
        let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(Ack::parse(build(&good).as_bytes()).is_ok());

    for missing in 0..good.len() {
        let mut members = good.to_vec();
        members.remove(missing);
        assert!(Ack::parse(build(&members).as_bytes()).is_err(), "without {}", good[missing].0);
    }
    let upper = format!("\"{}\"", "0F".repeat(32));
    let wrong = [
        ("epoch", vec!["7", "null", "\"\"", "\"not-a-uuid\""]),
        ("upto", vec!["-1", "1.5", "1040.0", "\"1040\"", "null", "9007199254740992", "1e3"]),
        ("hash", vec!["\"\"", "\"0f\"", upper.as_str(), "null", "[]"]),
        (
            "issued_at",
            vec!["0", "\"yesterday\"", "null", "\"20261122T100102Z\"", "\"2026-11-22T10:01Z\""],
        ),
    ];
    for (member, values) in wrong {
        for value in values {
            let members: Vec<_> = good
                .iter()
                .map(|(k, v)| (*k, if *k == member { value.to_owned() } else { v.clone() }))
                .collect();
            assert!(Ack::parse(build(&members).as_bytes()).is_err(), "{member}: {value}");
        }
    }
    let twice = format!("{},\"upto\":1}}", build(&good).trim_end_matches('}'));
    assert!(Ack::parse(twice.as_bytes()).is_err(), "a member twice");
    let array = format!("[{}]", good.map(|(_, value)| value).join(","));
    for rubbish in ["", "{", "null", "[]", "\u{fffd}", "{} {}", &array] {
        assert!(Ack::parse(rubbish.as_bytes()).is_err(), "{rubbish}");
    }
}

#[test]
fn allowlist_reports_are_as_in_the_contract() {
    let digest = "ab".repeat(32);
    let list = format!(
        r#"{{"list":"5a7c0c0e-9f0b-4c55-9f52-4f1f6a3c2b1a","version":42,"digest":"{digest}","count":118}}"#
    );
    assert_eq!(
        json(&AllowlistReport::Applied { applied: standing() }),
        format!(r#"{{"applied":{list}}}"#)
    );
    let refused = Refusal { version: Some(43), reason: "rollback".into(), detail: "41".into() };
    assert_eq!(
        json(&AllowlistReport::Refused { refused, current: Some(standing()) }),
        format!(
            r#"{{"refused":{{"version":43,"reason":"rollback","detail":"41"}},"current":{list}}}"#
        )
    );
    let get = vec![PartRequest { sha256: digest.clone(), from: 3 }];
    assert_eq!(
        json(&AllowlistReport::Get { get }),
        format!(r#"{{"get":[{{"sha256":"{digest}","from":3}}]}}"#)
    );
}

#[test]
fn a_denial_names_the_badge_and_never_its_uid() {
    let notice = Notice::Denied {
        reader: "laundry-door".into(),
        station: Some("washer-1".into()),
        reason: Denial::BadgeBlocked,
        technology: Some(Technology::MifareClassic1k),
        badge: Some("b-1042".into()),
        uid: Uid::new(&[4, 0xa2, 0xb3, 0xc4]),
    };
    let event = EventMessage::new(stamp(), EventBody::from_notice(&notice, true).expect("told"));

    assert_eq!(
        json(&event),
        r#"{"at":{"boot":31,"uptime_ms":86400123,"wall":"2026-11-22T10:01:02.345Z","synced":true},"kind":"denied","reader":"laundry-door","station":"washer-1","reason":"badge_blocked","technology":"mifare-classic-1k","badge":"b-1042"}"#
    );
}

#[test]
fn a_unit_that_went_down_carries_its_figures_and_those_of_its_bus() {
    let figures = Figures {
        requests: 310,
        errors: 2,
        error_rate_permille: Some(400),
        latency_p50_ms: Some(23),
        latency_p99_ms: None,
        utilisation_percent: 12,
    };
    let event = EventBody::UnitDown(Box::new(UnitEvent {
        device: "meter-1".into(),
        bus: "rtu-1".into(),
        unit: 11,
        error: Some("no answer".into()),
        unit_figures: figures,
        bus_figures: Figures::default(),
    }));

    assert_eq!(
        json(&event),
        r#"{"kind":"unit_down","device":"meter-1","bus":"rtu-1","unit":11,"error":"no answer","#
            .to_owned()
            + r#""unit_figures":{"requests":310,"errors":2,"error_rate_permille":400,"#
            + r#""latency_p50_ms":23,"latency_p99_ms":null,"utilisation_percent":12},"#
            + r#""bus_figures":{"requests":0,"errors":0,"error_rate_permille":null,"#
            + r#""latency_p50_ms":null,"latency_p99_ms":null,"utilisation_percent":0}}"#
    );
}

#[test]
fn the_uid_of_an_unknown_badge_travels_only_where_asked_for() {
    let notice = Notice::Denied {
        reader: "laundry-door".into(),
        station: None,
        reason: Denial::UnknownBadge,
        technology: Some(Technology::Other),
        badge: None,
        uid: Uid::new(&[4, 0xa2, 0xb3, 0xc4]),
    };
    let event = |report| {
        let body = EventBody::from_notice(&notice, report).expect("told");
        json(&EventMessage { at: stamp(), body, left_out: 3 })
    };

    assert!(event(true).ends_with(
        r#""station":null,"reason":"unknown_badge","technology":"other","badge":null,"uid":"04A2B3C4","left_out":3}"#
    ));
    assert!(event(false).ends_with(r#""badge":null,"left_out":3}"#));
}
