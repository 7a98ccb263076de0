//! `down/cmd`: what the operator wants done, and `up/reply`: what became of it.
//!
//! A message is a command where its frame is whole: only then is there an id to answer. Whether the
//! operation is known and its arguments are good is a second question, answered with a reply.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::MAX_INTEGER;
use crate::core::ids::{BadgeId, SessionId, StationId, UserId, is_opaque_id};
use crate::core::time::Wall;
use crate::protocol::json;

/// Longest id of a command: a UUID and room for a prefix. It is kept on disk and sent back.
pub const MAX_ID_CHARS: usize = 128;
/// Longest note of a station: it is retained and shown on a screen.
pub const MAX_NOTE_CHARS: usize = 200;
/// Hashes that one command may ask for: a reply stays below 16 KiB.
pub const MAX_HASHES: usize = 128;
/// Longest time for which a command may change what is logged: a card fills up with `trace`.
pub const MAX_LOG_TIME: Duration = Duration::from_secs(24 * 3_600);

/// The frame of a command, before its operation is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Command {
    /// Names it; the same id again is the same command.
    #[serde(deserialize_with = "command_id")]
    pub id: String,
    /// The connection for which it is meant; required where commands are signed.
    #[serde(default)]
    pub nonce: Option<String>,
    /// Grows within a connection; required where commands are signed.
    #[serde(default, deserialize_with = "counter")]
    pub ctr: Option<u64>,
    /// From then on it is not carried out any more.
    pub expires: Wall,
    /// What to do, one of the contract's words.
    pub op: String,
    /// With what.
    #[serde(default)]
    pub args: Map<String, Value>,
}

impl Command {
    /// Reads a payload; the error says which member is wrong.
    pub fn parse(payload: &[u8]) -> Result<Command, String> {
        let value = json::parse_object(payload).map_err(|error| error.to_string())?;
        serde_json::from_value(value).map_err(|error| error.to_string())
    }
}

/// What a command wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub enum Operation {
    StationStart(StationStart),
    StationStop(StationStop),
    StationOutOfService(StationOutOfService),
    StationInService(StationInService),
    LedgerReplay(LedgerReplay),
    LedgerHash(LedgerHash),
    AllowlistReport,
    StateReport,
    BadgeOverrideClear(BadgeOverrideClear),
    LogLevel(LogLevel),
}

/// Why an operation cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// This version does not know it.
    UnknownOperation,
    /// It is known; the text says what is wrong with its arguments.
    BadArguments(String),
}

/// `station.start`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct StationStart {
    pub station: StationId,
    #[serde(deserialize_with = "user")]
    pub user: UserId,
    #[serde(default, deserialize_with = "optional_badge")]
    pub badge: Option<BadgeId>,
}

/// `station.stop`: exactly one of `station` and `session`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StationStopForm")]
pub struct StationStop {
    /// Which session.
    pub target: StopTarget,
    /// Also under load.
    pub now: bool,
}

/// What a stop names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopTarget {
    /// Whatever runs there.
    Station(StationId),
    /// This one and no other.
    Session(SessionId),
}

#[derive(Deserialize)]
struct StationStopForm {
    #[serde(default)]
    station: Option<StationId>,
    #[serde(default)]
    session: Option<SessionId>,
    #[serde(default)]
    now: bool,
}

impl TryFrom<StationStopForm> for StationStop {
    type Error = &'static str;

    fn try_from(form: StationStopForm) -> Result<Self, Self::Error> {
        let target = match (form.station, form.session) {
            (Some(station), None) => StopTarget::Station(station),
            (None, Some(session)) => StopTarget::Session(session),
            (None, None) | (Some(_), Some(_)) => {
                return Err("exactly one of station and session is needed");
            }
        };
        Ok(StationStop { target, now: form.now })
    }
}

/// `station.out_of_service`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct StationOutOfService {
    pub station: StationId,
    #[serde(default, deserialize_with = "note")]
    pub note: Option<String>,
}

/// `station.in_service`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct StationInService {
    pub station: StationId,
}

/// `ledger.replay`: the records `from` to `to`, both included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct LedgerReplay {
    pub epoch: String,
    #[serde(deserialize_with = "super::bounded")]
    pub from: u64,
    #[serde(deserialize_with = "super::bounded")]
    pub to: u64,
}

/// `ledger.hash`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct LedgerHash {
    pub epoch: String,
    #[serde(deserialize_with = "sequence_numbers")]
    pub seqs: Vec<u64>,
}

/// `badge.override.clear`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the contract")]
pub struct BadgeOverrideClear {
    #[serde(deserialize_with = "badge")]
    pub badge: BadgeId,
}

/// `log.level`: another level for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LogLevel {
    /// What is logged.
    pub level: Level,
    /// For how long: `"10m"`, or whole seconds.
    #[serde(rename = "for", deserialize_with = "log_time")]
    pub time: Duration,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

