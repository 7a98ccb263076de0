//! `tapgate ledger` and `tapgate identity`, with and without the daemon.

use std::fs;
use std::process::Output;

use serde_json::Value;
use tapgate::demo::cloud::chain;

use crate::support::offline::{self, RECORDS_PER_SESSION};
use crate::support::program::Program;

const SESSIONS: u64 = 40;

/// A stand-alone site with some weeks of records.
fn stand_alone() -> Program {
    let program = Program::with_cloud("");
    let config = fs::read_to_string(program.path("config.toml")).expect("a config");
    let (config, _) = config.split_once("[cloud]").expect("a site with a cloud");
    fs::write(program.path("config.toml"), config).expect("a config");
    offline::fill(&program.path("store/tapgate.db"), SESSIONS);
    program
}

fn start(program: &mut Program) {
    program.start(&[]);
    program.until("the daemon answers", |it| it["ledger"]["head"].is_u64());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[track_caller]
fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Lists, verifies and exports the whole ledger; the three must agree. Gives the last hash.
#[track_caller]
fn is_whole(program: &Program) -> String {
    let listed =
        said(&program.run(&["ledger", "list", "--from", "1", "--limit", "9999", "--json"]));
    let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
    assert!(listed.len() as u64 > SESSIONS * RECORDS_PER_SESSION, "{}", listed.len());

    let exported = said(&program.run(&["ledger", "export"]));
    let mut hash = [0; 32];
    for (record, listed) in exported.lines().zip(&listed) {
        hash = chain(&hash, record);
        assert_eq!(listed["hash"], hex::encode(hash), "{record}");
        assert!(record.starts_with(&format!("{{\"seq\":{},", listed["seq"])), "{record}");
    }
    assert_eq!(exported.lines().count(), listed.len());

    let csv = said(&program.run(&["ledger", "export", "--csv"]));
    let mut lines = csv.split_terminator("\r\n");
    let columns = lines.next().expect("a header").split(',').count();
    assert!(columns > 20 && lines.clone().all(|line| line.split(',').count() >= columns), "{csv}");
    assert_eq!(lines.count(), listed.len());

    let verified = said(&program.run(&["ledger", "verify", "--json"]));
    let verified: Value = serde_json::from_str(&verified).expect("JSON");
    assert_eq!((&verified["whole"], &verified["hash"]), (&true.into(), &hex::encode(hash).into()));
    assert_eq!(verified["records"], listed.len());
    hex::encode(hash)
}

#[test]
fn the_ledger_is_listed_verified_and_exported_with_the_daemon_and_without_it() {
    let mut program = stand_alone();
    let at_rest = is_whole(&program);
    assert_eq!(program.run(&["identity"]).status.code(), Some(69), "there is no key yet");

    start(&mut program);
    assert_ne!(is_whole(&program), at_rest, "its start is on record");
    let identity = said(&program.run(&["identity", "--json"]));
    program.kill9();

    is_whole(&program);
    assert_eq!(said(&program.run(&["identity", "--json"])), identity);
}

#[test]
fn a_changed_record_is_found_and_named() {
    let program = stand_alone();
    let ledger = rusqlite::Connection::open(program.path("store/tapgate.db")).expect("opens");
    let sql = "UPDATE record SET bytes = cast(replace(bytes, '850', '849') AS BLOB) WHERE seq = 8";
    assert_eq!(ledger.execute(sql, []), Ok(1));
    drop(ledger);

    let output = program.run(&["ledger", "verify"]);

    assert_eq!(output.status.code(), Some(74));
    let error = text(&output.stderr);
    assert!(error.contains("the chain breaks at record 8"), "{error}");
}

#[test]
fn without_a_cloud_an_export_is_what_lets_old_records_go() {
    let mut program = stand_alone();
    start(&mut program);
    let file = program.path("ledger.csv").display().to_string();

    let part = program.run(&["ledger", "export", "--from", "9"]);
    let whole = program.run(&["ledger", "export", "--csv", "--out", &file]);

    said(&part);
    assert!(text(&part.stderr).contains("does not follow"), "{}", text(&part.stderr));
    assert_eq!(said(&whole), "");
    assert!(text(&whole.stderr).contains("count as exported"), "{}", text(&whole.stderr));
    let kept = said(&program.run(&["ledger", "list", "--from", "1", "--limit", "1"]));
    assert!(kept.contains("epoch_opened"), "nothing goes before its retention: {kept}");
}
