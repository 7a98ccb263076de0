//! What `tapgate allowlist` and the daemon say to each other over the control socket.

use serde::{Deserialize, Serialize};

use crate::core::time::Wall;
use crate::protocol::cloud::{AllowlistStanding, PartRequest};
use crate::protocol::control::AllowlistStatus;

/// A head that is imported, as it lies in its file. Some 1,500 badges inline, or any list whose
/// content is in parts.
pub const MAX_IMPORT_HEAD_BYTES: usize = 256 * 1024;

/// What a command asks about lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum ListRequest {
    /// Which list decides, and how it stands.
    Status {},
    /// Entries after this UID, in order of their UIDs.
    Entries {
        /// `None` from the start.
        after: Option<String>,
    },
    /// Take this head.
    Import {
        /// As in its file: JSON, or a JWS where keys are trusted.
        head: String,
    },
    /// How an import stands, and which chunks it needs that were not named before.
    ImportState {
        /// Its number.
        import: u64,
    },
    /// A chunk of a part, in the form in which the cloud sends it.
    Chunk {
        /// JSON.
        payload: String,
    },
}

/// What the daemon answers to [`ListRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListReply {
    /// To [`ListRequest::Status`].
    Status(ListStatus),
    /// To [`ListRequest::Entries`].
    Entries(EntryPage),
    /// The head is being judged.
    Begun {
        /// The import's number.
        import: u64,
    },
    /// To [`ListRequest::ImportState`].
    Import(ImportState),
    /// The chunk is on its way.
    Taken,
    /// Ask again in a moment.
    Busy,
}

/// How the list stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    /// Null as long as there is no list.
    pub allowlist: Option<AllowlistStatus>,
    /// Since a valid head came last; null where the clock cannot tell.
    pub age_s: Option<u64>,
    /// Whether it is older than `stale_warning`.
    pub stale: bool,
    /// Badges that are blocked on site.
    pub local_blocks: u64,
    /// A newer list on its way.
    pub taking: Option<Progress>,
}

/// A list on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its version.
    pub version: u64,
    /// Parts in all; 0 where none are pulled.
    pub parts: u64,
    /// Parts that are not here yet.
    pub missing: u64,
}

/// How an import stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// It goes on, with these chunks beside those that were named before.
    Wanted(Vec<PartRequest>),
    /// The list decides from now on.
    Applied(AllowlistStanding),
    /// It decided already.
    Unchanged(AllowlistStanding),
    /// The list from before goes on deciding.
    Refused(Refused),
}

/// Why an import is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Of the refused head, where it could be read.
    pub version: Option<u64>,
    /// The contract's word.
    pub reason: String,
    /// What exactly.
    pub detail: String,
    /// Which list decides.
    pub current: Option<AllowlistStanding>,
}

/// Consecutive entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPage {
    /// The list that they are of; null as long as there is none.
    pub head: Option<PageHead>,
    /// Each as canonical JSON.
    pub entries: Vec<String>,
    /// The last one's UID; null where there are no more.
    pub last: Option<String>,
}

/// A list without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the cloud contract's")]
pub struct PageHead {
    pub list: String,
    pub version: u64,
    pub count: u64,
    pub digest: String,
    pub issued_at: Wall,
}
