//! `[[bus]]` and `[[device]]`: what hangs where, and how it is spoken to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::document::{At, Document, Section};
use super::library::Library;
use super::profile::{Defaults, Profile};
use super::profile_file::{self, MAX_TIMEOUT, PARITIES};
use super::values;
use super::wiring::{Bus, Device, Parity, Serial, Transport};

/// Shorter waits find working devices silent.
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// Modbus/TCP, and gateways to RTU, as registered with IANA.
const MODBUS_PORT: u16 = 502;

/// A bus as written: what it leaves out is taken from its devices' profiles.
pub(super) struct BusDraft {
    pub(super) id: At<String>,
    link: Option<Link>,
    timeout: Option<Duration>,
}

#[derive(Clone)]
enum Link {
    Tcp(String),
    RtuOverTcp(String),
    Rtu(SerialDraft),
}

#[derive(Clone)]
struct SerialDraft {
    port: PathBuf,
    baud: Option<u32>,
    parity: Option<Parity>,
    stop_bits: Option<u8>,
}

/// A device as written; parts are missing only where an error was reported.
pub(super) struct DeviceDraft {
    pub(super) id: At<String>,
    bus: Option<At<String>>,
    unit: Option<u8>,
    pub(super) profile: Option<Arc<Profile>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rtu,
    Tcp,
    RtuOverTcp,
}

const TRANSPORTS: [(&str, Kind); 3] =
    [("rtu", Kind::Rtu), ("tcp", Kind::Tcp), ("rtu-over-tcp", Kind::RtuOverTcp)];

/// All `[[bus]]`es, in order.
pub(super) fn read_buses(root: &Section<'_>) -> Vec<BusDraft> {
    let mut buses: Vec<BusDraft> = Vec::new();
    let mut endpoints: Vec<At<String>> = Vec::new();
    for section in root.tables("bus") {
        let document = section.document;
        let id = section.id("id", "laundry");
        section.require("transport", "\"rtu\" or \"tcp\"");
        let kind = section.choice("transport", &TRANSPORTS).map(|at| at.value);
        let link = kind.and_then(|kind| read_link(&section, kind, &mut endpoints));
        let timeout = section.duration("timeout", "200ms", MIN_TIMEOUT..=MAX_TIMEOUT);
        if kind.is_some() {
            section.finish();
        }
        let Some(id) = id else { continue };
        if !is_twice(document, "bus", &id, buses.iter().map(|bus| &bus.id)) {
            buses.push(BusDraft { id, link, timeout: timeout.map(|at| at.value) });
        }
    }
    buses
}

/// Reports an id that an earlier section of the same kind has.
pub(super) fn is_twice<'a>(
    document: &Document<'_>,
    what: &str,
    id: &At<String>,
    mut earlier: impl Iterator<Item = &'a At<String>>,
) -> bool {
    let Some(first) = earlier.find(|first| first.value == id.value) else { return false };
    let line = document.line(&first.place);
    let message = format!("{what} `{}` is already on line {line}", id.value);
    document.error(&id.place, message, "give it another id");
    true
}

/// Reports a reference to something that is not there.
pub(super) fn unknown<'a>(
    document: &Document<'_>,
    what: &str,
    name: &At<&str>,
    known: impl Iterator<Item = &'a str> + Clone,
) {
    /// More would hide the answer.
    const MAX_SHOWN: usize = 12;
    let help = match values::closest(name.value, known.clone()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if known.clone().next().is_none() => format!("add a {what} first"),
        None => {
            let more = if known.clone().count() > MAX_SHOWN { ", ..." } else { "" };
            let shown = known.take(MAX_SHOWN).collect::<Vec<_>>().join(", ");
            format!("name one of these: {shown}{more}")
        }
    };
    document.error(&name.place, format!("there is no {what} `{}`", name.value), help);
}

