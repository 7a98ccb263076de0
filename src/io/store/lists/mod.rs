//! Takes allowlists, on a thread of its own that lets every other thread go first: judges heads,
//! pulls parts, builds the next list aside in small slices, and has it switched to.
//!
//! What is being taken is not remembered across a restart: the head is retained and comes again,
//! and the parts that were pulled are on disk.

mod by_hand;
mod judge;
mod offers;
mod old;
mod pace;
mod parts;
mod pull;
mod source;
mod taking;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::core::time::{Stamp, Wall};
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::files::Files;
use crate::io::store::gateway::Gateway;
use crate::io::store::worker::Worker;
use crate::protocol::allowlist::{BadMessage, Chunk, Head, Refusal, RefusalReason};
use crate::protocol::cloud::PartRequest;

pub(super) use by_hand::by_hand;
pub use by_hand::{ListsByHand, NextTurn};
use offers::tell;
pub(super) use old::OldList;
pub(super) use pace::Pacer;
use parts::PartFolder;
use taking::{Step, Taking};

/// Heads and chunks that wait: at most a megabyte. Whoever sends one more waits.
const MAX_WAITING: usize = 16;

/// Who offers a list, and wants to hear what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The cloud, by its link.
    Cloud,
    /// A technician's import, by its number.
    Import(u64),
}

/// A head that came.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who offers it.
    pub origin: Origin,
    /// One JSON object; where keys are trusted it is signed by one of them.
    pub payload: Vec<u8>,
    /// When it came.
    pub now: Stamp,
    /// Where the news of it go.
    pub news: mpsc::Sender<ListNews>,
}

/// News of a list that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListNews {
    /// Who offered it.
    pub origin: Origin,
    /// What became of it.
    pub outcome: ApplyOutcome,
}

/// What became of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// These parts are needed, from these chunks on.
    Wanted(Vec<PartRequest>),
    /// This list decides from now on, also after a power cut.
    Applied {
        /// Which.
        allowlist: Allowlist,
        /// When the cloud issued it.
        issued_at: Wall,
        /// Whether there was no list before.
        first: bool,
        /// Badges whose local block ended, because the list has them blocked or not at all.
        unblocked: Vec<Uid>,
    },
    /// It decides already.
    Unchanged(Allowlist),
    /// The list from before goes on deciding.
    Refused {
        /// Of the refused head, where it could be read.
        version: Option<u64>,
        /// Why.
        refusal: Refusal,
        /// Which list decides; `None` where there is none yet.
        current: Option<Allowlist>,
    },
}

/// A list that is being taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its version.
    pub version: u64,
    /// Parts that it has in all.
    pub parts: usize,
    /// Parts that are not whole yet.
    pub missing: usize,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub enum ListJob {
    /// Judge a head.
    Head(Offer),
    /// Take a chunk of a part, as it was published.
    Chunk(Vec<u8>),
    /// End.
    Stop(oneshot::Sender<()>),
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) jobs: mpsc::Sender<ListJob>,
    taken: Arc<Mutex<Option<Taken>>>,
}

impl Handle {
    pub(super) fn taken(&self) -> Option<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the job at hand finish; a list that is being taken goes on at the next start.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.jobs.send(ListJob::Stop(done)).await.is_ok() {
            // An error means that it was stopped by somebody else.
            let _ = stopped.await;
        }
    }
}

/// Starts the thread; it holds the store's `lock` for as long as it runs.
pub(super) fn start(
    files: Files,
    gateway: Worker<Gateway>,
    lock: Arc<std::fs::File>,
) -> Result<Handle, StoreError> {
    let failed =
        |error: std::io::Error| Fault::Io(error).at("start thread", "store-lists".as_ref());
    let (handle, lists) = new(files, gateway)?;
    let run = move || {
        pace::be_nice();
        let done = lists.run();
        drop(lock);
        // Nobody may be waiting for it any more.
        let _ = done.map(|done| done.send(()));
    };
    std::thread::Builder::new().name("store-lists".into()).spawn(run).map_err(failed)?;
    Ok(handle)
}

fn new(files: Files, gateway: Worker<Gateway>) -> Result<(Handle, Lists), StoreError> {
    let (jobs, waiting) = mpsc::channel(MAX_WAITING);
    let taken = Arc::new(Mutex::new(None));
    let failed =
        |error: std::io::Error| Fault::Io(error).at("start thread", "store-lists".as_ref());
    let clock =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let lists = Lists {
        folder: PartFolder::new(files.parts()),
        files,
        gateway,
        jobs: waiting,
        clock,
        taking: None,
        waiting: None,
        refused: None,
        taken: taken.clone(),
    };
    Ok((Handle { jobs, taken }, lists))
}

/// The state of the thread.
struct Lists {
    files: Files,
    folder: PartFolder,
    gateway: Worker<Gateway>,
    jobs: mpsc::Receiver<ListJob>,
    /// Only for waiting with a deadline.
    clock: tokio::runtime::Runtime,
    taking: Option<Taking>,
    /// The cloud's last head, while a technician's import goes first.
    waiting: Option<Offer>,
    /// The last head that was refused for what it is, so that it need not be judged with every
    /// connection.
    refused: Option<(Fingerprint, Refusal)>,
    taken: Arc<Mutex<Option<Taken>>>,
}

