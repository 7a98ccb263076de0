//! The lamps at the machines: lit while a session is open, blinking while its button would count,
//! three flashes where a badge was refused.
//!
//! A lamp follows from what else is known, so it is set at the end of every turn, and after a
//! restart whatever it showed before.

use std::time::Duration;

use crate::core::event::{Command, Notice};
use crate::core::gateway::Gateway;
use crate::core::ids::{ReaderId, StationId};
use crate::core::station::Turn;
use crate::core::time::Uptime;

/// Half a period of blinking. A lamp goes last on its bus and must not fill it.
const BLINK: Duration = Duration::from_millis(500);
/// Half a period of the flashes of a refusal.
const FLASH: Duration = Duration::from_millis(250);
/// On and off, three times.
const FLASHES: u64 = 6;

/// What a lamp shows and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Lamp {
    /// As it was last set; not known after a start.
    shown: Option<bool>,
    refused_at: Option<Uptime>,
    waiting_since: Option<Uptime>,
    changes_at: Option<Uptime>,
}

impl Lamp {
    /// When time alone changes it.
    pub(super) fn next_timeout(&self) -> Option<(Uptime, &'static str)> {
        self.changes_at.map(|at| (at, "lamp"))
    }

    /// What to show now, and when that changes.
    fn look(&mut self, lit: bool, now: Uptime) -> bool {
        if let Some(since) = self.refused_at {
            let phase = phase(since, now, FLASH);
            if phase < FLASHES {
                self.changes_at = Some(end_of(phase, since, FLASH));
                return lit ^ phase.is_multiple_of(2);
            }
            self.refused_at = None;
        }
        let Some(since) = self.waiting_since else {
            self.changes_at = None;
            return lit;
        };
        let phase = phase(since, now, BLINK);
        self.changes_at = Some(end_of(phase, since, BLINK));
        phase.is_multiple_of(2)
    }
}

impl Gateway {
    /// Sets each lamp that does not show what it should.
    pub(super) fn light_lamps(&mut self, turn: &mut Turn<'_>) {
        let now = turn.uptime();
        let refused = refusals(&turn.step.commands);
        let choosable: Vec<StationId> =
            self.readers.iter().flat_map(|reader| reader.choosable()).cloned().collect();
        for station in self.stations.iter_mut().filter(|station| station.plan.has_lamp) {
            let plan = &station.plan;
            let is_refused = refused.iter().any(|(reader, at)| match at {
                Some(at) => *at == plan.id,
                None => *reader == plan.reader,
            });
            let lamp = &mut station.lamp;
            if is_refused {
                lamp.refused_at = Some(now);
            }
            lamp.waiting_since =
                choosable.contains(&plan.id).then(|| lamp.waiting_since.unwrap_or(now));
            let wanted = lamp.look(station.session.is_some(), now);
            if lamp.shown != Some(wanted) {
                lamp.shown = Some(wanted);
                turn.command(Command::SetLamp(plan.id.clone(), wanted));
            }
        }
    }
}

/// Where badges were refused in this turn: at which station, if at one.
fn refusals(commands: &[Command]) -> Vec<(ReaderId, Option<StationId>)> {
    let refusal = |command: &Command| match command {
        Command::Notify(Notice::Denied { reader, station, .. }) => {
            Some((reader.clone(), station.clone()))
        }
        Command::CloseSwitch(_)
        | Command::OpenSwitch(_)
        | Command::ReadSwitch(_)
        | Command::ReadMeter(_)
        | Command::ReadRegister(_)
        | Command::PaceMeter(..)
        | Command::WatchButtons(..)
        | Command::SetLamp(..)
        | Command::ShowFeedback(..)
        | Command::Notify(_)
        | Command::PublishStation(_)
        | Command::Answer(..) => None,
    };
    commands.iter().filter_map(refusal).collect()
}

fn phase(since: Uptime, now: Uptime, half: Duration) -> u64 {
    u64::try_from(now.since(since).as_millis() / half.as_millis()).unwrap_or(u64::MAX)
}

fn end_of(phase: u64, since: Uptime, half: Duration) -> Uptime {
    since + half * u32::try_from(phase + 1).unwrap_or(u32::MAX)
}
