//! Tells journal, cloud and technician what happens.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::event::Notice;
use crate::core::ids::{ReaderId, SessionId, StationId};
use crate::core::ledger::{Fact, Record};
use crate::core::time::Stamp;
use crate::core::view::{Fault, StationView};
use crate::daemon::event_loop::Daemon;
use crate::io::control::Asked;
use crate::io::modbus::{BusHealth, UnitHealth, UnitState};
use crate::io::store::Export;
use crate::protocol::cloud::{
    AllowlistStanding, ClockState, EventBody, EventKind, EventMessage, LocalState, StationState,
};
use crate::protocol::control::{
    BusStatus, CloudStatus, DeviceStatus, LedgerStatus, Reply, Request, Status,
};
use crate::protocol::watch::{Happening, Here};

/// The program's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a suspected clone stays an alarm: two of them throw each other out within minutes.
const CLONE_ALARM: Duration = Duration::from_secs(3600);

impl Daemon {
    /// A line for each record that tells a station's story; `head` is the last one's number.
    pub(super) fn log_records(&self, records: &[Record], head: u64) {
        let first = head + 1 - records.len() as u64;
        for (record, seq) in records.iter().zip(first..) {
            match &record.fact {
                Fact::SessionEnding { session, reason } => {
                    self.log_session(seq, session, reason.as_str(), "session is ending");
                }
                Fact::Interruption { session, cause, .. } => {
                    self.log_session(seq, session, cause.as_str(), "session was interrupted");
                }
                fact => log_fact(fact, seq),
            }
        }
    }

    /// These records name the session alone; the station's story has them all the same.
    fn log_session(&self, record: u64, session: &SessionId, reason: &str, what: &str) {
        let stations = self.gateway.stations(self.clock.now());
        let its = |view: &&StationView| {
            view.session.as_ref().is_some_and(|open| open.session == *session)
        };
        let station = stations.iter().find(its).map(|view| view.station.as_str());
        tracing::info!(record, station, %session, reason, "{what}: {reason}");
    }

    pub(super) fn notify(&self, notice: &Notice) {
        log_notice(notice);
        if let Some(event) = EventBody::from_notice(notice, self.settings.report_unknown_uids) {
            self.send_event(event);
        }
    }

    /// Tells the cloud and who watches.
    pub(super) fn send_event(&self, body: EventBody) {
        self.send_limited(body);
    }

    /// The same; false where the cloud has been told enough of this kind for now.
    pub(super) fn send_limited(&self, body: EventBody) -> bool {
        let now = self.clock.now();
        if self.watched.feed.is_watched() {
            self.watched.feed.tell(now, Happening::Event(body.clone()));
        }
        self.cloud.as_ref().is_none_or(|cloud| cloud.event(EventMessage::new(now, body)))
    }

    pub(super) fn publish_station(&self, id: &StationId) {
        let Some(view) = self.gateway.station(id, self.clock.now()) else { return };
        tracing::info!(station = id.as_str(), "station is {}", view.state.as_str());
        self.announce(Here::Station { station: id.clone(), state: view.state });
        if let Some(cloud) = &self.cloud {
            cloud.publish_station(id.clone(), public_state(&view));
        }
    }

    pub(super) fn local_state(&self) -> LocalState {
        let now = self.clock.now();
        LocalState {
            boot: now.boot,
            version: VERSION.into(),
            allowlist: self.gateway.allowlist().map(AllowlistStanding::from),
            clock: if now.synced { ClockState::Synced } else { ClockState::Unsynced },
            public_key: Some(self.identity.public_key()),
            alarms: self.alarm_kinds(),
        }
    }

    /// Publishes the state where it changed; the link keeps the contract's pace.
    pub(super) async fn publish_state(&self) {
        if let Some(cloud) = &self.cloud {
            cloud.publish_state(self.local_state());
        }
    }

