//! Judges heads and entries in the contract's order: the first reason to refuse is the reason.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use crate::core::badge::Uid;
use crate::core::event::Allowlist;
use crate::core::ids::BadgeId;
use crate::io::store::generation::Whole;
use crate::protocol::allowlist::{
    BadField, Content, Head, MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_LIST_BYTES, MAX_PART_BYTES, Refusal,
    RefusalReason, is_usable, judge,
};

/// What a list takes on disk for each byte of its entries, with what is looked up in.
const DISK_FACTOR: u64 = 2;

/// An entry that is good by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) uid: Uid,
    pub(super) badge: BadgeId,
    pub(super) usable: bool,
    pub(super) canonical: Vec<u8>,
}

fn refuse<T>(reason: RefusalReason, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, detail))
}

/// Whether the head is of the list that decides; the contract's rules of identity and order.
pub(super) fn is_the_same(head: &Head, current: &Allowlist) -> Result<bool, Refusal> {
    if head.list != current.list {
        if head.replaces.as_deref() == Some(current.list.as_str()) {
            return Ok(false);
        }
        let detail = "another list, and it does not replace the current one";
        return refuse(RefusalReason::OtherList, detail);
    }
    if head.version < current.version {
        let detail = format!("version {} is older than {}", head.version, current.version);
        return refuse(RefusalReason::Rollback, detail);
    }
    if head.version > current.version {
        return Ok(false);
    }
    if head.digest != current.digest {
        let detail = format!("version {} has another digest", head.version);
        return refuse(RefusalReason::Equivocation, detail);
    }
    Ok(true)
}

/// What is there on the disk, and what must stay there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) free: Option<u64>,
    pub(super) reserve: u64,
    /// Content that is on disk already.
    pub(super) there: u64,
}

/// Whether a list of this size is taken at all; before anything is pulled.
pub(super) fn check_size(head: &Head, room: Room) -> Result<(), Refusal> {
    let refuse = |detail| refuse(RefusalReason::TooLarge, detail);
    if head.count > MAX_ENTRIES {
        return refuse(format!("more than {MAX_ENTRIES} entries"));
    }
    let (bytes, pulled) = match &head.content {
        Content::Entries(entries) => (entries.iter().map(|e| e.get().len() as u64).sum(), 0),
        Content::Parts(parts) => {
            if let Some(at) = parts.iter().position(|part| part.bytes > MAX_PART_BYTES) {
                return refuse(format!("part {at} has more than {MAX_PART_BYTES} bytes"));
            }
            let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
            (bytes, bytes.saturating_sub(room.there))
        }
    };
    if bytes > MAX_LIST_BYTES {
        return refuse(format!("more than {MAX_LIST_BYTES} bytes"));
    }
    let needed = (bytes * DISK_FACTOR + pulled).saturating_add(room.reserve);
    match room.free {
        Some(free) if free < needed => {
            refuse(format!("{free} bytes are free on the gateway's disk, {needed} needed"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Entries in any order, judged one by one; ascending by UID where all are good.
pub(super) fn judge_all(entries: &[Box<RawValue>]) -> Result<Vec<Judged>, Refusal> {
    if let Some(index) = entries.iter().position(|entry| entry.get().len() > MAX_ENTRY_BYTES) {
        return Err(oversize(index as u64));
    }
    let judged: Result<Vec<Judged>, Refusal> =
        (0..).zip(entries).map(|(index, entry)| judge_one(index, entry.get().as_bytes())).collect();
    let mut judged = judged?;
    let (mut uids, mut badges) = (BTreeSet::new(), BTreeSet::new());
    for (index, entry) in (0..).zip(&judged) {
        if !uids.insert(entry.uid.as_bytes()) || !badges.insert(entry.badge.as_str()) {
            return Err(duplicate(index));
        }
    }
    judged.sort_by(|a, b| a.uid.as_bytes().cmp(b.uid.as_bytes()));
    Ok(judged)
}

pub(super) fn judge_one(index: u64, raw: &[u8]) -> Result<Judged, Refusal> {
    match judge(raw) {
        Ok((uid, entry, canonical)) => {
            let usable = is_usable(&entry);
            Ok(Judged { uid, badge: entry.badge, usable, canonical })
        }
        Err(BadField { field }) => {
            refuse(RefusalReason::BadEntry, format!("entry {index}, {field}"))
        }
    }
}

pub(super) fn oversize(index: u64) -> Refusal {
    let detail = format!("entry {index} has more than {MAX_ENTRY_BYTES} bytes");
    Refusal::new(RefusalReason::TooLarge, detail)
}

pub(super) fn duplicate(index: u64) -> Refusal {
    let detail = format!("entry {index}, uid or badge of an earlier one");
    Refusal::new(RefusalReason::Duplicate, detail)
}

/// Judges the list as a whole.
pub(super) fn judge_whole(
    whole: &Whole,
    head: &Head,
    current: Option<&Allowlist>,
) -> Result<(), Refusal> {
    if let Some(index) = whole.duplicate {
        return Err(duplicate(index));
    }
    if whole.count != head.count {
        let detail = format!("{} entries, {} in the head", whole.count, head.count);
        return refuse(RefusalReason::CountMismatch, detail);
    }
    if whole.digest != head.digest {
        let detail = format!("the entries have {}", whole.digest);
        return refuse(RefusalReason::DigestMismatch, detail);
    }
    let emptied = whole.count == 0 && current.is_some_and(|current| current.count > 0);
    if !head.allow_shrink && (emptied || whole.is_shrunk()) {
        let (lost, usable) = (whole.lost, whole.usable);
        let detail = format!("{lost} of {usable} usable badges would become unusable");
        return refuse(RefusalReason::Shrink, detail);
    }
    Ok(())
}
