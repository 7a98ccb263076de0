//! What the cloud's acknowledgements say of the ledger as a whole: that records are missing, or
//! that this disk was rolled back or cloned.

use crate::core::gateway::{Gateway, Startup};
use crate::daemon::event_loop::Daemon;
use crate::daemon::report::{VERSION, public_state};
use crate::io::clock;
use crate::io::store::Forked;
use crate::protocol::cloud::EventKind;

impl Daemon {
    /// The event is on its way already.
    pub(super) async fn on_ledger_alarm(&mut self, kind: EventKind) {
        self.watch.note_ledger_alarm(kind);
        if kind == EventKind::LedgerFork && self.trusts_a_key() {
            self.fork().await;
        }
    }

    /// A signed acknowledgement names another history: what was recorded here since the disk was
    /// copied goes on in an epoch of its own, so that nothing is lost and nothing counts twice.
    async fn fork(&mut self) {
        let unsaved = self.gateway.unsaved();
        if unsaved > 0 {
            tracing::error!("{unsaved} records must be saved before a new epoch can be opened");
            return;
        }
        match self.store.fork(self.settings.running_since, self.clock.now()).await {
            Ok(Some(forked)) => self.go_on_in(forked).await,
            Ok(None) => tracing::error!(
                "the ledger has forked less than a day ago and is left as it is: look for a second \
                 gateway with a copy of this card, and ask the operator"
            ),
            Err(error) => tracing::error!("no new epoch can be opened: {error}"),
        }
    }

    /// The core starts anew from what the new epoch holds, as after a restart of the daemon; buses,
    /// readers and link go on.
    async fn go_on_in(&mut self, forked: Forked) {
        let epoch = forked.standing.head.epoch.as_str();
        tracing::error!(
            "this disk was rolled back or cloned: its ledger is kept read-only and epoch {epoch} \
             is open; {} sessions go on",
            forked.open_sessions.len()
        );
        let marks = self.store.out_of_service().await.unwrap_or_else(|error| {
            tracing::error!("marks cannot be read and stations are in service: {error}");
            Vec::new()
        });
        self.watch.forked = forked.opened.map(|opened| opened.at);
        let survivors = forked.survivors(marks, self.kept_memos.clone());
        let startup = Startup {
            version: VERSION.into(),
            boot_id: clock::boot_id(),
            allowlist: self.gateway.allowlist().cloned(),
            allowlist_arrived: self.gateway.allowlist_arrived(),
            clock_floor: self.settings.clock_floor,
        };
        let site = self.running.config.site.clone();
        let (gateway, step) = Gateway::recover(site, &survivors, startup, self.clock.now());
        self.gateway = gateway;
        self.orders = Default::default();
        self.execute(step).await;
        self.follow_commands().await;
        self.republish_stations();
    }

    /// Shows the cloud every station as it is now.
    pub(super) fn republish_stations(&self) {
        let Some(cloud) = &self.cloud else { return };
        for view in self.gateway.stations(self.clock.now()) {
            cloud.publish_station(view.station.clone(), public_state(&view));
        }
    }
}
