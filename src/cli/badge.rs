//! `tapgate badge`: what is known of a badge, and blocking it here.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Map, Value};

use crate::cli::client::{self, ask};
use crate::cli::{EXIT_USAGE, Format};
use crate::core::badge::Uid;
use crate::core::ids::{BadgeId, is_opaque_id};
use crate::core::renderings::uids_written_as;
use crate::protocol::badges::{BadgePage, BadgeReply, BadgeReport, BadgeRequest, Known};
use crate::protocol::control::{Reply, Request};

#[derive(Subcommand)]
pub(super) enum BadgeCommand {
    /// Show all forms of a badge's number, its allowlist entry and what it opens
    #[command(after_help = "Examples:\n  tapgate badge show 04:a2:b3:c4\n  tapgate badge show \
        b-1042\n  tapgate badge show 1904649758\n\nA number that is no UID is tried in all forms \
        in which owners write one.")]
    Show {
        #[command(flatten)]
        badge: Named,
        #[command(flatten)]
        format: Format,
    },
    /// List the badges of the allowlist, without their UIDs
    #[command(after_help = "Examples:\n  tapgate badge list\n  tapgate badge list --blocked\n  \
        tapgate badge list --json | jq '.[] | select(.entry.user == \"u-77\")'")]
    List {
        /// Only those that are blocked, by the list or here
        #[arg(long)]
        blocked: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Refuse a badge from now on, until an applied list has it blocked or absent
    #[command(after_help = "Example:\n  tapgate badge block 04:a2:b3:c4\n\nFor a badge that was \
        reported lost while the operator cannot be reached. It is on record.")]
    Block {
        #[command(flatten)]
        badge: Named,
    },
    /// Lift a local block; what the allowlist blocks stays blocked
    #[command(after_help = "Example:\n  tapgate badge unblock 04:a2:b3:c4")]
    Unblock {
        #[command(flatten)]
        badge: Named,
    },
}

/// A badge as a person names it.
#[derive(clap::Args)]
pub(super) struct Named {
    /// Its UID, with or without separators, the operator's id of it, or its number in another form
    #[arg(value_name = "UID", required = true)]
    words: Vec<String>,
}

impl Named {
    /// The words as one text, or a usage error where no badge can be meant.
    pub(super) fn text(words: &[String]) -> Result<String, ExitCode> {
        let text = words.join(" ").trim().to_owned();
        let readable = text.parse::<Uid>().is_ok()
            || is_opaque_id(&text)
            || !uids_written_as(&text).is_empty();
        if readable {
            return Ok(text);
        }
        eprintln!(
            "tapgate: {text:?} is no UID: 4, 7 or 10 bytes in hex, such as 04A2B3C4 or \
             04:a2:b3:c4\n  a number that holds only a part of it can mean several badges; present \
             the badge: tapgate readers watch"
        );
        Err(ExitCode::from(EXIT_USAGE))
    }
}

/// Runs what was typed.
pub(super) fn run(config: &Path, command: BadgeCommand) -> ExitCode {
    let outcome = match command {
        BadgeCommand::Show { badge, format } => show(config, &badge.words, format.json),
        BadgeCommand::List { blocked, format } => list(config, blocked, format.json),
        BadgeCommand::Block { badge } => {
            change(config, &badge.words, |badge| BadgeRequest::Block { badge })
        }
        BadgeCommand::Unblock { badge } => {
            change(config, &badge.words, |badge| BadgeRequest::Unblock { badge })
        }
    };
    outcome.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

fn change(
    config: &Path,
    words: &[String],
    request: impl FnOnce(String) -> BadgeRequest,
) -> Result<(), ExitCode> {
    let request = Request::Badge { ask: request(Named::text(words)?) };
    let said =
        ask(
            config,
            &request,
            |reply| {
                if let Reply::Done(said) = reply { Some(said) } else { None }
            },
        )?;
    println!("{said}");
    Ok(())
}

fn show(config: &Path, words: &[String], json: bool) -> Result<(), ExitCode> {
    let request = Request::Badge { ask: BadgeRequest::Show { badge: Named::text(words)? } };
    let report = ask(config, &request, |reply| {
        if let Reply::Badge(BadgeReply::Show(report)) = reply { Some(report) } else { None }
    })?;
    if json { client::print_json(&report) } else { client::print(&render(&report)) }
}

/// A badge as people read it.
pub(super) fn render(report: &BadgeReport) -> String {
    let mut lines: Vec<String> = report
        .renderings
        .iter()
        .map(|rendering| {
            let mark = if rendering.ambiguous { " (not all of it)" } else { "" };
            format!("{:<25} {:<22} {}{mark}", rendering.form, rendering.text, rendering.about)
        })
        .collect();
    lines.push(String::new());
    if let Some(problem) = report.problem {
        lines.push(format!("{:<10} {}: {}", "no badge", problem, problem.explanation()));
    }
    lines.extend(known_lines(&report.known));
    lines.extend(report.read_as.iter().map(|form| format!("{:<10} {form}", "read as")));
    lines.extend(report.hints.iter().map(|hint| format!("{:<10} {hint}", "or")));
    lines.extend(report.stations.iter().map(|station| {
        let reason = station.reason.map_or(String::new(), |reason| format!(": {reason}"));
        format!("{:<10} {} {}{reason}", "station", station.station, station.decision)
    }));
    lines.push(list_line(report.allowlist.as_ref()));
    lines.join("\n") + "\n"
}

/// What the allowlist says of a badge.
pub(super) fn known_lines(known: &Known) -> Vec<String> {
    let block = if known.local_block { ", blocked locally" } else { "" };
    let Some(entry) = &known.entry else {
        return vec![format!("{:<10} unknown to the allowlist{block}", "badge")];
    };
    let mut lines = vec![
        format!(
            "{:<10} {}, user {}, {}, {}{}{block}",
            "badge",
            text(entry, "badge"),
            text(entry, "user"),
            text(entry, "origin"),
            text(entry, "status"),
            optional(entry, "blocked_reason", ": "),
        ),
        format!("{:<10} {}", "grants", grants(entry)),
    ];
    let validity =
        [optional(entry, "valid_from", "from "), optional(entry, "valid_until", "until ")];
    let validity: Vec<String> = validity.into_iter().filter(|part| !part.is_empty()).collect();
    if !validity.is_empty() {
        lines.push(format!("{:<10} {}", "valid", validity.join(" ")));
    }
    for (member, name) in [("max_concurrent", "at once"), ("label", "label")] {
        let value = optional(entry, member, "");
        lines.extend((!value.is_empty()).then(|| format!("{name:<10} {value}")));
    }
    lines
}

/// Which list that was.
pub(super) fn list_line(list: Option<&crate::protocol::control::AllowlistStatus>) -> String {
    let said = list.map_or("none yet: every badge is refused".into(), |list| {
        format!("version {}, {} badges, {}", list.version, list.count, list.list)
    });
    format!("{:<10} {said}", "allowlist")
}

fn text<'a>(entry: &'a Map<String, Value>, member: &str) -> &'a str {
    entry.get(member).and_then(Value::as_str).unwrap_or("-")
}

