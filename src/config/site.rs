//! Checks a config section by section and builds [`Config`] from it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::document::{Document, Section};
use super::library::{self, Library};
use super::problem::{ConfigErrors, Problem};
use super::readers::{self, Visitor};
use super::stations::{self, StationDraft, Surroundings};
use super::values::{self, MAX_DURATION, duration_within, energy_wh};
use super::wiring::Wiring;
use super::{Config, DEFAULT_SOCKET, Storage, buses, cloud};
use crate::core::site::{Billing, MaxConcurrent, Reader, Site, SitePolicy, Station};

const DAY: Duration = Duration::from_secs(86_400);
/// More sessions at once per user than a building has machines are a typing error.
const MAX_CONCURRENT: i64 = 1_000;

const BILLINGS: [(&str, Billing); 2] = [("managed", Billing::Managed), ("owner", Billing::Owner)];

/// The config in `text`; where no `library` is given, the profiles in the folder that it names and
/// the files that it names are looked at too.
pub(super) fn read(
    file: &str,
    text: &str,
    library: Option<&Library>,
) -> Result<Config, ConfigErrors> {
    let document = Document::new(file, text);
    let mut elsewhere = Vec::new();
    let config = document.parse().and_then(|table| {
        let root = Section::root(&document, &table);
        let config = read_root(&root, library, &mut elsewhere);
        root.finish();
        config
    });
    let (mut errors, warnings) = document.into_problems();
    errors.append(&mut elsewhere);
    match config {
        Some(config) if errors.is_empty() => Ok(Config { warnings, ..config }),
        Some(_) | None => Err(ConfigErrors::new(errors, warnings)),
    }
}

/// `None` only where an error was reported; problems of profile files go to `elsewhere`.
fn read_root(
    root: &Section<'_>,
    library: Option<&Library>,
    elsewhere: &mut Vec<Problem>,
) -> Option<Config> {
    if !root.has("gateway") {
        let help = "start with [gateway] and id = \"ch-lausanne-012-a\"";
        root.document.error(&root.place, "the section [gateway] is missing", help);
    }
    let gateway = root.table("gateway").map(read_gateway);
    let (storage, folder_named) = read_storage(root);
    let mut files = Vec::new();
    let cloud = cloud::read(root, &mut files);
    let on_disk = library.is_none().then(|| {
        cloud::check_files(root.document, &files);
        Library::with_folder(&storage.profiles, folder_named)
            .map_err(|mut problems| elsewhere.append(&mut problems))
            .ok()
    });
    let building = read_building(root, library.or(on_disk.as_ref().and_then(Option::as_ref)));
    let control_socket = read_control(root);
    let stale_warning = read_stale_warning(root);
    let max_concurrent = read_access(root);
    let metering = read_metering(root);
    let gateway = gateway?;
    check_timezone(root, &gateway, &building);
    let policy = SitePolicy {
        billing: gateway.billing,
        timezone: gateway.timezone.unwrap_or(TimeZone::UTC),
        max_concurrent,
        slots: metering.slots,
        unattributed_alarm_wh: metering.unattributed_alarm_wh,
        start_read_timeout: metering.start_read_timeout,
    };
    let Building { readers, stations, wiring } = building;
    let site = Site { policy, readers, stations };
    let gateway_id = gateway.id?;
    let warnings = Vec::new();
    Some(Config {
        gateway_id,
        storage,
        control_socket,
        cloud,
        stale_warning,
        site,
        wiring,
        warnings,
    })
}

/// `[gateway]`.
struct Gateway {
    id: Option<String>,
    timezone: Option<TimeZone>,
    names_timezone: bool,
    billing: Billing,
}

fn read_gateway(section: Section<'_>) -> Gateway {
    section.require("id", "\"ch-lausanne-012-a\"");
    let gateway = Gateway {
        id: section.parsed("id", "ch-lausanne-012-a", gateway_id).map(|at| at.value),
        timezone: section.parsed("timezone", "Europe/Zurich", timezone).map(|at| at.value),
        names_timezone: section.has("timezone"),
        billing: section.choice("billing", &BILLINGS).map_or(Billing::Managed, |at| at.value),
    };
    section.finish();
    gateway
}

/// The id is a level of MQTT topics and the MQTT client id.
fn gateway_id(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(format!("`{text}` is no gateway id: 1 to 64 of a-z, 0-9 and -"))
}

fn timezone(text: &str) -> Result<TimeZone, String> {
    // Not jiff's own, which keeps the names of all zones for as long as the daemon runs.
    let zones = TimeZoneDatabase::from_env();
    zones.get(text).map_err(|_| {
        let names: Vec<String> = zones.available().map(|name| name.to_string()).collect();
        match values::closest(text, names.iter().map(String::as_str)) {
            Some(similar) => format!("`{text}` is no time zone, did you mean `{similar}`?"),
            None if names.is_empty() => format!("`{text}` is unknown: tzdata is not installed"),
            None => format!("`{text}` is no time zone of the IANA database"),
        }
    })
}

/// Opening hours are in local time, so it must be known which.
fn check_timezone(root: &Section<'_>, gateway: &Gateway, building: &Building) {
    let hours = building.stations.iter().any(|station| station.opening_hours.is_some());
    if hours && !gateway.names_timezone {
        let message = "timezone is missing, and a station has opening hours";
        let place = root.get("gateway").map_or_else(|| root.place.clone(), |entry| entry.place);
        root.document.error(&place, message, "add timezone = \"Europe/Zurich\"");
    }
}

