//! `tapgate man` and `tapgate completions`: what the package ships, made from the commands.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use crate::daemon::EXIT_FAILURE;

/// Section of the manual: commands for the administrator.
const SECTION: &str = "8";

/// Writes one page per command into `folder`, or the main page to stdout.
pub fn man(command: Command, folder: Option<&Path>) -> ExitCode {
    let written = match folder {
        Some(folder) => write_pages(&command, folder),
        None => page(command).render(&mut io::stdout().lock()),
    };
    report(written, "the manual pages cannot be written; give a folder that exists and is yours")
}

/// Prints the completions of `shell`.
pub fn completions(mut command: Command, shell: Shell) -> ExitCode {
    // The generator panics where its writer fails, and a pipe may be closed: so to memory first.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "tapgate", &mut script);
    report(io::stdout().lock().write_all(&script), "the completions cannot be printed")
}

fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    write_page_and_below(&command, "tapgate".into(), folder)
}

fn write_page_and_below(command: &Command, name: String, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_page_and_below(below, format!("{name}-{}", below.get_name()), folder)?;
    }
    let mut text = Vec::new();
    page(command.clone().display_name(&name)).render(&mut text)?;
    std::fs::write(folder.join(format!("{name}.{SECTION}")), text)
}

fn page(command: Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command).section(SECTION).manual("tapgate")
}

fn report(written: io::Result<()>, advice: &str) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{advice}: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
