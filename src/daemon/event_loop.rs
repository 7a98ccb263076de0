//! The event loop: one event at a time, each to its end, before the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::config::wiring::Wiring;
use crate::core::event::Event;
use crate::core::gateway::Gateway;
use crate::daemon::by_hand::Test;
use crate::daemon::watch::Watch;
use crate::io::clock::Clock;
use crate::io::control::{Asked, Control};
use crate::io::modbus::{Field, FieldEvent};
use crate::io::mqtt::{CloudEvent, CloudLink};
use crate::io::pcsc::{Pcsc, ReaderEvent};
use crate::io::store::Store;
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
    /// A technician's test of a station.
    pub(super) test: Option<Test>,
    pub(super) inputs: Inputs,
    pub(super) settings: Settings,
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
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hang_up: Signal,
}

/// What of the config the loop itself needs.
pub(super) struct Settings {
    pub(super) gateway_id: String,
    pub(super) broker: Option<String>,
    pub(super) report_unknown_uids: bool,
    pub(super) retention: Option<Duration>,
    /// What may not be written by hand.
    pub(super) wiring: Wiring,
}

/// The pulse of everything that is not driven by an event: clock, watchdog, status.
const PULSE: Duration = Duration::from_secs(1);
/// Acknowledged records beyond their retention go, a few at a time.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// The time is kept on disk this often: that much too long a power cut may seem, and each is a
/// write to the card.
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
    Timeout(&'static str),
    Test,
    Pulse,
}

impl Daemon {
    /// Runs until SIGTERM, or until going on would be wrong. No switch is touched on the way out.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake = self.wait(&mut pulse).await;
            if let Wake::Stop(signal) = wake {
                tracing::info!("{signal}: stopping; no switch is touched");
                break;
            }
            self.on_wake(wake).await;
            self.advance_test().await;
            if self.fatal.is_some() {
                break;
            }
        }
        self.systemd.stopping();
        if let Some(cloud) = self.cloud.take() {
            cloud.stop(FAREWELL).await;
        }
        self.pcsc.stop();
        self.store.close().await;
        match self.fatal {
            None => Ok(()),
            Some(why) => Err(anyhow::anyhow!("{why}; restarting, report this with the journal")),
        }
    }

    async fn wait(&mut self, pulse: &mut tokio::time::Interval) -> Wake {
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
            _ = inputs.terminate.recv() => Wake::Stop("SIGTERM"),
            _ = inputs.interrupt.recv() => Wake::Stop("SIGINT"),
            Some(event) = inputs.field.recv() => Wake::Field(event),
            Some(event) = inputs.readers.recv() => Wake::Reader(event),
            () = tokio::time::sleep_until(test_due.unwrap_or(soon)), if test_due.is_some() => {
                Wake::Test
            }
            () = tokio::time::sleep(pause), if timeout.is_some() => Wake::Timeout(why),
            Some(asked) = inputs.control.recv() => Wake::Control(asked),
            Some(event) = inputs.cloud.recv() => Wake::Cloud(event),
            _ = inputs.hang_up.recv() => Wake::Reload,
            _ = pulse.tick() => Wake::Pulse,
        }
    }

    async fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Stop(_) => {}
            Wake::Reload => {
                tracing::warn!("this version does not reload; check the config, then restart");
            }
            Wake::Field(event) => self.on_field(event).await,
            Wake::Reader(event) => self.on_reader(event).await,
            Wake::Control(asked) => self.on_asked(asked).await,
            Wake::Cloud(event) => self.on_cloud(event).await,
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
        let now = self.clock.now();
        if self.watch.is_due(Chore::KeepTime, KEEP_TIME_EVERY)
            && let Err(error) = self.store.keep_time(now).await
        {
            tracing::warn!("the time cannot be kept for the next start: {error}");
        }
        if self.watch.is_due(Chore::Prune, PRUNE_EVERY)
            && let Some(retention) = self.settings.retention
            && let Err(error) = self.store.prune(retention, now).await
        {
            tracing::warn!("acknowledged records cannot be pruned: {error}");
        }
        self.publish_state().await;
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
        if !stuck.is_empty() {
            tracing::error!("bus tasks make no progress: {stuck:?}; systemd will restart tapgate");
        } else if self.store.ping().await.is_err() {
            tracing::error!("the store does not answer; systemd will restart tapgate");
        } else {
            self.systemd.feed_watchdog();
        }
    }
}

/// What is done now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    Watchdog,
    KeepTime,
    Prune,
}
