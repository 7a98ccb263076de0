//! What the broker sends, cut into packets by rumqttc's codec.
//!
//! MQTT 3.1.1 can refuse a packet only by ending the connection, and a retained one would end each
//! connection anew. So a message beyond any use is shortened: its first bytes show topic and
//! excess, the rest passes by and is kept nowhere.

use bytes::{Buf, BytesMut};
use rumqttc::{Error, Packet, PacketType};

use crate::protocol::cloud::MAX_PAYLOAD_BYTES;

/// Largest packet that is kept whole, in bytes after its fixed header. With the longest topic there
/// is (64 KiB) and a packet id, what is cut off still lies beyond the contract's payload.
pub(super) const MAX_PACKET_BYTES: usize = MAX_PAYLOAD_BYTES + 1 + 2 + 65_535 + 2;
/// Room for what is read at once.
const READ_BYTES: usize = 4_096;

/// Bytes that came, and what is known of those that still come.
#[derive(Debug)]
pub(super) struct Packets {
    /// The largest packet that is kept whole, in bytes after its fixed header.
    limit: usize,
    buffer: BytesMut,
    /// So many bytes of a shortened message have not passed by yet.
    excess: usize,
    /// That message. It counts when all of it is here, as any other.
    shortened: Option<Packet>,
}

impl Default for Packets {
    fn default() -> Packets {
        Packets::kept_to(MAX_PACKET_BYTES)
    }
}

impl Packets {
    /// Nothing has come yet.
    pub(super) fn kept_to(limit: usize) -> Packets {
        Packets { limit, buffer: BytesMut::new(), excess: 0, shortened: None }
    }

    /// Bytes that wait for more.
    #[cfg(feature = "demo")]
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Where to read to.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next packet that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, Error> {
        let passed = self.excess.min(self.buffer.len());
        self.buffer.advance(passed);
        self.excess -= passed;
        if self.excess > 0 {
            return Ok(None);
        }
        if let Some(packet) = self.shortened.take() {
            return Ok(Some(packet));
        }
        match Packet::read(&mut self.buffer, self.limit) {
            Ok(packet) => Ok(Some(packet)),
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(Error::PayloadSizeLimitExceeded(bytes)) if self.is_publish() => {
                self.shorten(bytes)?;
                if self.shortened.is_some() { self.next() } else { Ok(None) }
            }
            Err(error) => Err(error),
        }
    }

    fn is_publish(&self) -> bool {
        self.buffer.first().is_some_and(|first| first >> 4 == PacketType::Publish as u8)
    }

    /// Takes as much of a message of `bytes` as is kept, once that is here.
    fn shorten(&mut self, bytes: usize) -> Result<(), Error> {
        // Flags, and the four bytes that the length of such a message takes at most.
        let more = |byte: &&u8| *byte & 0x80 != 0;
        let header = 2 + self.buffer[1..].iter().take_while(more).count();
        if self.buffer.len() < header + self.limit {
            return Ok(());
        }
        let flags = self.buffer[0];
        self.buffer.advance(header);
        let mut short = BytesMut::with_capacity(4 + self.limit);
        short.extend_from_slice(&[flags]);
        short.extend_from_slice(&remaining_length(self.limit));
        short.extend_from_slice(&self.buffer.split_to(self.limit));
        self.shortened = Some(Packet::read(&mut short, self.limit)?);
        self.excess = bytes - self.limit;
        Ok(())
    }
}

/// A length as MQTT has it: seven bits a byte, the lowest first; three bytes take 2 MiB.
fn remaining_length(bytes: usize) -> [u8; 3] {
    let seven_bits = |at: usize| (bytes >> at & 0x7f) as u8;
    [seven_bits(0) | 0x80, seven_bits(7) | 0x80, seven_bits(14)]
}

#[cfg(test)]
mod tests {
    use rumqttc::{PubAck, Publish, QoS};

    use super::*;

    fn message(topic: &str, payload: usize, retain: bool) -> Packet {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, vec![b'x'; payload]);
        (publish.pkid, publish.retain) = (7, retain);
        Packet::Publish(publish)
    }

    fn on_the_line(packets: &[Packet]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, usize::MAX).expect("a packet");
        }
        bytes
    }

    /// Everything that comes of `bytes`, read in pieces of `step`.
    fn read(bytes: &[u8], step: usize) -> Vec<Packet> {
        let (mut packets, mut all) = (Packets::default(), Vec::new());
        for piece in bytes.chunks(step) {
            packets.room().extend_from_slice(piece);
            while let Some(packet) = packets.next().expect("packets") {
                all.push(packet);
            }
            let most = MAX_PACKET_BYTES + 5 + step;
            assert!(packets.buffer.len() <= most, "{} bytes wait", packets.buffer.len());
        }
        assert_eq!(packets.excess, 0);
        all
    }

    #[test]
    fn what_is_of_use_comes_whole_wherever_it_is_split() {
        let sent = [
            Packet::PubAck(PubAck::new(9)),
            message("t", 0, false),
            message("a/topic", 300, true),
            message("a/topic", MAX_PAYLOAD_BYTES, true),
            message(&"t".repeat(65_535), MAX_PAYLOAD_BYTES + 1, false),
            Packet::PingResp,
        ];
        let bytes = on_the_line(&sent);
        for step in [1, 2, 3, 7, 4_096, bytes.len()] {
            assert_eq!(read(&bytes, step), sent, "in pieces of {step}");
        }
    }

    #[test]
    fn what_is_too_long_is_shortened_and_nothing_behind_it_is_lost() {
        for (topic, payload) in [("a/topic", 1 << 20), (&*"t".repeat(65_535), 3 << 20)] {
            let long = message(topic, payload, true);
            let bytes = on_the_line(&[Packet::PingResp, long.clone(), long, Packet::PingResp]);
            for step in [1_021, 4_096, 100_000, bytes.len()] {
                let read = read(&bytes, step);
                let [Packet::PingResp, Packet::Publish(one), two, Packet::PingResp] = &read[..]
                else {
                    panic!("{read:?}");
                };
                assert_eq!(*two, Packet::Publish(one.clone()));
                assert_eq!((&*one.topic, one.pkid, one.retain), (topic, 7, true));
                assert!(one.payload.len() > MAX_PAYLOAD_BYTES, "its excess shows");
                assert!(one.payload.iter().all(|byte| *byte == b'x'));
            }
        }
    }

    #[test]
    fn a_message_that_never_ends_waits_for_its_end() {
        let bytes = on_the_line(&[message("t", 1 << 20, false)]);
        let mut packets = Packets::default();
        packets.room().extend_from_slice(&bytes[..bytes.len() - 1]);
        assert!(matches!(packets.next(), Ok(None)));
        assert!(packets.excess == 1 && packets.buffer.is_empty());
        packets.room().extend_from_slice(&bytes[bytes.len() - 1..]);
        assert!(matches!(packets.next(), Ok(Some(Packet::Publish(_)))));
    }

    #[test]
    fn only_messages_may_be_too_long() {
        let mut packets = Packets::default();
        packets.room().extend_from_slice(&[0x90, 0xff, 0xff, 0xff, 0x7f]);
        assert!(packets.next().is_err(), "a confirmation of 256 MiB");
        let mut packets = Packets::default();
        packets.room().extend_from_slice(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert!(packets.next().is_err(), "a length of five bytes");
        // The topic says that it is longer than the message.
        let mut packets = Packets::default();
        packets.room().extend_from_slice(&[0x32, 0x03, 0xff, 0xff, 0x00]);
        assert!(packets.next().is_err());
    }
}
