//! The field bus on a 9600 baud line at true speed: how long a switch waits, how fast meters are
//! swept, and what dead meters cost; beside a pymodbus loop and Node-RED on such a line.
//!
//! All masters poll the same two registers of 16 meters with the same time-out. The line keeps the
//! record that all are judged by. Only tapgate also polls its two relay boards.
//!
//! `cargo bench --bench bus -- [--json] [--taps N] [--seconds N]`

mod figures;
mod judge;
mod line;
mod master;
mod node_red;
mod peers;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use figures::Figures;
use judge::{Sweep, Switches, is_disturbed};
use line::{BAUD, LATENCY, Line};
use master::Master;
use node_red::NodeRed;
use peers::Peer;
use tapgate::core::event::Pace;

const DEAD: [&[u8]; 3] = [&[], &[13, 20], &[12, 14, 19, 21, 25]];
const METERS: usize = 16;
/// Of every request.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Measured switches of tapgate, and so many times fewer of its peers, which take their time.
const TAPS: u64 = 200;
const FEWER: u64 = 4;
/// Of each sweep measurement.
const SECONDS: u64 = 20;
/// A peer is at its own speed after this.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long a peer may take to write a coil.
const PATIENCE: Duration = Duration::from_secs(60);
/// Node-RED polls by the clock: shorter than any sweep takes, so that the line is never idle.
const ALWAYS: Duration = Duration::from_secs(1);
/// More than any request of a live meter takes, the pause after it included.
const REQUEST: Duration = Duration::from_millis(50);

struct Options {
    json: bool,
    taps: u64,
    seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::from_args()?;
    let mut figures = Figures::new(options.json);
    figures.say(&format!(
        "{BAUD} baud, 11 bits a byte, devices answer after {} ms; {METERS} meters; time-out {} ms",
        LATENCY.as_millis(),
        TIMEOUT.as_millis()
    ));
    let peers = peers(&mut figures);
    figures.head_of_switches();
    for dead in DEAD {
        switch_with_tapgate(dead, options.taps, &mut figures).await?;
        for peer in &peers {
            let measured = switch_with(peer, dead, options.taps.div_ceil(FEWER), &mut figures);
            note(&mut figures, peer, dead, measured);
        }
    }
    figures.head_of_sweeps();
    let span = Duration::from_secs(options.seconds);
    for dead in DEAD {
        sweep_with_tapgate(dead, span, &mut figures).await?;
        for peer in &peers {
            let measured = sweep_with(peer, dead, span, &mut figures);
            note(&mut figures, peer, dead, measured);
        }
    }
    figures.foot();
    let path = figures::file();
    fs::write(&path, figures.to_json()).with_context(|| format!("cannot write {path:?}"))?;
    if options.json {
        println!("{}", figures.to_json());
    } else {
        println!("also in {}", path.display());
    }
    Ok(())
}

/// Those that are installed here or can be.
fn peers(figures: &mut Figures) -> Vec<Peer> {
    let file = figures::file();
    let target = file.parent().expect("the figures lie in a folder");
    let node_red = NodeRed::install(target).map(Peer::NodeRed);
    let mut peers = Vec::new();
    for (name, peer) in [("pymodbus", Peer::pymodbus()), ("Node-RED", node_red)] {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(why) => figures.not_measured(name, &why),
        }
    }
    peers
}

/// A peer that failed leaves a line, and the others go on.
fn note(figures: &mut Figures, peer: &Peer, dead: &[u8], measured: anyhow::Result<()>) {
    if let Err(why) = measured {
        figures.not_measured(&format!("{} with {} dead", peer.name(), dead.len()), &why);
    }
}

/// Taps, and switches alone, at random moments of a line that is never idle.
async fn switch_with_tapgate(dead: &[u8], taps: u64, figures: &mut Figures) -> anyhow::Result<()> {
    let line = Line::new(dead.to_vec());
    let mut master = Master::new(&line.port, METERS);
    master.pace(Pace::Running);
    master.settle().await;
    let (mut switches, mut whole, mut moments) = (Switches::default(), Vec::new(), Moments::new());
    for tap in 0..taps {
        master.listen(moments.within(Duration::from_millis(100), Duration::from_millis(350))).await;
        let station = alive(moments.index(METERS), dead);
        let tapped = Instant::now();
        let read = master.read_register(station).await;
        let ordered = Instant::now();
        master.switch(station, tap % 2 == 0).await;
        let written = line.written(ordered).context("no coil was written")?;
        if read && !is_disturbed(&line, tapped, written.asked) {
            whole.push(written.asked - tapped);
        }
        // What a switch alone waits.
        master.listen(moments.within(Duration::from_millis(40), Duration::from_millis(220))).await;
        let ordered = Instant::now();
        master.switch(station, tap % 2 == 1).await;
        ensure!(switches.note(&line, ordered), "no coil was written");
    }
    figures.switches("tapgate", dead, switches);
    figures.taps("tapgate, tap by tap", dead, whole);
    Ok(())
}

