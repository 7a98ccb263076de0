//! Lists that are taken in the caller's thread and by the caller's clock, for a simulation.

use std::time::Instant;

use super::{Handle, Lists, Taking, new};
use crate::io::store::error::StoreError;
use crate::io::store::files::Files;
use crate::io::store::gateway::Gateway;
use crate::io::store::worker::Worker;

/// What else is the thread for lists.
pub struct ListsByHand(Lists);

/// When there is something to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTurn {
    /// At once.
    Now,
    /// Then, or with the next job.
    At(Instant),
    /// With the next job.
    WithAJob,
}

pub(in crate::io::store) fn by_hand(
    files: Files,
    gateway: Worker<Gateway>,
) -> Result<(Handle, ListsByHand), StoreError> {
    let (handle, lists) = new(files, gateway)?;
    Ok((handle, ListsByHand(lists)))
}

impl ListsByHand {
    /// Does one job that waits and a little of what else there is to do.
    pub fn turn(&mut self, now: Instant) -> NextTurn {
        let job = self.0.jobs.try_recv().ok();
        if let Some(done) = self.0.turn(job, now) {
            // Nobody may be waiting for it any more.
            let _ = done.send(());
            return NextTurn::WithAJob;
        }
        let taking = self.0.taking.as_ref();
        if taking.is_some_and(Taking::has_work) || !self.0.jobs.is_empty() {
            return NextTurn::Now;
        }
        taking.and_then(Taking::deadline).map_or(NextTurn::WithAJob, NextTurn::At)
    }
}
