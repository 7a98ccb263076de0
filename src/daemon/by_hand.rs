//! What a technician does at the console: requests on a bus, and the test of a station.
//!
//! A request on a bus is answered by the bus itself, so the loop never waits for it. A test is a
//! session on record that this module starts, watches and ends.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::core::event::{Event, Reading, SwitchReport};
use crate::core::ids::{BusId, SessionId, StationId};
use crate::core::view::StationView;
use crate::daemon::event_loop::Daemon;
use crate::daemon::execute::new_session_id;
use crate::io::control::Peer;
use crate::io::modbus::{self, FieldEvent};
use crate::protocol::control::{BusFailure, BusOrder, FailureKind, Reply, StationTest};

/// How long the switch stays closed.
const CLOSED_FOR: Duration = Duration::from_secs(2);
/// By then the switch has been tried three times.
const CLOSE_WITHIN: Duration = Duration::from_secs(18);
/// By then it is open, or the core has declared a fault.
const OPEN_WITHIN: Duration = Duration::from_secs(20);

/// A test under way; one at a time, since one technician looks at one machine.
pub(super) struct Test {
    report: StationTest,
    reply: oneshot::Sender<Reply>,
    ordered: Instant,
    stage: Stage,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closing,
    Closed,
    Opening,
}

impl Daemon {
    /// Hands a request to its bus. Writes that would move power are refused, others are on record
    /// in the journal.
    pub(super) fn on_bus_request(
        &self,
        (bus, unit, order): (BusId, u8, BusOrder),
        peer: Peer,
        reply: oneshot::Sender<Reply>,
    ) {
        if let Some(reason) = modbus::protected(&self.settings.wiring, &bus, unit, &order) {
            let failure = BusFailure { kind: FailureKind::Refused, message: reason };
            let _ = reply.send(Reply::BusFailed(failure));
            return;
        }
        let reads = matches!(
            order,
            BusOrder::ReadCoils { .. }
                | BusOrder::ReadDiscreteInputs { .. }
                | BusOrder::ReadHoldingRegisters { .. }
                | BusOrder::ReadInputRegisters { .. }
        );
        if !reads {
            tracing::warn!(bus = bus.as_str(), unit, "written by hand by {peer}: {order:?}");
        }
        let visitor = self.field.visitor();
        tokio::spawn(async move {
            let outcome = visitor.visit(&bus, unit, &order).await;
            // A command that gave up waiting is gone.
            let _ = reply.send(outcome.map_or_else(Reply::BusFailed, Reply::Bus));
        });
    }

    /// Starts the test of a station that nobody uses.
    pub(super) async fn on_test_request(
        &mut self,
        station: StationId,
        peer: Peer,
        reply: oneshot::Sender<Reply>,
    ) {
        if let Err(why) = self.may_test(&station) {
            let _ = reply.send(Reply::Error(why));
            return;
        }
        let candidate = new_session_id();
        tracing::warn!(station = station.as_str(), "tested by {peer}");
        let ordered = Instant::now();
        self.handle(Event::TechnicianStarts { station: station.clone(), candidate }).await;
        self.test = Some(Test {
            report: blank(station, candidate),
            reply,
            ordered,
            stage: Stage::Closing,
            until: ordered + CLOSE_WITHIN,
        });
    }

    fn may_test(&self, station: &StationId) -> Result<(), String> {
        let Some(view) = self.gateway.station(station, self.clock.now()) else {
            return Err(format!("there is no station {station}; `tapgate status` shows all"));
        };
        if let Some(test) = &self.test {
            return Err(format!("station {} is being tested; wait for it", test.report.station));
        }
        if view.session.is_some() || view.state == crate::core::view::State::Starting {
            return Err(format!("station {station} is in use; test it when its session has ended"));
        }
        Ok(())
    }

    /// When the test goes on by itself.
    pub(super) fn test_due(&self) -> Option<Instant> {
        self.test.as_ref().map(|test| test.until)
    }

    /// What the test wants to know of what the buses tell.
    pub(super) fn watch_test(&mut self, event: &FieldEvent) {
        let Some(test) = &mut self.test else { return };
        match event {
            FieldEvent::Switch { station, report } if *station == test.report.station => {
                test.on_switch(report);
            }
            FieldEvent::Meter { station, reading } if *station == test.report.station => {
                test.on_reading(reading);
            }
            FieldEvent::Switch { .. }
            | FieldEvent::Meter { .. }
            | FieldEvent::MeterSilent { .. }
            | FieldEvent::Button { .. }
            | FieldEvent::UnitDown { .. }
            | FieldEvent::UnitBack { .. }
            | FieldEvent::BusDown { .. }
            | FieldEvent::BusBack { .. } => {}
        }
    }

