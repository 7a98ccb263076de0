//! Answers what a technician asks about badges: which one a number is, what is known of it, what a
//! tap would come to; and blocks it.

use crate::core::access::Entry;
use crate::core::badge::{Technology, Uid};
use crate::core::ids::{BadgeId, StationId, is_opaque_id};
use crate::core::renderings::{renderings, uids_written_as};
use crate::core::tap::no_badge;
use crate::core::time::{Stamp, Uptime, Wall};
use crate::daemon::event_loop::Daemon;
use crate::io::control::Peer;
use crate::io::store::{BadgeRecord, StoreError};
use crate::protocol::badges::{
    BADGES_PER_PAGE, BadgePage, BadgeReply, BadgeReport, BadgeRequest, Known, StationVerdict,
    WhyReport,
};
use crate::protocol::control::{AllowlistStatus, Reply};

/// A card that is not there is taken for one that every station accepts.
const ASSUMED: Technology = Technology::MifareClassic1k;

/// The badge that was meant, and what else the text could mean.
struct Named {
    uid: Uid,
    record: BadgeRecord,
    /// How the text was read, where it was neither UID nor id.
    read_as: Option<&'static str>,
    hints: Vec<String>,
}

/// Why a request about a badge is not served.
enum Refused {
    Unknown(String),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        Refused::Store(error)
    }
}

impl Daemon {
    pub(super) async fn on_badge_request(&mut self, ask: BadgeRequest, peer: Peer) -> Reply {
        let answer = match ask {
            BadgeRequest::Why { badge, station, at, technology } => {
                let why = self.why(&badge, station, at, technology).await;
                why.map(|why| Reply::Badge(BadgeReply::Why(Box::new(why))))
            }
            BadgeRequest::Show { badge } => {
                let report = self.show_badge(&badge).await;
                report.map(|report| Reply::Badge(BadgeReply::Show(Box::new(report))))
            }
            BadgeRequest::List { after } => {
                self.list_badges(after).await.map(|page| Reply::Badge(BadgeReply::List(page)))
            }
            BadgeRequest::Block { badge } => self.block(&badge, peer).await,
            BadgeRequest::Unblock { badge } => self.unblock(&badge, peer).await,
        };
        answer.unwrap_or_else(|refused| match refused {
            Refused::Unknown(why) => Reply::Unknown(why),
            Refused::Store(error) => Reply::Storage(format!("nothing was changed: {error}")),
        })
    }

    async fn why(
        &self,
        badge: &str,
        station: StationId,
        at: Option<Wall>,
        technology: Technology,
    ) -> Result<WhyReport, Refused> {
        let named = self.named(badge).await?;
        let now = moment(self.clock.now(), at);
        let card = (named.uid, technology);
        let Some(verdict) = self.gateway.verdict(&station, card, named.record.entry.as_ref(), now)
        else {
            let known: Vec<String> =
                self.gateway.stations(now).iter().map(|view| view.station.to_string()).collect();
            let known = known.join(", ");
            let why = format!("there is no station {station}; the config has: {known}");
            return Err(Refused::Unknown(why));
        };
        Ok(WhyReport {
            decision: verdict.as_str().into(),
            rule: verdict.denial().and_then(|denial| denial.row()),
            reason: verdict.denial(),
            explanation: verdict.explanation().into(),
            station,
            technology,
            at: now.wall,
            clock: if now.synced { "synced" } else { "unsynced" }.into(),
            known: known(named.record),
            read_as: named.read_as.map(str::to_owned),
            allowlist: self.allowlist_status(),
            hints: named.hints,
        })
    }

    async fn show_badge(&self, badge: &str) -> Result<BadgeReport, Refused> {
        let named = self.named(badge).await?;
        let all: Vec<StationId> =
            self.gateway.stations(self.clock.now()).into_iter().map(|view| view.station).collect();
        let stations = self.verdicts(&all, (named.uid, ASSUMED), named.record.entry.as_ref());
        let report = self.badge_report(named.uid, named.record, stations);
        Ok(BadgeReport { read_as: named.read_as.map(str::to_owned), hints: named.hints, ..report })
    }

