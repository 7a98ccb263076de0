//! Relays and chargers of one bus: written, read back, and reported as found.

use std::time::Duration;

use tokio::time::Instant;

use super::bus::{Line, StationState};
use super::codec::{self, Number};
use super::error::BusError;
use super::plan::{FeedbackPlan, Spot, SwitchPlan};
use super::points::{BUSY_MAX, BUSY_PAUSE};
use super::queue::Job;
use super::schedule::Duty;
use crate::config::profile::Profile;
use crate::core::event::{Pace, SwitchReport};

/// A switch is written once, and once more where that was not confirmed: all writes are absolute.
const WRITE_ATTEMPTS: u32 = 2;

/// A contactor takes some 20 to 60 ms to follow its relay: its feedback is read this often.
const FEEDBACK_READS: u32 = 6;
const FEEDBACK_PAUSE: Duration = Duration::from_millis(30);

/// The set-point that chargers are given.
const CURRENT_LIMIT: &str = "current_limit";
const ENABLE: &str = "enable";
/// What shows that a charger answers.
const PROOF_OF_LIFE: [&str; 3] = ["vehicle_state", "power", "energy_import"];

impl Line {
    /// Writes a station's switch, reads it back and reports what was found.
    pub(super) async fn set_switch(&mut self, station: usize, closed: bool) {
        self.stations[station].ordered = Some(closed);
        // No reading is about the time before as well as the time after.
        self.units.iter_mut().for_each(|unit| unit.parked = None);
        self.write_and_confirm(station, closed, 0).await;
    }

    /// Goes on with a switch that was written, or whose write failed. Other switches were first.
    pub(super) async fn confirm_switch(
        &mut self,
        station: usize,
        closed: bool,
        written: bool,
        attempts: u32,
    ) {
        if self.stations[station].ordered != Some(closed) {
            return;
        }
        if !written {
            return self.write_and_confirm(station, closed, attempts).await;
        }
        let Some(switch) = self.plan.stations[station].switch.clone() else { return };
        let found = self.position(&switch, Some(closed), true).await;
        if self.deferred {
            return;
        }
        if found == Some(closed) || attempts >= WRITE_ATTEMPTS {
            return self.report_switch(station, found, true).await;
        }
        self.write_and_confirm(station, closed, attempts).await;
    }

    async fn write_and_confirm(&mut self, station: usize, closed: bool, attempts: u32) {
        let Some(switch) = self.plan.stations[station].switch.clone() else { return };
        let attempts = attempts + 1;
        let outcome = self.write_switch(&switch, closed).await;
        let now = Instant::now();
        if std::mem::take(&mut self.deferred) {
            return self.resume_switch(station, closed, false, attempts - 1, self.again_at);
        }
        self.inbox.orders().hold_until = None;
        let what = ["switch", self.plan.stations[station].station.as_str()];
        self.status.units()[switch.unit()].note_outcome(&what, outcome.as_ref().err());
        let again = match outcome {
            Ok(()) => return self.resume_switch(station, closed, true, attempts, now),
            Err(BusError::Busy { .. }) if self.units[switch.unit()].busy < BUSY_MAX => {
                return self.resume_switch(station, closed, false, attempts - 1, now + BUSY_PAUSE);
            }
            Err(error) if error.is_of_bus() => None,
            Err(error) => {
                tracing::debug!("switch not written: {error}");
                Some(self.units[switch.unit()].free_at)
            }
        };
        match again.filter(|_| attempts < WRITE_ATTEMPTS) {
            Some(at) => self.resume_switch(station, closed, false, attempts, at),
            None => self.report_switch(station, None, true).await,
        }
    }

    fn resume_switch(
        &self,
        station: usize,
        closed: bool,
        written: bool,
        attempts: u32,
        at: Instant,
    ) {
        let station = self.plan.stations[station].station.clone();
        let job = Job::Confirm { station, closed, written, attempts };
        self.inbox.orders().resume(job, at);
    }

    /// Reads a station's switch and reports it.
    pub(super) async fn read_switch(&mut self, station: usize) {
        let Some(switch) = self.plan.stations[station].switch.clone() else { return };
        let mut found = None;
        if self.may_ask(switch.unit(), true) && self.prepare(switch.unit(), true).await.is_ok() {
            found = self.position(&switch, self.stations[station].closed, true).await;
        }
        self.report_switch(station, found, true).await;
    }

