//! What comes down from the cloud, for whoever throws anything at it; `demo::parsers` says what
//! must hold.

use std::io::{Cursor, Read, Write};

use rumqttc::{Publish, QoS};

use super::down::{self, Message};
use super::packets::Packets;
use super::probe::packet::{self, Login, Version};
use super::signature::TrustedKeys;
use crate::protocol::cloud::Topics;
use crate::protocol::cloud::command::Command;
use crate::protocol::cloud::{Ack, Down};

/// What a payload is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words are those of the topics")]
pub enum Taken {
    Ack(Ack),
    Head(Vec<u8>),
    Part(Vec<u8>),
    Command(Command),
}

/// What a gateway takes a payload for; `None` where it changes nothing.
pub fn take(
    gateway: &str,
    keys: &TrustedKeys,
    down: Down,
    payload: &[u8],
    retained: bool,
) -> Option<Taken> {
    let topic = format!("tapgate/1/{gateway}/{}", down.as_str());
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
    publish.retain = retained;
    Some(match down::read(&Topics::new(gateway), keys, &publish).ok()? {
        Message::Ack(ack) => Taken::Ack(ack),
        Message::AllowlistHead(head) => Taken::Head(head),
        Message::AllowlistPart(part) => Taken::Part(part),
        Message::Command(command) => Taken::Command(command),
    })
}

/// What `tapgate cloud test` makes of a broker that answers with these bytes.
pub fn probe(answers: &[u8]) -> Result<(), String> {
    struct Broker<'a>(Cursor<&'a [u8]>);
    impl Read for Broker<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(into)
        }
    }
    impl Write for Broker<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut broker = Broker(Cursor::new(answers));
    let login = Login { client_id: "gw", username: None, password: None };
    let said = |error: std::io::Error| error.to_string();
    packet::connect(&mut broker, Version::Five, &login).map_err(said)?.check_connected("it")?;
    packet::subscribe(&mut broker, Version::Five, "a").map_err(said)?;
    packet::publish(&mut broker, Version::Five, "a", "b").map(drop).map_err(said)
}

/// What comes of a broker's bytes that arrive in pieces of `step`, where packets beyond `limit`
/// are shortened; and whether the rest was refused.
pub fn cut(bytes: &[u8], step: usize, limit: usize) -> (Vec<String>, bool) {
    let (mut packets, mut all) = (Packets::kept_to(limit), Vec::new());
    for piece in bytes.chunks(step) {
        packets.room().extend_from_slice(piece);
        loop {
            match packets.next() {
                Ok(Some(packet)) => all.push(format!("{packet:?}")),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
        assert!(packets.waiting() < limit + 5 + step, "{} bytes wait", packets.waiting());
    }
    (all, false)
}
