//! What `tapgate watch` follows: one JSON object a line, each with `at` and `kind`.
//!
//! What the cloud is told looks as it does there, records look as in the ledger, and the rest is
//! for the technician alone. There is no UID in it but where `report_unknown_uids` allows one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::access::Denial;
use crate::core::badge::Technology;
use crate::core::ids::{BadgeId, BusId, ReaderId, StationId, UserId};
use crate::core::ledger::Fact;
use crate::core::time::{Stamp, Wall};
use crate::core::view::State;
use crate::protocol::cloud::{EventBody, EventKind};
use crate::protocol::figures::Figures;

/// One line, as the daemon writes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchEvent {
    /// When.
    pub at: Stamp,
    /// What.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Happening {
    /// As on `up/event`.
    Event(EventBody),
    /// As in the ledger.
    Record {
        /// Its number.
        record: u64,
        /// What it says.
        #[serde(flatten)]
        fact: Fact,
    },
    /// Nobody else is told.
    Here(Here),
}

/// What only who stands at the console wants to know; the tag is its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Here {
    /// A tap that was not refused; one that was is `denied`.
    Tap(TapStatus),
    /// What residents see of a station changed.
    Station {
        station: StationId,
        state: State,
    },
    /// A switch was seen in another position than before.
    SwitchClosed {
        station: StationId,
        feedback: Option<bool>,
    },
    SwitchOpen {
        station: StationId,
        feedback: Option<bool>,
    },
    SwitchUnknown {
        station: StationId,
    },
    ButtonPressed {
        station: StationId,
    },
    MeterSilent {
        station: StationId,
    },
    MeterBack {
        station: StationId,
    },
    BusDown {
        bus: BusId,
        error: String,
        bus_figures: Figures,
    },
    BusBack {
        bus: BusId,
        bus_figures: Figures,
    },
    PcscdUnavailable {
        detail: String,
    },
    PcscdBack {},
    ReaderAmbiguous {
        detail: String,
    },
    /// A card on a reader that no `[[reader]]` is bound to.
    UnboundTap {
        name: String,
        technology: Technology,
    },
    CloudConnected {},
    CloudDisconnected {
        reason: String,
    },
    Acknowledged {
        upto: u64,
    },
    /// A message of the cloud that changed nothing.
    MessageRefused {
        topic: String,
        detail: String,
    },
    /// The link found that ledger and cloud disagree, or that somebody else uses this identity.
    LinkAlarm {
        alarm: EventKind,
    },
    AllowlistRefused {
        version: Option<u64>,
        reason: String,
        detail: String,
    },
    /// This terminal was too slow: so many events are missing here, the oldest.
    EventsMissed {
        count: u64,
    },
}

/// A tap and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapStatus {
    /// When it was answered.
    #[serde(rename = "tapped")]
    pub at: Wall,
    /// Where.
    pub reader: ReaderId,
    /// What the resident was told.
    pub decision: TapDecision,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Denial>,
    /// Which station it was about, where that is known.
    #[serde(default)]
    pub station: Option<StationId>,
    /// Who tapped, where the allowlist knows.
    #[serde(default)]
    pub user: Option<UserId>,
    /// With which badge.
    #[serde(default)]
    pub badge: Option<BadgeId>,
}

/// What a resident is told after a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapDecision {
    /// A session starts.
    Granted,
    /// The session of this badge stops.
    Stopped,
    /// This badge's session is running.
    YoursRunning,
    /// Press the button of a free station.
    SelectStation,
    /// Refused; the reason says why.
    Denied,
}

impl TapDecision {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            TapDecision::Granted => "granted",
            TapDecision::Stopped => "stopped",
            TapDecision::YoursRunning => "yours_running",
            TapDecision::SelectStation => "select_station",
            TapDecision::Denied => "denied",
        }
    }
}

/// One line, as a command reads it: also of a newer daemon, whose kinds it does not know.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Seen {
    /// When.
    pub at: Stamp,
    /// What.
    pub kind: String,
    /// The rest.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(happening: Happening) -> Value {
        let (uptime, wall) = Default::default();
        let at = Stamp { boot: 1, uptime, wall, synced: false };
        serde_json::to_value(WatchEvent { at, happening }).expect("plain JSON")
    }

    #[test]
    fn every_line_has_a_moment_and_a_kind() {
        let fact = Fact::ClockSet { wall: Wall(0), before: Wall(1) };
        let record = line(Happening::Record { record: 7, fact });
        assert_eq!((&record["kind"], &record["record"]), (&json!("clock_set"), &json!(7)));

        let event = EventBody::ReaderLost { reader: "door".into() };
        let event = line(Happening::Event(event));
        assert_eq!((&event["kind"], &event["reader"]), (&json!("reader_lost"), &json!("door")));

        let tap = TapStatus {
            at: Wall(0),
            reader: "door".into(),
            decision: TapDecision::Granted,
            reason: None,
            station: Some("washer-1".into()),
            user: None,
            badge: None,
        };
        let tap = line(Happening::Here(Here::Tap(tap)));
        assert_eq!((&tap["kind"], &tap["decision"]), (&json!("tap"), &json!("granted")));
        assert_eq!(tap["at"]["boot"], json!(1));

        let seen: Seen = serde_json::from_value(tap).expect("readable");
        assert_eq!((seen.kind.as_str(), &seen.fields["station"]), ("tap", &json!("washer-1")));
    }
}
