//! A memory card: ext4 on a loop device, counted by the block layer.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// Unmounted when dropped.
pub(crate) struct Card {
    folder: TempDir,
    statistics: PathBuf,
}

/// Bytes of the image.
const SIZE: u64 = 256 << 20;
/// The block layer counts in these, whatever the device's sectors are.
const SECTOR: u64 = 512;

impl Card {
    pub(crate) fn new() -> anyhow::Result<Card> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("card.img");
        fs::File::create(&image)?.set_len(SIZE)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let mounted = folder.path().join("card");
        fs::create_dir(&mounted)?;
        run(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(&mounted))?;
        let device = fs::metadata(&mounted)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let statistics = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        Ok(Card { folder, statistics })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("card")
    }

    /// Bytes that were written to it so far.
    pub(crate) fn written(&self) -> anyhow::Result<u64> {
        run(Command::new("sync").arg("-f").arg(self.path()))?;
        let statistics = fs::read_to_string(&self.statistics)?;
        let sectors = statistics.split_whitespace().nth(6).context("the sectors written")?;
        Ok(sectors.parse::<u64>()? * SECTOR)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(self.path())) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().with_context(|| format!("{name} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", said.trim());
    Ok(())
}
