//! Keeps the architecture and the sizes that make this program readable.
//!
//! `core` is pure: it names the standard library without clocks, files, threads or hashed
//! iteration, serde, jiff's types and itself. Arrows go `core <- protocol <- io <- daemon`.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 100;
/// The dependencies that the core may use.
const CORE_DEPENDENCIES: [&str; 2] = ["serde", "jiff"];
/// What a pure core cannot do: read clocks, sleep, perform I/O, iterate in random order. And no
/// `crate::{…}`, which would hide from these rules what it names.
const IMPURE: [&str; 24] = [
    "crate::io",
    "crate::config",
    "crate::protocol",
    "crate::daemon",
    "crate::cli",
    "crate::tui",
    "crate::demo",
    "crate::{",
    "SystemTime",
    "Instant",
    "HashMap",
    "HashSet",
    "RandomState",
    "thread::",
    "Timestamp::now",
    "Zoned::now",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::io",
    "std::sync::mpsc",
    "Mutex",
    "println",
];
/// Folders and what they must not name.
const LAYERS: [(&str, &[&str]); 3] = [
    ("src/protocol", &["crate::io", "crate::daemon", "crate::cli", "crate::{"]),
    ("src/config", &["crate::io", "crate::daemon", "crate::{"]),
    ("src/io", &["crate::daemon", "crate::cli", "crate::{"]),
];

/// What lets code be unsafe.
const UNSAFE: [&str; 2] = ["unsafe", "unsafe_code"];
/// Where it is.
const UNSAFE_MODULE: &str = "src/io/kernel.rs";

#[test]
fn the_core_is_pure() {
    let mut forbidden: Vec<String> = IMPURE.map(String::from).to_vec();
    forbidden.extend(dependencies(&read(&root().join("Cargo.toml"))));
    let faults = faults_in(&["src/core"], |text| named(&without_tests(text), &forbidden));
    assert_eq!(faults, [""; 0]);
}

#[test]
fn layers_name_only_what_lies_below() {
    for (folder, forbidden) in LAYERS {
        let forbidden: Vec<String> = forbidden.iter().map(|name| name.to_string()).collect();
        assert_eq!(faults_in(&[folder], |text| named(text, &forbidden)), [""; 0]);
    }
}

#[test]
fn one_module_is_unsafe() {
    let faults = faults_in(&["src", "benches"], |text| named(text, &UNSAFE.map(String::from)));
    let elsewhere: Vec<_> = faults.iter().filter(|it| !it.starts_with(UNSAFE_MODULE)).collect();
    assert_eq!(elsewhere, [""; 0]);
    assert!(!faults.is_empty(), "{UNSAFE_MODULE} needs no exception any more");
}

#[test]
fn files_are_short() {
    assert_eq!(faults_in(&["src", "tests", "benches"], too_many_lines), [""; 0]);
}

#[test]
fn functions_are_short() {
    assert_eq!(faults_in(&["src", "tests", "benches"], long_functions), [""; 0]);
}

#[test]
fn lines_fit_the_page() {
    assert_eq!(faults_in(&["src", "tests", "benches"], long_lines), [""; 0]);
}

