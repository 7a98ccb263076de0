//! One request of a bus task: when it may go, what becomes of it, and who hears of that.

use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep_until};

use super::FieldEvent;
use super::bus::{Line, Unit};
use super::console::gap_of_strangers;
use super::error::{At, BusError};
use super::health::{Change, UnitState};
use super::link::{Answer, Question, Request};
use super::queue::Visit;
use super::schedule::Duty;
use crate::core::event::{Reading, SwitchReport};

impl Line {
    /// Asks one unit, and takes note of how it fares. Up to the first byte on the line something
    /// more urgent may come first.
    pub(super) async fn ask(
        &mut self,
        unit: usize,
        point: &str,
        request: Request,
        urgent: bool,
    ) -> Result<Answer, BusError> {
        let planned = &self.plan.units[unit];
        let (timeout, min_gap) = (planned.timeout, planned.profile.min_gap);
        let question = Question { unit: planned.unit, point: point.to_owned(), request, timeout };
        let ready_at = self.link.ready_at(&question).max(self.units[unit].free_at);
        if !self.idle_until(ready_at).await {
            self.deferred = true;
            return Err(BusError::Deferred { at: self.at(unit, point) });
        }
        let outcome = self.link.ask(&question, urgent).await;
        // Neither opening the line nor finding it closed is the device's latency.
        let begun = self.link.asked_at();
        let doubtful = self.link.doubtful_until(question.unit).unwrap_or(begun);
        self.units[unit].free_at = doubtful.max(Instant::now() + min_gap);
        self.note_request(&outcome, begun).await;
        self.note_unit(unit, &outcome, begun).await;
        outcome
    }

    /// Waits until this moment; false as soon as something more urgent is ordered, and while there
    /// is a wait, something as urgent.
    pub(super) async fn idle_until(&mut self, until: Instant) -> bool {
        loop {
            let now = Instant::now();
            let ready = until <= now;
            let lanes = if ready { self.goes_after } else { self.yields_to };
            if self.inbox.orders().waits(lanes, now) {
                self.again_at = until;
                return false;
            }
            if ready {
                return true;
            }
            let due = self.inbox.orders().next_due().filter(|due| *due > now);
            self.pause(due.map_or(until, |due| due.min(until))).await;
        }
    }

    /// Until this moment, or until something is ordered.
    pub(super) async fn pause(&mut self, until: Instant) {
        tokio::select! {
            () = self.inbox.changed() => {}
            () = sleep_until(until) => {}
        }
    }

    pub(super) fn at(&self, unit: usize, point: &str) -> At {
        let bus = self.plan.bus.id.clone();
        At { bus, unit: self.plan.units[unit].unit, point: point.to_owned() }
    }

    /// The bus's own account of a request.
    async fn note_request(&mut self, outcome: &Result<Answer, BusError>, begun: Instant) {
        self.status.progress.fetch_add(1, Ordering::Relaxed);
        let error = outcome.as_ref().err();
        let of_bus = error.filter(|error| error.is_of_bus());
        if of_bus.is_none() {
            let now = Instant::now();
            let answered = !error.is_some_and(BusError::is_silence);
            self.status.bus().tally.count((begun, now), error.is_some(), answered);
        }
        self.note_bus(of_bus).await;
    }

    async fn note_unit(&mut self, unit: usize, outcome: &Result<Answer, BusError>, begun: Instant) {
        let now = Instant::now();
        let error = outcome.as_ref().err();
        if error.is_some_and(BusError::is_of_bus) {
            return;
        }
        let pulse = &mut self.units[unit].pulse;
        let suspect = pulse.state == UnitState::Suspect;
        let silent = error.is_some_and(BusError::is_silence);
        let change = match silent {
            true => pulse.failed(now, &mut self.silence),
            false => pulse.answered(now),
        };
        if silent {
            self.units[unit].forget();
        } else if suspect {
            // What it did not answer is asked again now, not after another interval.
            let plan = &self.plan;
            self.schedule.hurry(|duty| plan.unit_of(duty) == Some(unit), now);
        }
        let busy = matches!(error, Some(BusError::Busy { .. }));
        self.units[unit].busy = if busy { self.units[unit].busy + 1 } else { 0 };
        self.status.units()[unit].count((begun, now), self.units[unit].pulse.state, error);
        self.tell_change(unit, change, error.map(ToString::to_string)).await;
    }

