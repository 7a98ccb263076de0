//! Badges from PC/SC readers, through pcscd.
//!
//! One thread lists the readers and binds them to the config; each present reader has a thread
//! that waits for cards. Every thread has a context of its own, since pcscd serves one call of a
//! context at a time, and takes a new one after any error that is not about the card: a context
//! that outlived a restart of pcscd still calls itself valid.
//!
//! One [`ReaderEvent`] for each arrival of a card. A card that lay on the reader when its watch
//! began is ignored until it was removed once. No decision is made here; which UIDs count is the
//! core's business.

mod binding;
mod card;
mod direct;
mod edge;
mod feedback;
mod inventory;
mod lister;
mod outbox;
mod roster;
mod slots;
mod stop;
mod usb;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pcsc::{Context, Error, Scope};
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tracing::warn;

use crate::config::wiring::ReaderBinding;
use crate::core::badge::{Technology, Uid};
use crate::core::event::Feedback;
use crate::core::ids::ReaderId;
use feedback::{Lane, Model};
use inventory::Surveyor;
pub use inventory::{Inventory, ListedReader};
use lister::Lister;
pub use lister::names;
use outbox::Outbox;
use stop::Stop;

/// The number in a card's answer to GET DATA; `None` where it is unreadable.
#[cfg(feature = "demo")]
pub fn uid_in(answer: &[u8]) -> Option<Uid> {
    match card::uid_in(answer) {
        card::CardRead::Uid(uid) => Some(uid),
        card::CardRead::Unreadable(_) => None,
    }
}

/// Stack of each thread: libpcsclite and a log line need a fraction of it.
const STACK: usize = 256 * 1024;

/// How long [`Pcsc::stop`] waits for the threads, which look around once a second.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What readers report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderEvent {
    /// A card arrived and gave its UID.
    Presented {
        /// Where.
        reader: ReaderId,
        /// Its number, as the reader gave it.
        uid: Uid,
        /// What its ATR says.
        technology: Technology,
        /// When the UID was known.
        read_at: Instant,
    },
    /// A card arrived and gave no UID of 4, 7 or 10 bytes.
    Unreadable {
        /// Where.
        reader: ReaderId,
        /// What its ATR says.
        technology: Technology,
    },
    /// A card that was reported left.
    Removed {
        /// Where.
        reader: ReaderId,
    },
    /// A reader of the config is watched from now on.
    Found {
        /// Which.
        reader: ReaderId,
        /// Its PC/SC name.
        name: String,
    },
    /// A reader that was found is not watched any more.
    Lost {
        /// Which.
        reader: ReaderId,
        /// What happened and what to try.
        why: String,
    },
    /// A card arrived on a reader that is bound to nothing, or not uniquely. Its UID is not read.
    UnboundTap {
        /// The reader's PC/SC name.
        name: String,
        /// What the card's ATR says.
        technology: Technology,
    },
    /// What does not match one to one has changed; nothing is authorised from these readers.
    Ambiguous {
        /// All that holds now; empty where readers and bindings match again.
        ambiguities: Vec<Ambiguity>,
    },
    /// No reader works, since pcscd does not answer.
    PcscdUnavailable {
        /// Why, and what to try.
        message: String,
    },
    /// pcscd answers again; readers follow as found.
    PcscdBack,
}

/// Two readers that match one binding, or one that matches two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguity {
    /// Which readers of the config it keeps from working.
    pub readers: Vec<ReaderId>,
    /// Names both, and what to try.
    pub message: String,
}

impl ReaderEvent {
    /// Its name for the journal, without what it holds.
    fn kind(&self) -> &'static str {
        match self {
            ReaderEvent::Presented { .. } => "presented",
            ReaderEvent::Unreadable { .. } => "unreadable",
            ReaderEvent::Removed { .. } => "removed",
            ReaderEvent::Found { .. } => "found",
            ReaderEvent::Lost { .. } => "lost",
            ReaderEvent::UnboundTap { .. } => "unbound tap",
            ReaderEvent::Ambiguous { .. } => "ambiguous",
            ReaderEvent::PcscdUnavailable { .. } => "pcscd unavailable",
            ReaderEvent::PcscdBack => "pcscd back",
        }
    }
}

