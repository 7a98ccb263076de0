//! What goes up because the cloud asked for it, or once an hour: replies, replays, checkpoints.

use tokio::time::{Duration, Instant};

use super::CloudEvent;
use super::ledger::{Ledger, LedgerError};
use super::outbox::Replay;
use super::sender::fit;
use super::session::{Sent, Session};
use crate::protocol::cloud::{MAX_BATCH_RECORDS, MAX_PAYLOAD_BYTES, MAX_RETAINED_BYTES};

/// Pause after the ledger could not be read for a checkpoint or a replay.
const RETRY: Duration = Duration::from_secs(60);

impl<L: Ledger> Session<'_, L> {
    /// Publishes what is due of all this; live records go before.
    pub(super) async fn publish_answers(&mut self) {
        self.publish_replies();
        self.publish_checkpoint().await;
        self.publish_replay().await;
    }

    fn publish_replies(&mut self) {
        while self.has_room() {
            let Some(reply) = self.worker.shared.outbox().replies.pop_front() else { break };
            let payload = serde_json::to_vec(&reply).expect("a reply is plain JSON");
            let topic = self.worker.topics.reply();
            self.publish(topic, false, payload, Sent::Reply(reply));
        }
    }

    async fn publish_checkpoint(&mut self) {
        let now = Instant::now();
        if !self.has_room() || self.checkpoint_due > now {
            return;
        }
        self.checkpoint_due = now + self.worker.timing.checkpoint;
        match self.worker.ledger.checkpoint().await {
            Ok(jws) => {
                let topic = self.worker.topics.checkpoint();
                // The totals of some 170 meters: no broker need retain more.
                let retain = jws.len() <= MAX_RETAINED_BYTES;
                self.publish(topic, retain, jws.into_bytes(), Sent::Replaceable);
            }
            Err(error) => {
                tracing::warn!(%error, "there is no checkpoint for the cloud");
                self.checkpoint_due = now + RETRY;
            }
        }
    }

    /// One batch at a time, and only while no live record waits.
    async fn publish_replay(&mut self) {
        let live = self.worker.window.next_after().is_some();
        let resting = self.replay_retry.is_some_and(|at| Instant::now() < at);
        if self.replaying || live || resting || !self.has_room() {
            return;
        }
        let Some(replay) = self.worker.shared.outbox().replays.front().cloned() else { return };
        self.replay_retry = None;
        if let Err(error) = self.send_replay(&replay).await {
            tracing::warn!(%error, "a replay waits for the ledger");
            self.replay_retry = Some(Instant::now() + RETRY);
        }
    }

    async fn send_replay(&mut self, replay: &Replay) -> Result<(), LedgerError> {
        let left = usize::try_from(replay.to - replay.next + 1).unwrap_or(MAX_BATCH_RECORDS);
        let most = left.min(MAX_BATCH_RECORDS);
        let batch = self.worker.ledger.batch(replay.next - 1, most, MAX_PAYLOAD_BYTES).await?;
        let wanted = batch.filter(|b| b.first == replay.next && b.epoch == replay.epoch);
        let Some(mut batch) = wanted.and_then(fit) else {
            // Pruned, or of an epoch that is over.
            self.worker.shared.outbox().replays.pop_front();
            let id = replay.id.clone();
            self.worker.emit(CloudEvent::ReplayEnded { id, complete: false }).await;
            return Ok(());
        };
        batch.replay = true;
        let payload = serde_json::to_vec(&batch).expect("a batch is plain JSON");
        let topic = self.worker.topics.usage();
        self.publish(topic, false, payload, Sent::Replay(batch.last));
        self.replaying = true;
        Ok(())
    }

    /// The broker has taken a message.
    pub(super) async fn on_confirmed(&mut self, sent: Sent) {
        match sent {
            Sent::Reply(reply) => {
                let text = serde_json::to_string(&reply).expect("a reply is plain JSON");
                if let Err(error) = self.worker.ledger.reply_delivered(reply.id, text).await {
                    tracing::warn!(%error, "a reply will be sent once more after a restart");
                }
            }
            Sent::Replay(last) => self.on_replayed(last).await,
            Sent::Event(_) | Sent::Replaceable | Sent::Farewell => {}
        }
    }

    async fn on_replayed(&mut self, last: u64) {
        self.replaying = false;
        let ended = {
            let mut outbox = self.worker.shared.outbox();
            match outbox.replays.front_mut() {
                Some(replay) if last >= replay.to => outbox.replays.pop_front(),
                Some(replay) => {
                    replay.next = replay.next.max(last + 1);
                    None
                }
                None => None,
            }
        };
        if let Some(Replay { id, .. }) = ended {
            self.worker.emit(CloudEvent::ReplayEnded { id, complete: true }).await;
        }
    }

    /// When there is something to do here by time alone.
    pub(super) fn answers_due(&self) -> [Option<Instant>; 2] {
        [Some(self.checkpoint_due), self.replay_retry].map(|due| due.filter(|_| self.has_room()))
    }
}
