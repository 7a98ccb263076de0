//! A whole simulated building on this machine: real pcscd, real mosquitto, real Modbus TCP.
//!
//! The daemon is the program itself, started as `tapgate run`. Only cards, machines and the cloud
//! are stand-ins; the parts are public, since the end-to-end tests use them too.

pub mod broker;
pub mod card;
pub mod cloud;
pub mod devices;
pub mod leash;
pub mod parsers;
pub mod pcscd;
mod play;
mod ports;
mod site;
mod summary;

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::Context as _;

use crate::tui;
use play::{Direction, Teller};
use summary::Summary;

/// Lines of the story that wait for the live view; the play waits when it is full.
const STORY: usize = 64;

/// Plays the demo; for `duration`, or until Ctrl-C where there is none. On a terminal it is seen as
/// in `tapgate top`, elsewhere it is told in lines.
pub fn run(duration: Option<Duration>, keep: Option<PathBuf>) -> ExitCode {
    match play(duration, keep) {
        Ok(summary) => {
            println!("{summary}");
            if summary.is_settled() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(duration: Option<Duration>, keep: Option<PathBuf>) -> anyhow::Result<Summary> {
    let temporary = keep.is_none();
    let folder = keep.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("tapgate-demo-{}", std::process::id()))
    });
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let stop = interrupted()?;
    let direct = |teller| {
        let (folder, stop) = (folder.clone(), Arc::clone(&stop));
        Direction { duration, folder, temporary, stop, teller }
    };
    if !std::io::stdout().is_terminal() {
        return play::play(direct(Teller::Lines));
    }
    let (sender, story) = sync_channel(STORY);
    let direction = direct(Teller::View(sender));
    let player = std::thread::spawn(move || play::play(direction));
    show(&site::control_socket(&folder), story, &stop);
    player.join().map_err(|_| anyhow::anyhow!("the play broke off; see {}", folder.display()))?
}

/// Shows the play until it is over; who closes the view wants no more taps.
fn show(socket: &Path, story: tui::Story, stop: &AtomicBool) {
    match tui::show(socket, Some(story)) {
        Ok(()) => stop.store(true, Ordering::Relaxed),
        Err(error) => eprintln!("demo: no live view on this terminal ({error}), so in lines"),
    }
}

/// Set by Ctrl-C.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                set.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(flag)
}