impl Operation {
    /// What `op` and `args` say.
    pub fn read(command: &Command) -> Result<Operation, Unreadable> {
        fn args<T: for<'de> Deserialize<'de>>(command: &Command) -> Result<T, Unreadable> {
            serde_json::from_value(Value::Object(command.args.clone()))
                .map_err(|error| Unreadable::BadArguments(format!("{}: {error}", command.op)))
        }
        match command.op.as_str() {
            "station.start" => args(command).map(Operation::StationStart),
            "station.stop" => args(command).map(Operation::StationStop),
            "station.out_of_service" => args(command).map(Operation::StationOutOfService),
            "station.in_service" => args(command).map(Operation::StationInService),
            "ledger.replay" => args(command).map(Operation::LedgerReplay),
            "ledger.hash" => args(command).map(Operation::LedgerHash),
            "allowlist.report" => Ok(Operation::AllowlistReport),
            "state.report" => Ok(Operation::StateReport),
            "badge.override.clear" => args(command).map(Operation::BadgeOverrideClear),
            "log.level" => args(command).map(Operation::LogLevel),
            _ => Err(Unreadable::UnknownOperation),
        }
    }
}

/// `up/reply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommandReply {
    /// The command's.
    pub id: String,
    /// How far it came.
    pub status: ReplyStatus,
    /// Why it was rejected or failed, one word; null otherwise.
    pub code: Option<String>,
    /// What belongs to it; null where nothing does.
    pub data: Value,
}

/// How far a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReplyStatus {
    /// Begun; another reply follows.
    Accepted,
    /// Done.
    Done,
    /// Not begun; nothing changed.
    Rejected,
    /// Begun and not brought to its end.
    Failed,
}

impl CommandReply {
    /// A reply without a reason.
    pub fn new(id: &str, status: ReplyStatus, data: Value) -> CommandReply {
        CommandReply { id: id.into(), status, code: None, data }
    }

    /// Nothing was done, because of `code`.
    pub fn rejected(id: &str, code: &str, data: Value) -> CommandReply {
        let code = Some(code.into());
        CommandReply { id: id.into(), status: ReplyStatus::Rejected, code, data }
    }

    /// It was begun, and then `code` came.
    pub fn failed(id: &str, code: &str, data: Value) -> CommandReply {
        CommandReply { status: ReplyStatus::Failed, ..CommandReply::rejected(id, code, data) }
    }
}

fn command_id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = String::deserialize(from)?;
    let plain = id.chars().all(|c| !c.is_control());
    if !plain || !(1..=MAX_ID_CHARS).contains(&id.chars().count()) {
        let wanted = format!("an id is 1 to {MAX_ID_CHARS} characters without control characters");
        return Err(D::Error::custom(wanted));
    }
    Ok(id)
}

fn counter<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<u64>::deserialize(from)?;
    if number.is_some_and(|number| number > MAX_INTEGER) {
        return Err(D::Error::custom("an integer is at most 2^53-1"));
    }
    Ok(number)
}

fn opaque<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = String::deserialize(from)?;
    if is_opaque_id(&id) {
        return Ok(id);
    }
    Err(D::Error::custom("an id of a badge or user is 1 to 64 of [A-Za-z0-9._-]"))
}

fn user<'de, D: Deserializer<'de>>(from: D) -> Result<UserId, D::Error> {
    opaque(from).map(UserId::from)
}

fn badge<'de, D: Deserializer<'de>>(from: D) -> Result<BadgeId, D::Error> {
    opaque(from).map(BadgeId::from)
}

fn optional_badge<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BadgeId>, D::Error> {
    match Option::<String>::deserialize(from)? {
        None => Ok(None),
        Some(id) if is_opaque_id(&id) => Ok(Some(id.into())),
        Some(_) => Err(D::Error::custom("a badge is 1 to 64 of [A-Za-z0-9._-]")),
    }
}

fn note<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let note = Option::<String>::deserialize(from)?;
    if note.as_ref().is_some_and(|note| note.chars().count() > MAX_NOTE_CHARS) {
        return Err(D::Error::custom(format!("a note has at most {MAX_NOTE_CHARS} characters")));
    }
    Ok(note.filter(|note| !note.is_empty()))
}

fn sequence_numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    let seqs = Vec::<u64>::deserialize(from)?;
    if seqs.is_empty() || seqs.len() > MAX_HASHES || seqs.iter().any(|seq| *seq > MAX_INTEGER) {
        return Err(D::Error::custom(format!("seqs are 1 to {MAX_HASHES} sequence numbers")));
    }
    Ok(seqs)
}

