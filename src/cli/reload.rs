//! `tapgate reload`: the daemon takes over what the config file says now.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::client;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Reply, Request};

/// Asks for the reload and says what became of it.
pub(super) fn run(config: &Path) -> ExitCode {
    match client::ask(config, &Request::Reload {}) {
        Ok(Reply::Done(what)) => {
            println!("{what}");
            ExitCode::SUCCESS
        }
        Ok(Reply::Status(_) | Reply::Error(_)) => ExitCode::from(EXIT_FAILURE),
        Err(code) => code,
    }
}