fn read_link(section: &Section<'_>, kind: Kind, endpoints: &mut Vec<At<String>>) -> Option<Link> {
    let link = match kind {
        Kind::Rtu => read_serial(section).map(|(place, serial)| (place, Link::Rtu(serial))),
        Kind::Tcp => read_address(section).map(|at| (at.clone(), Link::Tcp(at.value))),
        Kind::RtuOverTcp => {
            read_address(section).map(|at| (at.clone(), Link::RtuOverTcp(at.value)))
        }
    };
    let (endpoint, link) = link?;
    if let Some(first) = endpoints.iter().find(|first| first.value == endpoint.value) {
        let line = section.document.line(&first.place);
        let message = format!("`{}` is already a bus on line {line}", endpoint.value);
        let help = "one line or endpoint is one bus; put all of its devices there";
        section.document.error(&endpoint.place, message, help);
    }
    endpoints.push(endpoint);
    Some(link)
}

fn read_address(section: &Section<'_>) -> Option<At<String>> {
    section.require("address", "\"10.20.0.5:502\"");
    section.parsed("address", "10.20.0.5:502", |text| {
        let (host, port) = values::endpoint(text, MODBUS_PORT)?;
        Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    })
}

fn read_serial(section: &Section<'_>) -> Option<(At<String>, SerialDraft)> {
    section.require("port", "\"/dev/serial/by-id/...\"");
    let port = section.path("port");
    let draft = |port| SerialDraft {
        port,
        baud: profile_file::baud(section),
        parity: section.choice("parity", &PARITIES).map(|at| at.value),
        stop_bits: section.integer("stop_bits", 1..=2).map(|at| at.value as u8),
    };
    match port {
        Some(port) => {
            let name = port.clone().map(|path| path.display().to_string());
            Some((name, draft(port.value)))
        }
        None => {
            // Its other keys are checked all the same.
            draft(PathBuf::new());
            None
        }
    }
}

/// All `[[device]]`s, in order. `library` is `None` where it could not be read.
pub(super) fn read_devices(
    root: &Section<'_>,
    buses: &[BusDraft],
    library: Option<&Library>,
) -> Vec<DeviceDraft> {
    let mut devices: Vec<DeviceDraft> = Vec::new();
    for section in root.tables("device") {
        let document = section.document;
        let id = section.id("id", "meter-washer-1");
        section.require("bus", "\"laundry\"");
        section.require("profile", "\"eastron-sdm120\"");
        let bus = section.text("bus");
        let draft = bus.as_ref().and_then(|bus| {
            let found = buses.iter().find(|draft| draft.id.value == bus.value);
            if found.is_none() {
                unknown(document, "bus", bus, buses.iter().map(|bus| bus.id.value.as_str()));
            }
            found
        });
        let profile = read_profile(&section, library);
        let unit = read_unit(&section, draft, profile.as_deref());
        section.finish();
        let Some(id) = id else { continue };
        let device = DeviceDraft { id, bus: bus.map(|at| at.map(str::to_owned)), unit, profile };
        check_unit(document, &device, &devices);
        if !is_twice(document, "device", &device.id, devices.iter().map(|device| &device.id)) {
            devices.push(device);
        }
    }
    devices
}

fn read_profile(section: &Section<'_>, library: Option<&Library>) -> Option<Arc<Profile>> {
    let name = section.text("profile")?;
    let library = library?;
    let found = library.find(name.value).map(|shelved| shelved.profile().clone());
    if found.is_none() {
        unknown(section.document, "profile", &name, library.iter().map(|(name, _)| name));
    }
    found
}

fn read_unit(
    section: &Section<'_>,
    bus: Option<&BusDraft>,
    profile: Option<&Profile>,
) -> Option<u8> {
    let line =
        matches!(bus.and_then(|bus| bus.link.as_ref()), Some(Link::Rtu(_) | Link::RtuOverTcp(_)));
    // Modbus over serial line 1.02, section 2.2: 0 is broadcast, 248 to 255 are reserved. On TCP
    // they are in use: 255 and 0 mean the device itself.
    let range = if line { 1..=247 } else { 0..=255 };
    if section.has("unit") {
        return section.integer("unit", range).and_then(|at| u8::try_from(at.value).ok());
    }
    // Known all the same, for the list of keys.
    let _ = section.get("unit");
    let default = profile?.defaults.unit.filter(|unit| range.contains(&i64::from(*unit)));
    if default.is_none() {
        section.require("unit", "the device's address on its bus");
    }
    default
}

