//! The cloud: stores each record once before it acknowledges, restores backups, and publishes
//! lists in every form, rubbish among them.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tapgate::protocol::cloud::PartRequest;

use crate::audit::{Hash, link};
use crate::broker::Message;
use crate::random::Random;

/// A list that was published once.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub version: u64,
    pub digest: String,
    /// Canonical entries by UID.
    pub entries: BTreeMap<String, Value>,
}

/// What was held and counted once.
type Backup = (Vec<(Hash, String)>, BTreeMap<String, i64>);

pub struct Cloud {
    /// Names the ledger that is held.
    pub epoch: String,
    /// Records, with the hash after each.
    pub held: Vec<(Hash, String)>,
    /// Energy per user, counted when a record was stored.
    pub counted: BTreeMap<String, i64>,
    backup: Option<Backup>,
    pub published: Vec<Published>,
    head: Option<Vec<u8>>,
    parts: BTreeMap<String, Vec<u8>>,
    ack: Option<Message>,
    issued_at: i64,
}

pub const LIST: &str = "5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11";
/// Bytes of a chunk, so that small parts have several.
const CHUNK: usize = 400;

/// A resident's badge: UID, badge id, user.
pub const RESIDENTS: [(&str, &str, &str); 6] = [
    ("041020A1", "b-anna", "u-anna"),
    ("041020A2", "b-anna-2", "u-anna"),
    ("041020B1", "b-boris", "u-boris"),
    ("041020C1", "b-carla", "u-carla"),
    ("04102030405060", "b-dora", "u-dora"),
    ("041020E1", "b-emil", "u-emil"),
];

impl Published {
    pub fn new(version: u64, entries: BTreeMap<String, Value>) -> Published {
        let hash = |entry: &Value| Sha256::digest(canonical(entry));
        let hashes: Vec<u8> = entries.values().flat_map(hash).collect();
        Published { version, digest: hex::encode(Sha256::digest(hashes)), entries }
    }
}

pub fn canonical(entry: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(entry).expect("plain JSON")
}

pub fn entry(uid: &str, badge: &str, user: &str) -> Value {
    json!({"badge": badge, "uid": uid, "user": user, "origin": "issued", "status": "active",
           "grants": ["*", "place:P-12"]})
}

impl Cloud {
    pub fn new(wall: i64) -> Cloud {
        Cloud {
            epoch: String::new(),
            held: Vec::new(),
            counted: BTreeMap::new(),
            backup: None,
            published: Vec::new(),
            head: None,
            parts: BTreeMap::new(),
            ack: None,
            issued_at: wall,
        }
    }

    // The ledger.

