//! A disk as a model: what is on it, and what of the last requests a power cut may leave there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::log::{FileId, Name, Op};
use crate::random::Random;

/// What a disk writes at once: more may be torn.
const SECTOR: u64 = 512;

/// Files, by what they are and by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub folders: BTreeSet<Name>,
    names: BTreeMap<Name, FileId>,
    files: BTreeMap<FileId, Arc<Vec<u8>>>,
}

/// What a power cut leaves of a request that waited in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Lost,
    /// Of a write: those sectors alone, one after the other, whose bit is set.
    Torn(u64),
    /// Of a write: the file is as long as if it were kept, and the bytes are not there.
    Hole,
}

impl Disk {
    pub fn add(&mut self, name: Name, file: FileId, content: Vec<u8>) {
        self.names.insert(name, file);
        self.files.insert(file, Arc::new(content));
    }

    /// Does what was asked for, as far as fate lets it.
    pub fn apply(&mut self, op: &Op, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        match op {
            Op::Create { name, file } => {
                self.names.insert(name.clone(), *file);
            }
            Op::MakeFolder { name } => {
                self.folders.insert(name.clone());
            }
            Op::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Op::Unlink { name } => {
                self.names.remove(name);
            }
            Op::Write { file, at, bytes } => write(self.content(*file), *at, bytes, fate),
            Op::Truncate { file, length } => self.content(*file).resize(*length as usize, 0),
            Op::Sync { .. } | Op::SyncFolder { .. } => {}
        }
    }

    fn content(&mut self, file: FileId) -> &mut Vec<u8> {
        Arc::make_mut(self.files.entry(file).or_default())
    }

    /// The files that can be found: their folders are there, too.
    fn found(&self) -> impl Iterator<Item = (&Name, &[u8])> {
        self.names.iter().filter(|(name, _)| self.has_folders(name)).map(|(name, file)| {
            (name, self.files.get(file).map_or(&[][..], |content| content.as_slice()))
        })
    }

    fn has_folders(&self, name: &str) -> bool {
        let folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        folders.into_iter().all(|folder| self.folders.contains(folder))
    }

    /// Two disks of one print hold the same.
    pub fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let folders = self.folders.iter().filter(|name| self.has_folders(name));
        folders.for_each(|folder| folder.hash(&mut hasher));
        self.found().for_each(|file| file.hash(&mut hasher));
        hasher.finish()
    }

    /// Makes it real in an empty folder.
    pub fn materialise(&self, root: &Path) -> io::Result<()> {
        for folder in self.folders.iter().filter(|name| self.has_folders(name)) {
            fs::create_dir_all(root.join(folder))?;
        }
        for (name, content) in self.found() {
            fs::write(root.join(name), content)?;
        }
        Ok(())
    }

    /// What is there, by name.
    pub fn contents(&self) -> BTreeMap<Name, Vec<u8>> {
        self.found().map(|(name, content)| (name.clone(), content.to_vec())).collect()
    }
}

