//! What follows from a meter's answer: whose energy it is, and whether the session should end.
//!
//! Rule 2 of the system: for each meter, register now − register at commissioning = Σ sessions +
//! Σ unattributed. Every believed difference is posted here, to exactly one account.

use std::time::Duration;

use crate::core::event::{Command, Notice, Reading};
use crate::core::flow::Power;
use crate::core::ids::SessionId;
use crate::core::ledger::{EndReason, Fact, MeterChange, SwitchPosition, UnattributedCause};
use crate::core::metering::{Verdict, elapsed};
use crate::core::orders::Answer;
use crate::core::session::{Look, Phase, SLOT};
use crate::core::station::{RUN_DOWN, Station, Turn};
use crate::core::time::Uptime;

/// A difference over a longer time than this is not known to have flowed evenly.
const MEASURED_GAP: Duration = Duration::from_secs(10);
/// A silent meter is asked again for the start register after this long.
const START_READ_AGAIN: Duration = Duration::from_millis(200);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How long the end register is waited for, and how long after a power cut.
const END_READ_TIMEOUT: Duration = Duration::from_secs(10);
const BOOT_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Power below which a machine counts as off at its session's end.
const OFF_MW: i64 = 1_000;

impl Station {
    /// The meter answered.
    pub(super) fn on_reading(&mut self, reading: &Reading, turn: &mut Turn<'_>) {
        if let Some(session) = &mut self.session
            && let Some(vehicle) = reading.vehicle
        {
            session.on_vehicle(vehicle, turn.uptime());
        }
        let tells_only_the_car = reading.energy_wh.is_none() && reading.power_mw.is_none();
        if tells_only_the_car && reading.vehicle.is_some() {
            // A charger whose meter is another device: nothing is said of energy and power.
            return self.end_if_due(turn);
        }
        let Some(meter) = &mut self.meter else { return };
        let (before_wh, doubted) = (meter.register_wh(), meter.is_doubted());
        let verdict = match self.exchange {
            Some(_) => meter.judge_exchanged(reading, turn.now),
            None => meter.judge(reading, turn.now),
        };
        let (is_doubted, frozen) = (meter.is_doubted(), meter.take_frozen());
        if is_doubted != doubted && self.session.is_none() {
            turn.command(Command::PaceMeter(self.plan.id.clone(), self.pace()));
        }
        if is_doubted && !doubted {
            self.tell_doubt(reading, before_wh, turn);
        }
        if frozen {
            self.tell_frozen(before_wh, turn);
        }
        // A reading that is not believed tells nothing of what flowed while no daemon ran.
        let first = self.unread_since_start;
        self.unread_since_start &= !verdict.is_believed();
        match verdict {
            Verdict::Commissioned => self.commission(turn),
            Verdict::Believed { gap } => self.post(before_wh, first, gap, turn),
            Verdict::BelievedLate => {
                if let Some(session) = &mut self.session {
                    session.estimated = true;
                }
                self.post(before_wh, first, None, turn);
                let station = self.plan.id.clone();
                turn.command(Command::Notify(Notice::MeterImplausible { station }));
            }
            Verdict::Replaced => self.replace_meter(reading.energy_wh, turn),
            Verdict::Returned { old_wh } => self.take_back(old_wh, reading.energy_wh, turn),
            Verdict::NoRegister | Verdict::Held => {}
        }
        let believed = verdict.is_believed();
        self.switch.closed_unread &= !believed;
        self.answer_exchange(before_wh, believed, turn);
        self.record_serial(turn);
        let register = self.meter.as_ref().and_then(|meter| meter.register_wh());
        self.watch_load(turn.uptime());
        if self.pending.is_some() {
            return self.on_start_register(register.filter(|_| believed), turn);
        }
        self.end_if_due(turn);
        self.watch_run_down(register.filter(|_| believed), reading.power_mw, turn);
        self.open_if_unused(turn);
    }

    /// What is not believed is in the journal once, as long as it lasts.
    fn tell_doubt(&self, reading: &Reading, before_wh: Option<i64>, turn: &mut Turn<'_>) {
        let (Some(shown_wh), Some(believed_wh)) = (reading.energy_wh, before_wh) else { return };
        let station = self.plan.id.clone();
        turn.command(Command::Notify(Notice::MeterDoubted { station, shown_wh, believed_wh }));
    }

