//! The link's thread: connects, serves the connection, waits, connects again.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};

use super::backoff::{Backoff, jitter};
use super::clones::{self, Closures};
use super::connection::{Connection, Failed, Identity, Lost, Requests, event_channel};
use super::ledger::Ledger;
use super::outbox::Outbox;
use super::sender::Window;
use super::session::{Ended, Session};
use super::signature::TrustedKeys;
use super::{Clock, CloudEvent, CloudStatus, Timing};
use crate::config::Cloud;
use crate::protocol::cloud::{EventBody, EventMessage, Topics};

/// What the daemon and the link's thread share.
#[derive(Debug)]
pub(super) struct Shared {
    outbox: Mutex<Outbox>,
    status: Mutex<CloudStatus>,
    /// There is something new in the outbox.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn new(outbox: Outbox) -> Shared {
        Shared {
            outbox: Mutex::new(outbox),
            status: Mutex::new(CloudStatus::default()),
            changed: Notify::new(),
        }
    }

    /// Held for a few instructions only, never across a wait.
    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().expect("nothing panics while it holds the outbox")
    }

    pub(super) fn status(&self) -> MutexGuard<'_, CloudStatus> {
        self.status.lock().expect("nothing panics while it holds the status")
    }
}

/// Waits for the end of the link: with the time that a clean stop may take, or `None` where the
/// link was dropped.
pub(super) async fn stopped(stop: &mut watch::Receiver<Option<Duration>>) -> Option<Duration> {
    stop.wait_for(Option::is_some).await.ok().and_then(|timeout| *timeout)
}

/// Everything that outlives a connection.
pub(super) struct Worker<L> {
    pub(super) cloud: Cloud,
    pub(super) gateway_id: String,
    pub(super) topics: Topics,
    pub(super) keys: TrustedKeys,
    pub(super) ledger: L,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timing: Timing,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<CloudEvent>,
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) window: Window,
    pub(super) closures: Closures,
}

impl<L: Ledger> Worker<L> {
    /// Runs until the link is stopped or dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut unused = None;
        let mut stop = self.stop.clone();
        loop {
            let (held, reason) = match self.connect(&mut unused).await {
                Attempt::Stopped => return,
                Attempt::Failed(reason) => {
                    self.closures.on_failed();
                    (None, reason)
                }
                Attempt::Lost { held, lost } => {
                    self.closures.on_lost(lost.closed_by_broker);
                    (Some(held), lost.reason)
                }
            };
            self.on_disconnected(held.is_some(), reason).await;
            tokio::select! {
                () = sleep(backoff.after(held, jitter())) => {}
                _ = stopped(&mut stop) => return,
            }
        }
    }

    /// One connection, from the first packet to the last.
    async fn connect(&mut self, unused: &mut Option<u64>) -> Attempt {
        let conn = match unused.take() {
            Some(conn) => conn,
            None => match self.ledger.next_connection().await {
                Ok(conn) => conn,
                Err(error) => return Attempt::Failed(error.to_string()),
            },
        };
        let identity = Identity { gateway_id: &self.gateway_id, topics: &self.topics, conn };
        let clock = self.clock.clone();
        let mut stop = self.stop.clone();
        let opened = tokio::select! {
            opened = Connection::open(&self.cloud, &identity, clock, &self.timing) => opened,
            _ = stopped(&mut stop) => return Attempt::Stopped,
        };
        match opened {
            Ok((requests, connection)) => self.serve(requests, connection, conn).await,
            Err(Failed { reason, may_have_connected }) => {
                // A number is spent only where the broker may have seen it: failed attempts of a
                // month offline write nothing to the disk.
                *unused = (!may_have_connected).then_some(conn);
                Attempt::Failed(reason)
            }
        }
    }

    async fn serve(&mut self, requests: Requests, connection: Connection, conn: u64) -> Attempt {
        let since = Instant::now();
        {
            let mut status = self.shared.status();
            status.connected_since = Some(self.clock.stamp());
            status.conn = conn;
        }
        tracing::debug!(broker = self.broker(), conn, "connected to the cloud");
        self.suspect_clone().await;
        let (to_session, events) = event_channel();
        let connection = tokio::spawn(connection.run(to_session));
        let abort = connection.abort_handle();
        let ended = Session::new(self, requests, conn).run(events, connection).await;
        abort.abort();
        match ended {
            Ended::Stopped => Attempt::Stopped,
            Ended::Lost(lost) => Attempt::Lost { held: since.elapsed(), lost },
        }
    }

    /// Tells where the broker keeps closing connections and taking the gateway back.
    async fn suspect_clone(&mut self) {
        let Some(times) = self.closures.on_connected(Instant::now().into_std()) else { return };
        let detail = format!(
            "the broker closed {times} connections within {} min although the line was fine: does \
             another client use this gateway's id, such as a clone of its card?",
            clones::WITHIN.as_secs() / 60
        );
        self.shared.status().clone_suspected = Some(self.clock.stamp());
        if self.raise(EventBody::CloneSuspected { detail: detail.clone() }) {
            tracing::error!("{detail}");
            self.emit(CloudEvent::CloneSuspected).await;
        }
    }

    /// Tells once why there is no connection: when it is lost, and when the reason changes.
    async fn on_disconnected(&mut self, was_connected: bool, reason: String) {
        let news = {
            let mut status = self.shared.status();
            (status.connected_since, status.deaf) = (None, None);
            let news = was_connected || status.last_error.as_ref() != Some(&reason);
            status.last_error = Some(reason.clone());
            news
        };
        if news {
            tracing::debug!(reason, "not connected to the cloud");
            self.emit(CloudEvent::Disconnected { reason }).await;
        }
    }

    /// Hands an event to the daemon; waits for it where it is slow, but not when it is stopping.
    pub(super) async fn emit(&self, event: CloudEvent) {
        let mut stop = self.stop.clone();
        tokio::select! {
            _ = self.events.send(event) => {}
            _ = stopped(&mut stop) => {}
        }
    }

    /// Queues an event of the link's own; false where there were too many of its kind.
    pub(super) fn raise(&self, body: EventBody) -> bool {
        let event = EventMessage::new(self.clock.stamp(), body);
        self.shared.outbox().events.push(event, std::time::Instant::now())
    }

    /// Keeps the status in step with the ledger.
    pub(super) fn note_standing(&self) {
        let standing = self.window.standing();
        let mut status = self.shared.status();
        (status.head, status.acked) = (standing.head, standing.acked);
    }

    fn broker(&self) -> String {
        self.cloud.endpoint()
    }
}

/// How an attempt to be connected ended.
enum Attempt {
    Stopped,
    Failed(String),
    Lost { held: Duration, lost: Lost },
}
