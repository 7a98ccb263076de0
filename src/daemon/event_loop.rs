//! The event loop: one event at a time, each to its end, before the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::wiring::Wiring;
use crate::core::event::Event;
use crate::core::gateway::Gateway;
use crate::core::memo::Memo;
use crate::core::time::{Uptime, Wall};
use crate::daemon::by_hand::Test;
use crate::daemon::commands::Commands;
use crate::daemon::lists::ListDesk;
use crate::daemon::orders::Orders;
use crate::daemon::reload::{Reload, Running};
use crate::daemon::taps::TapLog;
use crate::daemon::watch::Watch;
use crate::daemon::watched::Watched;
use crate::io::clock::Clock;
use crate::io::control::{Asked, Control};
use crate::io::identity::Identity;
use crate::io::modbus::{Field, FieldEvent};
use crate::io::mqtt::{CloudEvent, CloudLink};
use crate::io::pcsc::{Pcsc, ReaderEvent};
use crate::io::store::{ListNews, Store};
use crate::io::systemd::Systemd;

/// Everything that runs.
pub(super) struct Daemon {
    pub(super) gateway: Gateway,
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) field: Field,
    pub(super) pcsc: Pcsc,
    pub(super) cloud: Option<CloudLink>,
    pub(super) systemd: Systemd,
    pub(super) watch: Watch,
    pub(super) watched: Watched,
    /// A technician's test of a station.
    pub(super) test: Option<Test>,
    /// The cards that were presented, for who watches the readers.
    pub(super) taps: TapLog,
    pub(super) inputs: Inputs,
    pub(super) settings: Settings,
    pub(super) running: Running,
    pub(super) identity: Identity,
    pub(super) orders: Orders,
    /// What sessions remember beyond their records, as it is on disk.
    pub(super) kept_memos: Vec<Memo>,
    pub(super) lists: ListDesk,
    pub(super) commands: Commands,
    /// A checked new config; the loop ends to take it over.
    pub(super) reload: Option<Reload>,
    /// Why the daemon must not go on.
    pub(super) fatal: Option<String>,
    /// Removed from the file system when the daemon ends.
    pub(super) _control: Control,
}

/// Where events come from. Each channel is bounded by its sender's overflow rule.
pub(super) struct Inputs {
    pub(super) field: mpsc::Receiver<FieldEvent>,
    pub(super) readers: mpsc::Receiver<ReaderEvent>,
    pub(super) cloud: mpsc::Receiver<CloudEvent>,
    pub(super) control: mpsc::Receiver<Asked>,
    pub(super) lists: mpsc::Receiver<ListNews>,
}

/// What the daemon is told by signals. They outlive a reload: none of them is lost in it.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Why the loop ended.
pub(super) enum End {
    Stopped,
    Reload(Box<Reload>),
}

/// What of the config the loop itself needs.
pub(super) struct Settings {
    pub(super) gateway_id: String,
    pub(super) broker: Option<String>,
    pub(super) report_unknown_uids: bool,
    pub(super) retention: Option<Duration>,
    /// When this process took up the site; what is older was restored from the disk.
    pub(super) running_since: Uptime,
    /// No moment before this can be now.
    pub(super) clock_floor: Wall,
    /// What may not be written by hand.
    pub(super) wiring: Wiring,
}

/// The pulse of everything that is not driven by an event: clock, watchdog, status.
const PULSE: Duration = Duration::from_secs(1);
/// Acknowledged records beyond their retention go, a few at a time.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// The time is kept on disk this often where no record does it: that much too long a power cut may
/// seem, and each is a write to the card.
const KEEP_TIME_EVERY: Duration = Duration::from_secs(600);
/// How long the link may take to say goodbye; SIGTERM must be done within 10 s.
const FAREWELL: Duration = Duration::from_secs(2);