fn write(content: &mut Vec<u8>, at: u64, bytes: &[u8], fate: Fate) {
    let end = at as usize + bytes.len();
    if content.len() < end && !bytes.is_empty() {
        content.resize(end, 0);
    }
    let keeps = |sector: u64| match fate {
        Fate::Kept => true,
        Fate::Lost | Fate::Hole => false,
        Fate::Torn(sectors) => sectors >> (sector % 64) & 1 == 1,
    };
    for (n, sector) in (at / SECTOR..(at + bytes.len() as u64).div_ceil(SECTOR)).enumerate() {
        let (from, to) = (at.max(sector * SECTOR), (end as u64).min((sector + 1) * SECTOR));
        if from < to && keeps(n as u64) {
            content[from as usize..to as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
    }
}

/// A disk that is asked for one thing after the other.
#[derive(Clone)]
pub struct Cache<'a> {
    /// What a power cut cannot take any more.
    safe: Disk,
    /// What it can, oldest first.
    waiting: Vec<&'a Op>,
}

/// Which syncs do nothing.
pub type LeftOut = fn(&Op) -> bool;

impl<'a> Cache<'a> {
    pub fn over(safe: Disk) -> Cache<'a> {
        Cache { safe, waiting: Vec::new() }
    }

    /// Takes the next request; `left_out` syncs are forgotten.
    pub fn ask(&mut self, op: &'a Op, left_out: LeftOut) {
        let is_settled = |waiting: &Op| match op {
            Op::Sync { file, .. } => waiting.data_of() == Some(*file),
            Op::SyncFolder { name } => waiting.folder() == Some(name),
            Op::Create { .. }
            | Op::MakeFolder { .. }
            | Op::Rename { .. }
            | Op::Unlink { .. }
            | Op::Write { .. }
            | Op::Truncate { .. } => false,
        };
        match op {
            Op::Sync { .. } | Op::SyncFolder { .. } if !left_out(op) => {
                let (settled, waiting) =
                    std::mem::take(&mut self.waiting).into_iter().partition(|op| is_settled(op));
                self.waiting = waiting;
                let settled: Vec<&Op> = settled;
                settled.into_iter().for_each(|op| self.safe.apply(op, Fate::Kept));
            }
            Op::Sync { .. } | Op::SyncFolder { .. } => {}
            other => self.waiting.push(other),
        }
    }

    /// What a power cut now leaves where the waiting requests fare like this.
    pub fn cut(&self, fates: &[Fate]) -> Disk {
        let mut disk = self.safe.clone();
        for (op, fate) in self.waiting.iter().zip(fates) {
            disk.apply(op, *fate);
        }
        disk
    }

    /// How the waiting requests may fare: all kept, none, each lost or kept alone, all combinations
    /// of few, and `more` at random.
    pub fn fates(&self, more: usize, random: &mut Random) -> Vec<Vec<Fate>> {
        let n = self.waiting.len();
        let mut all = vec![vec![Fate::Kept; n], vec![Fate::Lost; n]];
        if n == 0 {
            return all;
        }
        if n < EXHAUSTED && 16 * more >= 1 << n {
            all.extend((1..(1_u64 << n) - 1).map(|kept| {
                let fate = |at| if kept >> at & 1 == 1 { Fate::Kept } else { Fate::Lost };
                (0..n).map(fate).collect()
            }));
        }
        // The last one is under way, and the power goes in the middle of it.
        if let Some(Op::Write { bytes, .. }) = self.waiting.last() {
            let sectors = (bytes.len() as u64).div_ceil(SECTOR).min(63);
            let some = [1, sectors / 2, sectors.saturating_sub(1)];
            all.extend(some.iter().filter(|kept| **kept < sectors).map(|kept| {
                let mut fates = vec![Fate::Kept; n];
                fates[n - 1] = Fate::Torn((1 << kept) - 1);
                fates
            }));
        }
        all.extend((0..more).map(|_| self.at_random(random)));
        all
    }

    fn at_random(&self, random: &mut Random) -> Vec<Fate> {
        // From nearly everything there to nearly nothing.
        let kept = 10 + random.below(81);
        let fate = |op: &&Op| match (random.below(100) < kept, random.below(4), op) {
            (true, ..) => Fate::Kept,
            (false, 0, Op::Write { .. }) => Fate::Torn(random.next()),
            (false, 1, Op::Write { .. }) => Fate::Hole,
            (false, ..) => Fate::Lost,
        };
        self.waiting.iter().map(fate).collect()
    }

    /// The last waiting requests and their fates, newest first, for whoever looks for a fault.
    pub fn describe(&self, fates: &[Fate]) -> String {
        let lines = self.waiting.iter().zip(fates).rev().take(DESCRIBED);
        lines.map(|(op, fate)| format!("  {fate:?}: {}\n", op.brief())).collect()
    }
}

/// Waiting requests that are described.
const DESCRIBED: usize = 40;

/// Waiting requests whose combinations are all tried where there is time for it.
const EXHAUSTED: usize = 11;
