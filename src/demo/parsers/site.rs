//! What a technician writes, and what commands ask.

use crate::config::library::parse_profile;
use crate::config::{Library, Problem, parse_with};
use crate::protocol::control::Request;

const FILE: &str = "site.toml";

/// A config, against the built-in profiles.
pub(super) fn config(bytes: &[u8]) {
    thread_local!(static LIBRARY: Library = Library::built_in());
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    LIBRARY.with(|library| judge(text, library));
}

fn judge(text: &str, library: &Library) {
    match parse_with(text, FILE, library) {
        Ok(config) => {
            are_told(text, &config.warnings);
            assert!(!config.gateway_id.is_empty());
            let stations = &config.site.stations;
            assert_eq!(stations.len(), config.wiring.stations.len());
            let again = parse_with(text, FILE, library).expect("it was just accepted");
            assert_eq!(format!("{config:?}"), format!("{again:?}"), "the same text, another site");
        }
        Err(errors) => {
            are_told(text, errors.problems());
            are_told(text, errors.warnings());
        }
    }
}

/// A device profile.
pub(super) fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match parse_profile(text, FILE) {
        Ok(profile) => {
            assert!(!profile.name.is_empty());
            let _ = profile.doubts();
            for point in profile.points.values() {
                assert!(point.scale.denominator != 0 && point.scale.numerator != 0);
                let last = u32::from(point.address) + u32::from(point.value.registers());
                assert!(last <= 0x1_0000, "beyond the last register");
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            are_told(text, &problems);
        }
    }
}

/// Each names a place that is there, what is wrong and what to do.
fn are_told(text: &str, problems: &[Problem]) {
    let lines = text.split('\n').count();
    for problem in problems {
        assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{problem:?}");
        assert_eq!(problem.file, FILE);
        assert!((0..=lines).contains(&problem.line), "{problem:?}");
        assert!(!problem.to_string().is_empty());
    }
}

/// A line on the control socket.
pub(super) fn control(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(bytes) else { return };
    let text = serde_json::to_vec(&request).expect("it came as JSON");
    assert_eq!(serde_json::from_slice::<Request>(&text).ok(), Some(request));
}