    /// Reports a unit that went down or came back, with what it and the bus have done so far.
    pub(super) async fn tell_change(
        &mut self,
        unit: usize,
        change: Option<Change>,
        error: Option<String>,
    ) {
        let Some(change) = change else { return };
        self.status.units()[unit].state = self.units[unit].pulse.state;
        let planned = &self.plan.units[unit];
        let (bus, device, number) =
            (self.plan.bus.id.clone(), planned.device.clone(), planned.unit);
        let figures = self.status.figures_of(unit);
        match change {
            Change::Down => {
                let last = || self.status.units()[unit].last_error().map(str::to_owned);
                let error = error.or_else(last).unwrap_or_else(|| "does not answer".into());
                self.tell(FieldEvent::UnitDown { bus, unit: number, device, error, figures }).await;
            }
            Change::Back => {
                self.tell(FieldEvent::UnitBack { bus, unit: number, device, figures }).await;
                self.schedule.hurry(|duty| !matches!(duty, Duty::Buttons), Instant::now());
            }
        }
    }

    /// Whether the bus can be reached, and whether its far side was lost meanwhile.
    pub(super) async fn note_bus(&mut self, error: Option<impl std::borrow::Borrow<BusError>>) {
        let bus = self.plan.bus.id.clone();
        if self.link.losses() != self.losses {
            self.losses = self.link.losses();
            self.units.iter_mut().for_each(Unit::forget);
        }
        match error {
            Some(error) => {
                let error = error.borrow().to_string();
                // The reason may change: unplugged, then held by another process.
                let known = self.status.bus().error.replace(error.clone());
                if self.unreachable && known.as_ref() == Some(&error) {
                    return;
                }
                self.unreachable = true;
                self.tell(FieldEvent::BusDown { bus, error }).await;
            }
            None if self.unreachable => {
                self.unreachable = false;
                self.status.bus().error = None;
                self.schedule.hurry(|_| true, Instant::now());
                self.tell(FieldEvent::BusBack { bus }).await;
            }
            None => {}
        }
    }

    /// Tells the daemon. It is the only listener: where it is slow, this bus waits and polls less,
    /// no fact is dropped.
    pub(super) async fn tell(&mut self, event: FieldEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("nobody listens to bus {} any more", self.plan.bus.id);
        }
    }

    pub(super) async fn tell_switch(&mut self, station: usize, report: SwitchReport) {
        if self.deferred {
            return;
        }
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::Switch { station, report }).await;
    }

    pub(super) async fn tell_reading(&mut self, station: usize, reading: Reading) {
        if self.deferred {
            return;
        }
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::Meter { station, reading }).await;
    }

    pub(super) async fn tell_silent(&mut self, station: usize) {
        if self.deferred {
            return;
        }
        let station = self.plan.stations[station].station.clone();
        self.tell(FieldEvent::MeterSilent { station }).await;
    }

    /// A technician's own request.
    pub(super) async fn receive(&mut self, visit: Visit) {
        let (unit, request) = (visit.unit, visit.request.clone());
        let known = self.plan.units.iter().position(|planned| planned.unit == unit);
        let outcome = match known {
            Some(index) => self.ask(index, &request.label(), request, true).await,
            None => self.ask_stranger(unit, request).await,
        };
        if self.deferred {
            return self.inbox.orders().let_wait(visit);
        }
        // A command that gave up waiting is gone.
        let _ = visit.reply.send(outcome);
    }

    /// Asks a unit that no station needs.
    async fn ask_stranger(&mut self, unit: u8, request: Request) -> Result<Answer, BusError> {
        let (point, timeout) = (request.label(), self.plan.timeout_of_other(unit));
        let question = Question { unit, point: point.clone(), request, timeout };
        let ready_at = self.link.ready_at(&question).max(self.strangers_free_at);
        if !self.idle_until(ready_at).await {
            self.deferred = true;
            let bus = self.plan.bus.id.clone();
            return Err(BusError::Deferred { at: At { bus, unit, point } });
        }
        let outcome = self.link.ask(&question, false).await;
        self.note_request(&outcome, self.link.asked_at()).await;
        if !outcome.as_ref().is_err_and(BusError::is_silence) {
            self.strangers_free_at = Instant::now() + gap_of_strangers(&self.plan.bus);
        }
        outcome
    }
}
