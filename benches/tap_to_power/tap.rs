//! One tap: a virtual card, from its answer to GET DATA to the write that closes a relay.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tapgate::demo::card::{ATR_CLASSIC_1K, VirtualCard};

use crate::allowlist;
use crate::room::Room;

/// Longest wait for a tap to act.
const PATIENCE: Duration = Duration::from_secs(10);
/// Badges are taken from all over the list.
const STRIDE: u32 = 7_919;
/// Sessions that may run during a tap: few, so that the bus is idle but for their polls.
const RUNNING: usize = 3;
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(5);

/// Somebody with all 100,000 badges in front of one reader.
pub(crate) struct Tapper {
    port: u16,
    room: Room,
}

impl Tapper {
    pub(crate) fn new(port: u16, room: Room) -> Tapper {
        Tapper { port, room }
    }

    /// Taps with another badge each time; returns when the card had answered, and how long the coil
    /// write took to arrive.
    pub(crate) fn tap_at(&mut self, number: u32) -> anyhow::Result<(Instant, Duration)> {
        while self.room.closed() >= RUNNING {
            std::thread::sleep(LOOK);
        }
        self.room.forget();
        let uid = allowlist::uid(number * STRIDE);
        let card = VirtualCard::insert(self.port, uid.as_bytes(), &ATR_CLASSIC_1K)?;
        let answered = loop {
            let (apdu, at) = card.next_apdu_at().context("nobody reads the card's UID")?;
            if apdu.starts_with(&[0xFF, 0xCA]) {
                break at;
            }
        };
        let closed = self.room.next_closed(PATIENCE).context("no relay is closed for a tap")?;
        card.remove();
        Ok((answered, closed.saturating_duration_since(answered)))
    }
}
