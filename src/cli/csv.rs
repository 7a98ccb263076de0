//! Records as comma-separated values (RFC 4180): one line a record, one column a member.

use serde_json::Value;

use crate::protocol::control::LedgerRecord;

/// Members of records that have a column of their own, in this order; those of `at` are unnested.
/// The last column is the record itself, whatever members it has.
const MEMBERS: [&str; 23] = [
    "session",
    "station",
    "station_kind",
    "user",
    "badge",
    "authorised_by",
    "allowlist_version",
    "meter",
    "serial",
    "slot",
    "register_wh",
    "end_register_wh",
    "energy_wh",
    "from_wh",
    "to_wh",
    "estimated",
    "reason",
    "cause",
    "quality",
    "duration_s",
    "old_register_wh",
    "new_register_wh",
    "action",
];

/// The first line.
pub(super) fn header() -> String {
    let fixed = ["epoch", "seq", "kind", "boot", "uptime_ms", "wall", "synced"];
    let columns: Vec<&str> = fixed.into_iter().chain(MEMBERS).chain(["hash", "record"]).collect();
    format!("{}\r\n", columns.join(","))
}

/// One record.
pub(super) fn line(epoch: &str, record: &LedgerRecord) -> String {
    let value: Value = serde_json::from_str(&record.record).unwrap_or_default();
    let at = |member: &str| cell(&value["at"][member]);
    let mut cells = vec![
        field(epoch),
        record.seq.to_string(),
        cell(&value["kind"]),
        at("boot"),
        at("uptime_ms"),
        at("wall"),
        at("synced"),
    ];
    cells.extend(MEMBERS.map(|member| cell(&value[member])));
    cells.push(field(&record.hash));
    cells.push(field(&record.record));
    format!("{}\r\n", cells.join(","))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => field(text),
        other => field(&other.to_string()),
    }
}

/// Quoted where it must be. A spreadsheet would take what starts like a formula for one.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_columns_of_the_header() {
        let record = LedgerRecord {
            seq: 7,
            hash: "ab".into(),
            record: r#"{"seq":7,"kind":"session_ending","at":{"boot":1,"uptime_ms":2,"wall":"w","synced":true},"session":"s","reason":"=1+1"}"#
                .into(),
        };

        let line = line("e", &record);

        assert!(line.starts_with("e,7,session_ending,1,2,w,true,s,,,"), "{line}");
        assert!(line.contains(",'=1+1,"), "{line}");
        assert!(line.ends_with("\"\"=1+1\"\"}\"\r\n"), "{line}");
        let columns = header().matches(',').count();
        let commas = line.split(",\"{").next().map(|cells| cells.matches(',').count());
        assert_eq!(commas, Some(columns - 1));
    }

    #[test]
    fn quotes_what_would_break_a_line() {
        assert_eq!(field("plain"), "plain");
        assert_eq!(field("a,b"), "\"a,b\"");
        assert_eq!(field("say \"hi\"\n"), "\"say \"\"hi\"\"\n\"");
    }
}
