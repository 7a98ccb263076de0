//! When time alone does something to a station, and what.

use crate::core::event::Command;
use crate::core::session::Phase;
use crate::core::station::{OPEN_RETRY, Station, Turn};
use crate::core::time::Uptime;

/// A recovered session waits for its switch to be seen; it is asked for again this often.
pub(super) const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

impl Station {
    /// The next moment at which time alone does something here, and why.
    pub(super) fn next_timeout(&self) -> Option<(Uptime, &'static str)> {
        let pending = self.pending.as_ref();
        let timers = [
            pending.map(|pending| (pending.deadline, "start register")),
            pending.and_then(|pending| pending.retry_at).map(|at| (at, "start register again")),
            self.switch.retry_at.map(|at| (at, "switch to command again")),
            self.phase_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    fn phase_timeout(&self) -> Option<(Uptime, &'static str)> {
        let session = self.session.as_ref()?;
        match session.phase {
            Phase::Recovering => self.resume_at().map(|at| (at, "session to resume")),
            Phase::Closing { retry_at, .. } => Some((retry_at, "switch not confirmed")),
            Phase::Running => session.limit_at(&self.plan).map(|at| (at, "limit")),
            Phase::Ending { since, reason, .. } => {
                Some((since + self.end_read_timeout(reason), "end register"))
            }
        }
    }

    /// Does everything that is due.
    pub(super) fn on_timeout(&mut self, turn: &mut Turn<'_>) {
        let now = turn.uptime();
        if let Some(pending) = &mut self.pending {
            if pending.deadline <= now {
                self.complete_start(None, turn);
            } else if pending.retry_at.is_some_and(|at| at <= now) {
                pending.retry_at = None;
                turn.command(Command::ReadMeter(self.plan.id.clone()));
            }
        }
        if self.switch.retry_at.is_some_and(|at| at <= now) {
            self.command_switch_again(turn);
        }
        match self.session.as_ref().map(|session| session.phase) {
            Some(Phase::Closing { attempts, retry_at }) if retry_at <= now => {
                self.retry_close(attempts, turn);
            }
            Some(Phase::Ending { .. }) => self.watch_run_down(None, None, turn),
            Some(Phase::Running) => self.end_if_due(turn),
            Some(Phase::Recovering) => self.resume_if_due(turn),
            Some(Phase::Closing { .. }) | None => {}
        }
    }

    fn command_switch_again(&mut self, turn: &mut Turn<'_>) {
        if self.switch.must_open {
            self.switch.retry_at = Some(turn.uptime() + OPEN_RETRY);
            turn.command(Command::OpenSwitch(self.plan.id.clone()));
        } else {
            // Until it reports.
            self.switch.retry_at = Some(turn.uptime() + ASK_AGAIN);
            turn.command(Command::ReadSwitch(self.plan.id.clone()));
        }
    }
}
