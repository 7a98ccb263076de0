//! The durable store: ledger, open sessions, meters, allowlist and the gateway's own state.
//!
//! Four threads: one writes the ledger, one looks badges up and never waits for a disk sync, one
//! keeps the gateway's state, one takes allowlists and lets all others go first. `Ok` of anything
//! that writes means that it survives a power cut; an error means that nothing changed.

mod accounts;
mod apply;
mod books;
mod database;
mod epoch;
mod error;
mod exchange;
mod files;
mod gateway;
mod generation;
mod inspect;
mod ledger;
mod lists;
mod lookup;
mod notebook;
mod overrides;
mod recovery;
mod replies;
mod salvage;
mod schema;
mod survivors;
mod verify;
mod worker;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::core::access::Entry;
use crate::core::badge::Uid;
use crate::core::ids::{BadgeId, StationId};
use crate::core::ledger::Record;
use crate::core::memo::Memo;
use crate::core::time::{Stamp, Uptime};

pub use books::{MeterAccount, OpenSession};
pub use epoch::Opened;
pub use error::StoreError;
pub use exchange::{
    AckOutcome, Acknowledgement, Batch, Export, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Settled,
    Standing, StoredRecord, Totals,
};
pub use inspect::Inspection;
pub use ledger::{Hash, Head, MAX_RECORD_BYTES};
pub use lists::{ApplyOutcome, ListJob, ListNews, ListsByHand, NextTurn, Offer, Origin, Taken};
pub use lookup::{BadgeRecord, Page};
pub use overrides::{LocalBlock, MAX_LOCAL_BLOCKS, OverrideNote};
pub use recovery::{Opening, Recovered};
pub use replies::{KeptReply, MAX_REPLIES};
pub use verify::Verification;

/// The way to the store for everybody else. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    ledger: worker::Worker<ledger::Ledger>,
    gateway: worker::Worker<gateway::Gateway>,
    lookup: worker::Worker<lookup::Lookup>,
    lists: lists::Handle,
}

/// The new epoch after a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forked {
    /// Epoch, head, acknowledged, floor.
    pub standing: Standing,
    /// When, and why.
    pub opened: Option<Opened>,
    /// Those that go on.
    pub open_sessions: Vec<OpenSession>,
    /// All meters, at the register up to which the old epoch had posted.
    pub meters: Vec<MeterAccount>,
}

impl Store {
    /// Records facts, all or none, and posts them to the accounts. Returns the new head.
    pub async fn commit(&self, records: Vec<Record>) -> Result<Head, StoreError> {
        self.ledger.run(move |ledger| ledger.commit(&records)).await?
    }

    /// What the allowlist, with the local blocks over it, says of a badge now.
    pub async fn lookup(&self, uid: Uid) -> Result<Option<Entry>, StoreError> {
        self.lookup.run(move |lookup| lookup.by_uid(uid)).await?
    }

    /// Everything that is known of a badge.
    pub async fn badge_record(&self, uid: Uid) -> Result<BadgeRecord, StoreError> {
        self.lookup.run(move |lookup| lookup.record(uid)).await?
    }

    /// Some badges of the allowlist, those after this one, in order of their UIDs.
    pub async fn badge_page(
        &self,
        after: Option<BadgeId>,
        limit: usize,
    ) -> Result<Vec<BadgeRecord>, StoreError> {
        self.lookup.run(move |lookup| lookup.badges(after.as_ref(), limit)).await?
    }

    /// The same by the operator's id of the badge.
    pub async fn lookup_badge(&self, badge: BadgeId) -> Result<Option<(Uid, Entry)>, StoreError> {
        self.lookup.run(move |lookup| lookup.by_badge(&badge)).await?
    }

    /// Where heads and chunks of lists go. The sender waits where there are too many.
    pub fn lists(&self) -> tokio::sync::mpsc::Sender<ListJob> {
        self.lists.jobs.clone()
    }

    /// The list that is being taken at this moment.
    pub fn list_taken(&self) -> Option<Taken> {
        self.lists.taken()
    }

    /// Judges a head and gives the last news of it: whoever waits here serves no parts. `now` is
    /// its arrival.
    pub async fn apply_allowlist(
        &self,
        head: Vec<u8>,
        now: Stamp,
    ) -> Result<ApplyOutcome, StoreError> {
        let (news, mut heard) = tokio::sync::mpsc::channel(1);
        let offer = Offer { origin: Origin::Cloud, payload: head, now, news };
        self.lists.jobs.send(ListJob::Head(offer)).await.map_err(|_| StoreError::Closed)?;
        heard.recv().await.map(|news| news.outcome).ok_or(StoreError::Closed)
    }