    /// Stores what is new; an error where it contradicts what is held.
    pub fn receive(
        &mut self,
        epoch: &str,
        first: u64,
        previous: &Hash,
        records: &[String],
    ) -> Result<(), String> {
        if self.epoch.is_empty() {
            self.epoch = epoch.to_owned();
        }
        if self.epoch != epoch {
            return Err(format!("another epoch {epoch} without a reason"));
        }
        let before = first as usize - 1;
        if before > self.held.len() {
            return Ok(());
        }
        let mut hash = before.checked_sub(1).map_or([0; 32], |last| self.held[last].0);
        if hash != *previous {
            return Err(format!("batch {first} does not follow what is held"));
        }
        for (at, record) in (before..).zip(records) {
            hash = link(&hash, record.as_bytes());
            match self.held.get(at) {
                Some((held, _)) if *held == hash => {}
                Some(_) => return Err(format!("record {} came with other bytes", at + 1)),
                None => {
                    self.count(record);
                    self.held.push((hash, record.clone()));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, record: &str) {
        let record: Value = serde_json::from_str(record).unwrap_or_default();
        if record["kind"] == "session_ended" {
            let user = record["user"].as_str().unwrap_or_default().to_owned();
            *self.counted.entry(user).or_default() += record["energy_wh"].as_i64().unwrap_or(0);
        }
    }

    /// What it says of what it has stored for good.
    pub fn acknowledge(&mut self) -> Message {
        self.issued_at += 1;
        let hash = self.held.last().map_or([0; 32], |(hash, _)| *hash);
        let (epoch, upto) = (self.epoch.clone(), self.held.len() as u64);
        let ack = Message::Ack { epoch, upto, hash, issued_at: self.issued_at };
        self.ack = Some(ack.clone());
        ack
    }

    pub fn back_up(&mut self) {
        self.backup = Some((self.held.clone(), self.counted.clone()));
    }

    /// Goes back to the backup, but not behind what the gateway still has.
    pub fn restore(&mut self, floor: u64) -> Option<Message> {
        let (held, counted) = self.backup.clone()?;
        if (held.len() as u64) + 1 < floor || self.epoch.is_empty() {
            return None;
        }
        (self.held, self.counted) = (held, counted);
        Some(self.acknowledge())
    }

    pub fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// What the broker has for whoever subscribes.
    pub fn retained(&self) -> Vec<Message> {
        let head = self.head.clone().map(Message::Head);
        self.ack.iter().cloned().chain(head).collect()
    }

    // The allowlist.

    pub fn newest(&self) -> &Published {
        self.published.last().expect("a list was published")
    }

    pub fn publish_first(&mut self) {
        let entries = RESIDENTS.map(|(uid, badge, user)| (uid.into(), entry(uid, badge, user)));
        self.publish_inline(BTreeMap::from(entries));
    }

    /// Everybody may use everything again, so that peace can come.
    pub fn publish_last(&mut self) -> Message {
        self.publish_first();
        Message::Head(self.head.clone().unwrap_or_default())
    }

    fn publish_inline(&mut self, entries: BTreeMap<String, Value>) {
        let version = self.published.last().map_or(1, |list| list.version + 1);
        let list = Published::new(version, entries);
        let entries: Vec<&Value> = list.entries.values().collect();
        let head = self.head_of(&list, "entries", json!(entries));
        self.publish(list, head);
    }

    fn publish(&mut self, list: Published, head: Value) {
        self.published.push(list);
        self.head = Some(head.to_string().into_bytes());
    }

    fn head_of(&mut self, list: &Published, member: &str, content: Value) -> Value {
        self.issued_at += 1;
        let issued_at = tapgate::core::time::Wall(self.issued_at);
        let mut head = json!({
            "list": LIST, "version": list.version, "count": list.entries.len(),
            "digest": list.digest, "issued_at": issued_at, "allow_shrink": true,
        });
        head[member] = content;
        head
    }

    /// Changes the list a little and publishes it in one of its forms.
    pub fn publish_change(&mut self, random: &mut Random) -> Message {
        let before = self.newest().clone();
        let mut entries = before.entries.clone();
        for _ in 0..random.between(1, 4) {
            change(&mut entries, random);
        }
        let list = Published::new(before.version + 1, entries);
        let mut head = if random.percent(50) {
            let entries: Vec<&Value> = list.entries.values().collect();
            self.head_of(&list, "entries", json!(entries))
        } else {
            let parts = self.cut(&list);
            self.head_of(&list, "parts", parts)
        };
        if random.percent(50) {
            let mut delta = delta(&before, &list);
            if random.percent(20) {
                // One that does not lead there: the content does.
                delta["upsert"] = json!([]);
            }
            head["deltas"] = json!([delta]);
        }
        self.publish(list, head);
        Message::Head(self.head.clone().unwrap_or_default())
    }

    /// The list in two parts; the content of older ones is forgotten.
    fn cut(&mut self, list: &Published) -> Value {
        self.parts.clear();
        let entries: Vec<Vec<u8>> = list.entries.values().map(canonical).collect();
        let mut named = Vec::new();
        for entries in entries.chunks(entries.len().div_ceil(2).max(1)) {
            let lines = entries.iter().flat_map(|entry| entry.iter().copied().chain([b'\n']));
            let bytes: Vec<u8> = lines.collect();
            let name = hex::encode(Sha256::digest(&bytes));
            named.push(json!({"sha256": name, "bytes": bytes.len()}));
            self.parts.insert(name, bytes);
        }
        json!(named)
    }

    /// The chunks that are asked for, some of them spoilt.
    pub fn chunks(&self, requests: &[PartRequest], random: &mut Random) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        for request in requests {
            let Some(content) = self.parts.get(&request.sha256) else { continue };
            let n = content.chunks(CHUNK).len();
            for (i, bytes) in content.chunks(CHUNK).enumerate().skip(request.from as usize) {
                let mut bytes = bytes.to_vec();
                if random.percent(4) {
                    bytes[0] ^= 1;
                }
                if random.percent(3) {
                    bytes.pop();
                }
                let data = base64::engine::general_purpose::STANDARD.encode(bytes);
                let chunk = json!({"sha256": request.sha256, "i": i, "n": n, "data": data});
                chunks.push(chunk.to_string().into_bytes());
            }
        }
        chunks
    }

    /// A message that must change nothing.
    pub fn rubbish(&mut self, random: &mut Random) -> Message {
        let list = self.newest().clone();
        let entries: Vec<&Value> = list.entries.values().collect();
        let mut head = self.head_of(&list, "entries", json!(entries));
        match random.between(0, 9) {
            0 => {
                head["version"] = json!(list.version.saturating_sub(1));
                head["digest"] = json!("22".repeat(32));
            }
            1 => head["digest"] = json!("00".repeat(32)),
            2 => {
                head["version"] = json!(list.version + 1);
                head["digest"] = json!("11".repeat(32));
            }
            3 => {
                head["list"] = json!("00000000-4b53-4e0e-9d1c-2f0f3f0b7a11");
                head["version"] = json!(list.version + 9);
                head["digest"] = json!("33".repeat(32));
            }
            4 if !entries.is_empty() => {
                head["version"] = json!(list.version + 1);
                head["entries"][0]["status"] = json!("lost");
            }
            5 if !entries.is_empty() => {
                let twice = head["entries"][0].clone();
                head["version"] = json!(list.version + 1);
                head["entries"].as_array_mut().expect("a list").push(twice);
            }
            4..=6 => {
                head["version"] = json!(list.version + 1);
                head["count"] = json!(99);
            }
            7 => return Message::Head(b"{\"list\":".to_vec()),
            _ => return Message::Chunk(b"{\"sha256\":1}".to_vec()),
        }
        Message::Head(head.to_string().into_bytes())
    }
}

fn change(entries: &mut BTreeMap<String, Value>, random: &mut Random) {
    let (uid, badge, user) = *random.one_of(&RESIDENTS);
    match random.between(0, 6) {
        0 => {
            entries.remove(uid);
        }
        1 | 2 => {
            entries.insert(uid.into(), entry(uid, badge, user));
        }
        3 => {
            let mut blocked = entry(uid, badge, user);
            (blocked["status"], blocked["blocked_reason"]) = (json!("blocked"), json!("lost"));
            entries.insert(uid.into(), blocked);
        }
        4 => {
            let mut poor = entry(uid, badge, user);
            poor["grants"] = json!(["station:machine-0"]);
            poor["max_concurrent"] = json!(random.between(0, 3));
            entries.insert(uid.into(), poor);
        }
        _ => {
            let mut late = entry(uid, badge, user);
            late["valid_until"] = json!("2026-11-22T10:02:00Z");
            late["label"] = json!("Ö");
            entries.insert(uid.into(), late);
        }
    }
}

fn delta(before: &Published, after: &Published) -> Value {
    let gone = before.entries.keys().filter(|uid| !after.entries.contains_key(*uid));
    let new = after.entries.iter().filter(|(uid, entry)| before.entries.get(*uid) != Some(*entry));
    json!({
        "base": before.version,
        "remove": gone.collect::<Vec<_>>(),
        "upsert": new.map(|(_, entry)| entry).collect::<Vec<_>>(),
    })
}
