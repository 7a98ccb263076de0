//! Takes an allowlist whole or not at all.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::core::time::Stamp;
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::gateway::{Current, Gateway, save_pointer};
use crate::io::store::generation::{self, Builder, remove_if_there};
use crate::io::store::overrides::{self, blocked};
use crate::protocol::allowlist::{
    Content, Head, MAX_ENTRIES, MAX_LIST_BYTES, Refusal, RefusalReason,
};

/// What staging must leave free: the ledger needs the disk more than the list does.
pub(super) const RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// What a list takes on disk for each byte of its entries, with its indexes.
const DISK_FACTOR: u64 = 2;

/// The same head, back with every connection, is written down at most this often.
const ARRIVAL_RESOLUTION: Duration = Duration::from_secs(60);

/// What became of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// This list decides from now on, also after a power cut.
    Applied {
        /// Which.
        allowlist: Allowlist,
        /// Badges whose local block ended, because the list has them blocked or not at all.
        unblocked: Vec<Uid>,
    },
    /// It decides already.
    Unchanged(Allowlist),
    /// The list from before goes on deciding.
    Refused {
        /// Of the refused head.
        version: u64,
        /// Why.
        refusal: Refusal,
        /// Which list decides; `None` where there is none yet.
        current: Option<Allowlist>,
    },
    /// This version of tapgate takes only lists whose entries are in the head.
    Unsupported {
        /// Of the head.
        version: u64,
        /// Which list decides; `None` where there is none yet.
        current: Option<Allowlist>,
    },
}

impl Gateway {
    /// Judges a head and, where it is good, makes its list the one that decides.
    pub(super) fn apply(&mut self, head: &Head, now: Stamp) -> ApplyOutcome {
        let current = self.current.as_ref().map(|current| current.allowlist.clone());
        let judged = self.judge(head, current.as_ref(), now);
        judged.unwrap_or_else(|refusal| ApplyOutcome::Refused {
            version: head.version,
            refusal,
            current,
        })
    }

    fn judge(
        &mut self,
        head: &Head,
        current: Option<&Allowlist>,
        now: Stamp,
    ) -> Result<ApplyOutcome, Refusal> {
        if let Some(current) = current
            && is_the_same(head, current)?
        {
            self.note_arrival(now);
            return Ok(ApplyOutcome::Unchanged(current.clone()));
        }
        self.check_size(head)?;
        let entries = match &head.content {
            Content::Entries(entries) => entries,
            Content::Parts(_) => {
                let current = current.cloned();
                return Ok(ApplyOutcome::Unsupported { version: head.version, current });
            }
        };
        self.stage(head, entries, current)?;
        let unblocked = self.switch(head, now).map_err(|error| storage(&error))?;
        let allowlist = allowlist_of(head);
        Ok(ApplyOutcome::Applied { allowlist, unblocked })
    }

