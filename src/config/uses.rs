//! What each point, meter, place and serial number is used for: nothing serves two masters.

use std::collections::BTreeMap;

use super::document::{Document, Place};
use super::profile::{Point, Table};

/// Something that one station alone may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    /// By where it lies, so that two names of one register are one point.
    Point {
        device: String,
        table: Table,
        address: u16,
        bits: Option<(u8, u8)>,
    },
    Meter(String),
    Charger(String),
    ParkingPlace(String),
    Serial(String),
}

impl Resource {
    pub(super) fn point(device: &str, point: &Point) -> Resource {
        let Point { table, address, bits, .. } = *point;
        Resource::Point { device: device.into(), table, address, bits }
    }
}

/// Who uses what.
#[derive(Default)]
pub(super) struct Uses(BTreeMap<Resource, Use>);

struct Use {
    /// The key, such as `switch`.
    role: &'static str,
    station: String,
    place: Place,
}

impl Uses {
    /// Notes a use, and reports it where something else has it already.
    pub(super) fn claim(
        &mut self,
        document: &Document<'_>,
        resource: Resource,
        role: &'static str,
        station: &str,
        place: &Place,
    ) {
        let Some(first) = self.0.get(&resource) else {
            let claim = Use { role, station: station.into(), place: place.clone() };
            self.0.insert(resource, claim);
            return;
        };
        let line = document.line(&first.place);
        let of = if first.station == station {
            "this station".into()
        } else {
            format!("`{}`", first.station)
        };
        let message = format!("is already the {} of {of} (line {line})", first.role);
        if role == "lamp" && first.role == "lamp" {
            let help = "it is lit for both; give each station its own lamp";
            document.warn(place, message, help);
        } else {
            document.error(place, message, format!("give `{station}` its own {role}"));
        }
    }

    /// A charger's own points belong to the station that names it by `charger`.
    pub(super) fn finish(&self, document: &Document<'_>) {
        for (resource, claim) in &self.0 {
            let Resource::Point { device, .. } = resource else { continue };
            let Some(charger) = self.0.get(&Resource::Charger(device.clone())) else { continue };
            if matches!(claim.role, "switch" | "lamp") {
                let message = format!("is a point of the charger of `{}`", charger.station);
                document.error(&claim.place, message, "name a point of another device");
            }
        }
    }
}
