//! A few KiB beside the ledger that can be written when the disk is full.
//!
//! The file has two slots of fixed size that are written in turn, in place: no block is ever added,
//! and a write that a power cut tears leaves the other slot. What is kept is the caller's business.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::io::store::files::sync_name;

/// Bytes of one slot: the memos of 64 stations take some 16 KiB.
const SLOT: usize = 32 * 1024;
/// Number, length and digest come before the text.
const HEAD: usize = 8 + 4 + 32;
/// The longest text that a slot takes.
pub(super) const MAX_TEXT: usize = SLOT - HEAD;

/// The file and what was written last.
#[derive(Debug, Default)]
pub(super) struct Notebook {
    file: Option<File>,
    number: u64,
}

impl Notebook {
    /// Opens the file, makes it where it is missing, and reads what it holds. Without room for it
    /// the gateway works all the same, and remembers less over a restart.
    pub(super) fn open(path: &Path) -> (Notebook, Option<Vec<u8>>) {
        match open_whole(path) {
            Ok(file) => {
                let (number, text) = read_newest(&file).unwrap_or_default();
                (Notebook { file: Some(file), number }, (number > 0).then_some(text))
            }
            Err(error) => {
                tracing::warn!("{} cannot be used: {error}; free disk space", path.display());
                (Notebook::default(), None)
            }
        }
    }

    /// Replaces what it holds. On `Ok` it survives a power cut.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("there was no room for the file at the start"));
        };
        if text.len() > MAX_TEXT {
            return Err(io::Error::other(format!("{} bytes do not fit a slot", text.len())));
        }
        let number = self.number + 1;
        let mut slot = Vec::with_capacity(HEAD + text.len());
        slot.extend(number.to_le_bytes());
        slot.extend((text.len() as u32).to_le_bytes());
        slot.extend(digest(number, text));
        slot.extend(text);
        file.write_all_at(&slot, (number % 2) * SLOT as u64)?;
        file.sync_data()?;
        self.number = number;
        Ok(())
    }
}

/// Every block is written once, so that writing it again needs no room; its name will last.
fn open_whole(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
    let length = file.metadata()?.len();
    if length < 2 * SLOT as u64 {
        file.write_all_at(&vec![0; 2 * SLOT - length as usize], length)?;
        file.sync_all()?;
    }
    sync_name(path)?;
    Ok(file)
}

/// The newest slot that is whole.
fn read_newest(file: &File) -> Option<(u64, Vec<u8>)> {
    let slots = (0..2).filter_map(|slot| read_slot(file, slot * SLOT as u64));
    slots.max_by_key(|(number, _)| *number)
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Vec<u8>)> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, at).ok()?;
    let number = u64::from_le_bytes(head[..8].try_into().ok()?);
    let length = u32::from_le_bytes(head[8..12].try_into().ok()?) as usize;
    if number == 0 || length > MAX_TEXT {
        return None;
    }
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, at + HEAD as u64).ok()?;
    (head[12..] == digest(number, &text)).then_some((number, text))
}

fn digest(number: u64, text: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(number.to_le_bytes()).chain_update(text).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_written_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memo");
        let (mut notebook, before) = Notebook::open(&path);
        assert_eq!(before, None);
        for text in ["first", "second", "third"] {
            notebook.write(text.as_bytes()).expect("written");
            assert_eq!(Notebook::open(&path).1.as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memo");
        let (mut notebook, _) = Notebook::open(&path);
        notebook.write(b"first").expect("written");
        notebook.write(b"second").expect("written");
        let file = notebook.file.as_ref().expect("open");
        file.write_all_at(b"x", HEAD as u64 + 2).expect("torn");
        assert_eq!(Notebook::open(&path).1.as_deref(), Some(&b"first"[..]));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memo");
        let (mut notebook, _) = Notebook::open(&path);
        notebook.write(b"first").expect("written");
        assert!(notebook.write(&vec![0; MAX_TEXT + 1]).is_err());
        assert_eq!(Notebook::open(&path).1.as_deref(), Some(&b"first"[..]));
    }
}
