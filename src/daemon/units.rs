//! Units and buses that went down or came back: for journal, cloud and who watches.

use crate::core::ids::{BusId, DeviceId};
use crate::daemon::event_loop::Daemon;
use crate::io::modbus::{FieldCommand, UnitAndBus};
use crate::protocol::cloud::{EventBody, UnitEvent};
use crate::protocol::figures::Figures;
use crate::protocol::watch::Here;

impl Daemon {
    pub(super) fn on_unit_down(
        &self,
        (bus, unit, device): (BusId, u8, DeviceId),
        error: String,
        figures: UnitAndBus,
    ) {
        tracing::warn!(
            bus = bus.as_str(),
            unit,
            "device {device} is down: {error} (unit: {}; bus: {})",
            figures.unit,
            figures.bus
        );
        let event = unit_event((bus, unit, device), Some(error), figures);
        self.send_event(EventBody::UnitDown(Box::new(event)));
    }

    pub(super) fn on_unit_back(&self, unit: (BusId, u8, DeviceId), figures: UnitAndBus) {
        let (bus, number, device) = &unit;
        tracing::info!(
            bus = bus.as_str(),
            unit = number,
            "device {device} is back (unit: {}; bus: {})",
            figures.unit,
            figures.bus
        );
        self.send_event(EventBody::UnitBack(Box::new(unit_event(unit, None, figures))));
        for view in self.gateway.stations(self.clock.now()) {
            self.field.send(FieldCommand::ReadSwitch(view.station));
        }
    }

    pub(super) fn on_bus_down(&mut self, bus: BusId, error: String) {
        let figures = self.figures_of(&bus);
        tracing::warn!(bus = bus.as_str(), "bus is down: {error} ({figures})");
        let told = Here::BusDown { bus: bus.clone(), error: error.clone(), bus_figures: figures };
        self.announce(told);
        for event in self.units_on(&bus, Some(&error), figures) {
            self.send_event(EventBody::UnitDown(Box::new(event)));
        }
        self.watch.note_bus_down(bus, error);
    }

    pub(super) fn on_bus_back(&mut self, bus: &BusId) {
        let figures = self.figures_of(bus);
        tracing::info!(bus = bus.as_str(), "bus is back ({figures})");
        self.announce(Here::BusBack { bus: bus.clone(), bus_figures: figures });
        for event in self.units_on(bus, None, figures) {
            self.send_event(EventBody::UnitBack(Box::new(event)));
        }
        self.watch.note_bus_back(bus);
    }

    fn figures_of(&self, bus: &BusId) -> Figures {
        let found = self.field.buses().into_iter().find(|health| health.bus == *bus);
        found.map(|health| health.figures).unwrap_or_default()
    }

    fn units_on(&self, bus: &BusId, error: Option<&str>, figures: Figures) -> Vec<UnitEvent> {
        let units = self.field.health().into_iter().filter(|unit| unit.bus == *bus);
        let event = |unit: crate::io::modbus::UnitHealth| {
            let both = UnitAndBus { unit: unit.figures, bus: figures };
            unit_event((unit.bus, unit.unit, unit.device), error.map(str::to_owned), both)
        };
        units.map(event).collect()
    }
}

fn unit_event(
    (bus, unit, device): (BusId, u8, DeviceId),
    error: Option<String>,
    figures: UnitAndBus,
) -> UnitEvent {
    let (unit_figures, bus_figures) = (figures.unit, figures.bus);
    UnitEvent { device, bus, unit, error, unit_figures, bus_figures }
}
