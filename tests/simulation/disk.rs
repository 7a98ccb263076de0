//! A disk that can fail: SQLite's own way to files with a tap before every write.
//!
//! The state belongs to the thread, as a run does. A disk that is gone keeps what it has: whatever
//! a dead process would still write on its way out is lost, as if it had been killed.

#![expect(unsafe_code, reason = "SQLite's files are C; every pointer here comes from SQLite")]

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Once, OnceLock};

use rusqlite::ffi::{
    self, SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE, SQLITE_OK, sqlite3_file,
    sqlite3_io_methods, sqlite3_vfs,
};

/// How this thread's disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Works,
    /// What is there can be overwritten; nothing grows.
    Full,
    /// Nothing can be written.
    Broken,
    /// Writes are taken and their sync fails: whether they last is not known.
    Unsynced,
    /// The process is dead: nothing reaches the disk any more.
    Gone,
}

thread_local! {
    static HEALTH: Cell<Health> = const { Cell::new(Health::Works) };
}

pub fn set(health: Health) {
    HEALTH.set(health);
}

pub fn health() -> Health {
    HEALTH.get()
}

/// Puts the tap before SQLite's own files, for the whole process.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the default VFS of SQLite lives for ever; so do ours and its name, which leak.
        let code = unsafe {
            let own = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!own.is_null(), "SQLite has files");
            OWN.set(Own(own)).unwrap_or_else(|_| unreachable!("called once"));
            let ours = Box::leak(Box::new(*own));
            ours.szOsFile += size_of::<Tapped>() as c_int;
            ours.zName = c"tapped".as_ptr();
            ours.pNext = std::ptr::null_mut();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            ffi::sqlite3_vfs_register(ours, 1)
        };
        assert_eq!(code, SQLITE_OK, "the tap is in place");
    });
}

struct Own(*mut sqlite3_vfs);
// SAFETY: SQLite itself shares its VFS between threads.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

static OWN: OnceLock<Own> = OnceLock::new();

fn own() -> *mut sqlite3_vfs {
    OWN.get().expect("installed").0
}

/// A file of ours; SQLite's own one lies right behind it.
#[repr(C)]
struct Tapped {
    base: sqlite3_file,
    real: *mut sqlite3_file,
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room for `szOsFile` bytes: ours, then its own.
    unsafe {
        let tapped = file.cast::<Tapped>();
        let real = tapped.add(1).cast::<sqlite3_file>();
        (*tapped).base.pMethods = std::ptr::null();
        (*tapped).real = real;
        (*real).pMethods = std::ptr::null();
        let open = (*own()).xOpen.expect("files open");
        let code = open(own(), name, real, flags, out_flags);
        if !(*real).pMethods.is_null() {
            (*tapped).base.pMethods = &METHODS;
        }
        code
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    if health() == Health::Gone {
        return SQLITE_OK;
    }
    // SAFETY: passed on as it came.
    unsafe { (*own()).xDelete.expect("files are deleted")(own(), name, sync) }
}

/// SQLite's own file behind ours, with its methods.
unsafe fn real<'a>(file: *mut sqlite3_file) -> (*mut sqlite3_file, &'a sqlite3_io_methods) {
    // SAFETY: only files that `open` made come here, and their methods live for ever.
    unsafe {
        let real = (*file.cast::<Tapped>()).real;
        (real, &*(*real).pMethods)
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: passed on as it came.
    unsafe {
        let (real, methods) = real(file);
        match health() {
            Health::Works | Health::Unsynced => {}
            Health::Broken | Health::Gone => return SQLITE_IOERR_WRITE,
            Health::Full => {
                let mut length = 0;
                methods.xFileSize.expect("files have a size")(real, &mut length);
                if at + i64::from(bytes) > length {
                    return SQLITE_FULL;
                }
            }
        }
        methods.xWrite.expect("files are written")(real, from, bytes, at)
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    if matches!(health(), Health::Broken | Health::Gone) {
        return SQLITE_IOERR_WRITE;
    }
    // SAFETY: passed on as it came.
    unsafe {
        let (real, methods) = real(file);
        methods.xTruncate.expect("files are cut")(real, length)
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    if health() != Health::Works && health() != Health::Full {
        return SQLITE_IOERR_FSYNC;
    }
    // SAFETY: passed on as it came.
    unsafe {
        let (real, methods) = real(file);
        methods.xSync.expect("files are synced")(real, flags)
    }
}

/// Methods that only pass on what comes.
macro_rules! passed_on {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*);)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) -> c_int {
            // SAFETY: passed on as it came.
            unsafe {
                let (real, methods) = real(file);
                methods.$method.expect("every file has it")(real, $($argument),*)
            }
        }
    )*};
}

passed_on! {
    close = xClose();
    read = xRead(into: *mut c_void, bytes: c_int, at: ffi::sqlite3_int64);
    size = xFileSize(length: *mut ffi::sqlite3_int64);
    lock = xLock(level: c_int);
    unlock = xUnlock(level: c_int);
    reserved = xCheckReservedLock(is: *mut c_int);
    control = xFileControl(operation: c_int, argument: *mut c_void);
    sector = xSectorSize();
    device = xDeviceCharacteristics();
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without shared memory: every database here has one connection.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(device),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};
