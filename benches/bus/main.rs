//! The field bus on a 9600 baud line at true speed: how long a switch waits, how fast meters are
//! swept, and what dead meters cost; beside a pymodbus loop on the same line.
//!
//!     cargo bench --bench bus [-- TAPS SECONDS]

mod line;
mod master;

use std::process::Command;
use std::time::{Duration, Instant};

use line::{BAUD, BYTE, LATENCY, Line, Turn};
use master::{Master, TIMEOUT};
use tapgate::core::event::Pace;

const DEAD: [&[u8]; 3] = [&[], &[13, 20], &[12, 14, 19, 21, 25]];
const METERS: usize = 16;
/// Beyond the request in flight a switch may wait this much.
const GOAL: Duration = Duration::from_millis(10);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let taps = numbers.first().copied().unwrap_or(300);
    let seconds = numbers.get(1).copied().unwrap_or(30);
    println!("line: {BAUD} baud, 11 bits a byte, device latency {} ms", LATENCY.as_millis());
    println!("bus:  2 relay boards, {METERS} meters polled, time-out {} ms", TIMEOUT.as_millis());
    for dead in DEAD {
        taps_among_polls(dead, taps).await;
    }
    for dead in DEAD {
        sweep(dead, seconds).await;
        sweep_of_pymodbus(dead, seconds);
    }
}

/// Switches at random moments of a line that is never idle.
async fn taps_among_polls(dead: &[u8], taps: u64) {
    let line = Line::new(dead.to_vec());
    let mut master = Master::new(&line.port, METERS);
    master.pace(Pace::Running);
    master.settle().await;
    let (mut waits, mut excesses, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for tap in 0..taps {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        master.listen(Duration::from_millis(100 + random % 250)).await;
        let station = alive(random as usize / 1_000 % METERS, dead);
        let tapped = Instant::now();
        master.read_register(station).await;
        let ordered = Instant::now();
        master.switch(station, tap % 2 == 0).await;
        let turns = line.turns(tapped - Duration::from_secs(2));
        let written = turns.iter().find(|turn| turn.function == 5 && turn.begun >= ordered);
        let written = written.expect("the coil was written");
        whole.push(written.asked - tapped);
        // What a switch alone waits: ordered at a random moment among polls.
        master.listen(Duration::from_millis(40 + random % 177)).await;
        let ordered = Instant::now();
        master.switch(station, tap % 2 == 1).await;
        let turns = line.turns(ordered - Duration::from_secs(2));
        let written = turns.iter().find(|turn| turn.function == 5 && turn.begun >= ordered);
        let written = written.expect("the coil was written");
        // What the line sees this soon after the order was on its way.
        let sent = ordered + Duration::from_millis(1);
        let in_flight = turns.iter().rfind(|turn| turn.begun < sent && turn.function != 5);
        let free = in_flight.map_or(ordered, ends).max(ordered);
        waits.push(written.asked - ordered);
        excesses.push(written.begun.saturating_duration_since(free));
    }
    let within = excesses.iter().filter(|excess| **excess <= GOAL).count();
    println!("\n{} dead: {taps} switches and {taps} taps among polls of all machines", dead.len());
    println!("  switch ordered -> coil     {}", spread(&mut waits));
    println!("  beyond request in flight   {}", spread(&mut excesses));
    println!("  within 10 ms of it         {:.1} %", 100.0 * within as f64 / taps as f64);
    println!("  tap -> register -> coil    {}", spread(&mut whole));
}

/// When the master gives this request up, or has its answer.
fn ends(turn: &Turn) -> Instant {
    // Time-out, and the time that request and answer take on the line.
    let given_up = || turn.begun + TIMEOUT + BYTE * 20;
    turn.answered.unwrap_or_else(given_up)
}

/// How often every meter is read on a line that does nothing else but look at the relays.
async fn sweep(dead: &[u8], seconds: u64) {
    let line = Line::new(dead.to_vec());
    let mut master = Master::new(&line.port, METERS);
    master.pace(Pace::Ending);
    master.settle().await;
    let begun = Instant::now();
    master.listen(Duration::from_secs(seconds)).await;
    report("tapgate", &line.turns(begun), begun.elapsed(), dead);
}

fn sweep_of_pymodbus(dead: &[u8], seconds: u64) {
    let line = Line::new(dead.to_vec());
    let root = env!("CARGO_MANIFEST_DIR");
    let begun = Instant::now();
    let looped = Command::new(format!("{root}/.venv/bin/python"))
        .arg(format!("{root}/benches/bus/pymodbus_loop.py"))
        .arg(&line.port)
        .args([BAUD.to_string(), METERS.to_string(), seconds.to_string()])
        .status();
    if !looped.is_ok_and(|status| status.success()) {
        println!("  pymodbus   not measured: run make python");
        return;
    }
    let turns = line.turns(begun);
    let first = turns.first().map_or(begun, |turn| turn.begun);
    let last = turns.last().map_or(first, |turn| turn.answered.unwrap_or(turn.asked));
    report("pymodbus", &turns, last - first, dead);
}

fn report(master: &str, turns: &[Turn], span: Duration, dead: &[u8]) {
    let registers = |turn: &&Turn| turn.function == 4 && turn.answered.is_some();
    let reads = turns.iter().filter(registers).count();
    let alive = METERS - dead.len();
    // Two requests a meter: power and energy lie too far apart for one.
    let sweeps = reads as f64 / (2 * alive) as f64;
    let answered = turns.iter().filter(|turn| turn.answered.is_some());
    let least: Duration = answered.map(Turn::least).sum();
    let meters: Duration = turns.iter().filter(registers).map(Turn::least).sum();
    let silent = turns.iter().filter(|turn| turn.answered.is_none()).count();
    println!(
        "  {} dead  {master:<9} sweep of {alive:>2} meters {:>5.2} s, theory {:.2} s: {:.2} x; \
         line {:.2} x of all it carried; {silent} time-outs in {:.0} s",
        dead.len(),
        span.as_secs_f64() / sweeps,
        meters.as_secs_f64() / sweeps,
        span.as_secs_f64() / meters.as_secs_f64(),
        span.as_secs_f64() / least.as_secs_f64(),
        span.as_secs_f64(),
    );
}

/// A station whose meter lives.
fn alive(station: usize, dead: &[u8]) -> usize {
    let lives = |station: &usize| !dead.contains(&(11 + *station as u8));
    (station..METERS).chain(0..station).find(lives).expect("some live")
}

fn spread(samples: &mut [Duration]) -> String {
    samples.sort_unstable();
    let at = |percent: usize| {
        let index = (samples.len() * percent).div_ceil(100).saturating_sub(1);
        format!("{:.1}", samples[index].as_secs_f64() * 1_000.0)
    };
    format!("p50 {:>6} ms, p99 {:>6} ms, worst {:>6} ms", at(50), at(99), at(100))
}