    /// Reads all switches of a unit and reports them.
    pub(super) async fn read_switches(&mut self, unit: usize) {
        let on_unit: Vec<(usize, SwitchPlan)> = self
            .plan
            .stations
            .iter()
            .enumerate()
            .filter_map(|(index, station)| Some((index, station.switch.clone()?)))
            .filter(|(_, switch)| switch.unit() == unit)
            .collect();
        let ready = self.may_ask(unit, false) && self.prepare(unit, false).await.is_ok();
        let relays: Vec<&str> = on_unit
            .iter()
            .filter_map(|(_, switch)| match switch {
                SwitchPlan::Relay(spot) => Some(spot.point.as_str()),
                SwitchPlan::Charger { .. } => None,
            })
            .collect();
        let values = match ready && !relays.is_empty() {
            true => self.read(unit, &relays, false).await.0,
            false => Default::default(),
        };
        for (station, switch) in &on_unit {
            let found = match switch {
                SwitchPlan::Relay(spot) => values
                    .of(&self.plan.units[unit].profile, &spot.point)
                    .and_then(|(point, raw)| codec::is_on(point, raw)),
                SwitchPlan::Charger { .. } if ready => {
                    self.position(switch, self.stations[*station].closed, false).await
                }
                SwitchPlan::Charger { .. } => None,
            };
            if !self.about_to_be_switched(*station) {
                self.report_switch(*station, found, false).await;
            }
        }
    }

    /// What was read before an order that waits says nothing about the state after it.
    fn about_to_be_switched(&self, station: usize) -> bool {
        self.inbox.orders().switches(&self.plan.stations[station].station)
    }

    /// Reports a switch in the position found, with the contactor feedback where one is wired;
    /// `patient` gives the contactor time to follow.
    pub(super) async fn report_switch(
        &mut self,
        station: usize,
        found: Option<bool>,
        patient: bool,
    ) {
        let here = self.plan.stations[station].switch.is_some();
        if here {
            self.stations[station].closed = found.or(self.stations[station].closed);
        }
        let Some(closed) = found else {
            return self.tell_switch(station, SwitchReport::Unknown).await;
        };
        let feedback = match self.plan.stations[station].feedback.clone() {
            FeedbackPlan::Elsewhere(bus) => {
                let station = self.plan.stations[station].station.clone();
                if let Some(peer) = self.peers.get(&bus) {
                    peer.order(|orders| orders.push(Job::Feedback { station, closed }));
                }
                return;
            }
            FeedbackPlan::None => None,
            FeedbackPlan::Here(spot) => self.feedback(&spot, closed, patient).await,
        };
        let report = match closed {
            true => SwitchReport::Closed { feedback },
            false => SwitchReport::Open { feedback },
        };
        self.tell_switch(station, report).await;
    }

    /// The contactor feedback; with patience, once it shows what is expected or its time is over.
    async fn feedback(&mut self, spot: &Spot, expected: bool, patient: bool) -> Option<bool> {
        let profile = self.plan.units[spot.unit].profile.clone();
        let mut shown = None;
        for _ in 0..if patient { FEEDBACK_READS } else { 1 } {
            if !self.may_ask(spot.unit, false) {
                return None;
            }
            let (values, _) = self.read(spot.unit, &[&spot.point], true).await;
            let read = values.of(&profile, &spot.point);
            shown = read.and_then(|(point, raw)| codec::is_on(point, raw));
            if !patient || shown.is_none() || shown == Some(expected) {
                break;
            }
            if !self.idle_until(Instant::now() + FEEDBACK_PAUSE).await {
                self.deferred = true;
                return None;
            }
        }
        shown
    }

    async fn write_switch(&mut self, switch: &SwitchPlan, closed: bool) -> Result<(), BusError> {
        match switch {
            SwitchPlan::Relay(spot) => {
                self.write(spot.unit, &spot.point, Number::from(i64::from(closed)), true).await
            }
            SwitchPlan::Charger { unit, current_limit_ma } if closed => {
                self.prepare(*unit, true).await?;
                self.write_current_limit(*unit, *current_limit_ma).await?;
                self.write_all(*unit, start_of(&self.plan.units[*unit].profile)).await
            }
            SwitchPlan::Charger { unit, .. } => {
                self.write_all(*unit, stop_of(&self.plan.units[*unit].profile)).await
            }
        }
    }

    async fn write_all(&mut self, unit: usize, writes: Vec<(String, i64)>) -> Result<(), BusError> {
        for (point, value) in writes {
            self.write(unit, &point, Number::from(value), true).await?;
        }
        Ok(())
    }

    async fn write_current_limit(&mut self, unit: usize, ma: u32) -> Result<(), BusError> {
        let profile = self.plan.units[unit].profile.clone();
        let Some(point) = profile.points.get(CURRENT_LIMIT) else { return Ok(()) };
        let milliamperes = Number::from(i64::from(ma));
        let value = match point.unit.as_deref() {
            Some("mA") => milliamperes,
            Some(_) | None => milliamperes.divided_by(1_000).expect("a thousand is not zero"),
        };
        self.write(unit, CURRENT_LIMIT, value, true).await
    }

