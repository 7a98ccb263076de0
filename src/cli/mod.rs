//! The command line: one file per command.

mod allowlist;
mod badge;
mod bus;
mod check;
pub(crate) mod client;
mod clock;
mod cloud;
mod console;
mod csv;
mod doctor;
mod identity;
mod interview;
mod ledger;
mod meter;
mod pages;
mod profiles;
mod readers;
mod reload;
mod scan;
mod session;
mod station;
mod status;
mod top;
mod watch;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::{config, daemon};

/// Usage errors (sysexits.h).
const EXIT_USAGE: u8 = 64;
/// The daemon does not run.
pub(crate) const EXIT_UNAVAILABLE: u8 = 69;

/// Where the config lies unless `--config` says otherwise.
const CONFIG: &str = "/etc/tapgate/config.toml";

#[derive(Parser)]
#[command(name = "tapgate", version, about, max_term_width = 100)]
#[command(after_help = "Start here:\n  tapgate check            is the config right?\n  \
    tapgate status           what is going on?\n\nExit codes: 0 fine, 1 something is wrong with \
    the site, 64 usage, 69 daemon not running,\n74 storage, 77 permission, 78 config.")]
struct Arguments {
    /// The config file
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (systemd's ExecStart)
    #[command(after_help = "Example:\n  tapgate run --config /etc/tapgate/config.toml\n\n\
        TAPGATE_LOG sets what is logged: info (default), debug, tapgate::io::modbus=trace, ...")]
    Run,
    /// Check the config: all errors at once, with line, column and fix
    #[command(after_help = "Example:\n  tapgate check /etc/tapgate/config.toml")]
    Check {
        /// The file to check (default: the one of --config)
        file: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Show stations, sessions, readers, buses, cloud, allowlist and ledger
    #[command(after_help = "Example:\n  tapgate status --json | jq .stations")]
    Status {
        #[command(flatten)]
        format: Format,
    },
    /// Check what the site needs, and say how to mend what is wrong
    #[command(after_help = "Example:\n  sudo tapgate doctor\n\nChanges nothing. Exit 1 where \
        something is to be mended, 0 otherwise.")]
    Doctor {
        #[command(flatten)]
        format: Format,
    },
    /// Show, import and export the allowlist
    #[command(after_help = "Example:\n  tapgate allowlist status")]
    Allowlist {
        #[command(subcommand)]
        command: allowlist::AllowlistCommand,
    },
    /// Show the site live, on the whole screen: stations, taps, buses, cloud
    #[command(after_help = "Example:\n  tapgate top\n\n? shows the keys, q quits. Waits for a \
        daemon that restarts. Without a terminal use: tapgate status")]
    Top,
    /// Follow what happens: taps with decisions, sessions, switches, meters, buses, cloud
    #[command(
        after_help = "Example:\n  tapgate watch --json | jq 'select(.kind == \"denied\")'\n\n\
        Goes on when the daemon restarts, until Ctrl-C. A terminal that is too slow loses the oldest\n\
        events; a line events_missed says how many."
    )]
    Watch {
        #[command(flatten)]
        format: Format,
    },
    /// Look at a bus, read and write points by hand
    #[command(after_help = "Example:\n  tapgate bus scan laundry --units 1-32")]
    Bus {
        #[command(subcommand)]
        command: bus::BusCommand,
    },
    /// Read meters, tell of an exchanged one
    #[command(after_help = "Example:\n  tapgate meter read washer-1")]
    Meter {
        #[command(subcommand)]
        command: MeterCommand,
    },
    /// Look after a station
    #[command(after_help = "Example:\n  tapgate station test washer-1")]
    Station {
        #[command(subcommand)]
        command: station::StationCommand,
    },
    /// See who uses what, end a session
    #[command(after_help = "Example:\n  tapgate session list")]
    Session {
        #[command(subcommand)]
        command: session::SessionCommand,
    },
    /// Show the readers and what they are bound to, or watch what they read
    #[command(args_conflicts_with_subcommands = true)]
    #[command(after_help = "Examples:\n  tapgate readers\n  tapgate readers watch\n\n\
        Exit code 1 where a reader of the config is missing or not unique.")]
    Readers {
        #[command(subcommand)]
        command: Option<readers::ReadersCommand>,
        #[command(flatten)]
        format: Format,
    },
    /// Look a badge up, list the badges, block one here
    #[command(after_help = "Example:\n  tapgate badge show 04:a2:b3:c4")]
    Badge {
        #[command(subcommand)]
        command: badge::BadgeCommand,
    },
    /// Explain what a tap of a badge on a station comes to
    #[command(after_help = "Examples:\n  tapgate why 04:a2:b3:c4 washer-1\n  tapgate why b-1042 \
        charger-12 --at \"2026-11-22 21:30\" --technology desfire\n\nSessions and faults are \
        taken as they stand now.")]
    Why(why::Question),
    /// Let the daemon take over the changed config: new stations appear, running sessions go on
    #[command(after_help = "Example:\n  tapgate check && tapgate reload\n\n\
        A config with errors, or one that would take a running session's station away, changes\n\
        nothing.")]
    Reload,
    /// Show how the link to the cloud stands, or test the way to it
    #[command(after_help = "Example:\n  tapgate cloud test")]
    Cloud {
        #[command(subcommand)]
        command: CloudCommand,
    },
    /// Show what is on record, check that it is whole, export it
    #[command(after_help = "Example:\n  tapgate ledger verify\n  \
        tapgate ledger export --csv > ledger.csv")]
    Ledger {
        #[command(subcommand)]
        command: ledger::LedgerCommand,
    },
    /// Print the gateway's id and public key, for the operator
    #[command(after_help = "Example:\n  tapgate identity --json | jq -r .public_key")]
    Identity {
        #[command(flatten)]
        format: Format,
    },
    /// List, show and check device profiles
    #[command(after_help = "Example:\n  tapgate profiles list")]
    Profiles {
        #[command(subcommand)]
        command: ProfilesCommand,
    },
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  tapgate completions bash > \
        /etc/bash_completion.d/tapgate")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  tapgate man | man -l -")]
    Man {
        /// Write the pages of all commands into this folder instead
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Wait for a synchronised clock and say so in a file (tapgate-clock.service)
    #[command(hide = true)]
    ClockWatch {
        /// The file to create
        #[arg(value_name = "FILE", default_value = crate::io::clock::SYNCHRONISED)]
        file: PathBuf,
    },
    /// Serve a whole simulated building on this machine
    #[cfg(feature = "demo")]
    #[command(after_help = "Example:\n  tapgate demo --duration 30s")]
    Demo {
        /// End by itself after this long, such as 30s or 5m
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        duration: Option<std::time::Duration>,
        /// Keep the demo's files in this folder instead of a temporary one
        #[arg(long, value_name = "FOLDER")]
        keep: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum CloudCommand {
    /// Show connection, acknowledgements and what went wrong last
    #[command(after_help = "Example:\n  tapgate cloud status --json | jq .ledger.unacknowledged")]
    Status {
        #[command(flatten)]
        format: Format,
    },
    /// Try the way to the broker: password, name, TCP, TLS, CONNECT, read and write permission
    #[command(after_help = "Example:\n  tapgate cloud test\n\nRuns beside the daemon with \
        the client id GATEWAY-test, without it with the gateway's own.\nWrites one reply that \
        no cloud waits for to up/reply. Exit code 1 where a step fails.")]
    Test {
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Subcommand)]
enum ProfilesCommand {
    /// List all profiles, built-in ones and those of the site
    #[command(after_help = "Example:\n  tapgate profiles list")]
    List {
        /// Where the site's own profiles lie (default: as the config says)
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Show one profile as TOML, to start one's own from
    #[command(after_help = "Example:\n  tapgate profiles show eastron-sdm120 > my-meter.toml")]
    Show {
        /// Where the site's own profiles lie (default: as the config says)
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// Its name, as in the list
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Check a profile file: all errors at once
    #[command(
        after_help = "Example:\n  tapgate profiles check /etc/tapgate/profiles/my-meter.toml"
    )]
    Check {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Subcommand)]
enum MeterCommand {
    /// Read energy, power and serial number of a station's meter, or of all
    #[command(after_help = "Example:\n  tapgate meter read washer-1")]
    Read {
        /// The station (default: all)
        station: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Tell the gateway that a station's meter is another one now, whatever its register shows
    #[command(after_help = "Example:\n  tapgate meter replace washer-1\n\nThe new meter must \
        answer. An exchange is also noticed without this command, by the serial\nnumber or a \
        register that stays lower, after a minute.")]
    Replace {
        /// The station
        station: String,
    },
}

#[derive(Args)]
struct Format {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let config = arguments.config;
    match arguments.command {
        Command::Run => daemon::run(&config),
        Command::Check { file, format } => check::run(&file.unwrap_or(config), format.json),
        Command::Status { format } => status::run(&config, format.json),
        Command::Doctor { format } => doctor::run(&config, format.json),
        Command::Allowlist { command } => allowlist::run(&config, &command),
        Command::Top => top::run(&config),
        Command::Watch { format } => watch::run(&config, format.json),
        Command::Bus { command } => bus::run(&config, command),
        Command::Meter { command: MeterCommand::Read { station, format } } => {
            meter::read(&config, station.as_deref(), format.json)
        }
        Command::Meter { command: MeterCommand::Replace { station } } => {
            meter::replace(&config, &station)
        }
        Command::Readers { command: None, format } => readers::list(&config, format.json),
        Command::Readers { command: Some(command), .. } => match command {
            readers::ReadersCommand::Watch { once, format } => {
                readers::watch(&config, once, format.json)
            }
        },
        Command::Badge { command } => badge::run(&config, command),
        Command::Why(question) => why::run(&config, question),
        Command::Station { command } => station::run(&config, command),
        Command::Session { command } => session::run(&config, command),
        Command::Reload => reload::run(&config),
        Command::Cloud { command } => match command {
            CloudCommand::Status { format } => cloud::status(&config, format.json),
            CloudCommand::Test { format } => cloud::test(&config, format.json),
        },
        Command::Ledger { command } => ledger::run(&config, command),
        Command::Identity { format } => identity::run(&config, format.json),
        Command::Profiles { command } => match command {
            ProfilesCommand::List { folder, format } => {
                profiles::list(&profiles::folder(folder, &config), format.json)
            }
            ProfilesCommand::Show { folder, name, format } => {
                profiles::show(&profiles::folder(folder, &config), &name, format.json)
            }
            ProfilesCommand::Check { file, format } => {
                profiles::check(&file, &config::profiles_folder(&config), format.json)
            }
        },
        Command::Completions { shell } => pages::completions(Arguments::command(), shell),
        Command::Man { out } => pages::man(Arguments::command(), out.as_deref()),
        Command::ClockWatch { file } => clock::watch(&file),
        #[cfg(feature = "demo")]
        Command::Demo { duration, keep } => crate::demo::run(duration, keep),
    }
}

#[cfg(feature = "demo")]
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| "expected a duration such as 30s or 5m".to_owned())?;
    span.try_into().map_err(|_| "a duration is not negative".to_owned())
}
