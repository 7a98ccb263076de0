//! A broker that drops, duplicates, reorders and dies, and the link to it: the real window over the
//! real ledger.

use std::time::Duration;

use tapgate::io::mqtt::{Standing, Window};
use tapgate::io::store::{
    AckOutcome, Acknowledgement, ApplyOutcome, ListJob, NextTurn, Offer, Origin,
};
use tapgate::protocol::cloud::PartRequest;

use crate::audit::Hash;
use crate::invariant::{Invariant, check, holds};
use crate::random::Random;
use crate::world::{Later, World, at_once};

/// What travels.
#[derive(Clone, Debug)]
pub enum Message {
    Usage { epoch: String, first: u64, previous: Hash, records: Vec<String> },
    Get(Vec<PartRequest>),
    Ack { epoch: String, upto: u64, hash: Hash, issued_at: i64 },
    Head(Vec<u8>),
    Chunk(Vec<u8>),
}

pub struct Broker {
    pub up: bool,
    pub connected: bool,
    pub records_committed: bool,
    window: Window,
    drops: u64,
    doubles: u64,
    delay_ms: u64,
}

impl Broker {
    pub fn new(random: &mut Random) -> Broker {
        Broker {
            up: true,
            connected: false,
            records_committed: false,
            window: Window::new(ACK_TIMEOUT),
            drops: *random.one_of(&[0, 0, 10, 40]),
            doubles: *random.one_of(&[0, 20, 50]),
            delay_ms: *random.one_of(&[20, 300, 3_000]),
        }
    }

    /// A world at peace loses nothing.
    pub fn calm(&mut self) {
        (self.up, self.drops, self.delay_ms) = (true, 0, 50);
    }

    pub fn disconnect(&mut self) {
        self.connected = false;
    }
}

const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to connect.
const RECONNECT_MS: u64 = 2_000;
const MAX_RECORDS: usize = 200;
const MAX_BYTES: usize = 64 * 1024;

impl World {
    pub fn connect(&mut self) {
        let connects = self.broker.up && !self.broker.connected && self.daemon.is_some();
        if !self.broker.connected && !connects {
            return self.later(RECONNECT_MS, Later::Connect);
        }
        let Some(daemon) = self.daemon.as_ref().filter(|_| connects) else { return };
        if at_once(daemon.store.next_connection()).is_err() {
            return self.later(RECONNECT_MS, Later::Connect);
        }
        let standing = self.link_standing();
        self.broker.window.on_connected(&standing);
        self.broker.connected = true;
        for message in self.cloud.retained() {
            self.send(false, message);
        }
        self.send_usage();
    }

    fn link_standing(&self) -> Standing {
        let Some(daemon) = &self.daemon else { return Standing::default() };
        let standing = at_once(daemon.store.standing()).expect("read");
        Standing { epoch: standing.head.epoch, head: standing.head.seq, acked: standing.acked }
    }

    /// The broker is gone, and with it what was on its way.
    pub fn lose_broker(&mut self, for_ms: u64) {
        (self.broker.up, self.broker.connected) = (false, false);
        self.later.retain(|_, later| !matches!(later, Later::Up(_) | Later::Down(_)));
        self.later(for_ms, Later::Mend(crate::world::Trouble::Broker));
        self.later(for_ms + 500, Later::Connect);
    }

    /// Sends what the window lets go.
    pub fn send_usage(&mut self) {
        if !self.broker.connected || self.daemon.is_none() {
            return;
        }
        let now = self.instant();
        self.broker.window.on_timeout(now);
        if std::mem::take(&mut self.broker.records_committed) {
            let standing = self.link_standing();
            self.broker.window.on_standing(&standing);
        }
        while let Some(after) = self.broker.window.next_after() {
            let Some(daemon) = &self.daemon else { return };
            let batch = at_once(daemon.store.batch(after, MAX_RECORDS, MAX_BYTES)).expect("read");
            let Some(batch) = batch.filter(|batch| batch.first == after + 1) else { return };
            let (first, last) = (batch.first, batch.last);
            let (epoch, previous, records) = (batch.epoch, batch.previous, batch.records);
            self.send(true, Message::Usage { epoch, first, previous, records });
            let jitter = self.random.fraction();
            self.broker.window.on_published(last, now, jitter);
        }
    }

    /// Puts a message on its way; how it fares is the broker's whim.
    pub fn send(&mut self, up: bool, message: Message) {
        let copies = 1 + u64::from(self.random.percent(self.broker.doubles));
        for _ in 0..copies {
            if self.random.percent(self.broker.drops) {
                continue;
            }
            let delay = self.random.between(1, self.broker.delay_ms);
            let message = message.clone();
            self.later(delay, if up { Later::Up(message) } else { Later::Down(message) });
        }
    }