    /// At most so many entries of the list that decides, in order of their UIDs.
    pub async fn entries_after(&self, after: Option<Uid>, most: usize) -> Result<Page, StoreError> {
        self.lookup.run(move |lookup| lookup.page(after, most)).await?
    }

    /// The records after `after`, as many as fit a batch; `None` where there are none.
    pub async fn batch(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, StoreError> {
        self.ledger.run(move |ledger| ledger.batch(after, max_records, max_bytes)).await?
    }

    /// Takes what the cloud says it has, as far as the contract lets it.
    pub async fn acknowledge(&self, ack: Acknowledgement) -> Result<AckOutcome, StoreError> {
        self.ledger.run(move |ledger| ledger.acknowledge(&ack)).await?
    }

    /// Head, acknowledged and floor.
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        self.ledger.run(|ledger| ledger.standing()).await?
    }

    /// The accounts of all meters, as a checkpoint names them.
    pub async fn meters(&self) -> Result<Vec<MeterAccount>, StoreError> {
        self.ledger.run(|ledger| Ok(ledger.books()?.meters.into_values().collect())).await?
    }

    /// Everything that a checkpoint says, as of one moment; an error where an account does not
    /// balance.
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        self.ledger.run(|ledger| ledger.totals()).await?
    }

    /// The ledger's hashes at `seqs`; `None` for a record that is not kept or not there yet.
    pub async fn hashes(&self, seqs: Vec<u64>) -> Result<Vec<Option<Hash>>, StoreError> {
        self.ledger.run(move |ledger| ledger.hashes(&seqs)).await?
    }

    /// At most `most` records from `from` on.
    pub async fn records(&self, from: u64, most: usize) -> Result<Vec<StoredRecord>, StoreError> {
        self.ledger.run(move |ledger| ledger.records(from, most)).await?
    }

    /// The cloud holds another history: freezes this ledger and opens a new epoch. Sessions that
    /// started at `running_since` or later in this boot go on, the others end. `None`, and nothing
    /// is changed, where the last fork was less than a day ago.
    pub async fn fork(
        &self,
        running_since: Uptime,
        now: Stamp,
    ) -> Result<Option<Forked>, StoreError> {
        let fork = move |ledger: &mut ledger::Ledger| -> Result<_, StoreError> {
            if !ledger.fork(running_since, now)? {
                return Ok(None);
            }
            let books = ledger.books()?;
            Ok(Some(Forked {
                standing: ledger.standing()?,
                opened: ledger.opened()?,
                open_sessions: books.open.into_values().collect(),
                meters: books.meters.into_values().collect(),
            }))
        };
        let Some(forked) = self.ledger.run(fork).await?? else { return Ok(None) };
        let epoch = forked.standing.head.epoch.clone();
        self.gateway.run(move |gateway| gateway.note_epoch(&epoch)).await??;
        Ok(Some(forked))
    }

    /// The stations that are out of service, with their notes.
    pub async fn out_of_service(&self) -> Result<Vec<(StationId, Option<String>)>, StoreError> {
        self.gateway.run(|gateway| gateway.marks()).await?
    }

    /// The newest reply to a command; `None` for one that never came.
    pub async fn reply(&self, id: String) -> Result<Option<KeptReply>, StoreError> {
        self.gateway.run(move |gateway| gateway.reply(&id)).await?
    }

    /// Keeps a command's newest reply; the last [`MAX_REPLIES`] commands are remembered.
    pub async fn keep_reply(&self, kept: KeptReply) -> Result<(), StoreError> {
        self.gateway.run(move |gateway| gateway.keep_reply(&kept)).await?
    }

    /// The broker has taken this very reply.
    pub async fn reply_delivered(&self, id: String, reply: String) -> Result<(), StoreError> {
        self.gateway.run(move |gateway| gateway.reply_delivered(&id, &reply)).await?
    }

    /// All kept replies, oldest first.
    pub async fn replies(&self) -> Result<Vec<KeptReply>, StoreError> {
        self.gateway.run(|gateway| gateway.replies()).await?
    }

    /// What may still be written beside the store; `None` where that cannot be told.
    pub async fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.gateway.run(|gateway| gateway.files.free_bytes()).await
    }

    /// Remembers that the cloud is shown these stations; gives those that it was shown before and
    /// that are gone.
    pub async fn show_stations(
        &self,
        stations: Vec<StationId>,
    ) -> Result<Vec<StationId>, StoreError> {
        self.gateway.run(move |gateway| gateway.show_stations(&stations)).await?
    }

    /// These records are in a file for good; false where that is of no use here, as with a gap.
    pub async fn note_exported(&self, export: Export) -> Result<bool, StoreError> {
        self.ledger.run(move |ledger| ledger.note_exported(&export)).await?
    }

    /// Deletes a bounded number of settled records that are older than `retention`; returns how
    /// many. Nothing while the clock is not trustworthy.
    pub async fn prune(
        &self,
        retention: Duration,
        settled: Settled,
        now: Stamp,
    ) -> Result<u64, StoreError> {
        self.ledger.run(move |ledger| ledger.prune(retention, settled, now)).await?
    }

    /// Keeps what sessions remember beyond their records, until it is told otherwise. Needs no room
    /// on the disk.
    pub async fn keep_memos(&self, memos: Vec<Memo>) -> Result<(), StoreError> {
        self.ledger.run(move |ledger| ledger.keep_memos(&memos)).await?
    }

    /// Checks the whole ledger, in small pieces between which commits go on.
    pub async fn verify(&self) -> Result<Verification, StoreError> {
        let mut progress = verify::Progress::default();
        loop {
            match self.ledger.run(move |ledger| ledger.verify_some(progress)).await?? {
                verify::Verdict::More(further) => progress = further,
                verify::Verdict::Whole(verification) => return Ok(verification),
            }
        }
    }

    /// The number of the connection to the cloud that is about to be made.
    pub async fn next_connection(&self) -> Result<u64, StoreError> {
        self.gateway.run(|gateway| gateway.next_connection()).await?
    }

    /// Marks a station out of service until it is returned, across restarts.
    pub async fn take_out_of_service(
        &self,
        station: StationId,
        note: Option<String>,
    ) -> Result<(), StoreError> {
        let mark = move |gateway: &mut gateway::Gateway| {
            gateway.take_out_of_service(&station, note.as_deref())
        };
        self.gateway.run(mark).await?
    }

    /// Ends the mark.
    pub async fn return_to_service(&self, station: StationId) -> Result<(), StoreError> {
        self.gateway.run(move |gateway| gateway.return_to_service(&station)).await?
    }

    /// Blocks a badge locally, from the next tap on; tells whether it was not so before.
    pub async fn block_badge(
        &self,
        uid: Uid,
        badge: Option<BadgeId>,
        by: String,
    ) -> Result<bool, StoreError> {
        self.gateway.run(move |gateway| gateway.block(uid, badge.as_ref(), &by)).await?
    }

    /// Ends a local block; tells whether there was one.
    pub async fn unblock_badge(&self, uid: Uid, by: String) -> Result<bool, StoreError> {
        self.gateway.run(move |gateway| gateway.unblock(uid, &by)).await?
    }

    /// The badges that are blocked locally.
    pub async fn local_blocks(&self) -> Result<Vec<LocalBlock>, StoreError> {
        self.gateway.run(|gateway| gateway.local_blocks()).await?
    }

    /// Changes of local blocks that the ledger may not hold yet, oldest first.
    pub async fn override_notes(&self) -> Result<Vec<OverrideNote>, StoreError> {
        self.gateway.run(|gateway| gateway.override_notes()).await?
    }

    /// The ledger holds the changes up to the one with this id.
    pub async fn forget_override_notes(&self, upto: u64) -> Result<(), StoreError> {
        self.gateway.run(move |gateway| gateway.forget_override_notes(upto)).await?
    }

    /// Keeps for the next start that the gateway ran at this moment, and with a trustworthy clock
    /// the clock floor. The caller paces it: each is a write, and what lies between two is how much
    /// too long a power cut may seem. A commit is as good. An acknowledgement that waits for a
    /// commit goes to the disk, too.
    pub async fn keep_time(&self, now: Stamp) -> Result<(), StoreError> {
        self.ledger.run(ledger::Ledger::keep_acknowledgement).await??;
        self.gateway.run(move |gateway| gateway.keep_time(now)).await?
    }

    /// Returns once the two threads that a tap needs have done what was asked of them before. For
    /// the watchdog; staging a long list on the third does not delay it.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.lookup.run(|_| ()).await?;
        self.ledger.run(|_| ()).await
    }

    /// Lets what was asked before finish, then closes all files and releases the lock.
    pub async fn close(self) {
        self.lists.stop().await;
        self.gateway.stop().await;
        self.lookup.stop().await;
        // Where that fails, the cloud says it again.
        drop(self.ledger.run(ledger::Ledger::keep_acknowledgement).await);
        self.ledger.stop().await;
    }
}
