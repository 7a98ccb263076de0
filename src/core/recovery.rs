//! What goes on after a start of the daemon: the sessions that the store knows are open.
//!
//! The same boot means that only the daemon was away: a running machine was running all along and
//! its session goes on as if nothing had happened. Another boot means that the power was gone: the
//! session goes on after a short outage and ends after a long one.

use std::time::Duration;

use crate::core::event::{Command, Notice, Pace};
use crate::core::ids::{DeviceId, StationId};
use crate::core::ledger::{
    EndReason, Fact, InterruptionCause, SessionEnd, SessionStart, SwitchPosition,
};
use crate::core::memo::Memo;
use crate::core::metering::elapsed;
use crate::core::session::{Phase, Session};
use crate::core::site::StationKind;
use crate::core::station::{CLOSE_SILENCE, Station, Turn};
use crate::core::time::{Stamp, Uptime};
use crate::core::timers::ASK_AGAIN;

/// An open session as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of the store")]
pub struct OpenSession {
    pub start: SessionStart,
    pub started: Stamp,
    pub posted_wh: i64,
    /// The end was intended; it is finished and the switch never closed again.
    pub ending: Option<EndReason>,
}

/// A meter's accounts as the store knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of the store")]
pub struct MeterAccount {
    pub station: StationId,
    pub meter: DeviceId,
    pub serial: Option<String>,
    pub cursor_wh: i64,
    pub cursor_at: Stamp,
}

/// Everything that outlived the last run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survivors {
    /// Open sessions.
    pub sessions: Vec<OpenSession>,
    /// Meters.
    pub meters: Vec<MeterAccount>,
    /// Stations taken out of service, with a note.
    pub out_of_service: Vec<(StationId, Option<String>)>,
    /// The newest stamp in the store: an outage counts from it.
    pub newest: Option<Stamp>,
    /// The stamp of the newest record: what the ledger's readers know of the clock.
    pub recorded: Option<Stamp>,
    /// What sessions remember beyond their records.
    pub memos: Vec<Memo>,
    /// A new epoch was opened at this start, or later than any record of use: it took the accounts
    /// over and ended the sessions. What runs on is left running.
    pub epoch_opened: Option<Stamp>,
}

/// How a recovered session goes on once its switch and meter have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The daemon was away, the power was not.
    GoOn,
    /// The power was gone for this long, or nobody knows how long.
    Resume { outage: Option<Duration>, not_before: Uptime, needs_car: bool },
    /// Gone too long.
    End,
    /// No clock can tell yet; a charger waits until then.
    WaitForClock { until: Uptime, since: Stamp },
}

/// Machines come back one after the other: all at once would trip the main fuse.
pub(super) const RESUME_SPACING: Duration = Duration::from_secs(2);
/// How long a charger waits for a clock that tells how long the outage was.
const CLOCK_PATIENCE: Duration = Duration::from_secs(600);
/// A shared charger goes on after a longer outage only if the car is known to have stayed.
const SHARED_CHARGER_OUTAGE: Duration = Duration::from_secs(15 * 60);

impl Station {
    /// Takes over what the store knows of this station's meter.
    pub(super) fn recover_meter(&mut self, account: &MeterAccount, epoch_opened: Option<Stamp>) {
        if let Some(meter) = self.meter.as_mut().filter(|meter| meter.device == account.meter) {
            meter.recover(account.serial.clone(), account.cursor_wh, account.cursor_at);
            if Some(account.cursor_at) == epoch_opened {
                meter.forget_when_read();
            }
        }
    }

    /// Takes over an open session; what becomes of it shows when its switch has been read.
    pub(super) fn recover_session(
        &mut self,
        open: &OpenSession,
        memos: &[Memo],
        turn: &mut Turn<'_>,
    ) {
        let memo = memos.iter().find(|memo| memo.session == open.start.session);
        let mut session =
            Session::recovered(open.start.clone(), open.started, open.posted_wh, turn.now);
        session.estimated = open.start.missing;
        let age = session.age(turn.uptime());
        session.on_unseen_energy(open.posted_wh, Some(age), &self.plan);
        if let Some(memo) = memo {
            session.remember(memo, turn.now);
        }
        session.presume_car(&self.plan);
        self.session = Some(session);
        if open.start.missing && open.posted_wh == 0 {
            // What the meter will show may be older than the session: it goes to nobody.
            self.span(open.start.session);
        }
        if let Some(reason) = open.ending.or(memo.and_then(|memo| memo.ended)) {
            let since = turn.uptime();
            if open.ending.is_none() {
                // The memo goes once it is read: the intention must outlive the next crash too.
                turn.record(Fact::SessionEnding { session: open.start.session, reason });
            }
            if let Some(session) = &mut self.session {
                session.phase = Phase::Ending { reason, since, opened: false };
            }
            self.take_power(turn);
        }
    }

