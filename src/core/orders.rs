//! What an operator orders through the cloud, or a technician at the console: a start, a stop, a
//! station out of service or back.
//!
//! An order is answered through [`Command::Answer`] under the id that it came with. The shell has
//! checked who gives it, and keeps marks on disk before it tells of them here.

use crate::core::access::{Circumstances, Denial, Entry, decide_for_operator};
use crate::core::badge::Uid;
use crate::core::event::Command;
use crate::core::gateway::Gateway;
use crate::core::ids::{SessionId, StationId, UserId};
use crate::core::ledger::{Authority, EndReason, SwitchPosition};
use crate::core::session::Phase;
use crate::core::site::StationKind;
use crate::core::station::{PendingStart, Station, Turn};
use crate::core::tap::no_badge;

/// Tells an order from all others of this run of the daemon; drawn by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderId(pub u64);

/// Who orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderedBy {
    /// The operator, through the cloud.
    Operator,
    /// A technician at the console.
    Technician,
}

/// A session to start without a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOrder {
    /// Where the answer goes.
    pub order: OrderId,
    /// Who orders.
    pub by: OrderedBy,
    /// Which station.
    pub station: StationId,
    /// Id for the session, drawn by the shell.
    pub candidate: SessionId,
    /// Who uses it and pays; nobody for a technician's own session.
    pub user: Option<UserId>,
    /// The badge it is for, with what the allowlist says of it. An order that names a badge which
    /// the list does not know is refused before it comes here.
    pub badge: Option<(Uid, Entry)>,
}

/// A session to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopOrder {
    /// Where the answer goes.
    pub order: OrderId,
    /// Who orders.
    pub by: OrderedBy,
    /// Which session.
    pub target: StopTarget,
    /// Also under load, where a washer or dryer would be waited for.
    pub now: bool,
}

/// What an order to stop names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopTarget {
    /// Whatever runs there.
    Station(StationId),
    /// This session and no other.
    Session(SessionId),
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The start is on record and the switch is being closed; [`Answer::Running`] or
    /// [`Answer::NotClosed`] follows.
    Starting(SessionId),
    /// The switch was seen closed.
    Running(SessionId),
    /// The switch was not seen closed; the session ends.
    NotClosed(SessionId),
    /// The end is on record and the switch is being opened.
    Ending(SessionId),
    /// A machine under load: it ends at the next idle moment.
    EndsWhenIdle(SessionId),
    /// The start is refused.
    Refused(Denial),
    /// No session, but the switch was closed: it is being opened.
    Opening,
    /// The accounts go on from the new meter's register.
    MeterReplaced {
        /// The old one's last, where there was one.
        old_wh: Option<i64>,
        /// The new one's first.
        new_wh: i64,
    },
    /// The new meter does not answer; nothing is changed.
    MeterSilent,
    /// The station has no meter.
    NoMeter,
    /// There is nothing to stop.
    NoSession,
    /// The site has no such station.
    NoStation,
}

impl Answer {
    /// Whether no other answer follows.
    pub fn is_last(self) -> bool {
        !matches!(self, Answer::Starting(_))
    }
}

impl OrderedBy {
    fn authority(self) -> Authority {
        match self {
            OrderedBy::Operator => Authority::Command,
            OrderedBy::Technician => Authority::Technician,
        }
    }

    fn end_reason(self) -> EndReason {
        match self {
            OrderedBy::Operator => EndReason::Remote,
            OrderedBy::Technician => EndReason::Technician,
        }
    }
}

impl Gateway {
    pub(super) fn on_start_ordered(&mut self, order: &StartOrder, turn: &mut Turn<'_>) {
        let answer = |answer, turn: &mut Turn<'_>| turn.answer(Some(order.order), answer);
        let Some(station) = self.stations.iter().find(|s| s.plan.id == order.station) else {
            return answer(Answer::NoStation, turn);
        };
        if let Err(denial) = self.may_start(station, order, turn) {
            return answer(Answer::Refused(denial), turn);
        }
        let badge = order.badge.as_ref();
        let pending = PendingStart {
            candidate: order.candidate,
            user: badge.map(|(_, entry)| entry.user.clone()).or(order.user.clone()),
            badge: badge.map(|(_, entry)| entry.badge.clone()),
            uid: badge.map(|(uid, _)| *uid),
            technology: None,
            authorised_by: order.by.authority(),
            allowlist_version: badge.and(self.allowlist.as_ref()).map(|list| list.version),
            reader: None,
            order: Some(order.order),
            deadline: turn.uptime() + turn.policy.start_read_timeout,
            retry_at: None,
            alternatives: None,
        };
        if let Some(station) = self.station_mut(&order.station) {
            station.begin_start(pending, turn);
        }
    }

