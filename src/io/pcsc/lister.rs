//! The thread that knows which readers there are: it lists, binds and starts their threads.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pcsc::{Context, Error, PNP_NOTIFICATION, ReaderState, State};
use tracing::{debug, warn};

use super::binding::Role;
use super::outbox::Outbox;
use super::roster::Roster;
use super::stop::{Backoff, Stop};
use super::usb::describe;
use super::watcher::Watcher;
use super::{Ambiguity, ReaderEvent, Token, Trouble, establish};
use crate::config::wiring::{BindBy, ReaderBinding};

/// A new reader is seen within this time even where pcscd's notification is lost (before 2.3.0 an
/// arrival between two waits is).
const ROUND: Duration = Duration::from_secs(1);

/// Shortest round, whatever pcscd notifies: nothing spins.
const SHORTEST_ROUND: Duration = Duration::from_millis(100);

/// Rest after a wait that failed; the next listing tells whether pcscd is gone.
const REST: Duration = Duration::from_millis(250);

/// Room for the names of all readers: 128 bytes each, for more readers than are watched.
const NAMES_MAX: usize = 64 * 128;

/// The lister's state.
pub(super) struct Lister {
    bindings: Vec<ReaderBinding>,
    /// Whether any binding needs more than the name.
    asks_attributes: bool,
    outbox: Arc<Outbox>,
    stop: Arc<Stop>,
    token: Token,
    roster: Roster,
    watchers: BTreeMap<CString, Watcher>,
    generation: u64,
    /// What was reported last of what does not match one to one.
    ambiguities: Vec<Ambiguity>,
    /// What was reported of a pcscd that is not there.
    unavailable: Option<String>,
    over_the_limit: bool,
}

impl Lister {
    pub(super) fn new(
        bindings: Vec<ReaderBinding>,
        outbox: Arc<Outbox>,
        stop: Arc<Stop>,
        token: Token,
    ) -> Self {
        let by_name = |binding: &ReaderBinding| matches!(binding.by, BindBy::Name(_));
        Self {
            asks_attributes: !bindings.iter().all(by_name),
            bindings,
            outbox,
            stop,
            token,
            roster: Roster::default(),
            watchers: BTreeMap::new(),
            generation: 0,
            ambiguities: Vec::new(),
            unavailable: None,
            over_the_limit: false,
        }
    }

    /// Serves until told to end, with a new context after every failure: `is_valid` of the old one
    /// cannot be trusted.
    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new();
        while !self.stop.is_requested() {
            let Err(trouble) = self.serve(&mut backoff) else { break };
            self.forget_readers(&trouble.to_string());
            self.report_unavailable(trouble.to_string());
            self.stop.rest(backoff.after_failure());
        }
    }

    fn serve(&mut self, backoff: &mut Backoff) -> Result<(), Trouble> {
        let context = establish()?;
        let mut notification = ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE);
        while !self.stop.is_requested() {
            let began = Instant::now();
            let names = reader_names(&context)?;
            self.report_back();
            backoff.reset();
            self.update(&context, names);
            let changed = context.get_status_change(ROUND, std::slice::from_mut(&mut notification));
            notification.sync_current_state();
            match changed {
                Ok(()) | Err(Error::Timeout | Error::Cancelled) => {
                    self.stop.rest(SHORTEST_ROUND.saturating_sub(began.elapsed()));
                }
                Err(error) => {
                    debug!(%error, "waiting for readers failed");
                    self.stop.rest(REST);
                }
            }
        }
        Ok(())
    }

    /// Brings threads and roles in line with the readers that are present now.
    fn update(&mut self, context: &Context, names: Vec<CString>) {
        self.reap();
        let attributes = self.asks_attributes;
        self.roster.refresh(names, |name| describe(context, name, attributes));
        let watchlist = self.roster.watchlist(&self.bindings);
        self.report_ambiguities(watchlist.ambiguities);
        self.report_left_out(watchlist.left_out);
        self.retire_absent();
        for (name, role) in watchlist.roles {
            match self.watchers.get(&name) {
                Some(watcher) => watcher.set_role(role),
                None => self.start_watcher(name, role),
            }
        }
        for (name, watcher) in &self.watchers {
            watcher.keep_deadline(name, &self.outbox);
        }
    }

    fn retire_absent(&mut self) {
        let roster = &self.roster;
        for (name, _) in self.watchers.extract_if(.., |name, _| !roster.lists(name)) {
            self.outbox.lost_name(&name, &Trouble::Gone.to_string());
        }
    }

    /// Forgets readers whose thread ended: if still listed, they are new, maybe at another port.
    fn reap(&mut self) {
        let ended = self.watchers.extract_if(.., |_, watcher| watcher.has_ended());
        for (name, _) in ended {
            self.roster.forget(&name);
        }
    }

    fn report_left_out(&mut self, left_out: usize) {
        if left_out > 0 && !self.over_the_limit {
            warn!(left_out, "more readers than can be watched; unplug those that are not needed");
        }
        self.over_the_limit = left_out > 0;
    }

    fn start_watcher(&mut self, name: CString, role: Role) {
        self.generation += 1;
        debug!(reader = %name.to_string_lossy(), ?role, "reader present");
        let watcher = Watcher::start(
            name.clone(),
            role,
            self.generation,
            self.outbox.clone(),
            self.stop.clone(),
            self.token.clone(),
        );
        match watcher {
            Ok(watcher) => {
                self.watchers.insert(name, watcher);
            }
            Err(error) => warn!(%error, "reader not watched: its thread did not start"),
        }
    }

    fn report_ambiguities(&mut self, found: Vec<Ambiguity>) {
        if self.ambiguities != found
            && self.outbox.tell(ReaderEvent::Ambiguous { ambiguities: found.clone() })
        {
            self.ambiguities = found;
        }
    }

    fn report_unavailable(&mut self, message: String) {
        if self.unavailable.as_ref() != Some(&message)
            && self.outbox.tell(ReaderEvent::PcscdUnavailable { message: message.clone() })
        {
            self.unavailable = Some(message);
        }
    }

    fn report_back(&mut self) {
        if self.unavailable.is_some() && self.outbox.tell(ReaderEvent::PcscdBack) {
            self.unavailable = None;
        }
    }

    fn forget_readers(&mut self, why: &str) {
        for (name, _) in std::mem::take(&mut self.watchers) {
            self.outbox.lost_name(&name, why);
        }
        self.roster.clear();
        self.report_ambiguities(Vec::new());
    }
}

/// The readers that pcscd has now, or why it does not tell and what to try.
pub fn names() -> Result<Vec<String>, String> {
    let listed = establish().and_then(|context| reader_names(&context));
    let names = listed.map_err(|trouble| trouble.to_string())?;
    Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

/// The readers that pcscd lists, in its order.
pub(super) fn reader_names(context: &Context) -> Result<Vec<CString>, Trouble> {
    let mut buffer = [0; NAMES_MAX];
    let names = context.list_readers(&mut buffer).map_err(Trouble::on_service)?;
    Ok(names.map(ToOwned::to_owned).collect())
}
