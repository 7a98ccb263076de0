//! One station: its switch, its meter and the session on it, if any.
//!
//! A start goes `PendingStart` (the start register is being read) → [`Phase::Closing`] →
//! [`Phase::Running`] → [`Phase::Ending`] → no session. Records come before the commands that
//! follow from them, in the same [`Step`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::access::Denial;
use crate::core::badge::{Technology, Uid};
use crate::core::event::{Command, Feedback, Notice, Pace, Step, Tap};
use crate::core::ids::{BadgeId, ReaderId, SessionId, StationId, UserId};
use crate::core::lamps::Lamp;
use crate::core::ledger::{
    Authority, EndReason, Fact, Quality, Record, SessionEnd, SwitchPosition,
};
use crate::core::loose::Loose;
use crate::core::metering::Meter;
use crate::core::orders::{Answer, OrderId};
use crate::core::recovery::Plan;
use crate::core::session::{Phase, Session};
use crate::core::site::{self, OnRevoked, SitePolicy, StationKind};
use crate::core::starting::Displaced;
use crate::core::time::{Stamp, Uptime, Wall};
use crate::core::timers::ASK_AGAIN;

/// What one event or timeout does: the step under construction.
pub(super) struct Turn<'a> {
    pub(super) policy: &'a SitePolicy,
    pub(super) now: Stamp,
    pub(super) step: &'a mut Step,
    /// After a power cut no switch closes before this.
    pub(super) resume_after: Uptime,
    /// Readers on which a start that had seemed granted was refused after all.
    refused: Vec<ReaderId>,
    /// Taps whose station could not start after all, while another one may.
    pub(super) passed_on: Vec<Alternatives>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        policy: &'a SitePolicy,
        now: Stamp,
        resume_after: Uptime,
        step: &'a mut Step,
    ) -> Turn<'a> {
        let (refused, passed_on) = (Vec::new(), Vec::new());
        Turn { policy, now, step, resume_after, refused, passed_on }
    }

    /// What the gateway keeps of a turn, beside its step.
    pub(super) fn end(self) -> (Vec<ReaderId>, Uptime) {
        (self.refused, self.resume_after)
    }

    /// Tells the person at the reader that the granted start failed: the next tap counts at once.
    pub(super) fn take_back_grant(&mut self, reader: &ReaderId, reason: Denial) {
        self.command(Command::ShowFeedback(reader.clone(), Feedback::Denied(reason)));
        self.refused.push(reader.clone());
    }

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
    /// The session that this turn's hand-over ended: it goes on if the hand-over cannot be saved.
    pub(super) displaced: Option<Displaced>,
    pub(super) switch: Switch,
    pub(super) fault: Option<Fault>,
    pub(super) out_of_service: Option<Option<String>>,
    /// Energy without a session in the alarm's window.
    pub(super) loose: Loose,
    /// Sessions whose boundary lies in what the meter has not told yet; boundedly many.
    pub(super) spanned: Vec<SessionId>,
    /// A technician says that the meter was exchanged; the next reading is the new one's.
    pub(super) exchange: Option<OrderId>,
    /// The session that ended last, and until when what still flows is its residue.
    pub(super) residue_of: Option<(SessionId, Uptime)>,
    /// When the accounts went over into a new epoch.
    pub(super) epoch_opened: Option<Stamp>,
    /// Its reader is gone: nobody can tap.
    pub(super) reader_lost: bool,
    /// No reading yet since the daemon started.
    pub(super) unread_since_start: bool,
    /// How a recovered session goes on.
    pub(super) plan_after_start: Plan,
    /// The last register on record when the power went.
    pub(super) register_before_outage: Option<i64>,
    /// What was last published.
    pub(super) shown: Option<Shown>,
    pub(super) lamp: Lamp,
}

/// A station's public state as it was last published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) state: State,
    pub(super) since: Wall,
    fault: Option<Fault>,
    note: Option<String>,
}

/// A grant that waits for its start register.
#[derive(Clone, Debug)]
pub(super) struct PendingStart {
    pub(super) candidate: SessionId,
    pub(super) user: Option<UserId>,
    pub(super) badge: Option<BadgeId>,
    pub(super) uid: Option<Uid>,
    pub(super) technology: Option<Technology>,
    pub(super) authorised_by: Authority,
    pub(super) allowlist_version: Option<u64>,
    pub(super) reader: Option<ReaderId>,
    /// Who ordered it, where nobody tapped.
    pub(super) order: Option<OrderId>,
    pub(super) deadline: Uptime,
    pub(super) retry_at: Option<Uptime>,
    /// Where else the tap may start something.
    pub(super) alternatives: Option<Alternatives>,
}

