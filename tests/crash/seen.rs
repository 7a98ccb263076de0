//! What the store's users see of it: all that it promised to keep.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tapgate::core::memo::Memo;
use tapgate::core::time::Wall;
use tapgate::io::identity::Identity;
use tapgate::io::store::{Recovered, Store, StoreError};

/// Everything that it holds, in words. Records, accounts and epoch change together, and so does all
/// that lies with the gateway's state: the list that decides, blocks, marks, replies, clock floor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub boot: u32,
    /// The kernel that it runs under.
    pub kernel: String,
    pub connections: u64,
    pub ledger: Ledger,
    pub gateway: Vec<String>,
    pub memos: Vec<String>,
    /// The gateway's public key; empty where it has none yet.
    pub key: String,
}

/// The ledger's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub epoch: String,
    pub records: Vec<String>,
    pub sums: Vec<String>,
}

/// What a running store does not show.
#[derive(Clone, Debug, Default)]
pub struct Beyond {
    pub boot: u32,
    pub kernel: String,
    pub connections: u64,
    pub clock_floor: Wall,
    pub memos: Vec<Memo>,
    pub key: String,
}

impl Beyond {
    /// As the start gave it.
    pub fn of(recovered: &Recovered, kernel: &str, path: &Path) -> Beyond {
        let key = Identity::read(&Identity::beside(path));
        Beyond {
            boot: recovered.boot,
            kernel: kernel.into(),
            connections: 0,
            clock_floor: recovered.clock_floor,
            memos: recovered.memos.clone(),
            key: key.map(|identity| identity.public_key()).unwrap_or_default(),
        }
    }
}

/// Looks at everything.
pub async fn look(store: &Store, beyond: &Beyond) -> Result<Seen, StoreError> {
    Ok(Seen {
        boot: beyond.boot,
        kernel: beyond.kernel.clone(),
        connections: beyond.connections,
        ledger: ledger(store).await?,
        gateway: gateway(store, beyond).await?,
        memos: beyond.memos.iter().map(|memo| format!("{memo:?}")).collect(),
        key: beyond.key.clone(),
    })
}

async fn ledger(store: &Store) -> Result<Ledger, StoreError> {
    let totals = store.totals().await?;
    let standing = &totals.standing;
    let records = store.records(1, 100_000).await?;
    let mut sums = vec![format!("acked {} floor {}", standing.acked, standing.floor)];
    sums.extend(totals.open.iter().map(|session| format!("open {session}")));
    sums.extend(totals.meters.iter().map(|meter| format!("{meter:?}")));
    Ok(Ledger {
        epoch: standing.head.epoch.clone(),
        records: records.into_iter().map(|record| record.record).collect(),
        sums,
    })
}

async fn gateway(store: &Store, beyond: &Beyond) -> Result<Vec<String>, StoreError> {
    let list = store.entries_after(None, 100_000).await?;
    let mut seen = vec![format!("list {:?}", list.head)];
    for (uid, entry) in list.entries {
        let found = store.lookup(uid).await?;
        let by_badge = match &found {
            Some(found) => store.lookup_badge(found.badge.clone()).await?.map(|(uid, _)| uid),
            None => None,
        };
        seen.push(format!("entry {uid:?} {entry} {found:?} {by_badge:?}"));
    }
    let marks = store.out_of_service().await?;
    seen.extend(marks.iter().map(|mark| format!("mark {mark:?}")));
    seen.extend(store.local_blocks().await?.iter().map(|block| format!("{block:?}")));
    seen.extend(store.override_notes().await?.iter().map(|note| format!("{note:?}")));
    seen.extend(store.replies().await?.iter().map(|reply| format!("{reply:?}")));
    seen.push(format!("clock floor {}", beyond.clock_floor));
    Ok(seen)
}

impl Seen {
    /// Whether this, found after a power cut, is what was promised, or whole what was under way
    /// then; every part by itself. Says what is not.
    pub fn is_kept(&self, promised: &Seen, next: &Seen) -> Result<(), String> {
        let ledger = |seen: &Seen| {
            let Ledger { epoch, records, sums } = seen.ledger.clone();
            [vec![epoch], records, sums].concat()
        };
        either("ledger", ledger(self), [ledger(promised), ledger(next)])?;
        let gateway = |seen: &Seen| seen.gateway.clone();
        either("gateway", gateway(self), [gateway(promised), gateway(next)])?;
        let memos = |seen: &Seen| seen.memos.clone();
        either("memos", memos(self), [memos(promised), memos(next)])?;
        if !promised.key.is_empty() && self.key != promised.key {
            return Err(format!("the key was {}, now it is {}", promised.key, self.key));
        }
        Ok(())
    }

    /// The same where nothing was promised yet: the start that was cut short is done again, and
    /// comes to what it would have come to, at another moment.
    pub fn is_done_again(&self, next: &Seen) -> Result<(), String> {
        let facts = |seen: &Seen| seen.ledger.records.iter().map(|record| fact(record)).collect();
        either("ledger", facts(self), [facts(next), facts(next)])?;
        let gateway = |seen: &Seen| seen.gateway.clone();
        either("gateway", gateway(self), [gateway(next), gateway(next)])
    }
}

/// A record without its times.
fn fact(record: &str) -> String {
    let mut fact: serde_json::Value = serde_json::from_str(record).expect("records are JSON");
    for member in ["at", "duration_s"] {
        fact.as_object_mut().expect("an object").remove(member);
    }
    fact.to_string()
}

fn either(part: &str, found: Vec<String>, expected: [Vec<String>; 2]) -> Result<(), String> {
    if expected.contains(&found) {
        return Ok(());
    }
    let [before, after] = expected;
    let mut said = format!("{part} is neither what was promised nor what was under way\n");
    for (name, lines, others) in [
        ("lost", &before, &found),
        ("of the next, missing", &after, &found),
        ("found and in neither", &found, &[before.clone(), after.clone()].concat()),
    ] {
        for line in lines.iter().filter(|line| !others.contains(line)).take(5) {
            said.push_str(&format!("    {name}: {line}\n"));
        }
    }
    Err(said)
}
