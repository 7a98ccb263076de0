//! Where the entries of the next list come from, ascending by UID and a slice at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::judge::{Judged, duplicate, judge_all, judge_one, oversize};
use super::old::{OldEntry, OldList};
use super::parts::PartFolder;
use super::pull::Pull;
use crate::core::badge::Uid;
use crate::io::store::error::Fault;
use crate::io::store::generation::{Builder, named};
use crate::protocol::allowlist::{
    Delta, MAX_ENTRIES, MAX_ENTRY_BYTES, Part, Refusal, RefusalReason,
};

/// Entries that go into a list before others get a turn: some 10 ms.
const SLICE_ENTRIES: usize = 2_000;

/// How far a slice came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The next part is not there yet.
    Starved,
    /// All entries are in.
    Done,
}

/// The entries of the next list.
pub(super) enum Source {
    /// From the head.
    Inline(std::vec::IntoIter<Judged>),
    /// The list that decides, with changes.
    Delta(Box<Merge>),
    /// From parts, as they become whole.
    Parts(Box<Lines>),
}

impl Source {
    /// Puts the next entries into the list.
    pub(super) fn slice(&mut self, into: &mut Builder, pull: &Pull) -> Result<Progress, Fault> {
        for _ in 0..SLICE_ENTRIES {
            let progress = match self {
                Source::Inline(entries) => push(entries.next(), into)?,
                Source::Delta(merge) => merge.step(into)?,
                Source::Parts(lines) => lines.step(into, pull)?,
            };
            if progress != Progress::More {
                return Ok(progress);
            }
        }
        Ok(Progress::More)
    }

    /// The first reason to refuse that an entry gave.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Source::Parts(lines) => lines.refusal.as_ref(),
            Source::Inline(_) | Source::Delta(_) => None,
        }
    }
}

fn push(entry: Option<Judged>, into: &mut Builder) -> Result<Progress, Fault> {
    let Some(entry) = entry else { return Ok(Progress::Done) };
    into.push(entry.uid, entry.badge.as_str(), entry.usable, &entry.canonical)?;
    Ok(Progress::More)
}

/// The current list with changes.
pub(super) struct Merge {
    old: OldList,
    next: Option<OldEntry>,
    /// By UID bytes; `None` removes.
    changes: BTreeMap<Vec<u8>, Option<Judged>>,
}

impl Merge {
    /// `current` with what a delta changes; a bad entry of the delta refuses the list.
    pub(super) fn open(current: &Path, delta: &Delta) -> Result<Result<Merge, Refusal>, Fault> {
        let upserts = match judge_all(&delta.upsert) {
            Ok(upserts) => upserts,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let removed = delta.remove.iter().filter_map(|uid| Uid::from_wire(uid));
        let mut changes: BTreeMap<_, _> = removed.map(|u| (u.as_bytes().to_vec(), None)).collect();
        let upserts = upserts.into_iter().map(|new| (new.uid.as_bytes().to_vec(), Some(new)));
        changes.extend(upserts);
        let mut old = OldList::open(current)?;
        let next = old.next_entry()?;
        Ok(Ok(Merge { old, next, changes }))
    }

    fn step(&mut self, into: &mut Builder) -> Result<Progress, Fault> {
        let change = self.changes.first_key_value().map(|(uid, _)| uid.as_slice());
        let change_first = match (&self.next, change) {
            (None, None) => return Ok(Progress::Done),
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (Some(old), Some(change)) => change <= old.uid.as_bytes(),
        };
        if !change_first {
            if let Some(old) = self.next.take() {
                into.push(old.uid, &named(&old.canonical)?, old.usable, &old.canonical)?;
            }
            self.next = self.old.next_entry()?;
            return Ok(Progress::More);
        }
        if let Some((uid, change)) = self.changes.pop_first() {
            if self.next.as_ref().is_some_and(|old| old.uid.as_bytes() == uid) {
                self.next = self.old.next_entry()?;
            }
            if change.is_some() {
                push(change, into)?;
            }
        }
        Ok(Progress::More)
    }
}

/// One entry a line, over all parts.
pub(super) struct Lines {
    folder: PartFolder,
    /// In the order of the list.
    parts: std::vec::IntoIter<Part>,
    reading: Option<BufReader<File>>,
    line: Vec<u8>,
    index: u64,
    last: Option<Uid>,
    refusal: Option<Refusal>,
}

impl Lines {
    pub(super) fn new(folder: PartFolder, parts: Vec<Part>) -> Lines {
        Lines {
            folder,
            parts: parts.into_iter(),
            reading: None,
            line: Vec::new(),
            index: 0,
            last: None,
            refusal: None,
        }
    }

    fn step(&mut self, into: &mut Builder, pull: &Pull) -> Result<Progress, Fault> {
        let Some(reader) = &mut self.reading else { return self.next_part(pull) };
        self.line.clear();
        let bound = MAX_ENTRY_BYTES as u64 + 1;
        if reader.take(bound).read_until(b'\n', &mut self.line)? == 0 {
            self.reading = None;
            return Ok(Progress::More);
        }
        let ended = self.line.pop_if(|byte| *byte == b'\n').is_some();
        if !ended && self.line.len() as u64 == bound {
            // No later entry can give a reason that comes before this one.
            self.refuse(oversize(self.index));
            return Ok(Progress::Done);
        }
        if self.index == MAX_ENTRIES {
            let detail = format!("more than {MAX_ENTRIES} entries");
            self.refuse(Refusal::new(RefusalReason::TooLarge, detail));
            return Ok(Progress::Done);
        }
        match judge_one(self.index, &self.line).and_then(|entry| self.in_order(entry)) {
            Ok(entry) => {
                if self.refusal.is_none() {
                    push(Some(entry), into)?;
                }
            }
            Err(refusal) => self.refuse(refusal),
        }
        self.index += 1;
        Ok(Progress::More)
    }

    fn next_part(&mut self, pull: &Pull) -> Result<Progress, Fault> {
        match self.parts.as_slice().first() {
            None => Ok(Progress::Done),
            Some(part) if pull.lacks(&part.sha256) => Ok(Progress::Starved),
            Some(part) => {
                self.reading = Some(self.folder.read(&part.sha256)?);
                self.parts.next();
                Ok(Progress::More)
            }
        }
    }

    fn in_order(&mut self, entry: Judged) -> Result<Judged, Refusal> {
        let last = self.last.replace(entry.uid);
        match last.map(|last| last.as_bytes().cmp(entry.uid.as_bytes())) {
            None | Some(std::cmp::Ordering::Less) => Ok(entry),
            Some(std::cmp::Ordering::Equal) => Err(duplicate(self.index)),
            Some(std::cmp::Ordering::Greater) => {
                let detail = format!("entry {}, uid: not ascending", self.index);
                Err(Refusal::new(RefusalReason::BadEntry, detail))
            }
        }
    }

    /// Keeps the reason that comes first in the contract's order, and of these the first found.
    fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.as_ref().is_none_or(|first| refusal.reason < first.reason) {
            self.refusal = Some(refusal);
        }
    }
}
