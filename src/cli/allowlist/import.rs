//! `tapgate allowlist import`: serves a list from files as the cloud would by its link. Whatever is
//! in the files, the daemon judges it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Daemon;
use crate::cli::client::out_of_step;
use crate::daemon::{EXIT_FAILURE, EXIT_PERMISSION, EXIT_STORAGE};
use crate::protocol::allowlist::MAX_CHUNK_BYTES;
use crate::protocol::cloud::PartRequest;
use crate::protocol::lists::{ImportState, ListReply, ListRequest, MAX_IMPORT_HEAD_BYTES, Refused};

/// Between two looks while the daemon builds the list or has no room.
const PAUSE: Duration = Duration::from_millis(20);
/// Files that are looked at in a folder; more are not a list.
const MAX_FILES: usize = 10_000;
/// Folders within the folder: parts may have one of their own.
const MAX_DEPTH: usize = 2;

pub(super) fn run(daemon: &Daemon, file: &Path, json: bool) -> Result<ExitCode, ExitCode> {
    let files = ListFiles::find(file).map_err(|error| complain(file, &error))?;
    let import = loop {
        match daemon.ask(ListRequest::Import { head: files.head.clone() })? {
            ListReply::Begun { import } => break import,
            ListReply::Busy => std::thread::sleep(PAUSE),
            ListReply::Status(_)
            | ListReply::Entries(_)
            | ListReply::Import(_)
            | ListReply::Taken => return Err(out_of_step()),
        }
    };
    loop {
        let ListReply::Import(state) = daemon.ask(ListRequest::ImportState { import })? else {
            return Err(out_of_step());
        };
        match state {
            ImportState::Wanted(parts) if parts.is_empty() => std::thread::sleep(PAUSE),
            ImportState::Wanted(parts) => {
                for part in parts {
                    files.serve(daemon, &part, file)?;
                }
            }
            state => return Ok(report(&state, json)),
        }
    }
}

fn report(state: &ImportState, json: bool) -> ExitCode {
    let (text, code) = match state {
        ImportState::Wanted(_) => return ExitCode::from(EXIT_FAILURE),
        ImportState::Applied(list) => {
            (format!("allowlist {} applied: {} badges", list.version, list.count), 0)
        }
        ImportState::Unchanged(list) => {
            (format!("allowlist {} decides already: {} badges", list.version, list.count), 0)
        }
        ImportState::Refused(refused) => {
            let code = if refused.reason == "storage" { EXIT_STORAGE } else { EXIT_FAILURE };
            (refusal(refused), code)
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&as_json(state)).expect("plain JSON"));
    } else if code == 0 {
        println!("{text}");
    } else {
        eprintln!("tapgate: {text}");
    }
    ExitCode::from(code)
}

/// In the form of the cloud's reports.
fn as_json(state: &ImportState) -> Value {
    match state {
        ImportState::Wanted(parts) => json!({"get": parts}),
        ImportState::Applied(list) => json!({"applied": list, "changed": true}),
        ImportState::Unchanged(list) => json!({"applied": list, "changed": false}),
        ImportState::Refused(Refused { version, reason, detail, current }) => json!({
            "refused": {"version": version, "reason": reason, "detail": detail},
            "current": current,
        }),
    }
}

fn refusal(refused: &Refused) -> String {
    let Refused { reason, detail, current, .. } = refused;
    let stays = match current {
        Some(list) => format!("version {} goes on deciding", list.version),
        None => "there is still no allowlist".into(),
    };
    let remedy = match reason.as_str() {
        "rollback" => "a newer list is here already",
        "other_list" => "ask the operator for a head that names the list which it replaces",
        "shrink" => "if that is meant, ask the operator for a head with allow_shrink",
        "too_large" | "storage" => "free disk space, then import it again",
        _ => "ask the operator for a new export of the list",
    };
    format!("the list is refused, {reason}: {detail}\n  {stays}; {remedy}")
}

fn complain(file: &Path, error: &io::Error) -> ExitCode {
    let (code, hint) = match error.kind() {
        io::ErrorKind::PermissionDenied => (EXIT_PERMISSION, "use sudo"),
        io::ErrorKind::NotFound => (EXIT_FAILURE, "is the stick mounted? look at: lsblk"),
        _ => (EXIT_FAILURE, "import a head, or a folder with one head and its parts"),
    };
    eprintln!("tapgate: {}: {error}\n  {hint}", file.display());
    ExitCode::from(code)
}

/// A list as it lies in files.
struct ListFiles {
    /// The head as it is.
    head: String,
    /// Its parts, by hash.
    parts: BTreeMap<String, PathBuf>,
}

impl ListFiles {
    fn find(path: &Path) -> io::Result<ListFiles> {
        let (folder, head) = if path.is_dir() {
            (path.to_path_buf(), find_head(&files_in(path)?)?)
        } else {
            let head = read_head(path)?.ok_or_else(|| {
                io::Error::other("this is no allowlist head: neither its JSON nor a JWS of it")
            })?;
            (path.parent().map_or_else(PathBuf::new, Path::to_path_buf), head)
        };
        let named = parts_of(&head);
        let mut parts = BTreeMap::new();
        if !named.is_empty() {
            let folder = if folder.as_os_str().is_empty() { ".".into() } else { folder };
            for file in files_in(&folder)? {
                let bytes = fs::metadata(&file)?.len();
                if named.iter().any(|(_, wanted)| *wanted == bytes) {
                    let name = hash(&file)?;
                    if named.contains(&(name.clone(), bytes)) {
                        parts.insert(name, file);
                    }
                }
            }
        }
        Ok(ListFiles { head, parts })
    }

