//! `tapgate ledger`: what is on record, whether it is whole, and all of it for a spreadsheet.
//!
//! Through the daemon while it runs, else from the file itself.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{Format, client, csv};
use crate::config;
use crate::daemon::ledger_pages as pages;
use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE, EXIT_PERMISSION, EXIT_STORAGE};
use crate::io::store::{Inspection, StoreError};
use crate::protocol::control::{
    LEDGER_PAGE, LedgerPage, LedgerRecord, LedgerVerified, Reply, Request,
};

/// Records that are listed where nobody says how many.
const LISTED: u64 = 20;

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// List the newest records, or those from a number on
    #[command(after_help = "Example:\n  tapgate ledger list --limit 5\n  \
        tapgate ledger list --from 1 --json | jq '.[].kind'")]
    List {
        /// The first record to list (default: the newest ones)
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = LISTED)]
        limit: u64,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        format: Format,
    },
    /// Compute chain, continuity and accounts anew
    #[command(after_help = "Example:\n  tapgate ledger verify\n  \
        tapgate ledger verify --file /var/lib/tapgate/tapgate-epoch-….db\n\n\
        Exit codes: 0 whole, 74 damaged or unreadable.")]
    Verify {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        format: Format,
    },
    /// Write all records, one a line: as they were hashed, or as CSV
    #[command(after_help = "Example:\n  tapgate ledger export --csv > ledger.csv\n\n\
        On a site without [cloud], what was exported goes after [storage] retention.")]
    Export {
        /// Comma-separated values with a header line (RFC 4180)
        #[arg(long)]
        csv: bool,
        /// The first record to write
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        from: u64,
        /// Where to (default: standard output)
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        source: Source,
    },
}

#[derive(clap::Args)]
pub(super) struct Source {
    /// Another ledger's file: a frozen epoch, or a copy
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(config: &Path, command: LedgerCommand) -> ExitCode {
    let done = match command {
        LedgerCommand::List { from, limit, source, format } => {
            Ledger::open(config, source).and_then(|ledger| list(&ledger, from, limit, format.json))
        }
        LedgerCommand::Verify { source, format } => {
            Ledger::open(config, source).and_then(|ledger| verify(&ledger, format.json))
        }
        LedgerCommand::Export { csv, from, out, source } => Ledger::open(config, source)
            .and_then(|ledger| export(&ledger, csv, from, out.as_deref())),
    };
    done.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// Whoever has the ledger open.
enum Ledger {
    Daemons(PathBuf),
    AtRest(Box<Inspection>),
}

impl Ledger {
    fn open(config: &Path, source: Source) -> Result<Ledger, ExitCode> {
        if let Some(file) = source.file {
            return Inspection::open(&file)
                .map(|it| Ledger::AtRest(Box::new(it)))
                .map_err(|e| failed(&e));
        }
        let config = config::load(config).map_err(|errors| {
            eprintln!("{errors}");
            ExitCode::from(EXIT_CONFIG)
        })?;
        let socket = config.control_socket;
        match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(_) => Ok(Ledger::Daemons(socket)),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                Inspection::open(&config.storage.path)
                    .map(|it| Ledger::AtRest(Box::new(it)))
                    .map_err(|e| failed(&e))
            }
            Err(error) => Err(client::explain(&socket, &error)),
        }
    }

    /// Records from `from` on, at most [`LEDGER_PAGE`] of them.
    fn page(&self, from: u64) -> Result<LedgerPage, ExitCode> {
        match self {
            Ledger::Daemons(socket) => {
                client::ask_at(socket, &Request::LedgerRecords { from }, |reply| {
                    if let Reply::LedgerRecords(page) = reply { Some(page) } else { None }
                })
            }
            Ledger::AtRest(ledger) => {
                let standing = ledger.standing().map_err(|error| failed(&error))?;
                let from = from.clamp(standing.floor, standing.head.seq + 1);
                let records = ledger.records(from, LEDGER_PAGE).map_err(|error| failed(&error))?;
                Ok(pages::page(&standing, records))
            }
        }
    }

    /// Hands all records from `from` on to `each`, up to `most` of them.
    fn each(
        &self,
        from: u64,
        most: u64,
        mut each: impl FnMut(&LedgerPage, &LedgerRecord) -> std::io::Result<()>,
    ) -> Result<(), ExitCode> {
        let (mut next, mut left) = (from, most);
        while left > 0 {
            let page = self.page(next)?;
            let Some(last) = page.records.last() else { break };
            next = last.seq + 1;
            for record in page.records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                left -= 1;
                each(&page, record).map_err(|error| unwritable(&error))?;
            }
        }
        Ok(())
    }
}

fn list(ledger: &Ledger, from: Option<u64>, limit: u64, json: bool) -> Result<(), ExitCode> {
    let from = match from {
        Some(from) => from,
        None => (ledger.page(u64::MAX)?.head + 1).saturating_sub(limit).max(1),
    };
    let mut listed = Vec::new();
    ledger.each(from, limit, |page, record| {
        let mut value: Value = serde_json::from_str(&record.record).unwrap_or_default();
        value["hash"] = json!(record.hash);
        value["acked"] = json!(record.seq <= page.acked);
        listed.push(value);
        Ok(())
    })?;
    let mut out = std::io::stdout().lock();
    let written = if json {
        writeln!(out, "{:#}", Value::Array(listed))
    } else {
        listed.iter().try_for_each(|record| writeln!(out, "{}", line(record)))
    };
    written.map_err(|error| unwritable(&error))
}