/// A member that may be missing, after a word.
fn optional(entry: &Map<String, Value>, member: &str, before: &str) -> String {
    match entry.get(member) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => format!("{before}{text}"),
        Some(value) => format!("{before}{value}"),
    }
}

fn grants(entry: &Map<String, Value>) -> String {
    let grants = entry.get("grants").and_then(Value::as_array);
    let words: Vec<&str> = grants.into_iter().flatten().filter_map(Value::as_str).collect();
    if words.is_empty() { "none".into() } else { words.join(" ") }
}

/// Prints a page as soon as it is there: a list can have a million badges.
fn list(config: &Path, blocked: bool, json: bool) -> Result<(), ExitCode> {
    let mut after: Option<BadgeId> = None;
    let mut before = if json { "[" } else { "" };
    let (mut unknown_blocked, mut any_list) = (0, false);
    loop {
        let page = page(config, after)?;
        any_list |= page.any_list;
        unknown_blocked += page.unknown_blocked;
        let mut shown = String::new();
        for known in page.badges.iter().filter(|known| !blocked || is_blocked(known)) {
            if json {
                shown += &format!("{before}{}", serde_json::json!(known));
                before = ",\n";
            } else {
                shown += &line(known);
            }
        }
        client::print(&shown)?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if json {
        return client::print(if before == "[" { "[]\n" } else { "]\n" });
    }
    if !any_list {
        eprintln!("tapgate: there is no allowlist yet; connect the cloud, or import one");
    }
    if unknown_blocked > 0 {
        client::print(&format!(
            "and {unknown_blocked} blocked locally that the allowlist does not know\n"
        ))?;
    }
    Ok(())
}

fn page(config: &Path, after: Option<BadgeId>) -> Result<BadgePage, ExitCode> {
    let request = Request::Badge { ask: BadgeRequest::List { after } };
    ask(config, &request, |reply| {
        if let Reply::Badge(BadgeReply::List(page)) = reply { Some(page) } else { None }
    })
}

fn is_blocked(known: &Known) -> bool {
    let listed = known.entry.as_ref().is_some_and(|entry| text(entry, "status") == "blocked");
    known.local_block || listed
}

fn line(known: &Known) -> String {
    let Some(entry) = &known.entry else { return String::new() };
    let status = if known.local_block { "blocked locally" } else { text(entry, "status") };
    format!(
        "{:<20} {:<20} {:<12} {:<16} {}\n",
        text(entry, "badge"),
        text(entry, "user"),
        text(entry, "origin"),
        status,
        grants(entry)
    )
}
