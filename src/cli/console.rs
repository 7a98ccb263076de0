//! A technician's way to the buses: through the running daemon, else over lines of one's own.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Runtime;

use crate::cli::client;
use crate::config::profile::Point;
use crate::config::wiring::Device;
use crate::config::{self, Config};
use crate::core::ids::BusId;
use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE, EXIT_PERMISSION};
use crate::io::modbus::{self, Direct};
use crate::protocol::control::{BusAnswer, BusFailure, BusOrder, FailureKind, Reply, Request};

/// EX_USAGE: what was named does not exist.
pub(super) const EXIT_USAGE: u8 = 64;

/// The buses of a config, whoever has them open.
pub(super) struct Console {
    pub(super) config: Config,
    lines: Lines,
}

enum Lines {
    /// The daemon has them.
    Daemons,
    /// Opened here, one by one.
    Own(Runtime, BTreeMap<BusId, Direct>),
}

/// What a point shows.
pub(super) struct Shown {
    /// In the point's unit; `None` where the device has no value.
    pub(super) value: Option<String>,
    pub(super) raw: BusAnswer,
    /// The power of ten that the device gave it, where the profile has one.
    pub(super) exponent: Option<i64>,
}

impl Console {
    /// Loads the config and finds out whether the daemon runs. Says on stderr what is wrong.
    pub(super) fn open(config_file: &Path) -> Result<Console, ExitCode> {
        let config = config::load(config_file).map_err(|errors| {
            eprintln!("{errors}");
            ExitCode::from(EXIT_CONFIG)
        })?;
        let socket = &config.control_socket;
        let lines = match UnixStream::connect(socket) {
            Ok(_) => Lines::Daemons,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| failure(&error.to_string()))?;
                Lines::Own(runtime, BTreeMap::new())
            }
            Err(error) => return Err(client::explain(socket, &error)),
        };
        Ok(Console { config, lines })
    }

    /// Whether the daemon has the buses.
    pub(super) fn has_daemon(&self) -> bool {
        matches!(self.lines, Lines::Daemons)
    }

    /// The device of that name.
    pub(super) fn device(&self, name: &str) -> Result<Device, ExitCode> {
        let devices = &self.config.wiring.devices;
        let found = devices.iter().find(|device| device.id.as_str() == name);
        found.cloned().ok_or_else(|| {
            let known = devices.iter().map(|device| device.id.as_str());
            usage(&format!("there is no device `{name}`; the config has: {}", listed(known)))
        })
    }

    /// One request to one unit.
    pub(super) fn ask(
        &mut self,
        bus: &BusId,
        unit: u8,
        order: BusOrder,
    ) -> Result<BusAnswer, BusFailure> {
        let refused = |message| BusFailure { kind: FailureKind::Refused, message };
        let Config { wiring, control_socket, .. } = &self.config;
        let (runtime, lines) = match &mut self.lines {
            Lines::Daemons => {
                let request = Request::Bus { bus: bus.clone(), unit, order };
                return match client::converse(control_socket, &request) {
                    Ok(Reply::Bus(answer)) => Ok(answer),
                    Ok(Reply::BusFailed(failure)) => Err(failure),
                    Ok(Reply::Error(message)) => Err(refused(message)),
                    Ok(
                        Reply::Status(_)
                        | Reply::Done(_)
                        | Reply::StationTest(_)
                        | Reply::LedgerRecords(_)
                        | Reply::LedgerVerified(_)
                        | Reply::Identity { .. }
                        | Reply::Badge(_)
                        | Reply::Readers(_)
                        | Reply::Taps(_)
                        | Reply::Unknown(_)
                        | Reply::Storage(_)
                        | Reply::List(_)
                        | Reply::Watching {},
                    ) => Err(refused("the daemon answers something else; restart it".into())),
                    Err(error) => Err(refused(format!("the daemon is gone: {error}; try again"))),
                };
            }
            Lines::Own(runtime, lines) => (runtime, lines),
        };
        if let Some(reason) = modbus::protected(wiring, bus, unit, &order) {
            return Err(refused(reason));
        }
        let Some((planned, slowest)) = modbus::bus_of(wiring, bus) else {
            return Err(refused(format!("there is no bus {bus} in the config")));
        };
        let mut devices = wiring.devices.iter();
        let known = devices.find(|device| device.bus == *bus && device.unit == unit);
        let timeout = known.and_then(|device| device.profile.timeout).unwrap_or(planned.timeout);
        let gap = known.map(|device| device.profile.min_gap);
        let gap = gap.unwrap_or_else(|| modbus::gap_of_strangers(planned));
        let _entered = runtime.enter();
        let line = lines.entry(bus.clone()).or_insert_with(|| Direct::new(planned, slowest));
        runtime.block_on(line.ask(unit, &order, (timeout, gap)))
    }

    /// Reads a point of a device, with all that its value is made of.
    pub(super) fn read(&mut self, device: &Device, point: &Point) -> Result<Shown, BusFailure> {
        let mut shown = self.read_alone(device, point)?;
        for name in &point.plus {
            let Some(part) = device.profile.points.get(name) else { continue };
            let part = self.read_alone(device, part)?.value;
            shown.value = sum(shown.value, part);
        }
        Ok(shown)
    }

    fn read_alone(&mut self, device: &Device, point: &Point) -> Result<Shown, BusFailure> {
        let raw = self.ask(&device.bus, device.unit, modbus::span(point))?;
        let scale = point.exponent.as_ref().and_then(|name| device.profile.points.get(name));
        let exponent = match scale {
            Some(point) => {
                let answer = self.ask(&device.bus, device.unit, modbus::span(point))?;
                modbus::shown(point, &answer, None).and_then(|shown| shown.parse().ok())
            }
            None => None,
        };
        Ok(Shown { value: modbus::shown(point, &raw, exponent), raw, exponent })
    }
}

/// For show: what is billed is added exactly, by the daemon.
fn sum(one: Option<String>, other: Option<String>) -> Option<String> {
    let (one, other): (f64, f64) = (one?.parse().ok()?, other?.parse().ok()?);
    Some((one + other).to_string())
}

/// Says why a request failed; with the exit code.
pub(super) fn refuse(failure_of: &BusFailure) -> ExitCode {
    eprintln!("tapgate: {}", failure_of.message);
    match failure_of.kind {
        FailureKind::Unreachable if failure_of.message.contains("permission denied") => {
            ExitCode::from(EXIT_PERMISSION)
        }
        FailureKind::Silent
        | FailureKind::Broken
        | FailureKind::Exception
        | FailureKind::Unreachable
        | FailureKind::Refused => ExitCode::from(EXIT_FAILURE),
    }
}

/// Says what was wrong with the command line.
pub(super) fn usage(message: &str) -> ExitCode {
    eprintln!("tapgate: {message}");
    ExitCode::from(EXIT_USAGE)
}

fn failure(message: &str) -> ExitCode {
    eprintln!("tapgate: {message}");
    ExitCode::from(EXIT_FAILURE)
}

/// Names, or a dash.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
