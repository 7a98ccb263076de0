//! What a site is, as the core needs it: readers, stations and their rules. Valid by construction:
//! `config` builds it from the file and refuses everything else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::badge::Technology;
use crate::core::ids::{DeviceId, ReaderId, StationId};
use crate::core::opening_hours::OpeningHours;

/// Everything that the core must know about a building.
#[derive(Clone, Debug)]
pub struct Site {
    /// What holds for all stations.
    pub policy: SitePolicy,
    /// In config order.
    pub readers: Vec<Reader>,
    /// In config order.
    pub stations: Vec<Station>,
}

/// What holds for the whole building.
#[derive(Clone, Debug)]
pub struct SitePolicy {
    /// Who invoices; decides whether third-party badges are accepted.
    pub billing: Billing,
    /// For opening hours.
    pub timezone: jiff::tz::TimeZone,
    /// Sessions at once per user, per kind of station.
    pub max_concurrent: MaxConcurrent,
    /// Whether sessions are broken down into 15-minute slots.
    pub slots: bool,
    /// Unattributed energy in 24 h above which an event is raised.
    pub unattributed_alarm_wh: i64,
    /// How long a start waits for its start register.
    pub start_read_timeout: Duration,
}

/// How the site is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Billing {
    /// The operator invoices and collects: only issued badges are accepted.
    Managed,
    /// The owner collects: registered third-party badges are accepted.
    Owner,
}

/// Sessions at once per user over all stations of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "one number per kind")]
pub struct MaxConcurrent {
    pub washer: u32,
    pub dryer: u32,
    pub charger: u32,
    pub other: u32,
}

impl MaxConcurrent {
    /// The limit for one kind of station.
    pub fn of(&self, kind: StationKind) -> u32 {
        match kind {
            StationKind::Washer => self.washer,
            StationKind::Dryer => self.dryer,
            StationKind::Charger => self.charger,
            StationKind::Other => self.other,
        }
    }
}

/// What a resident uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum StationKind {
    Washer,
    Dryer,
    Charger,
    Other,
}

impl StationKind {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            StationKind::Washer => "washer",
            StationKind::Dryer => "dryer",
            StationKind::Charger => "charger",
            StationKind::Other => "other",
        }
    }
}

/// A place where badges are presented.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its name in the config.
    pub id: ReaderId,
    /// What a tap means here.
    pub selection: Selection,
    /// The same UID counts again only after it was away for this long.
    pub debounce: Duration,
    /// How long a grant waits for a button.
    pub selection_timeout: Duration,
    /// The stations of this reader, in config order; never empty.
    pub stations: Vec<StationId>,
}

/// How a tap on a reader selects a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// The reader has one station.
    Single,
    /// The first station, in config order, that grants.
    FirstFree,
    /// A grant waits for the station's button.
    Button,
}

/// A station and its rules.
#[derive(Clone, Debug)]
pub struct Station {
    /// Its name in the config.
    pub id: StationId,
    /// What it is.
    pub kind: StationKind,
    /// What residents call it.
    pub label: String,
    /// Where its badges are presented.
    pub reader: ReaderId,
    /// For grants by group.
    pub groups: Vec<String>,
    /// Only its resident uses it: a group or `*` is not enough.
    pub private: bool,
    /// Parking place number, for grants by place.
    pub place: Option<String>,
    /// Serial number of the station, for grants by serial.
    pub serial: Option<String>,
    /// The meter whose register is billed.
    pub meter: Option<DeviceId>,
    /// The smallest step that the meter's register can show.
    pub meter_resolution_wh: i64,
    /// Whether the meter tells its power; else that follows from the register.
    pub meter_tells_power: bool,
    /// Whether the station has a button of its own.
    pub has_button: bool,
    /// Whether it has a lamp.
    pub has_lamp: bool,
    /// Whether a contactor feedback input is wired.
    pub has_feedback: bool,
    /// Whether it tells if a car is plugged in.
    pub has_vehicle_state: bool,
    /// When it may be started; always where `None`.
    pub opening_hours: Option<OpeningHours>,
    /// How long before closing a session may still start.
    pub last_start: Duration,
    /// Everything else that the config may set.
    pub rules: SessionRules,
}

