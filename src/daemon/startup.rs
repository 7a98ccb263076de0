//! Starts the daemon: store, recovery, tasks, READY. Nothing waits for a bus, reader or broker.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::config::{Cloud, Config, Storage};
use crate::core::event::Step;
use crate::core::gateway::{Gateway, Startup};
use crate::core::ids::StationId;
use crate::core::site::Site;
use crate::core::time::{Stamp, Uptime, Wall};
use crate::daemon::commands::Commands;
use crate::daemon::event_loop::{Daemon, Inputs, Settings};
use crate::daemon::ledger_port::{LedgerPort, LinkClock};
use crate::daemon::lists::ListDesk;
use crate::daemon::orders::Orders;
use crate::daemon::reload::Running;
use crate::daemon::report::VERSION;
use crate::daemon::taps::TapLog;
use crate::daemon::watch::Watch;
use crate::daemon::watched::Watched;
use crate::daemon::{EXIT_FAILURE, EXIT_PERMISSION, EXIT_STORAGE};
use crate::io::clock::{self, Clock};
use crate::io::control::{Control, ControlError};
use crate::io::identity::{Identity, IdentityError};
use crate::io::mqtt::{self, CloudEvent, CloudLink};
use crate::io::store::{Opened, Opening, Recovered, Store, StoreError};
use crate::io::systemd::Systemd;
use crate::io::{modbus, pcsc};
use crate::protocol::cloud::{ClockState, EventBody, LocalState};

/// Reports of the buses that wait for the loop; the bus tasks wait when it is full.
const FIELD_EVENTS: usize = 64;
/// Taps that wait for the loop: one per reader and some to spare; more are dropped by the readers.
const READER_EVENTS: usize = 32;
/// Commands of technicians that wait for the loop.
const CONTROL_REQUESTS: usize = 8;

/// How long a start may take: a ledger of a gigabyte is read as a whole where the last run crashed,
/// and a worn card reads 5 MB/s.
const STORE_CHECK: Duration = Duration::from_secs(300);

/// When this process began: what is older than that was restored from the disk. A reload is no
/// start.
static RUNNING_SINCE: OnceLock<Uptime> = OnceLock::new();

/// Opens, recovers, spawns; the daemon is ready when this returns.
pub(super) async fn start(running: Running) -> anyhow::Result<Daemon> {
    let config = running.config.clone();
    let systemd = Systemd::from_env();
    systemd.extend_timeout(STORE_CHECK);
    let running_since = *RUNNING_SINCE.get_or_init(clock::uptime);
    let (store, recovered) = open_store(&config.storage)?;
    let identity = Identity::open(&Identity::beside(&config.storage.path))?;
    let clock = Clock::new(recovered.boot, recovered.clock_was_trusted());
    let signed = config.cloud.as_ref().is_some_and(|cloud| !cloud.trusted_keys.is_empty());
    let floor = clock_floor(&recovered, signed);
    let settings = settings(&config, running_since, floor);
    let mut watch = Watch::new(config.wiring.readers.iter().map(|reader| reader.reader.clone()));
    watch.note_damaged(&recovered.damaged);
    let (field_sender, field_events) = mpsc::channel(FIELD_EVENTS);
    let (reader_sender, reader_events) = mpsc::channel(READER_EVENTS);
    let (asked_sender, asked) = mpsc::channel(CONTROL_REQUESTS);
    let field = modbus::spawn(&config.wiring, field_sender);
    let stations = config.site.stations.iter().map(|station| station.id.clone()).collect();
    let (gateway, step) = recover(config.site, &recovered, floor, clock.now());
    let (cloud, cloud_events) = match config.cloud {
        Some(cloud) => {
            let removed = store.show_stations(stations).await?;
            let local = LinkParts { settings: &settings, identity: &identity, floor, removed };
            let (link, events) = start_link(cloud, local, &store, &clock)?;
            (Some(link), events)
        }
        None => (None, mpsc::channel(1).1),
    };
    let watched = Watched::default();
    let control = Control::open(&config.control_socket, asked_sender, watched.feed.clone()).await?;
    let pcsc = pcsc::spawn(config.wiring.readers, reader_sender);
    let (lists, list_news) = ListDesk::new(store.lists());
    let inputs = Inputs {
        field: field_events,
        readers: reader_events,
        cloud: cloud_events,
        control: asked,
        lists: list_news,
    };
    let mut daemon = Daemon {
        gateway,
        clock,
        store,
        field,
        pcsc,
        cloud,
        systemd,
        watch,
        watched,
        test: None,
        taps: TapLog::default(),
        inputs,
        settings,
        running,
        orders: Orders::default(),
        kept_memos: recovered.memos.clone(),
        lists,
        commands: Commands::default(),
        identity,
        reload: None,
        fatal: None,
        _control: control,
    };
    daemon.begin(step, &recovered).await;
    Ok(daemon)
}

fn settings(config: &Config, running_since: Uptime, clock_floor: Wall) -> Settings {
    Settings {
        gateway_id: config.gateway_id.clone(),
        broker: config.cloud.as_ref().map(Cloud::endpoint),
        report_unknown_uids: config.cloud.as_ref().is_some_and(|cloud| cloud.report_unknown_uids),
        retention: config.storage.retention,
        running_since,
        clock_floor,
        wiring: config.wiring.clone(),
    }
}

