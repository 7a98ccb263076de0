//! `[[station]]`: what residents use, and the points that serve it.

use std::sync::Arc;
use std::time::Duration;

use super::buses::{DeviceDraft, is_twice, unknown};
use super::document::{At, Place, Section};
use super::profile::{Point, Profile, ValueType};
use super::rules;
use super::uses::{Resource, Uses};
use super::values::{self, current_ma};
use super::wiring::{Control, PointRef, StationWiring};
use crate::core::opening_hours::OpeningHours;
use crate::core::site::{SessionRules, Station, StationKind};

/// IEC 61851-1: a charger cannot offer less.
const MIN_CURRENT_MA: u32 = 6_000;
/// IEC 61851-1: a control pilot cannot offer more.
const MAX_CURRENT_MA: u32 = 80_000;
/// Longer ones do not fit a line of `status`.
const MAX_LABEL: usize = 64;
const DAY: Duration = Duration::from_secs(86_400);

const KINDS: [(&str, StationKind); 4] = [
    ("washer", StationKind::Washer),
    ("dryer", StationKind::Dryer),
    ("charger", StationKind::Charger),
    ("other", StationKind::Other),
];

/// A station, and where its section and its reader's name stand.
pub(super) struct StationDraft {
    pub(super) id: At<String>,
    pub(super) reader: At<String>,
    pub(super) station: Station,
    /// `None` only where an error was reported.
    pub(super) wiring: Option<StationWiring>,
}

/// What a station may refer to.
pub(super) struct Surroundings<'a> {
    pub(super) devices: &'a [DeviceDraft],
    pub(super) readers: Vec<&'a str>,
}

/// All `[[station]]`s, in order.
pub(super) fn read(root: &Section<'_>, around: &Surroundings<'_>) -> Vec<StationDraft> {
    let mut stations: Vec<StationDraft> = Vec::new();
    let mut uses = Uses::default();
    let document = root.document;
    for section in root.tables("station") {
        let draft = StationReader { section: &section, around }.read(&mut uses);
        section.finish();
        let Some(draft) = draft else { continue };
        if !is_twice(document, "station", &draft.id, stations.iter().map(|other| &other.id)) {
            stations.push(draft);
        }
    }
    uses.finish(document);
    stations
}

/// Reads one section.
struct StationReader<'s, 'd> {
    section: &'s Section<'d>,
    around: &'s Surroundings<'s>,
}

/// A point that exists.
struct Found {
    reference: PointRef,
    point: Point,
    profile: Arc<Profile>,
    place: Place,
}

/// What gives power, with what it brings along.
#[derive(Default)]
struct Power {
    control: Option<Control>,
    /// A charger's own register, where no meter is named.
    own_meter: Option<String>,
    has_vehicle_state: bool,
    is_charger: bool,
}

impl StationReader<'_, '_> {
    fn read(&self, uses: &mut Uses) -> Option<StationDraft> {
        let section = self.section;
        let id = section.id("id", "washer-1");
        section.require("kind", "\"washer\"");
        section.require("reader", "\"laundry-door\"");
        let name = id.as_ref().map_or("", |id| id.value.as_str());
        let kind = section.choice("kind", &KINDS);
        let reader = self.reader();
        let power = self.power(kind.as_ref(), name, uses);
        let meter = self.meter(name, uses).or_else(|| power.own_meter.clone());
        let feedback = self.used_point("contactor_feedback", name, uses, Found::is_input);
        let button = self.used_point("button", name, uses, Found::is_input);
        let lamp = self.used_point("lamp", name, uses, Found::is_lamp);
        let private = section.flag("private").is_some_and(|at| at.value);
        let place = self.unique("place", name, uses, Resource::ParkingPlace);
        let serial = self.unique("serial", name, uses, Resource::Serial);
        self.check_private(private);
        let known = kind.as_ref().map_or(StationKind::Other, |kind| kind.value);
        let defaults = SessionRules::defaults(known, private, power.has_vehicle_state);
        let rules = rules::read(section, defaults);
        if kind.is_some() {
            self.check_metering(&rules, meter.is_some(), power.is_charger);
        }
        let opening_hours = self.opening_hours();
        let station = Station {
            id: name.into(),
            kind: known,
            label: self.label().unwrap_or_else(|| name.to_owned()),
            reader: reader.as_ref().map_or("", |at| at.value.as_str()).into(),
            groups: self.groups(),
            private,
            place,
            serial,
            meter: meter.as_deref().map(Into::into),
            meter_resolution_wh: 1,
            meter_tells_power: true,
            has_button: section.has("button"),
            has_lamp: lamp.is_some(),
            has_feedback: feedback.is_some(),
            has_vehicle_state: power.has_vehicle_state,
            last_start: self.last_start(opening_hours.is_some()),
            opening_hours,
            rules,
        };
        let wiring = power.control.map(|control| StationWiring {
            station: station.id.clone(),
            control,
            feedback,
            button,
            lamp,
            meter: station.meter.clone(),
        });
        Some(StationDraft { id: id?, reader: reader?, station, wiring })
    }

    fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.section.document.error(place, message, help);
    }

    fn reader(&self) -> Option<At<String>> {
        let reader = self.section.text("reader")?;
        if !self.around.readers.contains(&reader.value) {
            let known = self.around.readers.iter().copied();
            unknown(self.section.document, "reader", &reader, known);
        }
        Some(reader.map(str::to_owned))
    }

    /// Exactly one of `switch` and `charger`.
    fn power(&self, kind: Option<&At<StationKind>>, name: &str, uses: &mut Uses) -> Power {
        let section = self.section;
        let switch = self.switch(name, uses);
        let charger = self.charger(name, uses);
        let limit = section.parsed("current_limit", "16A", |text| {
            let current = current_ma(text)?;
            let fits = (MIN_CURRENT_MA..=MAX_CURRENT_MA).contains(&current);
            fits.then_some(current).ok_or_else(|| format!("`{text}` is not between 6A and 80A"))
        });
        let (has_switch, has_charger) = (section.has("switch"), section.has("charger"));
        match (has_switch, has_charger) {
            (true, true) => {
                let help = "remove one of them";
                self.error(&section.place, "switch and charger both give it power", help);
            }
            (false, false) => {
                let help = "add switch = \"device/point\", or charger = \"device\"";
                self.error(&section.place, "nothing gives it power", help);
            }
            (true, false) | (false, true) => {}
        }
        if has_charger {
            section.require("current_limit", "\"16A\"");
            if let Some(kind) = kind.filter(|kind| kind.value != StationKind::Charger) {
                let help = "write kind = \"charger\", or name a switch";
                self.error(&kind.place, "only a charger is controlled by `charger`", help);
            }
        } else if let Some(limit) = &limit {
            let help = "remove it: what a switch lets through is the installation's limit";
            self.error(&limit.place, "current_limit goes with `charger`", help);
        }
        match (charger, switch) {
            (Some((device, profile)), _) => Power {
                control: limit.map(|limit| Control::Charger {
                    device: device.as_str().into(),
                    current_limit_ma: limit.value,
                }),
                own_meter: profile.points.contains_key("energy_import").then_some(device),
                has_vehicle_state: profile.points.contains_key("vehicle_state"),
                is_charger: true,
            },
            (None, switch) => Power {
                control: switch.map(Control::Switch),
                is_charger: has_charger,
                ..Power::default()
            },
        }
    }

    fn switch(&self, name: &str, uses: &mut Uses) -> Option<PointRef> {
        let found = self.point("switch")?;
        if !found.is_switch() {
            let message = "cannot switch: it must be a bit that can be read and written";
            self.error(&found.place, message, "name a relay, such as \"relays/relay-1\"");
        }
        let profile = &found.profile;
        let written = profile.startup.iter().map(|write| &write.point);
        let written = written.chain(profile.heartbeat.iter().map(|beat| &beat.point));
        if written.into_iter().any(|point| *point == found.reference.point) {
            let message = format!("is written by profile `{}` on every connect", profile.name);
            self.error(&found.place, message, "name another relay, or change the profile");
        }
        self.claim(&found, "switch", name, uses);
        Some(found.reference)
    }

    fn charger(&self, name: &str, uses: &mut Uses) -> Option<(String, Arc<Profile>)> {
        let (device, profile) = self.device("charger")?;
        let document = self.section.document;
        let writable = |point: &str| profile.points.get(point).is_some_and(|point| point.writable);
        let lacks =
            |what: &str| format!("profile `{}` of `{}` has {what}", profile.name, device.value);
        if !writable("current_limit") {
            let message = lacks("no writable point `current_limit`");
            self.error(&device.place, message, "name a charger, or use switch for a relay");
            return None;
        }
        let resource = Resource::Charger(device.value.clone());
        uses.claim(document, resource, "charger", name, &device.place);
        if profile.stop.is_empty() && !writable("enable") {
            let message = lacks("no way to stop: neither `stop` nor a writable `enable`");
            self.error(&device.place, message, "add stop to the profile");
        }
        if !self.section.has("meter") {
            self.own_meter(&device, &profile, name, uses);
        }
        Some((device.value, profile))
    }

    /// A charger without a meter beside it is billed by its own lifetime register.
    fn own_meter(&self, device: &At<String>, profile: &Profile, name: &str, uses: &mut Uses) {
        if !profile.points.contains_key("energy_import") {
            let message = format!(
                "profile `{}` of `{}` has no lifetime energy register (`energy_import`)",
                profile.name, device.value
            );
            self.error(&device.place, message, "add meter = \"...\" with a meter of its own");
            return;
        }
        self.check_power_point(device, profile);
        let resource = Resource::Meter(device.value.clone());
        uses.claim(self.section.document, resource, "meter", name, &device.place);
    }

    fn meter(&self, name: &str, uses: &mut Uses) -> Option<String> {
        let (device, profile) = self.device("meter")?;
        let document = self.section.document;
        uses.claim(document, Resource::Meter(device.value.clone()), "meter", name, &device.place);
        if !profile.points.contains_key("energy_import") {
            let message = format!("profile `{}` has no point `energy_import`", profile.name);
            self.error(&device.place, message, "name a meter");
        } else {
            self.check_power_point(&device, &profile);
        }
        Some(device.value)
    }

    /// Idle, load and the end of a session are told by power.
    fn check_power_point(&self, device: &At<String>, profile: &Profile) {
        if !profile.points.contains_key("power") {
            let message = format!("profile `{}` has no point `power`", profile.name);
            self.error(&device.place, message, "name a meter that also reads power");
        }
    }

    /// `key = "device"`. `None` also where the device's profile is not known.
    fn device(&self, key: &'static str) -> Option<(At<String>, Arc<Profile>)> {
        let name = self.section.text(key)?;
        let profile = self.find_device(&name)?;
        Some((name.map(str::to_owned), profile))
    }

    fn find_device(&self, name: &At<&str>) -> Option<Arc<Profile>> {
        let devices = self.around.devices;
        let Some(device) = devices.iter().find(|device| device.id.value == name.value) else {
            let known = devices.iter().map(|device| device.id.value.as_str());
            unknown(self.section.document, "device", name, known);
            return None;
        };
        device.profile.clone()
    }

    /// `key = "device/point"`.
    fn point(&self, key: &'static str) -> Option<Found> {
        let text = self.section.text(key)?;
        let Some((device, point)) = text.value.split_once('/') else {
            let message = format!("`{}` is no device/point", text.value);
            self.error(&text.place, message, format!("write {key} = \"relays/relay-1\""));
            return None;
        };
        let name = At { value: device, place: text.place.clone() };
        let profile = self.find_device(&name)?;
        let Some(found) = profile.points.get(point) else {
            let what = format!("point of `{}` (profile `{}`) named", device, profile.name);
            let name = At { value: point, place: text.place };
            let known = profile.points.keys().map(String::as_str);
            unknown(self.section.document, &what, &name, known);
            return None;
        };
        Some(Found {
            reference: PointRef { device: device.into(), point: point.into() },
            point: found.clone(),
            place: text.place,
            profile,
        })
    }

    /// A point for one use, which `fits` or says why not.
    fn used_point(
        &self,
        key: &'static str,
        name: &str,
        uses: &mut Uses,
        fits: fn(&Found) -> Result<(), &'static str>,
    ) -> Option<PointRef> {
        let found = self.point(key)?;
        if let Err(message) = fits(&found) {
            self.error(&found.place, message, format!("name another point as {key}"));
        }
        self.claim(&found, key, name, uses);
        Some(found.reference)
    }

    fn claim(&self, found: &Found, role: &'static str, name: &str, uses: &mut Uses) {
        let resource = Resource::point(found.reference.device.as_str(), &found.point);
        uses.claim(self.section.document, resource, role, name, &found.place);
    }

    fn unique(
        &self,
        key: &'static str,
        name: &str,
        uses: &mut Uses,
        resource: fn(String) -> Resource,
    ) -> Option<String> {
        let text = self.section.text(key)?;
        let value = text.value.to_owned();
        uses.claim(self.section.document, resource(value.clone()), key, name, &text.place);
        Some(value)
    }

    fn check_private(&self, private: bool) {
        if private && !self.section.has("place") && !self.section.has("serial") {
            let message = "a private station is known by its place or its serial number";
            self.error(&self.section.place, message, "add place = \"P-12\" or serial = \"...\"");
        }
    }

    /// `is_charger` has had its own error.
    fn check_metering(&self, rules: &SessionRules, metered: bool, is_charger: bool) {
        let section = self.section;
        if metered || is_charger || section.has("meter") {
            return;
        }
        if rules.require_meter {
            let help = "add meter = \"...\", or require_meter = false to give the power away";
            self.error(&section.place, "it requires a meter and names none", help);
        } else {
            let message = "no meter: nothing is billed, and no idle machine is noticed";
            section.document.warn(&section.place, message, "add meter = \"...\"");
        }
    }

    fn label(&self) -> Option<String> {
        let label = self.section.text("label")?;
        let length = label.value.chars().count();
        if length > MAX_LABEL || label.value.chars().any(char::is_control) {
            let help = format!("at most {MAX_LABEL} characters on one line");
            self.error(&label.place, "is no label", help);
        }
        Some(label.value.to_owned())
    }

    fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = Vec::new();
        for group in self.section.texts("groups").into_iter().flat_map(|texts| texts.value) {
            if group.value.trim() != group.value || group.value.is_empty() {
                let help = "write it as the grants do, without the `group:`";
                self.error(&group.place, format!("`{}` is no group", group.value), help);
            }
            groups.push(group.value.to_owned());
        }
        groups
    }

    fn opening_hours(&self) -> Option<OpeningHours> {
        let lines = self.section.texts("opening_hours")?;
        let help = "write opening_hours = [\"Mon-Sat 07:00-22:00\", \"Sun 09:00-18:00\"]";
        let mut good = Vec::new();
        for line in &lines.value {
            match OpeningHours::parse(&[line.value]) {
                Ok(_) => good.push(line.value),
                Err(message) => self.error(&line.place, message, help),
            }
        }
        if lines.value.is_empty() {
            self.error(&lines.place, "it would never open", "leave it out where it is always open");
        }
        OpeningHours::parse(&good).ok()
    }

    fn last_start(&self, has_hours: bool) -> Duration {
        let section = self.section;
        let last_start = section.parsed_or_off("last_start", "60m", |text| {
            values::duration_within(Duration::ZERO..=DAY)(text)
        });
        if section.has("last_start") && !has_hours && !section.has("opening_hours") {
            let message = "last_start has no effect without opening_hours";
            section.document.warn(&section.place, message, "add opening_hours or remove it");
        }
        last_start.flatten().unwrap_or(Duration::ZERO)
    }
}

impl Found {
    fn is_bit(&self) -> bool {
        self.point.value == ValueType::Bool || self.point.bits.is_some_and(|(_, width)| width == 1)
    }

    fn is_switch(&self) -> bool {
        self.is_bit() && self.point.readable && self.point.writable
    }

    fn is_input(&self) -> Result<(), &'static str> {
        let fits = self.is_bit() && self.point.readable;
        fits.then_some(()).ok_or("must be a bit that can be read")
    }

    fn is_lamp(&self) -> Result<(), &'static str> {
        let fits = self.is_bit() && self.point.writable;
        fits.then_some(()).ok_or("must be a bit that can be written")
    }
}
