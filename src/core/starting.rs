//! How a granted start goes on: the start register, the record, then the switch; and what becomes
//! of it where one of these fails.

use crate::core::access::Denial;
use crate::core::badge::Technology;
use crate::core::event::{Command, Feedback, Notice, Pace};
use crate::core::ids::{BadgeId, ReaderId, SessionId};
use crate::core::ledger::{Authority, EndReason, Fact, SessionStart, SwitchPosition};
use crate::core::metering::Meter;
use crate::core::orders::Answer;
use crate::core::session::{Phase, Session};
use crate::core::station::{CLOSE_SILENCE, PendingStart, Station, Turn};
use crate::core::time::Uptime;

/// A session that was handed over, with its meter's accounts, as they were the moment before.
#[derive(Clone, Debug)]
pub(super) struct Displaced {
    session: Session,
    meter: Option<Meter>,
}

/// Whom a late refusal names, with the card's technology.
#[derive(Default)]
struct Bearer(Option<BadgeId>, Option<Technology>);

/// A meter that stays silent for months while its machine is used: the record that ends its silence
/// names the newest sessions, and stays far below the 4 KiB that a record may have.
const SPANNED_MAX: usize = 16;

impl Station {
    /// A grant: the start register first. A hand-over needs to know the load at that moment too.
    pub(super) fn begin_start(&mut self, pending: PendingStart, turn: &mut Turn<'_>) {
        self.pending = Some(pending);
        let id = self.plan.id.clone();
        match (&self.meter, &self.session) {
            (None, _) => self.complete_start(None, turn),
            (Some(_), None) => turn.command(Command::ReadRegister(id)),
            (Some(_), Some(_)) => turn.command(Command::ReadMeter(id)),
        }
    }

