//! What is still missing of a list in parts, and when to ask for it. Pure: the time comes in.
//!
//! Nothing is believed of a chunk but that it fits: parts are unsigned and proved by their hash
//! when they are whole.

use std::time::{Duration, Instant};

use crate::protocol::allowlist::{Chunk, MAX_CHUNK_BYTES, MAX_CHUNKS, Part};
use crate::protocol::cloud::PartRequest;

/// Parts that are asked for and not whole yet: the contract's bound.
pub(super) const MAX_ASKED: usize = 8;
/// A part is asked for again this long after its last chunk, or after it was asked for.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait, after several requests in vain.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How a part is cut: all chunks but the last have the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) n: u64,
    pub(super) length: u64,
}

impl Layout {
    /// The only layout that a chunk of a part of `bytes` can belong to.
    fn of(chunk: &Chunk, bytes: u64) -> Option<Layout> {
        let (n, own) = (chunk.n, chunk.bytes.len() as u64);
        let length = match (chunk.i + 1 < n, n) {
            (true, _) => own,
            (false, 1) => bytes,
            (false, _) => {
                let others = bytes.checked_sub(own)?;
                (others % (n - 1) == 0).then_some(others / (n - 1))?
            }
        };
        let layout = Layout { n, length };
        let fits = layout.fits(bytes) && layout.length_of(chunk.i, bytes) == own;
        fits.then_some(layout)
    }

    /// Whether a part of `bytes` can be cut so.
    pub(super) fn fits(self, bytes: u64) -> bool {
        (1..=MAX_CHUNKS).contains(&self.n)
            && (1..=MAX_CHUNK_BYTES).contains(&self.length)
            && (self.n - 1) * self.length < bytes
            && bytes <= self.n * self.length
    }

    fn length_of(self, i: u64, bytes: u64) -> u64 {
        if i + 1 < self.n { self.length } else { bytes - (self.n - 1) * self.length }
    }
}

/// Where a chunk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From the part's first byte.
    pub(super) offset: u64,
    pub(super) layout: Layout,
    /// Chunks from the first on that are there without a gap.
    pub(super) prefix: u64,
    /// It was the last one missing.
    pub(super) whole: bool,
}

/// The parts that are not whole, in the order of the list.
#[derive(Debug, Default)]
pub(super) struct Pull {
    missing: Vec<Missing>,
    /// When the last new chunk of any part came.
    last_new: Option<Instant>,
}

#[derive(Debug)]
struct Missing {
    part: Part,
    cut: Option<Cut>,
    asked: Option<Asked>,
    /// Not before this: its content was wrong more than once.
    not_before: Option<Instant>,
    /// How often it was whole with another hash.
    spoiled: u32,
}

/// What is there of a part.
#[derive(Debug)]
struct Cut {
    layout: Layout,
    have: Vec<bool>,
    prefix: u64,
    /// Chunks that were taken, and such that say that the part is cut otherwise.
    agreeing: u64,
    disagreeing: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The request, or the last new chunk since.
    last: Instant,
    heard: bool,
    wait: Duration,
}

impl Pull {
    /// Parts to pull, each with how far it is on disk.
    pub(super) fn new(missing: impl Iterator<Item = (Part, Option<(Layout, u64)>)>) -> Pull {
        let missing = missing.map(|(part, there)| Missing {
            part,
            cut: there.map(|(layout, prefix)| Cut::resumed(layout, prefix)),
            asked: None,
            not_before: None,
            spoiled: 0,
        });
        Pull { missing: missing.collect(), last_new: None }
    }

    /// Whether a part is still missing.
    pub(super) fn lacks(&self, sha256: &str) -> bool {
        self.missing.iter().any(|missing| missing.part.sha256 == sha256)
    }

    /// Parts that are not whole.
    pub(super) fn len(&self) -> usize {
        self.missing.len()
    }

