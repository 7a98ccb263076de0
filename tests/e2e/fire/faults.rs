//! Faults that are made by force: descriptors and memory that run out, a disk that answers with
//! errors, a clock that jumps, a line that goes silent in a network of its own.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::json;
use tapgate::demo::leash::Leashed;
use tapgate::protocol::cloud::Down;

use crate::people::{ANNA, BORIS, DRYER_METER, WASHER_COIL, WASHER_METER};
use crate::site::{REPEAT, Site, records};

const DRYER_COIL: u8 = 2;
/// The contract's bound for a silent link.
const NOTICED_WITHIN: Duration = Duration::from_secs(45);
/// What a daemon may grow by under any flood.
const MEMORY: u64 = 32 << 20;

/// A site whose washer is at work.
fn washing(site: &mut Site) {
    site.tap_to_start("Laundry", &ANNA);
    site.draw(WASHER_METER, 36_000);
    site.until_in_use("washer-1");
}

/// The wash comes to its end, and all is settled. It was never cut.
fn washed(site: &mut Site) {
    site.draw(WASHER_METER, 0);
    site.until("the washer is free", |site| site.station("washer-1")["state"] == "available");
    site.draw(DRYER_METER, 0);
    site.until("the dryer is free", |site| site.station("dryer-1")["session"].is_null());
    let view = site.settled();
    let ended = records(&view, "session_ended");
    assert!(ended.iter().any(|it| it["station"] == "washer-1" && it["reason"] == "finished"));
    assert_eq!(site.cuts(), []);
}

fn pid(site: &mut Site) -> Pid {
    Pid::from_raw(site.pid() as i32).expect("a process id")
}

#[test]
fn without_file_descriptors_machines_run_and_taps_count() {
    let mut site = Site::running();
    washing(&mut site);
    let pid = pid(&mut site);
    let open = fs::read_dir(format!("/proc/{}/fd", site.pid())).expect("its files").count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        let limit = Rlimit { current, maximum };
        prlimit(Some(pid), Resource::Nofile, limit).expect("a child's limit")
    };
    let before = limit(Some(open));

    // Nobody can ask it anything any more.
    let card = site.present("Drying", &BORIS);
    site.until("the dryer is switched on", |site| site.is_closed(DRYER_COIL));
    card.remove();
    assert!(site.is_closed(WASHER_COIL));

    limit(before.current);
    site.until("it answers again", |site| !site.status().is_null());
    washed(&mut site);
}

#[test]
#[ignore = "floods: make soak"]
fn with_little_memory_a_flood_stops_nothing() {
    let mut site = Site::running();
    washing(&mut site);
    let statm = fs::read_to_string(format!("/proc/{}/statm", site.pid())).expect("its memory");
    let pages: u64 = statm.split(' ').next().and_then(|it| it.parse().ok()).expect("pages");
    let limit = Rlimit { current: Some(pages * 4096 + MEMORY), maximum: None };
    prlimit(Some(pid(&mut site)), Resource::As, limit).expect("a child's limit");

    let long = "x".repeat(65_000);
    for round in 0..2_000 {
        for down in [Down::Ack, Down::Allowlist, Down::Part, Down::Command] {
            site.cloud.publish_raw(down, format!("{{\"x\":\"{long}{round}\"}}"), false);
        }
        if round % 50 == 0 {
            assert!(!site.status().is_null(), "{}", site.log());
        }
    }
    for command in [["ledger", "verify"], ["badge", "list"], ["allowlist", "status"]] {
        assert!(site.command(&command).status.success(), "{command:?}");
    }
    site.draw(DRYER_METER, 1_000);
    let card = site.present("Drying", &BORIS);
    site.until("the dryer is switched on", |site| site.is_closed(DRYER_COIL));
    card.remove();
    washed(&mut site);
}

/// strace makes the daemon's system calls fail, until it is dropped.
struct Saboteur(Child);

