//! What a list of a million badges costs: pulled in parts and applied while somebody taps, against
//! `sqlite3 .import` of the same rows; look-ups in it.
//!
//! The store is the daemon's own and its parts come as chunks, without a broker in between. A tap
//! is what it asks of the store: one look-up and one commit.
//!
//! `cargo bench --bench allowlist [-- --badges N]`

mod content;
mod figures;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tapgate::core::badge::Uid;
use tapgate::core::ledger::{Fact, Record};
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::store::{
    ApplyOutcome, ListJob, ListNews, Offer, Opening, Origin as Offered, Store,
};
use tokio::sync::mpsc;

use content::{List, uid};
use figures::{Spread, peak_kib, reset_peak, written_bytes};

/// Between two taps.
const PAUSE: Duration = Duration::from_millis(20);
/// Taps without an update, to compare with.
const QUIET_TAPS: usize = 200;
const LOOKUPS: u64 = 20_000;
/// A moment after everything that the list says.
const NOW: Wall = Wall(1_795_341_600_000);

fn main() -> anyhow::Result<()> {
    let mut badges = 1_000_000;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--badges" => badges = arguments.next().context("--badges wants a number")?.parse()?,
            "--bench" => {}
            other => bail!("unknown option {other}; try --badges N"),
        }
    }
    // Beside the build, on the disk that is measured and not in a tmpfs.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(measure(folder.path(), badges))
}

async fn measure(folder: &Path, badges: u64) -> anyhow::Result<()> {
    let list = List::write(folder, badges)?;
    println!("{badges} badges, {:.1} MB of content, {} parts", mb(list.bytes), list.parts.len());
    let import = import_with_sqlite(folder, &list)?;
    let path = folder.join("store").join("tapgate.db");
    let opening = Opening { path: &path, boot_id: "b", wall: NOW, uptime: Uptime(0), synced: true };
    let (store, _) = Store::open(&opening)?;
    let quiet = tap(&store, |taps| taps.len() < QUIET_TAPS).await?;
    reset_peak()?;
    let (before, begin) = (written_bytes()?, Instant::now());
    let (served, offered) = (store.clone(), list.clone());
    let applied = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().build()?.block_on(apply(served, offered))
    });
    let busy = tap(&store, |_| !applied.is_finished()).await?;
    let took = applied.join().map_err(|_| anyhow::anyhow!("the cloud's thread panicked"))??;
    let written = written_bytes()? - before;
    println!(
        "applied in {:.2} s, hashing included; sqlite3 .import {:.2} s: {:.2} times",
        took.as_secs_f64(),
        import.as_secs_f64(),
        took.as_secs_f64() / import.as_secs_f64()
    );
    println!("  (all of it within {:.2} s)", begin.elapsed().as_secs_f64());
    println!(
        "written {:.1} MB: {:.2} times the content",
        mb(written),
        mb(written) / mb(list.bytes)
    );
    println!("peak memory of this process meanwhile: {} KiB", peak_kib()?);
    println!("a tap's look-up and commit: without {quiet}; during it {busy}");
    println!("look-up: {}", look_up(&store, badges).await?);
    store.close().await;
    Ok(())
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The same rows into a like table, by SQLite's own program.
fn import_with_sqlite(folder: &Path, list: &List) -> anyhow::Result<Duration> {
    let database = folder.join("import.db");
    let import = format!(".import {} entry", list.csv.display());
    let begin = Instant::now();
    let status = Command::new("sqlite3")
        .arg(&database)
        .arg(
            "CREATE TABLE entry (uid TEXT PRIMARY KEY, badge TEXT NOT NULL UNIQUE, user TEXT, \
             origin TEXT, status TEXT, grants TEXT) WITHOUT ROWID",
        )
        .args([".mode csv", &import])
        .status()
        .context("sqlite3 is not installed")?;
    let took = begin.elapsed();
    ensure!(status.success(), "sqlite3: {status}");
    fs::remove_file(database)?;
    fs::remove_file(&list.csv)?;
    Ok(took)
}

/// Offers the list and serves what is asked for, from disk.
async fn apply(store: Store, list: List) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let (news, mut heard) = mpsc::channel(16);
    let now = stamp(1);
    let offer = Offer { origin: Offered::Cloud, payload: list.head.into_bytes(), now, news };
    let jobs = store.lists();
    jobs.send(ListJob::Head(offer)).await?;
    loop {
        let ListNews { outcome, .. } = heard.recv().await.context("no news")?;
        match outcome {
            ApplyOutcome::Applied { .. } => return Ok(begin.elapsed()),
            ApplyOutcome::Wanted(parts) => {
                for part in parts {
                    let mut content = Vec::new();
                    fs::File::open(list.folder.join(&part.sha256))?.read_to_end(&mut content)?;
                    for chunk in content::chunks(&part.sha256, &content) {
                        jobs.send(ListJob::Chunk(chunk)).await?;
                    }
                }
            }
            other => bail!("not applied: {other:?}"),
        }
    }
}

/// Taps for as long as `more` wants.
async fn tap(store: &Store, more: impl Fn(&[Duration]) -> bool) -> anyhow::Result<Spread> {
    let mut took = Vec::new();
    while more(&took) {
        let begin = Instant::now();
        store.lookup(uid(took.len() as u64)).await?;
        let fact = Fact::ClockSet { wall: NOW, before: NOW };
        store.commit(vec![Record { at: stamp(2), fact }]).await?;
        took.push(begin.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(Spread::of(took))
}

async fn look_up(store: &Store, badges: u64) -> anyhow::Result<Spread> {
    let mut took = Vec::new();
    for n in 0..LOOKUPS {
        // Scattered, each another.
        let which: Uid = uid(n * 7_919_777 % badges);
        let begin = Instant::now();
        let found = store.lookup(which).await?;
        took.push(begin.elapsed());
        ensure!(found.is_some(), "a badge of the list is not found");
    }
    Ok(Spread::of(took))
}

fn stamp(second: u64) -> Stamp {
    Stamp { boot: 1, uptime: Uptime(second * 1000), wall: NOW, synced: true }
}
