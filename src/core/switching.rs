//! What follows from how a station's switch stands.

use crate::core::access::Denial;
use crate::core::event::{Command, Notice, SwitchReport};
use crate::core::ledger::{EndReason, Fact, InterruptionCause, SwitchPosition};
use crate::core::orders::Answer;
use crate::core::recovery::Plan;
use crate::core::session::Phase;
use crate::core::station::{
    CLOSE_ATTEMPTS, CLOSE_RETRY, CLOSE_SILENCE, Fault, OPEN_RETRY, Station, Turn,
};
use crate::core::time::Uptime;
use crate::core::timers::ASK_AGAIN;

/// A fault clears once switch and feedback have agreed with what was commanded for this long.
const FAULT_CLEARS_AFTER: std::time::Duration = std::time::Duration::from_secs(30);
/// While a session ends, a switch that does not open is told again this soon.
const OPEN_RETRY_SOON: std::time::Duration = std::time::Duration::from_secs(1);
/// Whether a switch without a session powers something is told when its meter stays silent so long.
const FIRST_READING: std::time::Duration = std::time::Duration::from_secs(120);
/// A switch that cannot be read for this long is at fault: a request may get lost, and be repeated.
const SILENCE_IS_A_FAULT: std::time::Duration = std::time::Duration::from_secs(10);
/// A switch that reads open during a session is closed again this often.
const RECLOSE_ATTEMPTS: u32 = 3;

impl Station {
    /// The switch was written or read.
    pub(super) fn on_switch(&mut self, report: &SwitchReport, turn: &mut Turn<'_>) {
        let position = effective(report);
        self.note_silence(report, turn.uptime());
        self.note_position(position, turn);
        if !self.switch.must_open {
            self.switch.retry_at = None;
        }
        match self.session.as_ref().map(|session| session.phase) {
            Some(Phase::Recovering) => self.on_switch_after_start(position, turn),
            Some(Phase::Closing { attempts, retry_at }) => {
                self.on_switch_closing(position, attempts, retry_at, turn);
            }
            Some(Phase::Running) if position == Some(SwitchPosition::Open) => self.reclose(turn),
            Some(Phase::Running) => {}
            Some(Phase::Ending { reason, since, .. }) => {
                let opened = position == Some(SwitchPosition::Open);
                if let Some(session) = self.session.as_mut().filter(|_| opened) {
                    session.phase = Phase::Ending { reason, since, opened };
                } else {
                    let soon = turn.uptime() + OPEN_RETRY_SOON;
                    self.switch.retry_at = self.switch.retry_at.map(|at| at.min(soon));
                }
                if opened && self.meter.is_none() {
                    self.complete_end(None, turn);
                }
            }
            None => self.on_switch_without_session(position, turn),
        }
        self.clear_fault(report, turn);
    }

    /// A switch, or a contactor feedback that is wired, which cannot be read for a while.
    fn note_silence(&mut self, report: &SwitchReport, now: Uptime) {
        let silent = match report {
            SwitchReport::Unknown => Some(Fault::SwitchSilent),
            SwitchReport::Closed { feedback: None } | SwitchReport::Open { feedback: None } => {
                self.plan.has_feedback.then_some(Fault::FeedbackSilent)
            }
            SwitchReport::Closed { .. } | SwitchReport::Open { .. } => None,
        };
        let since = *self.switch.silent_since.get_or_insert(now);
        if silent.is_none() {
            self.switch.silent_since = None;
        }
        self.switch.silent = silent.filter(|_| now.since(since) >= SILENCE_IS_A_FAULT);
    }

    fn note_position(&mut self, position: Option<SwitchPosition>, turn: &mut Turn<'_>) {
        let Some(position) = position else { return };
        let changed = self.switch.reported.is_some_and(|before| before != position);
        if changed && self.session.is_none() {
            self.post_unattributed(turn);
        }
        if self.switch.reported != Some(position) {
            self.switch.reported_since = turn.uptime();
            if let Some(meter) = &mut self.meter {
                meter.forget_flow();
            }
        }
        self.switch.reported = Some(position);
        self.switch.closed_unread |= position == SwitchPosition::Closed && self.session.is_none();
    }

    fn on_switch_closing(
        &mut self,
        position: Option<SwitchPosition>,
        attempts: u32,
        retry_at: Uptime,
        turn: &mut Turn<'_>,
    ) {
        let Some(session) = &mut self.session else { return };
        match position {
            Some(SwitchPosition::Closed) => {
                session.phase = Phase::Running;
                session.confirmed = true;
                turn.answer(session.order.take(), Answer::Running(session.start.session));
                self.plan_after_start = Plan::GoOn;
            }
            // Not later than what is due already: a fast poll must not put the retry off.
            Some(SwitchPosition::Open) | None => {
                let retry_at = retry_at.min(turn.uptime() + CLOSE_RETRY);
                session.phase = Phase::Closing { attempts, retry_at };
            }
        }
    }

    /// The switch was not confirmed in time: once more, or give up.
    pub(super) fn retry_close(&mut self, attempts: u32, turn: &mut Turn<'_>) {
        let Some(session) = &mut self.session else { return };
        if attempts < CLOSE_ATTEMPTS {
            let retry_at = turn.uptime() + CLOSE_SILENCE;
            session.phase = Phase::Closing { attempts: attempts + 1, retry_at };
            turn.command(Command::CloseSwitch(self.plan.id.clone()));
            return;
        }
        if session.confirmed {
            // A fault does not end what was running: laundry may lie behind a locked door.
            session.phase = Phase::Running;
            return self.declare_fault(Fault::SwitchFailed, turn);
        }
        let reason = match self.plan_after_start {
            Plan::Resume { .. } => EndReason::PowerLoss,
            Plan::GoOn | Plan::End | Plan::WaitForClock { .. } => EndReason::SwitchFailed,
        };
        let at_reader = session.at_reader;
        self.begin_end(reason, turn);
        self.declare_fault(Fault::SwitchFailed, turn);
        if at_reader {
            turn.take_back_grant(&self.plan.reader.clone(), Denial::OutOfService);
        }
    }

