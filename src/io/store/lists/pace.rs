//! Keeps a long list from filling the disk's queue: a tap's commit waits behind what is in it.

use std::fs::File;

use crate::io::kernel;

/// Handed to the disk at once: 20 ms of a slow card.
const SLICE_BYTES: u64 = 256 * 1024;

/// How much less than others the thread that builds lists gets of the processor.
const NICE: i32 = 10;

/// Follows what is written to a file and waits for the disk now and then.
#[derive(Debug)]
pub(in crate::io::store) struct Pacer {
    file: File,
    since: u64,
}

impl Pacer {
    /// For the file behind any of its handles.
    pub(in crate::io::store) fn new(file: File) -> Pacer {
        Pacer { file, since: 0 }
    }

    /// So many bytes more; waits until the disk has them where there are enough.
    pub(in crate::io::store) fn wrote(&mut self, bytes: u64) {
        self.since += bytes;
        if self.since < SLICE_BYTES {
            return;
        }
        self.since = 0;
        // Only the pace depends on it: whether the bytes are safe is what the final sync says.
        kernel::wait_for_writes(&self.file);
    }
}

/// Lets every other thread go before this one.
pub(super) fn be_nice() {
    // A system that does not allow it builds lists as fast as everything else.
    let _ = rustix::process::setpriority_process(None, NICE);
}