    /// Takes the test a stage further where that is due.
    pub(super) async fn advance_test(&mut self) {
        let Some(test) = &mut self.test else { return };
        let (station, stage) = (test.report.station.clone(), test.stage);
        let view = self.gateway.station(&station, self.clock.now());
        let session = view.as_ref().and_then(|view| view.session.as_ref());
        let over = session.is_none_or(|session| session.session != test.report.session);
        let starting = view.as_ref().is_some_and(is_starting);
        let late = Instant::now() >= test.until;
        match stage {
            Stage::Closing | Stage::Closed if late => {
                test.ordered = Instant::now();
                (test.stage, test.until) = (Stage::Opening, test.ordered + OPEN_WITHIN);
                self.handle(Event::TechnicianEnds { station }).await;
            }
            Stage::Closing if over && !starting => self.end_test(view.as_ref()),
            Stage::Opening if over || late => self.end_test(view.as_ref()),
            Stage::Closing | Stage::Closed | Stage::Opening => {}
        }
    }

    fn end_test(&mut self, view: Option<&StationView>) {
        let Some(Test { mut report, reply, .. }) = self.test.take() else { return };
        report.metered = self
            .settings
            .wiring
            .stations
            .iter()
            .any(|wired| wired.station == report.station && wired.meter.is_some())
            || view.is_some_and(|view| view.register_wh.is_some());
        report.problems = problems(&report);
        // A command that gave up waiting is gone; the switch is open all the same.
        let _ = reply.send(Reply::StationTest(Box::new(report)));
    }
}

impl Test {
    fn on_switch(&mut self, report: &SwitchReport) {
        let now = Instant::now();
        let took = Some((now - self.ordered).as_millis() as u64);
        match (self.stage, report) {
            (Stage::Closing, SwitchReport::Closed { feedback }) => {
                self.report.closed_after_ms = took;
                self.report.feedback_closed = *feedback;
                (self.stage, self.until) = (Stage::Closed, now + CLOSED_FOR);
            }
            (Stage::Closed, SwitchReport::Closed { feedback }) => {
                self.report.feedback_closed = feedback.or(self.report.feedback_closed);
            }
            (Stage::Opening, SwitchReport::Open { feedback }) => {
                self.report.opened_after_ms = self.report.opened_after_ms.or(took);
                self.report.feedback_open = *feedback;
            }
            (
                Stage::Closing | Stage::Closed | Stage::Opening,
                SwitchReport::Closed { .. } | SwitchReport::Open { .. } | SwitchReport::Unknown,
            ) => {}
        }
    }

    fn on_reading(&mut self, reading: &Reading) {
        if self.stage == Stage::Closed {
            self.report.register_wh = reading.energy_wh.or(self.report.register_wh);
            self.report.power_mw = reading.power_mw.max(self.report.power_mw);
        }
    }
}

fn is_starting(view: &StationView) -> bool {
    view.state == crate::core::view::State::Starting
}

fn blank(station: StationId, session: SessionId) -> StationTest {
    StationTest {
        station,
        session,
        closed_after_ms: None,
        feedback_closed: None,
        opened_after_ms: None,
        feedback_open: None,
        metered: false,
        register_wh: None,
        power_mw: None,
        problems: Vec::new(),
    }
}

fn problems(report: &StationTest) -> Vec<String> {
    let closed = report.closed_after_ms.is_some();
    let found = [
        (
            !closed && report.opened_after_ms.is_none() && report.register_wh.is_none(),
            "the relay did not close; `tapgate status` tells whether its device answers",
        ),
        (
            closed && report.feedback_closed == Some(false),
            "the contactor did not follow; check its coil, its fuse and the feedback wire",
        ),
        (
            closed && report.opened_after_ms.is_none(),
            "the relay was not seen open again; cut the station's fuse and check the relay",
        ),
        (
            report.feedback_open == Some(true),
            "the contactor stays closed; its contacts may be welded: cut the station's fuse",
        ),
        (
            closed && report.metered && report.register_wh.is_none(),
            "the meter was silent; check its wiring and unit id: tapgate meter read",
        ),
    ];
    found.into_iter().filter(|(bad, _)| *bad).map(|(_, problem)| problem.to_owned()).collect()
}
