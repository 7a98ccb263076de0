//! Calls of the system of which neither the standard library nor rustix has a safe form. The only
//! module with `unsafe`; `tests/tidy.rs` keeps it so.

#![expect(unsafe_code, reason = "libc's calls are unsafe; what they need is made here")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Whether the kernel's clock is disciplined, by whatever NTP client (adjtimex(2)).
pub(super) fn clock_is_disciplined() -> bool {
    const STA_UNSYNC: libc::c_int = 0x40;
    const TIME_ERROR: libc::c_int = 5;
    // SAFETY: timex is plain old data for which all zeros is valid, and `modes` = 0 only reads.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex.status)
    };
    state >= 0 && state != TIME_ERROR && status & STA_UNSYNC == 0
}

/// Waits until the disk has what was written to the file (sync_file_range(2)). No promise that it
/// lasts through a power cut: that is what `sync_data` is for.
pub(super) fn wait_for_writes(file: &File) {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, flags);
    }
}

/// How many arenas glibc's allocator has at most (mallopt(3)); before the first thread starts.
pub(super) fn limit_arenas(most: libc::c_int) {
    // SAFETY: it changes nothing but the setting.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, most);
    }
}
