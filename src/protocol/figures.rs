//! What a bus, or one unit of it, has done: the same figures in status, events and `tapgate top`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Requests, errors, latencies and load. Counters are since the daemon started, rates are of the
/// last minute, latencies of some thousands of the last answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Figures {
    /// Requests since the daemon started.
    pub requests: u64,
    /// How many of them brought no usable answer.
    pub errors: u64,
    /// The same of a thousand requests of the last minute; null where there was none.
    #[serde(default)]
    pub error_rate_permille: Option<u16>,
    /// Half of the answers took at most this long.
    #[serde(default)]
    pub latency_p50_ms: Option<u32>,
    /// Of a hundred answers 99 took at most this long.
    #[serde(default)]
    pub latency_p99_ms: Option<u32>,
    /// Share of the last minute in which the line was in use, waiting for an answer included.
    #[serde(default)]
    pub utilisation_percent: u8,
}

impl Figures {
    /// Half and 99 of a hundred answers, as in `8/23 ms`.
    pub fn latency(&self) -> String {
        match (self.latency_p50_ms, self.latency_p99_ms) {
            (Some(p50), Some(p99)) => format!("{p50}/{p99} ms"),
            (Some(_) | None, Some(_) | None) => "-".into(),
        }
    }

    /// The errors of the last minute, as in `0.3 %`.
    pub fn error_rate(&self) -> String {
        self.error_rate_permille.map_or("-".into(), |rate| format!("{}.{} %", rate / 10, rate % 10))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { requests, errors, utilisation_percent, .. } = self;
        let (latency, rate) = (self.latency(), self.error_rate());
        write!(f, "{utilisation_percent} % busy, {latency}, {rate} errors, {errors} of {requests}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_one_phrase() {
        let figures = Figures {
            requests: 4_012,
            errors: 3,
            error_rate_permille: Some(12),
            latency_p50_ms: Some(8),
            latency_p99_ms: Some(23),
            utilisation_percent: 12,
        };
        assert_eq!(figures.to_string(), "12 % busy, 8/23 ms, 1.2 % errors, 3 of 4012");
        assert_eq!(Figures::default().to_string(), "0 % busy, -, - errors, 0 of 0");
    }
}