    /// Where a chunk goes; `None` for one that was not asked for, does not fit or is there.
    pub(super) fn place(&mut self, chunk: &Chunk, now: Instant) -> Option<Place> {
        let missing = self.missing.iter_mut().find(|m| m.part.sha256 == chunk.sha256)?;
        let asked = missing.asked.as_mut()?;
        let place = Cut::place(&mut missing.cut, chunk, missing.part.bytes)?;
        *asked = Asked { last: now, heard: true, wait: FIRST_WAIT };
        self.last_new = Some(now);
        Some(place)
    }

    /// The part is whole and has its hash.
    pub(super) fn done(&mut self, sha256: &str) {
        self.missing.retain(|missing| missing.part.sha256 != sha256);
    }

    /// The part was whole and has another hash: from its start, and with patience where that was
    /// not the first time.
    pub(super) fn spoiled(&mut self, sha256: &str, now: Instant) {
        let found = self.missing.iter_mut().find(|missing| missing.part.sha256 == sha256);
        let Some(missing) = found else { return };
        let pause = match missing.spoiled {
            0 => Duration::ZERO,
            times => (FIRST_WAIT * 2_u32.saturating_pow(times - 1).min(8)).min(MAX_WAIT),
        };
        missing.spoiled += 1;
        missing.not_before = Some(now + pause);
        missing.cut = None;
        missing.asked = None;
    }

    /// The head came again, as with every connection: what was asked for may be lost.
    pub(super) fn forget_requests(&mut self) {
        for missing in &mut self.missing {
            missing.asked = None;
        }
    }

    /// What to ask for now: what is overdue, and new parts up to the bound.
    pub(super) fn requests(&mut self, now: Instant) -> Vec<PartRequest> {
        let last_new = self.last_new;
        let mut requests = Vec::new();
        let mut asked = 0;
        for missing in self.missing.iter_mut().filter(|missing| missing.asked.is_some()) {
            asked += 1;
            if missing.due(last_new).is_some_and(|due| due <= now) {
                missing.ask_again(now);
                requests.push(missing.request());
            }
        }
        for missing in self.missing.iter_mut().filter(|missing| missing.asked.is_none()) {
            if asked == MAX_ASKED {
                break;
            }
            if missing.not_before.is_none_or(|at| at <= now) {
                missing.asked = Some(Asked { last: now, heard: false, wait: FIRST_WAIT });
                requests.push(missing.request());
                asked += 1;
            }
        }
        requests
    }

    /// When there is something to ask for next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asked = self.missing.iter().filter_map(|missing| missing.due(self.last_new));
        let resting = self.missing.iter().filter(|missing| missing.asked.is_none());
        asked.chain(resting.filter_map(|missing| missing.not_before)).min()
    }
}

impl Missing {
    /// A part of which nothing has come yet waits for those that the cloud sends before it.
    fn due(&self, last_new: Option<Instant>) -> Option<Instant> {
        let asked = self.asked?;
        let last = if asked.heard { asked.last } else { last_new.unwrap_or(asked.last) };
        Some(last.max(asked.last) + asked.wait)
    }

    fn ask_again(&mut self, now: Instant) {
        if let Some(asked) = &mut self.asked {
            let wait = if asked.heard { FIRST_WAIT } else { (asked.wait * 2).min(MAX_WAIT) };
            *asked = Asked { last: now, heard: false, wait };
        }
        // A first chunk that was cut short must not keep all the others out.
        if self.cut.as_ref().is_some_and(|cut| cut.disagreeing > cut.agreeing) {
            self.cut = None;
        }
    }

    fn request(&self) -> PartRequest {
        let from = self.cut.as_ref().map_or(0, |cut| cut.prefix);
        PartRequest { sha256: self.part.sha256.clone(), from }
    }
}

impl Cut {
    fn resumed(layout: Layout, prefix: u64) -> Cut {
        let mut have = vec![false; layout.n as usize];
        have[..prefix as usize].fill(true);
        Cut { layout, have, prefix, agreeing: prefix, disagreeing: 0 }
    }

