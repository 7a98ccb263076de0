//! Who may use which station: the allowlist entry and the decision.
//!
//! [`decide`] is a pure function; the order of its checks is part of the contract, the first that
//! holds is the reason.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::badge::Technology;
use crate::core::ids::{BadgeId, UserId};
use crate::core::site::{Billing, SitePolicy, Station};
use crate::core::time::{Stamp, Wall};

/// One badge in the allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the access contract")]
pub struct Entry {
    pub badge: BadgeId,
    pub user: UserId,
    pub origin: Origin,
    pub blocked: bool,
    pub grants: Vec<Grant>,
    pub valid_from: Option<Wall>,
    pub valid_until: Option<Wall>,
    pub max_concurrent: Option<u32>,
}

/// Who issued a badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Origin {
    Issued,
    ThirdParty,
}

/// What an entry permits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Grant {
    Station(String),
    Group(String),
    Place(String),
    Serial(String),
    Everything,
}

impl Grant {
    /// `station:ID`, `group:NAME`, `place:NUMBER`, `serial:NUMBER` or `*`.
    pub fn parse(text: &str) -> Option<Grant> {
        if text == "*" {
            return Some(Grant::Everything);
        }
        let (what, name) = text.split_once(':')?;
        if name.is_empty() {
            return None;
        }
        match what {
            "station" => Some(Grant::Station(name.into())),
            "group" => Some(Grant::Group(name.into())),
            "place" => Some(Grant::Place(name.into())),
            "serial" => Some(Grant::Serial(name.into())),
            _ => None,
        }
    }

    /// Whether it names this very station; only such grants open a private one.
    fn names(&self, station: &Station) -> bool {
        match self {
            Grant::Station(id) => id == station.id.as_str(),
            Grant::Place(place) => station.place.as_deref() == Some(place),
            Grant::Serial(serial) => station.serial.as_deref() == Some(serial),
            Grant::Group(_) | Grant::Everything => false,
        }
    }

    fn includes(&self, station: &Station) -> bool {
        match self {
            Grant::Everything => true,
            Grant::Group(group) => station.groups.contains(group),
            Grant::Station(_) | Grant::Place(_) | Grant::Serial(_) => false,
        }
    }
}

/// Why a tap was refused. The order is the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are those of the access contract's table")]
pub enum Denial {
    SelectionOpen,
    RandomUid,
    Unreadable,
    UnknownBadge,
    BadgeBlocked,
    NotYetValid,
    Expired,
    OriginNotAccepted,
    TechnologyNotAccepted,
    NotGranted,
    AllowlistTooOld,
    Closed,
    OutOfService,
    Occupied,
    TooManySessions,
    StorageFailure,
}

impl Denial {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Denial::SelectionOpen => "selection_open",
            Denial::RandomUid => "random_uid",
            Denial::Unreadable => "unreadable",
            Denial::UnknownBadge => "unknown_badge",
            Denial::BadgeBlocked => "badge_blocked",
            Denial::NotYetValid => "not_yet_valid",
            Denial::Expired => "expired",
            Denial::OriginNotAccepted => "origin_not_accepted",
            Denial::TechnologyNotAccepted => "technology_not_accepted",
            Denial::NotGranted => "not_granted",
            Denial::AllowlistTooOld => "allowlist_too_old",
            Denial::Closed => "closed",
            Denial::OutOfService => "out_of_service",
            Denial::Occupied => "occupied",
            Denial::TooManySessions => "too_many_sessions",
            Denial::StorageFailure => "storage_failure",
        }
    }

    /// Its row in the contract's table; none where it is not of the table.
    pub fn row(self) -> Option<u8> {
        match self {
            Denial::SelectionOpen => None,
            Denial::RandomUid | Denial::Unreadable => Some(1),
            Denial::UnknownBadge => Some(2),
            Denial::BadgeBlocked => Some(3),
            Denial::NotYetValid | Denial::Expired => Some(4),
            Denial::OriginNotAccepted => Some(5),
            Denial::TechnologyNotAccepted => Some(6),
            Denial::NotGranted => Some(7),
            Denial::AllowlistTooOld => Some(8),
            Denial::Closed => Some(9),
            Denial::OutOfService => Some(10),
            Denial::Occupied => Some(11),
            Denial::TooManySessions => Some(12),
            Denial::StorageFailure => Some(13),
        }
    }

    /// What it means and who can change it, for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Denial::SelectionOpen => "somebody else is choosing a machine at this reader; wait",
            Denial::RandomUid => "the card draws its number anew each time (a phone): no badge",
            Denial::Unreadable => "the card gives no whole number; hold it flat and longer",
            Denial::UnknownBadge => "the allowlist has no such badge; the operator can add it",
            Denial::BadgeBlocked => "the badge is blocked, by the operator or locally",
            Denial::NotYetValid => "the badge becomes valid later (valid_from)",
            Denial::Expired => "the badge's validity has ended (valid_until)",
            Denial::OriginNotAccepted => {
                "a badge of another issuer, on a site that the operator bills (billing = managed)"
            }
            Denial::TechnologyNotAccepted => {
                "the station does not accept this kind of card (accepted_technologies)"
            }
            Denial::NotGranted => {
                "none of the badge's grants is for this station; a private one needs a grant by \
                 station, place or serial"
            }
            Denial::AllowlistTooOld => {
                "the allowlist is older than allowlist_max_age; the cloud must be reached"
            }
            Denial::Closed => "outside the opening hours, or too late for a start (last_start)",
            Denial::OutOfService => {
                "the station is out of service, faulted, or its meter is silent: tapgate status"
            }
            Denial::Occupied => "another user's session is running there",
            Denial::TooManySessions => "the user has max_concurrent sessions of this kind already",
            Denial::StorageFailure => {
                "a start cannot be recorded: free disk space or replace the card"
            }
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known about a station and the world at the moment of a tap.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Now.
    pub now: Stamp,
    /// The latest time that is known to have passed, while the clock is not trustworthy.
    pub clock_floor: Wall,
    /// Since the last arrival of a valid head; `None` where that is not known.
    pub allowlist_age: Option<Duration>,
    /// Taken out, faulted, or a required meter is silent.
    pub out_of_service: bool,
    /// Another user's session is there.
    pub occupied: bool,
    /// This user's sessions on stations of this kind.
    pub sessions_of_user: u32,
    /// A start cannot be recorded.
    pub storage_failed: bool,
}

