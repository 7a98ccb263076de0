//! What a technician types.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::daemon::tapgate;
use crate::people::ANNA;
use crate::site::Site;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn check_says_what_a_config_amounts_to_or_every_error_in_it() {
    let (code, out, _) = said(&tapgate(&["check", EXAMPLE]));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("OK: gateway ch-lausanne-012-a, 4 stations"), "{out}");
    let ok = json_of(&tapgate(&["check", "--json", EXAMPLE]));
    assert_eq!((&ok["ok"], &ok["errors"]), (&json!(true), &json!([])));

    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("bad.toml");
    let file_name = file.to_str().expect("a plain path");
    fs::write(&file, "[gateway]\nid = \"X\"\ntimezone = \"Mars/Olympus\"\nbiling = 1\n").expect("");
    let (code, out, _) = said(&tapgate(&["check", file_name]));
    assert_eq!(code, Some(78), "{out}");
    for place in ["2:6: gateway.id", "3:12: gateway.timezone", "4:1: gateway.biling"] {
        assert!(out.contains(&format!("{file_name}:{place}: ")), "{place} in\n{out}");
    }
    let output = tapgate(&["check", file_name, "--json"]);
    let errors = json_of(&output);
    assert_eq!((output.status.code(), &errors["ok"]), (Some(78), &json!(false)));
    assert_eq!(errors["errors"].as_array().map(Vec::len), Some(3));
    assert!(errors["errors"].as_array().expect("errors").iter().all(|it| it["help"] != ""));

    let (code, out, _) = said(&tapgate(&["check", "/nonexistent.toml"]));
    assert_eq!(code, Some(78), "{out}");
    assert!(out.contains("/nonexistent.toml"), "{out}");
}

#[test]
fn status_shows_the_site_to_people_and_to_scripts() {
    let site = Site::running();
    let start = site.tap_to_start("Laundry", &ANNA);
    let (code, out, _) = said(&site.command(&["status"]));
    assert_eq!(code, Some(0));
    for shown in ["e2e-house-1", "washer-1", "u-1", "reader  laundry", "connected to", "version 1"]
    {
        assert!(out.contains(shown), "{shown} in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "no colour where no terminal is");

    let config = site.config();
    let config = config.to_str().expect("a plain path");
    for arguments in
        [["--config", config, "status", "--json"], ["status", "--json", "--config", config]]
    {
        let output = tapgate(&arguments);
        assert_eq!(output.status.code(), Some(0));
        let status = json_of(&output);
        assert_eq!(status["gateway"], "e2e-house-1");
        assert_eq!(status["stations"][0]["session"]["session"], start["session"]);
    }
}

#[test]
fn status_is_shown_while_the_config_has_errors() {
    let site = Site::running();
    let config = fs::read_to_string(site.config()).expect("a config");
    for broken in [format!("{config}\ncolour = \"blue\"\n"), format!("nonsense = 1\n{config}")] {
        fs::write(site.config(), broken).expect("a file");
        let (code, out, error) = said(&site.command(&["status"]));
        assert_eq!(code, Some(0), "{error}");
        assert!(out.contains("e2e-house-1"), "{out}");
        assert!(error.contains("tapgate check"), "{error}");
        assert_eq!(said(&site.command(&["reload"])).0, Some(78));
    }
}

#[test]
fn status_without_a_daemon_says_how_to_start_it() {
    let mut site = Site::ready_to_start();
    let expect_hint = |site: &Site| {
        let (code, out, error) = said(&site.command(&["status"]));
        assert_eq!((code, out.as_str()), (Some(69), ""), "{error}");
        assert!(error.contains("systemctl start tapgate"), "{error}");
    };
    expect_hint(&site);
    site.start();
    site.until_ready();
    // A socket that a killed daemon left behind.
    site.kill9();
    assert!(site.path("control.sock").exists());
    expect_hint(&site);

    let (code, _, error) = said(&tapgate(&["status", "--config", "/nonexistent.toml"]));
    assert_eq!(code, Some(78), "{error}");
}

#[test]
fn profiles_are_listed_shown_and_checked() {
    let (code, out, _) = said(&tapgate(&["profiles", "list"]));
    assert_eq!(code, Some(0));
    assert!(out.contains("eastron-sdm120") && out.contains("waveshare-relay-8"), "{out}");
    let list = json_of(&tapgate(&["profiles", "list", "--json"]));
    for profile in list.as_array().expect("a list") {
        let name = profile["name"].as_str().expect("a name");
        let (code, shown, _) = said(&tapgate(&["profiles", "show", name]));
        assert_eq!(code, Some(0));
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join(format!("{name}.toml"));
        fs::write(&file, shown).expect("a file");
        let file = file.to_str().expect("a plain path");
        let (code, out, _) = said(&tapgate(&["profiles", "check", file]));
        assert_eq!(code, Some(0), "{name}: {out}");
    }

    let (code, _, error) = said(&tapgate(&["profiles", "show", "nothing-1"]));
    assert_eq!(code, Some(64));
    assert!(error.contains("`tapgate profiles list`"), "{error}");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("mine.toml");
    fs::write(
        &file,
        "name = \"mine\"\nclass = \"meter\"\n[points.power]\ntable = \"input\"\n\
        address = 30013\ntype = \"f32\"\n",
    )
    .expect("a file");
    let (code, out, _) = said(&tapgate(&["profiles", "check", file.to_str().expect("plain")]));
    assert_eq!(code, Some(78), "{out}");
    assert!(out.contains("mine.toml:5:"), "{out}");
}

#[test]
fn a_mistyped_command_is_a_usage_error() {
    let mistakes: [&[&str]; 5] =
        [&[], &["statsu"], &["status", "--jsno"], &["run", "--config"], &["profiles"]];
    for arguments in mistakes {
        let (code, out, error) = said(&tapgate(arguments));
        assert_eq!((code, out.as_str()), (Some(64), ""), "{arguments:?}: {error}");
        assert!(error.contains("--help"), "{error}");
    }
    assert_eq!(tapgate(&["--version"]).status.code(), Some(0));
}

#[test]
fn every_help_has_an_example() {
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    let mut commands = 0;
    while let Some(command) = left.pop() {
        commands += 1;
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let (code, out, _) = said(&tapgate(&arguments));
        assert_eq!(code, Some(0), "{command:?}");
        assert!(out.contains("Example") || command.is_empty(), "{command:?} --help:\n{out}");
        let list = out.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        let list = list.lines().take_while(|line| line.starts_with("  "));
        let names = list.filter_map(|line| line.split_whitespace().next());
        left.extend(
            names
                .filter(|name| *name != "help")
                .map(|name| command.iter().cloned().chain([name.to_owned()]).collect()),
        );
    }
    assert!(commands > 8, "only {commands} were found");
}