fn log_time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Seconds(u64),
        Text(String),
    }
    let time = match Form::deserialize(from)? {
        Form::Seconds(seconds) => Some(Duration::from_secs(seconds)),
        Form::Text(text) => {
            text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok())
        }
    };
    match time {
        Some(time) if !time.is_zero() && time <= MAX_LOG_TIME => Ok(time),
        Some(_) | None => Err(D::Error::custom("for is a duration such as 10m, at most 24h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(op: &str, args: Value) -> Command {
        let payload = json!({"id": "c-1", "nonce": "n", "ctr": 1, "op": op, "args": args,
            "expires": "2026-11-22T10:00:00Z", "gw": "x", "from_the_future": true});
        Command::parse(payload.to_string().as_bytes()).expect("a whole frame")
    }

    #[test]
    fn reads_every_operation() {
        let hour = Duration::from_secs(3_600);
        let session = SessionId([7; 16]);
        let stop = |target, now| Operation::StationStop(StationStop { target, now });
        let cases = [
            (
                command("station.start", json!({"station": "w", "user": "u-1"})),
                Operation::StationStart(StationStart {
                    station: "w".into(),
                    user: "u-1".into(),
                    badge: None,
                }),
            ),
            (
                command("station.stop", json!({"station": "w"})),
                stop(StopTarget::Station("w".into()), false),
            ),
            (
                command("station.stop", json!({"session": session.to_string(), "now": true})),
                stop(StopTarget::Session(session), true),
            ),
            (
                command("station.out_of_service", json!({"station": "w", "note": "leaks"})),
                Operation::StationOutOfService(StationOutOfService {
                    station: "w".into(),
                    note: Some("leaks".into()),
                }),
            ),
            (
                command("ledger.hash", json!({"epoch": "e", "seqs": [0, 7]})),
                Operation::LedgerHash(LedgerHash { epoch: "e".into(), seqs: vec![0, 7] }),
            ),
            (command("state.report", json!({})), Operation::StateReport),
            (command("allowlist.report", json!({})), Operation::AllowlistReport),
            (
                command("log.level", json!({"level": "debug", "for": "1h"})),
                Operation::LogLevel(LogLevel { level: Level::Debug, time: hour }),
            ),
            (
                command("log.level", json!({"level": "debug", "for": 3600})),
                Operation::LogLevel(LogLevel { level: Level::Debug, time: hour }),
            ),
        ];
        for (command, operation) in cases {
            assert_eq!(Operation::read(&command), Ok(operation));
        }
    }

    #[test]
    fn tells_unknown_operations_from_bad_arguments() {
        assert_eq!(
            Operation::read(&command("station.explode", json!({}))),
            Err(Unreadable::UnknownOperation)
        );
        let bad = [
            ("station.start", json!({"station": "w"})),
            ("station.start", json!({"station": "w", "user": "u 1"})),
            ("station.stop", json!({})),
            ("station.stop", json!({"station": "w", "session": SessionId([7; 16]).to_string()})),
            ("station.out_of_service", json!({"station": "w", "note": "x".repeat(201)})),
            ("ledger.replay", json!({"epoch": "e", "from": -1, "to": 2})),
            ("ledger.hash", json!({"epoch": "e", "seqs": []})),
            ("ledger.hash", json!({"epoch": "e", "seqs": vec![1; 129]})),
            ("log.level", json!({"level": "debug", "for": "25h"})),
            ("log.level", json!({"level": "debug", "for": "-1s"})),
            ("log.level", json!({"level": "loud", "for": "1m"})),
        ];
        for (op, args) in bad {
            let read = Operation::read(&command(op, args.clone()));
            assert!(matches!(read, Err(Unreadable::BadArguments(_))), "{op} {args}");
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_is_no_command() {
        let whole = json!({"id": "c-1", "nonce": "n", "ctr": 1, "op": "state.report", "args": {},
            "expires": "2026-11-22T10:00:00Z"});
        let broken = [
            ("id", json!(7)),
            ("id", json!("")),
            ("id", json!("x".repeat(129))),
            ("id", json!("a\nb")),
            ("nonce", json!(7)),
            ("ctr", json!(-1)),
            ("ctr", json!("1")),
            ("ctr", json!(1_u64 << 53)),
            ("expires", json!("tomorrow")),
            ("expires", Value::Null),
            ("op", json!(1)),
            ("args", json!([])),
        ];
        for (member, value) in broken {
            let mut payload = whole.clone();
            payload[member] = value.clone();
            assert!(Command::parse(payload.to_string().as_bytes()).is_err(), "{member} {value}");
        }
        for member in ["id", "op", "expires"] {
            let mut payload = whole.clone();
            payload.as_object_mut().expect("an object").remove(member);
            assert!(Command::parse(payload.to_string().as_bytes()).is_err(), "{member}");
        }
        let members: Vec<&Value> = ["id", "nonce", "ctr", "expires", "op", "args"]
            .iter()
            .map(|member| &whole[member])
            .collect();
        assert!(Command::parse(json!(members).to_string().as_bytes()).is_err(), "an array");
        assert!(Command::parse(whole.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn a_reply_has_all_four_members() {
        let done = CommandReply::new("c-1", ReplyStatus::Done, Value::Null);
        let text = serde_json::to_string(&done).expect("plain JSON");
        assert_eq!(text, r#"{"id":"c-1","status":"done","code":null,"data":null}"#);
        let stale = CommandReply::rejected("c-1", "stale", json!({"nonce": "n"}));
        let text = serde_json::to_string(&stale).expect("plain JSON");
        assert_eq!(text, r#"{"id":"c-1","status":"rejected","code":"stale","data":{"nonce":"n"}}"#);
    }
}