/// The session defaults of a station, each settable in the config. `None` is "off".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// No load at all for this long after the start ends the session.
    pub start_timeout: Option<Duration>,
    /// Idle without a break for this long lets another user take over.
    pub handover_after: Option<Duration>,
    /// Power below which a station counts as idle.
    pub idle_power_w: u32,
    /// Idle for this long ends the session.
    pub idle_after: Option<Duration>,
    /// A load that does not reset `idle_after`.
    pub idle_burst: Option<IdleBurst>,
    /// A session does not end `finished` before this.
    pub min_duration: Duration,
    /// Longest session.
    pub max_duration: Option<Duration>,
    /// Most energy of a session.
    pub max_energy_wh: Option<i64>,
    /// Whether the user's tap stops the session.
    pub tap_to_stop: bool,
    /// Whether a silent meter refuses the start.
    pub require_meter: bool,
    /// What happens when the badge is blocked or removed meanwhile.
    pub on_revoked: OnRevoked,
    /// Longest outage after which the same session goes on; zero is never.
    pub resume_within: Duration,
    /// Oldest allowlist that still grants.
    pub allowlist_max_age: Option<Duration>,
    /// Which cards are accepted; any where `None`.
    pub accepted_technologies: Option<Vec<Technology>>,
    /// For the plausibility of readings.
    pub max_power_w: u32,
}

/// Anti-crease bursts: up to this power for up to this long they are no load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct IdleBurst {
    pub power_w: u32,
    pub duration: Duration,
}

/// What a block or removal of the badge does to its running session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum OnRevoked {
    Finish,
    Stop,
}

/// How long a machine without `idle_after` must be idle before it counts as proved.
const DEFAULT_IDLE_PROOF: Duration = Duration::from_secs(8 * 60);

impl SessionRules {
    /// How long a load must be gone before a machine may lose its power.
    pub fn idle_proof(&self) -> Duration {
        self.idle_after.unwrap_or(DEFAULT_IDLE_PROOF)
    }

    /// The defaults of the contract (spec: sessions, the table of defaults).
    pub fn defaults(kind: StationKind, private: bool, has_vehicle_state: bool) -> SessionRules {
        let shared_only = (!private).then_some(12 * HOUR);
        let laundry = SessionRules {
            start_timeout: Some(10 * MINUTE),
            handover_after: Some(Duration::from_secs(450)),
            idle_power_w: 5,
            idle_after: Some(8 * MINUTE),
            idle_burst: None,
            min_duration: 10 * MINUTE,
            max_duration: Some(6 * HOUR),
            max_energy_wh: None,
            tap_to_stop: false,
            require_meter: false,
            on_revoked: OnRevoked::Finish,
            resume_within: 4 * HOUR,
            allowlist_max_age: None,
            accepted_technologies: None,
            max_power_w: 4_000,
        };
        match kind {
            StationKind::Washer => laundry,
            StationKind::Other => SessionRules { idle_after: None, ..laundry },
            StationKind::Dryer => SessionRules {
                handover_after: Some(4 * MINUTE),
                idle_power_w: 20,
                idle_after: Some(6 * MINUTE),
                idle_burst: Some(IdleBurst { power_w: 400, duration: MINUTE }),
                ..laundry
            },
            StationKind::Charger => SessionRules {
                start_timeout: if has_vehicle_state { Some(15 * MINUTE) } else { shared_only },
                handover_after: None,
                idle_power_w: 100,
                idle_after: if has_vehicle_state { None } else { shared_only },
                min_duration: Duration::ZERO,
                max_duration: Some(48 * HOUR),
                tap_to_stop: true,
                require_meter: true,
                on_revoked: OnRevoked::Stop,
                resume_within: 12 * HOUR,
                accepted_technologies: Some(Technology::CLASSIC.to_vec()),
                max_power_w: 22_000,
                ..laundry
            },
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
