//! Opens the store: what is damaged is set aside, what is whole goes on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use crate::core::event::Allowlist;
use crate::core::ids::StationId;
use crate::core::memo::Memo;
use crate::core::time::{Stamp, Uptime, Wall};
use crate::io::store::apply::RESERVE_BYTES;
use crate::io::store::books::{MeterAccount, OpenSession};
use crate::io::store::epoch::Opened;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::exchange::Standing;
use crate::io::store::files::Files;
use crate::io::store::gateway::{self, Counters, Current, Gateway};
use crate::io::store::generation::{self, Generation};
use crate::io::store::ledger::{self, Ledger};
use crate::io::store::lists::ListsByHand;
use crate::io::store::lookup::Lookup;
use crate::io::store::notebook::Notebook;
use crate::io::store::salvage::Remains;
use crate::io::store::worker::{Labour, Worker};
use crate::io::store::{Store, lists, overrides};

/// What the store must know of this start.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// `[storage] path`: the ledger's file. The others lie beside it.
    pub path: &'a Path,
    /// The kernel's boot id.
    pub boot_id: &'a str,
    /// The wall clock now.
    pub wall: Wall,
    /// The boot clock now.
    pub uptime: Uptime,
    /// Whether the wall clock is trustworthy.
    pub synced: bool,
}

/// What the store knows of the time before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Kernel boots of this gateway, this one included.
    pub boot: u32,
    /// The kernel is still the one of the last start: only the daemon was restarted.
    pub same_boot: bool,
    /// Epoch, head, acknowledged, floor.
    pub standing: Standing,
    /// How this epoch began; `None` once that record is pruned.
    pub opened: Option<Opened>,
    /// In order of their ids.
    pub open_sessions: Vec<OpenSession>,
    /// In order of their names.
    pub meters: Vec<MeterAccount>,
    /// The newest moment before this start of which the store knows; an outage counts from it.
    pub newest: Option<Stamp>,
    /// When the newest record was made.
    pub recorded: Option<Stamp>,
    /// Which allowlist decides; `None` where there was none yet.
    pub allowlist: Option<Allowlist>,
    /// When the cloud issued it.
    pub allowlist_issued_at: Option<Wall>,
    /// When the cloud issued its newest acknowledgement in this epoch.
    pub acknowledged_at: Option<Wall>,
    /// When a valid head arrived last.
    pub allowlist_arrived: Option<Stamp>,
    /// Stations taken out of service, with their notes.
    pub out_of_service: Vec<(StationId, Option<String>)>,
    /// The last trustworthy time that was persisted; 1970 where there was none.
    pub clock_floor: Wall,
    /// What sessions remember beyond their records.
    pub memos: Vec<Memo>,
    /// All damaged files that lie there, of this start and earlier ones.
    pub damaged: Vec<PathBuf>,
    /// Damaged files that were set aside at this start.
    pub set_aside: Vec<PathBuf>,
    /// The ledger does not say that this allowlist decides: power went between switch and record.
    allowlist_unrecorded: bool,
}

impl Recovered {
    /// Whether the clock was trustworthy earlier in this boot, and so still is.
    pub fn clock_was_trusted(&self) -> bool {
        self.newest.is_some_and(|newest| newest.boot == self.boot && newest.synced)
    }

    /// The allowlist that decides, where the ledger does not say so yet.
    pub fn unrecorded_allowlist(&self) -> Option<Allowlist> {
        self.allowlist.clone().filter(|_| self.allowlist_unrecorded)
    }
}

impl Store {
    /// Opens the store and starts its threads. Blocks for as long as the checks take.
    pub fn open(opening: &Opening<'_>) -> Result<(Store, Recovered), StoreError> {
        let (opened, recovered) = recover(opening)?;
        let (workers, files, lock) = opened.start(Labour::Threads)?;
        let lists = lists::start(files, workers.gateway.clone(), lock)?;
        Ok((workers.with(lists), recovered))
    }

    /// The same without threads, for a simulation: whoever calls does the work, so that nothing
    /// waits, and takes lists by hand.
    pub fn open_by_hand(
        opening: &Opening<'_>,
    ) -> Result<(Store, ListsByHand, Recovered), StoreError> {
        let (opened, recovered) = recover(opening)?;
        let (workers, files, _) = opened.start(Labour::Callers)?;
        let (handle, lists) = lists::by_hand(files, workers.gateway.clone())?;
        Ok((workers.with(handle), lists, recovered))
    }
}

/// All files, opened and checked.
struct Whole {
    ledger: Ledger,
    gateway: Connection,
    current: Option<(Current, Connection)>,
    files: Files,
    lock: Arc<File>,
}

/// What does the store's work, lists apart.
struct Workers {
    ledger: Worker<Ledger>,
    gateway: Worker<Gateway>,
    lookup: Worker<Lookup>,
}

