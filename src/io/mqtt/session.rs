//! One connection while it is up: publishes what is due, judges what comes down.

use std::collections::VecDeque;

use rumqttc::{Event, Outgoing, Packet, Publish, SubAck, SubscribeReasonCode};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout_at};

use super::CloudEvent;
use super::backoff::jitter;
use super::connection::{Lost, Requests};
use super::down::{self, Message, Refused};
use super::ledger::{AckOutcome, Ledger, LedgerError, Standing};
use super::link::{Worker, stopped};
use super::sender::fit;
use crate::protocol::cloud::{
    Ack, CommandReply, Down, EventBody, EventKind, EventMessage, MAX_BATCH_RECORDS,
    MAX_PAYLOAD_BYTES, MAX_RETAINED_BYTES, Offline, State,
};

/// Messages handed over that the broker has not confirmed. Mosquitto takes 20 at a time by
/// default, AWS 100.
pub(super) const MAX_UNCONFIRMED: usize = 32;
/// Pause after the ledger could not be read.
const LEDGER_RETRY: Duration = Duration::from_secs(5);
/// Pause after the broker refused the subscription.
const RESUBSCRIBE: Duration = Duration::from_secs(60);
/// Wake-up of a session that waits for nothing; any later moment would do.
const IDLE: Duration = Duration::from_secs(60);

/// What the daemon tells within this time goes out together: a tap tells several things at once,
/// and neither sending them nor the broker's answers may take the processor from it.
const GATHER: Duration = Duration::from_millis(20);

/// A message on its way to the broker.
pub(super) enum Sent {
    /// Goes again after a reconnect.
    Event(EventMessage),
    /// The same.
    Reply(CommandReply),
    /// Records up to this one, again.
    Replay(u64),
    /// Nothing is lost with it: it is in the ledger, or published on every connect.
    Replaceable,
    /// The offline state of a clean stop.
    Farewell,
}

/// Why a session ended.
pub(super) enum Ended {
    Stopped,
    Lost(Lost),
}

pub(super) struct Session<'a, L> {
    pub(super) worker: &'a mut Worker<L>,
    requests: Requests,
    conn: u64,
    nonce: String,
    /// Handed over; they are numbered in this order.
    submitted: VecDeque<Sent>,
    /// Numbered, not confirmed by the broker. PUBACK is flow control, not more.
    unconfirmed: VecDeque<(u16, Sent)>,
    /// When `up/state` was last published, and what it said of the ledger.
    state: Option<(Instant, Standing)>,
    ledger_retry: Option<Instant>,
    resubscribe: Option<Instant>,
    pub(super) checkpoint_due: Instant,
    /// A batch of a replay is on its way.
    pub(super) replaying: bool,
    pub(super) replay_retry: Option<Instant>,
    /// The daemon has not heard of this acknowledgement yet. Only the newest matters, so that a
    /// daemon that is busy does not hold up the draining of a long ledger.
    unreported: Option<u64>,
}

impl<'a, L: Ledger> Session<'a, L> {
    pub(super) fn new(worker: &'a mut Worker<L>, requests: Requests, conn: u64) -> Self {
        Session {
            worker,
            requests,
            conn,
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            submitted: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            state: None,
            ledger_retry: None,
            resubscribe: None,
            checkpoint_due: Instant::now(),
            replaying: false,
            replay_retry: None,
            unreported: None,
        }
    }

