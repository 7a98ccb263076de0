//! Lists that a technician imports: the command serves the parts as the cloud would.

use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::daemon::event_loop::Daemon;
use crate::io::mqtt::TrustedKeys;
use crate::io::store::{ApplyOutcome, ListJob, Offer, Origin};
use crate::protocol::cloud::{AllowlistStanding, Down, PartRequest};
use crate::protocol::control::{AllowlistStatus, Reply};
use crate::protocol::lists::{
    EntryPage, ImportState, ListReply, ListRequest, ListStatus, Progress, Refused,
};

/// Entries in one answer: at most 4 KiB each, far less than an answer may have.
const PAGE_ENTRIES: usize = 500;

/// The import at hand, or the last one.
#[derive(Debug, Default)]
pub(super) struct Import {
    /// Counts imports since the start.
    number: u64,
    wanted: Vec<PartRequest>,
    outcome: Option<ImportState>,
}

impl Import {
    fn begin(&mut self) -> u64 {
        *self = Import { number: self.number + 1, ..Import::default() };
        self.number
    }

    /// Keeps what the command will ask for.
    pub(super) fn note(&mut self, origin: Origin, outcome: &ApplyOutcome) {
        if origin != Origin::Import(self.number) {
            return;
        }
        match outcome {
            ApplyOutcome::Wanted(parts) => self.wanted.extend(parts.iter().cloned()),
            ApplyOutcome::Applied { allowlist, .. } => {
                self.outcome = Some(ImportState::Applied(AllowlistStanding::from(allowlist)));
            }
            ApplyOutcome::Unchanged(allowlist) => {
                self.outcome = Some(ImportState::Unchanged(AllowlistStanding::from(allowlist)));
            }
            ApplyOutcome::Refused { version, refusal, current } => {
                self.outcome = Some(ImportState::Refused(Refused {
                    version: *version,
                    reason: refusal.reason.as_str().into(),
                    detail: refusal.detail.clone(),
                    current: current.as_ref().map(AllowlistStanding::from),
                }));
            }
        }
    }

    fn state(&mut self, import: u64) -> Result<ImportState, String> {
        if import != self.number {
            return Err("another import has begun; try again when it is done".into());
        }
        let wanted = std::mem::take(&mut self.wanted);
        Ok(match &self.outcome {
            Some(outcome) => outcome.clone(),
            None => ImportState::Wanted(wanted),
        })
    }
}

impl Daemon {
    pub(super) async fn on_list_request(&mut self, request: ListRequest) -> Reply {
        let answer = match request {
            ListRequest::Status {} => return self.list_status().await,
            ListRequest::Entries { after } => return self.list_entries(after).await,
            ListRequest::Import { head } => self.begin_import(&head),
            ListRequest::ImportState { import } => {
                self.lists.import.state(import).map(ListReply::Import)
            }
            ListRequest::Chunk { payload } => {
                let given = self.lists.try_give(ListJob::Chunk(payload.into_bytes()));
                Ok(if given { ListReply::Taken } else { ListReply::Busy })
            }
        };
        answer.map_or_else(Reply::Error, Reply::List)
    }

    /// Checks who signed the head, where that matters, and lets the store judge it.
    fn begin_import(&mut self, head: &str) -> Result<ListReply, String> {
        let keys = self.running.config.cloud.as_ref().map(|cloud| cloud.trusted_keys.as_slice());
        let keys = TrustedKeys::new(keys.unwrap_or_default(), &self.settings.gateway_id);
        let typ = Down::Allowlist.signed_type().expect("heads are signed");
        let payload = match keys.verify(head.trim().as_bytes(), typ) {
            Ok(payload) => payload,
            Err(why) => {
                tracing::warn!("an imported allowlist is refused, bad_signature: {why}");
                return Err(format!("the list is refused, bad_signature: {why}"));
            }
        };
        let import = self.lists.import.begin();
        let (now, news) = (self.clock.now(), self.lists.news.clone());
        let offer = Offer { origin: Origin::Import(import), payload, now, news };
        if self.lists.try_give(ListJob::Head(offer)) {
            Ok(ListReply::Begun { import })
        } else {
            Ok(ListReply::Busy)
        }
    }

    async fn list_status(&self) -> Reply {
        let now = self.clock.now();
        let blocks = match self.store.local_blocks().await {
            Ok(blocks) => blocks.len() as u64,
            Err(error) => return Reply::Storage(error.to_string()),
        };
        let status = ListStatus {
            allowlist: self.gateway.allowlist().map(status_of),
            age_s: self.gateway.allowlist_age(now).map(|age| age.as_secs()),
            stale: self.lists.is_stale(),
            local_blocks: blocks,
            taking: self.store.list_taken().map(|taken| Progress {
                version: taken.version,
                parts: taken.parts as u64,
                missing: taken.missing as u64,
            }),
        };
        Reply::List(ListReply::Status(status))
    }

    async fn list_entries(&self, after: Option<String>) -> Reply {
        let after = match after.as_deref().map(str::parse::<Uid>).transpose() {
            Ok(after) => after,
            Err(why) => return Reply::Error(why.into()),
        };
        match self.store.entries_after(after, PAGE_ENTRIES).await {
            Ok(page) => {
                let last = page.entries.last().map(|(uid, _)| uid.to_string());
                let entries = page.entries.into_iter().map(|(_, entry)| entry).collect();
                let head = page.head.map(|head| crate::protocol::lists::PageHead {
                    list: head.allowlist.list,
                    version: head.allowlist.version,
                    digest: head.allowlist.digest,
                    count: head.allowlist.count,
                    issued_at: head.issued_at,
                });
                Reply::List(ListReply::Entries(EntryPage { head, entries, last }))
            }
            Err(error) => Reply::Storage(error.to_string()),
        }
    }
}

fn status_of(list: &Allowlist) -> AllowlistStatus {
    AllowlistStatus {
        list: list.list.clone(),
        version: list.version,
        digest: list.digest.clone(),
        count: list.count,
    }
}
