//! `tapgate clock-watch`: tells the daemon that the clock is synchronised.
//!
//! Asking the kernel takes a system call that can also set the clock. The daemon's sandbox leaves
//! it out, so this small program with nothing else to do asks (`tapgate-clock.service`).

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::daemon::EXIT_PERMISSION;
use crate::io::clock;

/// Between two looks: a session that starts meanwhile is marked as of an unsynchronised clock.
const LOOK: Duration = Duration::from_secs(5);

/// Ends once the clock is synchronised and `file` says so.
pub fn watch(file: &Path) -> ExitCode {
    while !clock::is_synchronised() {
        std::thread::sleep(LOOK);
    }
    match std::fs::write(file, "") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} cannot be written: {error}; run this as a service", file.display());
            ExitCode::from(EXIT_PERMISSION)
        }
    }
}