    /// How the recovered session goes on, by what the clocks can tell.
    pub(super) fn recovery_plan(&self, newest: Option<Stamp>, now: Stamp) -> Plan {
        let Some(newest) = newest.filter(|newest| newest.boot != now.boot) else {
            return Plan::GoOn;
        };
        let charger = self.plan.kind == StationKind::Charger;
        match elapsed(newest, now) {
            Some(outage) => self.plan_after(outage, now.uptime),
            None if self.plan.rules.resume_within.is_zero() => Plan::End,
            None if charger => {
                Plan::WaitForClock { until: now.uptime + CLOCK_PATIENCE, since: newest }
            }
            None => Plan::Resume { outage: None, not_before: now.uptime, needs_car: false },
        }
    }

    /// How the session goes on after an outage of known length.
    fn plan_after(&self, outage: Duration, now: Uptime) -> Plan {
        let shared_charger = self.plan.kind == StationKind::Charger && !self.plan.private;
        let needs_car = shared_charger && outage > SHARED_CHARGER_OUTAGE;
        let lost = needs_car && !self.plan.has_vehicle_state;
        if lost || outage > self.plan.rules.resume_within {
            return Plan::End;
        }
        Plan::Resume { outage: Some(outage), not_before: now, needs_car }
    }

    /// The switch of a recovered session has been asked for: where nobody knows, once more.
    pub(super) fn on_switch_after_start(
        &mut self,
        position: Option<SwitchPosition>,
        turn: &mut Turn<'_>,
    ) {
        if position.is_none() && self.plan_after_start == Plan::GoOn {
            self.switch.retry_at = Some(turn.uptime() + ASK_AGAIN);
        }
    }

