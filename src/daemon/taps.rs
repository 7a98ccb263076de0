//! Shows the cards that are presented to whoever watches the readers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::core::badge::{Technology, Uid};
use crate::core::ids::{ReaderId, StationId};
use crate::daemon::event_loop::Daemon;
use crate::protocol::badges::{StationVerdict, TapSeen, Taps};
use crate::protocol::control::{Reply, TAP_PATIENCE};

/// Cards that a slow watcher may be behind; older ones are gone.
const KEPT: usize = 16;
/// Whoever watches asks again at once. After this long without a question nobody does, and nothing
/// is kept.
const WATCHED_FOR: Duration = Duration::from_secs(60);

/// The last cards and who waits for the next one.
#[derive(Default)]
pub(super) struct TapLog {
    /// How many there were.
    count: u64,
    seen: VecDeque<TapSeen>,
    asked: Option<Instant>,
    /// At most as many as the control socket has connections.
    waiting: Vec<Waiting>,
}

struct Waiting {
    after: u64,
    until: Instant,
    reply: oneshot::Sender<Reply>,
}

impl TapLog {
    /// Answers at once where there is something to tell, or the watch begins.
    pub(super) fn on_request(&mut self, after: Option<u64>, reply: oneshot::Sender<Reply>) {
        let now = Instant::now();
        self.asked = Some(now);
        let after = match after {
            Some(after) if after <= self.count => after,
            // A number of before a restart or reload counts as a beginning.
            Some(_) | None => {
                let _ = reply.send(Reply::Taps(Taps { upto: self.count, taps: Vec::new() }));
                return;
            }
        };
        self.waiting.push(Waiting { after, until: now + TAP_PATIENCE, reply });
        self.answer(now);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < WATCHED_FOR)
    }

    fn push(&mut self, tap: TapSeen) {
        self.count += 1;
        self.seen.push_back(tap);
        if self.seen.len() > KEPT {
            self.seen.pop_front();
        }
        self.answer(Instant::now());
    }

    /// Answers those for whom there is a card, and those who waited long enough.
    pub(super) fn answer(&mut self, now: Instant) {
        if !self.is_watched() {
            self.seen.clear();
        }
        let (count, seen) = (self.count, &self.seen);
        for waiting in self.waiting.extract_if(.., |w| w.after < count || w.until <= now) {
            let new = usize::try_from(count - waiting.after).unwrap_or(KEPT).min(seen.len());
            let taps = seen.iter().skip(seen.len() - new).cloned().collect();
            // A watcher that went away is gone.
            let _ = waiting.reply.send(Reply::Taps(Taps { upto: count, taps }));
        }
    }
}

impl Daemon {
    /// The stations behind a reader, in config order.
    pub(super) fn stations_behind(&self, reader: &ReaderId) -> Vec<StationId> {
        let readers = &self.running.config.site.readers;
        let found = readers.iter().find(|known| &known.id == reader);
        found.map(|reader| reader.stations.clone()).unwrap_or_default()
    }

    /// Shows a card whose number was read; `stations` is what was decided of it.
    pub(super) async fn show_tap(
        &mut self,
        reader: ReaderId,
        (uid, technology): (Uid, Technology),
        stations: Vec<StationVerdict>,
    ) {
        let record = match self.store.badge_record(uid).await {
            Ok(record) => record,
            Err(error) => return tracing::error!("the allowlist cannot be read: {error}"),
        };
        let badge = Some(self.badge_report(uid, record, stations));
        let at = self.clock.now().wall;
        self.taps.push(TapSeen { at, reader: Some(reader), name: None, technology, badge });
    }

    /// Shows a card without a number, to those who watch.
    pub(super) fn show_card(
        &mut self,
        reader: Option<ReaderId>,
        name: Option<String>,
        technology: Technology,
    ) {
        if self.taps.is_watched() {
            let at = self.clock.now().wall;
            self.taps.push(TapSeen { at, reader, name, technology, badge: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Wall;

    fn tap(at: i64) -> TapSeen {
        let technology = Technology::Other;
        TapSeen { at: Wall(at), reader: None, name: None, technology, badge: None }
    }

    fn ask(log: &mut TapLog, after: Option<u64>) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        log.on_request(after, reply);
        answer
    }

    fn told(mut answer: oneshot::Receiver<Reply>) -> Option<(u64, Vec<i64>)> {
        match answer.try_recv() {
            Ok(Reply::Taps(taps)) => {
                Some((taps.upto, taps.taps.iter().map(|tap| tap.at.0).collect()))
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    #[test]
    fn a_watcher_hears_of_each_card_once() {
        let mut log = TapLog::default();
        assert!(!log.is_watched());
        assert_eq!(told(ask(&mut log, None)), Some((0, vec![])));
        assert!(log.is_watched());
        let waiting = ask(&mut log, Some(0));
        log.push(tap(1));
        assert_eq!(told(waiting), Some((1, vec![1])));
        log.push(tap(2));
        log.push(tap(3));
        assert_eq!(told(ask(&mut log, Some(1))), Some((3, vec![2, 3])));
        assert_eq!(told(ask(&mut log, Some(3))), None, "it waits");
        assert_eq!(told(ask(&mut log, Some(99))), Some((3, vec![])), "after a restart");
    }

    #[test]
    fn a_watcher_that_is_far_behind_gets_the_last_cards() {
        let mut log = TapLog::default();
        drop(ask(&mut log, None));
        (1..=40).for_each(|at| log.push(tap(at)));
        assert_eq!(told(ask(&mut log, Some(0))), Some((40, (25..=40).collect())));
    }

    #[test]
    fn who_waits_in_vain_is_told_so() {
        let mut log = TapLog::default();
        let waiting = ask(&mut log, Some(0));
        log.answer(Instant::now() + TAP_PATIENCE);
        assert_eq!(told(waiting), Some((0, vec![])));
    }
}
