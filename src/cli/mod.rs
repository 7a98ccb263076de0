//! The command line: one file per command.

pub mod check;
pub mod profiles;

/// Runs the command that was typed.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
