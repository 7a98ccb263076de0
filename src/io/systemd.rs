//! Talks to systemd: READY, STATUS, WATCHDOG, STOPPING. Without systemd it does nothing.

use std::time::Duration;

/// The service manager, as far as this process can reach it.
#[derive(Clone, Copy, Debug)]
pub struct Systemd {
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Reads what systemd passed in the environment.
    pub fn from_env() -> Systemd {
        let microseconds = systemd::daemon::watchdog_enabled().unwrap_or(0);
        let watchdog = (microseconds > 0).then(|| Duration::from_micros(microseconds));
        Systemd { watchdog }
    }

    /// How often the watchdog wants to be fed: thrice within its limit; never without one.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 3)
    }

    /// The store and the control socket are up and every task runs.
    pub fn ready(&self, status: &str) {
        notify(&[("READY", "1"), ("STATUS", &one_line(status))]);
    }

    /// A new config is taken over; `ready` follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = (now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).to_string();
        notify(&[("RELOADING", "1"), ("MONOTONIC_USEC", &microseconds)]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        notify(&[("STATUS", &one_line(status))]);
    }

    /// Everything that must make progress did.
    pub fn feed_watchdog(&self) {
        notify(&[("WATCHDOG", "1")]);
    }

    /// A start that takes long (a check of the store after a crash) is no hang.
    pub fn extend_timeout(&self, by: Duration) {
        notify(&[("EXTEND_TIMEOUT_USEC", &by.as_micros().to_string())]);
    }

    /// The daemon is going down on request.
    pub fn stopping(&self) {
        notify(&[("STOPPING", "1"), ("STATUS", "stopping; no switch is touched")]);
    }
}

/// A newline in a value would be read as another variable.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn notify(pairs: &[(&str, &str)]) {
    if let Err(error) = systemd::daemon::notify(pairs.iter()) {
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
