//! `tapgate doctor`: looks at all that a site needs and says how to mend what is wrong.
//!
//! It changes nothing. With the daemon running it asks the daemon, and reads meters through it;
//! without, it opens the buses itself. What the machine says is read below a root folder, so that
//! a test can have a machine of its own.

mod machine;
mod site;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::client;
use crate::cli::console::Console;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::control::{Reply, Request, Status};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at: `pcscd`, `reader laundry-door`, `disk`.
    subject: String,
    verdict: Verdict,
    says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// How it stands; only a failure makes the exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    Warning,
    Failure,
}

impl Finding {
    fn ok(subject: impl Into<String>, says: impl Into<String>) -> Finding {
        Finding { subject: subject.into(), verdict: Verdict::Ok, says: says.into(), next: None }
    }

    fn note(subject: impl Into<String>, says: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Note, ..Finding::ok(subject, says) }
    }

    fn warning(
        subject: impl Into<String>,
        says: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        let next = Some(next.into());
        Finding { verdict: Verdict::Warning, next, ..Finding::ok(subject, says) }
    }

    fn failure(
        subject: impl Into<String>,
        says: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding { verdict: Verdict::Failure, ..Finding::warning(subject, says, next) }
    }
}

/// Looks at everything. Exit 1 where something is wrong, 78 where the config is.
pub(super) fn run(config: &Path, json: bool) -> ExitCode {
    let mut console = match Console::open(config) {
        Ok(console) => console,
        Err(code) => return code,
    };
    let status = match console.has_daemon() {
        true => match ask_status(config) {
            Ok(status) => Some(status),
            Err(code) => return code,
        },
        false => None,
    };
    let mut findings = site::config(&console.config);
    findings.extend(machine::look(Path::new("/"), &console.config, status.as_ref()));
    findings.extend(site::gateway(&console.config, status.as_ref()));
    findings.extend(site::devices(&mut console, status.as_ref()));
    findings.extend(site::on_silence(&console.config.wiring));
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failure);
    match json {
        true => println!("{}", serde_json::json!({ "ok": !failed, "findings": findings })),
        false => print!("{}", as_text(&findings)),
    }
    if failed { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

fn ask_status(config: &Path) -> Result<Status, ExitCode> {
    client::ask(config, &Request::Status {}, |reply| {
        if let Reply::Status(status) = reply { Some(*status) } else { None }
    })
}

fn as_text(findings: &[Finding]) -> String {
    let lines: String = findings.iter().map(line).collect();
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (failures, warnings) = (count(Verdict::Failure), count(Verdict::Warning));
    let verdict = match (failures, warnings) {
        (0, 0) => "all well".into(),
        (0, _) => format!("works; {warnings} to look at"),
        (_, _) => format!("{failures} to mend, {warnings} to look at; then run doctor again"),
    };
    format!("{lines}{verdict}\n")
}

fn line(finding: &Finding) -> String {
    let Finding { subject, verdict, says, next } = finding;
    let mark = match verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Warning => "warn",
        Verdict::Failure => "FAIL",
    };
    let next = next.as_ref().map_or_else(String::new, |next| format!("      -> {next}\n"));
    format!("{mark:<5} {subject:<26} {says}\n{next}")
}
