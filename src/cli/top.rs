//! `tapgate top`: the gateway live on the whole screen.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{EXIT_USAGE, client};
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::Request;
use crate::tui;

/// Shows the live view until `q`.
pub(super) fn run(config: &Path) -> ExitCode {
    if !std::io::stdout().is_terminal() {
        eprintln!("tapgate: top needs a terminal; for scripts there is: tapgate status --json");
        return ExitCode::from(EXIT_USAGE);
    }
    let socket = match client::socket_of(config) {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    // A daemon that goes away later is waited for; one that does not run at all is told at once.
    if let Err(error) = client::converse(&socket, &Request::Status {}) {
        return client::explain(&socket, &error);
    }
    match tui::show(&socket, None) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tapgate: the terminal cannot be used: {error}; try: tapgate status");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
