//! The link to the cloud: MQTT in a thread of its own, so that no tap ever waits for a broker.
//!
//! The daemon hands over what is to be published without waiting, and gets [`CloudEvent`]s through
//! a bounded channel. Usage is not handed over: the link reads it from the [`Ledger`] and sends it
//! again until the cloud has acknowledged it.

mod answers;
mod backoff;
mod clones;
mod connection;
mod down;
mod events;
mod ledger;
mod line;
mod link;
mod login;
mod outbox;
#[cfg(feature = "demo")]
pub mod outside;
mod packets;
mod probe;
mod sender;
mod session;
mod signature;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::Cloud;
use crate::core::ids::StationId;
use crate::core::time::{Stamp, Wall};
use crate::protocol::cloud::command::Command;
use crate::protocol::cloud::{
    AllowlistReport, CommandReply, EventKind, EventMessage, LocalState, StationState, Topics,
};

pub use ledger::{AckOutcome, Batch, Ledger, LedgerError, Standing};
pub use outbox::Replay;
pub use probe::{Caller, Check, Outcome, probe};
pub use sender::{MAX_ACK_BACKOFF, Window};
pub use signature::{BadSignature, TrustedKeys};
pub(crate) use tls::{believable, built};

use link::{Shared, Worker};
use outbox::Outbox;

/// Events that wait for the daemon: at most this many payloads of 64 KiB. The link waits when it is
/// full; the broker keeps what is retained.
const CLOUD_EVENTS: usize = 16;
/// Threads that look up names; a lookup that hangs must not hold up the next for ever.
const LOOKUPS: usize = 4;

/// What the cloud did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudEvent {
    /// A connection is up.
    Connected,
    /// It is lost, or cannot be made for another reason than before.
    Disconnected {
        /// What happened and what to try.
        reason: String,
    },
    /// The head of an allowlist, verified where keys are set: one JSON object.
    AllowlistHead(Vec<u8>),
    /// What came in place of a head, and why it is none. It is in the journal and an event already.
    MalformedHead {
        /// Without any of its content.
        why: String,
    },
    /// A chunk of an allowlist's part: one JSON object.
    AllowlistPart(Vec<u8>),
    /// A command, verified where keys are set, never a retained one.
    Command {
        /// Its frame is whole.
        command: Command,
        /// The nonce of the connection on which it came.
        nonce: String,
    },
    /// A replay is with the broker, or its records are not there any more.
    ReplayEnded {
        /// The command that wanted it.
        id: String,
        /// Whether all of it went.
        complete: bool,
    },
    /// A message that changed nothing. It is in the journal and an event already.
    BadMessage {
        /// Where it came.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cloud holds the ledger up to here; may go backwards.
    Acknowledged {
        /// The last record that it holds.
        upto: u64,
    },
    /// `ledger_gap` or `ledger_fork`; the event is queued already.
    LedgerAlarm(EventKind),
    /// Another client seems to use this gateway's id; the event is queued already.
    CloneSuspected,
}

/// What `tapgate status` shows of the link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudStatus {
    /// Since when there is a connection; `None` without one.
    pub connected_since: Option<Stamp>,
    /// What went wrong last, even if it is over.
    pub last_error: Option<String>,
    /// Why nothing can be heard although there is a connection.
    pub deaf: Option<String>,
    /// Number of the last connection.
    pub conn: u64,
    /// Last record of the ledger.
    pub head: u64,
    /// Last record that the cloud holds.
    pub acked: u64,
    /// Events that wait for the broker.
    pub events_waiting: u64,
    /// Events dropped since the start.
    pub events_dropped: u64,
    /// When it last looked as if another client used this gateway's id.
    pub clone_suspected: Option<Stamp>,
    /// When the cloud last acknowledged anything, since the start.
    pub last_ack: Option<Stamp>,
    /// Certificates are judged by no earlier time.
    pub clock_floor: Wall,
}

/// The times that the link reads.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn stamp(&self) -> Stamp;

    /// The latest time that is known to have passed; certificates are judged by it while the clock
    /// is not trustworthy.
    fn floor(&self) -> Wall;

    /// A message that the cloud signed was issued at this time, so that it has passed.
    fn learn(&self, passed: Wall);
}

/// How patient the link is. The default is the contract's; tests are in more of a hurry.
#[derive(Clone, Debug)]
pub struct Timing {
    /// MQTT keep-alive.
    pub keep_alive: Duration,
    /// Without an answer to a ping for this long, the connection is dead (contract: 45 s).
    pub silence: Duration,
    /// For name lookup, TCP, TLS and CONNACK together, and for each write; whole seconds.
    pub network: Duration,
    /// Until unacknowledged records are sent again.
    pub ack_timeout: Duration,
    /// Least time between two states (contract: a change shows within 5 s).
    pub state_pause: Duration,
    /// The same for a change of head and acknowledgement only (contract: within 30 s).
    pub counters_pause: Duration,
    /// Between two checkpoints.
    pub checkpoint: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            keep_alive: Duration::from_secs(20),
            silence: Duration::from_secs(42),
            network: Duration::from_secs(20),
            ack_timeout: Duration::from_secs(30),
            state_pause: Duration::from_secs(1),
            counters_pause: Duration::from_secs(20),
            checkpoint: Duration::from_secs(3_600),
        }
    }
}

