//! The accounts of meters and sessions, and what each record posts to them. Pure.
//!
//! For each meter, at any time: last − first = ended sessions + open sessions + unattributed +
//! replacements. Every posting starts where the last one ended (the meter's cursor) and goes to
//! exactly one account, so no watt-hour is lost or counted twice; a record that would break this is
//! refused as an impossible state.

use std::collections::BTreeMap;

use crate::core::ids::{DeviceId, SessionId, StationId};
use crate::core::ledger::{EndReason, Fact, MeterChange, SessionEnd, SessionStart};
use crate::core::time::Stamp;
use crate::protocol::json::MAX_INTEGER;

/// One meter's account, in whole watt-hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterAccount {
    /// Which meter.
    pub meter: DeviceId,
    /// The station that it measures.
    pub station: StationId,
    /// The meter's own serial number, where it tells one.
    pub serial: Option<String>,
    /// Register at commissioning.
    pub first_wh: i64,
    /// The cursor: register up to which everything is posted.
    pub last_wh: i64,
    /// When it was posted.
    pub last_at: Stamp,
    /// Posted to sessions that have ended.
    pub sessions_wh: i64,
    /// Posted to sessions that are open.
    pub open_wh: i64,
    /// Posted to nobody.
    pub unattributed_wh: i64,
    /// Sum of the register's jumps at replacements; may be negative.
    pub replaced_wh: i64,
}

impl MeterAccount {
    /// Whether every watt-hour is in exactly one account.
    pub fn is_balanced(&self) -> bool {
        let accounts = [self.sessions_wh, self.open_wh, self.unattributed_wh, self.replaced_wh];
        let sum: i128 = accounts.into_iter().map(i128::from).sum();
        i128::from(self.last_wh) - i128::from(self.first_wh) == sum
    }
}

/// A session that has started and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// All facts of its start, with the badge's UID.
    pub start: SessionStart,
    /// When it started.
    pub started: Stamp,
    /// What its slots have posted to it so far.
    pub posted_wh: i64,
    /// Why and since when it is to end, where that was decided.
    pub ending: Option<(EndReason, Stamp)>,
}

/// All accounts of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) meters: BTreeMap<DeviceId, MeterAccount>,
    pub(super) open: BTreeMap<SessionId, OpenSession>,
}

/// Why a record cannot be true.
pub(super) type Impossible = String;

impl Books {
    /// Posts one record.
    pub(super) fn post(&mut self, at: Stamp, fact: &Fact) -> Result<(), Impossible> {
        match fact {
            Fact::SessionStarted(start) => self.start(at, start),
            Fact::SessionSlot { session, from_wh, to_wh, .. } => {
                self.post_slot(at, *session, (*from_wh, *to_wh))
            }
            Fact::SessionEnding { session, reason } => {
                self.session(*session)?.ending = Some((*reason, at));
                Ok(())
            }
            Fact::Interruption { session, .. } => self.session(*session).map(drop),
            Fact::SessionEnded(end) => self.end(at, end),
            Fact::Unattributed { meter, from_wh, to_wh, .. } => {
                let account = self.advance(at, meter, (*from_wh, *to_wh))?;
                account.unattributed_wh += to_wh - from_wh;
                Ok(())
            }
            Fact::MeterCommissioned(change) => self.commission(at, change),
            Fact::MeterReplaced(change) => self.replace(at, change),
            Fact::GatewayStarted { .. }
            | Fact::ClockSet { .. }
            | Fact::AllowlistApplied { .. }
            | Fact::BadgeOverride { .. }
            | Fact::Carried { .. }
            | Fact::EpochOpened { .. } => Ok(()),
        }
    }

    /// Whether every account balances, and every meter's open energy is that of its open session.
    pub(super) fn check(&self) -> Result<(), Impossible> {
        for account in self.meters.values() {
            let open: i64 = self
                .open
                .values()
                .filter(|session| session.start.meter.as_ref() == Some(&account.meter))
                .map(|session| session.posted_wh)
                .sum();
            if !account.is_balanced() || account.open_wh != open {
                return Err(format!("the accounts of {} do not balance", account.meter));
            }
        }
        Ok(())
    }

    fn start(&mut self, at: Stamp, start: &SessionStart) -> Result<(), Impossible> {
        let busy = self.open.values().any(|other| {
            other.start.station == start.station
                || (start.meter.is_some() && other.start.meter == start.meter)
        });
        if busy {
            return Err(format!("a session is already open on {} or its meter", start.station));
        }
        match (&start.meter, start.register_wh) {
            (Some(meter), Some(register)) => {
                self.advance(at, meter, (register, register))?;
            }
            (None, Some(_)) => return Err("a start register without a meter".into()),
            (Some(_) | None, None) => {}
        }
        let session = OpenSession { start: start.clone(), started: at, posted_wh: 0, ending: None };
        match self.open.insert(start.session, session) {
            None => Ok(()),
            Some(_) => Err(format!("session {} has already started", start.session)),
        }
    }

