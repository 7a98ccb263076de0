//! A whole simulated building on this machine: real pcscd, real mosquitto, real Modbus TCP.
//!
//! The daemon is the program itself, started as `tapgate run`. Only cards, machines and the cloud
//! are stand-ins; the parts are public, since the end-to-end tests use them too.

pub mod broker;
pub mod card;
pub mod cloud;
pub mod devices;
pub mod leash;
pub mod pcscd;
mod play;
mod ports;
mod site;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Plays the demo; for `duration`, or until Ctrl-C where there is none.
pub fn run(duration: Option<Duration>, keep: Option<PathBuf>) -> ExitCode {
    match play::play(duration, keep) {
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