/// SHA-256 of a head as it came.
type Fingerprint = [u8; 32];

/// What the thread must know of the gateway's state.
#[derive(Clone, Debug)]
struct Standing {
    current: Option<Allowlist>,
    /// Its file, and the parts it was pulled in.
    file: Option<PathBuf>,
    parts: Vec<String>,
    reserve: u64,
}

impl Lists {
    fn run(mut self) -> Option<oneshot::Sender<()>> {
        loop {
            let job = match self.next_job() {
                Next::Job(job) => Some(job),
                Next::Closed => return None,
                Next::Nothing => None,
            };
            if let Some(done) = self.turn(job, Instant::now()) {
                return Some(done);
            }
        }
    }

    /// Does this job, then a little of what else there is to do.
    fn turn(&mut self, job: Option<ListJob>, now: Instant) -> Option<oneshot::Sender<()>> {
        match job {
            Some(ListJob::Head(offer)) => self.on_head(offer),
            Some(ListJob::Chunk(payload)) => self.on_chunk(&payload, now),
            Some(ListJob::Stop(done)) => return Some(done),
            None => {}
        }
        self.show();
        self.go_on(now);
        if self.taking.is_none()
            && let Some(offer) = self.waiting.take()
        {
            self.on_head(offer);
        }
        self.show();
        None
    }

    /// Lets others see what is being taken.
    fn show(&self) {
        let taken = self.taking.as_ref().map(Taking::taken);
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }

    /// The next job; while there is something else to do, only one that waits already.
    fn next_job(&mut self) -> Next {
        let busy = self.taking.as_ref().is_some_and(Taking::has_work);
        if busy {
            return match self.jobs.try_recv() {
                Ok(job) => Next::Job(job),
                Err(mpsc::error::TryRecvError::Empty) => Next::Nothing,
                Err(mpsc::error::TryRecvError::Disconnected) => Next::Closed,
            };
        }
        let received = match self.taking.as_ref().and_then(Taking::deadline) {
            None => self.jobs.blocking_recv(),
            Some(deadline) => {
                let pause = deadline.saturating_duration_since(Instant::now());
                // A moment more, so that what is due then is due.
                let pause = pause + Duration::from_millis(1);
                let jobs = &mut self.jobs;
                let wait = async { tokio::time::timeout(pause, jobs.recv()).await };
                match self.clock.block_on(wait) {
                    Ok(received) => received,
                    Err(_) => return Next::Nothing,
                }
            }
        };
        received.map_or(Next::Closed, Next::Job)
    }

    fn on_head(&mut self, offer: Offer) {
        let fingerprint: Fingerprint = Sha256::digest(&offer.payload).into();
        if let Some(taking) = self.taking.as_mut().filter(|t| t.fingerprint == fingerprint) {
            return taking.join(&offer);
        }
        let standing = match self.standing() {
            Ok(standing) => standing,
            Err(error) => {
                return tell(&offer, refused(None, storage(&error), None));
            }
        };
        let head = match read(&offer) {
            Ok(head) => head,
            Err(BadMessage(why)) => {
                let refusal = Refusal::new(RefusalReason::BadMessage, why);
                let version = Head::version_of(&offer.payload);
                return tell(&offer, refused(version, refusal, standing.current));
            }
        };
        match self.judge(head, &offer, &standing, fingerprint) {
            Ok(()) => {}
            Err((version, refusal)) => {
                tell(&offer, refused(Some(version), refusal, standing.current));
            }
        }
    }

    /// Confirms the head, or begins to take its list.
    fn judge(
        &mut self,
        head: Head,
        offer: &Offer,
        standing: &Standing,
        fingerprint: Fingerprint,
    ) -> Result<(), (u64, Refusal)> {
        let version = head.version;
        let failed = |refusal| (version, refusal);
        if let Some(current) = &standing.current
            && judge::is_the_same(&head, current).map_err(failed)?
        {
            let now = offer.now;
            // A failure is logged there, and costs the list's age after a restart.
            let _ = self.gateway.run_blocking(move |gateway| gateway.note_arrival(now));
            tell(offer, ApplyOutcome::Unchanged(current.clone()));
            return Ok(());
        }
        if let Some((_, refusal)) = self.refused.as_ref().filter(|r| r.0 == fingerprint) {
            return Err(failed(refusal.clone()));
        }
        if self.taking.as_ref().is_some_and(|taking| taking.outranks(&head, offer.origin)) {
            tracing::debug!(version, "a newer allowlist is being taken already");
            return Ok(());
        }
        if offer.origin == Origin::Cloud && self.taking.as_ref().is_some_and(Taking::is_imported) {
            self.waiting = Some(offer.clone());
            return Ok(());
        }
        let free = self.files.free_bytes();
        let begun = Taking::begin(head, offer, standing, &self.folder, free, fingerprint);
        let taking = begun.map_err(failed)?;
        // One list at a time; what was built of another is overwritten.
        let displaced = self.taking.replace(taking).and_then(|taking| taking.offers.into_cloud());
        if offer.origin != Origin::Cloud && displaced.is_some() {
            self.waiting = displaced;
        }
        Ok(())
    }

