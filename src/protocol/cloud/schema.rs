//! JSON Schemas and the AsyncAPI document, made from the wire types.
//!
//! They are committed, so that whoever writes a cloud need not build this program; the test here
//! fails where they are not what the types say. `make schemas` writes them.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::command::MAX_ID_CHARS;
use super::{
    Ack, AllowlistReport, Checkpoint, CommandReply, EventMessage, MAX_BATCH_RECORDS, Offline,
    StateWire, StationState, UsageBatch,
};
use crate::core::ids::SessionId;
use crate::core::ledger::Record;
use crate::core::time::Wall;

/// Set by `make schemas`: write instead of compare.
const WRITE: &str = "TAPGATE_WRITE_SCHEMAS";

/// A SHA-256 on the wire.
pub(super) struct Hash;
/// A UUID on the wire.
pub(super) struct Uuid;

macro_rules! text {
    ($($name:ty => $schema:tt),* $(,)?) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

text! {
    Hash => { "type": "string", "pattern": "^[0-9a-f]{64}$" },
    Uuid => { "type": "string", "format": "uuid" },
    SessionId => { "type": "string", "format": "uuid" },
    Wall => { "type": "string", "format": "date-time" },
}

/// A channel of the contract.
struct Channel {
    /// Its file under `docs/schemas`, and its name in the AsyncAPI document.
    name: &'static str,
    topic: &'static str,
    retain: bool,
    title: &'static str,
    schema: Value,
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// What the store puts before a record: its sequence number.
fn record() -> Value {
    let mut schema = schema_of::<Record>();
    schema["properties"]["seq"] = json!({"type": "integer", "minimum": 1, "maximum": MAX_INTEGER});
    let required = schema["required"].as_array_mut().expect("a record has required members");
    required.insert(0, "seq".into());
    schema["title"] = "Record".into();
    schema
}

const MAX_INTEGER: u64 = super::MAX_INTEGER;

fn usage() -> Value {
    let mut schema = schema_of::<UsageBatch>();
    let records = &mut schema["properties"]["records"];
    records["minItems"] = 1.into();
    records["maxItems"] = MAX_BATCH_RECORDS.into();
    records["items"]["contentMediaType"] = "application/json".into();
    records["items"]["contentSchema"] = json!({"$ref": "record.json"});
    schema
}

/// The birth, or the last will.
fn state() -> Value {
    let mut birth = schema_of::<StateWire<'_>>();
    let mut will = schema_of::<Offline>();
    birth["title"] = "Birth".into();
    birth["properties"]["online"]["const"] = true.into();
    will["properties"]["online"]["const"] = false.into();
    json!({"$schema": DRAFT, "title": "State", "oneOf": [embedded(birth), embedded(will)]})
}

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema within another: a resource of its own, so that its references stay within it.
fn embedded(mut schema: Value) -> Value {
    let title = schema["title"].as_str().unwrap_or_default().to_lowercase();
    schema["$id"] = format!("urn:tapgate:1:{title}").into();
    schema
}

/// The head of a list. Entries stay text in the program until each is judged.
fn head() -> Value {
    let hex = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    let uid = json!({"type": "string", "pattern": "^([0-9A-F]{8}|[0-9A-F]{14}|[0-9A-F]{20})$"});
    let id = json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"});
    let whole = json!({"type": "integer", "minimum": 0, "maximum": MAX_INTEGER});
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let entry = json!({
        "type": "object",
        "properties": {
            "badge": id, "uid": uid, "user": id,
            "origin": {"enum": ["issued", "third_party"]},
            "status": {"enum": ["active", "blocked"]},
            "blocked_reason": {"enum": ["lost", "unpaid", "moved_out", "other", null]},
            "grants": {"type": "array", "items": {
                "type": "string",
                "pattern": r"^(\*|(station|group|place|serial):.+)$",
            }},
            "valid_from": time, "valid_until": time,
            "max_concurrent": {"type": ["integer", "null"], "minimum": 0},
            "label": {"type": ["string", "null"], "maxLength": 64},
        },
        "required": ["badge", "uid", "user", "origin", "status", "grants"],
    });
    json!({
        "$schema": DRAFT,
        "title": "AllowlistHead",
        "type": "object",
        "properties": {
            "list": {"type": "string", "format": "uuid"},
            "version": whole, "count": whole, "digest": hex,
            "issued_at": {"type": "string", "format": "date-time"},
            "entries": {"type": "array", "items": {"$ref": "#/$defs/Entry"}},
            "parts": {"type": "array", "items": {
                "type": "object",
                "properties": {"sha256": hex, "bytes": whole},
                "required": ["sha256", "bytes"],
            }},
            "deltas": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "base": whole,
                    "upsert": {"type": "array", "items": {"$ref": "#/$defs/Entry"}},
                    "remove": {"type": "array", "items": uid},
                },
                "required": ["base"],
            }},
            "allow_shrink": {"type": "boolean"},
            "replaces": {"type": "string", "format": "uuid"},
        },
        "required": ["list", "version", "count", "digest", "issued_at"],
        "oneOf": [{"required": ["entries"]}, {"required": ["parts"]}],
        "$defs": {"Entry": entry},
    })
}

