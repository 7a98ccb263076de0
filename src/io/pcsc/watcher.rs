//! The thread of one present reader: it waits for cards, reads them and reports.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pcsc::{Context, Error, ReaderState, State};
use tracing::debug;

use super::binding::Role;
use super::card::{CardRead, read_uid};
use super::edge::{CardEdges, Edge};
use super::outbox::Outbox;
use super::stop::{Backoff, Stop};
use super::{ReaderEvent, STACK, Token, Trouble, establish};
use crate::core::atr::classify;
use crate::core::badge::Technology;
use crate::core::ids::ReaderId;

/// Longest wait for a card before the thread looks whether it should end or its role changed.
const SLICE: Duration = Duration::from_secs(1);

/// Longest time that reading a card may take: who stands there has put it on again by then. The
/// lister looks once a second.
const CARD_DEADLINE: Duration = Duration::from_secs(2);

/// A driver that is silent for so long does not come back by itself.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// What the lister holds of a reader's thread.
#[derive(Debug)]
pub(super) struct Watcher {
    orders: Arc<Orders>,
    generation: u64,
    thread: JoinHandle<()>,
}

/// What the lister wants of the thread.
#[derive(Debug)]
struct Orders {
    role: Mutex<Role>,
    retired: AtomicBool,
    reading: Mutex<Option<Reading>>,
}

/// A card that is being read: a driver may take its time or never answer.
#[derive(Debug)]
struct Reading {
    since: Instant,
    reader: ReaderId,
    technology: Technology,
    stage: Stage,
}

/// How far a reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In time.
    Waiting,
    /// Too late: the card was reported as unreadable, its number counts no more.
    Overdue,
    /// The reader was reported as lost.
    Hung,
}

impl Watcher {
    /// Starts the thread of a reader that pcscd lists under `name`.
    pub(super) fn start(
        name: CString,
        role: Role,
        generation: u64,
        outbox: Arc<Outbox>,
        stop: Arc<Stop>,
        token: Token,
    ) -> std::io::Result<Watcher> {
        let orders = Arc::new(Orders {
            role: Mutex::new(role),
            retired: AtomicBool::new(false),
            reading: Mutex::new(None),
        });
        let watch = Watch {
            name,
            generation,
            orders: orders.clone(),
            outbox,
            stop,
            announced: None,
            backoff: Backoff::new(),
        };
        let run = move || {
            let _token = token;
            watch.run();
        };
        let thread = thread::Builder::new().name("pcsc-reader".into()).stack_size(STACK);
        Ok(Watcher { orders, generation, thread: thread.spawn(run)? })
    }

    /// Tells the thread what its reader is to the config.
    pub(super) fn set_role(&self, role: Role) {
        *self.orders.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }

    /// Speaks for a thread that a driver holds: its card is unreadable, later its reader is lost.
    pub(super) fn keep_deadline(&self, name: &CStr, outbox: &Outbox) {
        let mut reading = self.orders.reading();
        let Some(reading) = reading.as_mut() else { return };
        let Reading { since, reader, technology, stage } = reading;
        match stage {
            Stage::Waiting if since.elapsed() >= CARD_DEADLINE => {
                *stage = Stage::Overdue;
                let event =
                    ReaderEvent::Unreadable { reader: reader.clone(), technology: *technology };
                outbox.card(reader, self.generation, event);
            }
            Stage::Overdue if since.elapsed() >= HANGS_AFTER => {
                *stage = Stage::Hung;
                outbox.lost_name(name, &Trouble::Hung.to_string());
            }
            Stage::Waiting | Stage::Overdue | Stage::Hung => {}
        }
    }

    /// Whether the thread ended, because its reader went away or by a panic.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Orders {
    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watcher {
    /// Tells the thread to end; it does so within a slice, unless a driver holds it.
    fn drop(&mut self) {
        self.orders.retired.store(true, Ordering::Relaxed);
    }
}

/// The thread's own side.
struct Watch {
    name: CString,
    generation: u64,
    orders: Arc<Orders>,
    outbox: Arc<Outbox>,
    stop: Arc<Stop>,
    /// As which reader it was reported as found.
    announced: Option<ReaderId>,
    backoff: Backoff,
}

impl Watch {
    /// Watches until told to end or the reader is gone; after any strange error with a new context.
    fn run(mut self) {
        while !self.is_over() {
            let Err(trouble) = self.watch() else { break };
            debug!(reader = %self.name.to_string_lossy(), %trouble, "reader watch broken off");
            self.withdraw(trouble.to_string());
            if matches!(trouble, Trouble::Gone) || self.stop.rest(self.backoff.after_failure()) {
                break;
            }
        }
        self.withdraw(Trouble::Gone.to_string());
    }

