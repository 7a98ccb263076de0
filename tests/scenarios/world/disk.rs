//! A store in memory: keeps committed records and derives from them what the real one does. What
//! the real one refuses as impossible panics here.

use std::collections::BTreeMap;

use tapgate::core::ids::{DeviceId, SessionId, StationId};
use tapgate::core::ledger::{Fact, Record, SessionEnd, SessionStart};
use tapgate::core::memo::Memo;
use tapgate::core::recovery::{MeterAccount, OpenSession, Survivors};
use tapgate::core::time::Stamp;

#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub records: Vec<Record>,
    pub full: bool,
    /// Commits until it is full.
    pub full_after: Option<usize>,
    pub out_of_service: Vec<(StationId, Option<String>)>,
    pub memos: Vec<Memo>,
    epoch_opened: Option<Stamp>,
    open: BTreeMap<SessionId, OpenSession>,
    started: Vec<SessionId>,
    meters: BTreeMap<DeviceId, Account>,
}

/// One meter's account, in watt-hours.
#[derive(Clone, Debug)]
struct Account {
    survivor: MeterAccount,
    first: i64,
    sessions: i64,
    open: i64,
    unattributed: i64,
    replaced: i64,
}

#[derive(Debug)]
pub struct Full;

impl Disk {
    pub fn commit(&mut self, records: &[Record]) -> Result<(), Full> {
        match &mut self.full_after {
            Some(0) => self.full = true,
            Some(commits) => *commits -= 1,
            None => {}
        }
        if self.full {
            return Err(Full);
        }
        for record in records {
            self.post(record);
            self.records.push(record.clone());
        }
        self.check();
        Ok(())
    }

    pub fn survivors(&self) -> Survivors {
        Survivors {
            sessions: self.open.values().cloned().collect(),
            meters: self.meters.values().map(|account| account.survivor.clone()).collect(),
            out_of_service: self.out_of_service.clone(),
            newest: self.records.last().map(|record| record.at),
            recorded: self.records.last().map(|record| record.at),
            memos: self.memos.clone(),
            epoch_opened: self.epoch_opened,
        }
    }

    /// The store was set aside: a new epoch goes on from the accounts, and ends what was open.
    pub fn lose_sessions(&mut self, at: Stamp) {
        self.epoch_opened = Some(at);
        for open in std::mem::take(&mut self.open).into_values() {
            let meter = open.start.meter.expect("a metered station");
            let account = self.meters.get_mut(&meter).expect("a meter on record");
            account.open -= open.posted_wh;
            account.sessions += open.posted_wh;
        }
        for account in self.meters.values_mut() {
            account.survivor.cursor_at = at;
        }
    }

    pub fn has_running_session(&self, station: &StationId) -> bool {
        self.open.values().any(|open| &open.start.station == station && open.ending.is_none())
    }

    pub fn session_on(&self, station: &StationId) -> Option<SessionId> {
        self.open.values().find(|open| &open.start.station == station).map(|o| o.start.session)
    }

    /// A session is on its way to its end, or its switch to open, on record or in a memo.
    pub fn intends_an_end(&self) -> bool {
        let recorded = self.open.values().any(|open| open.ending.is_some());
        recorded || self.memos.iter().any(|memo| memo.ended.is_some() || memo.opens.is_some())
    }

    pub fn open_sessions(&self) -> usize {
        self.open.len()
    }

    pub fn unattributed_wh(&self) -> i64 {
        self.meters.values().map(|account| account.unattributed).sum()
    }

    pub fn sessions_wh(&self) -> i64 {
        self.meters.values().map(|account| account.sessions).sum()
    }

    /// Every watt-hour is in exactly one account.
    pub fn check(&self) {
        for (meter, account) in &self.meters {
            let Account { first, sessions, open, unattributed, replaced, .. } = *account;
            let counted = account.survivor.cursor_wh - first;
            assert_eq!(counted, sessions + open + unattributed + replaced, "accounts of {meter}");
        }
    }