/// Two devices that answer to one address would answer each other's questions.
fn check_unit(document: &Document<'_>, device: &DeviceDraft, devices: &[DeviceDraft]) {
    let (Some(bus), Some(unit)) = (&device.bus, device.unit) else { return };
    let same = |other: &&DeviceDraft| {
        other.unit == Some(unit) && other.bus.as_ref().is_some_and(|at| at.value == bus.value)
    };
    let Some(other) = devices.iter().find(same) else { return };
    let line = document.line(&other.id.place);
    let message = format!(
        "`{}` is unit {unit} of bus `{}`, as is `{}` on line {line}",
        device.id.value, bus.value, other.id.value
    );
    let help = "give each device its own unit, or name one device twice by one id";
    document.error(&device.id.place, message, help);
}

/// The buses with the settings that they leave to their devices' profiles.
pub(super) fn finish_buses(
    document: &Document<'_>,
    drafts: &[BusDraft],
    devices: &[DeviceDraft],
) -> Vec<Bus> {
    drafts.iter().filter_map(|draft| finish_bus(document, draft, devices)).collect()
}

fn finish_bus(document: &Document<'_>, draft: &BusDraft, devices: &[DeviceDraft]) -> Option<Bus> {
    /// On a line that is slow an answer of 64 registers alone takes half a second.
    const SLOW_BAUD: u32 = 9_600;
    let transport = match draft.link.clone()? {
        Link::Tcp(address) => Transport::Tcp(address),
        Link::RtuOverTcp(address) => Transport::RtuOverTcp(address),
        Link::Rtu(serial) => Transport::Rtu(finish_serial(document, draft, serial, devices)),
    };
    let default = match &transport {
        Transport::Rtu(serial) if serial.baud >= SLOW_BAUD => Duration::from_millis(200),
        Transport::Rtu(_) => Duration::from_secs(1),
        Transport::Tcp(_) | Transport::RtuOverTcp(_) => Duration::from_millis(500),
    };
    let timeout = draft.timeout.unwrap_or(default);
    Some(Bus { id: draft.id.value.as_str().into(), transport, timeout })
}

/// Settings of the bus win; else all devices that name a default must agree.
fn finish_serial(
    document: &Document<'_>,
    draft: &BusDraft,
    serial: SerialDraft,
    devices: &[DeviceDraft],
) -> Serial {
    let on_bus =
        |device: &&DeviceDraft| device.bus.as_ref().is_some_and(|bus| bus.value == draft.id.value);
    let defaults: Vec<Defaults> = devices
        .iter()
        .filter(on_bus)
        .filter_map(|device| Some(device.profile.as_ref()?.defaults))
        .collect();
    let disagree = |key: &str| {
        let mut place = draft.id.place.clone();
        place.key = format!("bus.{key}");
        let message = format!("the devices of `{}` come with different {key}", draft.id.value);
        document.error(&place, message, format!("set all devices alike and write {key} here"));
    };
    // Modbus over serial line 1.02, section 3.2: 19200 baud, even parity, 1 stop bit.
    Serial {
        port: serial.port,
        baud: agreed(serial.baud, defaults.iter().map(|d| d.baud), 19_200, || disagree("baud")),
        parity: agreed(serial.parity, defaults.iter().map(|d| d.parity), Parity::Even, || {
            disagree("parity");
        }),
        stop_bits: agreed(serial.stop_bits, defaults.iter().map(|d| d.stop_bits), 1, || {
            disagree("stop_bits");
        }),
    }
}

fn agreed<T: Copy + PartialEq>(
    set: Option<T>,
    defaults: impl Iterator<Item = Option<T>>,
    standard: T,
    disagree: impl Fn(),
) -> T {
    let mut named = defaults.flatten();
    match (set, named.next()) {
        (Some(set), _) => set,
        (None, None) => standard,
        (None, Some(first)) => {
            if named.any(|other| other != first) {
                disagree();
            }
            first
        }
    }
}

/// The devices, as far as they are whole.
pub(super) fn finish_devices(drafts: &[DeviceDraft]) -> Vec<Device> {
    let finish = |draft: &DeviceDraft| {
        Some(Device {
            id: draft.id.value.as_str().into(),
            bus: draft.bus.as_ref()?.value.as_str().into(),
            unit: draft.unit?,
            profile: draft.profile.clone()?,
        })
    };
    drafts.iter().filter_map(finish).collect()
}
