//! Allowlists on their way: heads and chunks go to the store's thread for them, its news come back.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};

use crate::core::event::{Allowlist, Event};
use crate::core::time::Wall;
use crate::daemon::event_loop::Daemon;
use crate::daemon::import::Import;
use crate::io::store::{ApplyOutcome, ListJob, ListNews, Offer, Origin};
use crate::protocol::allowlist::{BadMessage, Chunk, Refusal, RefusalReason};
use crate::protocol::cloud::{self, AllowlistReport, AllowlistStanding, Down, EventBody, Topics};

/// News that wait for the loop; the thread waits when there are more.
const NEWS: usize = 16;

/// What the loop knows of lists that are being taken.
pub(super) struct ListDesk {
    jobs: Sender<ListJob>,
    pub(super) news: Sender<ListNews>,
    /// What the thread had no room for. As long as there is one, nothing more is taken from the
    /// cloud's link, and the broker waits.
    held: Option<ListJob>,
    pub(super) import: Import,
    /// The list was old when it was taken without one before.
    issued_long_ago: bool,
    stale: bool,
    /// The last refusal in the journal: the same one again is not worth another line.
    refused: Option<(Option<u64>, Refusal)>,
}

impl ListDesk {
    pub(super) fn new(jobs: Sender<ListJob>) -> (ListDesk, mpsc::Receiver<ListNews>) {
        let (news, heard) = mpsc::channel(NEWS);
        let desk = ListDesk {
            jobs,
            news,
            held: None,
            import: Import::default(),
            issued_long_ago: false,
            stale: false,
            refused: None,
        };
        (desk, heard)
    }

    /// Whether the thread has room for more.
    pub(super) fn has_room(&self) -> bool {
        self.held.is_none()
    }

    /// Waits until there is room again.
    pub(super) async fn room(&self) {
        // A thread that has ended takes nothing ever again; the held job is dropped then.
        let _ = self.jobs.reserve().await;
    }

    /// Gives the thread what it had no room for.
    pub(super) fn resume(&mut self) {
        if let Some(job) = self.held.take() {
            self.give(job);
        }
    }

    /// Gives the thread something to do, now or as soon as it has room.
    pub(super) fn give(&mut self, job: ListJob) {
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => self.held = Some(job),
            Err(TrySendError::Closed(_)) => tracing::error!("allowlists are no longer taken"),
        }
    }

    /// The same where there is room now; false where there is none.
    pub(super) fn try_give(&mut self, job: ListJob) -> bool {
        self.has_room() && self.jobs.try_send(job).is_ok()
    }

    /// Whether the list that decides is older than the config wants.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }
}

impl Daemon {
    /// A head came down from the cloud.
    pub(super) fn on_allowlist_head(&mut self, payload: Vec<u8>) {
        let news = self.lists.news.clone();
        let offer = Offer { origin: Origin::Cloud, payload, now: self.clock.now(), news };
        self.lists.give(ListJob::Head(offer));
    }

    /// What should be a head is none: refused as any other that is wrong.
    pub(super) fn on_malformed_head(&self, why: String) {
        let refusal = Refusal::new(RefusalReason::BadMessage, why);
        self.report_refused(None, refusal, self.gateway.allowlist());
    }

    pub(super) fn on_allowlist_part(&mut self, payload: Vec<u8>) {
        if let Err(BadMessage(detail)) = Chunk::parse(&payload) {
            let topic = Topics::new(&self.settings.gateway_id).down(Down::Part);
            self.send_event(EventBody::BadMessage { topic, detail });
            return;
        }
        self.lists.give(ListJob::Chunk(payload));
    }

