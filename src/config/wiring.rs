//! What hangs where: buses, devices, reader bindings and the points of each station.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::profile::Profile;
use crate::core::ids::{BusId, DeviceId, ReaderId, StationId};

/// The wiring of a site, valid by construction: every reference resolves, every point exists in
/// its device's profile and can do what is asked of it.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the sections of the config")]
pub struct Wiring {
    pub buses: Vec<Bus>,
    pub devices: Vec<Device>,
    pub readers: Vec<ReaderBinding>,
    pub stations: Vec<StationWiring>,
}

/// One Modbus line or TCP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bus {
    /// Its name in the config.
    pub id: BusId,
    /// How it is reached.
    pub transport: Transport,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

/// How a bus is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Modbus/TCP, `host:port`.
    Tcp(String),
    /// RTU frames over a TCP connection, `host:port`.
    RtuOverTcp(String),
    /// A serial line.
    Rtu(Serial),
}

/// Settings of a serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Serial {
    pub port: PathBuf,
    pub baud: u32,
    pub parity: Parity,
    pub stop_bits: u8,
}

/// Parity of a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Parity {
    None,
    Even,
    Odd,
}

/// One slave on a bus.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its name in the config.
    pub id: DeviceId,
    /// The bus it hangs on.
    pub bus: BusId,
    /// Its unit id.
    pub unit: u8,
    /// Its register map.
    pub profile: Arc<Profile>,
}

/// A point of a device, as `device/point` in the config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words say it")]
pub struct PointRef {
    pub device: DeviceId,
    pub point: String,
}

/// Which PC/SC reader a configured reader is.
#[derive(Clone, Debug)]
pub struct ReaderBinding {
    /// Its name in the config.
    pub reader: ReaderId,
    /// How it is found.
    pub by: BindBy,
    /// Reader model for LED and buzzer (`acr122u`, `acr1252u`); none where `None`.
    pub feedback: Option<String>,
}

/// How a reader is found among those that pcscd lists.
#[derive(Clone, Debug)]
pub enum BindBy {
    /// USB port path, the socket it is plugged into (`1-1.2`).
    UsbPort(String),
    /// The reader's serial number.
    Serial(String),
    /// Glob on the full PC/SC name.
    Name(glob::Pattern),
}

/// The points of one station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationWiring {
    /// Whose points.
    pub station: StationId,
    /// What gives it power or permission.
    pub control: Control,
    /// Reads true when power is really on.
    pub feedback: Option<PointRef>,
    /// For `selection = "button"`.
    pub button: Option<PointRef>,
    /// Lit while the station is in use.
    pub lamp: Option<PointRef>,
    /// The device with `energy_import` and `power`.
    pub meter: Option<DeviceId>,
}

/// What gives a station power or permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A relay.
    Switch(PointRef),
    /// A charger with its own Modbus control.
    Charger {
        /// Which device.
        device: DeviceId,
        /// Offered to the car.
        current_limit_ma: u32,
    },
}
