//! `tapgate profiles`: the device models that a config may name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use crate::config;
use crate::config::library::{self, Library, Shelved};
use crate::config::problem::Problem;
use crate::config::profile::{Class, Confidence, OnSilence};

/// EX_CONFIG of sysexits.h, as the contract has it.
const EXIT_CONFIG: u8 = 78;
/// EX_USAGE: what was asked for does not exist.
const EXIT_USAGE: u8 = 64;

/// Lists all profiles, built-in ones and those in `folder`.
pub fn list(folder: &Path, json: bool) -> ExitCode {
    with_library(folder, |library| {
        println!("{}", if json { as_json(library) } else { as_table(library) });
        ExitCode::SUCCESS
    })
}

/// The folder that was named, else the one of the config.
pub fn folder(named: Option<PathBuf>, config_file: &Path) -> PathBuf {
    named.unwrap_or_else(|| config::profiles_folder(config_file))
}

/// Prints one profile as its file has it.
pub fn show(folder: &Path, name: &str, json: bool) -> ExitCode {
    with_library(folder, |library| match library.find(name) {
        Some(shelved) if json => {
            let keys: Option<serde_json::Value> = toml::from_str(&shelved.text).ok();
            println!("{}", json!({ "origin": origin(shelved), "profile": keys }));
            ExitCode::SUCCESS
        }
        Some(shelved) => {
            println!("# {}", origin(shelved));
            print!("{}", shelved.text);
            ExitCode::SUCCESS
        }
        None => {
            let similar = library.iter().map(|(known, _)| known).filter(|it| it.contains(name));
            let similar: Vec<&str> = similar.take(SIMILAR_MAX).collect();
            let meant = match similar.as_slice() {
                [] => String::new(),
                some => format!("did you mean {}? ", some.join(", ")),
            };
            eprintln!(
                "tapgate: there is no profile `{name}`; {meant}`tapgate profiles list` shows all"
            );
            ExitCode::from(EXIT_USAGE)
        }
    })
}

/// So many similar names are proposed.
const SIMILAR_MAX: usize = 4;

/// Checks one profile file that is to lie in `folder`.
pub fn check(file: &Path, folder: &Path, json: bool) -> ExitCode {
    match library::read_profile(file) {
        Ok((profile, _)) if json => {
            let (name, notes) = (&profile.name, profile.doubts());
            println!("{}", json!({ "ok": true, "name": name, "errors": [], "notes": notes }));
            ExitCode::SUCCESS
        }
        Ok((profile, _)) => {
            println!("OK: {} ({} points)", profile.name, profile.points.len());
            for doubt in profile.doubts() {
                println!("note: {doubt}");
            }
            println!("next: copy it to {} and name it in a [[device]]", folder.display());
            ExitCode::SUCCESS
        }
        Err(problems) if json => {
            println!("{}", json!({ "ok": false, "name": null, "errors": problems, "notes": [] }));
            ExitCode::from(EXIT_CONFIG)
        }
        Err(problems) => refuse(&problems),
    }
}

fn with_library(folder: &Path, f: impl FnOnce(&Library) -> ExitCode) -> ExitCode {
    match Library::with_folder(folder, false) {
        Ok(library) => f(&library),
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        println!("{problem}");
    }
    ExitCode::from(EXIT_CONFIG)
}

fn origin(shelved: &Shelved) -> String {
    shelved.file.as_ref().map_or("built-in".into(), |file| file.display().to_string())
}

fn as_table(library: &Library) -> String {
    let row = |(name, shelved): (&str, &Shelved)| {
        let profile = shelved.profile();
        let class = class_word(profile.class);
        let vendor = &profile.vendor;
        let confidence = profile.confidence.map_or("-", confidence_word);
        let on_silence = profile.on_silence.map_or("-", on_silence_word);
        let own =
            shelved.file.as_ref().map_or(String::new(), |file| format!("  ({})", file.display()));
        let model = &profile.model;
        line([name, class, confidence, on_silence, vendor]) + model + &own
    };
    let head = line(["NAME", "CLASS", "CONFIDENCE", "ON SILENCE", "VENDOR"]) + "MODEL";
    std::iter::once(head).chain(library.iter().map(row)).collect::<Vec<_>>().join("\n")
}

/// All columns but the last, which is as long as it is.
fn line([name, class, confidence, on_silence, vendor]: [&str; 5]) -> String {
    format!("{name:<26} {class:<8} {confidence:<11} {on_silence:<11} {vendor:<22} ")
}

fn as_json(library: &Library) -> String {
    let entry = |(name, shelved): (&str, &Shelved)| {
        let profile = shelved.profile();
        json!({
            "name": name,
            "class": class_word(profile.class),
            "vendor": profile.vendor,
            "model": profile.model,
            "source": profile.source,
            "confidence": profile.confidence.map(confidence_word),
            "origin": origin(shelved),
            "on_silence": profile.on_silence.map(on_silence_word),
            "points": profile.points.keys().collect::<Vec<_>>(),
        })
    };
    serde_json::Value::from(library.iter().map(entry).collect::<Vec<_>>()).to_string()
}

fn class_word(class: Class) -> &'static str {
    match class {
        Class::Relay => "relay",
        Class::Meter => "meter",
        Class::Charger => "charger",
        Class::Io => "io",
    }
}

fn confidence_word(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::High => "high",
        Confidence::Medium => "medium",
    }
}

fn on_silence_word(on_silence: OnSilence) -> &'static str {
    match on_silence {
        OnSilence::Keep => "keep",
        OnSilence::Open => "open",
        OnSilence::Limit => "limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_one_line_or_object_per_profile() {
        let library = Library::built_in();

        let json: serde_json::Value = serde_json::from_str(&as_json(&library)).expect("JSON");

        assert_eq!(json.as_array().map(Vec::len), Some(library.iter().count()));
        assert_eq!(as_table(&library).lines().count(), 1 + library.iter().count());
        let relay =
            json.as_array().into_iter().flatten().find(|p| p["name"] == "waveshare-relay-8");
        assert_eq!(relay.map(|relay| &relay["on_silence"]), Some(&json!("keep")));
    }
}