    /// How a switch stands. `believed` is the answer where the device has nothing to read.
    async fn position(
        &mut self,
        switch: &SwitchPlan,
        believed: Option<bool>,
        urgent: bool,
    ) -> Option<bool> {
        let profile = self.plan.units[switch.unit()].profile.clone();
        match switch {
            SwitchPlan::Relay(spot) => {
                if !profile.points.get(&spot.point).is_some_and(|point| point.readable) {
                    return believed;
                }
                let (values, _) = self.read(spot.unit, &[&spot.point], urgent).await;
                let (point, raw) = values.of(&profile, &spot.point)?;
                codec::is_on(point, raw)
            }
            SwitchPlan::Charger { unit, .. } => {
                self.charger_position(*unit, &profile, believed, urgent).await
            }
        }
    }

    /// A charger is stopped where all that stopping writes reads so, else it is started.
    async fn charger_position(
        &mut self,
        unit: usize,
        profile: &Profile,
        believed: Option<bool>,
        urgent: bool,
    ) -> Option<bool> {
        let shown = |(point, _): &(String, i64)| {
            profile.points.get(point).is_some_and(|point| point.reads_back())
        };
        let stop: Vec<(String, i64)> = stop_of(profile).into_iter().filter(shown).collect();
        if stop.is_empty() {
            // It does not tell. Before it was ever written, it may let current through.
            return self.answers(unit, profile, urgent).await.then_some(believed.unwrap_or(true));
        }
        let names: Vec<&str> = stop.iter().map(|(point, _)| point.as_str()).collect();
        let (values, _) = self.read(unit, &names, urgent).await;
        let mut stopped = true;
        for (name, value) in &stop {
            let (point, raw) = values.of(profile, name)?;
            stopped &= match point.is_yes_or_no() {
                true => codec::is_on(point, raw)? == (*value != 0),
                false => codec::whole(point, raw)? == *value,
            };
        }
        Some(!stopped)
    }

    /// Whether a charger answers at all, where nothing shows its position.
    async fn answers(&mut self, unit: usize, profile: &Profile, urgent: bool) -> bool {
        let readable = |name: &&str| profile.points.get(*name).is_some_and(|point| point.readable);
        let Some(name) = PROOF_OF_LIFE.into_iter().find(readable) else { return true };
        let (values, _) = self.read(unit, &[name], urgent).await;
        values.of(profile, name).is_some()
    }

    /// Writes again what a charger would forget: the current limit of one that is in use, else what
    /// stops it. Never the limit after a stop was ordered, even if that was not confirmed: the
    /// limit may be what stopped it.
    pub(super) async fn refresh_set_point(&mut self, station: usize) {
        let Some(SwitchPlan::Charger { unit, current_limit_ma }) =
            self.plan.stations[station].switch.clone()
        else {
            return;
        };
        let StationState { ordered, closed, pace, .. } = self.stations[station];
        // A charger that cannot be read counts as closed: that alone must not start it.
        let running = ordered == Some(true) || ordered.is_none() && pace != Pace::Idle;
        let in_use = closed == Some(true) && running;
        let stopped = ordered == Some(false) || ordered.is_none() && closed == Some(false);
        if !(in_use || stopped) || !self.may_ask(unit, false) {
            return;
        }
        // A failed refresh is in the unit's health; the next one is soon.
        if self.prepare(unit, false).await.is_ok() {
            drop(match in_use {
                true => self.write_current_limit(unit, current_limit_ma).await,
                false => self.write_all(unit, stop_of(&self.plan.units[unit].profile)).await,
            });
        }
    }

    /// A charger that was lost may have forgotten its set-point.
    pub(super) fn hurry_refresh(&mut self, unit: usize) {
        let plan = &self.plan;
        let concerned = |duty| matches!(duty, Duty::Refresh(_)) && plan.unit_of(duty) == Some(unit);
        self.schedule.hurry(concerned, Instant::now());
    }

    /// Sets a lamp. It is no more than a courtesy: written once, not read back.
    pub(super) async fn set_lamp(&mut self, station: usize, on: bool) {
        let Some(spot) = self.plan.stations[station].lamp.clone() else { return };
        if self.may_ask(spot.unit, true) {
            let value = Number::from(i64::from(on));
            if let Err(error) = self.write(spot.unit, &spot.point, value, true).await {
                tracing::debug!("lamp not set: {error}");
            }
        }
    }
}

/// What starts a charger after its current limit was set.
fn start_of(profile: &Profile) -> Vec<(String, i64)> {
    action(&profile.start).unwrap_or_else(|| match profile.points.contains_key(ENABLE) {
        true => vec![(ENABLE.into(), 1)],
        false => Vec::new(),
    })
}

/// What stops a charger.
fn stop_of(profile: &Profile) -> Vec<(String, i64)> {
    let point = if profile.points.contains_key(ENABLE) { ENABLE } else { CURRENT_LIMIT };
    action(&profile.stop).unwrap_or_else(|| vec![(point.into(), 0)])
}

fn action(writes: &[crate::config::profile::PointWrite]) -> Option<Vec<(String, i64)>> {
    let writes: Vec<_> = writes.iter().map(|write| (write.point.clone(), write.value)).collect();
    (!writes.is_empty()).then_some(writes)
}
