//! The real store at work while every request to the disk is recorded, and what it promised when.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tapgate::core::ids::StationId;
use tapgate::core::ledger::{Fact, Record};
use tapgate::core::memo::Memo;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::identity::Identity;
use tapgate::io::store::{
    AckOutcome, Acknowledgement, ApplyOutcome, KeptReply, ListJob, ListNews, Offer, Opening,
    Origin, Recovered, Settled, Store, StoreError,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::disk::Disk;
use crate::facts::{Offered, TEN};
use crate::log::Op;
use crate::seen::{Beyond, Seen, look};
use crate::wiretap::{self, Recording};

/// The kernel that a site's first part runs under.
pub const FIRST_BOOT: &str = "kernel-1";

/// A folder in memory where there is one: what is tried there need not wear a disk.
pub fn temporary_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a temporary folder")
}

/// `[storage] path` of a store below this folder.
pub fn ledger_below(root: &Path) -> PathBuf {
    root.join("var/tapgate.db")
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub fn open_below(
    root: &Path,
    boot_id: &str,
    wall: Wall,
) -> Result<(Store, Recovered), StoreError> {
    wiretap::install();
    let path = ledger_below(root);
    Store::open(&Opening { path: &path, boot_id, wall, uptime: Uptime(1_000), synced: true })
}

/// What a scenario left: the requests, and which of them had to be safe when.
pub struct Recorded {
    pub base: Disk,
    pub ops: Vec<Op>,
    /// How much was asked for when it was promised, and what.
    pub promises: Vec<(usize, Seen)>,
    /// Files are damaged from the start, and these are the copies that must be kept.
    pub damaged: Vec<PathBuf>,
    /// A list that must be taken in the end, whatever was lost of it.
    pub offered: Option<Offered>,
}

/// Hears of a promise.
type Hear = Box<dyn FnMut(&Seen)>;

/// A site whose store is watched.
pub struct Bench {
    root: PathBuf,
    /// It goes with the bench.
    _folder: Option<TempDir>,
    runtime: Runtime,
    store: Option<Store>,
    beyond: Beyond,
    boot_id: String,
    second: u64,
    recording: Option<Recording>,
    promises: Vec<(usize, Seen)>,
    damaged: Vec<PathBuf>,
    offered: Option<Offered>,
    /// What it held when it was closed.
    last: Option<Seen>,
    hear: Option<Hear>,
}

impl Bench {
    pub fn new() -> Bench {
        let folder = temporary_folder();
        let root = folder.path().canonicalize().expect("it is there");
        Bench { _folder: Some(folder), ..Bench::at(root) }
    }

    pub fn at(root: PathBuf) -> Bench {
        Bench {
            root,
            _folder: None,
            runtime: runtime(),
            store: None,
            beyond: Beyond::default(),
            boot_id: FIRST_BOOT.into(),
            second: 0,
            recording: None,
            promises: Vec::new(),
            damaged: Vec::new(),
            offered: None,
            last: None,
            hear: None,
        }
    }

    /// A store with some history, running.
    pub fn furnished() -> Bench {
        use crate::facts::{badges, begins, commissioned, inline, started};
        let mut bench = Bench::new();
        bench.open();
        bench.commit(vec![started(), commissioned(1, 1_000), commissioned(2, 5_000)]);
        bench.apply(inline(1, &badges(0..20)));
        bench.commit(vec![begins(1, 1, 1_000)]);
        bench.out_of_service("washer-2", Some("belt"));
        bench.next_connection();
        bench
    }

    /// The same disk after the power went now, while nothing was under way.
    pub fn without_power(&self) -> Bench {
        let mut bench = Bench::new();
        let (from, to) = (self.root.join("var"), bench.root.join("var"));
        std::fs::create_dir(&to).expect("a folder");
        for file in std::fs::read_dir(from).expect("the store's folder") {
            let path = file.expect("a file").path();
            std::fs::copy(&path, to.join(name_of(&path))).expect("copied");
        }
        bench.beyond = self.beyond.clone();
        bench.last =
            Some(self.runtime.block_on(look(self.store(), &self.beyond)).expect("it is whole"));
        bench.boot_id = "kernel-2".into();
        bench.second = self.second;
        bench
    }

    pub fn path(&self) -> PathBuf {
        ledger_below(&self.root)
    }

    /// Where nothing is recorded here, somebody else hears of every promise.
    pub fn on_promise(&mut self, hear: impl FnMut(&Seen) + 'static) {
        self.hear = Some(Box::new(hear));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    fn now(&mut self) -> Stamp {
        self.second += 1;
        let (boot, uptime) = (self.beyond.boot, Uptime(1_000 + 1_000 * self.second));
        Stamp { boot, uptime, wall: Wall(TEN + 1_000 * self.second as i64), synced: true }
    }

    /// From here on everything is recorded, and what the running store holds is promised.
    pub fn record(&mut self) {
        self.recording = Some(Recording::start(&self.root));
        self.promise();
    }

    /// The same where the store is closed: what it held last is promised.
    pub fn record_closed(&mut self) {
        self.recording = Some(Recording::start(&self.root));
        self.promises.push((0, self.last.clone().expect("it was closed before")));
    }

    /// The same before a start that nothing is promised of.
    pub fn record_from_nothing(&mut self) {
        self.recording = Some(Recording::start(&self.root));
    }

    /// Ends the recording.
    pub fn finish(mut self) -> Recorded {
        if self.store.is_some() {
            self.close();
        }
        let (base, ops) = self.recording.take().expect("recorded").finish();
        let mut replayed = base.clone();
        ops.iter().for_each(|op| replayed.apply(op, crate::disk::Fate::Kept));
        crate::check::is_the_same_as(&replayed, &self.root);
        Recorded {
            base,
            ops,
            promises: self.promises,
            damaged: self.damaged,
            offered: self.offered,
        }
    }

    /// What the store holds now must survive from here on.
    fn promise(&mut self) {
        let at = self.recording.as_ref().map(Recording::position);
        if at.is_none() && self.hear.is_none() {
            return;
        }
        let seen = self.runtime.block_on(look(self.store(), &self.beyond)).expect("it is whole");
        if let Some(hear) = &mut self.hear {
            hear(&seen);
        }
        self.promises.extend(at.map(|at| (at, seen)));
    }

    /// Opens the store under the kernel of before.
    pub fn open(&mut self) {
        let (store, recovered) =
            open_below(&self.root, &self.boot_id, Wall(TEN)).expect("the store opens");
        let connections = self.beyond.connections;
        self.beyond = Beyond { connections, ..Beyond::of(&recovered, &self.boot_id, &self.path()) };
        self.damaged = recovered.damaged.iter().map(|path| name_of(path)).collect();
        self.store = Some(store);
        self.promise();
    }

    /// The machine is booted again.
    pub fn boot_as(&mut self, boot_id: &str) {
        self.boot_id = boot_id.into();
    }

    pub fn close(&mut self) {
        let store = self.store.take().expect("the store is open");
        let seen = self.runtime.block_on(look(&store, &self.beyond)).expect("it is whole");
        self.last = Some(seen);
        self.runtime.block_on(store.close());
    }

    pub fn commit(&mut self, facts: Vec<Fact>) {
        let at = self.now();
        let records = facts.into_iter().map(|fact| Record { at, fact }).collect();
        self.runtime.block_on(self.store().commit(records)).expect("recorded");
        self.promise();
    }

    pub fn acknowledge(&mut self, upto: u64) {
        let now = self.now();
        let ack = async {
            let standing = self.store().standing().await?;
            let hash = self.store().hashes(vec![upto]).await?[0].expect("it is kept");
            let epoch = standing.head.epoch;
            self.store()
                .acknowledge(Acknowledgement { epoch, upto, hash, issued_at: now.wall, at: now })
                .await
        };
        let outcome = self.runtime.block_on(ack).expect("acknowledged");
        assert_eq!(outcome, AckOutcome::Accepted { acked: upto });
        // It may wait for the next write, which takes it along; until then the cloud says it again.
        self.keep_time();
    }

    /// A hundred days later, what is acknowledged goes: so many records.
    pub fn prune(&mut self, gone: u64) {
        assert_eq!(self.prune_all(), gone);
    }

    pub fn prune_all(&mut self) -> u64 {
        let now = self.now();
        let later = Stamp { wall: Wall(now.wall.0 + 100 * 86_400_000), ..now };
        let retention = Duration::from_secs(90 * 86_400);
        let pruned = self.store().prune(retention, Settled::ByCloud, later);
        let pruned = self.runtime.block_on(pruned).expect("pruned");
        self.promise();
        pruned
    }

    /// Floor and head of the ledger.
    pub fn range(&self) -> (u64, u64) {
        let standing = self.runtime.block_on(self.store().standing()).expect("it stands");
        (standing.floor, standing.head.seq)
    }

    pub fn is_blocked(&self, n: u32) -> bool {
        let blocks = self.runtime.block_on(self.store().local_blocks()).expect("blocks");
        blocks.iter().any(|block| block.uid == crate::facts::uid(n))
    }

    pub fn fork(&mut self) {
        let now = self.now();
        let forked = self.runtime.block_on(self.store().fork(Uptime(0), now));
        assert!(forked.expect("it forks").is_some());
        self.promise();
    }

    /// Takes a list, however it comes.
    pub fn apply(&mut self, offered: Offered) {
        let now = self.now();
        let outcome = self.runtime.block_on(take_list(self.store(), &offered, now));
        assert!(matches!(outcome, ApplyOutcome::Applied { .. }), "{outcome:?}");
        self.offered = Some(offered);
        self.promise();
    }

    pub fn block(&mut self, n: u32) {
        let blocked = self.store().block_badge(crate::facts::uid(n), None, "a technician".into());
        assert_eq!(self.runtime.block_on(blocked), Ok(true));
        self.promise();
    }

    pub fn unblock(&mut self, n: u32) {
        let unblocked = self.store().unblock_badge(crate::facts::uid(n), "a technician".into());
        assert_eq!(self.runtime.block_on(unblocked), Ok(true));
        self.promise();
    }

    pub fn forget_notes(&mut self, upto: u64) {
        self.runtime.block_on(self.store().forget_override_notes(upto)).expect("forgotten");
        self.promise();
    }

    pub fn out_of_service(&mut self, station: &str, note: Option<&str>) {
        let marked = self.store().take_out_of_service(station.into(), note.map(str::to_owned));
        self.runtime.block_on(marked).expect("marked");
        self.promise();
    }

    pub fn in_service(&mut self, station: &str) {
        self.runtime.block_on(self.store().return_to_service(station.into())).expect("marked");
        self.promise();
    }

    pub fn reply(&mut self, id: &str, reply: &str) {
        let kept = KeptReply {
            id: id.into(),
            command: r#"{"op":"state.report"}"#.into(),
            reply: reply.into(),
            delivered: false,
        };
        self.runtime.block_on(self.store().keep_reply(kept)).expect("kept");
        self.promise();
    }

    pub fn reply_delivered(&mut self, id: &str, reply: &str) {
        let delivered = self.store().reply_delivered(id.into(), reply.into());
        self.runtime.block_on(delivered).expect("kept");
        self.promise();
    }

    pub fn show_stations(&mut self, stations: &[&str]) {
        let stations: Vec<StationId> = stations.iter().map(|name| (*name).into()).collect();
        self.runtime.block_on(self.store().show_stations(stations)).expect("kept");
        self.promise();
    }

    pub fn next_connection(&mut self) {
        let number = self.runtime.block_on(self.store().next_connection()).expect("counted");
        self.beyond.connections = number;
        self.promise();
    }

    pub fn keep_time(&mut self) {
        let now = self.now();
        self.runtime.block_on(self.store().keep_time(now)).expect("kept");
        self.beyond.clock_floor = now.wall;
        self.promise();
    }

    pub fn keep_memos(&mut self, memos: Vec<Memo>) {
        self.runtime.block_on(self.store().keep_memos(memos.clone())).expect("kept");
        self.beyond.memos = memos;
        self.promise();
    }

    /// The gateway's key is made, or read.
    pub fn identify(&mut self) {
        let identity = Identity::open(&Identity::beside(&self.path())).expect("a key");
        self.beyond.key = identity.public_key();
        self.promise();
    }
}

/// What somebody or something does to the files while no store is open.
impl Bench {
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.join("var").join(name)
    }

    pub fn log_length(&self) -> u64 {
        std::fs::metadata(self.beside("tapgate.db-wal")).expect("a log").len()
    }

    fn database(&self, name: &str) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.beside(name)).expect("a database");
        database.pragma_update(None, "locking_mode", "EXCLUSIVE").expect("set");
        database
    }

    pub fn sql(&self, name: &str, sql: &str) {
        self.database(name).execute_batch(sql).expect("done");
    }

    /// What it does stays in the log.
    pub fn sql_in_log(&self, name: &str, sql: &str) {
        let database = self.database(name);
        let keep = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        database.set_db_config(keep, true).expect("set");
        database.execute_batch(sql).expect("done");
    }

    pub fn overwrite(&self, name: &str, from: usize, length: usize) {
        let mut bytes = std::fs::read(self.beside(name)).expect("readable");
        let end = bytes.len().min(from + length);
        bytes[from..end].fill(0x5a);
        std::fs::write(self.beside(name), bytes).expect("writable");
    }

    /// One byte of a text that is in the file is another one.
    pub fn damage_text(&self, name: &str, text: &str) {
        let bytes = std::fs::read(self.beside(name)).expect("readable");
        let is_it = |window: &[u8]| window == text.as_bytes();
        let at = bytes.windows(text.len()).position(is_it).expect("in the file");
        self.overwrite(name, at, 1);
    }

    /// The start that finds the damage, recorded.
    pub fn salvaged(mut self) -> Recorded {
        self.boot_as("kernel-2");
        self.record_from_nothing();
        self.open();
        assert!(!self.damaged.is_empty(), "the damage is found");
        self.commit(vec![crate::facts::started()]);
        self.finish()
    }
}

pub fn name_of(path: &Path) -> PathBuf {
    path.file_name().unwrap_or_default().into()
}

/// Offers a list and serves what is asked for until there is an end, or until chunks are wanted
/// that no cloud has.
pub async fn take_list(store: &Store, offered: &Offered, now: Stamp) -> ApplyOutcome {
    let (news, mut heard) = mpsc::channel::<ListNews>(64);
    let payload = offered.head.to_string().into_bytes();
    let offer = Offer { origin: Origin::Cloud, payload, now, news };
    store.lists().send(ListJob::Head(offer)).await.expect("the thread runs");
    loop {
        let outcome = heard.recv().await.expect("news of the list").outcome;
        let ApplyOutcome::Wanted(wanted) = outcome else { return outcome };
        for part in wanted {
            let found = offered.chunks.iter().find(|(name, _)| *name == part.sha256);
            let (_, chunks) = found.expect("a part of the list");
            if part.from as usize >= chunks.len() {
                return ApplyOutcome::Wanted(vec![part]);
            }
            for chunk in &chunks[part.from as usize..] {
                store.lists().send(ListJob::Chunk(chunk.clone())).await.expect("the thread runs");
            }
        }
    }
}
