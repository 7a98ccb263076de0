//! Talks to systemd: READY, STATUS, WATCHDOG, STOPPING. Without systemd it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, as far as this process can reach it.
#[derive(Clone, Copy, Debug)]
pub struct Systemd {
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Reads what systemd passed in the environment.
    pub fn from_env() -> Systemd {
        Systemd { watchdog: sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) }
    }

    /// How often the watchdog wants to be fed: thrice within its limit; never without one.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    /// The store and the control socket are up and every task runs.
    pub fn ready(&self, status: &str) {
        notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A new config is taken over; `ready` follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000);
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(microseconds)]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        notify(&[NotifyState::Status(&one_line(status))]);
    }

    /// Everything that must make progress did.
    pub fn feed_watchdog(&self) {
        notify(&[NotifyState::Watchdog]);
    }

    /// A start that takes long (a check of the store after a crash) is no hang.
    pub fn extend_timeout(&self, by: Duration) {
        let microseconds = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    /// The daemon is going down on request.
    pub fn stopping(&self) {
        let status = NotifyState::Status("stopping; no switch is touched");
        notify(&[NotifyState::Stopping, status]);
    }
}

/// A newline in a value would be read as another variable.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd cannot be notified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_stays_one_line() {
        assert_eq!(one_line("a\nMAINPID=1"), "a MAINPID=1");
    }
}