/// Held by every thread, so that [`Pcsc::stop`] knows when the last one ended.
type Token = Arc<()>;

/// The running readers. Dropping it ends all threads within a second, without waiting for them.
#[derive(Debug)]
pub struct Pcsc {
    stop: Arc<Stop>,
    lanes: BTreeMap<ReaderId, Lane>,
    bindings: Arc<[ReaderBinding]>,
    surveyor: Surveyor,
    token: Token,
}

/// Starts to watch the readers that `bindings` describe, and all others for taps that are logged.
///
/// Overflow rule of `events`: a tap waits 250 ms for room and is then dropped with a warning, as
/// the resident taps again; `Found`, `Lost` and the other states are told again later.
pub fn spawn(bindings: Vec<ReaderBinding>, events: Sender<ReaderEvent>) -> Pcsc {
    let stop = Arc::new(Stop::default());
    let token = Token::default();
    let outbox = Arc::new(Outbox::new(events, stop.clone()));
    let lanes = bindings
        .iter()
        .filter_map(|binding| {
            let model = Model::named(binding.feedback.as_deref()?)?;
            let lane = Lane::start(binding.reader.clone(), model, outbox.clone(), token.clone())?;
            Some((binding.reader.clone(), lane))
        })
        .collect();
    let shared: Arc<[ReaderBinding]> = bindings.clone().into();
    let lister = Lister::new(bindings, outbox, stop.clone(), token.clone());
    let thread = thread::Builder::new().name("pcsc-lister".into()).stack_size(STACK);
    if let Err(error) = thread.spawn(move || lister.run()) {
        warn!(%error, "no reader works: the lister's thread did not start; free some memory");
    }
    Pcsc { stop, lanes, bindings: shared, surveyor: Surveyor::default(), token }
}

impl Pcsc {
    /// Shows a feedback on a reader whose model is known, while the card is present. Best effort:
    /// never blocks, drops what comes too fast or too late.
    pub fn show(&self, reader: &ReaderId, feedback: Feedback) {
        if let Some(lane) = self.lanes.get(reader) {
            lane.show(feedback);
        }
    }

    /// Tells a reader that was just found how to behave. Best effort, as [`Pcsc::show`].
    pub fn greet(&self, reader: &ReaderId) {
        if let Some(lane) = self.lanes.get(reader) {
            lane.greet();
        }
    }

    /// All readers that pcscd lists now, and what each driver says of its own. The answer comes
    /// when the slowest driver has answered, never where one hangs.
    pub fn survey(&self) -> oneshot::Receiver<Result<Inventory, String>> {
        self.surveyor.survey(self.bindings.clone())
    }

    /// Ends all threads and waits up to 2 s for them; one that hangs in a driver is left behind.
    pub fn stop(mut self) {
        self.stop.request();
        self.lanes.clear();
        let until = Instant::now() + STOP_PATIENCE;
        while Arc::strong_count(&self.token) > 1 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pcsc {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// Why a watch ends and a new context is needed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("pcscd does not answer ({0}); try: systemctl status pcscd.socket pcscd")]
    Service(Error),
    #[error("pcscd refuses this user ({0}); install its polkit rule and restart polkit and pcscd")]
    Refused(Error),
    #[error("pcscd speaks another protocol version ({0}); upgrade pcscd and libpcsclite1 together")]
    Version(Error),
    #[error("the reader is not listed any more; check its cable and its power")]
    Gone,
    #[error("its driver did not answer for long; unplug the reader and plug it in again")]
    Hung,
}

impl Trouble {
    fn on_service(error: Error) -> Self {
        match error {
            Error::SecurityViolation => Trouble::Refused(error),
            // Not "stopped": libpcsclite reports a version mismatch this way.
            Error::ServiceStopped => Trouble::Version(error),
            error => Trouble::Service(error),
        }
    }

    fn on_reader(error: Error) -> Self {
        match error {
            Error::UnknownReader | Error::ReaderUnavailable | Error::NoReadersAvailable => {
                Trouble::Gone
            }
            error => Trouble::on_service(error),
        }
    }
}

/// A context of its own for the calling thread.
fn establish() -> Result<Context, Trouble> {
    Context::establish(Scope::System).map_err(Trouble::on_service)
}
