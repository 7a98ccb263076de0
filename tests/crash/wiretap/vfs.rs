//! An SQLite VFS that passes everything on to the real one and records what changes files.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;

use super::calls::{WithinSqlite, key_of_path};
use super::{Key, note_file};
use crate::log::Op;

/// A log's header, before its first frame.
const LOG_HEADER: i64 = 32;

/// A file as SQLite has it; the real one lies behind it in memory.
#[repr(C)]
struct Tapped {
    base: ffi::sqlite3_file,
    key: Option<Key>,
    is_log: bool,
    /// Frames were written to the log since its last sync: the next one is a commit's.
    has_frames: bool,
}

static REAL: OnceLock<usize> = OnceLock::new();
static LEAVE_OUT: AtomicBool = AtomicBool::new(false);

/// From now on logs are not synced with each commit, as with `synchronous=NORMAL`.
pub fn leave_out_commit_syncs() {
    LEAVE_OUT.store(true, Ordering::Relaxed);
}

/// Lies over the default VFS from now on, for all connections that are opened.
pub fn install() {
    REAL.get_or_init(|| {
        // SAFETY: the default VFS is there for the process's life, and so is ours, which is leaked.
        unsafe {
            ffi::sqlite3_initialize();
            let real = ffi::sqlite3_vfs_find(ptr::null());
            let ours = ffi::sqlite3_vfs {
                szOsFile: (*real).szOsFile + size_of::<Tapped>() as c_int,
                zName: c"tapped".as_ptr(),
                pNext: ptr::null_mut(),
                xOpen: Some(open),
                ..*real
            };
            ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1);
            real as usize
        }
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 1: no shared memory, no mapped files; the store uses neither.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let real = *REAL.get().expect("installed") as *mut ffi::sqlite3_vfs;
    // SAFETY: SQLite gives as much memory as `szOsFile` says, and the arguments that the real VFS
    // expects.
    unsafe {
        let beneath = beneath(file);
        (*file).pMethods = ptr::null();
        (*beneath).pMethods = ptr::null();
        let result = (*real).xOpen.expect("every VFS opens")(real, name, beneath, flags, out);
        if !(*beneath).pMethods.is_null() {
            let key = (!name.is_null()).then(|| key_of_path(name as *const c_char)).flatten();
            let is_log = flags & ffi::SQLITE_OPEN_WAL != 0;
            let base = ffi::sqlite3_file { pMethods: &raw const METHODS };
            file.cast::<Tapped>().write(Tapped { base, key, is_log, has_frames: false });
        }
        result
    }
}

/// SAFETY: `file` must be one of ours.
unsafe fn beneath(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the real file's memory follows.
    unsafe { file.cast::<Tapped>().add(1).cast() }
}

/// Calls the real file's method of that name.
macro_rules! pass_on {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls our methods with our open files alone, and with arguments that the
        // real methods, which are all there, expect.
        unsafe {
            let file = beneath($file);
            (*(*file).pMethods).$method.expect("a method of every VFS")(file $(, $argument)*)
        }
    }};
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    let within = WithinSqlite::enter();
    let result = pass_on!(file, xWrite, bytes, count, at);
    drop(within);
    // SAFETY: our own open file, and what SQLite has just had written.
    let (tapped, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), count as usize);
        (&mut *file.cast::<Tapped>(), bytes)
    };
    tapped.has_frames |= tapped.is_log && at >= LOG_HEADER;
    if result == ffi::SQLITE_OK
        && super::is_running()
        && let Some(key) = tapped.key
    {
        note_file(key, |file| Op::Write { file, at: at as u64, bytes: bytes.into() });
    }
    result
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    let within = WithinSqlite::enter();
    let result = pass_on!(file, xTruncate, length);
    drop(within);
    // SAFETY: our own open file.
    let key = unsafe { (*file.cast::<Tapped>()).key };
    if let Some(key) = key.filter(|_| result == ffi::SQLITE_OK && super::is_running()) {
        note_file(key, |file| Op::Truncate { file, length: length as u64 });
    }
    result
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: our own open file.
    let tapped = unsafe { &mut *file.cast::<Tapped>() };
    let commit = std::mem::take(&mut tapped.has_frames);
    let key = tapped.key;
    if commit && LEAVE_OUT.load(Ordering::Relaxed) {
        return ffi::SQLITE_OK;
    }
    let within = WithinSqlite::enter();
    let result = pass_on!(file, xSync, flags);
    drop(within);
    if let Some(key) = key.filter(|_| result == ffi::SQLITE_OK && super::is_running()) {
        note_file(key, |file| Op::Sync { file, commit });
    }
    result
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xClose)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    at: i64,
) -> c_int {
    pass_on!(file, xRead, into, count, at)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    pass_on!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    answer: *mut c_int,
) -> c_int {
    pass_on!(file, xCheckReservedLock, answer)
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    pass_on!(file, xFileControl, op, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xDeviceCharacteristics)
}
