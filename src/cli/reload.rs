//! `tapgate reload`: the daemon takes over what the config file says now.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::client;
use crate::config;
use crate::daemon::EXIT_CONFIG;
use crate::protocol::control::{Reply, Request};

/// Asks for the reload and says what became of it.
pub(super) fn run(config: &Path) -> ExitCode {
    if let Err(errors) = config::load(config) {
        eprintln!("{errors}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let done = client::ask(config, &Request::Reload {}, |reply| {
        if let Reply::Done(what) = reply { Some(what) } else { None }
    });
    match done {
        Ok(what) => {
            println!("{what}");
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
