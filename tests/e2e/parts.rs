//! Lists that do not fit a message: pulled in parts, by deltas, or imported from files.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tapgate::demo::cloud::digest;
use tapgate::protocol::cloud::Down;

use crate::people::{ANNA, STRANGER, allowlist, entry};
use crate::site::{Site, records};

/// Before base64, as the contract has it.
const CHUNK: usize = 45 * 1024;

/// Badges of people who never come; with the site's own, ascending by UID.
fn many(count: usize) -> Vec<Value> {
    let extra = |n: usize| {
        json!({
            "badge": format!("x-{n}"), "uid": format!("05{n:06X}"), "user": format!("u-x{n}"),
            "origin": "issued", "status": "active", "grants": ["group:laundry"],
        })
    };
    let mut entries = allowlist();
    entries.extend((0..count).map(extra));
    entries.sort_by_key(|entry| hex::decode(entry["uid"].as_str().expect("a UID")).expect("hex"));
    entries
}

struct Part(Vec<u8>);

impl Part {
    fn of(entries: &[Value]) -> Part {
        Part(entries.iter().flat_map(|entry| format!("{entry}\n").into_bytes()).collect())
    }

    fn name(&self) -> String {
        hex::encode(Sha256::digest(&self.0))
    }

    fn chunk(&self, i: usize) -> String {
        let n = self.0.len().div_ceil(CHUNK);
        let bytes = self.0.chunks(CHUNK).nth(i).expect("a chunk");
        json!({"sha256": self.name(), "i": i, "n": n, "data": STANDARD.encode(bytes)}).to_string()
    }

    fn chunks(&self) -> usize {
        self.0.len().div_ceil(CHUNK)
    }
}

/// A list in parts of so many entries, and its head.
fn in_parts(site: &Site, version: u64, entries: &[Value], size: usize) -> (Value, Vec<Part>) {
    let parts: Vec<&[Value]> = entries.chunks(size).collect();
    in_these_parts(site, version, &parts)
}

fn in_these_parts(site: &Site, version: u64, parts: &[&[Value]]) -> (Value, Vec<Part>) {
    let entries = parts.concat();
    let parts: Vec<Part> = parts.iter().map(|entries| Part::of(entries)).collect();
    let named = |part: &Part| json!({"sha256": part.name(), "bytes": part.0.len()});
    let head = json!({
        "list": site.status()["allowlist"]["list"], "version": version, "count": entries.len(),
        "digest": digest(&entries), "issued_at": "2026-11-22T10:00:00Z",
        "parts": parts.iter().map(named).collect::<Vec<_>>(),
    });
    (head, parts)
}

/// Waits for another report and gives it; `seen` counts those that were looked at.
fn next_report(site: &Site, seen: &mut usize) -> Value {
    let view = site.seen("a report of the list", |view| view.allowlist_reports.len() > *seen);
    *seen += 1;
    view.allowlist_reports[*seen - 1].clone()
}

/// What a request asks for: names and first missing chunks.
fn wanted(report: &Value) -> Vec<(String, u64)> {
    let parts = report["get"].as_array().unwrap_or_else(|| panic!("no request: {report}"));
    assert!(parts.len() <= 8, "{report}");
    let part = |part: &Value| {
        (part["sha256"].as_str().expect("a name").to_owned(), part["from"].as_u64().expect("from"))
    };
    parts.iter().map(part).collect()
}

/// Serves what is asked for until something else is said.
fn serve(site: &Site, parts: &[Part], seen: &mut usize) -> Value {
    loop {
        let report = next_report(site, seen);
        if report.get("get").is_none() {
            return report;
        }
        for (name, from) in wanted(&report) {
            let part = parts.iter().find(|part| part.name() == name).expect("one of the list");
            for i in from as usize..part.chunks() {
                site.cloud.publish_raw(Down::Part, part.chunk(i), false);
            }
        }
    }
}

#[test]
fn a_list_in_parts_is_pulled_applied_and_goes_on_after_a_crash() {
    let mut site = Site::running();
    let mut seen = site.cloud.view().allowlist_reports.len();
    let mut entries = many(3_000);
    entries.push(entry("z-9", &STRANGER, "active", json!(["*"])));
    entries.sort_by_key(|entry| hex::decode(entry["uid"].as_str().expect("a UID")).expect("hex"));
    let (head, parts) = in_parts(&site, 2, &entries, 1_000);
    site.cloud.push_head(head.clone());
    let asked = wanted(&next_report(&site, &mut seen));
    assert_eq!(asked.len(), parts.len());
    assert!(asked.iter().all(|(_, from)| *from == 0));
    // Rubbish, one whole part, and the first chunk of another; then the power goes.
    site.cloud.publish_raw(Down::Part, "{", false);
    site.cloud.publish_raw(Down::Part, parts[1].chunk(0).replace("data", "date"), false);
    site.cloud.publish_raw(Down::Part, parts[2].chunk(0), false);
    for i in (0..parts[1].chunks()).rev() {
        site.cloud.publish_raw(Down::Part, parts[1].chunk(i), false);
        site.cloud.publish_raw(Down::Part, parts[1].chunk(i), false);
    }
    let whole = site.path("store/tapgate-allowlist.parts").join(parts[1].name());
    site.until("a part is whole", |_| whole.exists());
    assert_eq!(site.tap_in_vain("Laundry", &STRANGER)["reason"], "unknown_badge");
    site.kill9();
    site.start_again();

    let mut asked = Vec::new();
    while !asked.contains(&(parts[2].name(), 1)) {
        let report = next_report(&site, &mut seen);
        asked = if report.get("get").is_some() { wanted(&report) } else { Vec::new() };
    }
    assert!(!asked.iter().any(|(name, _)| *name == parts[1].name()), "it is whole: {asked:?}");
    seen -= 1;
    let report = serve(&site, &parts, &mut seen);

    assert_eq!(report["applied"], site.status()["allowlist"], "{report}");
    assert_eq!(report["applied"]["version"], 2);
    site.tap_to_start("Laundry", &STRANGER);
    site.settled();
}