    fn tell_frozen(&mut self, register_wh: Option<i64>, turn: &mut Turn<'_>) {
        let Some(register_wh) = register_wh else { return };
        if let Some(session) = &mut self.session {
            session.estimated = true;
        }
        let station = self.plan.id.clone();
        turn.command(Command::Notify(Notice::MeterFrozen { station, register_wh }));
    }

    /// The meter that was taken for another one was the same all along: its account goes on where
    /// it was left, and what it counted meanwhile is posted like any other rise.
    fn take_back(&mut self, old_wh: i64, register: Option<i64>, turn: &mut Turn<'_>) {
        self.replace_meter(Some(old_wh), turn);
        if let (Some(meter), Some(register)) = (&mut self.meter, register) {
            meter.believe(register, turn.now);
        }
        if let Some(session) = &mut self.session {
            session.estimated = true;
        }
        self.post(Some(old_wh), false, None, turn);
    }

    /// Whoever said that the meter was exchanged hears from which register it goes on.
    fn answer_exchange(&mut self, old_wh: Option<i64>, believed: bool, turn: &mut Turn<'_>) {
        let new_wh = self.meter.as_ref().and_then(|meter| meter.register_wh());
        if let Some(new_wh) = new_wh.filter(|_| believed) {
            turn.answer(self.exchange.take(), Answer::MeterReplaced { old_wh, new_wh });
        }
    }

    /// An account opened without a serial number gets it on record as soon as it is known: only
    /// then an exchange while the gateway is away can be told from a jump.
    fn record_serial(&mut self, turn: &mut Turn<'_>) {
        let Some(meter) = &mut self.meter else { return };
        let Some(register) = meter.register_wh().filter(|_| meter.take_unrecorded_serial()) else {
            return;
        };
        self.settle_meter(false, turn);
        self.record_replacement((None, register), register, turn);
    }

    /// A reading came while a start waits for its register.
    fn on_start_register(&mut self, register: Option<i64>, turn: &mut Turn<'_>) {
        if register.is_some() {
            self.complete_start(register, turn);
        } else if let Some(pending) = &mut self.pending {
            pending.retry_at = Some(turn.uptime() + START_READ_AGAIN);
        }
    }

    /// The meter is silent: nothing ends because of it, nothing is known of the load.
    pub(super) fn on_silence(&mut self, turn: &mut Turn<'_>) {
        if let Some(meter) = &mut self.meter {
            meter.lose_power_reading();
        }
        turn.answer(self.exchange.take(), Answer::MeterSilent);
        if let Some(session) = &mut self.session {
            session.on_silence(turn.uptime());
        }
        if let Some(pending) = &mut self.pending {
            pending.retry_at = Some(turn.uptime() + START_READ_AGAIN);
        }
        self.open_if_unused(turn);
        self.end_if_due(turn);
    }

    fn commission(&mut self, turn: &mut Turn<'_>) {
        let Some(meter) = &self.meter else { return };
        let Some(register) = meter.register_wh() else { return };
        turn.record(Fact::MeterCommissioned(MeterChange {
            station: self.plan.id.clone(),
            meter: meter.device.clone(),
            old_serial: None,
            old_register_wh: None,
            new_serial: meter.serial.clone(),
            new_register_wh: register,
        }));
        self.spanned.clear();
        if let Some(session) = &mut self.session {
            session.estimated = true;
        }
    }

    fn post(
        &mut self,
        before_wh: Option<i64>,
        first: bool,
        gap: Option<Duration>,
        turn: &mut Turn<'_>,
    ) {
        let measured = gap.is_some_and(|gap| gap <= MEASURED_GAP) && !first;
        if !self.spanned.is_empty() {
            return self.post_spanning(turn);
        }
        let now_wh = self.meter.as_ref().and_then(|meter| meter.register_wh());
        let step_wh = now_wh.unwrap_or(0) - before_wh.or(now_wh).unwrap_or(0);
        let Some(session) = &mut self.session else {
            return self.post_loose(step_wh, first, turn);
        };
        if !measured {
            session.on_unseen_energy(step_wh, gap, &self.plan);
        }
        let slot = turn.now.wall.slot_start(SLOT);
        let slot_over = session.slot != slot;
        session.slot = if measured { session.slot } else { slot };
        if turn.policy.slots && (slot_over || !measured) {
            self.close_slot(!measured, turn);
        }
        if let Some(session) = &mut self.session {
            session.slot = slot;
        }
    }