/// A tap on a reader that takes the first station which can start, and those that could not.
#[derive(Clone, Debug)]
pub(super) struct Alternatives {
    pub(super) tap: Tap,
    pub(super) refused: Vec<(StationId, Denial)>,
}

/// What is believed about a switch, and when it is commanded again.
#[derive(Clone, Debug, Default)]
pub(super) struct Switch {
    pub(super) reported: Option<SwitchPosition>,
    /// Since when it has been reported so.
    pub(super) reported_since: Uptime,
    pub(super) agrees_since: Option<Uptime>,
    /// It was told to open and must, load or not.
    pub(super) must_open: bool,
    /// The session at whose end it did not open.
    pub(super) stuck_after: Option<SessionId>,
    pub(super) retry_at: Option<Uptime>,
    /// A load without a session was noticed.
    pub(super) noticed: bool,
    /// It powers something without a session, by the last reading.
    pub(super) loaded: bool,
    /// Something may run there that lost its session: it must be idle for this long.
    pub(super) spare: Option<Duration>,
    /// Without load since, where nobody has a session.
    pub(super) idle_since: Option<Uptime>,
    /// It was seen closed for nobody since the meter was last read: what flowed is not known.
    pub(super) closed_unread: bool,
    /// Neither it nor its feedback can be read since.
    pub(super) silent_since: Option<Uptime>,
    /// The same for so long that nobody is let in.
    pub(super) silent: Option<Fault>,
}

/// Why a station is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The switch did not close.
    SwitchFailed,
    /// The switch does not open.
    SwitchStuck,
    /// The switch is closed and powers something without a session.
    SwitchWithoutSession,
    /// The switch cannot be read.
    SwitchSilent,
    /// The contactor feedback cannot be read.
    FeedbackSilent,
    /// The reader where badges are presented is gone.
    ReaderLost,
}

impl PendingStart {
    fn is_owned_by(&self, uid: Uid, user: Option<&UserId>) -> bool {
        self.uid == Some(uid) || (user.is_some() && self.user.as_ref() == user)
    }
}

impl Fault {
    /// For the station's public state.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::SwitchFailed => "switch_failed",
            Fault::SwitchStuck => "switch_stuck",
            Fault::SwitchWithoutSession => "switch_without_session",
            Fault::SwitchSilent => "switch_silent",
            Fault::FeedbackSilent => "feedback_silent",
            Fault::ReaderLost => "reader_lost",
        }
    }
}

/// The public state of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
/// What flows this soon after a session's end is what its machine still draws.
const RESIDUE: Duration = Duration::from_secs(60);
/// A switch that will not open is tried again this often, for as long as it takes.
pub(super) const OPEN_RETRY: Duration = Duration::from_secs(30);

impl Station {
    pub(super) fn new(plan: site::Station) -> Station {
        let (resolution_wh, tells_power) = (plan.meter_resolution_wh, plan.meter_tells_power);
        let new_meter = |id| Meter::new(id, resolution_wh, plan.rules.max_power_w, tells_power);
        Station {
            meter: plan.meter.clone().map(new_meter),
            plan,
            session: None,
            pending: None,
            displaced: None,
            switch: Switch::default(),
            fault: None,
            out_of_service: None,
            loose: Loose::default(),
            spanned: Vec::new(),
            exchange: None,
            residue_of: None,
            epoch_opened: None,
            reader_lost: false,
            unread_since_start: true,
            plan_after_start: Plan::GoOn,
            register_before_outage: None,
            shown: None,
            lamp: Lamp::default(),
        }
    }

    /// The public state.
    pub(super) fn state(&self) -> State {
        match &self.session {
            _ if self.fault.is_some() => State::Faulted,
            None if self.shown_fault().is_some() => State::Faulted,
            None if self.out_of_service.is_some() => State::OutOfService,
            None if self.pending.is_some() => State::Starting,
            None => State::Available,
            Some(session) if session.is_idle() => State::Idle,
            Some(session) if session.phase == Phase::Recovering => State::InUse,
            // Nobody knows of a load without a meter: there the switch has the word.
            Some(session) if self.meter.is_none() && !session.confirmed => State::Starting,
            Some(session) if self.meter.is_some() && !session.has_drawn() => State::Starting,
            Some(_) => State::InUse,
        }
    }

    /// What a technician should look at. A lost reader prevents taps, and nothing else.
    pub(super) fn shown_fault(&self) -> Option<Fault> {
        let loaded = self.switch.loaded.then_some(Fault::SwitchWithoutSession);
        let reader = self.reader_lost.then_some(Fault::ReaderLost);
        self.fault.or(self.switch.silent).or(loaded).or(reader)
    }

    /// How many of this user's sessions are there, or about to be.
    pub(super) fn sessions_of(&self, user: &UserId) -> u32 {
        let running = self.session.as_ref().and_then(|session| session.start.user.as_ref());
        let pending = self.pending.as_ref().and_then(|pending| pending.user.as_ref());
        u32::from(running == Some(user)) + u32::from(pending == Some(user))
    }

