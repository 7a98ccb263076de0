//! What the core goes on from, out of what the store holds.

use crate::core::ids::StationId;
use crate::core::ledger::EpochReason;
use crate::core::memo::Memo;
use crate::core::recovery::{self, Survivors};
use crate::core::time::Stamp;
use crate::io::store::books::{MeterAccount, OpenSession};
use crate::io::store::epoch::Opened;
use crate::io::store::{Forked, Recovered};

impl Recovered {
    /// Everything that outlived the last run.
    pub fn survivors(&self) -> Survivors {
        Survivors {
            out_of_service: self.out_of_service.clone(),
            newest: self.newest,
            recorded: self.recorded,
            memos: self.memos.clone(),
            ..accounts(&self.open_sessions, &self.meters, self.opened)
        }
    }
}

impl Forked {
    /// What goes on in the new epoch, with the marks and memos that outlive it.
    pub fn survivors(
        &self,
        out_of_service: Vec<(StationId, Option<String>)>,
        memos: Vec<Memo>,
    ) -> Survivors {
        let newest: Option<Stamp> = self.opened.map(|opened| opened.at);
        let accounts = accounts(&self.open_sessions, &self.meters, self.opened);
        Survivors { out_of_service, newest, recorded: newest, memos, ..accounts }
    }
}

/// A meter of which nothing was posted since its epoch was opened has counted for nobody knows
/// whom.
fn accounts(open: &[OpenSession], meters: &[MeterAccount], opened: Option<Opened>) -> Survivors {
    let sessions = open.iter().map(|open| recovery::OpenSession {
        start: open.start.clone(),
        started: open.started,
        posted_wh: open.posted_wh,
        ending: open.ending.map(|(reason, _)| reason),
    });
    let meters = meters.iter().map(|account| recovery::MeterAccount {
        station: account.station.clone(),
        meter: account.meter.clone(),
        serial: account.serial.clone(),
        cursor_wh: account.last_wh,
        cursor_at: account.last_at,
    });
    Survivors {
        sessions: sessions.collect(),
        meters: meters.collect(),
        epoch_opened: opened.filter(|o| o.reason != EpochReason::First).map(|o| o.at),
        ..Survivors::default()
    }
}
