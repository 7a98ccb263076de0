//! Records what the store asks of the disk, without a change to the store. The only unsafe code.
//!
//! SQLite's writes, truncations and syncs are seen by a VFS that lies over the real one ([`vfs`]).
//! Names, and the files that the store handles without SQLite, are seen where libc's functions are
//! called ([`calls`]): the linker finds ours first. Each thing is recorded once, by one of the two.

mod calls;
mod vfs;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;
use crate::log::{FileId, Name, Op};

pub use vfs::{install, leave_out_commit_syncs};

/// Device and inode.
type Key = (u64, u64);

/// Recordings that run: where there is none, nothing is looked at.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static TAPS: Mutex<Vec<Tap>> = Mutex::new(Vec::new());

struct Tap {
    root: PathBuf,
    known: HashMap<Key, FileId>,
    next: FileId,
    ops: Vec<Op>,
}

impl Tap {
    fn name(&self, path: &Path) -> Option<Name> {
        let below = path.strip_prefix(&self.root).ok()?;
        Some(below.to_string_lossy().into_owned())
    }

    fn new_file(&mut self, key: Key) -> FileId {
        self.next += 1;
        self.known.insert(key, self.next);
        self.next
    }
}

/// A recording of everything below one folder, from its start on.
pub struct Recording {
    root: PathBuf,
    base: Disk,
}

impl Recording {
    /// Begins; what is there now is safe already.
    pub fn start(root: &Path) -> Recording {
        install();
        let root = root.to_path_buf();
        let mut tap = Tap { root: root.clone(), known: HashMap::new(), next: 0, ops: Vec::new() };
        let mut base = Disk::default();
        scan(&root, &mut tap, &mut base);
        taps().push(tap);
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Recording { root, base }
    }

    /// How much is recorded so far.
    pub fn position(&self) -> usize {
        let taps = taps();
        taps.iter().find(|tap| tap.root == self.root).map_or(0, |tap| tap.ops.len())
    }

    /// Ends; gives what was there at its start, and everything since.
    pub fn finish(self) -> (Disk, Vec<Op>) {
        let mut taps = taps();
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        let at = taps.iter().position(|tap| tap.root == self.root).expect("it was started");
        (self.base, taps.swap_remove(at).ops)
    }
}

fn scan(folder: &Path, tap: &mut Tap, base: &mut Disk) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let name = tap.name(&path).expect("below the root");
        if metadata.is_dir() {
            base.folders.insert(name);
            scan(&path, tap, base);
        } else {
            let file = tap.new_file((metadata.dev(), metadata.ino()));
            base.add(name, file, fs::read(&path).expect("readable"));
        }
    }
}

fn taps() -> MutexGuard<'static, Vec<Tap>> {
    TAPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_running() -> bool {
    RUNNING.load(Ordering::Relaxed) > 0
}

/// Records something about a file that a recording knows.
fn note_file(key: Key, op: impl FnOnce(FileId) -> Op) {
    if let Some((tap, file)) =
        taps().iter_mut().find_map(|tap| tap.known.get(&key).copied().map(|file| (tap, file)))
    {
        tap.ops.push(op(file));
    }
}
