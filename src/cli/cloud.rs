//! `tapgate cloud`: how the link stands, and where the way to the broker ends.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use crate::cli::client;
use crate::config::{self, Cloud, Config};
use crate::core::time::{Stamp, Uptime, Wall};
use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE};
use crate::io::clock;
use crate::io::mqtt::{self, Caller, Check, Outcome, probe};
use crate::protocol::control::{CloudStatus, LedgerStatus, Reply, Request, Status};

/// A cloud that consumes acknowledges within seconds; after this long something is wrong.
const ACK_OVERDUE_S: u64 = 300;

/// Prints how the link stands; 1 where there is no connection.
pub(super) fn status(config_file: &Path, json: bool) -> ExitCode {
    let status = client::ask(config_file, &Request::Status {}, |reply| {
        if let Reply::Status(status) = reply { Some(status) } else { None }
    });
    let status = match status {
        Ok(status) => status,
        Err(code) => return code,
    };
    if json {
        println!("{:#}", json!({ "cloud": status.cloud, "ledger": status.ledger }));
    } else {
        print!("{}", render(&status));
    }
    let fine = |cloud: &CloudStatus| cloud.connected && overdue(cloud, &status.ledger).is_none();
    if status.cloud.as_ref().is_none_or(fine) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    }
}

fn render(status: &Status) -> String {
    let ledger = &status.ledger;
    let Some(cloud) = &status.cloud else {
        return format!("cloud     none: stand-alone site\nledger    head {}\n", ledger.head);
    };
    let mut lines = vec![
        format!("broker    {}", cloud.broker),
        format!("link      {}", link(cloud)),
        format!(
            "ledger    head {}, acknowledged {}, {} waiting",
            ledger.head, ledger.acked, ledger.unacknowledged
        ),
        format!("last ack  {}", ago(cloud.last_ack_s).unwrap_or("none since the start".into())),
        format!("events    {} dropped", cloud.events_dropped),
    ];
    if let Some(error) = cloud.last_error.as_ref().filter(|_| cloud.connected) {
        lines.push(format!("earlier   {error}"));
    }
    if let Some(ago) = ago(cloud.clone_suspected_s) {
        lines.push(format!(
            "  ! {ago} another client seemed to use this gateway's id; look for a copy of its card"
        ));
    }
    lines.extend(overdue(cloud, ledger).map(|why| format!("  ! {why}")));
    if !cloud.connected {
        lines.push("  ! step by step: tapgate cloud test".into());
    }
    lines.join("\n") + "\n"
}

fn link(cloud: &CloudStatus) -> String {
    match cloud.connected_s {
        Some(seconds) => format!("connected for {}, connection {}", span(seconds), cloud.conn),
        None => {
            let why = cloud.last_error.as_deref().unwrap_or("connecting");
            format!("not connected: {why}")
        }
    }
}

/// What is wrong where the broker is there and the cloud behind it does not answer.
fn overdue(cloud: &CloudStatus, ledger: &LedgerStatus) -> Option<String> {
    let waiting = cloud.last_ack_s.unwrap_or(u64::MAX).min(cloud.connected_s?);
    (ledger.unacknowledged > 0 && waiting > ACK_OVERDUE_S).then(|| {
        format!(
            "the cloud has acknowledged nothing for {}; does it consume up/usage, and may this \
             user write there?",
            span(waiting)
        )
    })
}

fn ago(seconds: Option<u64>) -> Option<String> {
    seconds.map(|seconds| format!("{} ago", span(seconds)))
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Walks to the broker step by step; 1 where a step fails.
pub(super) fn test(config_file: &Path, json: bool) -> ExitCode {
    let config = match config::load(config_file) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let Some(cloud) = &config.cloud else {
        eprintln!("tapgate: a stand-alone site has no broker to test\n  add [cloud] with its url");
        return ExitCode::from(EXIT_CONFIG);
    };
    let checks = walk(&config, cloud, |check| {
        if !json {
            print!("{}", line(check));
        }
    });
    let failed = checks.iter().any(|check| check.outcome == Outcome::Failed);
    if json {
        println!("{:#}", json!({ "ok": !failed, "steps": checks }));
    }
    if failed { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS }
}

fn walk(config: &Config, cloud: &Cloud, show: impl Fn(&Check)) -> Vec<Check> {
    let daemon = match client::converse(&config.control_socket, &Request::Status {}) {
        Ok(Reply::Status(status)) => Some(status),
        Ok(_) | Err(_) => None,
    };
    // The broker would close the daemon's connection if this one had the same id.
    let client_id = match daemon {
        Some(_) => format!("{}-test", config.gateway_id),
        None => config.gateway_id.clone(),
    };
    let linked = daemon.as_ref().and_then(|status| status.cloud.as_ref());
    let clock = SiteClock { floor: linked.map_or(Wall(0), |cloud| cloud.clock_floor) };
    let mut checks = Vec::new();
    let mut tell = |check: Check| {
        show(&check);
        checks.push(check);
    };
    let caller = Caller { gateway_id: &config.gateway_id, client_id: &client_id };
    probe(cloud, &caller, Arc::new(clock), &mut tell);
    tell(daemon_check(daemon.as_deref()));
    checks
}

/// What the daemon's own connection says beyond what a test can see.
fn daemon_check(daemon: Option<&Status>) -> Check {
    let Some(status) = daemon else {
        return Check::skipped("daemon", "not running: start it with systemctl start tapgate");
    };
    let (Some(cloud), ledger) = (&status.cloud, &status.ledger) else {
        return Check::failed("daemon", "it runs without [cloud]; run: tapgate reload");
    };
    if !cloud.connected {
        let why = cloud.last_error.as_deref().unwrap_or("it is connecting; wait a moment");
        return Check::failed("daemon", format!("it is not connected: {why}"));
    }
    if let Some(why) = overdue(cloud, ledger) {
        return Check::failed("daemon", why);
    }
    let (head, acked) = (ledger.head, ledger.acked);
    Check::ok("daemon", format!("connected; the cloud acknowledged {acked} of {head} records"))
}

fn line(check: &Check) -> String {
    let mark = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "-",
    };
    let next = if check.next.is_empty() { String::new() } else { format!("\n    {}", check.next) };
    format!("{mark:<7} {:<12} {}{next}\n", check.step, check.detail)
}

/// The times as a command knows them.
struct SiteClock {
    floor: Wall,
}

impl mqtt::Clock for SiteClock {
    fn stamp(&self) -> Stamp {
        let synced = clock::is_synchronised();
        Stamp { boot: 0, uptime: Uptime(0), wall: clock::wall(), synced }
    }

    fn floor(&self) -> Wall {
        self.floor.max(mqtt::built())
    }

    fn learn(&self, _: Wall) {}
}
