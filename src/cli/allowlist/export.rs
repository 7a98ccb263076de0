//! `tapgate allowlist export`: the list that decides, as a head with its entries or in parts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Daemon;
use crate::cli::client::out_of_step;
use crate::daemon::EXIT_FAILURE;
use crate::protocol::allowlist::MAX_PART_BYTES;
use crate::protocol::lists::{ListReply, ListRequest, MAX_IMPORT_HEAD_BYTES, PageHead};

/// Writes a head with all entries.
pub(super) fn to_output(daemon: &Daemon) -> Result<ExitCode, ExitCode> {
    let mut output = BufWriter::new(io::stdout().lock());
    let (mut opened, mut bytes) = (false, 0);
    let head = read(daemon, |head, entry| {
        bytes += entry.len() + 2;
        if opened {
            output.write_all(b",\n")?;
        } else {
            let mut text = head_of(head).to_string();
            text.pop();
            writeln!(output, "{text},\"entries\":[")?;
            opened = true;
        }
        output.write_all(entry.as_bytes())
    })?;
    let end = || -> io::Result<()> {
        if !opened {
            let mut empty = head_of(&head);
            empty["entries"] = json!([]);
            return writeln!(output, "{empty}");
        }
        writeln!(output, "\n]}}")?;
        output.flush()
    };
    let mut end = end;
    end().map_err(|error| failed("the output", &error))?;
    if bytes + HEAD_BYTES > MAX_IMPORT_HEAD_BYTES {
        eprintln!(
            "tapgate: the list is whole, but too long for tapgate allowlist import to take it from \
             one file; for that: tapgate allowlist export --folder FOLDER"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What a head takes beside its entries.
const HEAD_BYTES: usize = 512;

/// Writes head and parts into a folder.
pub(super) fn into(daemon: &Daemon, folder: &Path) -> Result<ExitCode, ExitCode> {
    let name = folder.display().to_string();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed(&name, &error))?;
    let mut parts = Parts { folder, open: None, done: Vec::new() };
    let head = read(daemon, |_, entry| parts.add(entry))?;
    let write = || -> io::Result<()> {
        parts.close()?;
        let mut text = head_of(&head);
        text["parts"] = parts.done.clone().into();
        let mut file = private(&folder.join("head.json"))?;
        writeln!(file, "{text}")?;
        file.sync_all()
    };
    let mut write = write;
    write().map_err(|error| failed(&name, &error))?;
    println!("allowlist {} with {} badges is in {name}", head.version, head.count);
    Ok(ExitCode::SUCCESS)
}

/// Gives every entry to `take`; all are of one and the same list.
fn read(
    daemon: &Daemon,
    mut take: impl FnMut(&PageHead, &str) -> io::Result<()>,
) -> Result<PageHead, ExitCode> {
    let (mut after, mut first): (Option<String>, Option<PageHead>) = (None, None);
    loop {
        let ListReply::Entries(page) = daemon.ask(ListRequest::Entries { after })? else {
            return Err(out_of_step());
        };
        let Some(head) = page.head else {
            eprintln!("tapgate: there is no allowlist yet; connect the cloud, or import one");
            return Err(ExitCode::from(EXIT_FAILURE));
        };
        let first = first.get_or_insert_with(|| head.clone());
        if *first != head {
            eprintln!("tapgate: another list was applied meanwhile; export again");
            return Err(ExitCode::from(EXIT_FAILURE));
        }
        for entry in &page.entries {
            take(&head, entry).map_err(|error| failed("the export", &error))?;
        }
        match page.last {
            Some(last) => after = Some(last),
            None => return Ok(head),
        }
    }
}

fn head_of(head: &PageHead) -> Value {
    serde_json::to_value(head).expect("plain JSON")
}

fn failed(what: &str, error: &io::Error) -> ExitCode {
    eprintln!("tapgate: {what} cannot be written: {error}; check space and permissions");
    ExitCode::from(EXIT_FAILURE)
}

/// UIDs are personal: nobody else reads them.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// Parts while they are written.
struct Parts<'a> {
    folder: &'a Path,
    open: Option<(BufWriter<File>, Sha256, u64)>,
    /// As a head names them.
    done: Vec<Value>,
}

/// The part at hand, until its hash gives it a name.
const UNNAMED: &str = "part.tmp";

impl Parts<'_> {
    fn add(&mut self, entry: &str) -> io::Result<()> {
        let length = entry.len() as u64 + 1;
        if self.open.as_ref().is_some_and(|(_, _, bytes)| bytes + length > MAX_PART_BYTES) {
            self.close()?;
        }
        let (file, hash, bytes) = match &mut self.open {
            Some(open) => open,
            none => {
                let file = private(&self.folder.join(UNNAMED))?;
                none.insert((BufWriter::new(file), Sha256::new(), 0))
            }
        };
        for text in [entry.as_bytes(), b"\n"] {
            file.write_all(text)?;
            hash.update(text);
        }
        *bytes += length;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((file, hash, bytes)) = self.open.take() else { return Ok(()) };
        file.into_inner()?.sync_all()?;
        let name = hex::encode(hash.finalize());
        fs::rename(self.folder.join(UNNAMED), self.folder.join(format!("{name}.jsonl")))?;
        self.done.push(json!({"sha256": name, "bytes": bytes}));
        Ok(())
    }
}