    pub(super) async fn on_list_news(&mut self, news: ListNews) {
        let ListNews { origin, outcome } = news;
        self.lists.import.note(origin, &outcome);
        match outcome {
            ApplyOutcome::Wanted(get) => {
                if origin == Origin::Cloud {
                    self.report_allowlist(AllowlistReport::Get { get });
                }
            }
            ApplyOutcome::Applied { allowlist, issued_at, first, .. } => {
                self.on_list_applied(allowlist, issued_at, first).await;
            }
            ApplyOutcome::Unchanged(allowlist) => {
                self.handle(Event::AllowlistConfirmed).await;
                self.report_applied(&allowlist);
            }
            ApplyOutcome::Refused { version, refusal, current } => {
                self.log_refusal(origin, version, &refusal);
                if origin == Origin::Cloud {
                    self.tell_of_bad_form(&refusal);
                    self.report_refused(version, refusal, current.as_ref());
                }
            }
        }
    }

    async fn on_list_applied(&mut self, allowlist: Allowlist, issued_at: Wall, first: bool) {
        self.lists.refused = None;
        let now = self.clock.now();
        let limit = self.running.config.stale_warning;
        let age = now.synced.then(|| now.wall - issued_at);
        self.lists.issued_long_ago = first && age.zip(limit).is_some_and(|(age, l)| age > l);
        if self.lists.issued_long_ago && !self.lists.stale {
            self.raise_stale(age.unwrap_or_default());
        }
        if let Some(cloud) = self.cloud.as_ref().filter(|_| self.trusts_a_key()) {
            cloud.learn_time(issued_at);
            self.learn_time().await;
        }
        self.adopt_allowlist(allowlist.clone()).await;
        self.report_applied(&allowlist);
    }

    /// Tells once when the list has become older than the config wants.
    pub(super) fn look_at_list_age(&mut self) {
        let age = self.gateway.allowlist_age(self.clock.now());
        let limit = self.running.config.stale_warning;
        let old = age.zip(limit).is_some_and(|(age, limit)| age > limit);
        if old && !self.lists.stale {
            self.raise_stale(age.unwrap_or_default());
        }
        self.lists.stale = old || self.lists.issued_long_ago;
    }

    fn raise_stale(&mut self, age: Duration) {
        self.lists.stale = true;
        let age_s = age.as_secs();
        tracing::warn!(
            "the allowlist is {} days old; look at: tapgate cloud status, or import a new one",
            age_s / 86_400
        );
        self.send_event(EventBody::AllowlistStale { age_s });
    }

    fn report_applied(&self, allowlist: &Allowlist) {
        let applied = AllowlistStanding::from(allowlist);
        self.report_allowlist(AllowlistReport::Applied { applied });
    }

    fn tell_of_bad_form(&self, refusal: &Refusal) {
        if refusal.reason == RefusalReason::BadMessage {
            let topic = Topics::new(&self.settings.gateway_id).down(Down::Allowlist);
            self.send_event(EventBody::BadMessage { topic, detail: refusal.detail.clone() });
        }
    }

    fn report_refused(&self, version: Option<u64>, refusal: Refusal, current: Option<&Allowlist>) {
        let Refusal { reason, detail } = refusal;
        let refused = cloud::Refusal { version, reason: reason.as_str().into(), detail };
        let current = current.map(AllowlistStanding::from);
        self.tell_refusal(&refused);
        self.report_allowlist(AllowlistReport::Refused { refused, current });
    }

    fn report_allowlist(&self, report: AllowlistReport) {
        if let Some(cloud) = &self.cloud {
            cloud.report_allowlist(report);
        }
    }

    fn log_refusal(&mut self, origin: Origin, version: Option<u64>, refusal: &Refusal) {
        let known = self.lists.refused.replace((version, refusal.clone()));
        if known.is_some_and(|(of, known)| (of, &known) == (version, refusal)) {
            return tracing::debug!("the same allowlist is refused again");
        }
        let shown = version.map_or("of unknown version".into(), |version| version.to_string());
        let whose = match origin {
            Origin::Cloud => "",
            Origin::Import(_) => "imported ",
        };
        let (reason, detail) = (refusal.reason.as_str(), &refusal.detail);
        tracing::warn!(reason, "{whose}allowlist {shown} refused, {reason}: {detail}");
    }
}
