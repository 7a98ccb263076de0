//! The store as the cloud link sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::core::time::{Stamp, Wall};
use crate::io::clock::Clock;
use crate::io::identity::Identity;
use crate::io::mqtt::{self, AckOutcome, Batch, LedgerError, Standing};
use crate::io::store::{self, Acknowledgement, Head, MeterAccount, Store, StoreError};
use crate::protocol::cloud::{Ack, Checkpoint, CheckpointType, MeterTotals};

/// Lets the link read the ledger and acknowledge it.
pub(super) struct LedgerPort {
    pub(super) store: Store,
    pub(super) gateway_id: String,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
}

fn failed(operation: &'static str) -> impl FnOnce(StoreError) -> LedgerError {
    move |error| LedgerError { operation, reason: error.to_string() }
}

impl mqtt::Ledger for LedgerPort {
    async fn standing(&self) -> Result<Standing, LedgerError> {
        let standing = self.store.standing().await.map_err(failed("say where it stands"))?;
        Ok(Standing { epoch: standing.head.epoch, head: standing.head.seq, acked: standing.acked })
    }

    async fn batch(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, LedgerError> {
        let batch = self.store.batch(after, max_records, max_bytes).await;
        Ok(batch.map_err(failed("be read"))?.map(|batch| Batch {
            epoch: batch.epoch,
            first: batch.first,
            prev: batch.previous,
            records: batch.records,
        }))
    }

    async fn acknowledge(&self, ack: Ack) -> Result<AckOutcome, LedgerError> {
        let upto = ack.upto;
        let Ack { epoch, hash, issued_at, .. } = ack;
        let at = self.clock.now();
        let acknowledgement = Acknowledgement { epoch, upto, hash, issued_at, at };
        let outcome = self.store.acknowledge(acknowledgement).await;
        Ok(match outcome.map_err(failed("be acknowledged"))? {
            store::AckOutcome::Accepted { acked } => AckOutcome::Accepted { acked },
            store::AckOutcome::Gap { acked } => AckOutcome::BelowFloor { upto, floor: acked + 1 },
            store::AckOutcome::OtherEpoch | store::AckOutcome::Older => AckOutcome::Ignored,
            store::AckOutcome::HashMismatch | store::AckOutcome::BeyondHead => AckOutcome::Fork,
        })
    }

    async fn next_connection(&self) -> Result<u64, LedgerError> {
        self.store.next_connection().await.map_err(failed("count a connection"))
    }

    async fn checkpoint(&self) -> Result<String, LedgerError> {
        let totals = self.store.totals().await.map_err(failed("be added up"))?;
        let Head { epoch, seq, hash } = totals.standing.head;
        let checkpoint = Checkpoint {
            gw: self.gateway_id.clone(),
            typ: CheckpointType::Checkpoint,
            at: self.clock.now(),
            epoch,
            head: seq,
            hash,
            acked: totals.standing.acked,
            floor: totals.standing.floor,
            open: totals.open,
            meters: totals.meters.into_iter().map(totals_of).collect(),
        };
        let payload = serde_json::to_vec(&checkpoint).expect("a checkpoint is plain JSON");
        Ok(self.identity.sign(&payload))
    }

    async fn reply_delivered(&self, id: String, reply: String) -> Result<(), LedgerError> {
        self.store.reply_delivered(id, reply).await.map_err(failed("note a delivered reply"))
    }
}

fn totals_of(account: MeterAccount) -> MeterTotals {
    MeterTotals {
        meter: account.meter,
        serial: account.serial,
        first_wh: account.first_wh,
        last_wh: account.last_wh,
        sessions_wh: account.sessions_wh,
        open_wh: account.open_wh,
        unattributed_wh: account.unattributed_wh,
        replaced_wh: account.replaced_wh,
    }
}

/// The times as the link reads them.
pub(super) struct LinkClock {
    pub(super) clock: Clock,
    pub(super) floor: Arc<AtomicI64>,
}

impl mqtt::Clock for LinkClock {
    fn stamp(&self) -> Stamp {
        self.clock.now()
    }

    fn floor(&self) -> Wall {
        Wall(self.floor.load(Ordering::Relaxed))
    }

    fn learn(&self, passed: Wall) {
        self.floor.fetch_max(mqtt::believable(passed).0, Ordering::Relaxed);
    }
}
