//! When a card arrives and when it leaves, from pcscd's state and event count.
//!
//! A tap is a change to "present", never the presence itself: a card left on the reader is one tap,
//! and one that lay there when the watch began is none until it was away once.

/// What lies on a reader, as far as taps go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lying {
    /// Not looked yet.
    #[default]
    Unknown,
    Nothing,
    /// Was there when the watch began.
    Ignored,
    /// Its arrival was reported.
    Reported,
}

/// Follows the card on one reader.
#[derive(Debug, Default)]
pub(super) struct CardEdges {
    lying: Lying,
    event_count: u32,
}

/// What a look at the reader's state means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Nothing,
    Arrived,
    Left,
    /// The reported card left and one arrived between two looks.
    Swapped,
}

impl CardEdges {
    /// Takes pcscd's view: whether a card is present, and the count of insertions and removals,
    /// which wraps at 16 bits and is only compared for equality.
    pub(super) fn observe(&mut self, present: bool, event_count: u32) -> Edge {
        let moved = event_count != self.event_count;
        self.event_count = event_count;
        let (lying, edge) = match (self.lying, present) {
            (Lying::Unknown, true) => (Lying::Ignored, Edge::Nothing),
            (Lying::Unknown | Lying::Nothing | Lying::Ignored, false) => {
                (Lying::Nothing, Edge::Nothing)
            }
            (Lying::Nothing, true) => (Lying::Reported, Edge::Arrived),
            (Lying::Ignored, true) if moved => (Lying::Reported, Edge::Arrived),
            (Lying::Reported, true) if moved => (Lying::Reported, Edge::Swapped),
            (Lying::Reported, false) => (Lying::Nothing, Edge::Left),
            (unmoved @ (Lying::Ignored | Lying::Reported), true) => (unmoved, Edge::Nothing),
        };
        self.lying = lying;
        edge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(looks: &[(bool, u32)]) -> Vec<Edge> {
        let mut card = CardEdges::default();
        looks.iter().map(|(present, count)| card.observe(*present, *count)).collect()
    }

    #[test]
    fn a_card_left_on_the_reader_arrives_once() {
        assert_eq!(
            edges(&[(false, 0), (true, 1), (true, 1), (true, 1), (false, 2)]),
            [Edge::Nothing, Edge::Arrived, Edge::Nothing, Edge::Nothing, Edge::Left]
        );
    }

    #[test]
    fn a_card_present_at_the_start_counts_only_after_it_was_away() {
        assert_eq!(
            edges(&[(true, 7), (true, 7), (false, 8), (true, 9)]),
            [Edge::Nothing, Edge::Nothing, Edge::Nothing, Edge::Arrived]
        );
        assert_eq!(edges(&[(true, 7), (true, 9)]), [Edge::Nothing, Edge::Arrived]);
    }

    #[test]
    fn a_swap_faster_than_the_looks_is_seen_by_the_count() {
        assert_eq!(
            edges(&[(false, 0xFFFE), (true, 0xFFFF), (true, 1)]),
            [Edge::Nothing, Edge::Arrived, Edge::Swapped]
        );
    }

    #[test]
    fn a_visit_between_two_looks_is_no_tap() {
        assert_eq!(edges(&[(false, 0), (false, 2)]), [Edge::Nothing, Edge::Nothing]);
    }
}
