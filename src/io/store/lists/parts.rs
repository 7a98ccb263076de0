//! Parts of lists on disk: while they are pulled, and afterwards, so that the next list pulls only
//! what changed.
//!
//! A part's file begins with how it is cut and how far it is; its content follows. Whole and
//! proved, it is synced and loses its suffix. What a power cut leaves of an unfinished one may be
//! wrong and is found out by the hash.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::pace::Pacer;
use super::pull::{Layout, Place};
use crate::protocol::allowlist::Part;

/// Begins every part's file.
const MAGIC: &[u8; 8] = b"tgpart01";
/// The magic, then number of chunks, their length and how many there are from the start on.
const HEADER_BYTES: u64 = 32;
/// Between two syncs of an unfinished part: what a power cut may cost to be pulled again.
const SYNC_EVERY: u64 = 1024 * 1024;
/// Read at once while a part is hashed or taken apart.
const READ_BYTES: usize = 64 * 1024;
/// Of a part that is not whole.
const UNFINISHED: &str = "partial";

/// Where the parts are.
#[derive(Clone, Debug)]
pub(super) struct PartFolder(PathBuf);

impl PartFolder {
    pub(super) fn new(path: PathBuf) -> PartFolder {
        PartFolder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether a part is here with its content; one that has rotted is removed.
    pub(super) fn has(&self, part: &Part) -> io::Result<bool> {
        let path = self.0.join(&part.sha256);
        match File::open(&path) {
            Ok(file) if is_whole(&file, part)? => Ok(true),
            Ok(_) => fs::remove_file(&path).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.finish(part),
            Err(error) => Err(error),
        }
    }

    /// Power may have gone after the last chunk and before its part had its name: no chunk will
    /// come that could end it.
    fn finish(&self, part: &Part) -> io::Result<bool> {
        match self.progress(part) {
            Some((layout, prefix)) if prefix == layout.n => self.open(part)?.finish(),
            Some(_) | None => Ok(false),
        }
    }

    /// How much of a part is here, whole or not.
    pub(super) fn bytes_of(&self, part: &Part) -> u64 {
        let length = |path: PathBuf| fs::metadata(path).ok().map(|metadata| metadata.len());
        let found = length(self.0.join(&part.sha256)).or(length(self.unfinished(&part.sha256)));
        found.unwrap_or(0).min(part.bytes)
    }

    /// How far an unfinished part is.
    pub(super) fn progress(&self, part: &Part) -> Option<(Layout, u64)> {
        let file = File::open(self.unfinished(&part.sha256)).ok()?;
        read_header(&file, part.bytes)
    }

    /// Opens an unfinished part to go on with it, or to begin it.
    pub(super) fn open(&self, part: &Part) -> io::Result<PartFile> {
        DirBuilder::new().recursive(true).mode(0o750).create(&self.0)?;
        let path = self.unfinished(&part.sha256);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o640)
            .open(&path)?;
        let pacer = Pacer::new(file.try_clone()?);
        Ok(PartFile { file, path, part: part.clone(), pacer, unsynced: 0 })
    }

    /// The content of a whole part.
    pub(super) fn read(&self, sha256: &str) -> io::Result<BufReader<File>> {
        let mut file = File::open(self.0.join(sha256))?;
        file.seek(SeekFrom::Start(HEADER_BYTES))?;
        Ok(BufReader::with_capacity(READ_BYTES, file))
    }

    /// Removes all parts but these, finished or not.
    pub(super) fn keep_only(&self, names: &BTreeSet<&str>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let part = name.strip_suffix(UNFINISHED).map_or(&*name, |n| n.trim_end_matches('.'));
            if !names.contains(part) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn unfinished(&self, sha256: &str) -> PathBuf {
        self.0.join(format!("{sha256}.{UNFINISHED}"))
    }
}

/// A part that is being pulled.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    part: Part,
    pacer: Pacer,
    unsynced: u64,
}

impl PartFile {
    /// Writes a chunk where it belongs.
    pub(super) fn write(&mut self, place: &Place, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, HEADER_BYTES + place.offset)?;
        self.pacer.wrote(bytes.len() as u64);
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        self.file.write_all_at(&header(place.layout, place.prefix), 0)
    }

    /// The last chunk is there: whether the part is what its name says. If so, it is durable under
    /// that name from now on; if not, it is gone.
    pub(super) fn finish(self) -> io::Result<bool> {
        if !is_whole(&self.file, &self.part)? {
            fs::remove_file(&self.path)?;
            return Ok(false);
        }
        self.file.sync_data()?;
        fs::rename(&self.path, self.path.with_extension(""))?;
        Ok(true)
    }
}

