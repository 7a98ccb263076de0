//! One station: its switch, its meter and the session on it, if any.
//!
//! A start goes `PendingStart` (the start register is being read) → [`Phase::Closing`] →
//! [`Phase::Running`] → [`Phase::Ending`] → no session. Records come before the commands that
//! follow from them, in the same [`Step`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::access::Denial;
use crate::core::badge::Uid;
use crate::core::event::{Command, Feedback, Notice, Pace, Step};
use crate::core::ids::{BadgeId, ReaderId, SessionId, UserId};
use crate::core::ledger::{
    Authority, EndReason, Fact, Quality, Record, SessionEnd, SessionStart, SwitchPosition,
};
use crate::core::metering::Meter;
use crate::core::recovery::Plan;
use crate::core::session::{Phase, Session};
use crate::core::site::{self, SitePolicy};
use crate::core::time::{Stamp, Uptime, Wall};

/// What one event or timeout does: the step under construction.
pub(super) struct Turn<'a> {
    pub(super) policy: &'a SitePolicy,
    pub(super) now: Stamp,
    pub(super) step: &'a mut Step,
}

impl Turn<'_> {
    pub(super) fn record(&mut self, fact: Fact) {
        self.step.records.push(Record { at: self.now, fact });
    }

    pub(super) fn command(&mut self, command: Command) {
        self.step.commands.push(command);
    }

    pub(super) fn uptime(&self) -> Uptime {
        self.now.uptime
    }
}

/// A station and what is believed about it.
#[derive(Clone, Debug)]
pub(super) struct Station {
    pub(super) plan: site::Station,
    pub(super) meter: Option<Meter>,
    pub(super) session: Option<Session>,
    pub(super) pending: Option<PendingStart>,
    pub(super) switch: Switch,
    pub(super) fault: Option<Fault>,
    pub(super) out_of_service: Option<Option<String>>,
    /// Energy without a session in the alarm's window.
    pub(super) loose: Loose,
    /// Sessions whose boundary lies in what the meter has not told yet.
    pub(super) spanned: Vec<SessionId>,
    /// No reading yet since the daemon started.
    pub(super) unread_since_start: bool,
    /// How a recovered session goes on.
    pub(super) plan_after_start: Plan,
    /// The last register on record when the power went.
    pub(super) register_before_outage: Option<i64>,
    /// What was last published, and since when it holds.
    pub(super) shown: Option<(State, Wall)>,
}

/// A grant that waits for its start register.
#[derive(Clone, Debug)]
pub(super) struct PendingStart {
    pub(super) candidate: SessionId,
    pub(super) user: Option<UserId>,
    pub(super) badge: Option<BadgeId>,
    pub(super) uid: Option<Uid>,
    pub(super) authorised_by: Authority,
    pub(super) allowlist_version: Option<u64>,
    pub(super) reader: Option<ReaderId>,
    pub(super) deadline: Uptime,
    pub(super) retry_at: Option<Uptime>,
}

/// What is believed about a switch, and when it is commanded again.
#[derive(Clone, Debug, Default)]
pub(super) struct Switch {
    pub(super) reported: Option<SwitchPosition>,
    pub(super) agrees_since: Option<Uptime>,
    /// It was told to open and must, load or not.
    pub(super) must_open: bool,
    pub(super) retry_at: Option<Uptime>,
    /// A load without a session was noticed.
    pub(super) noticed: bool,
}

/// Unattributed energy of the last 24 hours, for the alarm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loose {
    pub(super) energy_wh: i64,
    pub(super) since: Uptime,
    pub(super) noticed: bool,
}

/// Why a station is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The switch did not close.
    SwitchFailed,
    /// The switch does not open.
    SwitchStuck,
}

impl Fault {
    /// For the station's public state.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::SwitchFailed => "switch_failed",
            Fault::SwitchStuck => "switch_stuck",
        }
    }
}

/// The public state of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are those of the sessions contract")]
pub enum State {
    Available,
    Starting,
    InUse,
    Idle,
    OutOfService,
    Faulted,
}

impl State {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Available => "available",
            State::Starting => "starting",
            State::InUse => "in_use",
            State::Idle => "idle",
            State::OutOfService => "out_of_service",
            State::Faulted => "faulted",
        }
    }
}

