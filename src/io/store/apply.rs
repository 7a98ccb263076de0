//! The one moment: lets a list that was built and judged decide from now on.

use std::path::PathBuf;
use std::time::Duration;

use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::core::time::{Stamp, Wall};
use crate::io::store::error::{Fault, StoreError};
use crate::io::store::gateway::{Current, Gateway, save_pointer};
use crate::io::store::generation::{self, remove_if_there};
use crate::io::store::overrides::{self, blocked};

/// What staging must leave free: the ledger needs the disk more than the list does.
pub(super) const RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// The same head, back with every connection, is written down at most this often.
const ARRIVAL_RESOLUTION: Duration = Duration::from_secs(60);

impl Gateway {
    /// The staged file gets its name, then the pointer turns to it, then the lookups do. Gives the
    /// badges whose local block the list has ended.
    pub(super) fn switch(
        &mut self,
        allowlist: Allowlist,
        issued_at: Wall,
        parts: Vec<String>,
        now: Stamp,
    ) -> Result<Vec<Uid>, StoreError> {
        let (generation, path) = self.install()?;
        let opened = generation::open(&path).map_err(|fault| fault.at("open", &path))?;
        let (unblocked, blocked) =
            self.within_transaction("switch the list in", |transaction| {
                save_pointer(transaction, generation, Some(now))?;
                let ended = overrides::end_needless(transaction, &opened.connection)?;
                Ok((ended, blocked(transaction)?))
            })?;
        let arrived = Some(now);
        let current = Current { generation, allowlist, issued_at, arrived, parts };
        let previous = self.current.replace(current);
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
    pub(super) fn note_arrival(&mut self, now: Stamp) {
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