fn header(layout: Layout, prefix: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    for (field, value) in header[8..].chunks_mut(8).zip([layout.n, layout.length, prefix]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// How a part is cut and how far it is; `None` where that makes no sense.
fn read_header(file: &File, bytes: u64) -> Option<(Layout, u64)> {
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0).ok()?;
    let field = |at: usize| {
        let bytes = header[at..at + 8].try_into().expect("eight bytes of a longer header");
        u64::from_le_bytes(bytes)
    };
    let (layout, prefix) = (Layout { n: field(8), length: field(16) }, field(24));
    let sane = header.starts_with(MAGIC) && layout.fits(bytes) && prefix <= layout.n;
    let there = file.metadata().ok()?.len().saturating_sub(HEADER_BYTES);
    (sane && there >= (prefix * layout.length).min(bytes)).then_some((layout, prefix))
}

fn is_whole(file: &File, part: &Part) -> io::Result<bool> {
    if file.metadata()?.len() != HEADER_BYTES + part.bytes {
        return Ok(false);
    }
    let mut reader = file;
    reader.seek(SeekFrom::Start(HEADER_BYTES))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hex::encode(hash.finalize()) == part.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(i: u64, prefix: u64) -> Place {
        let layout = Layout { n: 3, length: 10 };
        Place { offset: i * 10, layout, prefix, whole: prefix == 3 }
    }

    fn part(content: &[u8]) -> Part {
        Part { sha256: hex::encode(Sha256::digest(content)), bytes: content.len() as u64 }
    }

    #[test]
    fn a_part_goes_on_where_it_was_and_is_proved_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let parts = PartFolder::new(folder.path().join("parts"));
        let content = b"0123456789abcdefghijABCDE";
        let part = part(content);
        assert_eq!(parts.progress(&part), None);
        let mut file = parts.open(&part).expect("begun");
        file.write(&place(2, 0), &content[20..]).expect("written");
        file.write(&place(0, 1), &content[..10]).expect("written");
        drop(file);

        assert_eq!(parts.progress(&part), Some((Layout { n: 3, length: 10 }, 1)));
        let mut file = parts.open(&part).expect("goes on");
        file.write(&place(1, 3), &content[10..20]).expect("written");

        assert!(file.finish().expect("read back"));
        assert!(parts.has(&part).expect("read"));
        let mut read = Vec::new();
        parts.read(&part.sha256).expect("opened").read_to_end(&mut read).expect("read");
        assert_eq!(read, content);
        parts.keep_only(&BTreeSet::from([part.sha256.as_str()])).expect("cleaned");
        assert!(parts.has(&part).expect("read"));
        fs::write(parts.path().join(&part.sha256), b"rotten").expect("written");
        assert!(!parts.has(&part).expect("read"), "found out and removed");
        assert!(!parts.path().join(&part.sha256).exists());
    }

    #[test]
    fn content_with_another_hash_is_thrown_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let parts = PartFolder::new(folder.path().to_path_buf());
        let part = part(b"0123456789");
        let mut file = parts.open(&part).expect("begun");
        let place =
            Place { offset: 0, layout: Layout { n: 1, length: 10 }, prefix: 1, whole: true };
        file.write(&place, b"0123456780").expect("written");

        assert!(!file.finish().expect("read back"));

        assert_eq!(parts.progress(&part), None);
        assert!(!parts.has(&part).expect("read"));
        parts.open(&part).expect("begun").write(&place, b"0123456789").expect("written");
        parts.keep_only(&BTreeSet::new()).expect("cleaned");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0);
    }

    #[test]
    fn a_header_that_makes_no_sense_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let parts = PartFolder::new(folder.path().to_path_buf());
        let part = part(b"0123456789");
        let path = folder.path().join(format!("{}.partial", part.sha256));
        let cut = |n, length| header(Layout { n, length }, 1);
        for header in [cut(0, 10), cut(1, 9), cut(2, 10), cut(u64::MAX, 1), cut(1, 10)] {
            fs::write(&path, header).expect("written");
            assert_eq!(parts.progress(&part), None);
        }
        fs::write(&path, b"short").expect("written");
        assert_eq!(parts.progress(&part), None);
    }
}
