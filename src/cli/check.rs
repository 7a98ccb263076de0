//! `tapgate check`: validates the config offline and shows all errors at once.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::config::{self, Config, ConfigErrors, Problem};

/// EX_CONFIG of sysexits.h, as the contract has it.
const EXIT_CONFIG: u8 = 78;

/// Checks `file` and says what is wrong with it. Exit 0, or 78 where the daemon would refuse it.
pub fn run(file: &Path, json: bool) -> ExitCode {
    let result = config::load(file);
    println!("{}", if json { as_json(&result) } else { as_text(file, &result) });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn as_json(result: &Result<Config, ConfigErrors>) -> String {
    let (errors, warnings) = match result {
        Ok(config) => (&[][..], &config.warnings[..]),
        Err(errors) => (errors.problems(), errors.warnings()),
    };
    json!({ "ok": result.is_ok(), "errors": errors, "warnings": warnings }).to_string()
}

fn as_text(file: &Path, result: &Result<Config, ConfigErrors>) -> String {
    match result {
        Ok(config) => {
            let summary = summary(config);
            format!("{}OK: {summary}\n{}", warnings(&config.warnings), next_step(config))
        }
        Err(errors) => {
            let count = errors.problems().len();
            let plural = if count == 1 { "" } else { "s" };
            format!(
                "{errors}\n{}{count} error{plural} in {}; mend and run `tapgate check` again",
                warnings(errors.warnings()),
                file.display()
            )
        }
    }
}

fn warnings(warnings: &[Problem]) -> String {
    warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()
}

fn summary(config: &Config) -> String {
    let counted = |count: usize, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let cloud = match &config.cloud {
        Some(cloud) => format!("cloud {}", cloud.endpoint()),
        None => "no cloud".into(),
    };
    [
        format!("gateway {}", config.gateway_id),
        counted(config.site.stations.len(), "station", "stations"),
        counted(config.site.readers.len(), "reader", "readers"),
        counted(config.wiring.devices.len(), "device", "devices"),
        counted(config.wiring.buses.len(), "bus", "buses"),
        cloud,
    ]
    .join(", ")
}

fn next_step(config: &Config) -> &'static str {
    if config.site.stations.is_empty() {
        "next: add a bus, a device, a reader and a [[station]]; config.example.toml shows how"
    } else {
        "next: systemctl reload tapgate (or enable --now), then tapgate doctor"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_errors_with_place_and_help() {
        let result = config::parse("[gateway]\nid = \"x\"\nbiling = \"owner\"\n", "c.toml");

        let json: serde_json::Value = serde_json::from_str(&as_json(&result)).expect("JSON");

        let expected = json!({
            "ok": false,
            "errors": [{
                "file": "c.toml", "line": 3, "column": 1, "key": "gateway.biling",
                "message": "unknown key", "help": "did you mean `billing`?"
            }],
            "warnings": []
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_valid_config_is_summed_up_with_a_next_step() {
        let result = config::parse("[gateway]\nid = \"x\"\n", "c.toml");

        let text = as_text(Path::new("c.toml"), &result);

        let summary = "OK: gateway x, 0 stations, 0 readers, 0 devices, 0 buses, no cloud\nnext: ";
        assert!(text.starts_with(summary), "{text}");
    }

    #[test]
    fn an_error_is_a_greppable_line_and_its_help() {
        let result = config::parse("[gateway]\nid = \"X\"\n", "c.toml");

        let text = as_text(Path::new("c.toml"), &result);

        let start =
            "c.toml:2:6: gateway.id: `X` is no gateway id: 1 to 64 of a-z, 0-9 and -\n  help: ";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("1 error in c.toml; mend and run `tapgate check` again"), "{text}");
    }
}
