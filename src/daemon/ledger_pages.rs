//! The ledger for a technician: pages of records, and a check of all of it. Neither holds up a tap.

use tokio::sync::oneshot;

use crate::daemon::event_loop::Daemon;
use crate::io::control::Peer;
use crate::io::store::{Export, Settled, Standing, Store, StoreError, StoredRecord, Verification};
use crate::protocol::control::{LEDGER_PAGE, LedgerPage, LedgerRecord, LedgerVerified, Reply};

impl Daemon {
    pub(super) fn on_ledger_wanted(&self, from: u64, reply: oneshot::Sender<Reply>) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let answer = match read(&store, from).await {
                Ok(page) => Reply::LedgerRecords(page),
                Err(error) => Reply::Error(error.to_string()),
            };
            // A command that gave up waiting is gone.
            let _ = reply.send(answer);
        });
    }

    /// What may go after its retention where no cloud acknowledges anything.
    pub(super) fn settled(&self) -> Settled {
        if self.cloud.is_some() { Settled::ByCloud } else { Settled::ByExport }
    }

    /// A technician has the records: on a site without a cloud that is what lets old ones go.
    pub(super) async fn on_ledger_exported(&mut self, export: Export, peer: Peer) -> Reply {
        if self.settled() == Settled::ByCloud {
            return Reply::Done(String::new());
        }
        let upto = export.upto;
        match self.store.note_exported(export).await {
            Ok(true) => {
                tracing::info!("{peer} has exported the ledger up to record {upto}");
                Reply::Done(format!(
                    "records up to {upto} count as exported and go after [storage] retention"
                ))
            }
            Ok(false) => Reply::Done(
                "this export does not follow the last one: old records are kept until there is one \
                 without --from"
                    .into(),
            ),
            Err(error) => Reply::Storage(error.to_string()),
        }
    }

    pub(super) fn on_verify_wanted(&self, reply: oneshot::Sender<Reply>) {
        let store = self.store.clone();
        tokio::spawn(async move {
            let answer = match store.verify().await {
                Ok(verification) => Reply::LedgerVerified(verified(&verification)),
                Err(error @ StoreError::Damaged { .. }) => Reply::Storage(error.to_string()),
                Err(error) => Reply::Error(error.to_string()),
            };
            let _ = reply.send(answer);
        });
    }
}

async fn read(store: &Store, from: u64) -> Result<LedgerPage, StoreError> {
    let standing = store.standing().await?;
    let records = if from > standing.head.seq {
        Vec::new()
    } else {
        store.records(from.max(standing.floor), LEDGER_PAGE).await?
    };
    Ok(page(&standing, records))
}

/// A page as it is shown.
pub(crate) fn page(standing: &Standing, records: Vec<StoredRecord>) -> LedgerPage {
    let shown = |stored: StoredRecord| LedgerRecord {
        seq: stored.seq,
        hash: hex::encode(stored.hash),
        record: stored.record,
    };
    LedgerPage {
        epoch: standing.head.epoch.clone(),
        head: standing.head.seq,
        acked: standing.acked,
        floor: standing.floor,
        records: records.into_iter().map(shown).collect(),
    }
}

/// A check as it is shown.
pub(crate) fn verified(verification: &Verification) -> LedgerVerified {
    LedgerVerified {
        whole: true,
        epoch: verification.head.epoch.clone(),
        records: verification.records,
        head: verification.head.seq,
        hash: hex::encode(verification.head.hash),
        accounts_rebuilt: verification.accounts_rebuilt,
    }
}
