//! What was asked of the disk, in order.

use std::sync::Arc;

/// A file, whatever its name is now.
pub type FileId = u32;

/// A path below the recorded folder; the folder itself is the empty one.
pub type Name = String;

/// One thing that a program asked of the disk. Data may wait in memory until its file is synced,
/// names until their folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create { name: Name, file: FileId },
    MakeFolder { name: Name },
    Rename { from: Name, to: Name },
    Unlink { name: Name },
    Write { file: FileId, at: u64, bytes: Arc<[u8]> },
    Truncate { file: FileId, length: u64 },
    Sync { file: FileId, commit: bool },
    SyncFolder { name: Name },
}

impl Op {
    /// The folder whose sync makes it last; `None` where it is not about names.
    pub fn folder(&self) -> Option<&str> {
        match self {
            Op::Create { name, .. }
            | Op::MakeFolder { name }
            | Op::Rename { from: name, .. }
            | Op::Unlink { name } => Some(folder_of(name)),
            Op::Write { .. } | Op::Truncate { .. } | Op::Sync { .. } | Op::SyncFolder { .. } => {
                None
            }
        }
    }

    /// The file whose sync makes it last; `None` where it is not about data.
    pub fn data_of(&self) -> Option<FileId> {
        match self {
            Op::Write { file, .. } | Op::Truncate { file, .. } => Some(*file),
            Op::Create { .. }
            | Op::MakeFolder { .. }
            | Op::Rename { .. }
            | Op::Unlink { .. }
            | Op::Sync { .. }
            | Op::SyncFolder { .. } => None,
        }
    }

    /// In one line, for whoever looks for a fault.
    pub fn brief(&self) -> String {
        match self {
            Op::Write { file, at, bytes } => {
                format!("write file {file}, {} bytes at {at}", bytes.len())
            }
            other => format!("{other:?}"),
        }
    }
}

/// The folder that a name is in.
pub fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
