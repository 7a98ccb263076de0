//! Starts the daemon: store, recovery, tasks, READY. Nothing waits for a bus, reader or broker.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::config::{Cloud, Config, Storage};
use crate::core::event::Step;
use crate::core::gateway::{Gateway, Startup};
use crate::core::ledger::EpochReason;
use crate::core::recovery::{MeterAccount, OpenSession, Survivors};
use crate::core::time::Wall;
use crate::daemon::event_loop::{Daemon, Inputs, Settings};
use crate::daemon::ledger_port::{LedgerPort, LinkClock};
use crate::daemon::lists::ListDesk;
use crate::daemon::orders::Orders;
use crate::daemon::reload::Running;
use crate::daemon::report::{VERSION, public_state};
use crate::daemon::taps::TapLog;
use crate::daemon::watch::Watch;
use crate::daemon::{EXIT_FAILURE, EXIT_PERMISSION, EXIT_STORAGE};
use crate::io::clock::{self, Clock};
use crate::io::control::{Control, ControlError};
use crate::io::mqtt::{self, CloudEvent, CloudLink};
use crate::io::store::{Opening, Recovered, Store, StoreError};
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

/// Opens, recovers, spawns; the daemon is ready when this returns.
pub(super) async fn start(running: Running) -> anyhow::Result<Daemon> {
    let config = running.config.clone();
    let systemd = Systemd::from_env();
    systemd.extend_timeout(STORE_CHECK);
    let (store, recovered) = open_store(&config.storage)?;
    let trusted = recovered.same_boot && recovered.newest.is_some_and(|newest| newest.synced);
    let clock = Clock::new(recovered.boot, trusted);
    let signed = config.cloud.as_ref().is_some_and(|cloud| !cloud.trusted_keys.is_empty());
    let floor = clock_floor(&recovered, signed);
    let settings = settings_of(&config);
    let mut watch = Watch::new(config.wiring.readers.iter().map(|reader| reader.reader.clone()));
    watch.note_damaged(&recovered.damaged);
    let (field_sender, field_events) = mpsc::channel(FIELD_EVENTS);
    let (reader_sender, reader_events) = mpsc::channel(READER_EVENTS);
    let (asked_sender, asked) = mpsc::channel(CONTROL_REQUESTS);
    let field = modbus::spawn(&config.wiring, field_sender);
    let startup = Startup {
        version: VERSION.into(),
        boot_id: clock::boot_id(),
        allowlist: recovered.allowlist.clone(),
        allowlist_arrived: recovered.allowlist_arrived,
        clock_floor: floor,
    };
    let survivors = survivors(&recovered);
    let (gateway, step) = Gateway::recover(config.site, &survivors, startup, clock.now());
    let (cloud, cloud_events) = match config.cloud {
        Some(cloud) => {
            let (link, events) = start_link(cloud, &settings, &store, &clock, floor)?;
            (Some(link), events)
        }
        None => (None, mpsc::channel(1).1),
    };
    let control = Control::open(&config.control_socket, asked_sender).await?;
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
        test: None,
        taps: TapLog::default(),
        inputs,
        settings,
        running,
        orders: Orders::default(),
        kept_memos: recovered.memos.clone(),
        lists,
        reload: None,
        fatal: None,
        _control: control,
    };
    daemon.begin(step, &recovered).await;
    Ok(daemon)
}

fn settings_of(config: &Config) -> Settings {
    Settings {
        gateway_id: config.gateway_id.clone(),
        broker: config.cloud.as_ref().map(Cloud::endpoint),
        report_unknown_uids: config.cloud.as_ref().is_some_and(|cloud| cloud.report_unknown_uids),
        retention: config.storage.retention,
        wiring: config.wiring.clone(),
    }
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
        for view in self.gateway.stations(self.clock.now()) {
            if let Some(cloud) = &self.cloud {
                cloud.publish_station(view.station.clone(), public_state(&view));
            }
        }
        self.publish_state().await;
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

/// No moment before any of these can be now. What the cloud issued counts where it is `signed`.
fn clock_floor(recovered: &Recovered, signed: bool) -> Wall {
    let newest = recovered.newest.filter(|newest| newest.synced).map(|newest| newest.wall);
    let issued = recovered.allowlist_issued_at.filter(|_| signed).unwrap_or_default();
    let floors = [mqtt::built(), recovered.clock_floor, newest.unwrap_or_default(), issued];
    floors.into_iter().max().unwrap_or_default()
}

fn survivors(recovered: &Recovered) -> Survivors {
    let sessions = recovered.open_sessions.iter().map(|open| OpenSession {
        start: open.start.clone(),
        started: open.started,
        posted_wh: open.posted_wh,
        ending: open.ending.map(|(reason, _)| reason),
    });
    let meters = recovered.meters.iter().map(|account| MeterAccount {
        station: account.station.clone(),
        meter: account.meter.clone(),
        serial: account.serial.clone(),
        cursor_wh: account.last_wh,
        cursor_at: account.last_at,
    });
    Survivors {
        sessions: sessions.collect(),
        meters: meters.collect(),
        out_of_service: recovered.out_of_service.clone(),
        newest: recovered.newest,
        memos: recovered.memos.clone(),
        epoch_opened: recovered.opened.filter(|o| o.reason != EpochReason::First).map(|o| o.at),
    }
}

fn start_link(
    cloud: Cloud,
    settings: &Settings,
    store: &Store,
    clock: &Clock,
    floor: Wall,
) -> anyhow::Result<(CloudLink, mpsc::Receiver<CloudEvent>)> {
    let local = LocalState {
        boot: clock.now().boot,
        version: VERSION.into(),
        allowlist: None,
        clock: ClockState::Unsynced,
        public_key: None,
        alarms: Vec::new(),
    };
    mqtt::spawn(mqtt::Setup {
        cloud,
        gateway_id: settings.gateway_id.clone(),
        local,
        removed_stations: Vec::new(),
        ledger: LedgerPort(store.clone()),
        clock: Arc::new(LinkClock {
            clock: clock.clone(),
            floor: Arc::new(AtomicI64::new(floor.0)),
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
    match error.downcast_ref::<ControlError>() {
        Some(ControlError::Bind { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            EXIT_PERMISSION
        }
        Some(_) | None => EXIT_FAILURE,
    }
}