    /// The start register is known, or waited for in vain: record, then act.
    pub(super) fn complete_start(&mut self, register_wh: Option<i64>, turn: &mut Turn<'_>) {
        if let Some(denial) = self.obstacle(register_wh, turn.uptime()) {
            return self.pass_on(denial, turn);
        }
        let Some(pending) = self.pending.take() else { return };
        self.hand_over(register_wh, turn);
        let missing = self.meter.is_some() && register_wh.is_none();
        if missing {
            self.span_start(pending.candidate);
        }
        self.post_unattributed(turn);
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
        session.technology = pending.technology;
        session.order = pending.order;
        session.at_reader = pending.reader.is_some();
        self.session = Some(session);
        self.switch.must_open = false;
        self.switch.retry_at = None;
        self.switch.noticed = false;
        self.switch.loaded = false;
        turn.command(Command::CloseSwitch(self.plan.id.clone()));
        turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Running));
        turn.answer(pending.order, Answer::Starting(pending.candidate));
        if let Some(reader) = pending.reader {
            turn.command(Command::ShowFeedback(reader, Feedback::Granted));
        }
    }

    /// What has come between the grant and its start register.
    fn obstacle(&self, register_wh: Option<i64>, now: Uptime) -> Option<Denial> {
        if self.is_technicians_turn() {
            return self.session.is_some().then_some(Denial::Occupied);
        }
        let silent = self.meter.is_some() && register_wh.is_none();
        if self.is_unusable() || (silent && self.needs_start_register()) {
            return Some(Denial::OutOfService);
        }
        let session = self.session.as_ref()?;
        (!session.is_handover_due(&self.plan, now)).then_some(Denial::Occupied)
    }

    fn needs_start_register(&self) -> bool {
        self.plan.rules.require_meter || self.session.is_some()
    }

    /// A start would be refused by what the meter said last.
    pub(super) fn lacks_start_register(&self) -> bool {
        self.meter.as_ref().is_some_and(Meter::is_silent) && self.needs_start_register()
    }

    /// Nobody is let in: taken out, at fault, or something runs there that is nobody's.
    pub(super) fn is_unusable(&self) -> bool {
        let at_fault = self.fault.is_some() || self.switch.silent.is_some();
        at_fault || self.out_of_service.is_some() || self.switch.loaded
    }

    /// A technician looks after a station that is out of service, too.
    fn is_technicians_turn(&self) -> bool {
        let authority = self.pending.as_ref().map(|pending| pending.authorised_by);
        authority == Some(Authority::Technician)
    }

    /// Ends the session that is handed over, if there is one, at the start register of the next.
    fn hand_over(&mut self, register_wh: Option<i64>, turn: &mut Turn<'_>) {
        if turn.policy.slots {
            self.close_slot(false, turn);
        }
        let Some(session) = self.session.clone() else { return };
        self.displaced = Some(Displaced { session, meter: self.meter.clone() });
        self.finish(EndReason::Handover, register_wh, turn);
    }

    /// The start register is missing. What the meter will show is the session's own only where
    /// nothing could flow before it: the switch was open ever since the meter was read.
    fn span_start(&mut self, session: SessionId) {
        let opened = self.switch.reported == Some(SwitchPosition::Open);
        let ever_since = !self.switch.closed_unread && !self.unread_since_start;
        if !(opened && ever_since && self.spanned.is_empty()) {
            self.span(session);
        }
    }

    /// A boundary of this session lies in what the meter has not told yet.
    pub(super) fn span(&mut self, session: SessionId) {
        self.spanned.retain(|spanned| *spanned != session);
        if self.spanned.len() == SPANNED_MAX {
            self.spanned.remove(0);
        }
        self.spanned.push(session);
    }

    /// It cannot start here after all; another station of the reader may.
    fn pass_on(&mut self, reason: Denial, turn: &mut Turn<'_>) {
        let alternatives = self.pending.as_mut().and_then(|pending| pending.alternatives.take());
        let Some(mut alternatives) = alternatives else { return self.refuse_pending(reason, turn) };
        self.pending = None;
        alternatives.refused.push((self.plan.id.clone(), reason));
        turn.passed_on.push(alternatives);
    }

    /// The pending start is refused after all.
    pub(super) fn refuse_pending(&mut self, reason: Denial, turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.take() else { return };
        turn.answer(pending.order, Answer::Refused(reason));
        let Some(reader) = pending.reader else { return };
        self.deny(reader, reason, Bearer(pending.badge, pending.technology), turn);
    }

    fn deny(&self, reader: ReaderId, reason: Denial, bearer: Bearer, turn: &mut Turn<'_>) {
        turn.take_back_grant(&reader, reason);
        let station = Some(self.plan.id.clone());
        let (Bearer(badge, technology), uid) = (bearer, None);
        let denied = Notice::Denied { reader, station, reason, technology, badge, uid };
        turn.command(Command::Notify(denied));
    }

    /// The session that this turn's hand-over ended.
    pub(super) fn displaced_session(&self) -> Option<SessionId> {
        self.displaced.as_ref().map(|displaced| displaced.session.start.session)
    }

    /// The hand-over, if there was one, is on disk.
    pub(super) fn forget_displaced(&mut self) {
        self.displaced = None;
    }

    /// The start could not be recorded: its switch was never told to close.
    pub(super) fn undo_start(&mut self, turn: &mut Turn<'_>) {
        let denied = self.session.take();
        let order = denied.as_ref().and_then(|session| session.order);
        let by_badge = denied.as_ref().is_none_or(|session| session.at_reader);
        let bearer = denied.map(|session| Bearer(session.start.badge, session.technology));
        if let Some(Displaced { session, meter }) = self.displaced.take() {
            (self.session, self.meter) = (Some(session), meter);
        } else {
            turn.command(Command::PaceMeter(self.plan.id.clone(), Pace::Idle));
            self.open_if_unused(turn);
        }
        turn.answer(order, Answer::Refused(Denial::StorageFailure));
        if !by_badge {
            return;
        }
        let bearer = bearer.unwrap_or_default();
        self.deny(self.plan.reader.clone(), Denial::StorageFailure, bearer, turn);
    }
}