    /// Whether the session or pending start `id` is this user's.
    pub(super) fn is_user_of(&self, id: SessionId, user: &UserId) -> bool {
        let running = self.session.as_ref().filter(|session| session.start.session == id);
        let pending = self.pending.as_ref().filter(|pending| pending.candidate == id);
        running.is_some_and(|session| session.start.user.as_ref() == Some(user))
            || pending.is_some_and(|pending| pending.user.as_ref() == Some(user))
    }

    /// Whether the tapping badge or user owns what runs here, or is about to.
    pub(super) fn is_owned_by(&self, uid: Uid, user: Option<&UserId>) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_owned_by(uid, user))
            || self.pending.as_ref().is_some_and(|pending| pending.is_owned_by(uid, user))
    }

    /// How often the meter is to be read as things stand.
    pub(super) fn pace(&self) -> Pace {
        match self.session.as_ref().map(|session| session.phase) {
            // What is not believed is looked at often: the sooner it is clear what it was.
            None if self.meter.as_ref().is_some_and(Meter::is_doubted) => Pace::Running,
            None => Pace::Idle,
            Some(Phase::Ending { .. }) => Pace::Ending,
            Some(Phase::Recovering | Phase::Closing { .. } | Phase::Running) => Pace::Running,
        }
    }

    /// Records the intention to end, then takes the power away.
    pub(super) fn begin_end(&mut self, reason: EndReason, turn: &mut Turn<'_>) {
        let Some(session) = &mut self.session else { return };
        if matches!(session.phase, Phase::Ending { .. }) {
            return;
        }
        session.phase = Phase::Ending { reason, since: turn.uptime(), opened: false };
        turn.answer(session.order.take(), Answer::NotClosed(session.start.session));
        turn.record(Fact::SessionEnding { session: session.start.session, reason });
        self.take_power(turn);
    }

    /// The badge is blocked or gone: chargers stop, where the config says so; nobody's laundry is
    /// cut under load.
    pub(super) fn revoke(&mut self, turn: &mut Turn<'_>) {
        if self.plan.rules.on_revoked == OnRevoked::Finish {
            return;
        }
        if self.plan.kind == StationKind::Charger {
            self.begin_end(EndReason::Revoked, turn);
        } else if let Some(session) = &mut self.session {
            session.end_when_idle = Some(EndReason::Revoked);
        }
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
        let Some(session) = &self.session else { return };
        let Phase::Ending { reason, opened, .. } = session.phase else { return };
        let id = session.start.session;
        self.finish(reason, register_wh, turn);
        turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Idle));
        if !opened {
            self.switch.stuck_after = Some(id);
            return self.declare_fault(Fault::SwitchStuck, turn);
        }
        self.switch.must_open = false;
        self.switch.retry_at = self.fault.map(|_| turn.uptime() + ASK_AGAIN);
    }

    /// Closes the session's account and records its end.
    pub(super) fn finish(
        &mut self,
        reason: EndReason,
        end_register_wh: Option<i64>,
        turn: &mut Turn<'_>,
    ) {
        if turn.policy.slots || end_register_wh.is_none() {
            self.close_slot(false, turn);
        }
        self.plan_after_start = Plan::GoOn;
        let Some(session) = self.session.take() else { return };
        let outstanding = self.meter.as_ref().and_then(|meter| meter.outstanding());
        let energy_wh = session.posted_wh + outstanding.map_or(0, |(from, to)| to - from);
        // A meter that has never been read measured nothing.
        let metered = self.meter.as_ref().is_some_and(|meter| meter.register_wh().is_some());
        if let Some(meter) = &mut self.meter {
            meter.settle(turn.now);
        }
        if reason != EndReason::Handover {
            self.residue_of = Some((session.start.session, turn.uptime() + RESIDUE));
        }
        if metered && end_register_wh.is_none() {
            self.span(session.start.session);
        }
        let quality = match (metered, session.estimated || end_register_wh.is_none()) {
            (false, _) => Quality::Unmetered,
            (true, true) => Quality::Estimated,
            (true, false) => Quality::Measured,
        };
        turn.record(Fact::SessionEnded(SessionEnd {
            reason,
            end_register_wh,
            energy_wh: metered.then_some(energy_wh),
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
        let before = self.shown.as_ref().filter(|shown| shown.state == state);
        let since = before.map_or(turn.now.wall, |shown| shown.since);
        let note = self.out_of_service.clone().flatten();
        let shown = Some(Shown { state, since, fault: self.shown_fault(), note });
        if self.shown != shown {
            self.shown = shown;
            turn.command(Command::PublishStation(self.plan.id.clone()));
        }
    }
}