/// A record for people: its number, when, what, and its other members.
fn line(record: &Value) -> String {
    let word = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
    let wall = record["at"]["wall"].as_str().unwrap_or_default();
    let sure = if record["at"]["synced"] == true { ' ' } else { '?' };
    let known = ["seq", "kind", "at", "hash", "acked"];
    let rest: Vec<String> = record
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(member, value)| !known.contains(&member.as_str()) && !value.is_null())
        .map(|(member, value)| match value {
            Value::String(text) => format!("{member}={text}"),
            other => format!("{member}={other}"),
        })
        .collect();
    let acked = if record["acked"] == true { "acked" } else { "-" };
    let seq = record["seq"].as_u64().unwrap_or_default();
    format!("{seq:>8} {wall}{sure} {acked:<5} {:<18} {}", word("kind"), rest.join(" "))
}

fn verify(ledger: &Ledger, json: bool) -> Result<(), ExitCode> {
    let verified = match ledger {
        Ledger::Daemons(socket) => client::ask_at(socket, &Request::LedgerVerify {}, |reply| {
            if let Reply::LedgerVerified(verified) = reply { Some(verified) } else { None }
        })?,
        Ledger::AtRest(ledger) => {
            let verification = ledger.verify().map_err(|error| failed(&error))?;
            pages::verified(&verification)
        }
    };
    let text = if json {
        format!("{:#}", json!(verified))
    } else {
        let LedgerVerified { epoch, records, head, hash, accounts_rebuilt, .. } = &verified;
        let accounts = if *accounts_rebuilt {
            "the accounts are those that the records give"
        } else {
            "every account balances"
        };
        format!(
            "OK: epoch {epoch}\n    {records} records up to {head}, without a gap, chain whole\n    \
             {accounts}\n    hash {hash}"
        )
    };
    writeln!(std::io::stdout(), "{text}").map_err(|error| unwritable(&error))
}

fn export(ledger: &Ledger, as_csv: bool, from: u64, out: Option<&Path>) -> Result<(), ExitCode> {
    let file = out.map(File::create).transpose().map_err(|error| {
        let file = out.unwrap_or(Path::new("")).display();
        eprintln!("tapgate: cannot write {file}: {error}; choose another --out");
        ExitCode::from(EXIT_FAILURE)
    })?;
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match &file {
        None => Box::new(std::io::stdout()),
        Some(file) => Box::new(file),
    });
    let mut exported = Exported::default();
    if as_csv {
        out.write_all(csv::header().as_bytes()).map_err(|error| unwritable(&error))?;
    }
    ledger.each(from, u64::MAX, |page, record| {
        exported.note(page, record);
        if as_csv {
            out.write_all(csv::line(&page.epoch, record).as_bytes())
        } else {
            writeln!(out, "{}", record.record)
        }
    })?;
    out.flush().map_err(|error| unwritable(&error))?;
    if let Some(file) = &file {
        file.sync_all().map_err(|error| unwritable(&error))?;
    }
    exported.tell(ledger)
}

/// Which records are in the file.
#[derive(Default)]
struct Exported {
    epoch: String,
    from: Option<u64>,
    upto: u64,
}

impl Exported {
    fn note(&mut self, page: &LedgerPage, record: &LedgerRecord) {
        // An epoch that opens meanwhile counts from one again; what came before is of no use.
        if self.epoch != page.epoch {
            *self = Exported { epoch: page.epoch.clone(), from: None, upto: 0 };
        }
        self.from.get_or_insert(record.seq);
        self.upto = record.seq;
    }

    /// Lets the daemon know, which keeps what nobody has.
    fn tell(self, ledger: &Ledger) -> Result<(), ExitCode> {
        let (Ledger::Daemons(socket), Some(from)) = (ledger, self.from) else { return Ok(()) };
        let Exported { epoch, upto, .. } = self;
        let said =
            client::ask_at(socket, &Request::LedgerExported { epoch, from, upto }, |reply| {
                if let Reply::Done(said) = reply { Some(said) } else { None }
            })?;
        if !said.is_empty() {
            eprintln!("{said}");
        }
        Ok(())
    }
}

/// Whoever reads may have had enough, as `head` has.
fn unwritable(error: &std::io::Error) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("tapgate: cannot write: {error}");
    ExitCode::from(EXIT_FAILURE)
}

fn failed(error: &StoreError) -> ExitCode {
    eprintln!("tapgate: {error}");
    let denied = error.to_string().contains("Permission denied")
        || error.to_string().contains("unable to open database file");
    if denied {
        eprintln!("  use sudo, or join the group: sudo adduser $USER tapgate");
        return ExitCode::from(EXIT_PERMISSION);
    }
    ExitCode::from(EXIT_STORAGE)
}
