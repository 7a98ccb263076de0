//! What the stand-in cloud knows of its gateway.

use std::collections::BTreeMap;

use serde_json::Value;

use super::usage::Usage;
use crate::protocol::cloud::UsageBatch;

/// Events and reports that are kept, the newest: more than any demo or test makes.
const MAX_KEPT: usize = 10_000;

/// Everything that came up.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether the cloud itself has subscribed; usage published before goes again by the ack timer.
    pub connected: bool,
    /// How often it has.
    pub subscriptions: u64,
    /// The last `up/state`.
    pub state: Option<Value>,
    /// Every `conn` that was seen online, in order, each time it was announced anew.
    pub connections: Vec<u64>,
    /// The retained state of each station.
    pub stations: BTreeMap<String, Value>,
    /// Sessions, meters and records.
    pub usage: Usage,
    /// `up/event`.
    pub events: Vec<Value>,
    /// `up/allowlist`.
    pub allowlist_reports: Vec<Value>,
    /// `up/reply`.
    pub replies: Vec<Value>,
    /// The last `up/checkpoint`, as it came.
    pub checkpoint: Option<String>,
    /// Payloads that cannot be read.
    pub unreadable: Vec<String>,
}

impl View {
    /// Whether the gateway says that it is online.
    pub fn online(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state["online"] == true)
    }

    /// Events of one kind.
    pub fn events_of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["kind"] == kind)
    }

    /// Replies to one command, in order.
    pub fn replies_to(&self, id: &str) -> Vec<&Value> {
        self.replies.iter().filter(|reply| reply["id"] == id).collect()
    }

    /// Refused taps.
    pub fn denials(&self) -> impl Iterator<Item = &Value> {
        self.events_of("denied")
    }

    /// The version of the list that the gateway last confirmed.
    pub fn applied_version(&self) -> Option<u64> {
        self.allowlist_reports.iter().rev().find_map(|report| report["applied"]["version"].as_u64())
    }

    /// Takes a message; true where it has to be acknowledged.
    pub(super) fn receive(&mut self, what: &str, payload: &[u8]) -> bool {
        if let Some(station) = what.strip_prefix("station/") {
            self.on_station(station, payload);
            return false;
        }
        if what == "usage" {
            return self.on_usage(payload);
        }
        if what == "checkpoint" {
            self.checkpoint = Some(String::from_utf8_lossy(payload).into_owned());
            return false;
        }
        let Ok(value) = serde_json::from_slice::<Value>(payload) else {
            self.unreadable.push(what.to_owned());
            return false;
        };
        match what {
            "state" => self.on_state(value),
            "event" => keep(&mut self.events, value),
            "reply" => keep(&mut self.replies, value),
            "allowlist" => keep(&mut self.allowlist_reports, value),
            _ => {}
        }
        false
    }

    fn on_state(&mut self, state: Value) {
        let conn = state["conn"].as_u64().filter(|_| state["online"] == true);
        self.connections.extend(conn.filter(|conn| self.connections.last() != Some(conn)));
        self.state = Some(state);
    }

    fn on_station(&mut self, station: &str, payload: &[u8]) {
        match serde_json::from_slice(payload) {
            Ok(state) => {
                self.stations.insert(station.to_owned(), state);
            }
            Err(_) if payload.is_empty() => {
                self.stations.remove(station);
            }
            Err(_) => self.unreadable.push(format!("station/{station}")),
        }
    }

    fn on_usage(&mut self, payload: &[u8]) -> bool {
        match serde_json::from_slice::<UsageBatch>(payload) {
            Ok(batch) => {
                self.usage.receive(&batch);
                true
            }
            Err(_) => {
                self.unreadable.push("usage".into());
                false
            }
        }
    }
}

fn keep(list: &mut Vec<Value>, value: Value) {
    if list.len() == MAX_KEPT {
        list.remove(0);
    }
    list.push(value);
}
