//! What is wrong with clock and disk: looked at now and then, told once when it begins.

use std::time::Duration;

use crate::core::metering::elapsed;
use crate::core::time::Stamp;
use crate::daemon::event_loop::{Chore, Daemon};
use crate::protocol::cloud::{EventBody, EventKind};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// A network needs some time after a start before the clock can be right.
const CLOCK_PATIENCE: Duration = Duration::from_secs(60);
/// Less than this must stay free for the ledger; an allowlist is not staged beyond it either.
const DISK_LOW_BYTES: u64 = 256 * 1024 * 1024;
/// How long a fork stays an alarm.
const FORK_ALARM: Duration = Duration::from_secs(24 * 3_600);

impl Daemon {
    pub(super) async fn watch_site(&mut self) {
        if !self.watch.is_due(Chore::WatchSite, LOOK) {
            return;
        }
        let now = self.clock.now();
        self.watch_clock(now);
        self.watch_disk().await;
        let forked = self.watch.forked.and_then(|at| elapsed(at, now));
        self.watch
            .note_condition(EventKind::LedgerFork, forked.is_some_and(|age| age < FORK_ALARM));
    }

    fn watch_clock(&mut self, now: Stamp) {
        let wrong = !now.synced && self.watch.started.elapsed() >= CLOCK_PATIENCE;
        if self.watch.note_condition(EventKind::ClockUnsynchronised, wrong) {
            tracing::warn!("the clock is not synchronised; check: timedatectl");
            self.send_event(EventBody::ClockUnsynchronised);
        }
    }

    async fn watch_disk(&mut self) {
        let Ok(Some(free_bytes)) = self.store.free_bytes().await else { return };
        let low = free_bytes < DISK_LOW_BYTES;
        if self.watch.note_condition(EventKind::DiskLow, low) {
            tracing::warn!("{free_bytes} bytes are free beside the store; make room on its disk");
            self.send_event(EventBody::DiskLow { free_bytes });
        }
    }
}
