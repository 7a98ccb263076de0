//! libc's functions as the store's code finds them: each does the system call, and is recorded.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{mode_t, off_t, size_t, ssize_t};

use super::{Key, Tap, is_running, note_file, taps};
use crate::log::Op;

thread_local! {
    /// SQLite writes on this thread, and its VFS records that.
    static WITHIN_SQLITE: Cell<bool> = const { Cell::new(false) };
}

/// For as long as it lives, only names are recorded on this thread.
pub(super) struct WithinSqlite(());

impl WithinSqlite {
    pub(super) fn enter() -> WithinSqlite {
        WITHIN_SQLITE.set(true);
        WithinSqlite(())
    }
}

impl Drop for WithinSqlite {
    fn drop(&mut self) {
        WITHIN_SQLITE.set(false);
    }
}

/// Device and inode of what lies there; symbolic links are not followed.
pub(super) fn key_of_path(path: *const c_char) -> Option<Key> {
    let mut found = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `path` is a C string of the caller, `found` has room for the answer.
    let found =
        unsafe { (libc::lstat(path, found.as_mut_ptr()) == 0).then(|| found.assume_init()) }?;
    Some((found.st_dev, found.st_ino))
}

fn stat_of(descriptor: c_int) -> Option<libc::stat> {
    let mut found = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: any number may be asked about; `found` has room for the answer.
    unsafe { (libc::fstat(descriptor, found.as_mut_ptr()) == 0).then(|| found.assume_init()) }
}

fn is_folder(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// SAFETY: `path` must be a C string.
unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: as the caller promises.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

/// Does what `call` does; where it worked below a recorded folder, keeps what `op` makes of it.
/// Nothing else changes names there meanwhile.
fn naming(
    path: &Path,
    call: impl FnOnce() -> c_long,
    op: impl FnOnce(&mut Tap, c_long) -> Option<Op>,
) -> c_long {
    if !is_running() {
        return call();
    }
    let mut taps = taps();
    let Some(tap) = taps.iter_mut().find(|tap| path.starts_with(&tap.root)) else {
        drop(taps);
        return call();
    };
    let result = call();
    if result >= 0
        && let Some(op) = op(tap, result)
    {
        tap.ops.push(op);
    }
    result
}

/// The same for a file's data.
fn data(
    descriptor: c_int,
    call: impl FnOnce() -> c_long,
    op: impl FnOnce(u32, c_long) -> Op,
) -> c_long {
    if !is_running() || WITHIN_SQLITE.get() {
        return call();
    }
    let stat = stat_of(descriptor);
    let result = call();
    if result >= 0
        && let Some(stat) = stat
    {
        note_file((stat.st_dev, stat.st_ino), |file| op(file, result));
    }
    result
}

fn copied(bytes: *const c_void, length: c_long) -> std::sync::Arc<[u8]> {
    // SAFETY: the system call has just read as many bytes from there.
    unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize) }.into()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the arguments are the caller's; without O_CREAT the kernel ignores the mode.
    let call = || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
        return call() as c_int;
    }
    // SAFETY: a caller of `open` gives a C string.
    let name = unsafe { path_of(path) };
    let before = if is_running() { key_of_path(path) } else { None };
    naming(name, call, |tap, descriptor| {
        let stat = stat_of(descriptor as c_int)?;
        let key = (stat.st_dev, stat.st_ino);
        if before != Some(key) {
            return Some(Op::Create { name: tap.name(name)?, file: tap.new_file(key) });
        }
        let file = *tap.known.get(&key)?;
        (flags & libc::O_TRUNC != 0).then_some(Op::Truncate { file, length: 0 })
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the same function under its other name.
    unsafe { open64(path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: asks for the position alone.
    let at = || unsafe { libc::lseek(descriptor, 0, libc::SEEK_CUR) };
    let at = if is_running() { at() } else { 0 };
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { libc::syscall(libc::SYS_write, descriptor, bytes, count) };
    data(descriptor, call, |file, written| Op::Write {
        file,
        at: at as u64,
        bytes: copied(bytes, written),
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    descriptor: c_int,
    bytes: *const c_void,
    count: size_t,
    at: off_t,
) -> ssize_t {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { libc::syscall(libc::SYS_pwrite64, descriptor, bytes, count, at) };
    data(descriptor, call, |file, written| Op::Write {
        file,
        at: at as u64,
        bytes: copied(bytes, written),
    }) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(descriptor: c_int, length: off_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { libc::syscall(libc::SYS_ftruncate, descriptor, length) };
    data(descriptor, call, |file, _| Op::Truncate { file, length: length as u64 }) as c_int
}

fn sync(descriptor: c_int, number: c_long) -> c_int {
    // SAFETY: a descriptor that is not open is an error.
    let call = || unsafe { libc::syscall(number, descriptor) };
    let folder = is_running().then(|| stat_of(descriptor)).flatten().filter(is_folder);
    if folder.is_none() {
        return data(descriptor, call, |file, _| Op::Sync { file, commit: false }) as c_int;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap_or_default();
    naming(&path, call, |tap, _| Some(Op::SyncFolder { name: tap.name(&path)? })) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(descriptor: c_int) -> c_int {
    sync(descriptor, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    sync(descriptor, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let here = libc::AT_FDCWD;
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, 0) };
    // SAFETY: a caller of `rename` gives two C strings.
    let (from, to) = unsafe { (path_of(from), path_of(to)) };
    naming(from, call, |tap, _| Some(Op::Rename { from: tap.name(from)?, to: tap.name(to)? }))
        as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) };
    // SAFETY: a caller of `unlink` gives a C string.
    let name = unsafe { path_of(path) };
    naming(name, call, |tap, _| Some(Op::Unlink { name: tap.name(name)? })) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the arguments are the caller's.
    let call = || unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) };
    // SAFETY: a caller of `mkdir` gives a C string.
    let name = unsafe { path_of(path) };
    naming(name, call, |tap, _| Some(Op::MakeFolder { name: tap.name(name)? })) as c_int
}