/// Whether a badge may start a session on a station: rows 2 to 13 of the contract's table.
pub fn decide(
    policy: &SitePolicy,
    station: &Station,
    entry: Option<&Entry>,
    technology: Technology,
    circumstances: &Circumstances,
) -> Result<(), Denial> {
    let entry = entry.ok_or(Denial::UnknownBadge)?;
    may_use(policy, station, entry, Some(technology), circumstances)?;
    is_open(station, policy, circumstances)?;
    can_start(policy, station, Some(entry), circumstances)
}

/// Whether an operator's order may start a session: rows 3 to 8 where it names a badge, whose card
/// nobody has read, and rows 10 to 13.
pub fn decide_for_operator(
    policy: &SitePolicy,
    station: &Station,
    entry: Option<&Entry>,
    circumstances: &Circumstances,
) -> Result<(), Denial> {
    if let Some(entry) = entry {
        may_use(policy, station, entry, None, circumstances)?;
    }
    can_start(policy, station, entry, circumstances)
}

/// Rows 3 to 8: what the entry permits.
fn may_use(
    policy: &SitePolicy,
    station: &Station,
    entry: &Entry,
    technology: Option<Technology>,
    circumstances: &Circumstances,
) -> Result<(), Denial> {
    let Circumstances { now, clock_floor, allowlist_age, .. } = *circumstances;
    deny_if(entry.blocked, Denial::BadgeBlocked)?;
    let not_yet = entry.valid_from.is_some_and(|from| now.synced && now.wall < from);
    deny_if(not_yet, Denial::NotYetValid)?;
    let known_time = if now.synced { now.wall } else { clock_floor };
    deny_if(entry.valid_until.is_some_and(|until| known_time >= until), Denial::Expired)?;
    let third_party = entry.origin == Origin::ThirdParty;
    deny_if(third_party && policy.billing == Billing::Managed, Denial::OriginNotAccepted)?;
    let accepted = |technology: Technology| {
        let here = station.rules.accepted_technologies.as_ref();
        let readable_everywhere = !third_party || Technology::CLASSIC.contains(&technology);
        here.is_none_or(|here| here.contains(&technology)) && readable_everywhere
    };
    deny_if(technology.is_some_and(|card| !accepted(card)), Denial::TechnologyNotAccepted)?;
    let granted = entry
        .grants
        .iter()
        .any(|grant| grant.names(station) || (!station.private && grant.includes(station)));
    deny_if(!granted, Denial::NotGranted)?;
    let too_old = match (station.rules.allowlist_max_age, allowlist_age) {
        (Some(limit), Some(age)) => now.synced && age > limit,
        (Some(_), None) | (None, _) => false,
    };
    deny_if(too_old, Denial::AllowlistTooOld)
}

/// Row 9.
fn is_open(
    station: &Station,
    policy: &SitePolicy,
    circumstances: &Circumstances,
) -> Result<(), Denial> {
    let now = circumstances.now;
    let open = match &station.opening_hours {
        Some(hours) if now.synced => {
            hours.allow_start(now.wall.timestamp(), &policy.timezone, station.last_start)
        }
        Some(_) | None => true,
    };
    deny_if(!open, Denial::Closed)
}

/// Rows 10 to 13: whether a session of this user can start there now.
fn can_start(
    policy: &SitePolicy,
    station: &Station,
    entry: Option<&Entry>,
    circumstances: &Circumstances,
) -> Result<(), Denial> {
    let limit = entry.and_then(|entry| entry.max_concurrent);
    let limit = limit.unwrap_or(policy.max_concurrent.of(station.kind));
    deny_if(circumstances.out_of_service, Denial::OutOfService)?;
    deny_if(circumstances.occupied, Denial::Occupied)?;
    deny_if(circumstances.sessions_of_user >= limit, Denial::TooManySessions)?;
    deny_if(circumstances.storage_failed, Denial::StorageFailure)
}

fn deny_if(condition: bool, denial: Denial) -> Result<(), Denial> {
    if condition { Err(denial) } else { Ok(()) }
}