    fn on_chunk(&mut self, payload: &[u8], now: Instant) {
        let Some(taking) = &mut self.taking else {
            return tracing::debug!("a chunk of an allowlist that was not asked for");
        };
        let chunk = match Chunk::parse(payload) {
            Ok(chunk) => chunk,
            Err(error) => return tracing::debug!(%error, "a chunk of an allowlist is dropped"),
        };
        let step = taking.on_chunk(&chunk, &self.folder, now);
        self.follow(step);
    }

    /// Asks for what is due and builds a little.
    fn go_on(&mut self, now: Instant) {
        let Some(taking) = &mut self.taking else { return };
        if taking.is_abandoned(now) {
            let why = "its parts do not come; import it again";
            return self.refuse(Refusal::new(RefusalReason::Storage, why));
        }
        if let Some(requests) = taking.requests(now) {
            taking.offers.tell(&ApplyOutcome::Wanted(requests));
        }
        let step = taking.work(&self.files.staging());
        self.follow(step);
    }

    fn follow(&mut self, step: Step) {
        match step {
            Step::GoOn => {}
            Step::Ready => self.switch(),
            Step::Refuse(refusal) => self.refuse(refusal),
            Step::FallBack => self.fall_back(),
        }
    }

    /// The delta does not lead to the list: its whole content does.
    fn fall_back(&mut self) {
        let Some(taking) = self.taking.take() else { return };
        let version = taking.head.version;
        tracing::info!(version, "the delta does not lead to the list; its content is taken");
        let (free, current) = (self.files.free_bytes(), taking.current.clone());
        match taking.with_content(&self.folder, free) {
            Ok(taking) => self.taking = Some(taking),
            Err((refusal, offers)) => offers.tell(&refused(Some(version), refusal, current)),
        }
    }

    /// The next list is built and good: from here on it decides.
    fn switch(&mut self) {
        let Some(taking) = self.taking.take() else { return };
        let (offers, head) = (taking.offers, taking.head);
        let first = taking.current.is_none();
        let (allowlist, issued_at, now) = (allowlist_of(&head), head.issued_at, offers.newest());
        let parts = head.part_names();
        let switched = {
            let (allowlist, parts) = (allowlist.clone(), parts.clone());
            let switch =
                move |gateway: &mut Gateway| gateway.switch(allowlist, issued_at, parts, now);
            self.gateway.run_blocking(switch).and_then(|switched| switched)
        };
        match switched {
            Ok(unblocked) => {
                self.refused = None;
                let names = parts.iter().map(String::as_str).collect();
                if let Err(error) = self.folder.keep_only(&names) {
                    tracing::warn!(%error, "parts of old allowlists cannot be removed");
                }
                let applied = ApplyOutcome::Applied { allowlist, issued_at, first, unblocked };
                offers.tell_applied(applied);
            }
            Err(error) => {
                offers.tell(&refused(Some(head.version), storage(&error), taking.current));
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let Some(taking) = self.taking.take() else { return };
        let version = taking.head.version;
        if !is_passing(&refusal) {
            self.refused = Some((taking.fingerprint, refusal.clone()));
        }
        let outcome = refused(Some(version), refusal, taking.current.clone());
        taking.discard().tell(&outcome);
    }

    fn standing(&self) -> Result<Standing, StoreError> {
        self.gateway.run_blocking(|gateway| Standing {
            current: gateway.current.as_ref().map(|current| current.allowlist.clone()),
            file: gateway.current.as_ref().map(|c| gateway.files.allowlist(c.generation)),
            parts: gateway.current.as_ref().map(|c| c.parts.clone()).unwrap_or_default(),
            reserve: gateway.reserve_bytes,
        })
    }
}

enum Next {
    Job(ListJob),
    /// Nobody is left to give one.
    Closed,
    Nothing,
}

fn read(offer: &Offer) -> Result<Head, BadMessage> {
    let head = Head::parse(&offer.payload)?;
    if offer.now.contradicts(head.issued_at) {
        let why = format!("issued_at {} lies more than 24 h ahead", head.issued_at);
        return Err(BadMessage(why));
    }
    Ok(head)
}

/// A refusal that may not hold the next time.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(refusal.reason, RefusalReason::TooLarge | RefusalReason::Storage)
}

fn refused(version: Option<u64>, refusal: Refusal, current: Option<Allowlist>) -> ApplyOutcome {
    ApplyOutcome::Refused { version, refusal, current }
}

fn storage(error: &StoreError) -> Refusal {
    Refusal::new(RefusalReason::Storage, error.to_string())
}

fn allowlist_of(head: &Head) -> Allowlist {
    Allowlist {
        list: head.list.clone(),
        version: head.version,
        digest: head.digest.clone(),
        count: head.count,
    }
}