    /// What a tap of this card would come to on each of these stations now.
    pub(super) fn verdicts(
        &self,
        stations: &[StationId],
        card: (Uid, Technology),
        entry: Option<&Entry>,
    ) -> Vec<StationVerdict> {
        let now = self.clock.now();
        let verdict = |station: &StationId| {
            let verdict = self.gateway.verdict(station, card, entry, now)?;
            let (decision, reason) = (verdict.as_str().into(), verdict.denial());
            Some(StationVerdict { station: station.clone(), decision, reason })
        };
        stations.iter().filter_map(verdict).collect()
    }

    pub(super) fn badge_report(
        &self,
        uid: Uid,
        record: BadgeRecord,
        stations: Vec<StationVerdict>,
    ) -> BadgeReport {
        BadgeReport {
            uid: uid.to_string(),
            problem: no_badge(uid),
            renderings: renderings(uid),
            known: known(record),
            read_as: None,
            stations,
            allowlist: self.allowlist_status(),
            hints: Vec::new(),
        }
    }

    async fn list_badges(&self, after: Option<BadgeId>) -> Result<BadgePage, Refused> {
        let first = after.is_none();
        let records = self.store.badge_page(after, BADGES_PER_PAGE).await?;
        let full = records.len() == BADGES_PER_PAGE;
        let last = records.last().and_then(|record| Some(record.entry.as_ref()?.badge.clone()));
        let mut unknown_blocked = 0;
        if first {
            for block in self.store.local_blocks().await? {
                let unknown = self.store.lookup(block.uid).await?.is_none();
                unknown_blocked += u64::from(unknown);
            }
        }
        Ok(BadgePage {
            badges: records.into_iter().map(known).collect(),
            next: last.filter(|_| full),
            unknown_blocked,
            any_list: self.gateway.allowlist().is_some(),
        })
    }

    async fn block(&mut self, badge: &str, peer: Peer) -> Result<Reply, Refused> {
        let named = self.named(badge).await?;
        if no_badge(named.uid).is_some() {
            let why = format!(
                "{badge} is no badge's number: it is drawn anew or cut short; present the badge: \
                 tapgate readers watch"
            );
            return Err(Refused::Unknown(why));
        }
        let (known, new) = self.block_badge(named.uid, &by(peer)).await?;
        let shown = shown(known.as_ref());
        if new {
            let badge = known.as_ref().map(|badge| badge.as_str());
            tracing::warn!(badge, "{shown} blocked locally by {peer}");
        }
        let said = match new {
            true => "is blocked from now on, until an applied list has it blocked or absent",
            false => "was blocked locally already",
        };
        Ok(Reply::Done(sentences(format!("{shown} {said}"), &named)))
    }

    async fn unblock(&mut self, badge: &str, peer: Peer) -> Result<Reply, Refused> {
        let named = self.named(badge).await?;
        let entry = named.record.entry.as_ref();
        let known = entry.map(|entry| entry.badge.clone());
        let shown = shown(known.as_ref());
        if self.clear_override(named.uid, &by(peer)).await? {
            let badge = known.as_ref().map(|badge| badge.as_str());
            tracing::warn!(badge, "local block of {shown} lifted by {peer}");
            let listed = self.store.lookup(named.uid).await?.is_some_and(|entry| entry.blocked);
            let rest = if listed { "; the allowlist has it blocked all the same" } else { "" };
            let said = format!("the local block of {shown} is lifted{rest}");
            return Ok(Reply::Done(sentences(said, &named)));
        }
        let why = match entry {
            Some(entry) if entry.blocked => {
                format!(
                    "{shown} is blocked by the allowlist, not locally; the operator can lift it"
                )
            }
            Some(_) | None => format!(
                "{shown} is not blocked locally; tapgate badge list --blocked shows which are"
            ),
        };
        Ok(Reply::Error(sentences(why, &named)))
    }