fn part() -> Value {
    let whole = json!({"type": "integer", "minimum": 0});
    json!({
        "$schema": DRAFT,
        "title": "Part",
        "type": "object",
        "properties": {
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "i": whole, "n": {"type": "integer", "minimum": 1},
            "data": {"type": "string", "contentEncoding": "base64"},
        },
        "required": ["sha256", "i", "n", "data"],
    })
}

/// The arguments of an operation.
fn argument(members: Value, required: Value) -> Value {
    json!({"type": "object", "properties": members, "required": required})
}

/// The operations and their arguments.
fn operations() -> [(&'static str, Value); 10] {
    let text = json!({"type": "string"});
    let whole = json!({"type": "integer", "minimum": 0, "maximum": MAX_INTEGER});
    let note = json!({"type": ["string", "null"], "maxLength": super::command::MAX_NOTE_CHARS});
    [
        (
            "station.start",
            argument(
                json!({"station": text, "user": text, "badge": {"type": ["string", "null"]}}),
                json!(["station", "user"]),
            ),
        ),
        (
            "station.stop",
            json!({"type": "object",
                "properties": {"station": text, "session": text, "now": {"type": "boolean"}},
                "oneOf": [{"required": ["station"]}, {"required": ["session"]}]}),
        ),
        (
            "station.out_of_service",
            argument(json!({"station": text, "note": note}), json!(["station"])),
        ),
        ("station.in_service", argument(json!({"station": text}), json!(["station"]))),
        (
            "ledger.replay",
            argument(
                json!({"epoch": text, "from": whole, "to": whole}),
                json!(["epoch", "from", "to"]),
            ),
        ),
        (
            "ledger.hash",
            argument(
                json!({"epoch": text, "seqs": {"type": "array", "items": whole,
                    "maxItems": super::command::MAX_HASHES}}),
                json!(["epoch", "seqs"]),
            ),
        ),
        ("allowlist.report", json!({"type": "object"})),
        ("state.report", json!({"type": "object"})),
        ("badge.override.clear", argument(json!({"badge": text}), json!(["badge"]))),
        (
            "log.level",
            argument(
                json!({"level": {"enum": ["error", "warn", "info", "debug", "trace"]},
                    "for": {"type": ["string", "integer"]}}),
                json!(["level", "for"]),
            ),
        ),
    ]
}

/// A command: one of the operations.
fn command() -> Value {
    let one =
        |(op, args): &(&str, Value)| json!({"properties": {"op": {"const": op}, "args": args}});
    json!({
        "$schema": DRAFT,
        "title": "Command",
        "type": "object",
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS},
            "nonce": {"type": ["string", "null"]},
            "ctr": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_INTEGER},
            "expires": {"type": "string", "format": "date-time"},
            "op": {"type": "string"},
            "args": {"type": "object"},
        },
        "required": ["id", "expires", "op"],
        "oneOf": operations().iter().map(one).collect::<Vec<_>>(),
    })
}