    fn alarm_kinds(&self) -> Vec<EventKind> {
        let now = self.clock.now();
        let silent = self.field.health().iter().any(|unit| unit.state == UnitState::Down);
        let down = silent || self.watch.has_unreachable_bus();
        let stations = self.gateway.stations(now);
        let has = |fault: Fault| {
            stations.iter().any(|station| station.fault.as_deref() == Some(fault.as_str()))
        };
        let faulted = has(Fault::SwitchFailed) || has(Fault::SwitchStuck);
        let alarms = [
            (!now.synced, EventKind::ClockUnsynchronised),
            (self.lists.is_stale(), EventKind::AllowlistStale),
            (down, EventKind::UnitDown),
            (self.watch.has_missing_reader(), EventKind::ReaderLost),
            (faulted, EventKind::SwitchFailed),
            (self.suspects_clone(), EventKind::CloneSuspected),
            (has(Fault::SwitchWithoutSession), EventKind::SwitchWithoutSession),
            (self.watch.has_damaged_files(), EventKind::StoreSetAside),
        ];
        let raised = alarms.into_iter().filter_map(|(raised, kind)| raised.then_some(kind));
        let all: BTreeSet<EventKind> = raised.chain(self.watch.standing_alarms()).collect();
        all.into_iter().collect()
    }

    /// Whether another client seemed to use this gateway's id of late.
    fn suspects_clone(&self) -> bool {
        let suspected = self.cloud.as_ref().and_then(|cloud| cloud.status().clone_suspected);
        let now = self.clock.now();
        suspected.is_some_and(|at| now.uptime.since(at.uptime) < CLONE_ALARM)
    }

    pub(super) fn on_reader_found(&self, reader: &ReaderId, name: &str) {
        tracing::info!(reader = reader.as_str(), "reader is ready: {name}");
        self.pcsc.greet(reader);
        self.send_event(EventBody::ReaderBack { reader: reader.clone() });
    }

    pub(super) fn on_reader_lost(&self, reader: &ReaderId, why: &str) {
        tracing::warn!(reader = reader.as_str(), "reader is gone: {why}");
        self.send_event(EventBody::ReaderLost { reader: reader.clone() });
    }

    pub(super) async fn on_asked(&mut self, asked: Asked) {
        let Asked { request, peer, reply } = asked;
        let answer = match request {
            Request::Status {} => match self.status().await {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(error) => Reply::Error(format!("the store does not answer: {error}")),
            },
            Request::Bus { bus, unit, order } => {
                return self.on_bus_request((bus, unit, order), peer, reply);
            }
            Request::TestStation { station } => {
                return self.on_test_request(station, peer, reply).await;
            }
            Request::Badge { ask } => self.on_badge_request(ask, peer).await,
            Request::Readers {} => return self.on_readers_request(reply),
            Request::NextTap { after } => return self.taps.on_request(after, reply),
            Request::Maintenance { order } => return self.on_maintenance(order, peer, reply).await,
            Request::Allowlist { ask } => self.on_list_request(ask).await,
            Request::LedgerRecords { from } => return self.on_ledger_wanted(from, reply),
            Request::LedgerExported { epoch, from, upto } => {
                self.on_ledger_exported(Export { epoch, from, upto }, peer).await
            }
            Request::LedgerVerify {} => return self.on_verify_wanted(reply),
            Request::Identity {} => Reply::Identity {
                gateway: self.settings.gateway_id.clone(),
                public_key: self.identity.public_key(),
            },
            // The control socket serves it by itself.
            Request::Watch {} => Reply::Watching {},
            Request::Reload {} => match self.on_reload() {
                Ok(said) => Reply::Done(said),
                Err(why) => Reply::Error(why),
            },
        };
        // A command that gave up waiting is gone; nothing was changed by asking.
        let _ = reply.send(answer);
    }