fn switch_with(peer: &Peer, dead: &[u8], taps: u64, figures: &mut Figures) -> anyhow::Result<()> {
    let line = Line::new(dead.to_vec());
    let interval = bearable(dead);
    // Any moment of what it does again and again.
    let round = match peer {
        Peer::Pymodbus(_) => 2 * TIMEOUT,
        Peer::NodeRed(_) => interval,
    };
    let mut running = peer.start(&line, interval)?;
    std::thread::sleep(WARM_UP);
    let (mut switches, mut moments) = (Switches::default(), Moments::new());
    for tap in 0..taps {
        let least = Duration::from_millis(100);
        std::thread::sleep(moments.within(least, least + round));
        let ordered = Instant::now();
        running.tap(tap % 2 == 0)?;
        while line.written(ordered).is_none() {
            ensure!(ordered.elapsed() < PATIENCE, "{} wrote no coil", peer.name());
            std::thread::sleep(Duration::from_millis(5));
        }
        ensure!(switches.note(&line, ordered), "no coil was written");
    }
    figures.switches(peer.name(), dead, switches);
    Ok(())
}

/// How often every meter is read on a line that does nothing else but look at the relays.
async fn sweep_with_tapgate(
    dead: &[u8],
    span: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let line = Line::new(dead.to_vec());
    let mut master = Master::new(&line.port, METERS);
    master.pace(Pace::Ending);
    master.settle().await;
    let begun = Instant::now();
    master.listen(span).await;
    let sweep = Sweep::of(&line, begun, dead).context("a meter was left out")?;
    figures.sweep("tapgate", dead, &sweep);
    Ok(())
}

fn sweep_with(
    peer: &Peer,
    dead: &[u8],
    span: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let line = Line::new(dead.to_vec());
    let _running = peer.start(&line, ALWAYS)?;
    std::thread::sleep(WARM_UP);
    let begun = Instant::now();
    std::thread::sleep(span);
    let sweep = Sweep::of(&line, begun, dead).context("a meter was left out")?;
    figures.sweep(peer.name(), dead, &sweep);
    Ok(())
}

/// The shortest whole second in which a master that polls by the clock gets through all requests,
/// time-outs included. With a shorter one what waits in it would grow for ever.
fn bearable(dead: &[u8]) -> Duration {
    let lost = 2 * dead.len() as u32;
    let round = REQUEST * (2 * METERS as u32 - lost) + TIMEOUT * lost;
    Duration::from_secs(round.as_secs() + 1)
}

/// A station whose meter lives.
fn alive(station: usize, dead: &[u8]) -> usize {
    let lives = |station: &usize| !dead.contains(&(11 + *station as u8));
    (station..METERS).chain(0..station).find(lives).expect("some live")
}

/// Random moments, the same in each run.
struct Moments(u64);

impl Moments {
    fn new() -> Moments {
        Moments(0x2545_F491_4F6C_DD1D)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn within(&mut self, least: Duration, most: Duration) -> Duration {
        let span = (most - least).as_micros() as u64;
        least + Duration::from_micros(self.next() % span)
    }

    fn index(&mut self, count: usize) -> usize {
        self.next() as usize % count
    }
}

impl Options {
    fn from_args() -> anyhow::Result<Options> {
        let mut options = Options { json: false, taps: TAPS, seconds: SECONDS };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> anyhow::Result<u64> {
                let value = arguments.next().with_context(|| format!("{argument} wants a number"));
                let value: u64 = value?.parse()?;
                ensure!(value > 0, "{argument} wants a number above 0");
                Ok(value)
            };
            match argument.as_str() {
                "--json" => options.json = true,
                "--taps" => options.taps = number()?,
                "--seconds" => options.seconds = number()?,
                // Cargo's own word to every bench.
                "--bench" => {}
                other => anyhow::bail!("unknown option {other}; try --json, --taps, --seconds"),
            }
        }
        Ok(options)
    }
}