    /// A technician needs only a station that nobody uses; an operator's order obeys rows 10 to 13
    /// of the decision, and 1 to 8 for the badge that it names.
    fn may_start(
        &self,
        station: &Station,
        order: &StartOrder,
        turn: &Turn<'_>,
    ) -> Result<(), Denial> {
        let occupied = station.session.is_some() || station.pending.is_some();
        let storage_failed = !self.unsaved.is_empty();
        if order.by == OrderedBy::Technician {
            return match (occupied, storage_failed) {
                (true, _) => Err(Denial::Occupied),
                (false, true) => Err(Denial::StorageFailure),
                (false, false) => Ok(()),
            };
        }
        if let Some(denial) = order.badge.as_ref().and_then(|(uid, _)| no_badge(*uid)) {
            return Err(denial);
        }
        let entry = order.badge.as_ref().map(|(_, entry)| entry);
        let strangers = entry.zip(order.user.as_ref()).is_some_and(|(e, user)| e.user != *user);
        if strangers {
            return Err(Denial::NotGranted);
        }
        let user = entry.map(|entry| &entry.user).or(order.user.as_ref());
        let circumstances = Circumstances {
            occupied,
            storage_failed,
            sessions_of_user: user.map_or(0, |user| self.sessions_of_user(user, &station.plan)),
            ..self.circumstances(station, turn.now)
        };
        decide_for_operator(turn.policy, &station.plan, entry, &circumstances)
    }

    pub(super) fn on_stop_ordered(&mut self, order: &StopOrder, turn: &mut Turn<'_>) {
        let named = |station: &&mut Station| match &order.target {
            StopTarget::Station(id) => &station.plan.id == id,
            StopTarget::Session(id) => station.has_session(*id),
        };
        let answer = match (self.stations.iter_mut().find(named), &order.target) {
            (Some(station), _) => station.stop(order, turn),
            (None, StopTarget::Station(_)) => Answer::NoStation,
            (None, StopTarget::Session(_)) => Answer::NoSession,
        };
        turn.answer(Some(order.order), answer);
    }

    pub(super) fn on_meter_exchanged(
        &mut self,
        id: &StationId,
        order: OrderId,
        turn: &mut Turn<'_>,
    ) {
        match self.station_mut(id) {
            Some(station) => station.expect_exchange(order, turn),
            None => turn.answer(Some(order), Answer::NoStation),
        }
    }

    pub(super) fn on_taken_out_of_service(&mut self, id: &StationId, note: &Option<String>) {
        if let Some(station) = self.station_mut(id) {
            station.out_of_service = Some(note.clone());
        }
    }

    pub(super) fn on_returned_to_service(&mut self, id: &StationId) {
        if let Some(station) = self.station_mut(id) {
            station.out_of_service = None;
        }
    }
}

impl Station {
    fn has_session(&self, id: SessionId) -> bool {
        self.session.as_ref().is_some_and(|session| session.start.session == id)
            || self.pending.as_ref().is_some_and(|pending| pending.candidate == id)
    }

    /// Chargers and technicians' own sessions stop at once; laundry waits for an idle moment
    /// unless the order says otherwise.
    fn stop(&mut self, order: &StopOrder, turn: &mut Turn<'_>) -> Answer {
        if self.pending.is_some() {
            self.refuse_pending(Denial::OutOfService, turn);
        }
        let reason = order.by.end_reason();
        let Some(session) = &mut self.session else {
            return self.stop_without_session(order, turn);
        };
        let id = session.start.session;
        let technicians = session.start.authorised_by == Authority::Technician;
        if order.now || technicians || self.plan.kind == StationKind::Charger {
            self.begin_end(reason, turn);
        } else {
            session.end_when_idle.get_or_insert(reason);
            self.end_if_due(turn);
        }
        self.stopping(id)
    }

    fn stopping(&self, id: SessionId) -> Answer {
        match self.session.as_ref().map(|session| session.phase) {
            Some(Phase::Recovering | Phase::Closing { .. } | Phase::Running) => {
                Answer::EndsWhenIdle(id)
            }
            Some(Phase::Ending { .. }) | None => Answer::Ending(id),
        }
    }

    /// A technician at the machine knows best what may lose its power.
    fn stop_without_session(&mut self, order: &StopOrder, turn: &mut Turn<'_>) -> Answer {
        let closed = self.switch.reported == Some(SwitchPosition::Closed);
        if !closed || order.by != OrderedBy::Technician || !order.now {
            return Answer::NoSession;
        }
        self.open_again(turn);
        Answer::Opening
    }

    /// The next reading is that of another meter, whatever it shows.
    fn expect_exchange(&mut self, order: OrderId, turn: &mut Turn<'_>) {
        if self.meter.is_none() {
            return turn.answer(Some(order), Answer::NoMeter);
        }
        self.exchange = Some(order);
        turn.command(Command::ReadMeter(self.plan.id.clone()));
    }
}

impl Turn<'_> {
    /// Answers the order, where there is one.
    pub(super) fn answer(&mut self, order: Option<OrderId>, answer: Answer) {
        if let Some(order) = order {
            self.command(Command::Answer(order, answer));
        }
    }
}