fn recover(site: Site, recovered: &Recovered, clock_floor: Wall, now: Stamp) -> (Gateway, Step) {
    let startup = Startup {
        version: VERSION.into(),
        boot_id: clock::boot_id(),
        allowlist: recovered.allowlist.clone(),
        allowlist_arrived: recovered.allowlist_arrived,
        clock_floor,
    };
    Gateway::recover(site, &recovered.survivors(), startup, now)
}

impl Daemon {
    async fn begin(&mut self, step: Step, recovered: &Recovered) {
        self.execute(step).await;
        if let Some(allowlist) = recovered.unrecorded_allowlist() {
            self.adopt_allowlist(allowlist).await;
        }
        self.record_overrides().await;
        for file in &recovered.set_aside {
            let detail = format!("{} was damaged and set aside", file.display());
            tracing::error!("{detail}; keep it, send it to the operator, check the card");
            self.send_event(EventBody::StoreSetAside { detail });
        }
        self.watch.forked = recovered.opened.filter(Opened::is_fork).map(|opened| opened.at);
        self.republish_stations();
        self.publish_state().await;
        self.resume_commands().await;
        let status = self.status_line();
        tracing::info!("tapgate {VERSION} is ready: {status}");
        self.systemd.ready(&status);
    }
}

fn open_store(storage: &Storage) -> Result<(Store, Recovered), StoreError> {
    let boot_id = clock::boot_id();
    let fresh = Clock::new(0, false).now();
    Store::open(&Opening {
        path: &storage.path,
        boot_id: &boot_id,
        wall: fresh.wall,
        uptime: fresh.uptime,
        synced: fresh.synced,
    })
}

/// No moment before this can be now. What the cloud issued counts where it is `signed`.
fn clock_floor(recovered: &Recovered, signed: bool) -> Wall {
    let issued = recovered.allowlist_issued_at.max(recovered.acknowledged_at);
    passed(recovered.newest, recovered.clock_floor, issued.filter(|_| signed))
}

/// The latest of all times that have surely passed. What the cloud issued says nothing once a
/// trustworthy clock has spoken after it.
fn passed(newest: Option<Stamp>, persisted: Wall, issued: Option<Wall>) -> Wall {
    let told = match newest {
        Some(newest) if newest.synced => newest.wall,
        Some(_) | None => issued.map(mqtt::believable).unwrap_or_default(),
    };
    mqtt::built().max(persisted).max(told)
}

/// What the link needs beside the store.
struct LinkParts<'a> {
    settings: &'a Settings,
    identity: &'a Identity,
    floor: Wall,
    removed: Vec<StationId>,
}

fn start_link(
    cloud: Cloud,
    parts: LinkParts<'_>,
    store: &Store,
    clock: &Clock,
) -> anyhow::Result<(CloudLink, mpsc::Receiver<CloudEvent>)> {
    let local = LocalState {
        boot: clock.now().boot,
        version: VERSION.into(),
        allowlist: None,
        clock: ClockState::Unsynced,
        public_key: Some(parts.identity.public_key()),
        alarms: Vec::new(),
    };
    let gateway_id = parts.settings.gateway_id.clone();
    mqtt::spawn(mqtt::Setup {
        cloud,
        gateway_id: gateway_id.clone(),
        local,
        removed_stations: parts.removed,
        ledger: LedgerPort {
            store: store.clone(),
            gateway_id,
            identity: parts.identity.clone(),
            clock: clock.clone(),
        },
        clock: Arc::new(LinkClock {
            clock: clock.clone(),
            floor: Arc::new(AtomicI64::new(parts.floor.0)),
        }),
        timing: mqtt::Timing::default(),
    })
    .context("the thread of the cloud link cannot be started; is the machine out of memory?")
}

/// What systemd and scripts see of a start that failed.
pub(super) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<StoreError>() {
        let _ = error;
        return EXIT_STORAGE;
    }
    if error.downcast_ref::<IdentityError>().is_some() {
        return EXIT_STORAGE;
    }
    match error.downcast_ref::<ControlError>() {
        Some(ControlError::Bind { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            EXIT_PERMISSION
        }
        Some(_) | None => EXIT_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_sets_the_floor_until_a_trustworthy_clock_speaks() {
        let [day, week, century] =
            [1, 7, 36_500].map(|days| mqtt::built() + Duration::from_secs(days * 86_400));
        let at = |wall, synced| Some(Stamp { boot: 1, uptime: Uptime(1), wall, synced });

        assert_eq!(passed(None, Wall(0), None), mqtt::built());
        assert_eq!(passed(at(Wall(0), false), day, Some(week)), week, "no clock chip");
        assert_eq!(passed(at(day, true), day, Some(week)), day, "a wrong time is taken back");
        let capped = passed(at(Wall(0), false), day, Some(century));
        assert_eq!(capped, mqtt::believable(century), "a leaked key");
        assert!(capped < century);
    }
}