    fn check_size(&self, head: &Head) -> Result<(), Refusal> {
        let bytes: u64 = match &head.content {
            Content::Entries(entries) => entries.iter().map(|e| e.get().len() as u64).sum(),
            Content::Parts(parts) => parts.iter().map(|part| part.bytes).sum(),
        };
        let refuse = |detail| Err(Refusal::new(RefusalReason::TooLarge, detail));
        if head.count > MAX_ENTRIES {
            return refuse(format!("more than {MAX_ENTRIES} entries"));
        }
        if bytes > MAX_LIST_BYTES {
            return refuse(format!("more than {MAX_LIST_BYTES} bytes"));
        }
        let needed = bytes * DISK_FACTOR + self.reserve_bytes;
        match self.files.free_bytes() {
            Some(free) if free < needed => {
                refuse(format!("{free} bytes are free on the gateway's disk, {needed} needed"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Builds the new generation aside.
    fn stage(
        &self,
        head: &Head,
        entries: &[Box<RawValue>],
        current: Option<&Allowlist>,
    ) -> Result<(), Refusal> {
        let path = self.files.staging();
        let decides = self.current.as_ref().map(|c| self.files.allowlist(c.generation));
        let build = || -> Result<Result<(), Refusal>, Fault> {
            let mut builder = Builder::create(&path, decides.as_deref())?;
            for entry in entries {
                builder.add(entry.get())?;
            }
            builder.finish(head, current)
        };
        build().map_err(|fault| storage(&fault.at("stage a list in", &path)))?
    }

    /// The one moment: the file gets its name, then the pointer turns to it, then the lookups do.
    fn switch(&mut self, head: &Head, now: Stamp) -> Result<Vec<Uid>, StoreError> {
        let (generation, path) = self.install()?;
        let opened = generation::open(&path).map_err(|fault| fault.at("open", &path))?;
        let (unblocked, blocked) =
            self.within_transaction("switch the list in", |transaction| {
                save_pointer(transaction, generation, Some(now))?;
                let ended = overrides::end_needless(transaction, &opened.connection)?;
                Ok((ended, blocked(transaction)?))
            })?;
        let previous = self.current.replace(Current {
            generation,
            allowlist: allowlist_of(head),
            issued_at: head.issued_at,
            arrived: Some(now),
        });
        self.lookup.run_blocking(move |lookup| {
            lookup.current = Some((opened.connection, path));
            lookup.blocked = blocked;
        })?;
        self.remove_older_than(previous.map_or(generation, |previous| previous.generation));
        Ok(unblocked)
    }

    /// Gives the staged file its name, durably.
    fn install(&self) -> Result<(u64, PathBuf), StoreError> {
        let staging = self.files.staging();
        let failed = |error: std::io::Error| Fault::Io(error).at("install", &staging);
        let newest = self.files.generations().map_err(failed)?.first().copied().unwrap_or(0);
        let path = self.files.allowlist(newest + 1);
        std::fs::rename(&staging, &path).map_err(failed)?;
        self.files.sync_directory().map_err(failed)?;
        Ok((newest + 1, path))
    }

    /// Keeps the current and the previous generation.
    fn remove_older_than(&self, oldest: u64) {
        let Ok(generations) = self.files.generations() else { return };
        for generation in generations.into_iter().filter(|g| *g < oldest) {
            let path = self.files.allowlist(generation);
            if let Err(error) = remove_if_there(&path) {
                tracing::warn!(file = %path.display(), %error, "cannot remove an old allowlist");
            }
        }
    }

    /// The list is fresh again. A failure costs its age after a restart, nothing else.
    fn note_arrival(&mut self, now: Stamp) {
        let Some(current) = &self.current else { return };
        let known = current.arrived.is_some_and(|arrived| {
            arrived.boot == now.boot
                && arrived.synced == now.synced
                && now.uptime.since(arrived.uptime) < ARRIVAL_RESOLUTION
        });
        if known {
            return;
        }
        let generation = current.generation;
        let saved = self.within_transaction("keep the list's arrival in", |transaction| {
            Ok(save_pointer(transaction, generation, Some(now))?)
        });
        match saved {
            Ok(()) => {
                if let Some(current) = &mut self.current {
                    current.arrived = Some(now);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the allowlist's age may be wrong after a restart")
            }
        }
    }
}

/// Whether the head is of the list that decides; the contract's rules of identity and order.
fn is_the_same(head: &Head, current: &Allowlist) -> Result<bool, Refusal> {
    if head.list != current.list {
        if head.replaces.as_deref() == Some(current.list.as_str()) {
            return Ok(false);
        }
        let detail = "another list, and it does not replace the current one";
        return Err(Refusal::new(RefusalReason::OtherList, detail));
    }
    if head.version < current.version {
        let detail = format!("version {} is older than {}", head.version, current.version);
        return Err(Refusal::new(RefusalReason::Rollback, detail));
    }
    if head.version > current.version {
        return Ok(false);
    }
    if head.digest != current.digest {
        let detail = format!("version {} has another digest", head.version);
        return Err(Refusal::new(RefusalReason::Equivocation, detail));
    }
    Ok(true)
}

fn allowlist_of(head: &Head) -> Allowlist {
    Allowlist {
        list: head.list.clone(),
        version: head.version,
        digest: head.digest.clone(),
        count: head.count,
    }
}

fn storage(error: &StoreError) -> Refusal {
    Refusal::new(RefusalReason::Storage, error.to_string())
}
