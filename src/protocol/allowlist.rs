//! The allowlist on the wire: head, entries, digest, and why a list is refused.
//!
//! Entries stay raw text until they are judged one by one, so that a bad one is refused as such,
//! with its index. A refusal's detail names indexes and members, never a UID.

mod chunk;

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::core::access::{Entry, Grant, Origin};
use crate::core::badge::Uid;
use crate::core::ids::is_opaque_id;
use crate::core::time::Wall;
use crate::protocol::json::{self, MAX_INTEGER, Strict};

pub use chunk::{Chunk, MAX_CHUNK_BYTES, MAX_CHUNKS};

/// More entries than any building has; bounds the staging time.
pub const MAX_ENTRIES: u64 = 1_000_000;

/// One entry as received; bounds the memory that judging it takes.
pub const MAX_ENTRY_BYTES: usize = 4 * 1024;

/// All parts together; bounds what a list may take of the disk.
pub const MAX_LIST_BYTES: u64 = 512 * 1024 * 1024;

/// One part of content that is pulled.
pub const MAX_PART_BYTES: u64 = 4 * 1024 * 1024;

/// For people; longer ones are a mistake.
const MAX_LABEL_CHARS: usize = 64;

/// What the cloud says of a list: which, how much, and where its entries are.
#[derive(Clone, Debug)]
pub struct Head {
    /// The list's id, a UUID.
    pub list: String,
    /// Grows with every change.
    pub version: u64,
    /// Number of entries.
    pub count: u64,
    /// SHA-256 over the entries, lower-case hex.
    pub digest: String,
    /// When the cloud said so.
    pub issued_at: Wall,
    /// The whole list, or where to get it.
    pub content: Content,
    /// Shorter ways from older versions.
    pub deltas: Vec<Delta>,
    /// The cloud knows that many badges become unusable.
    pub allow_shrink: bool,
    /// The id of the list that this one takes the place of.
    pub replaces: Option<String>,
}

/// The entries of a list.
#[derive(Clone, Debug)]
pub enum Content {
    /// All of them, unjudged, in any order.
    Entries(Vec<Box<RawValue>>),
    /// To be pulled by hash.
    Parts(Vec<Part>),
}

/// A piece of content, named by its hash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Part {
    /// Lower-case hex.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// What changed since an older version.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Delta {
    /// The version it starts from.
    pub base: u64,
    /// Whole entries, unjudged.
    #[serde(default)]
    pub upsert: Vec<Box<RawValue>>,
    /// UIDs in wire form, removed before the upserts.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// The members of an entry.
const FIELDS: [&str; 11] = [
    "badge",
    "uid",
    "user",
    "origin",
    "status",
    "blocked_reason",
    "grants",
    "valid_from",
    "valid_until",
    "max_concurrent",
    "label",
];

/// The head's form is wrong: which member, or the JSON itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad allowlist head: {0}")]
pub struct BadMessage(pub String);

/// The member that makes an entry bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadField {
    /// Its name, `json` where the entry is no strict JSON object.
    pub field: &'static str,
}

/// Why a list is not taken, in the order of the checks: the first that holds is the reason.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are those of the cloud contract")]
pub enum RefusalReason {
    BadMessage,
    OtherList,
    Rollback,
    Equivocation,
    TooLarge,
    BadEntry,
    Duplicate,
    CountMismatch,
    DigestMismatch,
    Shrink,
    Storage,
}

impl RefusalReason {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalReason::BadMessage => "bad_message",
            RefusalReason::OtherList => "other_list",
            RefusalReason::Rollback => "rollback",
            RefusalReason::Equivocation => "equivocation",
            RefusalReason::TooLarge => "too_large",
            RefusalReason::BadEntry => "bad_entry",
            RefusalReason::Duplicate => "duplicate",
            RefusalReason::CountMismatch => "count_mismatch",
            RefusalReason::DigestMismatch => "digest_mismatch",
            RefusalReason::Shrink => "shrink",
            RefusalReason::Storage => "storage",
        }
    }
}

