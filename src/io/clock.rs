//! The kernel's clocks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::kernel;
use crate::core::time::{Stamp, Uptime, Wall};

/// Reads the clocks of this boot. Clones share what is known of its trustworthiness.
#[derive(Clone, Debug)]
pub struct Clock {
    boot: u32,
    trusted: Arc<AtomicBool>,
    /// Wall minus boot clock as of the last look, for what the clock showed before it was set.
    offset_ms: Option<i64>,
}

/// The kernel set the clock: from now on it is trustworthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synchronised {
    /// What the clock would show now, had it not been set.
    pub before: Wall,
}

impl Clock {
    /// Clocks of the `boot`-th kernel boot. `trusted` where it was synchronised once in this boot:
    /// the kernel's own flag drops after some hours offline.
    pub fn new(boot: u32, trusted: bool) -> Clock {
        let trusted = Arc::new(AtomicBool::new(trusted || is_synchronised()));
        Clock { boot, trusted, offset_ms: None }
    }

    /// Now.
    pub fn now(&self) -> Stamp {
        Stamp { boot: self.boot, uptime: uptime(), wall: wall(), synced: self.is_trusted() }
    }

    /// Looks whether the clock became synchronised since the last look.
    pub fn look(&mut self) -> Option<Synchronised> {
        let uptime_ms = i64::try_from(uptime().0).unwrap_or(i64::MAX);
        let offset_ms = wall().0 - uptime_ms;
        let before = Wall(self.offset_ms.replace(offset_ms).unwrap_or(offset_ms) + uptime_ms);
        if self.is_trusted() || !is_synchronised() {
            return None;
        }
        self.trusted.store(true, Ordering::Relaxed);
        Some(Synchronised { before })
    }

    fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }
}

/// CLOCK_BOOTTIME.
pub fn uptime() -> Uptime {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let milliseconds = time.tv_sec * 1_000 + time.tv_nsec / 1_000_000;
    Uptime(u64::try_from(milliseconds).unwrap_or(0))
}

/// The wall clock, right or wrong.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The kernel's id of this boot; empty where /proc does not tell.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"));
    text.unwrap_or_default().trim().to_owned()
}

/// What `tapgate-clock.service` creates once the clock is synchronised.
pub const SYNCHRONISED: &str = "/run/tapgate-clock/synchronised";

/// Whether the kernel says that the clock is disciplined; any NTP client sets this. The unit's
/// sandbox does not let the daemon ask: there `tapgate-clock.service` does it.
pub fn is_synchronised() -> bool {
    kernel::clock_is_disciplined() || Path::new(SYNCHRONISED).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward() {
        let clock = Clock::new(3, false);
        let (first, second) = (clock.now(), clock.now());
        assert!(first.uptime <= second.uptime);
        assert_eq!(first.boot, 3);
    }

    #[test]
    fn trust_once_won_stays_for_the_boot() {
        let mut clock = Clock::new(1, true);
        assert!(clock.now().synced);
        assert_eq!(clock.look(), None);
        assert!(clock.now().synced);
    }
}
