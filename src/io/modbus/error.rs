//! What can go wrong on a bus. Every message names bus, unit and point, and what to try.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::core::ids::{BusId, DeviceId};

/// Where a request went: shown in front of every error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bus {bus} unit {unit} {point}")]
pub struct At {
    /// The bus.
    pub bus: BusId,
    /// The unit id.
    pub unit: u8,
    /// The point, or what else was asked.
    pub point: String,
}

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The line or endpoint cannot be opened.
    #[error("bus {bus} cannot be opened at {endpoint}: {why}")]
    Unreachable {
        /// The bus.
        bus: BusId,
        /// Port or `host:port`.
        endpoint: String,
        /// What is wrong, and what to do.
        why: OpenError,
    },
    /// Not asked now: something more urgent goes first, or the device needs its pause.
    #[error("{at}: asked later")]
    Deferred {
        /// Where.
        at: At,
    },
    /// The line broke during a request.
    #[error("{at}: the connection broke: {source}; check cable and gateway")]
    Broken {
        /// Where.
        at: At,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{at}: no answer within {} ms; check power, wiring, unit id and baud rate",
        .timeout.as_millis())]
    Silent {
        /// Where.
        at: At,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// An answer to something else than what was asked.
    #[error(
        "{at}: not an answer to the request: {problem}; check for a second master, a doubled \
             unit id or noise on the line"
    )]
    Mismatch {
        /// Where.
        at: At,
        /// What differs.
        problem: String,
    },
    /// Exceptions 01, 02 and 03: the profile asks for what the device does not have.
    #[error(
        "{at}: refused with exception {code:02} ({}); check that the profile fits the device",
        named(*.code)
    )]
    Refused {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// Exceptions 05 and 06: later.
    #[error(
        "{at}: the device stays busy (exception {code:02}, {}); try again in a minute, \
             power-cycle it if that lasts",
        named(*.code)
    )]
    Busy {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// Exceptions 0A and 0B: the gateway lives, the unit behind it does not.
    #[error(
        "{at}: the gateway does not reach it (exception {code:02X}, {}); check its power and line",
        named(*.code)
    )]
    TargetFailed {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// Any other exception.
    #[error(
        "{at}: failed with exception {code:02X} ({}); power-cycle the device if it persists",
        named(*.code)
    )]
    DeviceFailed {
        /// Where.
        at: At,
        /// The exception code.
        code: u8,
    },
    /// The value cannot be written to this point.
    #[error("device {device} {point}: {problem}; check the profile")]
    NotWritable {
        /// Which device.
        device: DeviceId,
        /// Which point.
        point: String,
        /// Why.
        problem: &'static str,
    },
}

/// Modbus application protocol 1.1b3, section 7.
fn named(exception: u8) -> &'static str {
    match exception {
        0x01 => "illegal function",
        0x02 => "illegal data address",
        0x03 => "illegal data value",
        0x04 => "device failure",
        0x05 => "acknowledged, takes long",
        0x06 => "device busy",
        0x08 => "memory parity error",
        0x0A => "gateway path unavailable",
        0x0B => "gateway target failed to respond",
        _ => "the maker's own",
    }
}

/// Why a line or endpoint cannot be opened, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {advice}")]
pub struct OpenError {
    /// What the system said, in a technician's words.
    pub problem: String,
    /// What to try.
    pub advice: String,
}

/// Serial adapters by their lasting names.
const BY_ID: &str = "/dev/serial/by-id";
/// So many of them are proposed.
const PROPOSALS: usize = 4;
/// So many processes that hold a port are named.
const HOLDERS: usize = 4;

impl OpenError {
    fn new(problem: impl Into<String>, advice: impl Into<String>) -> OpenError {
        OpenError { problem: problem.into(), advice: advice.into() }
    }