#[test]
fn a_delta_spares_the_pull_and_a_wrong_one_does_not_harm() {
    let mut site = Site::running();
    let mut seen = site.cloud.view().allowlist_reports.len();
    let entries = many(200);
    let whole = [&entries[..50], &entries[50..100], &entries[100..150], &entries[150..]];
    let (head, parts) = in_these_parts(&site, 2, &whole);
    site.cloud.push_head(head);
    assert_eq!(serve(&site, &parts, &mut seen)["applied"]["version"], 2);
    let stranger = entry("z-9", &STRANGER, "active", json!(["*"]));
    let mut first = entries[..50].to_vec();
    first.insert(4, stranger.clone());
    let changed = [&first[..], &entries[50..100], &entries[100..150], &entries[150..]];
    let (mut head, _) = in_these_parts(&site, 3, &changed);
    head["deltas"] = json!([{"base": 2, "upsert": [stranger], "remove": []}]);
    site.cloud.push_head(head);
    assert_eq!(next_report(&site, &mut seen)["applied"]["version"], 3);

    // Back to the list before, by a delta that does not lead there: those parts are pulled that
    // are not on disk.
    let (mut head, parts) = in_these_parts(&site, 4, &whole);
    head["deltas"] = json!([{"base": 3, "upsert": [], "remove": []}]);
    site.cloud.push_head(head);
    let report = next_report(&site, &mut seen);
    let asked = wanted(&report);
    assert_eq!(asked, [(parts[0].name(), 0)], "{report}");
    seen -= 1;
    assert_eq!(serve(&site, &parts, &mut seen)["applied"]["version"], 4);
    assert_eq!(site.tap_in_vain("Laundry", &STRANGER)["reason"], "unknown_badge");
    site.settled();
}

fn write_parts(folder: &Path, head: &Value, parts: &[Part]) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("list.json"), head.to_string()).expect("a head");
    for part in parts {
        fs::write(folder.join(format!("{}.part", &part.name()[..8])), &part.0).expect("a part");
    }
}

#[test]
fn a_list_is_imported_from_files_exported_and_judged_like_any_other() {
    let mut site = Site::running();
    let file = |site: &Site, name: &str| site.path(name).to_str().expect("a plain path").to_owned();
    let import = |site: &Site, name: &str| {
        let path = file(site, name);
        let output = site.command(&["allowlist", "import", &path, "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), said, String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let entries = many(40_000);
    let (head, parts) = in_parts(&site, 2, &entries, 20_000);
    write_parts(&site.path("stick"), &head, &parts);
    let (code, said, error) = import(&site, "stick");
    assert_eq!((code, &said["applied"]["count"]), (Some(0), &json!(40_004)), "{error}");
    assert_eq!(said["applied"], site.status()["allowlist"]);
    site.tap_to_start("Laundry", &ANNA);
    assert_eq!(import(&site, "stick/list.json").1["changed"], false);

    fs::write(site.path("old.json"), head.to_string().replace("\"version\":2", "\"version\":1"))
        .expect("written");
    let (code, said, _) = import(&site, "old.json");
    assert_eq!((code, &said["refused"]["reason"]), (Some(1), &json!("rollback")), "{said}");
    assert_eq!(said["current"]["version"], 2);
    fs::write(site.path("note.txt"), "no list").expect("written");
    for name in ["note.txt", "nothing"] {
        let (code, _, error) = import(&site, name);
        assert!(code == Some(1) && error.contains(name), "{error}");
    }
    fs::create_dir(site.path("half")).expect("a folder");
    let newer = head.to_string().replace("\"version\":2", "\"version\":3");
    let newer = newer.replace(&parts[0].name(), &"ab".repeat(32));
    fs::write(site.path("half/head"), newer).expect("written");
    let (code, _, error) = import(&site, "half");
    assert!(code == Some(1) && error.contains("is not there"), "{error}");

    let exported = site.command(&["allowlist", "export", "--folder", &file(&site, "copy")]);
    assert_eq!(exported.status.code(), Some(0));
    let (code, said, error) = import(&site, "copy");
    assert_eq!((code, &said["changed"]), (Some(0), &json!(false)), "{error}");
    let exported = site.command(&["allowlist", "export"]).stdout;
    let exported: Value = serde_json::from_slice(&exported).expect("a head");
    assert_eq!(exported["digest"], head["digest"]);
    assert_eq!(digest(exported["entries"].as_array().expect("entries")), head["digest"]);

    let status = site.command(&["allowlist", "status", "--json"]);
    assert_eq!(status.status.code(), Some(0));
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["allowlist"]["version"], 2);
    assert!(status["age_s"].as_u64().is_some());
    let view = site.settled();
    assert_eq!(records(&view, "allowlist_applied").len(), 2);
}