impl Workers {
    fn with(self, lists: lists::Handle) -> Store {
        let Workers { ledger, gateway, lookup } = self;
        Store { ledger, gateway, lookup, lists }
    }
}

fn recover(opening: &Opening<'_>) -> Result<(Whole, Recovered), StoreError> {
    let files = Files::beside(opening.path);
    files.create_directory()?;
    let lock = Arc::new(files.lock()?);
    let mut salvage = Salvage { files: &files, set_aside: Vec::new() };
    let mut ledger = salvage.open(&files.ledger, Ledger::open)?;
    let aside = salvage.set_aside.first().cloned();
    let (notebook, memos) = Notebook::open(&files.memos());
    ledger.notebook = notebook;
    let connection = salvage.open(&files.gateway, gateway::open)?;
    let newest = ledger.newest()?;
    let counters = count_boot(&connection, opening, newest, &files)?;
    let at = Stamp {
        boot: counters.after.boot,
        uptime: opening.uptime,
        wall: opening.wall,
        synced: opening.synced,
    };
    // The count first: whoever is killed before the epoch's first record is still in this boot.
    let keep = |before: Option<&Counters>, after: &Counters| match before {
        Some(before) if before == after => Ok(()),
        Some(_) | None => gateway::save_counters(&connection, after)
            .map_err(|error| Fault::Sqlite(error).at("write", &files.gateway)),
    };
    keep(counters.before.as_ref(), &counters.after)?;
    open_epoch(&mut ledger, || remains(&files, aside, &counters.after), at)?;
    let standing = ledger.standing()?;
    let epoch = Some(standing.head.epoch.clone());
    let after = Counters { ledger_epoch: epoch, ..counters.after.clone() };
    keep(Some(&counters.after), &after)?;
    let current = salvage.allowlist(&connection)?;
    let out_of_service = gateway::out_of_service(&connection)
        .map_err(|error| Fault::Sqlite(error).at("read", &files.gateway))?;
    let books = ledger.books()?;
    let recorded = ledger.recorded_allowlist()?;
    let seen = counters.before.as_ref().and_then(|before| before.seen);
    let recovered = Recovered {
        boot: at.boot,
        same_boot: counters.before.is_some_and(|before| before.boot_id == opening.boot_id),
        standing,
        opened: ledger.opened()?,
        open_sessions: books.open.into_values().collect(),
        meters: books.meters.into_values().collect(),
        recorded: newest,
        newest: newest.into_iter().chain(seen).max_by_key(|at| (at.boot, at.uptime)),
        allowlist_unrecorded: current.as_ref().is_some_and(|(current, _)| {
            let Allowlist { list, version, digest, .. } = &current.allowlist;
            recorded != Some(ledger::identity(list, *version, digest))
        }),
        allowlist: current.as_ref().map(|(current, _)| current.allowlist.clone()),
        allowlist_issued_at: current.as_ref().map(|(current, _)| current.issued_at),
        acknowledged_at: ledger.acknowledged_at()?,
        allowlist_arrived: current.as_ref().and_then(|(current, _)| current.arrived),
        out_of_service,
        clock_floor: after.clock_floor,
        memos: memos.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default(),
        damaged: files.damaged(),
        set_aside: salvage.set_aside,
    };
    let gateway = connection;
    Ok((Whole { ledger, gateway, current, files, lock }, recovered))
}

impl Whole {
    fn start(self, labour: Labour) -> Result<(Workers, Files, Arc<File>), StoreError> {
        let Whole { ledger, gateway: connection, current, files, lock } = self;
        let blocked = overrides::blocked(&connection)
            .map_err(|error| Fault::Sqlite(error).at("read", &files.gateway))?;
        let (current, list) = current.unzip();
        let path = |current: &Current| files.allowlist(current.generation);
        let looked_up = list.zip(current.as_ref().map(path));
        let lookup = Lookup { current: looked_up, blocked };
        let lookup = Worker::start("store-lookup", lookup, Arc::clone(&lock), labour)?;
        let gateway = Gateway {
            connection,
            files: files.clone(),
            current,
            lookup: lookup.clone(),
            reserve_bytes: RESERVE_BYTES,
        };
        let gateway = Worker::start("store-gateway", gateway, Arc::clone(&lock), labour)?;
        let ledger = Worker::start("store-ledger", ledger, Arc::clone(&lock), labour)?;
        Ok((Workers { ledger, gateway, lookup }, files, lock))
    }
}

struct Salvage<'a> {
    files: &'a Files,
    set_aside: Vec<PathBuf>,
}