    async fn status(&self) -> anyhow::Result<Status> {
        let now = self.clock.now();
        let ledger = self.store.standing().await?;
        let unsaved = self.gateway.unsaved() as u64;
        Ok(Status {
            gateway: self.settings.gateway_id.clone(),
            version: VERSION.into(),
            boot: now.boot,
            running_s: self.watch.started.elapsed().as_secs(),
            clock: if now.synced { "synced" } else { "unsynced" }.into(),
            stations: self.gateway.stations(now),
            readers: self.watch.readers(),
            buses: self.field.buses().into_iter().map(bus_status).collect(),
            devices: self.field.health().into_iter().map(|unit| self.device_status(unit)).collect(),
            cloud: self.cloud_status(),
            allowlist: self.allowlist_status(),
            ledger: LedgerStatus {
                epoch: ledger.head.epoch,
                head: ledger.head.seq,
                acked: ledger.acked,
                unacknowledged: ledger.head.seq.saturating_sub(ledger.acked),
                unsaved,
            },
            taps: self.watched.taps(),
            alarms: self.alarms(unsaved),
        })
    }

    /// What a unit last said is old news once its bus cannot be reached.
    fn device_status(&self, unit: UnitHealth) -> DeviceStatus {
        let bus_error = self.watch.bus_error(&unit.bus);
        let state = if bus_error.is_some() { UnitState::Down } else { unit.state };
        DeviceStatus {
            bus: unit.bus.to_string(),
            unit: unit.unit,
            device: unit.device.to_string(),
            state: unit_state(state).into(),
            figures: unit.figures,
            latency_ms: unit.latency_ms.map(u64::from),
            last_error: bus_error.cloned().or(unit.last_error),
            trouble: unit.trouble,
        }
    }

    fn cloud_status(&self) -> Option<CloudStatus> {
        let status = self.cloud.as_ref()?.status();
        let now = self.clock.now();
        let ago = |at: Option<Stamp>| at.map(|at| now.uptime.since(at.uptime).as_secs());
        Some(CloudStatus {
            connected: status.connected_since.is_some(),
            broker: self.settings.broker.clone().unwrap_or_default(),
            conn: status.conn,
            last_error: status.last_error,
            events_waiting: status.events_waiting,
            events_dropped: status.events_dropped,
            connected_s: ago(status.connected_since),
            last_ack_s: ago(status.last_ack),
            clone_suspected_s: ago(status.clone_suspected),
            clock_floor: status.clock_floor,
        })
    }

    fn alarms(&self, unsaved: u64) -> Vec<String> {
        let mut alarms = self.watch.alarms();
        for unit in self.field.health() {
            let down = unit.state == UnitState::Down;
            let silent = down.then(|| unit.last_error.unwrap_or("no answer".into()));
            if let Some(error) = silent.or(unit.trouble) {
                alarms.push(format!("device {}: {error}", unit.device));
            }
        }
        if let Some(deaf) = self.cloud.as_ref().and_then(|cloud| cloud.status().deaf) {
            alarms.push(format!(
                "{deaf}, so no list, acknowledgement or command comes: allow this user to read it"
            ));
        }
        if self.suspects_clone() {
            alarms.push(
                "another client seems to use this gateway's id: look for a copy of its card, and \
                 give each gateway an id of its own"
                    .into(),
            );
        }
        if unsaved > 0 {
            alarms.push(format!(
                "{unsaved} records cannot be saved and starts are refused: free disk space or \
                 replace the card"
            ));
        }
        if self.lists.is_stale() {
            alarms.push("the allowlist is old: look at tapgate cloud status, or import one".into());
        }
        if self.gateway.allowlist().is_none() {
            alarms
                .push("no allowlist yet: every badge is refused until the cloud sends one".into());
        }
        alarms
    }

    /// One line for `systemctl status`.
    pub(super) fn status_line(&self) -> String {
        let stations = self.gateway.stations(self.clock.now());
        let running = stations.iter().filter(|station| station.session.is_some()).count();
        let cloud = match &self.cloud {
            Some(cloud) if cloud.status().connected_since.is_some() => "cloud connected",
            Some(_) => "cloud not connected",
            None => "no cloud",
        };
        format!("{} stations, {running} sessions, {cloud}", stations.len())
    }
}

pub(super) fn public_state(view: &StationView) -> StationState {
    StationState {
        state: view.state,
        since: view.since,
        kind: view.kind,
        label: view.label.clone(),
        fault: view.fault.clone(),
        note: view.note.clone(),
    }
}

