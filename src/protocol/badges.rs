//! What a technician asks about badges and readers over the control socket, and the answers. UIDs
//! travel here and nowhere else: to somebody who typed the number or holds the card.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::access::Denial;
use crate::core::badge::Technology;
use crate::core::ids::{BadgeId, ReaderId, StationId};
use crate::core::renderings::Rendering;
use crate::core::time::Wall;
use crate::protocol::control::AllowlistStatus;

/// Badges in one [`BadgePage`]: with entries of 4 KiB it stays well under the longest answer, and
/// reading it delays no tap by more than some milliseconds.
pub const BADGES_PER_PAGE: usize = 200;

/// What is asked about a badge, as a person names it: by UID, by the operator's id of it, or by its
/// number in any form that holds all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BadgeRequest {
    /// What a tap on a station would come to.
    Why {
        /// Which badge.
        badge: String,
        /// Which station.
        station: StationId,
        /// When; now where `None`.
        at: Option<Wall>,
        /// What kind of card it is.
        technology: Technology,
    },
    /// Everything about one badge.
    Show {
        /// Which badge.
        badge: String,
    },
    /// The badges of the allowlist in order of their UIDs, a page at a time.
    List {
        /// The last id of the page before.
        after: Option<BadgeId>,
    },
    /// Refuse it from now on.
    Block {
        /// Which badge.
        badge: String,
    },
    /// Lift a local block.
    Unblock {
        /// Which badge.
        badge: String,
    },
}

/// The answer to a [`BadgeRequest`] that only reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadgeReply {
    /// To [`BadgeRequest::Why`].
    Why(Box<WhyReport>),
    /// To [`BadgeRequest::Show`].
    Show(Box<BadgeReport>),
    /// To [`BadgeRequest::List`].
    List(BadgePage),
}

/// An allowlist entry as received, without its UID, and whether it is blocked here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Null where the allowlist does not know the badge.
    pub entry: Option<Map<String, Value>>,
    /// Blocked on this gateway, whatever the list says.
    pub local_block: bool,
}

/// A decision and what led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words say it")]
pub struct WhyReport {
    /// `grant`, `stop`, `hand_over`, `yours_running` or `deny`.
    pub decision: String,
    /// The row of the decision table that refuses it.
    pub rule: Option<u8>,
    pub reason: Option<Denial>,
    pub explanation: String,
    pub station: StationId,
    pub technology: Technology,
    pub at: Wall,
    /// `synced` or `unsynced`: whether the rows about time were judged.
    pub clock: String,
    #[serde(flatten)]
    pub known: Known,
    /// How the typed number was read, where it was no UID.
    pub read_as: Option<String>,
    pub allowlist: Option<AllowlistStatus>,
    /// What else the typed number could mean.
    pub hints: Vec<String>,
}

/// All that is known of a badge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words say it")]
pub struct BadgeReport {
    pub uid: String,
    /// Why it can be no badge, whatever the list says.
    pub problem: Option<Denial>,
    /// All forms in which owners write its number.
    pub renderings: Vec<Rendering>,
    #[serde(flatten)]
    pub known: Known,
    /// How the typed number was read, where it was no UID.
    pub read_as: Option<String>,
    /// What a tap would come to now.
    pub stations: Vec<StationVerdict>,
    pub allowlist: Option<AllowlistStatus>,
    /// What else the typed number could mean.
    pub hints: Vec<String>,
}

/// What a tap on a station would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words say it")]
pub struct StationVerdict {
    pub station: StationId,
    /// As in [`WhyReport`].
    pub decision: String,
    pub reason: Option<Denial>,
}

/// Some badges of the allowlist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BadgePage {
    /// In order of their UIDs.
    pub badges: Vec<Known>,
    /// Ask for the next page after this id; null on the last one.
    pub next: Option<BadgeId>,
    /// Badges that are blocked locally and that the list does not know.
    pub unknown_blocked: u64,
    /// There is an allowlist, empty or not.
    pub any_list: bool,
}

/// The readers of the config and those that pcscd lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadersReport {
    /// In config order.
    pub readers: Vec<BoundReader>,
    /// In pcscd's order.
    pub present: Vec<PresentReader>,
    /// What does not match one to one, and why pcscd cannot be asked.
    pub problems: Vec<String>,
}

/// A reader of the config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundReader {
    /// Its name in the config.
    pub reader: ReaderId,
    /// `ready`, `missing` or `ambiguous`.
    pub state: String,
    /// The PC/SC name that it is bound to, or why there is none.
    pub detail: String,
    /// Its binding as in the config.
    pub binding: String,
    /// What a tap on it means: `single`, `first-free` or `button`.
    pub selection: String,
    /// The stations behind it.
    pub stations: Vec<StationId>,
}

/// A reader that pcscd lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentReader {
    /// Its full PC/SC name.
    pub name: String,
    /// For `serial = "…"`.
    pub serial: Option<String>,
    /// For `usb_port = "…"`.
    pub usb_port: Option<String>,
    /// Which reader of the config it is.
    pub reader: Option<ReaderId>,
}

/// Cards that were presented since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taps {
    /// Ask for those after this number next.
    pub upto: u64,
    /// Oldest first.
    pub taps: Vec<TapSeen>,
}

/// A card on a reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words say it")]
pub struct TapSeen {
    pub at: Wall,
    /// Null on a reader that is not bound, or not uniquely.
    pub reader: Option<ReaderId>,
    /// The PC/SC name of such a reader.
    pub name: Option<String>,
    pub technology: Technology,
    /// Null where the card gave no number, or was not asked for it.
    pub badge: Option<BadgeReport>,
}