    /// A relay board that reset: the session goes on, on record.
    fn reclose(&mut self, turn: &mut Turn<'_>) {
        let register = self.meter.as_ref().and_then(|meter| meter.register_wh());
        let Some(session) = &mut self.session else { return };
        if session.car_left() {
            return;
        }
        if session.reclosed >= RECLOSE_ATTEMPTS {
            return self.declare_fault(Fault::SwitchFailed, turn);
        }
        session.reclosed += 1;
        session.phase = Phase::Closing { attempts: 1, retry_at: turn.uptime() + CLOSE_SILENCE };
        turn.record(Fact::Interruption {
            session: session.start.session,
            cause: InterruptionCause::SwitchOpened,
            register_wh_before: register,
            register_wh_after: register,
            outage_s: None,
        });
        turn.command(Command::CloseSwitch(self.plan.id.clone()));
    }

    fn on_switch_without_session(&mut self, position: Option<SwitchPosition>, turn: &mut Turn<'_>) {
        match position {
            None => {}
            Some(SwitchPosition::Open) => {
                self.switch.must_open = false;
                self.switch.retry_at = None;
                (self.switch.noticed, self.switch.loaded) = (false, false);
                (self.switch.spare, self.switch.idle_since) = (None, None);
            }
            Some(SwitchPosition::Closed) if self.switch.must_open => {
                self.declare_fault(Fault::SwitchStuck, turn);
            }
            Some(SwitchPosition::Closed) => self.open_if_unused(turn),
        }
    }

    /// A switch found closed without a session: opened without load, left alone under load.
    pub(super) fn open_if_unused(&mut self, turn: &mut Turn<'_>) {
        let closed = self.switch.reported == Some(SwitchPosition::Closed);
        if !closed || self.session.is_some() || self.switch.must_open {
            return;
        }
        let idle_mw = i64::from(self.plan.rules.idle_power_w) * 1_000;
        // A reading from before it closed tells nothing of what it powers.
        let power = self.meter.as_ref().and_then(|meter| meter.power());
        let power = power.filter(|(_, at)| *at >= self.switch.reported_since);
        let idle = power.is_some_and(|(power_mw, _)| power_mw < idle_mw);
        let bound = self.meter.as_ref().is_some_and(|meter| meter.tells_only_a_bound());
        self.switch.loaded = match power {
            Some(_) if bound => self.switch.loaded && !idle,
            Some(_) => !idle,
            None => self.switch.loaded,
        };
        self.switch.idle_since = idle.then(|| self.switch.idle_since.unwrap_or(turn.uptime()));
        match self.switch.idle_since {
            Some(since) if turn.uptime().since(since) >= self.switch.spare.unwrap_or_default() => {
                self.open_again(turn);
            }
            Some(_) => {}
            None => {
                let loaded = self.switch.loaded || self.meter.is_none();
                let settled = turn.uptime().since(self.switch.reported_since) >= FIRST_READING;
                if !self.switch.noticed && (loaded || settled) {
                    self.switch.noticed = true;
                    let station = self.plan.id.clone();
                    turn.command(Command::Notify(Notice::SwitchWithoutSession { station }));
                }
            }
        }
    }

    /// Tells a switch that should be open to open, and when to tell it again.
    pub(super) fn open_again(&mut self, turn: &mut Turn<'_>) {
        self.switch.must_open = true;
        self.switch.retry_at = Some(turn.uptime() + OPEN_RETRY);
        turn.command(Command::OpenSwitch(self.plan.id.clone()));
    }

    fn clear_fault(&mut self, report: &SwitchReport, turn: &mut Turn<'_>) {
        let closes = match self.session.as_ref().map(|session| session.phase) {
            Some(Phase::Recovering | Phase::Closing { .. } | Phase::Running) => true,
            Some(Phase::Ending { .. }) | None => false,
        };
        let agree = match report {
            SwitchReport::Closed { feedback } => closes && *feedback != Some(false),
            SwitchReport::Open { feedback } => !closes && *feedback != Some(true),
            SwitchReport::Unknown => false,
        };
        if !agree {
            self.switch.agrees_since = None;
            if self.fault.is_some() {
                self.switch.retry_at.get_or_insert(turn.uptime() + ASK_AGAIN);
            }
            return;
        }
        let since: Uptime = *self.switch.agrees_since.get_or_insert(turn.uptime());
        if turn.uptime().since(since) >= FAULT_CLEARS_AFTER {
            self.fault = None;
        } else if self.fault.is_some() {
            self.switch.retry_at.get_or_insert(turn.uptime() + ASK_AGAIN);
        }
    }
}

/// Where a contactor feedback is wired, it has the last word.
fn effective(report: &SwitchReport) -> Option<SwitchPosition> {
    let position = |relay, feedback: &Option<bool>| match feedback {
        Some(true) => SwitchPosition::Closed,
        Some(false) => SwitchPosition::Open,
        None => relay,
    };
    match report {
        SwitchReport::Closed { feedback } => Some(position(SwitchPosition::Closed, feedback)),
        SwitchReport::Open { feedback } => Some(position(SwitchPosition::Open, feedback)),
        SwitchReport::Unknown => None,
    }
}