/// How often a switch is told to close before the start is given up.
pub(super) const CLOSE_ATTEMPTS: u32 = 3;
/// Between two attempts: a contactor needs up to some hundred milliseconds.
pub(super) const CLOSE_RETRY: Duration = Duration::from_millis(500);
/// A bus that says nothing for this long has not closed the switch.
pub(super) const CLOSE_SILENCE: Duration = Duration::from_secs(5);
/// How long power may take to go to zero before the end register is read.
pub(super) const RUN_DOWN: Duration = Duration::from_secs(3);
/// How long the end register is waited for.
pub(super) const END_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A switch that will not open is tried again this often, for as long as it takes.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(30);

impl Station {
    pub(super) fn new(plan: site::Station) -> Station {
        let new_meter = |id| Meter::new(id, plan.meter_resolution_wh, plan.rules.max_power_w);
        Station {
            meter: plan.meter.clone().map(new_meter),
            plan,
            session: None,
            pending: None,
            switch: Switch::default(),
            fault: None,
            out_of_service: None,
            loose: Loose::default(),
            spanned: Vec::new(),
            unread_since_start: true,
            plan_after_start: Plan::GoOn,
            register_before_outage: None,
            shown: None,
        }
    }

    /// The public state.
    pub(super) fn state(&self) -> State {
        match &self.session {
            _ if self.fault.is_some() => State::Faulted,
            None if self.out_of_service.is_some() => State::OutOfService,
            None if self.pending.is_some() => State::Starting,
            None => State::Available,
            Some(session) if session.is_idle() => State::Idle,
            Some(session) if matches!(session.phase, Phase::Closing { .. }) => State::Starting,
            Some(session) if session.phase == Phase::Running && !session.has_drawn() => {
                State::Starting
            }
            Some(_) => State::InUse,
        }
    }

    /// Whose session is there, or about to be.
    pub(super) fn user(&self) -> Option<&UserId> {
        let pending = self.pending.as_ref().and_then(|pending| pending.user.as_ref());
        pending.or(self.session.as_ref().and_then(|session| session.start.user.as_ref()))
    }

    /// Whether the tapping badge or user owns what runs here.
    pub(super) fn is_owned_by(&self, uid: Uid, user: Option<&UserId>) -> bool {
        let owns = |owner: Option<&UserId>, badge: Option<Uid>| {
            badge == Some(uid) || (owner.is_some() && owner == user)
        };
        self.session.as_ref().is_some_and(|s| owns(s.start.user.as_ref(), s.start.uid))
            || self.pending.as_ref().is_some_and(|p| owns(p.user.as_ref(), p.uid))
    }

    /// A grant: the start register first.
    pub(super) fn begin_start(&mut self, pending: PendingStart, turn: &mut Turn<'_>) {
        self.pending = Some(pending);
        if self.meter.is_some() {
            turn.command(Command::ReadMeter(self.plan.id.clone()));
        } else {
            self.complete_start(None, turn);
        }
    }

