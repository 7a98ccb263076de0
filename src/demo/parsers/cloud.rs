//! What comes down from the cloud.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Choices;
use crate::io::mqtt::TrustedKeys;
use crate::io::mqtt::outside::{Taken, cut, probe, take};
use crate::protocol::allowlist::{
    self, Chunk, Content, Head, MAX_CHUNK_BYTES, MAX_CHUNKS, badge_of, judge,
};
use crate::protocol::cloud::command::{Command, MAX_ID_CHARS, Operation};
use crate::protocol::cloud::{Ack, Down, MAX_INTEGER, MAX_PAYLOAD_BYTES};
use crate::protocol::json;

const GATEWAY: &str = "gw-1";
const ALL: [Down; 4] = [Down::Ack, Down::Allowlist, Down::Part, Down::Command];

/// `down/ack`.
pub(super) fn ack(bytes: &[u8]) {
    let Ok(ack) = Ack::parse(bytes) else { return };
    assert!(ack.upto <= MAX_INTEGER);
    let text = serde_json::to_vec(&ack).expect("it came as JSON");
    assert_eq!(Ack::parse(&text), Ok(ack));
}

/// `down/cmd`.
pub(super) fn command(bytes: &[u8]) {
    let Ok(command) = Command::parse(bytes) else { return };
    assert!((1..=MAX_ID_CHARS).contains(&command.id.chars().count()));
    assert!(!command.id.contains(char::is_control), "it would reach a journal");
    assert!(command.ctr.is_none_or(|ctr| ctr <= MAX_INTEGER));
    let mut again = json!({"id": command.id, "nonce": command.nonce, "op": command.op,
        "expires": command.expires, "args": command.args});
    if let Some(ctr) = command.ctr {
        again["ctr"] = json!(ctr);
    }
    assert_eq!(Command::parse(again.to_string().as_bytes()).as_ref(), Ok(&command));
    let operation = Operation::read(&command);
    assert_eq!(operation, Operation::read(&command));
}

/// `down/allowlist`.
pub(super) fn head(bytes: &[u8]) {
    let Ok(head) = Head::parse(bytes) else { return };
    assert!(head.version <= MAX_INTEGER && head.count <= MAX_INTEGER);
    assert_eq!(Head::version_of(bytes), Some(head.version));
    // Not looked into: a bad entry is refused as such, by its index.
    let members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(bytes).expect("a head is a JSON object");
    let has = |member: &str| members.get(member).is_some_and(|value| value.get() != "null");
    assert_ne!(has("entries"), has("parts"));
    match &head.content {
        Content::Entries(entries) => entries.iter().for_each(|raw| entry(raw.get().as_bytes())),
        Content::Parts(parts) => assert!(parts.iter().all(|part| part.bytes <= MAX_INTEGER)),
    }
    for delta in &head.deltas {
        delta.upsert.iter().for_each(|raw| entry(raw.get().as_bytes()));
    }
}

/// An entry of a list, inline or a line of a part.
pub(super) fn entry(bytes: &[u8]) {
    let Ok((uid, good, canonical)) = judge(bytes) else { return };
    let value = json::parse(bytes).expect("judged good");
    assert_eq!(canonical, json::canonical(&value), "the faster way differs");
    assert_eq!(judge(&canonical).as_ref(), Ok(&(uid, good.clone(), canonical.clone())));
    assert_eq!(badge_of(&canonical).as_deref(), Some(good.badge.as_str()));
    assert_eq!(value["uid"], uid.to_string());
    let _ = allowlist::is_usable(&good);
}

/// `down/part`.
pub(super) fn part(bytes: &[u8]) {
    let Ok(chunk) = Chunk::parse(bytes) else { return };
    assert!((1..=MAX_CHUNK_BYTES).contains(&(chunk.bytes.len() as u64)));
    assert!(chunk.i < chunk.n && chunk.n <= MAX_CHUNKS);
    let data = STANDARD.encode(&chunk.bytes);
    let text = json!({"sha256": chunk.sha256, "i": chunk.i, "n": chunk.n, "data": data});
    assert_eq!(Chunk::parse(text.to_string().as_bytes()), Ok(chunk));
}