    fn watch(&mut self) -> Result<(), Trouble> {
        let context = establish()?;
        let mut state = ReaderState::new(self.name.clone(), State::UNAWARE);
        let mut card = CardEdges::default();
        while !self.is_over() {
            match context.get_status_change(SLICE, std::slice::from_mut(&mut state)) {
                Ok(()) => {}
                Err(Error::Timeout | Error::Cancelled) => {
                    self.announce();
                    continue;
                }
                Err(error) => return Err(Trouble::on_reader(error)),
            }
            let seen = state.event_state();
            if seen.intersects(State::UNKNOWN | State::IGNORE | State::UNAVAILABLE) {
                return Err(Trouble::Gone);
            }
            let edge = card.observe(seen.contains(State::PRESENT), state.event_count());
            state.sync_current_state();
            self.announce();
            self.on_edge(edge, &context, state.atr())?;
            self.backoff.reset();
        }
        Ok(())
    }

    fn on_edge(&self, edge: Edge, context: &Context, atr: &[u8]) -> Result<(), Trouble> {
        match edge {
            Edge::Nothing => Ok(()),
            Edge::Arrived => self.on_arrival(context, atr),
            Edge::Left => {
                self.on_removal();
                Ok(())
            }
            Edge::Swapped => {
                self.on_removal();
                self.on_arrival(context, atr)
            }
        }
    }

    fn on_arrival(&self, context: &Context, atr: &[u8]) -> Result<(), Trouble> {
        let technology = classify(atr);
        // The role is taken anew: another reader may have made it ambiguous since.
        let (Role::Bound(reader), Some(announced)) = (self.role(), &self.announced) else {
            self.on_unbound_tap(technology);
            return Ok(());
        };
        if reader != *announced {
            self.on_unbound_tap(technology);
            return Ok(());
        }
        *self.orders.reading() = Some(Reading {
            since: Instant::now(),
            reader: reader.clone(),
            technology,
            stage: Stage::Waiting,
        });
        let outcome = read_uid(context, &self.name, &self.stop);
        let stage = self.orders.reading().take().map(|reading| reading.stage);
        let (read, connection) = outcome.map_err(Trouble::on_reader)?;
        match stage {
            Some(Stage::Waiting) | None => {}
            Some(Stage::Overdue) => return Ok(()),
            Some(Stage::Hung) => return Err(Trouble::Hung),
        }
        let event = match read {
            CardRead::Uid(uid) => {
                let read_at = Instant::now();
                ReaderEvent::Presented { reader: reader.clone(), uid, technology, read_at }
            }
            CardRead::Unreadable(why) => {
                debug!(%reader, why, technology = technology.as_str(), "card not readable");
                ReaderEvent::Unreadable { reader: reader.clone(), technology }
            }
        };
        self.say_of_card(&reader, event);
        drop(connection);
        Ok(())
    }

    fn on_unbound_tap(&self, technology: Technology) {
        let name = self.name.to_string_lossy().into_owned();
        if !self.is_over() && !self.outbox.tell(ReaderEvent::UnboundTap { name, technology }) {
            debug!("tap on an unbound reader not reported");
        }
    }

    fn on_removal(&self) {
        if let Some(reader) = &self.announced {
            self.say_of_card(reader, ReaderEvent::Removed { reader: reader.clone() });
        }
    }

    fn say_of_card(&self, reader: &ReaderId, event: ReaderEvent) {
        if !self.is_over() {
            self.outbox.card(reader, self.generation, event);
        }
    }

    /// Reports the reader as found or lost where its role changed.
    fn announce(&mut self) {
        if self.is_over() {
            return;
        }
        let role = self.role();
        let bound = match &role {
            Role::Bound(reader) => Some(reader),
            Role::Unbound | Role::Ambiguous => None,
        };
        if self.announced.is_some() && self.announced.as_ref() != bound {
            self.withdraw("its binding is no longer unique".to_owned());
        }
        if self.announced.is_none()
            && let Some(reader) = bound
            && self.outbox.found(reader, &self.name, self.generation)
        {
            self.announced = Some(reader.clone());
        }
    }

    fn withdraw(&mut self, why: String) {
        if let Some(reader) = self.announced.take() {
            debug!(%reader, why, "reader lost");
            self.outbox.lost(&reader, self.generation, why);
        }
    }

    fn role(&self) -> Role {
        self.orders.role.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_over(&self) -> bool {
        self.orders.retired.load(Ordering::Relaxed) || self.stop.is_requested()
    }
}
