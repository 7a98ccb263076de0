//! The allocator: all threads share one arena.
//!
//! glibc gives each thread one of its own, and what a thread frees stays in its arena for that
//! thread alone. The daemon has a dozen threads that allocate little and seldom: one arena is a
//! third of a megabyte less, and nobody waits for its lock.

/// Call it before the first thread starts.
pub fn share_one_arena() {
    // Where it is not taken, more memory is used and nothing else.
    super::kernel::limit_arenas(1);
}