    fn post(&mut self, record: &Record) {
        match &record.fact {
            Fact::SessionStarted(start) => self.start(start, record.at),
            Fact::SessionSlot { session, from_wh, to_wh, .. } => {
                let open = self.open.get_mut(session).expect("slots are those of open sessions");
                let meter = open.start.meter.clone().expect("slots come from a meter");
                open.posted_wh += to_wh - from_wh;
                self.advance(&meter, *from_wh, *to_wh, record.at).open += to_wh - from_wh;
            }
            Fact::SessionEnding { session, reason } => {
                let open = self.open.get_mut(session).expect("only open sessions end");
                assert_eq!(open.ending, None, "an end is intended once");
                open.ending = Some(*reason);
            }
            Fact::Interruption { session, .. } => {
                let open = self.open.get(session).expect("only open sessions are interrupted");
                assert_eq!(open.ending, None, "an end that is intended stays so");
            }
            Fact::SessionEnded(end) => self.end(end, record.at),
            Fact::Unattributed { meter, from_wh, to_wh, .. } => {
                self.advance(meter, *from_wh, *to_wh, record.at).unattributed += to_wh - from_wh;
            }
            Fact::MeterCommissioned(change) => {
                let survivor = MeterAccount {
                    station: change.station.clone(),
                    meter: change.meter.clone(),
                    serial: change.new_serial.clone(),
                    cursor_wh: change.new_register_wh,
                    cursor_at: record.at,
                };
                let first = change.new_register_wh;
                let (sessions, open, unattributed, replaced) = (0, 0, 0, 0);
                let account = Account { survivor, first, sessions, open, unattributed, replaced };
                let before = self.meters.insert(change.meter.clone(), account);
                assert!(before.is_none(), "a meter is commissioned once");
            }
            Fact::MeterReplaced(change) => {
                let old = change.old_register_wh.expect("an old meter");
                let account = self.advance(&change.meter, old, old, record.at);
                account.replaced += change.new_register_wh - old;
                account.survivor.cursor_wh = change.new_register_wh;
                account.survivor.serial.clone_from(&change.new_serial);
            }
            Fact::GatewayStarted { .. }
            | Fact::ClockSet { .. }
            | Fact::AllowlistApplied { .. }
            | Fact::BadgeOverride { .. }
            | Fact::Carried { .. }
            | Fact::EpochOpened { .. } => {}
        }
    }

    fn start(&mut self, start: &SessionStart, at: Stamp) {
        let busy = self.open.values().any(|open| open.start.station == start.station);
        assert!(!busy, "{} has a session already", start.station);
        assert!(!self.started.contains(&start.session), "a session starts once");
        self.started.push(start.session);
        if let (Some(meter), Some(register)) = (&start.meter, start.register_wh) {
            self.advance(meter, register, register, at);
        }
        let (start, started) = (start.clone(), at);
        let id = start.session;
        self.open.insert(id, OpenSession { start, started, posted_wh: 0, ending: None });
    }

    fn end(&mut self, end: &SessionEnd, at: Stamp) {
        let open = self.open.remove(&end.start.session).expect("a session ends once");
        assert_eq!(open.start.station, end.start.station);
        let (Some(meter), Some(energy)) = (&open.start.meter, end.energy_wh) else {
            assert_eq!(open.posted_wh, 0, "a session loses energy");
            return;
        };
        let cursor = self.meters.get(meter).expect("a meter on record").survivor.cursor_wh;
        let to = end.end_register_wh.unwrap_or(cursor);
        let account = self.advance(meter, cursor, to, at);
        assert_eq!(energy, open.posted_wh + to - cursor, "what was posted is what is billed");
        account.open -= open.posted_wh;
        account.sessions += energy;
    }

    fn advance(&mut self, meter: &DeviceId, from: i64, to: i64, at: Stamp) -> &mut Account {
        let account = self.meters.get_mut(meter).expect("a meter on record");
        assert_eq!(account.survivor.cursor_wh, from, "a posting starts where the last one ended");
        assert!(to >= from, "registers do not go back");
        account.survivor.cursor_wh = to;
        account.survivor.cursor_at = at;
        account
    }
}
