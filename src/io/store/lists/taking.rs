//! One list while it is taken: its parts come in, its entries go into the next generation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::judge::{Room, check_size, judge_all, judge_whole};
use super::offers::Offers;
use super::parts::{PartFile, PartFolder};
use super::pull::Pull;
use super::source::{Lines, Merge, Progress, Source};
use super::{Fingerprint, Offer, Origin, Standing, Taken};
use crate::core::event::Allowlist;
use crate::io::store::error::Fault;
use crate::io::store::generation::Builder;
use crate::protocol::allowlist::{Chunk, Content, Head, Part, Refusal, RefusalReason};
use crate::protocol::cloud::PartRequest;

/// A command that serves parts from a stick sends the next chunk within milliseconds; the cloud may
/// have a lost badge to tell of meanwhile.
const IMPORT_PATIENCE: Duration = Duration::from_secs(10);

/// A list that is being taken.
pub(super) struct Taking {
    pub(super) head: Head,
    pub(super) offers: Offers,
    pub(super) fingerprint: Fingerprint,
    /// Which list decides meanwhile.
    pub(super) current: Option<Allowlist>,
    pull: Pull,
    /// When somebody last did something for it.
    heard: Instant,
    /// Its file.
    decides: Option<PathBuf>,
    /// What must stay free on the disk.
    reserve: u64,
    parts: usize,
    open: BTreeMap<String, PartFile>,
    source: Source,
    builder: Option<Builder>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Entries,
    /// The next part is not there yet.
    Waiting,
    Whole,
}

/// What follows.
pub(super) enum Step {
    GoOn,
    /// The list is built, good and durable, aside.
    Ready,
    Refuse(Refusal),
    /// The delta was wrong; the content may be right.
    FallBack,
}

impl Taking {
    /// Begins with the delta that leads from the current list, where there is one, else with the
    /// content.
    pub(super) fn begin(
        head: Head,
        offer: &Offer,
        standing: &Standing,
        folder: &PartFolder,
        free: Option<u64>,
        fingerprint: Fingerprint,
    ) -> Result<Taking, Refusal> {
        let mut taking = Taking {
            parts: 0,
            offers: Offers::new(offer),
            heard: Instant::now(),
            fingerprint,
            current: standing.current.clone(),
            decides: standing.file.clone(),
            reserve: standing.reserve,
            pull: Pull::default(),
            open: BTreeMap::new(),
            source: Source::Inline(Vec::new().into_iter()),
            builder: None,
            stage: Stage::Entries,
            head,
        };
        taking.tidy(standing, folder);
        let there = taking.there(folder);
        taking.check_size(free, there)?;
        match taking.merge() {
            Some(Ok(merge)) => taking.source = Source::Delta(Box::new(merge)),
            Some(Err(refusal)) => return Err(refusal),
            None => taking.take_content(folder)?,
        }
        Ok(taking)
    }

    /// The same list from its content.
    pub(super) fn with_content(
        mut self,
        folder: &PartFolder,
        free: Option<u64>,
    ) -> Result<Taking, (Refusal, Offers)> {
        self.discard_builder();
        self.stage = Stage::Entries;
        let there = self.there(folder);
        let taken = self.check_size(free, there).and_then(|()| self.take_content(folder));
        match taken {
            Ok(()) => Ok(self),
            Err(refusal) => Err((refusal, self.offers)),
        }
    }

    fn check_size(&self, free: Option<u64>, there: u64) -> Result<(), Refusal> {
        check_size(&self.head, Room { free, reserve: self.reserve, there })
    }

    /// Keeps what this list and the current one need of the parts on disk.
    fn tidy(&self, standing: &Standing, folder: &PartFolder) {
        let names: BTreeSet<&str> = standing
            .parts
            .iter()
            .map(String::as_str)
            .chain(self.head.parts().iter().map(|part| part.sha256.as_str()))
            .collect();
        if let Err(error) = folder.keep_only(&names) {
            tracing::warn!(%error, "parts of old allowlists cannot be removed");
        }
    }

    /// Bytes of the parts that are on disk, whole or not.
    fn there(&self, folder: &PartFolder) -> u64 {
        self.head.parts().iter().map(|part| folder.bytes_of(part)).sum()
    }

    /// The delta that leads from the current list, over that list.
    fn merge(&self) -> Option<Result<Merge, Refusal>> {
        let current = self.current.as_ref().filter(|current| current.list == self.head.list)?;
        let delta = self.head.deltas.iter().find(|delta| delta.base == current.version)?;
        match Merge::open(self.decides.as_deref()?, delta) {
            // A badge that it changes twice leads nowhere; the content may.
            Ok(Err(refusal)) if refusal.reason == RefusalReason::Duplicate => None,
            Ok(merge) => Some(merge),
            Err(error) => {
                // A list that cannot be read any more needs its successor all the more.
                tracing::error!(?error, "the current allowlist cannot be read; no delta is taken");
                None
            }
        }
    }

    fn take_content(&mut self, folder: &PartFolder) -> Result<(), Refusal> {
        let parts = match &self.head.content {
            Content::Entries(entries) => {
                self.source = Source::Inline(judge_all(entries)?.into_iter());
                return Ok(());
            }
            Content::Parts(parts) => parts.clone(),
        };
        let mut missing = Vec::new();
        for part in &parts {
            if !folder.has(part).map_err(|error| storage(error.into(), folder.path()))? {
                missing.push((part.clone(), folder.progress(part)));
            }
        }
        self.parts = parts.len();
        self.pull = Pull::new(missing.into_iter());
        self.source = Source::Parts(Box::new(Lines::new(folder.clone(), parts)));
        Ok(())
    }