/// A mutant that fits no code any more proves nothing, and only `make mutants` would notice.
#[test]
fn mutants_follow_the_code() {
    let list = read(&root().join("tests/mutants/mutants.toml"));
    let list: toml::Table = list.parse().expect("TOML");
    let mutants = list["mutant"].as_array().expect("mutants");
    for mutant in mutants {
        for edit in mutant["edit"].as_array().expect("edits") {
            let text = |key: &str| edit[key].as_str().expect("a text");
            let places = read(&root().join(text("file"))).matches(text("old")).count();
            assert_eq!(places, 1, "{}: {:?}", mutant["name"], text("old"));
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `rule` says of every Rust file in these folders, each with its file.
fn faults_in(folders: &[&str], rule: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for file in folders.iter().flat_map(|folder| rust_files(&root().join(folder))) {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        faults.extend(rule(&read(&file)).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    faults
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let mut found: Vec<PathBuf> =
        files.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")).collect();
    found.extend(folders.iter().flat_map(|folder| rust_files(folder)));
    found
}

/// Paths of all dependencies of the manifest but the core's own: `rusqlite::`.
fn dependencies(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let names = lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(['=', '.']))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.is_empty() && !name.starts_with('#'));
    let others = names.filter(|name| !CORE_DEPENDENCIES.contains(name));
    others.map(|name| format!("{}::", name.replace('-', "_"))).collect()
}

/// The part before the unit tests, which come last.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]").next().unwrap_or_default().into()
}

/// Which of the forbidden names the code names as whole words, and in which line.
fn named(text: &str, forbidden: &[String]) -> Vec<String> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(code_of(text).lines()) {
        for name in forbidden {
            let hit = line.match_indices(name.as_str()).any(|(at, _)| {
                let (before, after) = (&line[..at], &line[at + name.len()..]);
                let starts_later = is_word(before.chars().last());
                let goes_on = is_word(name.chars().last()) && is_word(after.chars().next());
                !starts_later && !goes_on
            });
            if hit {
                faults.push(format!("line {number} names {name}"));
            }
        }
    }
    faults
}

fn too_many_lines(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let fault = format!("{lines} lines, at most {FILE_LINES}: look for the second concept");
    (lines > FILE_LINES).then_some(fault).into_iter().collect()
}

fn long_lines(text: &str) -> Vec<String> {
    let code = code_of(text);
    let lines = (1..).zip(text.lines().zip(code.lines()));
    let long = lines.filter(|(_, (line, code))| {
        let quoted = code.chars().filter(|c| *c == QUOTED).count();
        line.chars().count() - quoted > COLUMNS && !line.contains("://")
    });
    long.map(|(number, _)| format!("line {number} has more than {COLUMNS} columns")).collect()
}

fn long_functions(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, first, last) in functions(&code_of(text)) {
        let lines = last - first + 1;
        if lines > FUNCTION_LINES {
            faults.push(format!("fn {name} in line {first} has {lines} lines"));
        }
    }
    faults
}

/// Name, first and last line of every function that has a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric());
        let after = &code[at + 3..];
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if is_word || name.is_empty() {
            continue;
        }
        let Some(length) = body_end(after) else { continue };
        let line_of = |offset: usize| code[..offset].matches('\n').count() + 1;
        found.push((name, line_of(at), line_of(at + 3 + length)));
    }
    found
}

/// Where the body that follows a signature ends; `None` where a `;` comes instead.
fn body_end(signature: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Stands for what is quoted, in [`code_of`].
const QUOTED: char = '"';

/// The text with comments blanked, strings and characters replaced by as many [`QUOTED`]; lines
/// stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = blank_length(rest, code.chars().next_back());
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let blanked = &rest[..length];
            let fill = if blanked.starts_with('/') { ' ' } else { QUOTED };
            code.extend(blanked.chars().map(|c| if c == '\n' { c } else { fill }));
            rest = &rest[length..];
        }
    }
    code
}