    /// The start register is known, or waited for in vain: record, then act.
    pub(super) fn complete_start(&mut self, register_wh: Option<i64>, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.take() else { return };
        let missing = self.meter.is_some() && register_wh.is_none();
        if missing && self.plan.rules.require_meter {
            return self.refuse(&pending, turn);
        }
        let handover = self.session.is_some();
        if handover {
            self.finish(EndReason::Handover, register_wh, turn);
        }
        if register_wh.is_some() {
            self.post_unattributed(turn);
        }
        let was_open = self.switch.reported == Some(SwitchPosition::Open);
        if missing && !was_open {
            self.spanned.push(pending.candidate);
        }
        let start = SessionStart {
            session: pending.candidate,
            station: self.plan.id.clone(),
            station_kind: self.plan.kind,
            user: pending.user,
            badge: pending.badge,
            authorised_by: pending.authorised_by,
            allowlist_version: pending.allowlist_version,
            meter: self.plan.meter.clone(),
            register_wh,
            missing,
            uid: pending.uid,
        };
        turn.record(Fact::SessionStarted(start.clone()));
        let phase = Phase::Closing { attempts: 1, retry_at: turn.uptime() + CLOSE_SILENCE };
        let mut session = Session::new(start, turn.now, phase);
        session.estimated = missing;
        self.session = Some(session);
        self.switch.must_open = false;
        self.switch.retry_at = None;
        self.switch.noticed = false;
        turn.command(Command::CloseSwitch(self.plan.id.clone()));
        turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Running));
        if let Some(reader) = pending.reader {
            turn.command(Command::ShowFeedback(reader, Feedback::Granted));
        }
        turn.command(Command::SetLamp(self.plan.id.clone(), true));
    }

    fn refuse(&mut self, pending: &PendingStart, turn: &mut Turn<'_>) {
        let Some(reader) = pending.reader.clone() else { return };
        let reason = Denial::OutOfService;
        turn.command(Command::ShowFeedback(reader.clone(), Feedback::Denied(reason)));
        turn.command(Command::Notify(Notice::Denied {
            reader,
            station: Some(self.plan.id.clone()),
            reason,
            technology: None,
            badge: pending.badge.clone(),
            uid: None,
        }));
    }

    /// Records the intention to end, then takes the power away.
    pub(super) fn begin_end(&mut self, reason: EndReason, turn: &mut Turn<'_>) {
        let Some(session) = &mut self.session else { return };
        if matches!(session.phase, Phase::Ending { .. }) {
            return;
        }
        session.phase = Phase::Ending { reason, since: turn.uptime(), opened: false };
        turn.record(Fact::SessionEnding { session: session.start.session, reason });
        self.take_power(turn);
    }

    /// Opens the switch and watches the power go.
    pub(super) fn take_power(&mut self, turn: &mut Turn<'_>) {
        self.switch.must_open = true;
        self.switch.retry_at = Some(turn.uptime() + OPEN_RETRY);
        turn.command(Command::OpenSwitch(self.plan.id.clone()));
        if self.meter.is_some() {
            turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Ending));
        }
    }

    /// The end of an intended end: a register read after the power went, or none.
    pub(super) fn complete_end(&mut self, register_wh: Option<i64>, turn: &mut Turn<'_>) {
        let Some(Phase::Ending { reason, .. }) = self.session.as_ref().map(|s| s.phase) else {
            return;
        };
        self.finish(reason, register_wh, turn);
        turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Idle));
        turn.command(Command::SetLamp(self.plan.id.clone(), false));
        if self.switch.reported == Some(SwitchPosition::Open) {
            self.switch.must_open = false;
            self.switch.retry_at = None;
        } else {
            self.declare_fault(Fault::SwitchStuck, turn);
        }
    }

    /// Closes the session's account and records its end.
    pub(super) fn finish(
        &mut self,
        reason: EndReason,
        end_register_wh: Option<i64>,
        turn: &mut Turn<'_>,
    ) {
        self.close_slot(false, turn);
        let Some(session) = self.session.take() else { return };
        let metered = self.meter.is_some();
        if metered && end_register_wh.is_none() {
            self.spanned.push(session.start.session);
        }
        let quality = match (metered, session.estimated || end_register_wh.is_none()) {
            (false, _) => Quality::Unmetered,
            (true, true) => Quality::Estimated,
            (true, false) => Quality::Measured,
        };
        turn.record(Fact::SessionEnded(SessionEnd {
            reason,
            end_register_wh,
            energy_wh: metered.then_some(session.posted_wh),
            duration_s: session.age(turn.uptime()).as_secs(),
            quality,
            start: session.start,
        }));
    }

    pub(super) fn declare_fault(&mut self, fault: Fault, turn: &mut Turn<'_>) {
        if self.fault == Some(fault) {
            return;
        }
        self.fault = Some(fault);
        self.switch.agrees_since = None;
        turn.command(Command::Notify(Notice::SwitchFailed { station: self.plan.id.clone() }));
    }

    /// Tells of the public state where it changed.
    pub(super) fn publish_change(&mut self, turn: &mut Turn<'_>) {
        let state = self.state();
        if self.shown.is_none_or(|(shown, _)| shown != state) {
            self.shown = Some((state, turn.now.wall));
            turn.command(Command::PublishStation(self.plan.id.clone()));
        }
    }
}