    /// Takes a new chunk that fits; the first one says how the part is cut.
    fn place(cut: &mut Option<Cut>, chunk: &Chunk, bytes: u64) -> Option<Place> {
        let layout = Layout::of(chunk, bytes);
        let cut = match (cut, layout) {
            (Some(cut), Some(layout)) if cut.layout == layout => cut,
            (Some(cut), _) => {
                cut.disagreeing += 1;
                return None;
            }
            (none, Some(layout)) => none.insert(Cut::resumed(layout, 0)),
            (None, None) => return None,
        };
        let taken = &mut cut.have[chunk.i as usize];
        if std::mem::replace(taken, true) {
            return None;
        }
        cut.agreeing += 1;
        while cut.have.get(cut.prefix as usize) == Some(&true) {
            cut.prefix += 1;
        }
        Some(Place {
            offset: chunk.i * cut.layout.length,
            layout: cut.layout,
            prefix: cut.prefix,
            whole: cut.prefix == cut.layout.n,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn part(name: u8, bytes: u64) -> Part {
        Part { sha256: hex::encode([name; 32]), bytes }
    }

    fn chunk(name: u8, i: u64, n: u64, length: usize) -> Chunk {
        Chunk { sha256: hex::encode([name; 32]), i, n, bytes: vec![0; length] }
    }

    fn pull(parts: &[Part]) -> Pull {
        Pull::new(parts.iter().map(|part| (part.clone(), None)))
    }

    fn asked(pull: &mut Pull, now: Instant) -> Vec<(u8, u64)> {
        let name = |request: &PartRequest| {
            u8::from_str_radix(&request.sha256[..2], 16).expect("a name of this test")
        };
        pull.requests(now).iter().map(|request| (name(request), request.from)).collect()
    }

    #[test]
    fn at_most_eight_parts_are_asked_for_at_a_time() {
        let parts: Vec<Part> = (0..10).map(|name| part(name, 10)).collect();
        let mut pull = pull(&parts);
        let now = Instant::now();

        assert_eq!(asked(&mut pull, now), (0..8).map(|name| (name, 0)).collect::<Vec<_>>());
        assert_eq!(asked(&mut pull, now), []);
        assert_eq!(pull.place(&chunk(8, 0, 1, 10), now), None, "not asked for");
        assert!(pull.place(&chunk(3, 0, 1, 10), now).expect("placed").whole);
        pull.done(&parts[3].sha256);
        assert_eq!(asked(&mut pull, now), [(8, 0)]);
        assert_eq!(pull.len(), 9);
    }

    #[test]
    fn chunks_may_come_in_any_order_and_twice() {
        let mut pull = pull(&[part(1, 25)]);
        let now = Instant::now();
        asked(&mut pull, now);
        let mut place = |i, length| {
            let placed = pull.place(&chunk(1, i, 3, length), now);
            placed.map(|place| (place.offset, place.prefix, place.whole))
        };
        assert_eq!(place(2, 5), Some((20, 0, false)), "the last one says how it is cut");
        assert_eq!(place(2, 5), None);
        assert_eq!(place(0, 10), Some((0, 1, false)));
        assert_eq!(place(1, 10), Some((10, 3, true)));
    }

    #[test]
    fn chunks_that_do_not_fit_are_dropped() {
        let mut pull = pull(&[part(1, 25)]);
        let now = Instant::now();
        asked(&mut pull, now);
        for (i, n, length) in [(0, 1, 10), (0, 3, 8), (2, 3, 4), (0, 9, 25), (0, 2, 25), (3, 4, 25)]
        {
            assert_eq!(pull.place(&chunk(1, i, n, length), now), None, "{i} of {n}, {length}");
        }
        assert!(pull.place(&chunk(1, 0, 3, 10), now).is_some());
        for (i, n, length) in [(1, 3, 9), (2, 3, 4), (1, 4, 7), (0, 2, 13)] {
            assert_eq!(pull.place(&chunk(1, i, n, length), now), None, "{i} of {n}, {length}");
        }
        assert_eq!(pull.place(&chunk(9, 0, 3, 10), now), None, "for nothing that was asked");
        assert!(pull.place(&chunk(1, 1, 3, 10), now).is_some());
    }

    #[test]
    fn a_part_is_asked_for_again_from_its_first_missing_chunk_with_backoff() {
        let mut pull = pull(&[part(1, 25)]);
        let begin = Instant::now();
        asked(&mut pull, begin);
        pull.place(&chunk(1, 0, 3, 10), begin + SECOND).expect("placed");
        pull.place(&chunk(1, 2, 3, 5), begin + SECOND).expect("placed");

        assert_eq!(pull.deadline(), Some(begin + 6 * SECOND));
        assert_eq!(asked(&mut pull, begin + 5 * SECOND), []);
        assert_eq!(asked(&mut pull, begin + 6 * SECOND), [(1, 1)]);
        let mut at = begin + 6 * SECOND;
        for wait in [5, 10, 20, 30, 30] {
            assert_eq!(pull.deadline(), Some(at + wait * SECOND));
            assert_eq!(asked(&mut pull, at + wait * SECOND - SECOND), []);
            at += wait * SECOND;
            assert_eq!(asked(&mut pull, at), [(1, 1)]);
        }
        let layout = Layout { n: 3, length: 10 };
        let mut resumed = Pull::new([(part(2, 25), Some((layout, 2)))].into_iter());
        assert_eq!(asked(&mut resumed, at), [(2, 2)]);
        assert!(resumed.place(&chunk(2, 2, 3, 5), at).expect("placed").whole);
    }

    #[test]
    fn a_part_waits_for_those_that_are_sent_before_it() {
        let mut pull = pull(&[part(1, 1000), part(2, 10)]);
        let begin = Instant::now();
        asked(&mut pull, begin);
        for i in 0..10 {
            pull.place(&chunk(1, i, 100, 10), begin + (i as u32) * SECOND).expect("placed");
        }
        assert_eq!(asked(&mut pull, begin + 10 * SECOND), []);
        assert_eq!(asked(&mut pull, begin + 14 * SECOND), [(1, 10), (2, 0)]);
    }

    #[test]
    fn a_first_chunk_that_was_cut_short_does_not_keep_the_others_out() {
        let mut pull = pull(&[part(1, 25)]);
        let begin = Instant::now();
        asked(&mut pull, begin);
        assert!(pull.place(&chunk(1, 0, 3, 9), begin).is_some(), "9, 9 and 7 would do");
        assert_eq!(pull.place(&chunk(1, 1, 3, 10), begin), None);
        assert_eq!(pull.place(&chunk(1, 2, 3, 5), begin), None);

        assert_eq!(asked(&mut pull, begin + 5 * SECOND), [(1, 0)]);

        assert!(pull.place(&chunk(1, 0, 3, 10), begin + 5 * SECOND).is_some());
    }

    #[test]
    fn a_spoiled_part_is_asked_for_from_its_start_and_not_for_ever_at_once() {
        let mut pull = pull(&[part(1, 10)]);
        let begin = Instant::now();
        let name = hex::encode([1; 32]);
        assert_eq!(asked(&mut pull, begin), [(1, 0)]);
        pull.spoiled(&name, begin);
        assert_eq!(asked(&mut pull, begin), [(1, 0)]);
        pull.spoiled(&name, begin);
        assert_eq!(asked(&mut pull, begin), []);
        assert_eq!(pull.deadline(), Some(begin + 5 * SECOND));
        assert_eq!(asked(&mut pull, begin + 5 * SECOND), [(1, 0)]);
        assert!(pull.lacks(&name));
        pull.forget_requests();
        assert_eq!(asked(&mut pull, begin + 5 * SECOND), [(1, 0)]);
    }
}