impl Salvage<'_> {
    /// Opens a database; a damaged one is set aside and a new one takes its place. Whatever may
    /// pass (no permission, no space, another process) stays an error.
    fn open<T>(
        &mut self,
        path: &Path,
        open: impl Fn(&Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let finished = self.files.finish_setting_aside(path);
        finished.map_err(|error| Fault::Io(error).at("set aside", path))?;
        match open(path) {
            Err(error @ StoreError::Damaged { .. }) => {
                self.set_aside(path, &error)?;
                open(path)
            }
            result => result,
        }
    }

    /// The newest allowlist whose digest verifies, the one that decided last before all others.
    fn allowlist(
        &mut self,
        connection: &Connection,
    ) -> Result<Option<(Current, Connection)>, StoreError> {
        let failed = |fault: Fault| fault.at("read", &self.files.gateway);
        let (decided, arrived) = match gateway::pointer(connection).map_err(failed)? {
            Some((generation, arrived)) => (Some(generation), arrived),
            None => (None, None),
        };
        let mut generations = self.files.generations().map_err(|e| failed(e.into()))?;
        generations.sort_by_key(|generation| Some(*generation) != decided);
        for generation in generations {
            let path = self.files.allowlist(generation);
            let found = match generation::open_verified(&path) {
                Ok(found) => found,
                Err(fault) => {
                    self.set_aside(&path, &fault.at("verify", &path))?;
                    continue;
                }
            };
            if decided != Some(generation) {
                let is_new = decided.is_none();
                let adopted = adopt(connection, generation, arrived, is_new.then_some(&found));
                adopted.map_err(|fault| fault.at("write", &self.files.gateway))?;
            }
            let (allowlist, issued_at) = (found.allowlist, found.issued_at);
            let parts = found.parts;
            let current = Current { generation, allowlist, issued_at, arrived, parts };
            return Ok(Some((current, found.connection)));
        }
        Ok(None)
    }

    fn set_aside(&mut self, path: &Path, error: &StoreError) -> Result<(), StoreError> {
        let aside =
            self.files.set_aside(path).map_err(|error| Fault::Io(error).at("set aside", path))?;
        tracing::error!(%error, kept_as = %aside.display(), "a damaged file was set aside");
        self.set_aside.push(aside);
        Ok(())
    }
}

/// Lets a list decide that did not before. One that was never pointed to, because power went in
/// the middle of its switch, ends local blocks as it would have done then.
fn adopt(
    connection: &Connection,
    generation: u64,
    arrived: Option<Stamp>,
    new: Option<&Generation>,
) -> Result<(), Fault> {
    let transaction = connection.unchecked_transaction()?;
    gateway::save_pointer(&transaction, generation, arrived)?;
    if let Some(new) = new {
        overrides::end_needless(&transaction, &new.connection)?;
    }
    Ok(transaction.commit()?)
}

struct Boot {
    before: Option<Counters>,
    after: Counters,
}

/// Counts this boot. Either file may be new: then the other one knows how far the count was.
fn count_boot(
    connection: &Connection,
    opening: &Opening<'_>,
    newest: Option<Stamp>,
    files: &Files,
) -> Result<Boot, StoreError> {
    let before = gateway::counters(connection).map_err(|fault| fault.at("read", &files.gateway))?;
    let recorded = newest.map_or(0, |newest| newest.boot);
    let after = match &before {
        Some(known) if known.boot_id == opening.boot_id => {
            Counters { boot: known.boot.max(recorded), ..known.clone() }
        }
        Some(known) => Counters {
            boot: known.boot.max(recorded) + 1,
            boot_id: opening.boot_id.to_owned(),
            ..known.clone()
        },
        None => Counters {
            boot: recorded + 1,
            boot_id: opening.boot_id.to_owned(),
            // The count is lost where there was one: seconds since 1970 are beyond what it was.
            connections: newest.map_or(0, |_| ledger::unsigned(opening.wall.0 / 1000)),
            clock_floor: Wall(0),
            seen: None,
            ledger_epoch: None,
        },
    };
    Ok(Boot { before, after })
}

fn open_epoch(
    ledger: &mut Ledger,
    remains: impl FnOnce() -> Remains,
    at: Stamp,
) -> Result<(), StoreError> {
    if ledger.head()?.is_some() {
        return Ok(());
    }
    ledger.open_epoch(&uuid::Uuid::new_v4().to_string(), remains(), at)
}

/// What is left of the ledger before this one: of the one that was set aside at this start, or at
/// one before, after which power went before there was a new epoch.
fn remains(files: &Files, aside: Option<PathBuf>, counters: &Counters) -> Remains {
    let mut remains = match aside {
        Some(aside) => Remains::of(&aside),
        None => {
            let earlier = files.last_aside(&files.ledger).map(|aside| Remains::of(&aside));
            let known = &counters.ledger_epoch;
            let is_the_last =
                |remains: &Remains| known.is_none() || remains.previous.epoch == *known;
            earlier.filter(is_the_last).unwrap_or_default()
        }
    };
    // A file that is gone, or unreadable from its first page, has left its name at least.
    if remains.previous.epoch.is_none() {
        remains.previous.epoch.clone_from(&counters.ledger_epoch);
    }
    remains
}