/// How many bytes from here are a comment, a string or a character.
fn blank_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let starts_word = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let Some(raw) = rest.strip_prefix('r').filter(|_| starts_word) {
        let hashes = raw.chars().take_while(|c| *c == '#').count();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            return body.find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len());
        }
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    // A lifetime has no closing quote two or three characters on.
    let mut after = rest.strip_prefix('\'').unwrap_or_default().chars();
    match (after.next(), after.next()) {
        (Some('\\'), _) => quoted_length(rest, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

mod rules_can_fail {
    use super::*;

    fn forbid(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn finds_an_impure_name() {
        let impure = IMPURE.map(String::from);
        for text in [
            "use crate::io::store::Store;",
            "use crate::{io, core};",
            "let now = std::time::Instant::now();",
            "let map: HashMap<u8, u8>;",
            "jiff::Timestamp::now()",
            "std::thread::sleep(d)",
        ] {
            assert_eq!(named(text, &impure).len(), 1, "{text}");
        }
    }

    #[test]
    fn leaves_comments_strings_and_longer_words_alone() {
        let impure = IMPURE.map(String::from);
        for text in [
            "// see [crate::io]",
            "let s = \"Instant\";",
            "let s = r#\"a \"HashMap\" b\"#;",
            "struct Instantly; fn f<'a>(c: &'a str) {}",
            "use crate::core::time::Uptime;",
            "/* crate::io */",
        ] {
            assert_eq!(named(text, &impure), [""; 0], "{text}");
        }
        assert_eq!(named("fn f<'a>() { HashMap }", &impure).len(), 1, "a lifetime is no quote");
        assert_eq!(named("let c = '\\''; HashMap", &impure).len(), 1);
    }

    #[test]
    fn finds_code_that_is_unsafe() {
        let names = UNSAFE.map(String::from);
        for text in ["unsafe { call() }", "#[expect(unsafe_code, reason = \"r\")]", "unsafe impl S"]
        {
            assert_eq!(named(text, &names).len(), 1, "{text}");
        }
        assert_eq!(named("// unsafe\nlet unsafely = \"unsafe\";", &names), [""; 0]);
    }

    #[test]
    fn finds_a_dependency_in_the_core() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\njiff = \"1\"\ntokio-serial = \"1\"\n\
                        uuid = { version = \"1\" }\n\n[dev-dependencies]\ntempfile = \"3\"\n";
        let others = dependencies(manifest);
        assert_eq!(others, ["tokio_serial::", "uuid::"]);
        assert_eq!(named("let id = uuid::Uuid::now_v7();", &others).len(), 1);
        assert_eq!(named("let t = jiff::tz::TimeZone::UTC;", &others), [""; 0]);
    }

    #[test]
    fn unit_tests_may_use_more() {
        let text = "use std::fmt;\n#[cfg(test)]\nmod tests { use serde_json::json; }";
        assert_eq!(named(&without_tests(text), &forbid(&["serde_json::"])), [""; 0]);
    }

    #[test]
    fn finds_a_layer_that_looks_up() {
        for (folder, forbidden) in LAYERS {
            let upwards = format!("use {}::x;", forbidden[0]);
            assert_eq!(named(&upwards, &forbid(forbidden)).len(), 1, "{folder}");
        }
    }

    #[test]
    fn finds_a_long_file() {
        assert_eq!(too_many_lines(&"x\n".repeat(FILE_LINES)), [""; 0]);
        assert_eq!(too_many_lines(&"x\n".repeat(FILE_LINES + 1)).len(), 1);
    }

    #[test]
    fn finds_a_long_function_whatever_it_contains() {
        let body = |lines: usize| {
            let filling = "    let s = \"} {\"; // }\n".repeat(lines - 2);
            format!("trait T {{ fn short(&self) -> [u8; 3]; }}\npub fn long() {{\n{filling}}}\n")
        };
        assert_eq!(long_functions(&body(FUNCTION_LINES)), [""; 0]);
        let faults = long_functions(&body(FUNCTION_LINES + 1));
        assert_eq!(faults, ["fn long in line 2 has 71 lines"]);
    }

    #[test]
    fn finds_a_wide_line() {
        let wide = "x".repeat(COLUMNS + 1);
        assert_eq!(long_lines(&wide).len(), 1);
        assert_eq!(long_lines(&format!("// {wide}")).len(), 1);
        assert_eq!(long_lines(&format!("    call(\"{wide}\", 3);")), [""; 0]);
        assert_eq!(long_lines(&format!("    r#\"\n{wide}\n\"#;")), [""; 0]);
        assert_eq!(long_lines(&format!("call(\"{wide}\", {});", "y".repeat(COLUMNS))).len(), 1);
        assert_eq!(long_lines(&format!("// https://{wide}")), [""; 0]);
        assert_eq!(long_lines(&"ä".repeat(COLUMNS)), [""; 0]);
    }
}
