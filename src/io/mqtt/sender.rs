//! Which records are on their way to the cloud: go-back-N over the ledger.
//!
//! Pure: it reads no clock and sends nothing. At most [`MAX_OPEN_BATCHES`] batches are open (sent
//! and not acknowledged by the cloud). Without progress the sending starts again behind the last
//! acknowledgement, driven by a timer and by reconnects, not by new records.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ledger::{Batch, Standing};
use crate::protocol::cloud::{MAX_BATCH_RECORDS, MAX_OPEN_BATCHES, MAX_PAYLOAD_BYTES, UsageBatch};

/// Longest wait between two attempts to bring the same records to a silent cloud.
pub const MAX_ACK_BACKOFF: Duration = Duration::from_secs(5 * 60);

/// What a batch's JSON takes beside its records: keys, an epoch, two numbers and a hash.
const ENVELOPE_BYTES: usize = 512;

/// The sending window.
#[derive(Clone, Debug)]
pub struct Window {
    ack_timeout: Duration,
    epoch: String,
    head: u64,
    acked: u64,
    /// Last record handed to the broker since the sending last (re)started.
    sent: u64,
    /// The last record of each open batch, oldest first.
    open: VecDeque<u64>,
    /// When the sending starts again if nothing is acknowledged until then.
    deadline: Option<Instant>,
    /// Restarts since the cloud last acknowledged anything.
    attempt: u32,
}

impl Window {
    /// A window that knows of no records yet.
    pub fn new(ack_timeout: Duration) -> Window {
        Window {
            ack_timeout,
            epoch: String::new(),
            head: 0,
            acked: 0,
            sent: 0,
            open: VecDeque::new(),
            deadline: None,
            attempt: 0,
        }
    }

    /// A connection is up: whatever the last one carried may be lost.
    pub fn on_connected(&mut self, standing: &Standing) {
        self.adopt(standing);
        self.go_back();
    }

    /// The ledger may have grown, or another epoch may have opened.
    pub fn on_standing(&mut self, standing: &Standing) {
        if standing.epoch == self.epoch {
            self.head = standing.head;
        } else {
            self.adopt(standing);
            self.go_back();
        }
    }

    /// The record behind which the next batch starts; `None` while there is nothing to send or too
    /// much is open.
    pub fn next_after(&self) -> Option<u64> {
        (self.sent < self.head && self.open.len() < MAX_OPEN_BATCHES).then_some(self.sent)
    }

    /// A batch up to record `last` went to the broker.
    pub fn on_published(&mut self, last: u64, now: Instant, jitter: f64) {
        assert!(last > self.sent, "a batch holds at least one new record");
        self.sent = last;
        self.open.push_back(last);
        if self.deadline.is_none() {
            self.deadline = Some(now + self.patience(jitter));
        }
    }

    /// The cloud holds everything up to `acked`, which may be less than it held before.
    pub fn on_acknowledged(&mut self, acked: u64, now: Instant) {
        let went_back = acked < self.acked;
        let progress = acked > self.acked;
        self.acked = acked;
        self.attempt = 0;
        if went_back {
            self.go_back();
            return;
        }
        self.sent = self.sent.max(acked);
        while self.open.front().is_some_and(|last| *last <= acked) {
            self.open.pop_front();
        }
        // Any answer shows that the cloud is there: what is open need not wait out a long backoff,
        // but answers without progress must not put the restart off for ever.
        let soon = now + self.ack_timeout;
        self.deadline = match self.deadline {
            Some(_) | None if self.open.is_empty() => None,
            Some(deadline) if !progress => Some(deadline.min(soon)),
            Some(_) | None => Some(soon),
        };
    }

