//! From a badge's UID to the coil write, memory and start-up, with 100,000 badges.
//!
//! The daemon is the release binary, against a real pcscd with a virtual card and a Modbus TCP
//! server in this process, which takes both times: the card answers GET DATA, the write arrives.
//! Taps of the daemon and of the floors alternate, so that what else the machine does hits all. The
//! floor is the least that a tap can cost here: see `floor`.
//!
//! `cargo bench --bench tap_to_power -- [--json] [--taps N] [--starts N]`

mod allowlist;
mod daemon;
mod figures;
mod floor;
mod room;
mod tap;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tapgate::demo::broker::PrivateBroker;
use tapgate::demo::pcscd::PrivatePcscd;

use daemon::Daemon;
use figures::{Figures, Spread};
use floor::Floor;
use room::Room;
use tap::Tapper;

/// The daemon's reader, and those of the floor without and with a register.
const READER: &str = "Bench";
const FLOORS: [&str; 2] = ["Floor", "Register"];
/// Measured taps, after these that warm caches and connections up.
const TAPS: u32 = 200;
const WARM_UP: u32 = 10;
/// Measured starts.
const STARTS: u32 = 12;
/// Between two taps, for the cards to leave.
const PAUSE: Duration = Duration::from_millis(100);

struct Options {
    json: bool,
    taps: u32,
    starts: u32,
}

fn main() -> anyhow::Result<()> {
    if let Some(task) = floor::Task::from_env() {
        return floor::run(&task);
    }
    let options = Options::from_args()?;
    let folder = Folder::new()?;
    let figures = measure(&folder.0, &options)?;
    let path = figures::file();
    fs::write(&path, figures.to_json()).with_context(|| format!("cannot write {path:?}"))?;
    if options.json {
        println!("{}", figures.to_json());
    } else {
        println!("{}\nalso in {}", figures.table(), path.display());
    }
    Ok(())
}

fn measure(folder: &Path, options: &Options) -> anyhow::Result<Figures> {
    let allowlist = allowlist::fill(folder)?;
    let floor_pcscd = PrivatePcscd::start(&subfolder(folder, "floor")?, &FLOORS)?;
    let pcscd = PrivatePcscd::start(&subfolder(folder, "pcscd")?, &[READER])?;
    let broker = PrivateBroker::start(&subfolder(folder, "broker")?)?;
    let room = Room::serve()?;
    daemon::write_config(folder, room.address, broker.port())?;
    let (daemon, _) = Daemon::start(folder, &pcscd.socket())?;
    daemon.wait_for_reader(folder)?;
    let (mut floors, mut tappers) = (Vec::new(), Vec::new());
    for (reader, with_register) in FLOORS.into_iter().zip([false, true]) {
        let room = Room::serve()?;
        let task = floor::Task {
            folder: folder.to_owned(),
            allowlist: allowlist.clone(),
            room: room.address,
            reader: PrivatePcscd::listed_name(reader),
            with_register,
        };
        floors.push(Floor::start(&task, &floor_pcscd.socket())?);
        tappers.push(Tapper::new(floor_pcscd.port(reader), room));
    }
    tappers.push(Tapper::new(pcscd.port(READER), room));
    let [floor, with_register, taps] = tap(&mut tappers, options.taps)?;
    let peak_kib = daemon.peak_kib()?;
    drop(floors);
    let committed = daemon.committed(folder)?;
    daemon.stop()?;
    let expected = u64::from(WARM_UP + options.taps);
    ensure!(committed >= expected, "{committed} records for {expected} taps");
    let starts = starts(folder, &pcscd.socket(), options.starts)?;
    Ok(Figures { floor, with_register, daemon: taps, peak_kib, start: starts })
}

/// Everybody in turn, so many times. Another one begins each time: the first after a pause finds
/// the machine's caches cold.
fn tap(tappers: &mut [Tapper], count: u32) -> anyhow::Result<[Spread; 3]> {
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..WARM_UP + count {
        for turn in 0..took.len() {
            let who = (turn + number as usize) % took.len();
            let (_, this) = tappers[who].tap_at(number)?;
            if number >= WARM_UP {
                took[who].push(this);
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(took.map(Spread::of))
}

/// How long the daemon takes to be ready, so many times.
fn starts(folder: &Path, pcscd: &Path, count: u32) -> anyhow::Result<Spread> {
    let mut starts = Vec::new();
    for _ in 0..count {
        let (daemon, took) = Daemon::start(folder, pcscd)?;
        daemon.stop()?;
        starts.push(took);
    }
    Ok(Spread::of(starts))
}

fn subfolder(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Options {
    fn from_args() -> anyhow::Result<Options> {
        let mut options = Options { json: false, taps: TAPS, starts: STARTS };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> anyhow::Result<u32> {
                let value = arguments.next().with_context(|| format!("{argument} wants a number"));
                let value: u32 = value?.parse()?;
                ensure!(value > 0, "{argument} wants a number above 0");
                Ok(value)
            };
            match argument.as_str() {
                "--json" => options.json = true,
                "--taps" => options.taps = number()?,
                "--starts" => options.starts = number()?,
                // Cargo's own word to every bench.
                "--bench" => {}
                other => anyhow::bail!("unknown option {other}; try --json, --taps, --starts"),
            }
        }
        Ok(options)
    }
}

/// Beside the build, on the disk that is measured and not in a tmpfs; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Folder> {
        let beside = figures::file();
        let parent = beside.parent().context("the figures lie in a folder")?;
        let folder = parent.join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
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
