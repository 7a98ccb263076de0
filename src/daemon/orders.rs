//! Orders of operators and technicians on their way through the core, and marks that outlive it.
//!
//! Whoever orders gets a channel on which the core's answers come. Who may order is checked before;
//! what the answers look like on MQTT or at the console is the business of those who ask.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::core::access::Entry;
use crate::core::badge::Uid;
use crate::core::event::Event;
use crate::core::ids::{SessionId, StationId, UserId};
use crate::core::orders::{Answer, OrderId, OrderedBy, StartOrder, StopOrder, StopTarget};
use crate::daemon::event_loop::Daemon;
use crate::io::store::StoreError;

/// At most two answers come to an order: that a start is on record, and what became of it.
const ANSWERS: usize = 2;

/// The orders that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Orders {
    last: u64,
    waiting: BTreeMap<OrderId, mpsc::Sender<Answer>>,
}

impl Orders {
    fn draw(&mut self) -> (OrderId, mpsc::Receiver<Answer>) {
        // Whoever gave up waiting must not be kept for ever.
        self.waiting.retain(|_, sender| !sender.is_closed());
        self.last += 1;
        let order = OrderId(self.last);
        let (sender, answers) = mpsc::channel(ANSWERS);
        self.waiting.insert(order, sender);
        (order, answers)
    }

    /// Passes an answer of the core on.
    pub(super) fn answer(&mut self, order: OrderId, answer: Answer) {
        tracing::debug!(?order, ?answer, "order");
        if let Some(sender) = self.waiting.get(&order) {
            // Whoever ordered may have gone; the answer changes nothing.
            let _ = sender.try_send(answer);
        }
        if answer.is_last() {
            self.waiting.remove(&order);
        }
    }
}

impl Daemon {
    /// Starts a session without a tap. `candidate` is the id of the session, should it start.
    pub(super) async fn order_start(
        &mut self,
        by: OrderedBy,
        station: StationId,
        candidate: SessionId,
        user: Option<UserId>,
        badge: Option<(Uid, Entry)>,
    ) -> mpsc::Receiver<Answer> {
        let (order, answers) = self.orders.draw();
        let order = StartOrder { order, by, station, candidate, user, badge };
        self.handle(Event::StartOrdered(order)).await;
        answers
    }

    /// Ends a session; `now` also under load.
    pub(super) async fn order_stop(
        &mut self,
        by: OrderedBy,
        target: StopTarget,
        now: bool,
    ) -> mpsc::Receiver<Answer> {
        let (order, answers) = self.orders.draw();
        self.handle(Event::StopOrdered(StopOrder { order, by, target, now })).await;
        answers
    }

    /// A station's meter was exchanged.
    pub(super) async fn order_replacement(&mut self, station: StationId) -> mpsc::Receiver<Answer> {
        let (order, answers) = self.orders.draw();
        self.handle(Event::MeterExchanged { station, order }).await;
        answers
    }

    /// Takes a station out of service, across restarts; a running session goes on to its end.
    /// `Ok(false)` where the site has no such station.
    pub(super) async fn take_out_of_service(
        &mut self,
        station: StationId,
        note: Option<String>,
    ) -> Result<bool, StoreError> {
        if self.gateway.station(&station, self.clock.now()).is_none() {
            return Ok(false);
        }
        self.store.take_out_of_service(station.clone(), note.clone()).await?;
        tracing::warn!(station = station.as_str(), "taken out of service: {note:?}");
        self.handle(Event::TakenOutOfService { station, note }).await;
        Ok(true)
    }

    /// The other way round.
    pub(super) async fn return_to_service(
        &mut self,
        station: StationId,
    ) -> Result<bool, StoreError> {
        if self.gateway.station(&station, self.clock.now()).is_none() {
            return Ok(false);
        }
        self.store.return_to_service(station.clone()).await?;
        tracing::info!(station = station.as_str(), "returned to service");
        self.handle(Event::ReturnedToService { station }).await;
        Ok(true)
    }
}