    /// A quarter hour that is over goes on record with whatever is written now: one commit carries
    /// those of all stations, and a card is worn once. The last reading was at most a turn of the
    /// bus before the quarter hour ended.
    pub(super) fn close_slot_that_is_over(&mut self, turn: &mut Turn<'_>) {
        let slot = turn.now.wall.slot_start(SLOT);
        let over = self.session.as_ref().is_some_and(|session| session.slot != slot);
        let read = self.meter.as_ref().and_then(|meter| meter.believed_at());
        let gap = read.and_then(|at| elapsed(at, turn.now));
        let measured = gap.is_some_and(|gap| gap <= MEASURED_GAP) && !self.unread_since_start;
        if !(over && measured && self.spanned.is_empty()) {
            return;
        }
        self.close_slot(false, turn);
        if let Some(session) = &mut self.session {
            session.slot = slot;
        }
    }

    /// Energy without a session: collected, and put on record once a day.
    fn post_loose(&mut self, step_wh: i64, first: bool, turn: &mut Turn<'_>) {
        let alarm_wh = turn.policy.unattributed_alarm_wh;
        if let Some(energy_wh) = self.loose.add(step_wh, alarm_wh, turn.uptime()) {
            let station = self.plan.id.clone();
            turn.command(Command::Notify(Notice::Unattributed { station, energy_wh }));
        }
        let since = self.meter.as_ref().and_then(|meter| meter.persisted_at());
        let another_day =
            since.is_some_and(|since| since.wall.slot_start(DAY) != turn.now.wall.slot_start(DAY));
        let run_out = self.residue_of.is_some_and(|(_, until)| until <= turn.uptime());
        if first {
            let cause = match since.is_some() && since == self.epoch_opened {
                true => UnattributedCause::Epoch,
                false => UnattributedCause::GatewayDown,
            };
            self.record_unattributed(Vec::new(), cause, turn);
        } else if another_day || run_out {
            self.post_unattributed(turn);
        }
    }

    /// A difference across a session's boundary: nobody can know whose it is.
    fn post_spanning(&mut self, turn: &mut Turn<'_>) {
        let sessions = std::mem::take(&mut self.spanned);
        self.record_unattributed(sessions, UnattributedCause::MeterSilent, turn);
    }

    /// Moves what is outstanding into the open session's account. Without slots this waits for the
    /// session's end, unless the account must be right before.
    pub(super) fn close_slot(&mut self, estimated: bool, turn: &mut Turn<'_>) {
        let (Some(meter), Some(session)) = (&mut self.meter, &mut self.session) else { return };
        let Some((from_wh, to_wh)) = meter.outstanding() else {
            return meter.settle(turn.now);
        };
        session.posted_wh += to_wh - from_wh;
        let began = meter.persisted_at().filter(|_| estimated);
        let slot = began.map_or(session.slot, |at| at.wall.slot_start(SLOT));
        let (since, until) = (began.map(|at| at.wall), began.map(|_| turn.now.wall));
        meter.settle(turn.now);
        let session = session.start.session;
        turn.record(Fact::SessionSlot { session, slot, from_wh, to_wh, estimated, since, until });
    }

    /// Records what flowed without a session, where anything did; right after a session's end it is
    /// what the machine still drew.
    pub(super) fn post_unattributed(&mut self, turn: &mut Turn<'_>) {
        match self.residue_of.take() {
            Some((session, _)) => {
                self.record_unattributed(vec![session], UnattributedCause::Residue, turn);
            }
            None => self.record_unattributed(Vec::new(), UnattributedCause::NoSession, turn),
        }
    }