/// What woke the loop.
enum Wake {
    Stop(&'static str),
    Reload,
    Field(FieldEvent),
    Reader(ReaderEvent),
    Control(Asked),
    Cloud(CloudEvent),
    Lists(ListNews),
    /// There is room again for what came down of a list.
    ListsHaveRoom,
    Timeout(&'static str),
    Test,
    Pulse,
}

impl Daemon {
    /// Runs until SIGTERM, or until going on would be wrong. No switch is touched on the way out.
    pub(super) async fn run(mut self, signals: &mut Signals) -> anyhow::Result<End> {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake = self.wait(&mut pulse, signals).await;
            if let Wake::Stop(signal) = wake {
                tracing::info!("{signal}: stopping; no switch is touched");
                break;
            }
            self.on_wake(wake).await;
            self.follow_commands().await;
            self.advance_test().await;
            if self.fatal.is_some() || self.reload.is_some() {
                break;
            }
        }
        let (reload, fatal) = (self.reload.take(), self.fatal.take());
        if reload.is_none() {
            self.systemd.stopping();
        }
        self.end().await;
        match (fatal, reload) {
            (Some(why), _) => {
                Err(anyhow::anyhow!("{why}; restarting, report this with the journal"))
            }
            (None, Some(reload)) => Ok(End::Reload(Box::new(reload))),
            (None, None) => Ok(End::Stopped),
        }
    }

    /// Ends every task and waits for it, so that ports, sockets and files are free.
    async fn end(mut self) {
        self.keep_memos(true).await;
        if let Some(cloud) = self.cloud.take() {
            cloud.stop(FAREWELL).await;
        }
        self.pcsc.stop();
        drop(self.field);
        // Whoever starts next reads switches and meters anew: the last reports are not needed.
        let mut reports = self.inputs.field;
        let ended = async { while reports.recv().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!("a bus task does not end; its last request still waits for an answer");
        }
        // The thread that takes lists must not wait for somebody who listens no more.
        drop(self.inputs.lists);
        self.store.close().await;
    }

    async fn wait(&mut self, pulse: &mut tokio::time::Interval, signals: &mut Signals) -> Wake {
        let timeout = self.gateway.poll_timeout();
        let now = crate::io::clock::uptime();
        let (pause, why) = match timeout {
            Some((at, why)) => (at.since(now), why),
            None => (PULSE, "nothing"),
        };
        let (test_due, soon) = (self.test_due(), tokio::time::Instant::now());
        let inputs = &mut self.inputs;
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => Wake::Stop("SIGTERM"),
            _ = signals.interrupt.recv() => Wake::Stop("SIGINT"),
            Some(event) = inputs.field.recv() => Wake::Field(event),
            Some(event) = inputs.readers.recv() => Wake::Reader(event),
            () = tokio::time::sleep_until(test_due.unwrap_or(soon)), if test_due.is_some() => {
                Wake::Test
            }
            () = tokio::time::sleep(pause), if timeout.is_some() => Wake::Timeout(why),
            Some(asked) = inputs.control.recv() => Wake::Control(asked),
            Some(news) = inputs.lists.recv() => Wake::Lists(news),
            () = self.lists.room(), if !self.lists.has_room() => Wake::ListsHaveRoom,
            Some(event) = inputs.cloud.recv(), if self.lists.has_room() => Wake::Cloud(event),
            _ = signals.hang_up.recv() => Wake::Reload,
            _ = pulse.tick() => Wake::Pulse,
        }
    }

    async fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Stop(_) => {}
            Wake::Reload => {
                // The journal has the answer; a signal has no other way to give it.
                let _ = self.on_reload();
            }
            Wake::Field(event) => self.on_field(event).await,
            Wake::Reader(event) => self.on_reader(event).await,
            Wake::Control(asked) => self.on_asked(asked).await,
            Wake::Cloud(event) => self.on_cloud(event).await,
            Wake::Lists(news) => self.on_list_news(news).await,
            Wake::ListsHaveRoom => self.lists.resume(),
            Wake::Timeout(why) => {
                tracing::trace!(why, "timeout");
                let step = self.gateway.handle_timeout(self.clock.now());
                self.execute(step).await;
            }
            Wake::Test => {}
            Wake::Pulse => self.on_pulse().await,
        }
    }

    /// Hands an event to the core and does what follows.
    pub(super) async fn handle(&mut self, event: Event) {
        let step = self.gateway.handle_event(&event, self.clock.now());
        self.execute(step).await;
    }

    async fn on_pulse(&mut self) {
        if let Some(synchronised) = self.clock.look() {
            tracing::info!("the clock is synchronised");
            self.handle(Event::ClockSynchronised { before: synchronised.before }).await;
        }
        self.feed_watchdog().await;
        self.reset_log_level();
        self.watch_site().await;
        let now = self.clock.now();
        if self.watch.is_due(Chore::KeepTime, KEEP_TIME_EVERY)
            && let Err(error) = self.store.keep_time(now).await
        {
            tracing::warn!("the time cannot be kept for the next start: {error}");
        }
        if self.watch.is_due(Chore::Prune, PRUNE_EVERY)
            && let Some(retention) = self.settings.retention
            && let Err(error) = self.store.prune(retention, self.settled(), now).await
        {
            tracing::warn!("old records cannot be pruned: {error}");
        }
        self.look_at_list_age();
        self.publish_state().await;
        self.taps.answer(Instant::now());
        self.systemd.status(&self.status_line());
    }

    /// Fed only when the store answers and every bus made progress; this loop does if it is here.
    async fn feed_watchdog(&mut self) {
        let Some(interval) = self.systemd.watchdog_interval() else { return };
        if !self.watch.is_due(Chore::Watchdog, interval) {
            return;
        }
        let progress: BTreeMap<_, _> = self.field.progress().into_iter().collect();
        let stuck = self.watch.stuck_buses(progress, Instant::now());
        if stuck.is_empty() && self.store.ping().await.is_ok() {
            self.systemd.feed_watchdog();
            return;
        }
        // Looked at again with the next pulse: what only was slow must not cost a restart.
        self.watch.put_off(Chore::Watchdog);
        if stuck.is_empty() {
            tracing::error!("the store does not answer; systemd will restart tapgate");
        } else {
            tracing::error!("bus tasks make no progress: {stuck:?}; systemd will restart tapgate");
        }
    }
}

/// What is done now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    Watchdog,
    KeepTime,
    Prune,
    WatchSite,
}
