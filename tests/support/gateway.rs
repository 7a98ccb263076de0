//! A gateway of which only the cloud link is real, and a cloud that waits for what it does.

use std::sync::Arc;
use std::time::Duration;

use tapgate::config::Cloud;
use tapgate::core::site::StationKind;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::demo::cloud::{StandInCloud, View};
use tapgate::io::mqtt::{self, Clock, CloudEvent, CloudLink, Setup, Timing};
use tapgate::protocol::cloud::{ClockState, LocalState, StationState, StationStatus};
use tokio::sync::mpsc::Receiver;

use super::ledger::MemoryLedger;

pub(crate) const GATEWAY: &str = "ch-lausanne-012-a";
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that believes it is 1970 and knows better what time has surely passed.
pub(crate) struct TestClock;

impl Clock for TestClock {
    fn stamp(&self) -> Stamp {
        Stamp { boot: 1, uptime: Uptime(1), wall: Wall(0), synced: false }
    }

    fn floor(&self) -> Wall {
        Wall(jiff::Timestamp::now().as_millisecond())
    }

    fn learn(&self, _: Wall) {}
}

/// A gateway of which only the link is real.
pub(crate) struct Gateway {
    pub(crate) link: CloudLink,
    pub(crate) events: Receiver<CloudEvent>,
    pub(crate) ledger: MemoryLedger,
}

impl Gateway {
    pub(crate) fn start(port: u16) -> Gateway {
        // What reaches the broker before the cloud has subscribed waits for the ack timer.
        let timing = Timing { ack_timeout: Duration::from_secs(3), ..Timing::default() };
        Gateway::start_as(cloud(port), MemoryLedger::new(), timing)
    }

    pub(crate) fn start_as(cloud: Cloud, ledger: MemoryLedger, timing: Timing) -> Gateway {
        let setup = Setup {
            cloud,
            gateway_id: GATEWAY.into(),
            local: local(),
            removed_stations: vec!["washer-9".into()],
            ledger: ledger.clone(),
            clock: Arc::new(TestClock),
            timing,
        };
        let (link, events) = mqtt::spawn(setup).expect("a thread can be started");
        Gateway { link, events, ledger }
    }

    pub(crate) fn append(&self, count: u64) {
        self.ledger.append(count);
        self.link.records_committed();
    }

    /// The next event that `wanted` picks, skipping others.
    pub(crate) fn wait_for<T>(&mut self, wanted: impl Fn(CloudEvent) -> Option<T>) -> T {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the link runs");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, search).await })
            .expect("the event comes in time")
    }

    pub(crate) fn stop(self) -> bool {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(self.link.stop(Duration::from_secs(2)))
    }
}

pub(crate) fn cloud(port: u16) -> Cloud {
    Cloud {
        host: "127.0.0.1".into(),
        port,
        tls: false,
        username: None,
        password_file: None,
        credential: None,
        ca_file: None,
        client_cert: None,
        trusted_keys: vec![],
        report_unknown_uids: false,
    }
}

pub(crate) fn local() -> LocalState {
    LocalState {
        boot: 1,
        version: "1.2.0".into(),
        allowlist: None,
        clock: ClockState::Synced,
        public_key: None,
        alarms: vec![],
    }
}

pub(crate) fn station(state: StationStatus) -> StationState {
    StationState {
        state,
        since: Wall(1_795_341_662_345),
        kind: StationKind::Washer,
        label: "Machine 1".into(),
        fault: None,
        note: None,
    }
}

#[track_caller]
pub(crate) fn wait(cloud: &StandInCloud, wanted: impl Fn(&View) -> bool) -> View {
    cloud.wait_for(wanted, PATIENCE).unwrap_or_else(|view| {
        panic!(
            "connected {}, held {}, early {}, duplicates {}, state {:?}, conflicts {:?}, \
             events {:?}, reports {:?}",
            view.connected,
            view.usage.held(),
            view.usage.early_batches,
            view.usage.duplicates,
            view.state,
            view.usage.conflicts,
            view.events,
            view.allowlist_reports
        )
    })
}

/// Picks the reason of a lost or failed connection.
pub(crate) fn lost(event: CloudEvent) -> Option<String> {
    if let CloudEvent::Disconnected { reason } = event { Some(reason) } else { None }
}

pub(crate) fn sequence(view: &View) -> Vec<u64> {
    view.usage.records.iter().filter_map(|record| record["seq"].as_u64()).collect()
}
