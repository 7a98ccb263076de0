//! The store as the cloud link sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::core::time::{Stamp, Wall};
use crate::io::clock::Clock;
use crate::io::mqtt::{self, AckOutcome, Batch, LedgerError, Standing};
use crate::io::store::{self, Acknowledgement, Store, StoreError};
use crate::protocol::cloud::Ack;

/// Lets the link read the ledger and acknowledge it.
pub(super) struct LedgerPort(pub(super) Store);

fn failed(operation: &'static str) -> impl FnOnce(StoreError) -> LedgerError {
    move |error| LedgerError { operation, reason: error.to_string() }
}

impl mqtt::Ledger for LedgerPort {
    async fn standing(&self) -> Result<Standing, LedgerError> {
        let standing = self.0.standing().await.map_err(failed("say where it stands"))?;
        Ok(Standing { epoch: standing.head.epoch, head: standing.head.seq, acked: standing.acked })
    }

    async fn batch(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Option<Batch>, LedgerError> {
        let batch = self.0.batch(after, max_records, max_bytes).await;
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
        let acknowledgement = Acknowledgement { epoch, upto, hash, issued_at };
        let outcome = self.0.acknowledge(acknowledgement).await;
        Ok(match outcome.map_err(failed("be acknowledged"))? {
            store::AckOutcome::Accepted { acked } => AckOutcome::Accepted { acked },
            store::AckOutcome::Gap { acked } => AckOutcome::BelowFloor { upto, floor: acked + 1 },
            store::AckOutcome::OtherEpoch | store::AckOutcome::Older => AckOutcome::Ignored,
            store::AckOutcome::HashMismatch | store::AckOutcome::BeyondHead => AckOutcome::Fork,
        })
    }

    async fn next_connection(&self) -> Result<u64, LedgerError> {
        self.0.next_connection().await.map_err(failed("count a connection"))
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
        self.floor.fetch_max(passed.0, Ordering::Relaxed);
    }
}