fn channels() -> Vec<Channel> {
    let channel =
        |name, topic, retain, title, schema| Channel { name, topic, retain, title, schema };
    vec![
        channel("up-state", "up/state", true, "birth and last will", state()),
        channel(
            "up-station",
            "up/station/{station}",
            true,
            "what a portal shows of a station",
            schema_of::<StationState>(),
        ),
        channel("up-usage", "up/usage", false, "a batch of ledger records", usage()),
        channel(
            "up-checkpoint",
            "up/checkpoint",
            true,
            "totals; the payload of a JWS that the gateway's key signs",
            schema_of::<Checkpoint>(),
        ),
        channel(
            "up-allowlist",
            "up/allowlist",
            false,
            "what is needed of a list, or what became of it",
            schema_of::<AllowlistReport>(),
        ),
        channel("up-event", "up/event", false, "alarms and denials", schema_of::<EventMessage>()),
        channel("up-reply", "up/reply", false, "answers to commands", schema_of::<CommandReply>()),
        channel("down-ack", "down/ack", true, "records are stored for good", schema_of::<Ack>()),
        channel("down-allowlist", "down/allowlist", true, "the head of a list", head()),
        channel("down-part", "down/part", false, "a chunk of a list's part", part()),
        channel("down-cmd", "down/cmd", false, "a command", command()),
    ]
}

/// AsyncAPI 3. What goes up is sent by the gateway, what comes down it receives.
fn asyncapi(channels: &[Channel]) -> String {
    let mut text = String::from(
        "# Made from the wire types by `make schemas`; do not edit.\nasyncapi: 3.0.0\ninfo:\n  \
         title: tapgate cloud contract\n  version: '1'\n  description: >-\n    MQTT 3.1.1, QoS 1. \
         docs/cloud-protocol.md says what the messages mean. With trusted_keys every\n    down \
         payload but parts is a compact JWS (EdDSA) whose payload also holds gw and typ.\n\
         defaultContentType: application/json\nchannels:\n",
    );
    for Channel { name, topic, title, .. } in channels {
        let station = topic.contains("{station}");
        let parameter = if station { "      station: {}\n" } else { "" };
        text += &format!(
            "  {name}:\n    address: tapgate/1/{{gateway}}/{topic}\n    title: {title}\n    \
             parameters:\n      gateway: {{}}\n{parameter}    messages:\n      {name}:\n        \
             payload:\n          \
             schemaFormat: application/schema+json;version=draft-2020-12\n          \
             schema:\n            $ref: schemas/{name}.json\n"
        );
    }
    text += "operations:\n";
    for Channel { name, topic, retain, .. } in channels {
        let action = if topic.starts_with("up/") { "send" } else { "receive" };
        text += &format!(
            "  {name}:\n    action: {action}\n    channel:\n      $ref: '#/channels/{name}'\n    \
             bindings:\n      mqtt:\n        qos: 1\n        retain: {retain}\n        \
             bindingVersion: 0.2.0\n"
        );
    }
    text
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Writes the file where that is asked for; what is wrong with it otherwise.
fn settle(path: &Path, text: &str) -> Option<String> {
    if std::env::var_os(WRITE).is_some() {
        fs::write(path, text).expect("the docs can be written");
    }
    let same = fs::read_to_string(path).is_ok_and(|committed| committed == text);
    (!same).then(|| format!("{} is not what the types say: make schemas", path.display()))
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let channels = channels();
    let mut faults = Vec::new();
    let schema = |value: &Value| format!("{value:#}\n");
    for Channel { name, schema: value, .. } in &channels {
        faults.extend(settle(&docs().join(format!("schemas/{name}.json")), &schema(value)));
    }
    faults.extend(settle(&docs().join("schemas/record.json"), &schema(&record())));
    faults.extend(settle(&docs().join("asyncapi.yaml"), &asyncapi(&channels)));
    assert_eq!(faults, [""; 0]);
}

#[test]
fn every_topic_of_the_contract_has_a_channel() {
    let topics = super::Topics::new("{gateway}");
    let named: Vec<String> = channels()
        .iter()
        .map(|channel| format!("tapgate/1/{{gateway}}/{}", channel.topic))
        .collect();
    let up = [topics.state(), topics.usage(), topics.checkpoint(), topics.allowlist()];
    let more = [topics.event(), topics.reply(), topics.station(&"{station}".into())];
    let down = [super::Down::Ack, super::Down::Allowlist, super::Down::Part, super::Down::Command];
    let down = down.map(|down| topics.down(down));
    for topic in up.iter().chain(&more).chain(&down) {
        assert!(named.contains(topic), "{topic}");
    }
    assert_eq!(named.len(), up.len() + more.len() + down.len());
}