    /// Of a `host:port`.
    pub(super) fn of_endpoint(source: &io::Error) -> OpenError {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => OpenError::new(
                "nothing listens there",
                "check the address, and that Modbus is enabled on that port",
            ),
            io::ErrorKind::TimedOut => {
                OpenError::new("no answer", "check power, network cable and address")
            }
            io::ErrorKind::UnexpectedEof => OpenError::new(
                "it hangs up at once",
                "another master may hold its only connection; close that one",
            ),
            _ => OpenError::new(source.to_string(), "check power, network cable and address"),
        }
    }

    /// Of a serial port.
    pub(super) fn of_port(port: &Path, error: &tokio_serial::Error) -> OpenError {
        use tokio_serial::ErrorKind;
        match error.kind() {
            ErrorKind::Io(io::ErrorKind::NotFound) => missing(port, &adapters(Path::new(BY_ID))),
            ErrorKind::Io(io::ErrorKind::PermissionDenied) => OpenError::new(
                "permission denied",
                "let tapgate use it: sudo adduser tapgate dialout, then systemctl restart tapgate \
                 (by hand: sudo)",
            ),
            ErrorKind::NoDevice => held(port, holder(port)),
            ErrorKind::InvalidInput | ErrorKind::Unknown | ErrorKind::Io(_) => OpenError::new(
                error.to_string(),
                "check that it is a serial adapter, plug it out and in again",
            ),
        }
    }
}

fn missing(port: &Path, adapters: &[String]) -> OpenError {
    let problem = match std::fs::symlink_metadata(port) {
        Ok(_) => "the link leads to nothing: its adapter is unplugged",
        Err(_) => "there is no such port",
    };
    let advice = match adapters {
        [] => "plug the adapter in, none is there now".into(),
        some => {
            let proposals = some.iter().take(PROPOSALS).cloned().collect::<Vec<_>>().join(", ");
            format!("plug the adapter in, or set port to one that is there: {proposals}")
        }
    };
    OpenError::new(problem, advice)
}

fn held(port: &Path, holder: Option<String>) -> OpenError {
    let problem = match holder {
        Some(holder) => format!("held by another process ({holder})"),
        None => "held by another process".into(),
    };
    OpenError::new(problem, format!("stop that one; sudo fuser -v {} shows it", port.display()))
}

fn adapters(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.path().display().to_string()).collect();
    names.sort();
    names
}

/// The processes that have the port open, as far as this user may see.
fn holder(port: &Path) -> Option<String> {
    let node = std::fs::canonicalize(port).ok()?;
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let holders = processes.filter_map(|process| {
        let number = process.file_name().into_string().ok()?;
        if number == own || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == node))?;
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(format!("{} {number}", name.trim()))
    });
    let holders: Vec<String> = holders.take(HOLDERS).collect();
    (!holders.is_empty()).then(|| holders.join(", "))
}

impl BusError {
    /// Whether this is not about one unit: the bus cannot be used, or not now.
    pub fn is_of_bus(&self) -> bool {
        matches!(self, BusError::Unreachable { .. } | BusError::Deferred { .. })
    }

    /// Whether the unit did not answer (rather than answering something unwelcome).
    pub fn is_silence(&self) -> bool {
        match self {
            BusError::Broken { .. }
            | BusError::Silent { .. }
            | BusError::Mismatch { .. }
            | BusError::TargetFailed { .. } => true,
            BusError::Unreachable { .. }
            | BusError::Deferred { .. }
            | BusError::Refused { .. }
            | BusError::Busy { .. }
            | BusError::DeviceFailed { .. }
            | BusError::NotWritable { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_technician_reads_says_what_is_wrong_and_what_to_do() {
        let port = Path::new("/dev/serial/by-id/usb-X");
        let denied = io::ErrorKind::PermissionDenied;
        let error = tokio_serial::Error::new(tokio_serial::ErrorKind::Io(denied), "denied");
        let error = BusError::Unreachable {
            bus: "laundry".into(),
            endpoint: port.display().to_string(),
            why: OpenError::of_port(port, &error),
        };
        assert_eq!(
            error.to_string(),
            "bus laundry cannot be opened at /dev/serial/by-id/usb-X: permission denied; let \
             tapgate use it: sudo adduser tapgate dialout, then systemctl restart tapgate \
             (by hand: sudo)"
        );
        let there = ["/dev/serial/by-id/usb-Y".to_owned()];
        assert_eq!(
            missing(port, &there).to_string(),
            "there is no such port; plug the adapter in, or set port to one that is there: \
             /dev/serial/by-id/usb-Y"
        );
        assert_eq!(
            held(port, Some("minicom 4711".into())).to_string(),
            "held by another process (minicom 4711); stop that one; \
             sudo fuser -v /dev/serial/by-id/usb-X shows it"
        );
    }
}