impl Saboteur {
    fn against(site: &mut Site, calls: &str, error: &str) -> Saboteur {
        let log = site.path("strace.log");
        let child = Command::new("strace")
            .args(["-f", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .args(["-p", &site.pid().to_string(), "-o"])
            .arg(site.path("calls.log"))
            .stderr(fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("strace is installed: apt install strace");
        site.until("strace holds the daemon", |_| {
            fs::read_to_string(&log).is_ok_and(|said| said.contains("attached"))
        });
        Saboteur(child)
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        // Interrupted, it lets the daemon go.
        let pid = Pid::from_raw(self.0.id() as i32).expect("a process id");
        let _ = kill_process(pid, Signal::INT);
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "needs strace: make soak"]
fn a_disk_that_answers_with_errors_starts_nothing_and_ends_nothing() {
    for (calls, error) in [("fsync,fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC")]
    {
        let mut site = Site::running();
        washing(&mut site);
        let saboteur = Saboteur::against(&mut site, calls, error);

        let event = site.tap_in_vain("Drying", &BORIS);
        assert_eq!(event["reason"], "storage_failure", "{calls} {error}");
        assert!(!site.is_closed(DRYER_COIL));
        let so_far = site.register(WASHER_METER);
        site.until("it washes on", |site| site.register(WASHER_METER) > so_far + 20);
        assert!(site.is_closed(WASHER_COIL));

        drop(saboteur);
        site.pid();
        let healed = Instant::now();
        site.until("the same card counts again", |_| healed.elapsed() > REPEAT);
        site.draw(DRYER_METER, 1_000);
        site.tap_to_start("Drying", &BORIS);
        washed(&mut site);
    }
}

#[test]
#[ignore = "needs libfaketime: make soak"]
fn a_clock_that_jumps_changes_no_session_and_no_account() {
    let mut site = Site::ready_to_start();
    let clock = site.path("clock");
    let shift = |by: &str| fs::write(&clock, by).expect("a file");
    shift("+0");
    site.prelude = format!(
        "export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1) FAKETIME_NO_CACHE=1 \
         DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE='{}'",
        clock.display()
    );
    site.start();
    site.until_ready();
    washing(&mut site);
    let begun = Instant::now();
    for by in ["+400d", "-20000d", "+0", "-1h"] {
        shift(by);
        let so_far = site.register(WASHER_METER);
        site.until("it washes on", |site| site.register(WASHER_METER) > so_far + 10);
        assert_eq!(site.station("washer-1")["state"], "in_use", "{by}");
        site.kill9();
        site.start_again();
        site.until_in_use("washer-1");
    }
    washed(&mut site);

    let view = site.settled();
    let end = records(&view, "session_ended")[0].clone();
    let lasted = end["duration_s"].as_u64().expect("seconds");
    assert!(lasted <= begun.elapsed().as_secs() + 60, "it lasted {lasted} s of the boot clock");
    assert_eq!(records(&view, "interruption").len(), 0, "a daemon's restart is no outage");
}

/// A network namespace with two lines to this machine's loopback: for the bus and for the broker.
struct Network {
    name: String,
    _forwarders: Vec<Leashed>,
}

impl Network {
    /// Puts the site's daemon into it.
    fn around(site: &mut Site) -> Network {
        let name = format!("tapgate-{}", std::process::id());
        let mut forwarders = Vec::new();
        run(&["ip", "netns", "add", &name]);
        let ports = [(0, site.broker.port()), (1, site.peer.port())];
        for (line, port) in ports {
            let (near, far) = (format!("tg{line}n"), format!("tg{line}f"));
            run(&["ip", "link", "add", &near, "type", "veth", "peer", &far, "netns", &name]);
            run(&["ip", "addr", "add", &format!("10.199.{line}.1/24"), "dev", &near]);
            run(&["ip", "link", "set", &near, "up"]);
            let address = format!("10.199.{line}.2/24");
            run(&["ip", "-n", &name, "addr", "add", &address, "dev", &far]);
            run(&["ip", "-n", &name, "link", "set", &far, "up"]);
            let listen = format!("TCP-LISTEN:{port},bind=10.199.{line}.1,fork,reuseaddr");
            let command = ["socat", &listen, &format!("TCP:127.0.0.1:{port}")].map(String::from);
            let log = site.path("socat.log");
            forwarders.push(Leashed::spawn(command, Stdio::null(), &log).expect("socat"));
            let there = format!("10.199.{line}.1:{port}");
            site.change_config(&format!("127.0.0.1:{port}"), &there);
        }
        site.change_config("[cloud]\n", "[cloud]\nallow_plaintext = true\n");
        site.wrapper = vec!["ip", "netns", "exec", name.clone().leak()];
        Network { name, _forwarders: forwarders }
    }

    /// The broker's line swallows what goes up, what comes down, or both.
    fn swallow(&self, up: bool, down: bool) {
        const NOBODY: &str = "02:00:00:00:00:01";
        let lost = ["lladdr", NOBODY, "nud", "permanent"];
        if up {
            let to = ["ip", "-n", &self.name, "neigh", "replace", "10.199.0.1", "dev", "tg0f"];
            run(&[&to[..], &lost].concat());
        }
        if down {
            let to = ["ip", "neigh", "replace", "10.199.0.2", "dev", "tg0n"];
            run(&[&to[..], &lost].concat());
        }
    }

    fn heal(&self) {
        let up = ["ip", "-n", &self.name, "neigh", "del", "10.199.0.1", "dev", "tg0f"];
        let down = ["ip", "neigh", "del", "10.199.0.2", "dev", "tg0n"];
        for line in [&up[..], &down] {
            // It is there only where something was swallowed.
            drop(Command::new(line[0]).args(&line[1..]).output());
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

fn run(command: &[&str]) {
    let done = Command::new(command[0]).args(&command[1..]).output().expect("iproute2");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said} (this test is for root)");
}

#[test]
#[ignore = "makes networks, as root: make soak"]
fn a_line_that_falls_silent_holds_up_nobody_and_loses_nothing() {
    let mut site = Site::ready_to_start();
    let network = Network::around(&mut site);
    site.start();
    site.until_ready();
    washing(&mut site);
    for (up, down) in [(true, true), (true, false), (false, true)] {
        network.swallow(up, down);
        let silent = Instant::now();
        site.draw(DRYER_METER, 1_000);
        let card = site.present("Drying", &BORIS);
        site.until("a tap counts meanwhile", |site| site.is_closed(DRYER_COIL));
        card.remove();
        site.until("the silence is noticed", |site| site.status()["cloud"]["connected"] == false);
        let noticed = silent.elapsed();
        eprintln!("silent up {up}, down {down}: noticed after {noticed:.1?}");
        assert!(noticed <= NOTICED_WITHIN, "{noticed:?}");
        site.draw(DRYER_METER, 0);
        site.until("the dryer is free", |site| site.station("dryer-1")["session"].is_null());
        network.heal();
        site.until("it is back", |site| site.status()["cloud"]["connected"] == true);
    }
    washed(&mut site);
    let view = site.settled();
    assert_eq!(records(&view, "session_ended").len(), 4);
    assert_eq!(view.events_of("clone_suspected").count(), 0, "{:?}", json!(view.events));
    drop(site);
    drop(network);
}