    fn record_unattributed(
        &mut self,
        sessions: Vec<SessionId>,
        cause: UnattributedCause,
        turn: &mut Turn<'_>,
    ) {
        let Some(meter) = &mut self.meter else { return };
        let Some((from_wh, to_wh)) = meter.outstanding() else {
            meter.settle(turn.now);
            return;
        };
        let since = meter.persisted_at().map_or(turn.now.wall, |at| at.wall);
        let (device, serial) = (meter.device.clone(), meter.serial.clone());
        meter.settle(turn.now);
        turn.record(Fact::Unattributed {
            station: self.plan.id.clone(),
            meter: device,
            serial,
            from_wh,
            to_wh,
            since,
            until: turn.now.wall,
            switch: self.switch.reported.unwrap_or(SwitchPosition::Open),
            sessions,
            cause,
        });
    }

    fn replace_meter(&mut self, register: Option<i64>, turn: &mut Turn<'_>) {
        let Some(register) = register else { return };
        self.settle_meter(true, turn);
        self.spanned.clear();
        let Some(meter) = &mut self.meter else { return };
        let old = meter.register_wh().unwrap_or(register);
        let old_serial = meter.serial.clone();
        self.record_replacement((old_serial, old), register, turn);
        if let Some(meter) = &mut self.meter {
            meter.replace(register, turn.now);
        }
    }

    /// Puts everything up to the believed register on record, whoever it belongs to.
    fn settle_meter(&mut self, estimated: bool, turn: &mut Turn<'_>) {
        if self.session.is_some() {
            self.close_slot(estimated, turn);
        } else {
            self.post_unattributed(turn);
        }
    }

    fn record_replacement(
        &self,
        (old_serial, old_wh): (Option<String>, i64),
        new_wh: i64,
        turn: &mut Turn<'_>,
    ) {
        let Some(meter) = &self.meter else { return };
        turn.record(Fact::MeterReplaced(MeterChange {
            station: self.plan.id.clone(),
            meter: meter.device.clone(),
            old_serial,
            old_register_wh: Some(old_wh),
            new_serial: meter.next_serial(),
            new_register_wh: new_wh,
        }));
    }

    fn watch_load(&mut self, now: Uptime) {
        let Some(session) = &mut self.session else { return };
        let register_wh = self.meter.as_ref().and_then(|meter| meter.register_wh());
        match self.meter.as_ref().and_then(|meter| meter.power_at(now)) {
            Some(Power::Is(power_mw)) => {
                session.on_power(Look { power_mw, register_wh }, &self.plan, now);
            }
            Some(Power::AtMost(most_mw, since)) => {
                session.on_power_bound(most_mw, since, &self.plan, now);
            }
            None => session.on_silence(now),
        }
    }

    /// Ends the session where a rule says so. Only a running one: an end is intended once.
    pub(super) fn end_if_due(&mut self, turn: &mut Turn<'_>) {
        let outstanding = self.meter.as_ref().and_then(|meter| meter.outstanding());
        let Some(session) = self.session.as_ref().filter(|s| s.phase == Phase::Running) else {
            return;
        };
        let energy_wh = session.posted_wh + outstanding.map_or(0, |(from, to)| to - from);
        if let Some(reason) = session.end_due(&self.plan, energy_wh, turn.now.uptime) {
            self.begin_end(reason, turn);
        }
    }

    /// After the switch opened: the register counts once power is zero or has had its time.
    pub(super) fn watch_run_down(
        &mut self,
        register: Option<i64>,
        power_mw: Option<i64>,
        turn: &mut Turn<'_>,
    ) {
        let Some(Phase::Ending { since, opened, reason }) = self.session.as_ref().map(|s| s.phase)
        else {
            return;
        };
        let waited = turn.uptime().since(since);
        let off = opened && power_mw.is_some_and(|power| power < OFF_MW);
        let settled = register.is_some() && (off || waited >= RUN_DOWN);
        if settled || waited >= self.end_read_timeout(reason) {
            self.complete_end(register, turn);
        }
    }

    /// How long the end register is waited for. After a power cut the bus boots, too.
    pub(super) fn end_read_timeout(&self, reason: EndReason) -> Duration {
        match reason == EndReason::PowerLoss && self.meter.is_some() {
            true => BOOT_READ_TIMEOUT,
            false => END_READ_TIMEOUT,
        }
    }
}
