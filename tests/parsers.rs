//! Every parser that meets the outside, on the kept corpus and on what can become of it.
//!
//! The functions are those that `make fuzz` runs for as long as one likes; what it finds is kept
//! under `tests/corpus`. A failure names the input: put it there in a file of its own.

#![cfg(feature = "demo")]

#[path = "support/broken.rs"]
mod broken;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use broken::{Dice, mutated};
use peak_alloc::PeakAlloc;
use tapgate::demo::parsers::{PARSERS, Parser};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Held by each test: what is allocated meanwhile is its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Mutations of each parser's corpus; of those that read whole files fewer.
const MUTATIONS: usize = 1_500;
const MUTATIONS_OF_FILES: usize = 150;
/// Mutations on top of each other.
const DEPTH: usize = 4;
/// What a parser may take at most: for each byte that arrived, and for itself.
const MEMORY_PER_BYTE: usize = 200;
const MEMORY_OF_ITS_OWN: usize = 4 << 20;

/// The kept inputs of a parser, by name.
fn corpus(parser: &Parser) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|file| (file.clone(), fs::read(file).expect("a file"))).collect()
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn holds(parser: &Parser, bytes: &[u8]) -> bool {
    catch_unwind(|| (parser.check)(bytes)).is_ok()
}

#[test]
fn every_parser_holds_on_its_corpus() {
    let _alone = alone();
    for parser in PARSERS {
        for (file, bytes) in corpus(&parser) {
            assert!(holds(&parser, &bytes), "{}", file.display());
        }
    }
}

#[test]
fn every_corpus_has_its_parser() {
    let _alone = alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let names = fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("one").path());
    let found: BTreeSet<String> =
        names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    let parsers = PARSERS.iter().map(|parser| parser.name.to_owned()).collect();
    assert_eq!(found, parsers);
}

#[test]
fn every_parser_holds_on_what_can_become_of_its_corpus() {
    let _alone = alone();
    for (number, parser) in PARSERS.iter().enumerate() {
        let corpus = corpus(parser);
        let mut dice = Dice(0x7061_7273 + number as u64);
        let whole_files = matches!(parser.name, "config" | "profile");
        let mutations = if whole_files { MUTATIONS_OF_FILES } else { MUTATIONS };
        for _ in 0..mutations {
            let mut bytes = corpus[dice.below(corpus.len())].1.clone();
            for _ in 0..=dice.below(DEPTH) {
                bytes = mutated(&bytes, &mut dice);
            }
            let shown = bytes.escape_ascii();
            assert!(holds(parser, &bytes), "{} fails on b\"{shown}\"", parser.name);
        }
    }
}

#[test]
fn no_parser_takes_more_memory_than_what_arrived_is_worth() {
    let _alone = alone();
    for parser in PARSERS {
        for (file, bytes) in corpus(&parser).into_iter().chain(hostile()) {
            // What is made once and kept, such as the built-in profiles, counts for nobody.
            (parser.check)(&bytes);
            MEMORY.reset_peak_usage();
            let before = MEMORY.current_usage();
            (parser.check)(&bytes);
            let taken = MEMORY.peak_usage().saturating_sub(before);
            let allowed = MEMORY_OF_ITS_OWN + bytes.len() * MEMORY_PER_BYTE;
            let name = parser.name;
            assert!(taken <= allowed, "{name} took {taken} bytes for {}", file.display());
        }
    }
}

/// What is made to cost: deep, long, and numbers that ask for much.
fn hostile() -> Vec<(PathBuf, Vec<u8>)> {
    let named = |name: &str, bytes: Vec<u8>| (PathBuf::from(name), bytes);
    vec![
        named("deep", "[".repeat(60_000).into_bytes()),
        named("deep objects", "{\"a\":".repeat(12_000).into_bytes()),
        named("deep tables", format!("a = {}", "[".repeat(60_000)).into_bytes()),
        named("dotted", format!("{} = 1", ["a"; 20_000].join(".")).into_bytes()),
        named("long", format!("{{\"id\":\"{}\"}}", "x".repeat(60_000)).into_bytes()),
        named("many", format!("{{\"entries\":[{}]}}", ["0"; 30_000].join(",")).into_bytes()),
        named("length of everything", vec![0xFF; 60_000]),
        named("zeros", vec![0; 60_000]),
    ]
}