fn bus_status(bus: BusHealth) -> BusStatus {
    BusStatus { bus: bus.bus.to_string(), error: bus.error, figures: bus.figures }
}

fn unit_state(state: UnitState) -> &'static str {
    match state {
        UnitState::Unknown => "unknown",
        UnitState::Ok => "ok",
        UnitState::Suspect => "suspect",
        UnitState::Down => "down",
    }
}

fn log_notice(notice: &Notice) {
    match notice {
        Notice::Denied { reader, station, reason, badge, technology, uid: _ } => {
            let technology = technology.map_or("", |technology| technology.as_str());
            tracing::info!(
                reader = reader.as_str(),
                station = station.as_ref().map(|station| station.as_str()),
                badge = badge.as_ref().map(|badge| badge.as_str()),
                reason = reason.as_str(),
                "tap refused: {reason} {technology}"
            );
        }
        Notice::SwitchFailed { station } => tracing::error!(
            station = station.as_str(),
            "the switch does not do what it is told; check relay, contactor and wiring"
        ),
        Notice::SwitchWithoutSession { station } => tracing::warn!(
            station = station.as_str(),
            "the switch is closed without a session and stays so while something runs; look there"
        ),
        Notice::Unattributed { station, energy_wh } => tracing::warn!(
            station = station.as_str(),
            "{energy_wh} Wh without a session; look for a stuck relay, a bypass or a wrong wiring"
        ),
        Notice::MeterDoubted { station, shown_wh, believed_wh } => tracing::warn!(
            station = station.as_str(),
            "the meter shows {shown_wh} Wh after {believed_wh} Wh: not believed for now; an exchange \
             is found by itself in two minutes, or with: tapgate meter replace {station}"
        ),
        Notice::MeterFrozen { station, register_wh } => tracing::warn!(
            station = station.as_str(),
            "the meter stands at {register_wh} Wh although power flows: nothing is billed; \
             check the meter and its profile"
        ),
        Notice::MeterImplausible { station } => tracing::warn!(
            station = station.as_str(),
            "the meter rose faster than max_power allows and is believed; check max_power"
        ),
    }
}

fn log_fact(fact: &Fact, record: u64) {
    match fact {
        Fact::SessionStarted(start) => tracing::info!(
            record,
            station = start.station.as_str(),
            session = %start.session,
            user = start.user.as_ref().map(|user| user.as_str()),
            badge = start.badge.as_ref().map(|badge| badge.as_str()),
            "session started"
        ),
        Fact::SessionEnded(end) => tracing::info!(
            record,
            station = end.start.station.as_str(),
            session = %end.start.session,
            user = end.start.user.as_ref().map(|user| user.as_str()),
            badge = end.start.badge.as_ref().map(|badge| badge.as_str()),
            reason = end.reason.as_str(),
            "session ended: {}, {} s, {}",
            end.reason.as_str(),
            end.duration_s,
            end.energy_wh.map_or("unmetered".into(), |energy| format!("{energy} Wh")),
        ),
        Fact::Unattributed { station, from_wh, to_wh, .. } => {
            let energy = to_wh - from_wh;
            tracing::info!(record, station = station.as_str(), "{energy} Wh without a session");
        }
        Fact::MeterCommissioned(change) => tracing::info!(
            record,
            station = change.station.as_str(),
            "meter {} commissioned at {} Wh",
            change.meter,
            change.new_register_wh
        ),
        Fact::MeterReplaced(change) => tracing::warn!(
            record,
            station = change.station.as_str(),
            "meter {} replaced, now at {} Wh",
            change.meter,
            change.new_register_wh
        ),
        Fact::AllowlistApplied { version, count, .. } => {
            tracing::info!(record, "allowlist {version} applied: {count} badges");
        }
        Fact::GatewayStarted { .. }
        | Fact::SessionEnding { .. }
        | Fact::Interruption { .. }
        | Fact::SessionSlot { .. }
        | Fact::ClockSet { .. }
        | Fact::BadgeOverride { .. }
        | Fact::Carried { .. }
        | Fact::EpochOpened { .. } => tracing::debug!(record, "{fact:?}"),
    }
}