    pub fn on_up(&mut self, message: Message) {
        match message {
            Message::Usage { epoch, first, previous, records } => {
                let held = self.cloud.receive(&epoch, first, &previous, &records);
                holds(held, Invariant::CountedOnce);
                self.check_cloud();
                let ack = self.cloud.acknowledge();
                self.send(false, ack);
            }
            Message::Get(requests) => {
                for chunk in self.cloud.chunks(&requests, &mut self.random) {
                    self.send(false, Message::Chunk(chunk));
                }
            }
            Message::Ack { .. } | Message::Head(_) | Message::Chunk(_) => {}
        }
    }

    pub fn on_down(&mut self, message: Message) {
        if self.daemon.is_none() {
            return;
        }
        match message {
            Message::Ack { epoch, upto, hash, issued_at } => {
                self.on_ack(epoch, upto, hash, issued_at);
            }
            Message::Head(payload) => {
                let now = self.now();
                let Some(daemon) = &self.daemon else { return };
                let news = daemon.news.clone();
                let offer = Offer { origin: Origin::Cloud, payload, now, news };
                // As many as the thread has room for; the head comes again.
                let _ = daemon.store.lists().try_send(ListJob::Head(offer));
                self.take_lists();
            }
            Message::Chunk(payload) => {
                let Some(daemon) = &self.daemon else { return };
                let _ = daemon.store.lists().try_send(ListJob::Chunk(payload));
                self.take_lists();
            }
            Message::Usage { .. } | Message::Get(_) => {}
        }
    }

    fn on_ack(&mut self, epoch: String, upto: u64, hash: Hash, issued_at: i64) {
        let (issued_at, at) = (tapgate::core::time::Wall(issued_at), self.now());
        let Some(daemon) = &self.daemon else { return };
        let ack = Acknowledgement { epoch, upto, hash, issued_at, at };
        match at_once(daemon.store.acknowledge(ack)) {
            Ok(AckOutcome::Accepted { acked } | AckOutcome::Gap { acked }) => {
                let now = self.instant();
                self.broker.window.on_acknowledged(acked, now);
                self.send_usage();
            }
            Ok(AckOutcome::OtherEpoch | AckOutcome::Older) => {}
            Ok(AckOutcome::HashMismatch | AckOutcome::BeyondHead) => {
                let what = || format!("the cloud's {upto} is another history than the ledger's");
                check(false, Invariant::CountedOnce, what);
            }
            // The disk takes nothing: the link asks again.
            Err(_) => {}
        }
    }

    /// The thread that takes lists, for as long as it has something to do.
    pub fn take_lists(&mut self) {
        loop {
            let now = self.instant();
            let Some(daemon) = &mut self.daemon else { return };
            let next = daemon.lists.turn(now);
            self.hear_of_lists();
            match next {
                NextTurn::Now => {}
                NextTurn::At(at) => {
                    let due = self.time_of_instant(at).saturating_sub(self.time).max(1);
                    self.later.retain(|_, later| !matches!(later, Later::Lists));
                    return self.later(due, Later::Lists);
                }
                NextTurn::WithAJob => return,
            }
        }
    }

    fn hear_of_lists(&mut self) {
        while let Some(news) = self.daemon.as_mut().and_then(|d| d.heard.try_recv().ok()) {
            if self.trace {
                println!("{} {:?}", self.time, news.outcome);
            }
            self.check_list();
            match news.outcome {
                ApplyOutcome::Wanted(requests) => self.send_if_connected(Message::Get(requests)),
                ApplyOutcome::Applied { allowlist, .. } => {
                    if self.dies_now() {
                        return;
                    }
                    self.adopt_list(allowlist);
                }
                ApplyOutcome::Unchanged(_) => {
                    self.handle(tapgate::core::event::Event::AllowlistConfirmed);
                }
                ApplyOutcome::Refused { .. } => {}
            }
        }
    }

    fn send_if_connected(&mut self, message: Message) {
        if self.broker.connected {
            self.send(true, message);
        }
    }

    /// Whether the cloud has everything.
    pub fn link_is_at_rest(&self) -> bool {
        let standing = self.link_standing();
        standing.head == standing.acked && standing.head == self.audit.seq
    }

    /// When the link starts to send again.
    pub fn link_deadline(&self) -> Option<u64> {
        self.broker.window.deadline().map(|at| self.time_of_instant(at))
    }
}
