//! Registers that cannot be right, counted until they must be.

use std::time::Duration;

use crate::core::time::Uptime;

/// An implausible register is believed after this many of its kind that cover at least this time.
const READS: u32 = 5;
const SPAN: Duration = Duration::from_secs(60);
/// What the time between two of them counts for at most: a meter that shows zero while it boots,
/// falls silent and boots again shows nothing in between.
const SHARE: Duration = Duration::from_secs(15);

/// Doubted registers in a row that could be those of one meter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion {
    rising: bool,
    shown_wh: i64,
    shown_at: Uptime,
    reads: u32,
    covered: Duration,
}

impl Suspicion {
    /// What a doubted register makes of the suspicion before it. `possible` tells whether so many
    /// watt-hours can flow in so much time.
    pub(super) fn grown(
        before: Option<Suspicion>,
        rising: bool,
        shown_wh: i64,
        now: Uptime,
        possible: impl Fn(i64, Duration) -> bool,
    ) -> Suspicion {
        let begun =
            Suspicion { rising, shown_wh, shown_at: now, reads: 1, covered: Duration::ZERO };
        // None goes backwards, and one of an exchanged meter does not jump either.
        let goes_on = |held: &Suspicion| {
            let step_wh = shown_wh - held.shown_wh;
            let gap = now.since(held.shown_at);
            held.rising == rising && step_wh >= 0 && (rising || possible(step_wh, gap))
        };
        before.filter(goes_on).map_or(begun, |held| Suspicion {
            reads: held.reads + 1,
            covered: held.covered + now.since(held.shown_at).min(SHARE),
            ..begun
        })
    }

    /// Whether it must be believed by now.
    pub(super) fn has_matured(&self) -> bool {
        self.reads >= READS && self.covered >= SPAN
    }
}
