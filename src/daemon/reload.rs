//! Takes over a changed config without ending the process.
//!
//! A reload goes the way of a restart, whose recovery is what keeps sessions: everything ends, the
//! store is closed, and the daemon starts on the new config. No switch is touched. What a restart
//! would do wrong is refused before: a config with errors, or one that takes the switch or the
//! meter away from a session. Then the running config stays.

use std::path::PathBuf;

use crate::config::wiring::{Control, Wiring};
use crate::config::{self, Config};
use crate::core::ids::{DeviceId, StationId};
use crate::core::view::State;
use crate::daemon::event_loop::Daemon;
use crate::daemon::startup;

/// The config that runs and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) file: PathBuf,
}

/// A new config that may be taken over.
#[derive(Debug)]
pub(super) struct Reload {
    next: Running,
    previous: Config,
}

/// Why the running config stays.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("{0} cannot change while the daemon runs; use: systemctl restart tapgate")]
    NeedsRestart(&'static str),
    #[error("station {0} is in use and the new config has no such station; wait for its session")]
    StationGone(StationId),
    #[error(
        "station {0} is in use and the new config wires it differently; wait for its session to end"
    )]
    StationRewired(StationId),
    #[error("{0} records are not saved yet and would be lost; mend the store first")]
    Unsaved(usize),
}

impl Reload {
    /// Starts the daemon on the new config; on the previous one where that fails.
    pub(super) async fn carry_out(self) -> anyhow::Result<Daemon> {
        let Reload { next, previous } = self;
        let file = next.file.clone();
        match startup::start(next).await {
            Ok(daemon) => Ok(daemon),
            Err(error) => {
                tracing::error!(
                    "the new config does not start, the previous one goes on: {error:#}"
                );
                startup::start(Running { config: previous, file }).await
            }
        }
    }
}

impl Daemon {
    /// Checks what the config file says now and arranges for it to be taken over; or says why not.
    pub(super) fn on_reload(&mut self) -> Result<String, String> {
        match self.prepare() {
            Ok(reload) => {
                let said = difference(&reload.previous, &reload.next.config);
                tracing::info!("reload: {said}");
                self.systemd.reloading();
                self.reload = Some(reload);
                Ok(said)
            }
            Err(why) => {
                tracing::error!("reload refused, the running config stays: {why}");
                Err(format!("the running config stays: {why}"))
            }
        }
    }

    fn prepare(&self) -> Result<Reload, String> {
        let Running { config: previous, file } = &self.running;
        let config = config::load(file).map_err(|errors| errors.to_string())?;
        let in_use: Vec<StationId> = self
            .gateway
            .stations(self.clock.now())
            .into_iter()
            .filter(|view| view.session.is_some() || view.state == State::Starting)
            .map(|view| view.station)
            .collect();
        let allowed = may_follow(previous, &config, &in_use).and_then(|()| {
            let unsaved = self.gateway.unsaved();
            if unsaved == 0 { Ok(()) } else { Err(Refusal::Unsaved(unsaved)) }
        });
        allowed.map_err(|refusal| refusal.to_string())?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let next = Running { config, file: file.clone() };
        Ok(Reload { next, previous: previous.clone() })
    }
}

/// Whether `next` may take over from `running` while these stations are in use.
fn may_follow(running: &Config, next: &Config, in_use: &[StationId]) -> Result<(), Refusal> {
    if running.gateway_id != next.gateway_id {
        return Err(Refusal::NeedsRestart("[gateway] id"));
    }
    if running.storage.path != next.storage.path {
        return Err(Refusal::NeedsRestart("[storage] path"));
    }
    if running.control_socket != next.control_socket {
        return Err(Refusal::NeedsRestart("[control] socket"));
    }
    for station in in_use {
        let Some(new) = Circuit::of(&next.wiring, station) else {
            return Err(Refusal::StationGone(station.clone()));
        };
        if Circuit::of(&running.wiring, station).as_ref() != Some(&new) {
            return Err(Refusal::StationRewired(station.clone()));
        }
    }
    Ok(())
}

/// What gives a station power and counts it, down to the line: a session depends on all of it.
#[derive(PartialEq)]
struct Circuit<'a> {
    control: &'a Control,
    meter: Option<&'a DeviceId>,
    lines: Vec<Line<'a>>,
}

