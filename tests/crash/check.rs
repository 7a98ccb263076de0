//! Cuts the power wherever something was asked of the disk, and has the real start-up code recover
//! from what may be left.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use tapgate::core::ledger::Record;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::identity::Identity;
use tapgate::io::store::{ApplyOutcome, Inspection, Recovered, Store};
use tokio::runtime::Runtime;

use crate::bench::{
    Recorded, ledger_below, name_of, open_below, runtime, take_list, temporary_folder,
};
use crate::disk::{Cache, Disk, LeftOut};
use crate::facts::{Offered, TEN, started};
use crate::log::Op;
use crate::random::Random;
use crate::seen::{Beyond, Seen, look};

/// Minutes of the site's wall clock between the power cut and the next start.
const LATER: Wall = Wall(TEN + 3_600_000);

/// How many states are tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Beside the plain ones, at every request.
    pub more: usize,
    /// In all; which ones, the seed says.
    pub most: usize,
    /// The first request that counts.
    pub from: usize,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub requests: usize,
    pub tried: usize,
    /// What was lost, in the first state in which something was.
    pub fault: Option<String>,
}

/// Nothing is left out.
pub fn every_sync(_: &Op) -> bool {
    false
}

/// Tries the states of a recording until one is lost.
pub fn try_states(recorded: &Recorded, effort: Effort, left_out: LeftOut) -> Outcome {
    let mut all = 0;
    let mut random = Random::seeded(effort.seed);
    walk(recorded, effort.from, left_out, |_, cache| {
        all += cache.fates(effort.more, &mut random).len();
        true
    });
    let mut random = Random::seeded(effort.seed);
    let mut chosen = Random::seeded(!effort.seed);
    let mut known = HashSet::new();
    let mut outcome = Outcome { requests: recorded.ops.len(), tried: 0, fault: None };
    let trial = Trial::new(recorded);
    walk(recorded, effort.from, left_out, |at, cache| {
        let turning = recorded.promises.iter().any(|(promised, _)| *promised == at);
        for (n, fates) in cache.fates(effort.more, &mut random).iter().enumerate() {
            let plain = turning && n < 2;
            if !plain && chosen.below(all as u64) >= effort.most as u64 {
                continue;
            }
            let disk = cache.cut(fates);
            // Where nothing at all is lost it may have been the process alone that died.
            let killed = n == 0 && at % 2 == 1;
            if !known.insert((disk.print(), trial.promised_before(at), killed)) {
                continue;
            }
            outcome.tried += 1;
            if let Err(fault) = trial.recover(at, &disk, killed) {
                outcome.fault = Some(format!(
                    "after {at} of {} requests (seed {}), {}\n  {fault}\n{}",
                    recorded.ops.len(),
                    effort.seed,
                    if killed { "killed" } else { "without power" },
                    cache.describe(fates)
                ));
                return false;
            }
        }
        true
    });
    outcome
}

/// Visits every moment between two requests from there on, until one visit says that it is enough.
fn walk<'a>(
    recorded: &'a Recorded,
    from: usize,
    left_out: LeftOut,
    mut visit: impl FnMut(usize, &Cache<'a>) -> bool,
) {
    let mut cache = Cache::over(recorded.base.clone());
    for at in 0..=recorded.ops.len() {
        if at >= from && !visit(at, &cache) {
            return;
        }
        if let Some(op) = recorded.ops.get(at) {
            cache.ask(op, left_out);
        }
    }
}

/// One recording's states under trial.
struct Trial<'a> {
    recorded: &'a Recorded,
    runtime: Runtime,
}

impl Trial<'_> {
    fn new(recorded: &Recorded) -> Trial<'_> {
        Trial { recorded, runtime: runtime() }
    }

    /// How many promises had been given.
    fn promised_before(&self, at: usize) -> usize {
        self.recorded.promises.iter().filter(|(promised, _)| *promised <= at).count()
    }

    fn recover(&self, at: usize, disk: &Disk, killed: bool) -> Result<(), String> {
        let folder = temporary_folder();
        let root = folder.path().canonicalize().expect("it is there");
        disk.materialise(&root).expect("written");
        let promises = &self.recorded.promises;
        let given = self.promised_before(at);
        let promised = given.checked_sub(1).map(|last| &promises[last].1);
        let next = promises.get(given).or(promises.last()).map(|(_, seen)| seen);
        let next = next.ok_or("the scenario promised nothing")?;
        let boot_id = if killed { &next.kernel } else { "after the power cut" };
        let expected =
            Expected { promised, next, killed, damaged: !self.recorded.damaged.is_empty() };
        let found = self.runtime.block_on(recover(&root, boot_id, &expected))?;
        let damaged: Vec<_> = found.damaged.iter().map(|path| name_of(path)).collect();
        if damaged != self.recorded.damaged {
            return Err(format!("damaged copies: {damaged:?}, not {:?}", self.recorded.damaged));
        }
        let counted = promised.map_or(0, |seen| seen.connections + 1).max(next.connections);
        self.runtime.block_on(go_on(&root, boot_id, &self.recorded.offered, counted))
    }
}

/// What a recovery must come to.
pub struct Expected<'a> {
    pub promised: Option<&'a Seen>,
    pub next: &'a Seen,
    /// The kernel is still the same.
    pub killed: bool,
    /// Something was damaged before, and may be set aside.
    pub damaged: bool,
}

