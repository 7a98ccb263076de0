//! The same life on a real file system: what `tests/powercut/run.sh` runs in user-mode-linux, and
//! what it has each state of the disk recovered by. See there.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Command;

use crate::bench::{Bench, runtime};
use crate::check::{Expected, recover};
use crate::scenarios;
use crate::seen::Seen;
use crate::wiretap;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn given(name: &str) -> String {
    variable(name).unwrap_or_else(|| panic!("{name}: run make nightly-powercut"))
}

/// Lets the log of the disk's writes know what was promised when.
#[test]
#[ignore = "runs in user-mode-linux: make nightly-powercut"]
fn works() {
    if variable("TAPGATE_POWERCUT_LEAVE_OUT").is_some() {
        wiretap::leave_out_commit_syncs();
    }
    let mut promises = OpenOptions::new()
        .create(true)
        .append(true)
        .open(given("TAPGATE_POWERCUT_PROMISES"))
        .expect("a file for promises");
    let mut given_so_far = 0;
    let mut bench = Bench::at(PathBuf::from(given("TAPGATE_POWERCUT_DISK")));
    bench.on_promise(move |seen| {
        given_so_far += 1;
        let line = serde_json::to_string(seen).expect("plain JSON");
        writeln!(promises, "{line}").expect("written");
        promises.sync_all().expect("kept");
        let mark = format!("promise-{given_so_far}");
        let marked =
            Command::new("dmsetup").args(["message", "logged", "0", "mark", &mark]).status();
        assert!(marked.expect("dmsetup runs").success());
    });
    scenarios::live(&mut bench);
    bench.close();
}

/// Recovers what lies on the mounted disk.
#[test]
#[ignore = "needs a disk after a power cut: make nightly-powercut"]
fn recovers() {
    let promises = File::open(given("TAPGATE_POWERCUT_PROMISES")).expect("promises");
    let promises: Vec<Seen> = BufReader::new(promises)
        .lines()
        .map(|line| serde_json::from_str(&line.expect("readable")).expect("a promise"))
        .collect();
    let number: usize = given("TAPGATE_POWERCUT_PROMISED").parse().expect("a number");
    let promised = number.checked_sub(1).map(|last| &promises[last]);
    let next = promises.get(number).or(promised).expect("a promise");
    let expected = Expected { promised, next, killed: false, damaged: false };
    let root = PathBuf::from(given("TAPGATE_POWERCUT_DISK"));
    let found = runtime().block_on(recover(&root, "after the power cut", &expected));
    if let Err(fault) = found {
        panic!("{fault}");
    }
}
