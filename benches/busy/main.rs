//! What a big site costs: bytes on the card of a day's sessions, and processor and memory of 64
//! stations that are all in use.
//!
//! `cargo bench --bench busy [-- --seconds N]`, as root for the card: an ext4 file system of its
//! own on a loop device, whose writes the block layer counts.

mod card;
mod day;
mod laundry;
mod stations;

use std::time::Duration;

/// How long the busy stations are watched, unless `--seconds` says otherwise.
const WATCHED_S: u64 = 60;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments
        .iter()
        .position(|argument| argument == "--seconds")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(WATCHED_S);
    match card::Card::new() {
        Ok(card) => day::measure(&card)?,
        Err(why) => println!("the card is not measured: {why:#}"),
    }
    stations::measure(Duration::from_secs(seconds))
}