/// What a link is made of.
pub struct Setup<L> {
    /// `[cloud]`.
    pub cloud: Cloud,
    /// The MQTT identity.
    pub gateway_id: String,
    /// The first state.
    pub local: LocalState,
    /// Stations that are no longer in the config: their retained state is cleared.
    pub removed_stations: Vec<StationId>,
    /// Where usage comes from.
    pub ledger: L,
    /// The times.
    pub clock: Arc<dyn Clock>,
    /// [`Timing::default`] outside of tests.
    pub timing: Timing,
}

/// The daemon's end of the link. No call waits. Dropped without [`stop`](CloudLink::stop), the link
/// ends as if the power were cut, and the broker publishes the last will.
pub struct CloudLink {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    stop: watch::Sender<Option<Duration>>,
    ended: watch::Receiver<()>,
}

/// Starts the link's thread. What is wrong with password, certificates or broker shows later, as
/// [`CloudEvent::Disconnected`]: it is tried again and again.
pub fn spawn<L: Ledger>(setup: Setup<L>) -> io::Result<(CloudLink, mpsc::Receiver<CloudEvent>)> {
    let (events, receiver) = mpsc::channel(CLOUD_EVENTS);
    let (stop, stop_receiver) = watch::channel(None);
    let (ending, ended) = watch::channel(());
    let shared = Arc::new(Shared::new(Outbox::new(setup.local, setup.removed_stations)));
    let worker = Worker {
        topics: Topics::new(&setup.gateway_id),
        keys: TrustedKeys::new(&setup.cloud.trusted_keys, &setup.gateway_id),
        window: sender::Window::new(setup.timing.ack_timeout),
        closures: clones::Closures::default(),
        cloud: setup.cloud,
        gateway_id: setup.gateway_id,
        ledger: setup.ledger,
        clock: setup.clock.clone(),
        timing: setup.timing,
        shared: shared.clone(),
        events,
        stop: stop_receiver,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUPS)
        .build()?;
    std::thread::Builder::new().name("mqtt".into()).spawn(move || {
        runtime.block_on(worker.run());
        // A name lookup may still hang; nobody waits for it.
        runtime.shutdown_background();
        drop(ending);
    })?;
    Ok((CloudLink { shared, clock: setup.clock, stop, ended }, receiver))
}

impl CloudLink {
    /// Replaces the gateway's state; published on every connect and soon after a change.
    pub fn publish_state(&self, local: LocalState) {
        self.shared.outbox().set_local(local);
        self.shared.changed.notify_one();
    }

    /// Replaces a station's state; published on every connect and at once after a change.
    pub fn publish_station(&self, station: StationId, state: StationState) {
        self.shared.outbox().set_station(station, state);
        self.shared.changed.notify_one();
    }

    /// Queues an event; the oldest give way to it. Each kind has its rate limit: false where it was
    /// left out.
    pub fn event(&self, event: EventMessage) -> bool {
        let taken = self.shared.outbox().events.push(event, Instant::now());
        self.shared.changed.notify_one();
        taken
    }

    /// Tells the cloud what became of an allowlist.
    pub fn report_allowlist(&self, report: AllowlistReport) {
        self.shared.outbox().report(report);
        self.shared.changed.notify_one();
    }

    /// Answers a command; kept in memory until the broker has it.
    pub fn reply(&self, reply: CommandReply) {
        self.shared.outbox().reply(reply);
        self.shared.changed.notify_one();
    }

    /// Sends records again; [`CloudEvent::ReplayEnded`] follows. False where too many replays wait.
    pub fn replay(&self, replay: Replay) -> bool {
        let taken = self.shared.outbox().replay(replay);
        self.shared.changed.notify_one();
        taken
    }

    /// Publishes the states of gateway and stations at once, changed or not.
    pub fn report_state(&self) {
        self.shared.outbox().want_state();
        self.shared.changed.notify_one();
    }

    /// The ledger has grown.
    pub fn records_committed(&self) {
        self.shared.outbox().records_committed = true;
        self.shared.changed.notify_one();
    }

    /// The latest time that is known to have passed; certificates and badges are judged by it while
    /// the clock is not trustworthy.
    pub fn clock_floor(&self) -> Wall {
        self.clock.floor()
    }

    /// What came signed another way was issued then.
    pub fn learn_time(&self, issued_at: Wall) {
        self.clock.learn(issued_at);
    }

    /// How the link stands.
    pub fn status(&self) -> CloudStatus {
        let (events_waiting, events_dropped) = {
            let outbox = self.shared.outbox();
            (outbox.events.waiting(), outbox.events.dropped())
        };
        let clock_floor = self.clock_floor();
        let status = self.shared.status().clone();
        CloudStatus { events_waiting, events_dropped, clock_floor, ..status }
    }

    /// Says goodbye to the broker and ends the link, within `timeout`; false where it took longer
    /// and goes on by itself.
    pub async fn stop(&self, timeout: Duration) -> bool {
        // A little is left for the thread to end.
        self.stop.send_replace(Some(timeout.mul_f64(0.9)));
        let mut ended = self.ended.clone();
        tokio::time::timeout(timeout, async { while ended.changed().await.is_ok() {} })
            .await
            .is_ok()
    }
}
