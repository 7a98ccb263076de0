//! The session rules of a station: the contract's defaults, and what its section overrides.

use std::time::Duration;

use super::document::Section;
use super::values::{self, MAX_DURATION, duration_within, energy_wh, power_w};
use crate::core::badge::Technology;
use crate::core::site::{IdleBurst, OnRevoked, SessionRules};

const SECOND: Duration = Duration::from_secs(1);

const ON_REVOKED: [(&str, OnRevoked); 2] =
    [("finish", OnRevoked::Finish), ("stop", OnRevoked::Stop)];

const TECHNOLOGIES: [Technology; 8] = [
    Technology::MifareClassic1k,
    Technology::MifareClassic4k,
    Technology::MifareClassicMini,
    Technology::MifarePlusSl1,
    Technology::MifareUltralight,
    Technology::Desfire,
    Technology::Iso14443_4,
    Technology::Other,
];

/// The rules that `section` sets, over `defaults`.
pub(super) fn read(section: &Section<'_>, defaults: SessionRules) -> SessionRules {
    let limit = |key, example, default: Option<Duration>| {
        section
            .parsed_or_off(key, example, duration_within(SECOND..=MAX_DURATION))
            .unwrap_or(default)
    };
    let flag = |key, default| section.flag(key).map_or(default, |at| at.value);
    let power = |key, example, default| {
        section.parsed(key, example, power_w).map_or(default, |at| at.value)
    };
    SessionRules {
        start_timeout: limit("start_timeout", "10m", defaults.start_timeout),
        handover_after: limit("handover_after", "7m 30s", defaults.handover_after),
        idle_power_w: power("idle_power", "5W", defaults.idle_power_w),
        idle_after: limit("idle_after", "8m", defaults.idle_after),
        idle_burst: idle_burst(section, defaults.idle_burst),
        min_duration: or_zero(section, "min_duration", "10m").unwrap_or(defaults.min_duration),
        max_duration: limit("max_duration", "6h", defaults.max_duration),
        max_energy_wh: section
            .parsed_or_off("max_energy", "30kWh", energy_wh)
            .unwrap_or(defaults.max_energy_wh),
        tap_to_stop: flag("tap_to_stop", defaults.tap_to_stop),
        require_meter: flag("require_meter", defaults.require_meter),
        on_revoked: section
            .choice("on_revoked", &ON_REVOKED)
            .map_or(defaults.on_revoked, |at| at.value),
        resume_within: or_zero(section, "resume_within", "4h").unwrap_or(defaults.resume_within),
        allowlist_max_age: limit("allowlist_max_age", "30d", defaults.allowlist_max_age),
        accepted_technologies: technologies(section).unwrap_or(defaults.accepted_technologies),
        max_power_w: power("max_power", "2500W", defaults.max_power_w),
    }
}

/// A duration where `"off"` means zero.
fn or_zero(section: &Section<'_>, key: &'static str, example: &str) -> Option<Duration> {
    let value = section.parsed_or_off(key, example, values::duration)?;
    Some(value.unwrap_or(Duration::ZERO))
}

/// `idle_burst = { power = "400W", duration = "60s" }` or `"off"`.
fn idle_burst(section: &Section<'_>, default: Option<IdleBurst>) -> Option<IdleBurst> {
    let Some(entry) = section.get("idle_burst") else { return default };
    match entry.value().as_str() {
        Some("off") => return None,
        Some(_) => {
            let help = "write idle_burst = { power = \"400W\", duration = \"60s\" } or \"off\"";
            entry.wrong_type("a table or \"off\"", help);
            return None;
        }
        None => {}
    }
    let burst = entry.into_section()?;
    burst.require("power", "\"400W\"");
    burst.require("duration", "\"60s\"");
    let power = burst.parsed("power", "400W", power_w);
    let duration = burst.duration("duration", "60s", SECOND..=MAX_DURATION);
    burst.finish();
    Some(IdleBurst { power_w: power?.value, duration: duration?.value })
}

/// A list of technologies, or `"any"`.
fn technologies(section: &Section<'_>) -> Option<Option<Vec<Technology>>> {
    let entry = section.get("accepted_technologies")?;
    if entry.value().as_str() == Some("any") {
        return Some(None);
    }
    let words = TECHNOLOGIES.map(Technology::as_str);
    let help = format!("write \"any\" or a list of these: {}", words.join(", "));
    let Some(elements) = entry.elements() else {
        entry.wrong_type("\"any\" or a list", help);
        return None;
    };
    if elements.is_empty() {
        section.document.error(&entry.place, "accepts no badge at all", help);
        return None;
    }
    let mut technologies = Vec::new();
    for element in elements {
        let Some(word) = element.text("a technology", help.clone()) else { continue };
        match TECHNOLOGIES.into_iter().find(|technology| technology.as_str() == word.value) {
            Some(technology) => technologies.push(technology),
            None => {
                let message = format!("`{}` is no technology", word.value);
                let help = match values::closest(word.value, words) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => help.clone(),
                };
                section.document.error(&word.place, message, help);
            }
        }
    }
    Some(Some(technologies))
}