/// Recovers twice: the first time everything promised is there, the second time nothing changes.
pub async fn recover(
    root: &Path,
    boot_id: &str,
    expected: &Expected<'_>,
) -> Result<Recovered, String> {
    let (store, recovered) = open(root, boot_id)?;
    let first = seen_in(&store, &recovered, root).await?;
    check_start(&recovered, expected)?;
    match expected.promised {
        Some(promised) => first.is_kept(promised, expected.next)?,
        None => first.is_done_again(expected.next)?,
    }
    store.verify().await.map_err(|error| format!("verify: {error}"))?;
    check_frozen(root)?;
    store.close().await;
    let (store, again) = open(root, boot_id)?;
    let second = seen_in(&store, &again, root).await?;
    store.close().await;
    if !again.set_aside.is_empty() || again.damaged != recovered.damaged {
        return Err(format!("the second recovery sets aside {:?}", again.set_aside));
    }
    if first != second || !again.same_boot {
        return Err(format!("the second recovery finds {second:?}\n  the first {first:?}"));
    }
    Ok(again)
}

fn open(root: &Path, boot_id: &str) -> Result<(Store, Recovered), String> {
    let opened = open_below(root, boot_id, LATER);
    let (store, recovered) = opened.map_err(|error| format!("the store does not open: {error}"))?;
    Identity::open(&Identity::beside(&ledger_below(root))).map_err(|error| error.to_string())?;
    Ok((store, recovered))
}

async fn seen_in(store: &Store, recovered: &Recovered, root: &Path) -> Result<Seen, String> {
    let beyond = Beyond::of(recovered, "", &ledger_below(root));
    look(store, &beyond).await.map_err(|error| format!("it cannot be read: {error}"))
}

fn check_start(recovered: &Recovered, expected: &Expected<'_>) -> Result<(), String> {
    if !(expected.damaged || recovered.damaged.is_empty() && recovered.set_aside.is_empty()) {
        return Err(format!("set aside without damage: {:?}", recovered.damaged));
    }
    if let Some(session) = recovered.open_sessions.iter().find(|open| open.start.uid.is_none()) {
        return Err(format!("session {} has lost its badge", session.start.session));
    }
    let boots = [expected.promised.map_or(0, |seen| seen.boot), expected.next.boot];
    let counted = boots.map(|boot| if expected.killed { boot } else { boot + 1 });
    if expected.promised.is_some() && !counted.contains(&recovered.boot)
        || expected.killed && expected.next.boot != recovered.boot
    {
        return Err(format!("this is boot {}, the last was {boots:?}", recovered.boot));
    }
    Ok(())
}

/// The ledgers of epochs that forked are whole wherever they have their name.
fn check_frozen(root: &Path) -> Result<(), String> {
    for file in fs::read_dir(root.join("var")).expect("the store's folder") {
        let path = file.expect("a file").path();
        let name = name_of(&path).to_string_lossy().into_owned();
        if name.starts_with("tapgate-epoch-") && name.ends_with(".db") {
            let frozen = Inspection::open(&path).and_then(|inspection| inspection.verify());
            frozen.map_err(|error| format!("a frozen epoch: {error}"))?;
        }
    }
    Ok(())
}

/// After all that, the gateway goes on: it counts, records, takes the list that was offered.
async fn go_on(
    root: &Path,
    boot_id: &str,
    offered: &Option<Offered>,
    counted: u64,
) -> Result<(), String> {
    let (store, recovered) = open(root, boot_id)?;
    let at = Stamp { boot: recovered.boot, uptime: Uptime(2_000), wall: LATER, synced: true };
    let number = store.next_connection().await.map_err(|error| error.to_string())?;
    if number < counted {
        return Err(format!("connection {number}, but {counted} is the next"));
    }
    let record = Record { at, fact: started() };
    store.commit(vec![record]).await.map_err(|error| format!("it does not record: {error}"))?;
    store.verify().await.map_err(|error| format!("verify: {error}"))?;
    if let Some(offered) = offered {
        match take_list(&store, offered, at).await {
            ApplyOutcome::Applied { .. } | ApplyOutcome::Unchanged(_) => {}
            other => return Err(format!("the list that was offered: {other:?}")),
        }
        let count = store.entries_after(None, 100_000).await.map(|page| page.entries.len());
        if count.ok() != offered.head["count"].as_u64().map(|count| count as usize) {
            return Err("the list that was offered has other entries".into());
        }
    }
    store.close().await;
    Ok(())
}

/// The recording has missed nothing: what it says is there is there, and nothing else.
pub fn is_the_same_as(replayed: &Disk, root: &Path) {
    let mut real = BTreeMap::new();
    read_below(root, root, &mut real);
    let replayed = replayed.contents();
    let names = |contents: &BTreeMap<String, Vec<u8>>| contents.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&replayed), names(&real));
    for (name, content) in &real {
        assert!(replayed[name] == *content, "{name} was changed in a way that was not recorded");
    }
}

fn read_below(root: &Path, folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_below(root, &path, into);
        } else {
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            into.insert(name, fs::read(&path).expect("readable"));
        }
    }
}