/// `[storage]`, and whether it names a folder of profiles.
fn read_storage(root: &Section<'_>) -> (Storage, bool) {
    let mut storage = Storage {
        path: PathBuf::from("/var/lib/tapgate/tapgate.db"),
        retention: Some(400 * DAY),
        profiles: PathBuf::from(library::DEFAULT_FOLDER),
    };
    let Some(section) = root.table("storage") else { return (storage, false) };
    if let Some(path) = section.path("path") {
        storage.path = path.value;
    }
    let retention = section.parsed_or_off("retention", "400d", duration_within(DAY..=MAX_DURATION));
    storage.retention = retention.unwrap_or(storage.retention);
    let profiles = section.path("profiles");
    let named = profiles.is_some();
    if let Some(profiles) = profiles {
        storage.profiles = profiles.value;
    }
    section.finish();
    (storage, named)
}

fn read_control(root: &Section<'_>) -> PathBuf {
    /// sockaddr_un holds 108 bytes with the closing zero.
    const MAX_PATH: usize = 107;
    let default = PathBuf::from(DEFAULT_SOCKET);
    let Some(section) = root.table("control") else { return default };
    let socket = section.path("socket");
    if let Some(socket) = socket.as_ref().filter(|at| at.value.as_os_str().len() > MAX_PATH) {
        let message = format!("a socket's path has at most {MAX_PATH} bytes");
        section.document.error(&socket.place, message, "choose a shorter one below /run");
    }
    section.finish();
    socket.map_or(default, |at| at.value)
}

fn read_stale_warning(root: &Section<'_>) -> Option<Duration> {
    let default = Some(7 * DAY);
    let Some(section) = root.table("allowlist") else { return default };
    let range = Duration::from_secs(60)..=MAX_DURATION;
    let age = section.parsed_or_off("stale_warning", "7d", duration_within(range));
    section.finish();
    age.unwrap_or(default)
}

/// `[metering]`.
struct Metering {
    slots: bool,
    unattributed_alarm_wh: i64,
    start_read_timeout: Duration,
}

fn read_metering(root: &Section<'_>) -> Metering {
    let mut metering = Metering {
        slots: true,
        unattributed_alarm_wh: 50,
        start_read_timeout: Duration::from_millis(1_500),
    };
    let Some(section) = root.table("metering") else { return metering };
    if let Some(slots) = section.flag("slots") {
        metering.slots = slots.value;
    }
    if let Some(alarm) = section.parsed("unattributed_alarm", "50Wh", energy_wh) {
        metering.unattributed_alarm_wh = alarm.value;
    }
    // A resident stands at the reader meanwhile.
    let range = Duration::from_millis(100)..=Duration::from_secs(30);
    if let Some(timeout) = section.duration("start_read_timeout", "1500ms", range) {
        metering.start_read_timeout = timeout.value;
    }
    section.finish();
    metering
}

fn read_access(root: &Section<'_>) -> MaxConcurrent {
    let mut limits = MaxConcurrent { washer: 2, dryer: 2, charger: 1, other: 2 };
    let Some(access) = root.table("access") else { return limits };
    if let Some(section) = access.table("max_concurrent") {
        let slots: [(&'static str, &mut u32); 4] = [
            ("washer", &mut limits.washer),
            ("dryer", &mut limits.dryer),
            ("charger", &mut limits.charger),
            ("other", &mut limits.other),
        ];
        for (key, limit) in slots {
            let given = section.integer(key, 1..=MAX_CONCURRENT);
            *limit = given.and_then(|at| u32::try_from(at.value).ok()).unwrap_or(*limit);
        }
        section.finish();
    }
    access.finish();
    limits
}

/// Readers, stations and their wiring.
struct Building {
    readers: Vec<Reader>,
    stations: Vec<Station>,
    wiring: Wiring,
}

fn read_building(root: &Section<'_>, library: Option<&Library>) -> Building {
    let document = root.document;
    let bus_drafts = buses::read_buses(root);
    let device_drafts = buses::read_devices(root, &bus_drafts, library);
    let reader_drafts = readers::read(root);
    let around = Surroundings {
        devices: &device_drafts,
        readers: reader_drafts.iter().map(|reader| reader.id.value.as_str()).collect(),
    };
    let drafts = stations::read(root, &around);
    let visit = |draft: &'_ StationDraft| Visitor {
        station: draft.station.id.clone(),
        place: draft.id.place.clone(),
        reader: draft.reader.value.clone(),
        has_button: draft.station.has_button,
    };
    let visitors: Vec<Visitor> = drafts.iter().map(visit).collect();
    let (readers, bindings) = readers::finish(document, reader_drafts, &visitors);
    let (stations, wirings): (Vec<Station>, Vec<_>) =
        drafts.into_iter().map(|draft| (draft.station, draft.wiring)).unzip();
    let wiring = Wiring {
        buses: buses::finish_buses(document, &bus_drafts, &device_drafts),
        devices: buses::finish_devices(&device_drafts),
        readers: bindings,
        stations: wirings.into_iter().flatten().collect(),
    };
    let stations = stations.into_iter().map(|station| with_meter(station, &wiring)).collect();
    Building { readers, stations, wiring }
}

/// A register's step bounds what one reading may differ from the one before; where it is all that
/// there is, it tells the power too.
fn with_meter(mut station: Station, wiring: &Wiring) -> Station {
    let meter = wiring.devices.iter().find(|device| Some(&device.id) == station.meter.as_ref());
    let register = meter.and_then(|device| device.profile.points.get("energy_import"));
    if let Some(register) = register {
        station.meter_resolution_wh = register.resolution_wh();
    }
    station.meter_tells_power =
        meter.is_none_or(|device| device.profile.points.contains_key("power"));
    station
}