/// Why a list is not taken, for the cloud and the technician.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The contract's word.
    pub reason: RefusalReason,
    /// What exactly; indexes and member names only.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its detail.
    pub fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl Head {
    /// A head from the JSON that was published or signed. Members that it does not know are
    /// ignored, but must be strict JSON too.
    pub fn parse(bytes: &[u8]) -> Result<Head, BadMessage> {
        // What is skipped in entries and deltas is UTF-8 too.
        let utf8 = std::str::from_utf8(bytes).map_err(|_| BadMessage("it is not UTF-8".into()))?;
        let members: Members =
            serde_json::from_str(utf8).map_err(|error| BadMessage(plain(&error)))?;
        let plain = &members.plain;
        let list = text(plain, "list").filter(|list| is_uuid(list)).ok_or_else(|| bad("list"))?;
        let digest = text(plain, "digest").filter(|d| is_sha256(d)).ok_or_else(|| bad("digest"))?;
        let issued_at = text(plain, "issued_at").and_then(Wall::parse);
        let allow_shrink = match plain.get("allow_shrink") {
            None | Some(Value::Null) => false,
            Some(value) => value.as_bool().ok_or_else(|| bad("allow_shrink"))?,
        };
        let replaces = match plain.get("replaces") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let other = value.as_str().filter(|other| is_uuid(other));
                Some(other.ok_or_else(|| bad("replaces"))?.to_owned())
            }
        };
        Ok(Head {
            list: list.to_owned(),
            version: number(plain, "version")?,
            count: number(plain, "count")?,
            digest: digest.to_owned(),
            issued_at: issued_at.ok_or_else(|| bad("issued_at"))?,
            content: content(members.entries.flatten(), members.parts.flatten())?,
            deltas: checked_deltas(members.deltas.flatten())?,
            allow_shrink,
            replaces,
        })
    }
}

impl Head {
    /// The version of a head that cannot be taken for another reason.
    pub fn version_of(bytes: &[u8]) -> Option<u64> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u64,
        }
        let version = serde_json::from_slice(bytes).ok().map(|head: Versioned| head.version);
        version.filter(|version| *version <= MAX_INTEGER)
    }

    /// The parts that the content is pulled in; none where it is inline.
    pub fn parts(&self) -> &[Part] {
        match &self.content {
            Content::Entries(_) => &[],
            Content::Parts(parts) => parts,
        }
    }

    /// Their names.
    pub fn part_names(&self) -> Vec<String> {
        self.parts().iter().map(|part| part.sha256.clone()).collect()
    }
}

/// The text without what serde quotes from the message: it may hold a UID.
fn plain(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Data => {
            format!(
                "a member twice, of the wrong type or nested too deeply at line {line} column {column}"
            )
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => error.to_string(),
    }
}

fn bad(member: &str) -> BadMessage {
    BadMessage(format!("{member} is missing or wrong"))
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name)?.as_str()
}

fn number(members: &Map<String, Value>, name: &str) -> Result<u64, BadMessage> {
    members.get(name).and_then(Value::as_u64).ok_or_else(|| bad(name))
}

fn content(
    entries: Option<Vec<Box<RawValue>>>,
    parts: Option<Vec<Part>>,
) -> Result<Content, BadMessage> {
    match (entries, parts) {
        (Some(entries), None) => Ok(Content::Entries(entries)),
        (None, Some(parts)) => {
            let good = |p: &Part| is_sha256(&p.sha256) && (1..=MAX_INTEGER).contains(&p.bytes);
            let names: BTreeSet<&str> = parts.iter().map(|part| part.sha256.as_str()).collect();
            if !parts.iter().all(good) || names.len() < parts.len() {
                return Err(bad("parts"));
            }
            Ok(Content::Parts(parts))
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(BadMessage("exactly one of entries and parts is needed".into()))
        }
    }
}