    /// The badge that a text means: a UID, the operator's id of a badge, else a number that is a
    /// known badge's in another form.
    async fn named(&self, text: &str) -> Result<Named, Refused> {
        let typed = text.parse::<Uid>().ok();
        let mut others: Vec<(&'static str, Uid, BadgeRecord)> = Vec::new();
        if let Some(uid) = typed {
            let record = self.store.badge_record(uid).await?;
            if record.entry.is_some() {
                return Ok(Named { uid, record, read_as: None, hints: Vec::new() });
            }
        }
        if is_opaque_id(text)
            && let Some((uid, _)) = self.store.lookup_badge(BadgeId::from(text)).await?
        {
            let record = self.store.badge_record(uid).await?;
            return Ok(Named { uid, record, read_as: None, hints: Vec::new() });
        }
        for (form, uid) in uids_written_as(text) {
            let record = self.store.badge_record(uid).await?;
            if record.entry.is_some() {
                others.push((form, uid, record));
            }
        }
        if let Some(uid) = typed {
            let record = self.store.badge_record(uid).await?;
            return Ok(Named { uid, record, read_as: None, hints: hints(&others) });
        }
        match <[_; 1]>::try_from(others) {
            Ok([(form, uid, record)]) => {
                Ok(Named { uid, record, read_as: Some(form), hints: Vec::new() })
            }
            Err(others) => Err(Refused::Unknown(not_one(text, &others))),
        }
    }

    pub(super) fn allowlist_status(&self) -> Option<AllowlistStatus> {
        self.gateway.allowlist().map(|list| AllowlistStatus {
            list: list.list.clone(),
            version: list.version,
            digest: list.digest.clone(),
            count: list.count,
        })
    }
}

fn known(record: BadgeRecord) -> Known {
    Known { entry: record.listed, local_block: record.locally_blocked }
}

fn hints(others: &[(&'static str, Uid, BadgeRecord)]) -> Vec<String> {
    let hint = |(form, _, record): &(&'static str, Uid, BadgeRecord)| {
        let badge = record.entry.as_ref().map(|entry| entry.badge.as_str()).unwrap_or_default();
        format!("read as {form}, the number is that of badge {badge}")
    };
    others.iter().map(hint).collect()
}

fn not_one(text: &str, others: &[(&'static str, Uid, BadgeRecord)]) -> String {
    if others.is_empty() {
        return format!(
            "{text} is neither a UID nor the id or number of a badge in the allowlist; \
             present the badge: tapgate readers watch"
        );
    }
    format!("{text} can mean several badges: {}", hints(others).join("; "))
}

/// What is done is said of the badge, and what else the number could have meant.
fn sentences(said: String, named: &Named) -> String {
    let read = named.read_as.map(|form| format!("the number was read as {form}"));
    [said].into_iter().chain(read).chain(named.hints.iter().cloned()).collect::<Vec<_>>().join("; ")
}

fn shown(badge: Option<&BadgeId>) -> String {
    badge.map_or("the badge, unknown to the allowlist,".into(), |badge| format!("badge {badge}"))
}

/// Who changed something, for the ledger.
fn by(peer: Peer) -> String {
    peer.uid.map_or("technician".into(), |uid| format!("technician, user {uid}"))
}

/// The gateway's clock moved to `at`, as if it were trustworthy then.
fn moment(now: Stamp, at: Option<Wall>) -> Stamp {
    let Some(at) = at else { return now };
    let ahead = at.0 - now.wall.0;
    let uptime = Uptime(now.uptime.0.saturating_add_signed(ahead));
    Stamp { uptime, wall: at, synced: true, ..now }
}
