//! `tapgate allowlist`: how the list stands; lists from and to files.

mod export;
mod import;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::{Format, client};
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Reply, Request};
use crate::protocol::lists::{ListReply, ListRequest, ListStatus};

#[derive(Subcommand)]
pub(super) enum AllowlistCommand {
    /// Show which list decides, how old it is, and what is on its way; 1 without a list, or with
    /// one older than stale_warning
    #[command(after_help = "Example:\n  tapgate allowlist status --json | jq .allowlist.version")]
    Status {
        #[command(flatten)]
        format: Format,
    },
    /// Take a list from a file, or from a folder with head and parts
    #[command(after_help = "Examples:\n  tapgate allowlist import /media/usb/head.json\n  \
        tapgate allowlist import /media/usb/allowlist\n\n\
        A folder may name its files as it likes: the head is the one that is a head, parts are\n\
        found by their hashes. With [cloud] trusted_keys the head must be signed. The list is\n\
        judged as one from the cloud; a refusal says why, and the old list stays.")]
    Import {
        /// A head, or a folder with a head and its parts
        file: PathBuf,
        #[command(flatten)]
        format: Format,
    },
    /// Write the list that decides, unsigned, such that import takes it
    #[command(after_help = "Examples:\n  tapgate allowlist export > list.json\n  \
        tapgate allowlist export --folder /media/usb/allowlist\n\n\
        It holds the UIDs of all badges: keep it as safe as the badges.")]
    Export {
        /// Write head and parts into this folder instead of one file to the output; needed for
        /// lists of more than some 1,500 badges
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

pub(super) fn run(config: &Path, command: &AllowlistCommand) -> ExitCode {
    let done = Daemon::of(config).and_then(|daemon| match command {
        AllowlistCommand::Status { format } => status(&daemon, format.json),
        AllowlistCommand::Import { file, format } => import::run(&daemon, file, format.json),
        AllowlistCommand::Export { folder } => match folder {
            Some(folder) => export::into(&daemon, folder),
            None => export::to_output(&daemon),
        },
    });
    done.unwrap_or_else(|code| code)
}

/// The running daemon; the config is read once, an import asks a thousand times.
struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    fn of(config: &Path) -> Result<Daemon, ExitCode> {
        Ok(Daemon { socket: client::socket_of(config)? })
    }

    fn ask(&self, ask: ListRequest) -> Result<ListReply, ExitCode> {
        client::ask_at(&self.socket, &Request::Allowlist { ask }, |reply| {
            if let Reply::List(reply) = reply { Some(reply) } else { None }
        })
    }
}

fn status(daemon: &Daemon, json: bool) -> Result<ExitCode, ExitCode> {
    let ListReply::Status(status) = daemon.ask(ListRequest::Status {})? else {
        return Err(client::out_of_step());
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status).expect("plain JSON"));
    } else {
        print!("{}", render(&status));
    }
    let fine = status.allowlist.is_some() && !status.stale;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

fn render(status: &ListStatus) -> String {
    let mut lines = Vec::new();
    match &status.allowlist {
        None => lines.push(
            "no allowlist yet: every badge is refused; connect the cloud, or: tapgate allowlist \
             import FILE"
                .to_owned(),
        ),
        Some(list) => {
            lines.push(format!("list     {}", list.list));
            lines.push(format!("version  {}", list.version));
            lines.push(format!("badges   {}", list.count));
            lines.push(format!("digest   {}", list.digest));
            let old = if status.stale { ", older than stale_warning" } else { "" };
            let age = status.age_s.map_or("unknown: the clock cannot tell".into(), age);
            lines.push(format!("age      {age}{old}"));
        }
    }
    if status.local_blocks > 0 {
        lines.push(format!("blocked  {} on site, beside the list", status.local_blocks));
    }
    if let Some(taking) = &status.taking {
        let progress = match taking.parts {
            0 => "being built".to_owned(),
            parts => format!("{} of {parts} parts here", parts.saturating_sub(taking.missing)),
        };
        lines.push(format!("next     version {}, {progress}", taking.version));
    }
    lines.join("\n") + "\n"
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::control::AllowlistStatus;
    use crate::protocol::lists::Progress;

    #[test]
    fn status_says_what_decides_and_what_comes() {
        let status = ListStatus {
            allowlist: Some(AllowlistStatus {
                list: "5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11".into(),
                version: 43,
                digest: "ab".into(),
                count: 118,
            }),
            age_s: Some(90_000),
            stale: false,
            local_blocks: 1,
            taking: Some(Progress { version: 44, parts: 30, missing: 2 }),
        };
        assert_eq!(
            render(&status),
            "list     5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11\nversion  43\nbadges   118\n\
             digest   ab\nage      25 h\nblocked  1 on site, beside the list\n\
             next     version 44, 28 of 30 parts here\n"
        );
        let none = ListStatus {
            allowlist: None,
            age_s: None,
            stale: false,
            local_blocks: 0,
            taking: None,
        };
        assert!(render(&none).contains("no allowlist yet"));
    }
}
