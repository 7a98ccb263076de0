//! Reads what comes down. Bad input changes nothing: it becomes one value that says what is wrong.

use rumqttc::Publish;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::signature::{BadSignature, TrustedKeys};
use crate::core::time::Wall;
use crate::protocol::cloud::command::Command;
use crate::protocol::cloud::{Ack, Down, EventBody, MAX_PAYLOAD_BYTES, Topics};

/// A good message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Ack(Ack),
    AllowlistHead(Vec<u8>),
    AllowlistPart(Vec<u8>),
    Command(Command),
}

impl Message {
    /// When the cloud says that it issued this.
    pub(super) fn issued_at(&self) -> Option<Wall> {
        #[derive(Deserialize)]
        struct Issued {
            issued_at: Wall,
        }
        match self {
            Message::Ack(ack) => Some(ack.issued_at),
            Message::AllowlistHead(head) => {
                serde_json::from_slice::<Issued>(head).ok().map(|head| head.issued_at)
            }
            Message::AllowlistPart(_) | Message::Command(_) => None,
        }
    }
}

/// A message that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Empty, or a topic of a newer contract: no message for this gateway.
    Irrelevant,
    Malformed(String),
    /// The same on the topic of allowlist heads, where the cloud gets an answer.
    MalformedHead(String),
    BadSignature(BadSignature),
}

/// Longest quotation of what is wrong with a message.
const MAX_DETAIL_CHARS: usize = 200;

impl Refused {
    /// What the cloud hears of it.
    pub(super) fn event(&self, topic: &str) -> Option<EventBody> {
        let topic = topic.to_owned();
        match self {
            Refused::Irrelevant => None,
            Refused::Malformed(why) | Refused::MalformedHead(why) => {
                let detail = why.chars().take(MAX_DETAIL_CHARS).collect();
                Some(EventBody::BadMessage { topic, detail })
            }
            Refused::BadSignature(why) => {
                Some(EventBody::BadSignature { topic, detail: why.to_string() })
            }
        }
    }
}

/// Judges an incoming message.
pub(super) fn read(
    topics: &Topics,
    keys: &TrustedKeys,
    publish: &Publish,
) -> Result<Message, Refused> {
    let down = topics.parse(&publish.topic).ok_or(Refused::Irrelevant)?;
    let payload = &publish.payload;
    if payload.is_empty() {
        return Err(Refused::Irrelevant);
    }
    if down == Down::Command && publish.retain {
        // It lay there before this connection: nobody means it now.
        return Err(Refused::Malformed("it is retained; publish commands without retain".into()));
    }
    let malformed = |why| match down {
        Down::Allowlist => Refused::MalformedHead(why),
        Down::Ack | Down::Part | Down::Command => Refused::Malformed(why),
    };
    if payload.len() > MAX_PAYLOAD_BYTES {
        let why = format!("it has more than {MAX_PAYLOAD_BYTES} bytes; send it in parts");
        // Whoever signs gets an answer; whether this is signed cannot be told any more.
        return Err(if keys.required() { Refused::Malformed(why) } else { malformed(why) });
    }
    let json = match down.signed_type() {
        Some(typ) => keys.verify(payload, typ).map_err(|error| match error {
            BadSignature::NoObject => malformed(error.to_string()),
            error => Refused::BadSignature(error),
        })?,
        None => payload.to_vec(),
    };
    // Readers of members do not look into those that they skip.
    std::str::from_utf8(&json).map_err(|error| malformed(error.to_string()))?;
    let message = match down {
        Down::Ack => Ack::parse(&json).map(Message::Ack),
        Down::Allowlist => object(json).map(Message::AllowlistHead),
        Down::Part => object(json).map(Message::AllowlistPart),
        Down::Command => Command::parse(&json).map(Message::Command),
    };
    message.map_err(malformed)
}

/// A payload that is one JSON object; its reader looks at the members.
fn object(json: Vec<u8>) -> Result<Vec<u8>, String> {
    serde_json::from_slice::<IgnoredAny>(&json).map_err(|error| error.to_string())?;
    match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(json),
        Some(_) | None => Err("it is not a JSON object".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::QoS;

    fn judge(what: &str, payload: impl Into<Vec<u8>>, retain: bool) -> Result<Message, Refused> {
        let mut publish =
            Publish::new(format!("tapgate/1/gw/down/{what}"), QoS::AtLeastOnce, payload);
        publish.retain = retain;
        read(&Topics::new("gw"), &TrustedKeys::new(&[], "gw"), &publish)
    }

    #[test]
    fn rubbish_is_refused_on_every_topic() {
        let deep = "[".repeat(10_000);
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(65_536));
        let texts =
            ["{", "[]", "7", "null", "\"x\"", "{}}", "\u{fffd}", deep.as_str(), long.as_str()];
        let mut rubbish: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).to_vec();
        rubbish.push(vec![0xff, 0xfe, 0x00]);
        rubbish.push([&br#"{"skipped":""#[..], &[0xff], br#""}"#].concat());
        for rubbish in rubbish {
            for what in ["ack", "part", "cmd"] {
                let refused = judge(what, rubbish.clone(), false);
                assert!(matches!(refused, Err(Refused::Malformed(_))), "{what} {rubbish:02x?}");
            }
            let refused = judge("allowlist", rubbish.clone(), false);
            assert!(matches!(refused, Err(Refused::MalformedHead(_))), "{rubbish:02x?}");
        }
    }

    #[test]
    fn empty_payloads_and_unknown_topics_are_no_messages() {
        for what in ["ack", "allowlist", "part", "cmd"] {
            assert_eq!(judge(what, "", true), Err(Refused::Irrelevant), "{what}");
        }
        assert_eq!(judge("future", "{}", false), Err(Refused::Irrelevant));
    }

    #[test]
    fn a_retained_command_is_refused_whatever_it_says() {
        let command = r#"{"id":"1","expires":"2126-11-22T10:00:00Z","op":"state.report"}"#;
        assert!(matches!(judge("cmd", command, false), Ok(Message::Command(_))));
        for payload in [command, "{}", "x"] {
            let Err(Refused::Malformed(why)) = judge("cmd", payload, true) else {
                panic!("{payload} is taken");
            };
            assert!(why.contains("without retain"), "{why}");
        }
    }

    #[test]
    fn objects_are_handed_on_as_they_came() {
        let head = r#"{"list":"x", "version":1}"#;
        assert_eq!(
            judge("allowlist", head, true),
            Ok(Message::AllowlistHead(head.as_bytes().to_vec()))
        );
        assert_eq!(judge("part", " {}", false), Ok(Message::AllowlistPart(b" {}".to_vec())));
    }
}
