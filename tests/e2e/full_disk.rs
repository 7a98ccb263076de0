//! A disk that is full: nothing starts, what runs goes on, and all is well once there is room.

use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::people::{ANNA, BORIS, WASHER_COIL, WASHER_METER};
use crate::site::{REPEAT, Site, records};

/// How the store's disk gets full.
enum Disk {
    /// A file system of its own, seen by the daemon alone.
    Small,
    /// No file grows any more: for those who may not mount.
    Limited,
}

impl Disk {
    /// A small file system where this user may mount one.
    fn for_this_user() -> Disk {
        let mount = ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"];
        let mounted = Command::new("unshare").args(mount).output();
        if mounted.is_ok_and(|it| it.status.success()) { Disk::Small } else { Disk::Limited }
    }

    fn prepare(&self, site: &mut Site) {
        match self {
            Disk::Small => {
                let store = site.path("store");
                std::fs::create_dir(&store).expect("a new directory");
                site.wrapper = vec!["unshare", "--mount"];
                site.prelude = format!("mount -t tmpfs -o size=400m none '{}'", store.display());
            }
            // An ignored signal stays ignored; the log would be limited too.
            Disk::Limited => site.prelude = "trap '' XFSZ; exec 2>/dev/null".into(),
        }
    }

    fn fill(&self, site: &mut Site) {
        match self {
            Disk::Small => {
                let used = site.path("store");
                let size = format!("/proc/{}/root{}", site.pid(), used.display());
                let bytes: u64 = std::fs::read_dir(size)
                    .expect("the daemon's store")
                    .map(|file| file.and_then(|file| file.metadata()).expect("a file").len())
                    .sum();
                // Less than this is in use already: not a page is left.
                resize(site, bytes / 4096 * 4096);
            }
            Disk::Limited => limit(site, Some(1)),
        }
    }

    fn make_room(&self, site: &mut Site) {
        match self {
            Disk::Small => resize(site, 400 << 20),
            Disk::Limited => limit(site, None),
        }
    }
}

/// Changes the size of the daemon's file system; to what is in use where that is more.
fn resize(site: &mut Site, bytes: u64) {
    let (store, pid) = (site.path("store"), site.pid().to_string());
    let remount = |bytes: u64| {
        let size = format!("remount,size={bytes}");
        let enter = ["--target", &pid, "--mount", "mount", "-o", &size];
        let done = Command::new("nsenter").args(enter).arg(&store).output().expect("nsenter");
        done.status.success()
    };
    // The kernel refuses to make it smaller than what is in it.
    let enough = (0..1_000).map(|pages| bytes + pages * 4096).find(|bytes| remount(*bytes));
    assert!(enough.is_some(), "the file system cannot be resized");
}

fn limit(site: &mut Site, bytes: Option<u64>) {
    let pid = Pid::from_raw(site.pid() as i32).expect("a process id");
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(Some(pid), Resource::Fsize, limit).expect("a child's limit");
}

#[test]
fn a_full_disk_refuses_starts_and_ends_nothing() {
    refuses_starts_and_ends_nothing(&Disk::for_this_user());
}

#[test]
fn a_store_that_cannot_grow_refuses_starts_and_ends_nothing() {
    refuses_starts_and_ends_nothing(&Disk::Limited);
}

fn refuses_starts_and_ends_nothing(disk: &Disk) {
    let mut site = Site::ready_to_start();
    disk.prepare(&mut site);
    site.start();
    site.until_ready();
    let start = site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
    site.settled();

    disk.fill(&mut site);
    let event = site.tap_in_vain("Drying", &BORIS);
    assert_eq!((&event["reason"], &event["badge"]), (&json!("storage_failure"), &json!("b-2")));
    assert_eq!(site.station("dryer-1")["session"], json!(null));
    // The wash goes on, and comes to its end without a disk.
    site.until_in_use("washer-1");
    let so_far = site.register(WASHER_METER);
    site.until("it washes on", |site| site.register(WASHER_METER) > so_far + 10);
    assert_eq!(site.writes(), [(WASHER_COIL, true)]);
    site.draw(WASHER_METER, 0);
    site.until("the washer is free", |site| site.station("washer-1")["state"] == "available");
    let status = site.status();
    assert!(status["ledger"]["unsaved"].as_u64() >= Some(2), "{status}");
    assert!(status["alarms"].to_string().contains("free disk space"), "{status}");
    let event = site.tap_in_vain("Laundry", &BORIS);
    assert_eq!(event["reason"], "storage_failure");
    assert_eq!(site.writes(), [(WASHER_COIL, true), (WASHER_COIL, false)]);

    disk.make_room(&mut site);
    let end = site.record("session_ended", 1);
    let used = site.register(WASHER_METER) - 12_346;
    assert_eq!((&end["session"], &end["energy_wh"]), (&start["session"], &json!(used)));
    let saved = std::time::Instant::now();
    site.until("the same card counts again", |_| saved.elapsed() > REPEAT);
    site.tap_to_start("Drying", &BORIS);
    let view = site.settled();
    assert_eq!(records(&view, "session_started").len(), 2);
}