    /// The daemon was away, the power was not: the session goes on once its switch has been seen.
    fn go_on(&mut self, turn: &mut Turn<'_>) {
        let register = self.meter.as_ref().and_then(|meter| meter.register_wh());
        let unread = self.awaits_reading(turn.uptime());
        let Some(session) = &mut self.session else { return };
        match self.switch.reported {
            None => return,
            Some(SwitchPosition::Closed) => {
                session.confirmed = true;
                session.phase = Phase::Running;
            }
            // The reading tells whether the switch has ever been closed for this session.
            Some(SwitchPosition::Open) if unread => return,
            Some(SwitchPosition::Open) => {
                let retry_at = turn.uptime() + CLOSE_SILENCE;
                session.phase = Phase::Closing { attempts: 1, retry_at };
                if session.has_drawn() {
                    session.confirmed = true;
                    session.reclosed += 1;
                    turn.record(Fact::Interruption {
                        session: session.start.session,
                        cause: InterruptionCause::SwitchOpened,
                        register_wh_before: self.register_before_outage,
                        register_wh_after: register,
                        outage_s: None,
                    });
                }
                turn.command(Command::CloseSwitch(self.plan.id.clone()));
            }
        }
        self.switch.retry_at = None;
        turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Running));
    }

    /// Whether it is worth waiting for the first reading since the start.
    fn awaits_reading(&self, now: Uptime) -> bool {
        let patience = self.session.as_ref().map(|s| s.watched_since + METER_PATIENCE);
        self.meter.is_some() && self.unread_since_start && patience.is_some_and(|until| now < until)
    }

    /// Time has come to resume, or to give up, after an outage.
    pub(super) fn resume_if_due(&mut self, turn: &mut Turn<'_>) {
        let recovering = |session: &&Session| session.phase == Phase::Recovering;
        let Some(session) = self.session.as_ref().filter(recovering) else { return };
        let (car_stayed, car_left) = (session.has_car(), session.car_left());
        match self.plan_after_start {
            Plan::GoOn if car_left => self.begin_end(EndReason::Unplugged, turn),
            Plan::GoOn => self.go_on(turn),
            Plan::End => self.begin_end(EndReason::PowerLoss, turn),
            Plan::WaitForClock { until, since } => {
                let outage = elapsed(since, turn.now);
                if let Some(outage) = outage {
                    self.plan_after_start = self.plan_after(outage, turn.uptime());
                    self.resume_if_due(turn);
                } else if turn.now.synced || turn.uptime() >= until {
                    // The clock is right and still cannot tell: the old stamp was not.
                    self.begin_end(EndReason::PowerLoss, turn);
                }
            }
            Plan::Resume { outage, not_before, needs_car } => {
                let patient = turn.uptime() < not_before + METER_PATIENCE;
                let unread = self.meter.is_some() && self.unread_since_start;
                if turn.uptime() < not_before || (unread && patient) {
                    return;
                }
                if needs_car && !car_stayed {
                    return self.begin_end(EndReason::PowerLoss, turn);
                }
                if car_left {
                    return self.begin_end(EndReason::Unplugged, turn);
                }
                self.resume_in_turn(outage, needs_car, turn);
            }
        }
    }

    /// Closes the switch again, or waits until the machine before has taken its inrush.
    fn resume_in_turn(&mut self, outage: Option<Duration>, needs_car: bool, turn: &mut Turn<'_>) {
        if turn.uptime() < turn.resume_after {
            let not_before = turn.resume_after;
            self.plan_after_start = Plan::Resume { outage, not_before, needs_car };
            return;
        }
        turn.resume_after = turn.uptime() + RESUME_SPACING;
        self.resume(outage, turn);
    }

    fn resume(&mut self, outage: Option<Duration>, turn: &mut Turn<'_>) {
        let after = self.meter.as_ref().and_then(|meter| meter.register_wh());
        let after = after.filter(|_| !self.unread_since_start);
        let Some(session) = &mut self.session else { return };
        turn.record(Fact::Interruption {
            session: session.start.session,
            cause: InterruptionCause::PowerLoss,
            register_wh_before: self.register_before_outage,
            register_wh_after: after,
            outage_s: outage.map(|outage| outage.as_secs()),
        });
        let retry_at = turn.uptime() + CLOSE_SILENCE;
        session.phase = Phase::Closing { attempts: 1, retry_at };
        turn.command(Command::CloseSwitch(self.plan.id.clone()));
        turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Running));
    }

    /// When [`resume_if_due`](Station::resume_if_due) has something to decide.
    pub(super) fn resume_at(&self) -> Option<Uptime> {
        let session = self.session.as_ref().filter(|s| s.phase == Phase::Recovering)?;
        let unread = self.meter.is_some() && self.unread_since_start;
        match self.plan_after_start {
            Plan::GoOn => {
                let seen = self.switch.reported.is_some();
                (seen && unread).then(|| session.watched_since + METER_PATIENCE)
            }
            Plan::End => Some(Uptime(0)),
            Plan::WaitForClock { until, .. } => Some(until),
            Plan::Resume { not_before, .. } if unread => Some(not_before + METER_PATIENCE),
            Plan::Resume { not_before, .. } => Some(not_before),
        }
    }
}

/// How long a resumption waits for the register after the outage: a charger must not wait longer
/// for a meter than a resident for the wash.
const METER_PATIENCE: Duration = Duration::from_secs(10);

/// A session whose station, or whose meter, the config no longer has ends at its last register,
/// with an alarm.
pub(super) fn end_orphan(open: &OpenSession, commissioned: bool, turn: &mut Turn<'_>) {
    let age = elapsed(open.started, turn.now).unwrap_or_default();
    let metered = open.start.meter.is_some() && commissioned;
    let station = open.start.station.clone();
    turn.record(Fact::SessionEnded(SessionEnd {
        start: open.start.clone(),
        reason: open.ending.unwrap_or(EndReason::Technician),
        end_register_wh: None,
        energy_wh: metered.then_some(open.posted_wh),
        duration_s: age.as_secs(),
        quality: if metered {
            crate::core::ledger::Quality::Estimated
        } else {
            crate::core::ledger::Quality::Unmetered
        },
    }));
    turn.command(Command::Notify(Notice::SwitchWithoutSession { station }));
}