    /// When [`on_timeout`](Window::on_timeout) is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Starts again behind the last acknowledgement where the deadline has passed.
    pub fn on_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.attempt = self.attempt.saturating_add(1);
            self.go_back();
        }
    }

    /// Last record and last acknowledged record.
    pub fn standing(&self) -> Standing {
        Standing { epoch: self.epoch.clone(), head: self.head, acked: self.acked }
    }

    fn adopt(&mut self, standing: &Standing) {
        self.epoch.clone_from(&standing.epoch);
        self.head = standing.head;
        self.acked = standing.acked;
    }

    fn go_back(&mut self) {
        self.sent = self.acked;
        self.open.clear();
        self.deadline = None;
    }

    /// The ack timeout first, then full jitter on top of it, doubling up to the longest wait.
    fn patience(&self, jitter: f64) -> Duration {
        let cap = MAX_ACK_BACKOFF.max(self.ack_timeout);
        let most = self.ack_timeout.saturating_mul(1 << self.attempt.min(16)).min(cap);
        self.ack_timeout + (most - self.ack_timeout).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// As many records as fit into one payload, as the message that carries them; `None` for a batch
/// without records.
pub(super) fn fit(batch: Batch) -> Option<UsageBatch> {
    let mut room = MAX_PAYLOAD_BYTES - ENVELOPE_BYTES;
    let mut records = batch.records;
    let fitting = records.iter().take(MAX_BATCH_RECORDS).take_while(|record| {
        let bytes = encoded_length(record) + 1;
        let fits = bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    });
    // A record has at most 4 KiB, which no escaping makes longer than the room.
    let count = fitting.count().max(1).min(records.len());
    records.truncate(count);
    let last = batch.first + (count as u64).checked_sub(1)?;
    Some(UsageBatch {
        epoch: batch.epoch,
        first: batch.first,
        last,
        prev: batch.prev,
        records,
        replay: false,
    })
}

/// Length of a string as a JSON string.
fn encoded_length(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK_TIMEOUT: Duration = Duration::from_secs(30);

    fn standing(head: u64, acked: u64) -> Standing {
        Standing { epoch: "e".into(), head, acked }
    }

    fn connected(head: u64, acked: u64) -> Window {
        let mut window = Window::new(ACK_TIMEOUT);
        window.on_connected(&standing(head, acked));
        window
    }

    /// Sends batches of ten records for as long as the window wants any.
    fn send(window: &mut Window, now: Instant) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(after) = window.next_after() {
            let last = (after + 10).min(window.head);
            window.on_published(last, now, 0.0);
            sent.push(last);
        }
        sent
    }

    #[test]
    fn sends_nothing_before_a_connection_and_nothing_twice() {
        assert_eq!(Window::new(ACK_TIMEOUT).next_after(), None);
        let mut window = connected(25, 5);

        assert_eq!(send(&mut window, Instant::now()), [15, 25]);
        assert_eq!(window.next_after(), None);
    }

    #[test]
    fn keeps_at_most_eight_batches_open() {
        let now = Instant::now();
        let mut window = connected(1000, 0);
        assert_eq!(send(&mut window, now).len(), MAX_OPEN_BATCHES);

        window.on_acknowledged(20, now);
        assert_eq!(send(&mut window, now), [90, 100]);

        window.on_acknowledged(35, now);
        assert_eq!(send(&mut window, now), [110], "half a batch frees nothing");
    }

    #[test]
    fn a_lost_ack_starts_again_behind_the_last_one() {
        let start = Instant::now();
        let mut window = connected(30, 0);
        send(&mut window, start);
        window.on_acknowledged(10, start);

        window.on_timeout(start + ACK_TIMEOUT - Duration::from_millis(1));
        assert_eq!(window.next_after(), None);
        window.on_timeout(start + ACK_TIMEOUT);
        assert_eq!(send(&mut window, start + ACK_TIMEOUT), [20, 30]);
    }

    #[test]
    fn new_records_do_not_put_the_restart_off() {
        let start = Instant::now();
        let mut window = connected(10, 0);
        send(&mut window, start);
        let deadline = window.deadline();

        window.on_standing(&standing(11, 0));
        assert_eq!(send(&mut window, start + Duration::from_secs(29)), [11]);
        assert_eq!(window.deadline(), deadline);
    }

    #[test]
    fn answers_without_progress_do_not_put_the_restart_off() {
        let start = Instant::now();
        let mut window = connected(10, 0);
        send(&mut window, start);

        window.on_acknowledged(0, start + Duration::from_secs(20));
        assert_eq!(window.deadline(), Some(start + ACK_TIMEOUT));
    }

    #[test]
    fn waits_longer_for_a_silent_cloud_and_no_longer_once_it_answers() {
        let start = Instant::now();
        let mut window = connected(10, 0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            window.on_published(10, start, 1.0);
            let deadline = window.deadline().expect("a batch is open");
            waits.push((deadline - start).as_secs());
            window.on_timeout(deadline);
        }
        assert_eq!(waits, [30, 60, 120, 240, 300, 300]);

        window.on_published(10, start, 0.0);
        assert_eq!(window.deadline(), Some(start + ACK_TIMEOUT), "the least jitter");
        window.on_timeout(start + ACK_TIMEOUT);
        window.on_published(10, start, 1.0);
        window.on_acknowledged(0, start);
        assert_eq!(window.deadline(), Some(start + ACK_TIMEOUT), "the cloud is there again");
    }

    #[test]
    fn duplicate_and_late_acks_change_nothing() {
        let now = Instant::now();
        let mut window = connected(30, 0);
        send(&mut window, now);
        window.on_acknowledged(20, now);
        window.on_acknowledged(20, now);
        assert_eq!(window.next_after(), None);
        assert_eq!(window.deadline(), Some(now + ACK_TIMEOUT));

        window.on_acknowledged(30, now);
        assert_eq!((window.next_after(), window.deadline()), (None, None));
    }

    #[test]
    fn a_late_ack_of_an_earlier_sending_spares_the_second() {
        let start = Instant::now();
        let mut window = connected(30, 0);
        send(&mut window, start);
        window.on_timeout(start + ACK_TIMEOUT);

        window.on_acknowledged(20, start + ACK_TIMEOUT);
        assert_eq!(send(&mut window, start + ACK_TIMEOUT), [30]);
    }

    #[test]
    fn an_ack_that_goes_back_sends_again_from_there() {
        let now = Instant::now();
        let mut window = connected(30, 0);
        send(&mut window, now);
        window.on_acknowledged(30, now);

        window.on_acknowledged(12, now);
        assert_eq!(send(&mut window, now), [22, 30]);
    }

    #[test]
    fn a_reconnect_sends_again_at_once() {
        let now = Instant::now();
        let mut window = connected(20, 0);
        send(&mut window, now);

        window.on_connected(&standing(20, 10));
        assert_eq!(send(&mut window, now), [20]);
    }

    #[test]
    fn another_epoch_starts_from_its_own_ack() {
        let mut window = connected(20, 20);
        window.on_standing(&Standing { epoch: "f".into(), head: 3, acked: 0 });
        assert_eq!(window.next_after(), Some(0));
    }

    #[test]
    fn a_payload_stays_within_64_kib_whatever_the_records_hold() {
        for (record, fitting) in [("x".repeat(4096), 15), ("\"".repeat(4096), 7), ("a".into(), 200)]
        {
            let records = vec![record; 300];
            let batch = Batch { epoch: "e".repeat(36), first: 9, prev: [0xff; 32], records };
            let usage = fit(batch).expect("there are records");

            assert_eq!(usage.records.len(), fitting);
            assert_eq!(usage.last, 8 + fitting as u64);
            let payload = serde_json::to_vec(&usage).expect("plain JSON");
            assert!(payload.len() <= MAX_PAYLOAD_BYTES, "{}", payload.len());
        }
        let empty = Batch { epoch: "e".into(), first: 9, prev: [0; 32], records: vec![] };
        assert_eq!(fit(empty), None);
    }

    #[test]
    fn knows_how_long_json_makes_a_string() {
        for text in ["plain", "q\"b\\", "\u{1}\n\t\u{8}", "Zürich €"] {
            let json = serde_json::to_string(text).expect("a string");
            assert_eq!(encoded_length(text), json.len(), "{text:?}");
        }
    }
}
