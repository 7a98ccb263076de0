//! A ledger in memory that judges acknowledgements as the contract says.

use std::future::Future;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard};

use tapgate::core::time::Wall;
use tapgate::demo::cloud::chain;
use tapgate::io::mqtt::{AckOutcome, Batch, Ledger, LedgerError, Standing};
use tapgate::protocol::cloud::{Ack, Hash};

/// Cloned handles see the same ledger.
#[derive(Clone)]
pub(crate) struct MemoryLedger(Arc<Mutex<Books>>);

pub(crate) struct Books {
    pub(crate) epoch: String,
    pub(crate) records: Vec<String>,
    pub(crate) hashes: Vec<Hash>,
    pub(crate) acked: u64,
    /// Every acknowledgement that was accepted, in order.
    pub(crate) accepted: Vec<u64>,
    pub(crate) connections: u64,
    /// Commands whose replies the broker has taken.
    pub(crate) delivered: Vec<String>,
    /// So long are the totals.
    pub(crate) checkpoint_bytes: usize,
    newest: Wall,
}

impl MemoryLedger {
    pub(crate) fn new() -> MemoryLedger {
        MemoryLedger(Arc::new(Mutex::new(Books {
            epoch: uuid::Uuid::new_v4().to_string(),
            records: vec![],
            hashes: vec![],
            acked: 0,
            accepted: vec![],
            connections: 0,
            delivered: vec![],
            checkpoint_bytes: 0,
            newest: Wall(i64::MIN),
        })))
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().expect("no test panics while it holds the books")
    }

    /// Appends records; `body` follows seq and kind.
    pub(crate) fn append(&self, count: u64) {
        for _ in 0..count {
            let seq = self.books().records.len() as u64 + 1;
            let record = serde_json::json!({
                "seq": seq,
                "kind": "gateway_started",
                "version": "1.2.0",
                "boot_id": "b".repeat(300),
            });
            self.append_text(&record.to_string());
        }
    }

    /// Starts anew, as after a fork.
    pub(crate) fn open_epoch(&self) -> String {
        let mut books = self.books();
        books.epoch = uuid::Uuid::new_v4().to_string();
        books.records.clear();
        books.hashes.clear();
        books.acked = 0;
        books.newest = Wall(i64::MIN);
        books.epoch.clone()
    }

    /// Appends a record as it is.
    pub(crate) fn append_text(&self, record: &str) {
        let mut books = self.books();
        let last = books.hashes.last().copied().unwrap_or([0; 32]);
        books.hashes.push(chain(&last, record));
        books.records.push(record.to_owned());
    }

    fn batch_after(&self, after: u64, max_records: usize, max_bytes: usize) -> Option<Batch> {
        let books = self.books();
        let mut bytes = 0;
        let records: Vec<String> = books
            .records
            .get(after as usize..)?
            .iter()
            .take(max_records)
            .take_while(|record| {
                bytes += record.len();
                bytes <= max_bytes
            })
            .cloned()
            .collect();
        let prev = books.hash(after);
        let epoch = books.epoch.clone();
        (!records.is_empty()).then_some(Batch { epoch, first: after + 1, prev, records })
    }
}

impl Books {
    pub(crate) fn hash(&self, seq: u64) -> Hash {
        if seq == 0 { [0; 32] } else { self.hashes[seq as usize - 1] }
    }

    fn judge(&mut self, ack: &Ack) -> AckOutcome {
        if ack.epoch != self.epoch || ack.issued_at < self.newest {
            return AckOutcome::Ignored;
        }
        if ack.upto > self.records.len() as u64 || ack.hash != self.hash(ack.upto) {
            return AckOutcome::Fork;
        }
        self.newest = ack.issued_at;
        self.acked = ack.upto;
        self.accepted.push(ack.upto);
        AckOutcome::Accepted { acked: ack.upto }
    }
}

impl Ledger for MemoryLedger {
    fn standing(&self) -> impl Future<Output = Result<Standing, LedgerError>> {
        let books = self.books();
        let head = books.records.len() as u64;
        ready(Ok(Standing { epoch: books.epoch.clone(), head, acked: books.acked }))
    }

    fn batch(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Option<Batch>, LedgerError>> {
        ready(Ok(self.batch_after(after, max_records, max_bytes)))
    }

    fn acknowledge(&self, ack: Ack) -> impl Future<Output = Result<AckOutcome, LedgerError>> {
        ready(Ok(self.books().judge(&ack)))
    }

    fn next_connection(&self) -> impl Future<Output = Result<u64, LedgerError>> {
        let mut books = self.books();
        books.connections += 1;
        ready(Ok(books.connections))
    }

    fn checkpoint(&self) -> impl Future<Output = Result<String, LedgerError>> {
        let books = self.books();
        let head = books.records.len();
        let meters = "m".repeat(books.checkpoint_bytes);
        ready(Ok(format!("header.{head}{meters}.signature")))
    }

    fn reply_delivered(
        &self,
        id: String,
        _: String,
    ) -> impl Future<Output = Result<(), LedgerError>> {
        self.books().delivered.push(id);
        ready(Ok(()))
    }
}
