//! What the kernel counts, and how times spread.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// How long something took, again and again.
pub(crate) struct Spread {
    sorted: Vec<Duration>,
}

impl Spread {
    pub(crate) fn of(mut took: Vec<Duration>) -> Spread {
        took.sort_unstable();
        Spread { sorted: took }
    }

    fn at(&self, permille: usize) -> f64 {
        let index = (self.sorted.len() * permille / 1000).min(self.sorted.len() - 1);
        self.sorted[index].as_secs_f64() * 1e3
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, max) = (self.at(500), self.at(990), self.at(1000));
        let n = self.sorted.len();
        write!(f, "median {median:.3} ms, p99 {p99:.3} ms, worst {max:.3} ms (n {n})")
    }
}

/// Bytes that this process caused to be written to the disk.
pub(crate) fn written_bytes() -> anyhow::Result<u64> {
    field("/proc/self/io", "write_bytes:")
}

/// The most memory that this process had since [`reset_peak`].
pub(crate) fn peak_kib() -> anyhow::Result<u64> {
    field("/proc/self/status", "VmHWM:")
}

pub(crate) fn reset_peak() -> anyhow::Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("the kernel forgets no peak here")
}

fn field(file: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}
