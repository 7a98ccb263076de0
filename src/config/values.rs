//! Durations, powers, energies and currents as people write them, and words that nearly match.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Nothing that a site waits for is longer; keeps sums of durations far from overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `"1500ms"`, `"90s"`, `"10m"`, `"4h"`, `"30d"`, or several in a row: `"7m 30s"`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let wrong = || format!("`{text}` is no duration; units are ms, s, m, h and d");
    let mut rest = text.trim();
    let mut milliseconds = 0u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let part = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
        let end = rest[part..]
            .find(|c: char| !c.is_ascii_alphabetic())
            .map_or(rest.len(), |at| part + at);
        let value = quantity(&rest[..end], &UNITS).ok_or_else(wrong)?;
        milliseconds = milliseconds.checked_add(value).ok_or_else(wrong)?;
        rest = rest[end..].trim_start();
    }
    let duration = Duration::from_millis(milliseconds);
    if duration > MAX_DURATION {
        Err(format!("`{text}` is longer than 100 years"))
    } else {
        Ok(duration)
    }
}

/// A [`duration`] within `range`.
pub(super) fn duration_within(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = duration(text)?;
        if range.contains(&value) {
            return Ok(value);
        }
        let (low, high) = (show(*range.start()), show(*range.end()));
        Err(format!("`{text}` is not between {low} and {high}"))
    }
}

/// A duration in its largest exact unit.
pub(super) fn show(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let exact =
        units.iter().find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(*unit));
    match exact {
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

/// `"2500W"` or `"2.5kW"`, in watts.
pub(super) fn power_w(text: &str) -> Result<u32, String> {
    quantity(text, &[("W", 1), ("kW", 1_000)])
        .and_then(|watts| u32::try_from(watts).ok())
        .filter(|watts| *watts > 0)
        .ok_or_else(|| format!("`{text}` is no power in whole watts; units are W and kW"))
}

/// `"50Wh"` or `"30kWh"`, in watt-hours.
pub(super) fn energy_wh(text: &str) -> Result<i64, String> {
    quantity(text, &[("Wh", 1), ("kWh", 1_000), ("MWh", 1_000_000)])
        .and_then(|energy| i64::try_from(energy).ok())
        .filter(|energy| *energy > 0)
        .ok_or_else(|| format!("`{text}` is no energy in whole watt-hours; units are Wh and kWh"))
}

/// `"16A"`, in milliamperes.
pub(super) fn current_ma(text: &str) -> Result<u32, String> {
    quantity(text, &[("mA", 1), ("A", 1_000)])
        .and_then(|current| u32::try_from(current).ok())
        .ok_or_else(|| format!("`{text}` is no current in whole milliamperes; units are A and mA"))
}

/// `HOST:PORT` or `HOST`; an IPv6 address stands in brackets.
pub(super) fn endpoint(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is no HOST:PORT; an IPv6 address stands in brackets");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (
                host,
                if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':').ok_or_else(wrong)?)
                },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(wrong());
    }
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        None => default_port,
    };
    Ok((host.to_owned(), port))
}

/// A decimal number and a unit, exactly, in the smallest unit.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..split], text[split..].trim_start());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = fraction.parse::<u64>().ok()?.checked_mul(*factor)?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(*factor)?;
    (parts % scale == 0).then(|| whole.checked_add(parts / scale))?
}

/// The word that was probably meant: at most two letters differ, and fewer than half of them.
pub(super) fn closest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    /// Nothing longer is compared; keys and ids are shorter.
    const MAX_LENGTH: usize = 64;
    if word.len() > MAX_LENGTH {
        return None;
    }
    words
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && 2 * distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added, dropped or swapped (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_as_people_write_them() {
        for (text, milliseconds) in [
            ("1500ms", 1_500),
            ("90s", 90_000),
            ("10m", 600_000),
            ("4h", 14_400_000),
            ("30d", 2_592_000_000),
            ("7m 30s", 450_000),
            ("1h30m", 5_400_000),
            ("1.5 h", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in [
            "",
            " ",
            "10",
            "m",
            "10 min",
            "-5s",
            "1e3s",
            "1.5ms",
            "5µs",
            "1..5s",
            ".5s",
            "5s5",
            "99999999999999999999d",
            "40000d",
            "1m -5s",
            "５s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_quantities_exactly() {
        assert_eq!(power_w("2500W"), Ok(2_500));
        assert_eq!(power_w("2.5kW"), Ok(2_500));
        assert_eq!(power_w("2.5 kW"), Ok(2_500));
        assert_eq!(energy_wh("50Wh"), Ok(50));
        assert_eq!(energy_wh("30kWh"), Ok(30_000));
        assert_eq!(current_ma("16A"), Ok(16_000));
        assert_eq!(current_ma("6.5A"), Ok(6_500));
        for wrong in ["0W", "2.5W", "2500", "2500w", "-5W", "2.5 kWh", "1e3W", "9999999kW", "W", ""]
        {
            assert!(power_w(wrong).is_err(), "{wrong}");
        }
        assert!(energy_wh("30kW").is_err());
        assert!(current_ma("0.0001A").is_err());
    }

    #[test]
    fn shows_durations_in_their_largest_exact_unit() {
        for text in ["1500ms", "90s", "10m", "4h", "30d", "0ms"] {
            assert_eq!(show(duration(text).expect("valid")), text);
        }
    }

    #[test]
    fn finds_the_word_that_was_meant() {
        let words = ["baud", "parity", "stop_bits", "id"];
        assert_eq!(closest("buad", words), Some("baud"));
        assert_eq!(closest("stop-bits", words), Some("stop_bits"));
        assert_eq!(closest("unit", words), None);
        assert_eq!(closest("x", words), None);
        assert_eq!(closest(&"é".repeat(1_000), words), None);
    }
}
