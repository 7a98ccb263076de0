//! Who offered a list and hears what becomes of it.

use super::{ApplyOutcome, ListNews, Offer, Origin};
use crate::core::time::Stamp;

/// The cloud, an import, or both where they offer the same head. The import is first.
#[derive(Debug)]
pub(super) struct Offers(Vec<Offer>);

impl Offers {
    pub(super) fn new(offer: &Offer) -> Offers {
        Offers(vec![kept(offer)])
    }

    /// The same head again: from somebody else as well, or from the same in place of before.
    pub(super) fn join(&mut self, offer: &Offer) {
        self.0.retain(|known| is_cloud(known) != is_cloud(offer));
        self.0.push(kept(offer));
        self.0.sort_by_key(is_cloud);
    }

    /// Whether a technician alone wants it.
    pub(super) fn are_imports(&self) -> bool {
        !self.0.iter().any(is_cloud)
    }

    /// When the head came last.
    pub(super) fn newest(&self) -> Stamp {
        let newest = self.0.iter().map(|offer| offer.now).max_by_key(|now| now.uptime);
        newest.expect("somebody offered it")
    }

    /// The cloud's offer, to be judged another time.
    pub(super) fn into_cloud(self) -> Option<Offer> {
        self.0.into_iter().find(is_cloud)
    }

    pub(super) fn tell(&self, outcome: &ApplyOutcome) {
        self.0.iter().for_each(|offer| tell(offer, outcome.clone()));
    }

    /// The list is applied once, whoever offered it: for the second it decides already.
    pub(super) fn tell_applied(&self, applied: ApplyOutcome) {
        let mut outcome = applied;
        for offer in &self.0 {
            let unchanged = match &outcome {
                ApplyOutcome::Applied { allowlist, .. } => {
                    ApplyOutcome::Unchanged(allowlist.clone())
                }
                other => other.clone(),
            };
            tell(offer, std::mem::replace(&mut outcome, unchanged));
        }
    }
}

pub(super) fn tell(offer: &Offer, outcome: ApplyOutcome) {
    // Nobody listens any more where the daemon stops or an import was given up.
    let _ = offer.news.blocking_send(ListNews { origin: offer.origin, outcome });
}

fn is_cloud(offer: &Offer) -> bool {
    offer.origin == Origin::Cloud
}

/// The cloud's head may have to wait for an import and be read again; an import's never is.
fn kept(offer: &Offer) -> Offer {
    match offer.origin {
        Origin::Cloud => offer.clone(),
        Origin::Import(_) => Offer { payload: Vec::new(), ..offer.clone() },
    }
}