fn checked_deltas(deltas: Option<Vec<Delta>>) -> Result<Vec<Delta>, BadMessage> {
    let deltas = deltas.unwrap_or_default();
    let good = |delta: &Delta| {
        delta.base <= MAX_INTEGER && delta.remove.iter().all(|uid| Uid::from_wire(uid).is_some())
    };
    if deltas.iter().all(good) { Ok(deltas) } else { Err(bad("deltas")) }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A head's members; those that hold entries are not looked into. `null` means the same as leaving
/// one out.
struct Members {
    plain: Map<String, Value>,
    entries: Option<Option<Vec<Box<RawValue>>>>,
    parts: Option<Option<Vec<Part>>>,
    deltas: Option<Option<Vec<Delta>>>,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an allowlist head")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members { plain: Map::new(), entries: None, parts: None, deltas: None };
        while let Some(name) = map.next_key::<String>()? {
            let twice = match name.as_str() {
                "entries" => members.entries.replace(map.next_value()?).is_some(),
                "parts" => members.parts.replace(map.next_value()?).is_some(),
                "deltas" => members.deltas.replace(map.next_value()?).is_some(),
                _ => {
                    let value = map.next_value_seed(Strict::value())?;
                    members.plain.insert(name, value).is_some()
                }
            };
            if twice {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(members)
    }
}

/// An entry and the UID that it is for.
pub fn parse_entry(entry: &Value) -> Result<(Uid, Entry), BadField> {
    let members = entry.as_object().ok_or(BadField { field: "json" })?;
    let uid = required(members, "uid", |v| Uid::from_wire(v.as_str()?))?;
    optional(members, "blocked_reason", |v| {
        matches!(v.as_str()?, "lost" | "unpaid" | "moved_out" | "other").then_some(())
    })?;
    optional(members, "label", |v| (v.as_str()?.chars().count() <= MAX_LABEL_CHARS).then_some(()))?;
    let time = |v: &Value| Wall::parse(v.as_str()?);
    let entry = Entry {
        badge: required(members, "badge", opaque_id)?.into(),
        user: required(members, "user", opaque_id)?.into(),
        origin: required(members, "origin", |v| match v.as_str()? {
            "issued" => Some(Origin::Issued),
            "third_party" => Some(Origin::ThirdParty),
            _ => None,
        })?,
        blocked: required(members, "status", |v| match v.as_str()? {
            "active" => Some(false),
            "blocked" => Some(true),
            _ => None,
        })?,
        grants: required(members, "grants", grants)?,
        valid_from: optional(members, "valid_from", time)?,
        valid_until: optional(members, "valid_until", time)?,
        // Beyond u32 means without limit all the same.
        max_concurrent: optional(members, "max_concurrent", |v| {
            Some(u32::try_from(v.as_u64()?).unwrap_or(u32::MAX))
        })?,
    };
    Ok((uid, entry))
}

/// Whether the badge opens anything by itself; what the shrink guard counts.
pub fn is_usable(entry: &Entry) -> bool {
    !entry.blocked && !entry.grants.is_empty()
}

fn opaque_id(value: &Value) -> Option<&str> {
    value.as_str().filter(|id| is_opaque_id(id))
}

fn grants(value: &Value) -> Option<Vec<Grant>> {
    value.as_array()?.iter().map(|grant| Grant::parse(grant.as_str()?)).collect()
}

fn required<'a, T>(
    members: &'a Map<String, Value>,
    field: &'static str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<T, BadField> {
    members.get(field).and_then(read).ok_or(BadField { field })
}

/// `null` means the same as leaving it out.
fn optional<'a, T>(
    members: &'a Map<String, Value>,
    field: &'static str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, BadField> {
    match members.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or(BadField { field }),
    }
}

/// SHA-256 of an entry in canonical form.
pub fn entry_hash(canonical: &[u8]) -> [u8; 32] {
    Sha256::digest(canonical).into()
}

/// The digest of a list: its entries' hashes in one SHA-256, ascending by UID bytes.
#[derive(Clone, Debug, Default)]
pub struct ListDigest(Sha256);

impl ListDigest {
    /// The next entry's hash. The caller keeps the order.
    pub fn add(&mut self, entry_hash: &[u8; 32]) {
        self.0.update(entry_hash);
    }

    /// Lower-case hex.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// The canonical bytes of an entry that is judged good, or why it is bad.
pub fn judge(raw: &[u8]) -> Result<(Uid, Entry, Vec<u8>), BadField> {
    let value = json::parse(raw).map_err(|_| BadField { field: strange_member(raw) })?;
    let (uid, entry) = parse_entry(&value)?;
    Ok((uid, entry, json::canonical_of(&value, raw)))
}

/// The first member that is no strict JSON or stands twice, where the contract knows it.
fn strange_member(raw: &[u8]) -> &'static str {
    let members: json::Members<'_> = serde_json::from_slice(raw).unwrap_or_default();
    let mut earlier = BTreeSet::new();
    let strange = |(name, value): &&(String, &RawValue)| {
        !earlier.insert(name.clone()) || json::parse(value.get().as_bytes()).is_err()
    };
    let strange = members.0.iter().find(strange);
    strange.and_then(|(name, _)| FIELDS.into_iter().find(|field| field == name)).unwrap_or("json")
}

/// The badge of an entry that was judged good, from its canonical bytes.
pub fn badge_of(canonical: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        badge: String,
    }
    serde_json::from_slice(canonical).ok().map(|named: Named| named.badge)
}

/// What stands for a badge where eight bytes must do.
pub fn badge_hash(badge: &str) -> u64 {
    let hash: [u8; 32] = Sha256::digest(badge).into();
    u64::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has more than eight bytes"))
}

#[cfg(test)]
mod tests;
