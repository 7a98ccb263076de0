//! How fast a long ledger reaches the cloud, in how much memory, and how soon the cloud knows of a
//! tap.
//!
//! The daemon is the release binary; the broker is a mosquitto of its own on loopback. The consumer
//! here checks the chain of hashes and acknowledges each batch. Beside the daemon, a bare rumqttc
//! publisher sends the very same payloads, at most [`WINDOW`] unconfirmed, to the same consumer.
//!
//! `cargo bench --bench cloud -- [--sessions N] [--rounds N] [--taps N]`

#[path = "../tap_to_power/allowlist.rs"]
mod allowlist;
mod consumer;
#[path = "../tap_to_power/daemon.rs"]
mod daemon;
mod drain;
#[path = "../../tests/support/offline.rs"]
mod offline;
mod online;
#[path = "../tap_to_power/room.rs"]
mod room;
#[path = "../tap_to_power/tap.rs"]
mod tap;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// The daemon's reader.
const READER: &str = "Bench";
/// The gateway's id in the config of all benches.
const GATEWAY: &str = "bench";
/// Batches that may be unacknowledged: the contract's.
const WINDOW: u16 = 8;

struct Options {
    sessions: u64,
    rounds: u32,
    taps: u32,
}

fn main() -> anyhow::Result<()> {
    let options = Options::from_args()?;
    let folder = Folder::new()?;
    let drained = drain::measure(&folder.0.join("drain"), options.sessions, options.rounds)?;
    println!("{drained}");
    let online = online::measure(&folder.0.join("online"), options.taps)?;
    println!("{online}");
    Ok(())
}

impl Options {
    fn from_args() -> anyhow::Result<Options> {
        let mut options = Options { sessions: 8_600, rounds: 3, taps: 60 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> anyhow::Result<u32> {
                let value = arguments.next().with_context(|| format!("{argument} wants a number"));
                let value: u32 = value?.parse()?;
                ensure!(value > 0, "{argument} wants a number above 0");
                Ok(value)
            };
            match argument.as_str() {
                "--sessions" => options.sessions = number()?.into(),
                "--rounds" => options.rounds = number()?,
                "--taps" => options.taps = number()?,
                // Cargo's own word to every bench.
                "--bench" => {}
                other => anyhow::bail!("unknown option {other}; try --sessions, --rounds, --taps"),
            }
        }
        Ok(options)
    }
}

/// The middle of what was measured.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Beside the build, on the disk that is measured and not in a tmpfs; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Folder> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("bench-cloud-{}", std::process::id()));
        for part in ["drain", "online"] {
            fs::create_dir_all(folder.join(part))?;
        }
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("TAPGATE_BENCH_KEEP").is_none() {
            // What is left behind is only litter.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
