//! What comes down from the cloud.

use crate::core::access::Entry;
use crate::core::event::{Allowlist, Event};
use crate::core::ids::SessionId;
use crate::daemon::event_loop::Daemon;
use crate::io::mqtt::CloudEvent;
use crate::io::store::ApplyOutcome;
use crate::protocol::allowlist::Head;
use crate::protocol::cloud::{AllowlistReport, AllowlistStanding, Refusal};

impl Daemon {
    pub(super) async fn on_cloud(&mut self, event: CloudEvent) {
        match event {
            CloudEvent::Connected => tracing::info!("the broker is connected"),
            CloudEvent::Disconnected { reason } => {
                tracing::warn!("the broker is not connected: {reason}");
            }
            CloudEvent::AllowlistHead(payload) => self.on_allowlist_head(&payload).await,
            CloudEvent::AllowlistPart(_) => {
                tracing::debug!("a part of an allowlist that was not asked for");
            }
            CloudEvent::Command(_) => {
                tracing::warn!("this version takes no commands from the cloud");
            }
            CloudEvent::BadMessage { .. }
            | CloudEvent::LedgerAlarm(_)
            | CloudEvent::CloneSuspected => {}
            CloudEvent::Acknowledged { upto } => tracing::debug!(upto, "acknowledged"),
        }
    }

    async fn on_allowlist_head(&mut self, payload: &[u8]) {
        let current = self.gateway.allowlist().map(AllowlistStanding::from);
        let head = match Head::parse(payload) {
            Ok(head) => head,
            Err(error) => {
                return self.refuse_allowlist(None, "bad_message", error.to_string(), current);
            }
        };
        let version = head.version;
        if self.clock.now().contradicts(head.issued_at) {
            let detail = format!("issued_at {} lies more than 24 h ahead", head.issued_at);
            return self.refuse_allowlist(Some(version), "bad_message", detail, current);
        }
        match self.store.apply_allowlist(head, self.clock.now()).await {
            Ok(ApplyOutcome::Applied { allowlist, .. }) => {
                let applied = AllowlistStanding::from(&allowlist);
                self.adopt_allowlist(allowlist).await;
                self.report_allowlist(AllowlistReport::Applied { applied });
            }
            Ok(ApplyOutcome::Unchanged(allowlist)) => {
                self.handle(Event::AllowlistConfirmed).await;
                let applied = AllowlistStanding::from(&allowlist);
                self.report_allowlist(AllowlistReport::Applied { applied });
            }
            Ok(ApplyOutcome::Refused { version, refusal, current }) => {
                let current = current.as_ref().map(AllowlistStanding::from);
                let reason = refusal.reason.as_str();
                self.refuse_allowlist(Some(version), reason, refusal.detail, current);
            }
            Ok(ApplyOutcome::Unsupported { version, current }) => {
                let current = current.as_ref().map(AllowlistStanding::from);
                let detail = "this version of tapgate takes only lists whose entries are in the \
                              head; send them inline or update the gateway";
                self.refuse_allowlist(Some(version), "storage", detail.into(), current);
            }
            Err(error) => {
                let detail = error.to_string();
                self.refuse_allowlist(Some(version), "storage", detail, current);
            }
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

    fn refuse_allowlist(
        &self,
        version: Option<u64>,
        reason: &str,
        detail: String,
        current: Option<AllowlistStanding>,
    ) {
        let shown = version.map_or("of unknown version".into(), |version| version.to_string());
        tracing::warn!(reason, "allowlist {shown} refused, {reason}: {detail}");
        let refused = Refusal { version, reason: reason.into(), detail };
        self.report_allowlist(AllowlistReport::Refused { refused, current });
    }

    fn report_allowlist(&self, report: AllowlistReport) {
        if let Some(cloud) = &self.cloud {
            cloud.report_allowlist(report);
        }
    }
}
