//! The way of events to the daemon, and who speaks for which reader.
//!
//! A reader's thread may hang in a driver while its successor already works. So every thread has a
//! generation, and only the one that holds a reader is heard: `Found` and `Lost` alternate, and no
//! card is reported twice.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use super::ReaderEvent;
use super::stop::Stop;
use crate::core::ids::ReaderId;

/// How long a tap waits for room in the channel. A resident who sees nothing taps again; a tap
/// that acts later than this would surprise.
const TAP_PATIENCE: Duration = Duration::from_millis(250);

/// How long a change of state waits for room. `Found` and `Lost` are said again later.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between attempts at a full channel.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends events, one voice for each reader.
#[derive(Debug)]
pub(super) struct Outbox {
    events: Sender<ReaderEvent>,
    stop: Arc<Stop>,
    holders: Mutex<BTreeMap<ReaderId, Holder>>,
}

/// The thread that speaks for a reader.
#[derive(Debug)]
struct Holder {
    generation: u64,
    name: CString,
}

impl Outbox {
    pub(super) fn new(events: Sender<ReaderEvent>, stop: Arc<Stop>) -> Self {
        Self { events, stop, holders: Mutex::default() }
    }

    /// Reports a reader as found; false where that could not be told yet.
    pub(super) fn found(&self, reader: &ReaderId, name: &CStr, generation: u64) -> bool {
        let mut holders = self.holders();
        if holders.contains_key(reader) {
            let why = format!("it came back as \"{}\"", name.to_string_lossy());
            if !self.send(ReaderEvent::Lost { reader: reader.clone(), why }, STATE_PATIENCE) {
                return false;
            }
            holders.remove(reader);
        }
        let shown = name.to_string_lossy().into_owned();
        let told =
            self.send(ReaderEvent::Found { reader: reader.clone(), name: shown }, STATE_PATIENCE);
        if told {
            holders.insert(reader.clone(), Holder { generation, name: name.to_owned() });
        }
        told
    }

    /// Reports a reader as lost, unless another thread speaks for it by now.
    pub(super) fn lost(&self, reader: &ReaderId, generation: u64, why: String) {
        let mut holders = self.holders();
        let holds = holders.get(reader).is_some_and(|holder| holder.generation == generation);
        // Where it cannot be told now, the next `found` tells it first.
        if holds && self.send(ReaderEvent::Lost { reader: reader.clone(), why }, STATE_PATIENCE) {
            holders.remove(reader);
        }
    }

    /// Reports the reader under this PC/SC name as lost, even where its thread hangs in a driver.
    pub(super) fn lost_name(&self, name: &CStr, why: &str) {
        let holder = |(reader, holder): (&ReaderId, &Holder)| {
            (holder.name.as_c_str() == name).then(|| (reader.clone(), holder.generation))
        };
        let held = self.holders().iter().find_map(holder);
        if let Some((reader, generation)) = held {
            self.lost(&reader, generation, why.to_owned());
        }
    }

    /// Reports what happened to a card on a reader, if this thread speaks for the reader.
    pub(super) fn card(&self, reader: &ReaderId, generation: u64, event: ReaderEvent) {
        let holders = self.holders();
        if holders.get(reader).is_some_and(|holder| holder.generation == generation) {
            self.send(event, TAP_PATIENCE);
        }
    }

    /// Reports what belongs to no reader of the config; false where it could not be told.
    pub(super) fn tell(&self, event: ReaderEvent) -> bool {
        self.send(event, STATE_PATIENCE)
    }

    /// The PC/SC name under which a reader is present.
    pub(super) fn name_of(&self, reader: &ReaderId) -> Option<CString> {
        self.holders().get(reader).map(|holder| holder.name.clone())
    }

    fn holders(&self) -> MutexGuard<'_, BTreeMap<ReaderId, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Overflow rule: waits as long as its patience, then drops the event and says so.
    fn send(&self, event: ReaderEvent, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut event = event;
        loop {
            if self.stop.is_requested() {
                return false;
            }
            match self.events.try_send(event) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < until => event = back,
                Err(TrySendError::Full(dropped)) => {
                    warn!(event = dropped.kind(), "reader event dropped: the daemon is behind");
                    return false;
                }
                Err(TrySendError::Closed(_)) => {
                    self.stop.request();
                    return false;
                }
            }
            self.stop.rest(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;

    fn outbox(room: usize) -> (Outbox, Receiver<ReaderEvent>) {
        let (events, received) = channel(room);
        (Outbox::new(events, Arc::default()), received)
    }

    fn drain(received: &mut Receiver<ReaderEvent>) -> Vec<ReaderEvent> {
        std::iter::from_fn(|| received.try_recv().ok()).collect()
    }

    fn removed() -> ReaderEvent {
        ReaderEvent::Removed { reader: "laundry".into() }
    }

    #[test]
    fn only_the_newest_thread_speaks_for_a_reader() {
        let (outbox, mut received) = outbox(8);
        let laundry = ReaderId::from("laundry");
        assert!(outbox.found(&laundry, c"ACR 00 00", 1));
        assert!(outbox.found(&laundry, c"ACR 01 00", 2));

        outbox.card(&laundry, 1, removed());
        outbox.lost(&laundry, 1, "too late".into());
        outbox.card(&laundry, 2, removed());

        let name = |name: &str| ReaderEvent::Found { reader: laundry.clone(), name: name.into() };
        let why = "it came back as \"ACR 01 00\"".to_owned();
        assert_eq!(
            drain(&mut received),
            [
                name("ACR 00 00"),
                ReaderEvent::Lost { reader: laundry.clone(), why },
                name("ACR 01 00"),
                removed(),
            ]
        );
        assert_eq!(outbox.name_of(&laundry).as_deref(), Some(c"ACR 01 00"));
    }

    #[test]
    fn a_full_channel_drops_the_tap_instead_of_blocking() {
        let (outbox, mut received) = outbox(1);
        let laundry = ReaderId::from("laundry");
        assert!(outbox.found(&laundry, c"ACR 00 00", 1));

        outbox.card(&laundry, 1, removed());

        assert_eq!(drain(&mut received).len(), 1);
        outbox.card(&laundry, 1, removed());
        assert_eq!(drain(&mut received), [removed()]);
    }

    #[test]
    fn a_closed_channel_ends_the_threads() {
        let (outbox, received) = outbox(1);
        drop(received);

        assert!(!outbox.tell(ReaderEvent::PcscdBack));
        assert!(outbox.stop.is_requested());
    }
}
