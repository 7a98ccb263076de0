//! The ledger of a laundry that was without its cloud for weeks, written by the store itself.

use std::path::Path;
use std::time::Duration;

use tapgate::core::ids::SessionId;
use tapgate::core::ledger::{
    Authority, EndReason, Fact, MeterChange, Quality, Record, SessionEnd, SessionStart,
    SwitchPosition, UnattributedCause,
};
use tapgate::core::site::StationKind;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::store::{Opening, Store};

/// 2026-09-27T10:00:00Z, eight weeks before these lines were written.
const LEFT: i64 = 1_790_503_200_000;
/// Records of one wash: start, three slots, ending, end, and what flowed in between.
pub(crate) const RECORDS_PER_SESSION: u64 = 7;
/// What a wash takes.
pub(crate) const WASH_WH: i64 = 850;
/// Records in one commit: far more than a daemon does at once, only to be quick.
const AT_ONCE: u64 = 50;

/// Writes sessions into a new store: `sessions` times [`RECORDS_PER_SESSION`] and one record. They
/// spread evenly over eight weeks.
pub(crate) fn fill(path: &Path, sessions: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let wall = Wall(LEFT);
        let opening =
            Opening { path, boot_id: "eight weeks ago", wall, uptime: Uptime(0), synced: true };
        let (store, _) = Store::open(&opening).expect("a new store");
        let opened = Fact::MeterCommissioned(MeterChange {
            station: "washer-1".into(),
            meter: "meter-1".into(),
            old_serial: None,
            old_register_wh: None,
            new_serial: Some("SN-1".into()),
            new_register_wh: 1_000,
        });
        store.commit(vec![Record { at: stamp(0), fact: opened }]).await.expect("a commit");
        let mut records = Vec::new();
        let pause = Duration::from_secs(8 * 7 * 24 * 3_600).as_millis() as u64 / sessions.max(1);
        for number in 0..sessions {
            records.extend(session(number, 1_000 + number as i64 * (WASH_WH + 1), number * pause));
            if number % AT_ONCE == AT_ONCE - 1 || number + 1 == sessions {
                store.commit(std::mem::take(&mut records)).await.expect("a commit");
            }
        }
        store.close().await;
    });
}

fn stamp(uptime_ms: u64) -> Stamp {
    let wall = Wall(LEFT) + Duration::from_millis(uptime_ms);
    Stamp { boot: 1, uptime: Uptime(uptime_ms), wall, synced: true }
}

fn session(number: u64, register: i64, begin_ms: u64) -> Vec<Record> {
    const QUARTER_MS: u64 = 900_000;
    let mut id = [7; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let session = SessionId(id);
    let start = SessionStart {
        session,
        station: "washer-1".into(),
        station_kind: StationKind::Washer,
        user: Some(format!("u-{}", number % 40).into()),
        badge: Some(format!("b-{}", number % 40).into()),
        authorised_by: Authority::Allowlist,
        allowlist_version: Some(42),
        meter: Some("meter-1".into()),
        register_wh: Some(register),
        missing: false,
        uid: None,
    };
    let third = WASH_WH / 3;
    let slot = |n: i64, to_wh: i64| Fact::SessionSlot {
        session,
        slot: stamp(begin_ms + n as u64 * QUARTER_MS).wall,
        from_wh: register + n * third,
        to_wh,
        estimated: false,
        since: None,
        until: None,
    };
    let end = register + WASH_WH;
    let facts = [
        Fact::SessionStarted(start.clone()),
        slot(0, register + third),
        slot(1, register + 2 * third),
        slot(2, end),
        Fact::SessionEnding { session, reason: EndReason::Finished },
        Fact::SessionEnded(SessionEnd {
            start,
            reason: EndReason::Finished,
            end_register_wh: Some(end),
            energy_wh: Some(WASH_WH),
            duration_s: 2_700,
            quality: Quality::Measured,
        }),
        Fact::Unattributed {
            station: "washer-1".into(),
            meter: "meter-1".into(),
            serial: Some("SN-1".into()),
            from_wh: end,
            to_wh: end + 1,
            since: stamp(begin_ms + 3 * QUARTER_MS).wall,
            until: stamp(begin_ms + 4 * QUARTER_MS).wall,
            switch: SwitchPosition::Open,
            sessions: vec![],
            cause: UnattributedCause::Residue,
        },
    ];
    let at = |n: usize| stamp(begin_ms + n as u64 * QUARTER_MS / 2);
    facts.into_iter().enumerate().map(|(n, fact)| Record { at: at(n), fact }).collect()
}