/// A header and a content that the cloud's own key signed, on each signed topic: nothing passes
/// that does not say what it must.
pub(super) fn jws(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let length = usize::from(choices.byte());
    let rest = choices.rest();
    let (header, content) = rest.split_at(length.min(rest.len()));
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(content));
    let signature = URL_SAFE_NO_PAD.encode(signing().sign(signed.as_bytes()).to_bytes());
    let jws = format!("{signed}.{signature}");
    for typ in ["ack", "allowlist", "cmd"] {
        let Ok(passed) = keys().verify(jws.as_bytes(), typ) else { continue };
        assert_eq!(passed, content);
        let says = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();
        assert_eq!(says(header)["alg"], "EdDSA");
        for brought in ["jwk", "jku", "x5u", "crit"] {
            assert!(says(header).get(brought).is_none(), "{brought}");
        }
        assert_eq!((&says(content)["gw"], &says(content)["typ"]), (&json!(GATEWAY), &json!(typ)));
        let mut forged = jws.clone().into_bytes();
        let at = usize::from(choices_of(content)) % forged.len();
        forged[at] ^= 1;
        assert!(keys().verify(&forged, typ).is_err(), "byte {at} may be another");
    }
}

/// Where a forger strikes.
fn choices_of(content: &[u8]) -> u16 {
    content.iter().fold(7, |place: u16, byte| place.wrapping_mul(31).wrapping_add((*byte).into()))
}

/// A payload on every topic, of a gateway that trusts a key and of one that trusts none.
pub(super) fn down(bytes: &[u8]) {
    let none = TrustedKeys::new(&[], GATEWAY);
    for topic in ALL {
        for (keys, signs) in [(&none, false), (keys(), true)] {
            let taken = take(GATEWAY, keys, topic, bytes, false);
            let retained = take(GATEWAY, keys, topic, bytes, true);
            match topic {
                Down::Command => assert_eq!(retained, None, "a retained command"),
                Down::Ack | Down::Allowlist | Down::Part => assert_eq!(retained, taken),
            }
            let Some(taken) = taken else { continue };
            assert!((1..=MAX_PAYLOAD_BYTES).contains(&bytes.len()));
            let unsigned = !signs || topic == Down::Part;
            assert!(unsigned || is_signed(bytes), "taken unsigned on {topic:?}");
            look_into(&taken, topic);
        }
    }
}

/// Nobody but this key's holder makes such bytes.
fn is_signed(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((signed, signature)) = text.trim_end().rsplit_once('.') else { return false };
    let signature = URL_SAFE_NO_PAD.decode(signature).ok();
    signature.is_some_and(|it| it == signing().sign(signed.as_bytes()).to_bytes())
}

fn look_into(taken: &Taken, topic: Down) {
    match taken {
        Taken::Ack(_) => assert_eq!(topic, Down::Ack),
        Taken::Command(_) => assert_eq!(topic, Down::Command),
        Taken::Head(json) => {
            assert_eq!(topic, Down::Allowlist);
            head(json);
        }
        Taken::Part(json) => {
            assert_eq!(topic, Down::Part);
            part(json);
        }
    }
}

/// What a broker sends: the same packets come of it, wherever the line cuts it into pieces.
pub(super) fn packets(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let (step, limit) = (usize::from(choices.byte()) + 1, 16 + usize::from(choices.byte()));
    let bytes = choices.rest();
    assert_eq!(cut(bytes, step, limit), cut(bytes, bytes.len().max(1), limit));
}

/// What a broker answers to `tapgate cloud test`.
pub(super) fn broker(bytes: &[u8]) {
    if let Err(why) = probe(bytes) {
        assert!(!why.is_empty());
    }
}

fn signing() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::from_bytes(&[7; 32]))
}

fn keys() -> &'static TrustedKeys {
    static KEYS: OnceLock<TrustedKeys> = OnceLock::new();
    KEYS.get_or_init(|| TrustedKeys::new(&[signing().verifying_key().to_bytes()], GATEWAY))
}
