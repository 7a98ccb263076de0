//! The store as its users see it, on real files.

mod allowlists;
mod damage;
mod epochs;
mod exchange;
mod ledger;
mod lists;
mod patterns;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::core::ids::SessionId;
use crate::core::ledger::{
    Authority, EndReason, Fact, MeterChange, Quality, Record, SessionEnd, SessionStart,
    SwitchPosition, UnattributedCause,
};
use crate::core::site::StationKind;
use crate::core::time::{Stamp, Uptime, Wall};
use crate::io::store::{Opening, Recovered, Store, StoreError};

/// 2026-11-22T10:00:00Z.
const TEN: i64 = 1_795_341_600_000;

const WASH: SessionId = SessionId([1; 16]);
const DRY: SessionId = SessionId([2; 16]);

/// A moment in boot 1.
fn second(second: u64) -> Stamp {
    let wall = Wall(TEN + 1000 * second as i64 - 1000);
    Stamp { boot: 1, uptime: Uptime(1000 * second), wall, synced: true }
}

fn at(when: u64, fact: Fact) -> Record {
    Record { at: second(when), fact }
}

fn started() -> Fact {
    Fact::GatewayStarted { version: "1.0.0".into(), boot_id: "k-1".into() }
}

fn commissioned(register: i64) -> Fact {
    Fact::MeterCommissioned(MeterChange {
        station: "washer-1".into(),
        meter: "meter-1".into(),
        old_serial: None,
        old_register_wh: None,
        new_serial: Some("SN-1".into()),
        new_register_wh: register,
    })
}

fn replaced(old: i64, new: i64) -> Fact {
    Fact::MeterReplaced(MeterChange {
        station: "washer-1".into(),
        meter: "meter-1".into(),
        old_serial: Some("SN-1".into()),
        old_register_wh: Some(old),
        new_serial: Some("SN-2".into()),
        new_register_wh: new,
    })
}

fn start(session: SessionId, register: Option<i64>) -> SessionStart {
    SessionStart {
        session,
        station: "washer-1".into(),
        station_kind: StationKind::Washer,
        user: Some("u-77".into()),
        badge: Some("b-1042".into()),
        authorised_by: Authority::Allowlist,
        allowlist_version: Some(42),
        meter: Some("meter-1".into()),
        register_wh: register,
        missing: register.is_none(),
        uid: crate::core::badge::Uid::new(&[4, 0xA2, 0xB3, 0xC4]),
    }
}

fn slot(session: SessionId, from_wh: i64, to_wh: i64) -> Fact {
    Fact::SessionSlot {
        session,
        slot: Wall(TEN),
        from_wh,
        to_wh,
        estimated: false,
        since: None,
        until: None,
    }
}

fn ended(start: SessionStart, end: Option<i64>, energy: Option<i64>) -> Fact {
    Fact::SessionEnded(SessionEnd {
        start,
        reason: EndReason::Finished,
        end_register_wh: end,
        energy_wh: energy,
        duration_s: 60,
        quality: Quality::Measured,
    })
}

fn unattributed(from_wh: i64, to_wh: i64) -> Fact {
    Fact::Unattributed {
        station: "washer-1".into(),
        meter: "meter-1".into(),
        serial: None,
        from_wh,
        to_wh,
        since: Wall(TEN),
        until: Wall(TEN),
        switch: SwitchPosition::Open,
        sessions: Vec::new(),
        cause: UnattributedCause::NoSession,
    }
}

/// A directory of its own and the path of a ledger in it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::new().expect("a temporary directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("var/tapgate.db")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join("var").join(name)
    }

    fn open(&self) -> (Store, Recovered) {
        self.open_in_boot("k-1").expect("the store opens")
    }

    fn open_in_boot(&self, boot_id: &str) -> Result<(Store, Recovered), StoreError> {
        open_at(&self.path(), boot_id)
    }
}

fn open_at(path: &Path, boot_id: &str) -> Result<(Store, Recovered), StoreError> {
    let now = second(1);
    let (wall, uptime) = (now.wall, now.uptime);
    Store::open(&Opening { path, boot_id, wall, uptime, synced: true })
}