    /// Whether another head is to be ignored: messages may overtake each other.
    pub(super) fn outranks(&self, other: &Head, origin: Origin) -> bool {
        origin == Origin::Cloud && self.head.list == other.list && self.head.version > other.version
    }

    /// The same head again: what was asked for may be lost with a connection.
    pub(super) fn join(&mut self, offer: &Offer) {
        self.offers.join(offer);
        self.pull.forget_requests();
        self.heard = Instant::now();
    }

    /// Whether a technician imports it, and the cloud does not offer it.
    pub(super) fn is_imported(&self) -> bool {
        self.offers.are_imports()
    }

    /// Whether it is an import whose command went away: the cloud would go on asking for ever.
    pub(super) fn is_abandoned(&self, now: Instant) -> bool {
        let starves = self.stage == Stage::Waiting;
        starves && self.is_imported() && now.duration_since(self.heard) > IMPORT_PATIENCE
    }

    /// What a technician sees of it.
    pub(super) fn taken(&self) -> Taken {
        Taken { version: self.head.version, parts: self.parts, missing: self.pull.len() }
    }

    /// Whether it can go on without another chunk.
    pub(super) fn has_work(&self) -> bool {
        self.stage != Stage::Waiting
    }

    /// When parts must be asked for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pull.deadline()
    }

    /// Parts to ask for now.
    pub(super) fn requests(&mut self, now: Instant) -> Option<Vec<PartRequest>> {
        let requests = self.pull.requests(now);
        (!requests.is_empty()).then_some(requests)
    }

    /// Takes a chunk, if it is one of those that are missing.
    pub(super) fn on_chunk(&mut self, chunk: &Chunk, folder: &PartFolder, now: Instant) -> Step {
        match self.store_chunk(chunk, folder, now) {
            Ok(()) => Step::GoOn,
            Err(fault) => Step::Refuse(storage(fault, folder.path())),
        }
    }

    fn store_chunk(
        &mut self,
        chunk: &Chunk,
        folder: &PartFolder,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(place) = self.pull.place(chunk, now) else {
            tracing::debug!(i = chunk.i, n = chunk.n, "a chunk that is not needed or does not fit");
            return Ok(());
        };
        self.heard = now;
        let name = chunk.sha256.as_str();
        let mut file = match (self.open.remove(name), self.part(name)) {
            (Some(file), _) => file,
            (None, Some(part)) => folder.open(part)?,
            (None, None) => return Ok(()),
        };
        file.write(&place, &chunk.bytes)?;
        if !place.whole {
            self.open.insert(chunk.sha256.clone(), file);
        } else if file.finish()? {
            self.pull.done(name);
            if self.stage == Stage::Waiting {
                self.stage = Stage::Entries;
            }
        } else {
            tracing::warn!("a part of the allowlist has another hash and is pulled again");
            self.pull.spoiled(name, now);
        }
        Ok(())
    }

    fn part(&self, name: &str) -> Option<&Part> {
        self.head.parts().iter().find(|part| part.sha256 == name)
    }

    /// Builds a little of the next generation, aside in `staging`.
    pub(super) fn work(&mut self, staging: &Path) -> Step {
        if self.stage == Stage::Waiting {
            return Step::GoOn;
        }
        match self.build(staging) {
            Ok(step) => step,
            Err(_) if self.is_delta() => Step::FallBack,
            Err(fault) => Step::Refuse(storage(fault, staging)),
        }
    }

    fn build(&mut self, staging: &Path) -> Result<Step, Fault> {
        let builder = match &mut self.builder {
            Some(builder) => builder,
            none => none.insert(Builder::create(staging, self.decides.as_deref())?),
        };
        if self.stage == Stage::Entries {
            self.stage = match self.source.slice(builder, &self.pull)? {
                Progress::More => Stage::Entries,
                Progress::Starved => Stage::Waiting,
                Progress::Done => Stage::Whole,
            };
            return Ok(Step::GoOn);
        }
        if let Some(refusal) = self.source.refusal() {
            return Ok(Step::Refuse(refusal.clone()));
        }
        let Some(whole) = builder.conclude()? else { return Ok(Step::GoOn) };
        if let Err(refusal) = judge_whole(&whole, &self.head, self.current.as_ref()) {
            return Ok(self.refuse(refusal));
        }
        let builder = self.builder.take().expect("it was just used");
        builder.seal(&self.head)?;
        Ok(Step::Ready)
    }

    /// A delta that does not match is no reason to refuse a list whose content may.
    fn refuse(&self, refusal: Refusal) -> Step {
        let matches = !matches!(
            refusal.reason,
            RefusalReason::Duplicate | RefusalReason::CountMismatch | RefusalReason::DigestMismatch
        );
        if self.is_delta() && !matches { Step::FallBack } else { Step::Refuse(refusal) }
    }

    fn is_delta(&self) -> bool {
        matches!(self.source, Source::Delta(_))
    }

    /// Throws away what was built; what was pulled stays for the next head.
    pub(super) fn discard(mut self) -> Offers {
        self.discard_builder();
        self.offers
    }

    fn discard_builder(&mut self) {
        if let Some(builder) = self.builder.take()
            && let Err(error) = builder.discard()
        {
            tracing::warn!(?error, "an unfinished allowlist cannot be removed");
        }
    }
}

fn storage(fault: Fault, path: &Path) -> Refusal {
    let error = fault.at("stage a list in", path);
    Refusal::new(RefusalReason::Storage, error.to_string())
}