    fn post_slot(
        &mut self,
        at: Stamp,
        id: SessionId,
        registers: (i64, i64),
    ) -> Result<(), Impossible> {
        let meter = self.session(id)?.start.meter.clone();
        let meter = meter.ok_or_else(|| format!("session {id} has no meter"))?;
        let (from, to) = registers;
        self.advance(at, &meter, registers)?.open_wh += to - from;
        self.session(id)?.posted_wh += to - from;
        Ok(())
    }

    fn end(&mut self, at: Stamp, end: &SessionEnd) -> Result<(), Impossible> {
        let id = end.start.session;
        let session = self.open.remove(&id).ok_or_else(|| not_open(id))?;
        let open = &session.start;
        if (&open.station, &open.meter) != (&end.start.station, &end.start.meter) {
            return Err(format!("session {id} ends on another station or meter"));
        }
        match (&open.meter, end.energy_wh.unwrap_or(0)) {
            (Some(meter), energy) if self.meters.contains_key(meter) => {
                self.close_account(at, meter, (session.posted_wh, energy), end.end_register_wh)
            }
            // Never heard of in the whole session.
            (Some(_) | None, 0) if end.end_register_wh.is_none() => Ok(()),
            (Some(_) | None, energy) => {
                Err(format!("session {id} ends with {energy} Wh of a meter that was never read"))
            }
        }
    }

    /// Moves a session's energy from the open to the ended ones, with what no slot has posted.
    fn close_account(
        &mut self,
        at: Stamp,
        meter: &DeviceId,
        (posted, energy): (i64, i64),
        end_register: Option<i64>,
    ) -> Result<(), Impossible> {
        let cursor = self.meters.get(meter).ok_or_else(|| not_commissioned(meter))?.last_wh;
        let to = cursor.saturating_add(energy.saturating_sub(posted));
        if end_register.is_some_and(|register| register != to) {
            return Err(format!(
                "a session on {meter} ends with {energy} Wh at {end_register:?}, but {posted} Wh \
                 are posted up to {cursor}"
            ));
        }
        let account = self.advance(at, meter, (cursor, to))?;
        account.open_wh -= posted;
        account.sessions_wh += energy;
        Ok(())
    }

    fn commission(&mut self, at: Stamp, change: &MeterChange) -> Result<(), Impossible> {
        in_range(change.new_register_wh)?;
        let account = MeterAccount {
            meter: change.meter.clone(),
            station: change.station.clone(),
            serial: change.new_serial.clone(),
            first_wh: change.new_register_wh,
            last_wh: change.new_register_wh,
            last_at: at,
            sessions_wh: 0,
            open_wh: 0,
            unattributed_wh: 0,
            replaced_wh: 0,
        };
        match self.meters.insert(change.meter.clone(), account) {
            None => Ok(()),
            Some(_) => Err(format!("{} is already commissioned", change.meter)),
        }
    }

    /// What the old register shows beyond the cursor belongs to the open session; without one it
    /// must be posted before.
    fn replace(&mut self, at: Stamp, change: &MeterChange) -> Result<(), Impossible> {
        in_range(change.new_register_wh)?;
        let old = change.old_register_wh.ok_or("a replacement without the old register")?;
        let on_it = |session: &&OpenSession| session.start.meter.as_ref() == Some(&change.meter);
        let session = self.open.values().find(on_it).map(|session| session.start.session);
        if let Some(session) = session {
            let meter = self.meters.get(&change.meter);
            let cursor = meter.ok_or_else(|| not_commissioned(&change.meter))?.last_wh;
            self.post_slot(at, session, (cursor, old))?;
        }
        let account = self.advance(at, &change.meter, (old, old))?;
        account.replaced_wh += change.new_register_wh - old;
        account.last_wh = change.new_register_wh;
        account.serial = change.new_serial.clone();
        account.station = change.station.clone();
        Ok(())
    }

    /// Moves a meter's cursor; the caller posts the difference.
    fn advance(
        &mut self,
        at: Stamp,
        meter: &DeviceId,
        (from, to): (i64, i64),
    ) -> Result<&mut MeterAccount, Impossible> {
        let account = self.meters.get_mut(meter).ok_or_else(|| not_commissioned(meter))?;
        if from != account.last_wh {
            let last = account.last_wh;
            return Err(format!("{meter} is posted up to {last} Wh, the record says {from} Wh"));
        }
        if to < from {
            return Err(format!("the register of {meter} goes back from {from} to {to} Wh"));
        }
        in_range(to)?;
        account.last_wh = to;
        account.last_at = at;
        Ok(account)
    }

    fn session(&mut self, id: SessionId) -> Result<&mut OpenSession, Impossible> {
        self.open.get_mut(&id).ok_or_else(|| not_open(id))
    }
}

/// Registers fit JSON's exact integers, so that sums of their differences fit 64 bits.
fn in_range(register: i64) -> Result<(), Impossible> {
    match u64::try_from(register) {
        Ok(register) if register <= MAX_INTEGER => Ok(()),
        Ok(_) | Err(_) => Err(format!("{register} Wh is no register")),
    }
}

fn not_open(id: SessionId) -> Impossible {
    format!("session {id} is not open")
}

fn not_commissioned(meter: &DeviceId) -> Impossible {
    format!("{meter} is not commissioned")
}