    /// Sends the chunks of a part from the first missing one on.
    fn serve(&self, daemon: &Daemon, part: &PartRequest, file: &Path) -> Result<(), ExitCode> {
        let PartRequest { sha256, from } = part;
        let Some(path) = self.parts.get(sha256) else {
            eprintln!(
                "tapgate: {}: the part with SHA-256 {sha256} is not there\n  copy the whole folder \
                 again, head and parts together",
                file.display()
            );
            return Err(ExitCode::from(EXIT_FAILURE));
        };
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (content, bytes) = open().map_err(|error| complain(path, &error))?;
        let n = bytes.div_ceil(MAX_CHUNK_BYTES);
        for i in *from..n {
            let offset = i * MAX_CHUNK_BYTES;
            let mut chunk = vec![0; MAX_CHUNK_BYTES.min(bytes - offset) as usize];
            content.read_exact_at(&mut chunk, offset).map_err(|error| complain(path, &error))?;
            let data = STANDARD.encode(&chunk);
            let payload = json!({"sha256": sha256, "i": i, "n": n, "data": data}).to_string();
            while daemon.ask(ListRequest::Chunk { payload: payload.clone() })? == ListReply::Busy {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

fn find_head(files: &[PathBuf]) -> io::Result<String> {
    let mut found: Option<(String, &Path)> = None;
    for file in files {
        let Some(head) = read_head(file)? else { continue };
        if let Some((_, other)) = found {
            let both = format!("two heads lie there: {} and {}", other.display(), file.display());
            return Err(io::Error::other(both));
        }
        found = Some((head, file));
    }
    found.map(|(head, _)| head).ok_or_else(|| io::Error::other("no allowlist head lies there"))
}

/// The text of a file that is a head; `None` for any other.
fn read_head(file: &Path) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    let bound = MAX_IMPORT_HEAD_BYTES as u64 + 1;
    File::open(file)?.take(bound).read_to_end(&mut text)?;
    let Ok(text) = String::from_utf8(text) else { return Ok(None) };
    if text.len() as u64 == bound {
        let looks = text.trim_start().starts_with("{\"") && text.contains("\"digest\"");
        let long = format!(
            "the head has more than {MAX_IMPORT_HEAD_BYTES} bytes; ask for one with its entries \
             in parts, or use: tapgate allowlist export --folder"
        );
        return if looks { Err(io::Error::other(long)) } else { Ok(None) };
    }
    Ok(content_of(&text).map(|_| text))
}

/// The JSON of a head, signed or not, whoever signed it.
fn content_of(head: &str) -> Option<Value> {
    let json = match head.trim().split('.').collect::<Vec<_>>()[..] {
        [_, payload, _] if !head.trim_start().starts_with('{') => {
            URL_SAFE_NO_PAD.decode(payload).ok()?
        }
        _ => head.as_bytes().to_vec(),
    };
    let value: Value = serde_json::from_slice(&json).ok()?;
    let is_head = value.get("list").is_some() && value.get("digest").is_some();
    is_head.then_some(value)
}

/// Hash and length of each part.
fn parts_of(head: &str) -> Vec<(String, u64)> {
    let head = content_of(head).unwrap_or_default();
    let parts = head["parts"].as_array().cloned().unwrap_or_default();
    let named = |part: &Value| Some((part["sha256"].as_str()?.to_owned(), part["bytes"].as_u64()?));
    parts.iter().filter_map(named).collect()
}

fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() && depth + 1 < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else if path.is_file() {
                files.push(path);
            }
            if files.len() > MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files lie there")));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn hash(file: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(file)?, Sha256::new());
    io::copy(&mut file, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        r#"{"list":"l","version":1,"digest":"d","parts":[{"sha256":"p","bytes":5}]}"#;

    #[test]
    fn a_head_is_found_by_what_it_is_and_parts_by_their_hash() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let name = hex::encode(Sha256::digest(b"part\n"));
        let head = HEAD.replace("\"p\"", &format!("\"{name}\""));
        fs::write(path.join("zzz.txt"), &head).expect("written");
        fs::write(path.join("readme.md"), "not a head").expect("written");
        fs::create_dir(path.join("parts")).expect("made");
        fs::write(path.join("parts/1.jsonl"), "part\n").expect("written");
        fs::write(path.join("parts/2.jsonl"), "trap\n").expect("written");

        for from in [path.to_path_buf(), path.join("zzz.txt")] {
            let found = ListFiles::find(&from).expect("found");
            assert_eq!(found.head, head);
            assert_eq!(found.parts, BTreeMap::from([(name.clone(), path.join("parts/1.jsonl"))]));
        }
        fs::write(path.join("other.json"), HEAD).expect("written");
        let error = ListFiles::find(path).err().expect("two heads").to_string();
        assert!(error.contains("two heads"), "{error}");
        assert!(ListFiles::find(&path.join("readme.md")).is_err());
        assert!(ListFiles::find(&path.join("parts")).is_err());
    }

    #[test]
    fn a_signed_head_is_a_head() {
        let signed = format!("eyJhbGciOiJFZERTQSJ9.{}.c2ln\n", URL_SAFE_NO_PAD.encode(HEAD));
        assert_eq!(parts_of(&signed), [("p".to_owned(), 5)]);
        assert!(content_of("a.b.c").is_none());
        assert!(content_of(r#"{"list":"l"}"#).is_none());
    }
}
