//! The daemon: joins the core and the I/O tasks.
//!
//! `startup` opens, recovers and spawns; `event_loop` has the only `select!`; `execute` runs a
//! step; `by_hand` serves a technician; `report`, `units` and `watched` tell journal, cloud and
//! technician; `watch` knows what the tasks last said.

mod allowlist;
mod badges;
mod by_hand;
mod commands;
mod conditions;
mod event_loop;
mod execute;
mod fork;
mod import;
pub(crate) mod ledger_pages;
mod ledger_port;
mod lists;
mod maintenance;
mod orders;
mod overrides;
mod readers;
mod reload;
mod report;
mod startup;
mod taps;
mod units;
mod watch;
mod watched;

use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Config};
use crate::daemon::event_loop::{End, Signals};
use crate::daemon::reload::Running;
use crate::io::{journal, memory};

/// Something is wrong with the site or the machine.
pub const EXIT_FAILURE: u8 = 1;
/// The store cannot be opened.
pub const EXIT_STORAGE: u8 = 74;
/// A file or socket may not be used by this user.
pub const EXIT_PERMISSION: u8 = 77;
/// The config has errors; systemd does not restart on it.
pub const EXIT_CONFIG: u8 = 78;

/// Runs the daemon until SIGTERM.
pub fn run(file: &Path) -> ExitCode {
    memory::share_one_arena();
    journal::init();
    journal::log_panics();
    let config = match config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            tracing::error!("the config has errors; run: tapgate check {}", file.display());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match serve(config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(startup::exit_code(&error))
        }
    }
}

/// One thread for the event loop and the buses: a Pi has little memory, and order is clarity.
fn serve(config: Config, file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut daemon = startup::start(Running { config, file: file.into() }).await?;
        while let End::Reload(reload) = daemon.run(&mut signals).await? {
            daemon = reload.carry_out().await?;
        }
        Ok(())
    })
}