    /// Runs until the connection or the link ends.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        connection: JoinHandle<Lost>,
    ) -> Ended {
        self.subscribe();
        self.worker.shared.outbox().on_connected();
        match self.worker.ledger.standing().await {
            Ok(standing) => self.worker.window.on_connected(&standing),
            Err(error) => {
                self.worker.window.on_connected(&self.worker.window.standing());
                self.on_ledger_failed(&error);
            }
        }
        self.worker.emit(CloudEvent::Connected).await;
        let ended = self.serve(&mut events, connection).await;
        self.keep_unconfirmed();
        ended
    }

    async fn serve(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        mut connection: JoinHandle<Lost>,
    ) -> Ended {
        let shared = self.worker.shared.clone();
        let mut stop = self.worker.stop.clone();
        let daemon = self.worker.events.clone();
        loop {
            self.publish_due().await;
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(event).await,
                    None => {
                        let lost = (&mut connection).await;
                        return Ended::Lost(lost.unwrap_or_else(|e| e.to_string().into()));
                    }
                },
                room = daemon.reserve(), if self.unreported.is_some() => {
                    if let (Ok(room), Some(upto)) = (room, self.unreported.take()) {
                        room.send(CloudEvent::Acknowledged { upto });
                    }
                }
                () = gathered(&shared.changed) => {}
                () = sleep_until(self.wake_up()) => {}
                timeout = stopped(&mut stop) => {
                    if let Some(timeout) = timeout {
                        self.say_goodbye(events, &mut connection, Instant::now() + timeout).await;
                    }
                    connection.abort();
                    return Ended::Stopped;
                }
            }
        }
    }

    /// Publishes the last will by itself, so that nobody waits for the broker to notice.
    async fn say_goodbye(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        connection: &mut JoinHandle<Lost>,
        deadline: Instant,
    ) {
        let payload = serde_json::to_vec(&Offline::new(self.conn)).expect("plain JSON");
        self.publish(self.worker.topics.state(), true, payload, Sent::Farewell);
        let is_farewell = |sent: &Sent| matches!(sent, Sent::Farewell);
        while self.submitted.iter().chain(self.unconfirmed.iter().map(|(_, s)| s)).any(is_farewell)
        {
            match timeout_at(deadline, events.recv()).await {
                Ok(Some(event)) => drop(self.on_delivery(&event)),
                Ok(None) | Err(_) => return,
            }
        }
        if self.requests.disconnect() {
            while let Ok(Some(_)) = timeout_at(deadline, events.recv()).await {}
            timeout_at(deadline, connection).await.ok();
        }
    }

    fn keep_unconfirmed(&mut self) {
        let unconfirmed = self.unconfirmed.drain(..).map(|(_, sent)| sent);
        let (mut events, mut replies) = (Vec::new(), Vec::new());
        for sent in unconfirmed.chain(self.submitted.drain(..)) {
            match sent {
                Sent::Event(event) => events.push(event),
                Sent::Reply(reply) => replies.push(reply),
                Sent::Replay(_) | Sent::Replaceable | Sent::Farewell => {}
            }
        }
        let mut outbox = self.worker.shared.outbox();
        outbox.events.put_back(events.into_iter());
        outbox.put_back_replies(replies);
    }

    // What goes up.

    async fn publish_due(&mut self) {
        self.publish_state();
        self.publish_stations_and_reports();
        self.publish_usage().await;
        self.publish_answers().await;
        self.publish_events();
        self.worker.note_standing();
        if self.resubscribe.is_some_and(|at| at <= Instant::now()) {
            self.subscribe();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.submitted.len() + self.unconfirmed.len() < MAX_UNCONFIRMED
    }

    pub(super) fn publish(&mut self, topic: String, retain: bool, payload: Vec<u8>, sent: Sent) {
        let most = if retain { MAX_RETAINED_BYTES } else { MAX_PAYLOAD_BYTES };
        let bytes = payload.len();
        if bytes > most {
            // The broker would break the connection.
            tracing::error!(topic, bytes, most, "a message is too long and is not published");
            return;
        }
        // There is room by `has_room`; if the connection has just ended, events are kept anyway.
        if !self.requests.publish(topic, retain, payload) {
            tracing::debug!("the connection ended before a message was handed over");
        }
        self.submitted.push_back(sent);
    }

    fn subscribe(&mut self) {
        self.resubscribe = None;
        if !self.requests.subscribe(self.worker.topics.subscription()) {
            self.resubscribe = Some(Instant::now() + RESUBSCRIBE);
        }
    }

    /// When the state is due: at once on connect, soon after a change, later for mere counters.
    fn state_due(&self, now: Instant) -> Option<Instant> {
        let timing = &self.worker.timing;
        let Some((published, told)) = &self.state else { return Some(now) };
        let standing = self.worker.window.standing();
        let outbox = self.worker.shared.outbox();
        if outbox.state_wanted {
            Some(now)
        } else if outbox.local_changed || standing.epoch != told.epoch {
            Some(*published + timing.state_pause)
        } else if standing != *told {
            Some(*published + timing.counters_pause)
        } else {
            None
        }
    }

    fn publish_state(&mut self) {
        let now = Instant::now();
        if !self.has_room() || self.state_due(now).is_none_or(|due| due > now) {
            return;
        }
        let standing = self.worker.window.standing();
        let local = {
            let mut outbox = self.worker.shared.outbox();
            outbox.local_changed = false;
            outbox.state_wanted = false;
            outbox.local.clone()
        };
        self.state = Some((now, standing.clone()));
        let state = State {
            conn: self.conn,
            nonce: self.nonce.clone(),
            epoch: standing.epoch,
            head: standing.head,
            acked: standing.acked,
            local,
        };
        let payload = serde_json::to_vec(&state).expect("a state is plain JSON");
        self.publish(self.worker.topics.state(), true, payload, Sent::Replaceable);
    }

    fn publish_stations_and_reports(&mut self) {
        while self.has_room() {
            let Some((station, state)) = self.worker.shared.outbox().next_station() else { break };
            // An empty retained message clears the topic.
            let payload = state.map_or_else(Vec::new, |state| {
                serde_json::to_vec(&state).expect("a station's state is plain JSON")
            });
            self.publish(self.worker.topics.station(&station), true, payload, Sent::Replaceable);
        }
        while self.has_room() {
            let Some(report) = self.worker.shared.outbox().next_report() else { break };
            let payload = serde_json::to_vec(&report).expect("a report is plain JSON");
            self.publish(self.worker.topics.allowlist(), false, payload, Sent::Replaceable);
        }
    }

    fn publish_events(&mut self) {
        while self.has_room() {
            let clock = self.worker.clock.clone();
            let event = self.worker.shared.outbox().events.pop(|| clock.stamp());
            let Some(event) = event else { break };
            let payload = serde_json::to_vec(&event).expect("an event is plain JSON");
            self.publish(self.worker.topics.event(), false, payload, Sent::Event(event));
        }
    }

    async fn publish_usage(&mut self) {
        let now = Instant::now();
        if self.ledger_retry.is_some_and(|at| now < at) {
            return;
        }
        self.ledger_retry = None;
        self.worker.window.on_timeout(now.into_std());
        if let Err(error) = self.send_batches().await {
            self.on_ledger_failed(&error);
        }
    }

    async fn send_batches(&mut self) -> Result<(), LedgerError> {
        let grown = std::mem::take(&mut self.worker.shared.outbox().records_committed);
        if grown {
            let standing = self.worker.ledger.standing().await?;
            if standing.epoch != self.worker.window.standing().epoch {
                self.checkpoint_due = Instant::now();
            }
            self.worker.window.on_standing(&standing);
        }
        while self.has_room() {
            let Some(after) = self.worker.window.next_after() else { break };
            let batch =
                self.worker.ledger.batch(after, MAX_BATCH_RECORDS, MAX_PAYLOAD_BYTES).await?;
            let epoch = self.worker.window.standing().epoch;
            let fitting = batch.filter(|b| b.first == after + 1 && b.epoch == epoch).and_then(fit);
            let Some(batch) = fitting else {
                let reason = format!("record {} of epoch {epoch} is not there", after + 1);
                return Err(LedgerError { operation: "give records", reason });
            };
            let payload = serde_json::to_vec(&batch).expect("a batch is plain JSON");
            self.publish(self.worker.topics.usage(), false, payload, Sent::Replaceable);
            let now = Instant::now().into_std();
            self.worker.window.on_published(batch.last, now, jitter());
        }
        Ok(())
    }

    fn on_ledger_failed(&mut self, error: &LedgerError) {
        tracing::warn!(%error, "the cloud link waits for the ledger");
        self.ledger_retry = Some(Instant::now() + LEDGER_RETRY);
        self.worker.shared.outbox().records_committed = true;
    }

    fn wake_up(&self) -> Instant {
        // While the ledger rests, so does the sending.
        let window = match self.ledger_retry {
            Some(_) => None,
            None => self.worker.window.deadline().map(Instant::from_std),
        };
        let state = self.state_due(Instant::now()).filter(|_| self.has_room());
        [window, state, self.ledger_retry, self.resubscribe]
            .into_iter()
            .chain(self.answers_due())
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + IDLE)
    }

    // What comes down.

    async fn on_event(&mut self, event: Event) {
        if let Some(sent) = self.on_delivery(&event) {
            self.on_confirmed(sent).await;
        }
        match event {
            Event::Incoming(Packet::SubAck(ack)) => self.on_subscribed(&ack),
            Event::Incoming(Packet::Publish(publish)) => self.on_publish(&publish).await,
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }

    /// Follows what this side published: rumqttc numbers messages in the order it got them. Gives
    /// what the broker has taken.
    fn on_delivery(&mut self, event: &Event) -> Option<Sent> {
        match event {
            Event::Outgoing(Outgoing::Publish(id)) => {
                let sent = self.submitted.pop_front();
                self.unconfirmed.extend(sent.map(|sent| (*id, sent)));
                None
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let at = self.unconfirmed.iter().position(|(id, _)| *id == ack.pkid)?;
                self.unconfirmed.remove(at).map(|(_, sent)| sent)
            }
            Event::Incoming(_) | Event::Outgoing(_) => None,
        }
    }

    fn on_subscribed(&mut self, ack: &SubAck) {
        let mut deaf = None;
        if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
            let filter = self.worker.topics.subscription();
            let reason = format!("the broker refuses the subscription {filter}");
            tracing::error!("{reason}; allow this user to read it");
            self.resubscribe = Some(Instant::now() + RESUBSCRIBE);
            deaf = Some(reason);
        }
        self.worker.shared.status().deaf = deaf;
    }

    async fn on_publish(&mut self, publish: &Publish) {
        let read = down::read(&self.worker.topics, &self.worker.keys, publish);
        self.learn_time(&read);
        let event = match read {
            Ok(Message::Ack(ack)) => return self.on_ack(ack).await,
            Ok(Message::AllowlistHead(payload)) => CloudEvent::AllowlistHead(payload),
            Ok(Message::AllowlistPart(payload)) => CloudEvent::AllowlistPart(payload),
            Ok(Message::Command(command)) => {
                CloudEvent::Command { command, nonce: self.nonce.clone() }
            }
            Err(refused) => {
                if let Some(body) = refused.event(&publish.topic) {
                    self.on_refused(body).await;
                }
                let Refused::MalformedHead(why) = refused else { return };
                CloudEvent::MalformedHead { why }
            }
        };
        self.worker.emit(event).await;
    }

    /// What a trusted key says was issued lies in the past: certificates may be judged by it.
    fn learn_time(&self, read: &Result<Message, Refused>) {
        let signed = self.worker.keys.required();
        let issued_at = read.as_ref().ok().filter(|_| signed).and_then(Message::issued_at);
        if let Some(issued_at) = issued_at
            && !self.worker.clock.stamp().contradicts(issued_at)
        {
            self.worker.clock.learn(issued_at);
        }
    }

    /// Tells journal, cloud and daemon of a message that changed nothing, at a bounded rate.
    async fn on_refused(&mut self, body: EventBody) {
        if let EventBody::BadMessage { topic, detail } | EventBody::BadSignature { topic, detail } =
            &body
        {
            let bad = CloudEvent::BadMessage { topic: topic.clone(), why: detail.clone() };
            if self.worker.raise(body.clone()) {
                tracing::warn!(topic, detail, "a message from the cloud is ignored");
                self.worker.emit(bad).await;
            }
        }
    }

    async fn on_ack(&mut self, ack: Ack) {
        if self.worker.clock.stamp().contradicts(ack.issued_at) {
            let topic = self.worker.topics.down(Down::Ack);
            let detail = format!("issued_at {} lies more than 24 h ahead", ack.issued_at);
            return self.on_refused(EventBody::BadMessage { topic, detail }).await;
        }
        let (upto, before) = (ack.upto, self.worker.window.standing().acked);
        let outcome = match self.worker.ledger.acknowledge(ack).await {
            Ok(outcome) => outcome,
            Err(error) => return self.on_ledger_failed(&error),
        };
        let now = Instant::now().into_std();
        match outcome {
            AckOutcome::Accepted { acked } => {
                self.worker.window.on_acknowledged(acked, now);
                self.worker.note_standing();
                self.worker.shared.status().last_ack = Some(self.worker.clock.stamp());
                if acked != before {
                    self.unreported = Some(acked);
                }
            }
            AckOutcome::BelowFloor { upto, floor } => {
                self.worker.window.on_acknowledged(floor - 1, now);
                if self.worker.raise(EventBody::LedgerGap { from: upto + 1, to: floor - 1 }) {
                    self.worker.emit(CloudEvent::LedgerAlarm(EventKind::LedgerGap)).await;
                }
            }
            AckOutcome::Ignored => tracing::debug!(upto, "an outdated acknowledgement is ignored"),
            AckOutcome::Fork => {
                let detail = format!(
                    "the cloud holds record {upto} and this ledger does not: was the disk restored \
                     or cloned?"
                );
                if self.worker.raise(EventBody::LedgerFork { detail: detail.clone() }) {
                    tracing::error!("{detail}");
                    self.worker.emit(CloudEvent::LedgerAlarm(EventKind::LedgerFork)).await;
                }
            }
        }
    }
}

/// Until something changed, and a little longer. Whoever cancels it publishes what is due anyway.
async fn gathered(changed: &Notify) {
    changed.notified().await;
    sleep(GATHER).await;
}
