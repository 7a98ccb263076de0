//! What operators and technicians order in the virtual building.

use tapgate::core::access::Entry;
use tapgate::core::badge::Uid;
use tapgate::core::event::Event;
use tapgate::core::ids::StationId;
use tapgate::core::orders::{Answer, OrderId, OrderedBy, StartOrder, StopOrder, StopTarget};

use super::World;

impl World {
    /// An operator or technician wants a session to start.
    pub fn order_start(&mut self, station: &str, by: OrderedBy, user: Option<&str>) {
        let candidate = self.draw_id();
        let (order, user) = (OrderId(u64::from(self.ids)), user.map(Into::into));
        let station = station.into();
        let order = StartOrder { order, by, station, candidate, user, badge: None };
        self.happens(Event::StartOrdered(order));
    }

    /// An operator wants a session to start for a badge.
    pub fn order_start_for(&mut self, station: &str, uid: Uid, entry: Entry) {
        let candidate = self.draw_id();
        let (order, user) = (OrderId(u64::from(self.ids)), Some(entry.user.clone()));
        let (station, by, badge) = (station.into(), OrderedBy::Operator, Some((uid, entry)));
        self.happens(Event::StartOrdered(StartOrder {
            order,
            by,
            station,
            candidate,
            user,
            badge,
        }));
    }

    /// An operator or technician wants what runs there to end.
    pub fn order_stop(&mut self, station: &str, by: OrderedBy, now: bool) {
        let target = StopTarget::Station(station.into());
        self.happens(Event::StopOrdered(StopOrder { order: OrderId(0), by, target, now }));
    }

    /// A technician says that the meter is another one now.
    pub fn exchange_meter(&mut self, station: &str) {
        let station = station.into();
        self.happens(Event::MeterExchanged { station, order: OrderId(0) });
    }

    /// A station is taken out of service: first on disk, then in the core.
    pub fn take_out_of_service(&mut self, station: &str, note: Option<&str>) {
        let (station, note) = (StationId::from(station), note.map(String::from));
        self.disk.out_of_service.push((station.clone(), note.clone()));
        self.happens(Event::TakenOutOfService { station, note });
    }

    pub fn return_to_service(&mut self, station: &str) {
        let station = StationId::from(station);
        self.disk.out_of_service.retain(|(marked, _)| *marked != station);
        self.happens(Event::ReturnedToService { station });
    }

    pub fn last_answer(&self) -> Option<Answer> {
        self.answers.last().copied()
    }
}
