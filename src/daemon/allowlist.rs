//! What comes down from the cloud.

use crate::core::access::Entry;
use crate::core::event::{Allowlist, Event};
use crate::core::ids::SessionId;
use crate::daemon::event_loop::Daemon;
use crate::io::mqtt::{CloudEvent, CloudLink};

impl Daemon {
    pub(super) async fn on_cloud(&mut self, event: CloudEvent) {
        self.tell_cloud(&event);
        self.learn_time().await;
        match event {
            CloudEvent::Connected => tracing::info!("the broker is connected"),
            CloudEvent::Disconnected { reason } => {
                tracing::warn!("the broker is not connected: {reason}");
            }
            CloudEvent::AllowlistHead(payload) => self.on_allowlist_head(payload),
            CloudEvent::MalformedHead { why } => self.on_malformed_head(why),
            CloudEvent::AllowlistPart(payload) => self.on_allowlist_part(payload),
            CloudEvent::Command { command, nonce } => self.on_command(command, &nonce).await,
            CloudEvent::ReplayEnded { id, complete } => self.on_replay_ended(id, complete).await,
            CloudEvent::BadMessage { .. } | CloudEvent::CloneSuspected => {}
            CloudEvent::LedgerAlarm(kind) => self.on_ledger_alarm(kind).await,
            CloudEvent::Acknowledged { upto } => {
                tracing::debug!(upto, "acknowledged");
                self.watch.note_acknowledged();
            }
        }
    }

    /// What is signed tells the time to a core whose clock is not trustworthy.
    pub(super) async fn learn_time(&mut self) {
        let Some(floor) = self.cloud.as_ref().map(CloudLink::clock_floor) else { return };
        if floor > self.settings.clock_floor {
            self.settings.clock_floor = floor;
            self.handle(Event::TimePassed { floor }).await;
        }
    }

    /// Lets the core know that another list decides, and what it says of running sessions.
    pub(super) async fn adopt_allowlist(&mut self, allowlist: Allowlist) {
        let running = self.running_entries().await;
        self.handle(Event::AllowlistApplied { allowlist, running }).await;
        self.record_overrides().await;
    }

    /// What the allowlist, with the local blocks over it, says of each open session's badge.
    pub(super) async fn running_entries(&self) -> Vec<(SessionId, Option<Entry>)> {
        let mut running = Vec::new();
        for (session, uid) in self.gateway.running_badges() {
            match self.store.lookup(uid).await {
                Ok(entry) => running.push((session, entry)),
                Err(error) => tracing::error!("the allowlist cannot be read: {error}"),
            }
        }
        running
    }
}