#[derive(PartialEq)]
struct Line<'a> {
    transport: &'a config::wiring::Transport,
    unit: u8,
    profile: &'a config::profile::Profile,
}

impl<'a> Circuit<'a> {
    fn of(wiring: &'a Wiring, station: &StationId) -> Option<Circuit<'a>> {
        let wired = wiring.stations.iter().find(|wired| &wired.station == station)?;
        let control = match &wired.control {
            Control::Switch(point) => &point.device,
            Control::Charger { device, .. } => device,
        };
        let feedback = wired.feedback.as_ref().map(|point| &point.device);
        let devices = [Some(control), wired.meter.as_ref(), feedback];
        let lines = devices.into_iter().flatten().filter_map(|id| Line::to(wiring, id)).collect();
        Some(Circuit { control: &wired.control, meter: wired.meter.as_ref(), lines })
    }
}

impl<'a> Line<'a> {
    fn to(wiring: &'a Wiring, id: &DeviceId) -> Option<Line<'a>> {
        let device = wiring.devices.iter().find(|device| &device.id == id)?;
        let bus = wiring.buses.iter().find(|bus| bus.id == device.bus)?;
        Some(Line { transport: &bus.transport, unit: device.unit, profile: &device.profile })
    }
}

fn difference(running: &Config, next: &Config) -> String {
    let ids = |config: &Config| -> Vec<StationId> {
        config.site.stations.iter().map(|station| station.id.clone()).collect()
    };
    let (before, after) = (ids(running), ids(next));
    let only = |these: &[StationId], not_those: &[StationId]| -> Vec<String> {
        let new = these.iter().filter(|id| !not_those.contains(id));
        new.map(ToString::to_string).collect()
    };
    let mut said = format!("the new config is taken over; {} stations", after.len());
    for (what, stations) in [("new", only(&after, &before)), ("gone", only(&before, &after))] {
        if !stations.is_empty() {
            said += &format!(", {what}: {}", stations.join(", "));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = include_str!("../../config.example.toml");

    fn config(text: &str) -> Config {
        config::parse(text, "config.toml").expect("a valid config")
    }

    /// What becomes of a change while the first washer runs.
    fn reload(from: &str, to: &str) -> Result<(), Refusal> {
        assert!(BEFORE.contains(from), "{from}");
        let in_use = [StationId::from("washer-1")];
        may_follow(&config(BEFORE), &config(&BEFORE.replace(from, to)), &in_use)
    }

    fn washer() -> StationId {
        StationId::from("washer-1")
    }

    #[test]
    fn takes_labels_rules_and_new_stations_over() {
        assert_eq!(reload("\"Machine 1\"", "\"Machine one\""), Ok(()));
        assert_eq!(reload("# idle_after = \"8m\"", "idle_after = \"9m\""), Ok(()));
        assert_eq!(reload("id = \"dryer-1\"", "id = \"dryer-9\""), Ok(()));
    }

    #[test]
    fn keeps_a_station_in_use() {
        assert_eq!(
            reload("id = \"washer-1\"", "id = \"washer-9\""),
            Err(Refusal::StationGone(washer()))
        );
    }

    #[test]
    fn keeps_the_wiring_of_a_station_in_use() {
        let rewired = Err(Refusal::StationRewired(washer()));
        assert_eq!(
            reload("switch = \"laundry-relays/relay-1\"", "switch = \"laundry-relays/relay-3\""),
            rewired
        );
        assert_eq!(reload("unit = 11", "unit = 14"), rewired);
        assert_eq!(reload("usb-FTDI_FT232R-if00-port0", "usb-FTDI_FT232R-if00-port1"), rewired);
    }

    #[test]
    fn asks_for_a_restart_where_the_store_or_the_socket_moves() {
        assert_eq!(
            reload("# path = \"/var/lib/tapgate/tapgate.db\"", "path = \"/srv/tapgate.db\""),
            Err(Refusal::NeedsRestart("[storage] path"))
        );
    }

    #[test]
    fn tells_what_is_new_and_what_is_gone() {
        let said =
            difference(&config(BEFORE), &config(&BEFORE.replace("\"dryer-1\"", "\"dryer-9\"")));
        assert_eq!(said, "the new config is taken over; 4 stations, new: dryer-9, gone: dryer-1");
    }
}
