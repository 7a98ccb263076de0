//! What a technician follows live: `watch`, and `top` in a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

use super::{Laundry, PATIENCE};

/// The terminal that everything must fit.
const ROWS: usize = 24;
const COLUMNS: usize = 80;

/// A command at work, and its lines of both kinds.
struct Follower {
    process: Child,
    events: Receiver<String>,
    words: Receiver<String>,
}

impl Follower {
    fn start(laundry: &Laundry, arguments: &[&str]) -> Follower {
        let mut command = laundry.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let events = lines(process.stdout.take().expect("piped"));
        let words = lines(process.stderr.take().expect("piped"));
        Follower { process, events, words }
    }

    /// The next event of a kind.
    fn event(&self, kind: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.events.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no event {kind}"));
            let event: Value = serde_json::from_str(&line).expect("JSON");
            assert!(event["at"]["wall"].is_string(), "{line}");
            if event["kind"] == kind {
                return event;
            }
        }
    }

    fn says(&self, words: &str) {
        let line = self.words.recv_timeout(PATIENCE);
        assert!(line.as_ref().is_ok_and(|line| line.contains(words)), "{words}: {line:?}");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let read = BufReader::new(pipe).lines().map_while(Result::ok);
        read.into_iter().try_for_each(|line| sender.send(line))
    });
    lines
}

/// Status as JSON, once the unit answers.
fn answering(laundry: &Laundry, device: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = laundry.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let devices = status["devices"].as_array().cloned().unwrap_or_default();
        if devices.iter().any(|it| it["device"] == device && it["state"] == "ok") {
            return status;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(super::Duration::from_millis(20));
    }
}

/// The meter does not answer any more, which is noticed at once since it is asked.
fn fall_silent(laundry: &Laundry) {
    laundry.building.silence(11, true);
    for _ in 0..2 {
        laundry.refusal(&["bus", "read", "meter-1", "power"]);
    }
}

fn until_closed(laundry: &Laundry, closed: bool) {
    let deadline = Instant::now() + PATIENCE;
    while laundry.building.is_closed(1, 0) != closed {
        assert!(Instant::now() < deadline, "{}", laundry.log());
        std::thread::sleep(super::Duration::from_millis(10));
    }
}

#[test]
fn watch_tells_units_switches_and_sessions_across_a_restart() {
    let mut laundry = Laundry::running();
    answering(&laundry, "meter-1");
    let watch = Follower::start(&laundry, &["watch", "--json"]);
    // The watcher is there as soon as the daemon tells of something.
    let test = laundry.json(&["station", "test", "washer-1"]);
    let start = watch.event("session_started");
    assert_eq!((&start["session"], &start["station"]), (&test["session"], &json!("washer-1")));
    assert_eq!(start["authorised_by"], json!("technician"));
    assert_eq!(watch.event("switch_closed")["station"], json!("washer-1"));
    assert_eq!(watch.event("session_ended")["session"], test["session"]);

    fall_silent(&laundry);
    let down = watch.event("unit_down");
    assert_eq!((&down["device"], &down["bus"]), (&json!("meter-1"), &json!("laundry")));
    assert_eq!(down["unit"], json!(11));
    let unit = &down["unit_figures"];
    assert!(unit["errors"].as_u64() >= Some(2) && unit["requests"].as_u64() > Some(2), "{down}");
    assert!(unit["error_rate_permille"].as_u64() > Some(0), "{down}");
    assert!(unit["latency_p50_ms"].is_u64() && unit["latency_p99_ms"].is_u64(), "{down}");
    let bus = &down["bus_figures"];
    assert!(bus["requests"].as_u64() > unit["requests"].as_u64(), "{down}");
    assert!(bus["utilisation_percent"].is_u64(), "{down}");
    laundry.building.silence(11, false);
    assert_eq!(watch.event("unit_back")["device"], json!("meter-1"));

    laundry.stop();
    watch.says("the daemon is gone; waiting for it");
    laundry.start();
    watch.says("the daemon is back");
    answering(&laundry, "meter-1");
    fall_silent(&laundry);
    assert_eq!(watch.event("unit_down")["device"], json!("meter-1"));
    assert!(laundry.log().contains("is down: bus laundry"), "{}", laundry.log());
    assert!(laundry.log().contains("% busy"), "{}", laundry.log());
}

#[test]
fn watch_in_plain_words_and_without_a_daemon() {
    let (exit, text) = Laundry::new().refusal(&["watch"]);
    assert_eq!((exit, text.contains("systemctl start tapgate")), (69, true), "{text}");

    let laundry = Laundry::running();
    answering(&laundry, "meter-1");
    let watch = Follower::start(&laundry, &["watch"]);
    laundry.json(&["station", "test", "washer-1"]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = watch.events.recv_timeout(left).expect("a line");
        if line.contains("session_started") {
            assert!(line.contains("station=washer-1"), "{line}");
            return;
        }
    }
}

#[test]
fn status_has_figures_per_bus_and_per_unit() {
    let laundry = Laundry::running();
    let status = answering(&laundry, "meter-1");
    for figures in [&status["buses"][0], &status["devices"][0], &status["devices"][1]] {
        assert!(figures["requests"].as_u64() > Some(0), "{figures}");
        assert_eq!(figures["errors"], json!(0), "{figures}");
        assert_eq!(figures["error_rate_permille"], json!(0), "{figures}");
        assert!(figures["latency_p50_ms"].is_u64(), "{figures}");
        assert!(figures["latency_p99_ms"].is_u64(), "{figures}");
        assert!(figures["utilisation_percent"].as_u64() <= Some(100), "{figures}");
    }
    let text = laundry.run(&["status"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("% busy") && text.contains("0.0 % errors"), "{text}");
}

/// `tapgate top` in a terminal of its own.
struct Top {
    process: Child,
    keyboard: File,
    /// The process's end, which also tells how the terminal is set.
    terminal: OwnedFd,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Top {
    fn start(laundry: &Laundry) -> Top {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let size =
            Winsize { ws_row: ROWS as u16, ws_col: COLUMNS as u16, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let name = name.into_string().expect("a plain path");
        let terminal = File::options().read(true).write(true).open(name).expect("its other end");
        let end = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let mut command = laundry.command(&["top"]);
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm").env("NO_COLOR", "1");
        let process = command.spawn().expect("it starts");
        let output = Arc::new(Mutex::new(Vec::new()));
        let keyboard = File::from(master);
        let (mut screen, written) = (keyboard.try_clone().expect("a file"), output.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                written.lock().expect("whole").extend_from_slice(&bytes[..count]);
            }
        });
        Top { process, keyboard, terminal: terminal.into(), output }
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("whole")).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("it listens");
    }

    /// Waits until the screen holds these words, or holds them no more.
    fn until(&mut self, words: &str, there: bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = screen(&self.written());
            if screen.contains(words) == there {
                return screen;
            }
            assert!(Instant::now() < deadline, "{words} {there}:\n{screen}");
            assert!(self.process.try_wait().expect("ours").is_none(), "it ended:\n{screen}");
            std::thread::sleep(super::Duration::from_millis(10));
        }
    }

    /// Waits for its end; then the terminal must be as it was.
    fn ends_and_restores(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait().expect("ours").is_none() {
            assert!(Instant::now() < deadline, "{}", screen(&self.written()));
            std::thread::sleep(super::Duration::from_millis(10));
        }
        let modes = tcgetattr(&self.terminal).expect("a terminal").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
        while !self.written().contains("\x1b[?1049l") {
            assert!(Instant::now() < deadline, "the shell's screen is not back");
            std::thread::sleep(super::Duration::from_millis(10));
        }
        assert!(self.written().contains("\x1b[?25h"), "the cursor is not back");
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What a terminal shows that got this: cursor positions, erasing, and text.
fn screen(written: &str) -> String {
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut rest = written.chars();
    while let Some(letter) = rest.next() {
        if letter != '\x1b' {
            if letter >= ' ' && row < ROWS && column < COLUMNS {
                cells[row][column] = letter;
                column += 1;
            }
            continue;
        }
        if rest.next() != Some('[') {
            continue;
        }
        let mut parameters = String::new();
        let order = rest.find(|it| {
            parameters.push(*it);
            ('@'..='~').contains(it)
        });
        let numbers = parameters.trim_end_matches(|it: char| !it.is_ascii_digit()).split(';');
        let numbers: Vec<usize> = numbers.filter_map(|number| number.parse().ok()).collect();
        match order {
            Some('H') => {
                row = numbers.first().map_or(0, |number| number - 1);
                column = numbers.get(1).map_or(0, |number| number - 1);
            }
            Some('J') => cells = vec![vec![' '; COLUMNS]; ROWS],
            Some(_) | None => {}
        }
    }
    let lines = cells.into_iter().map(|line| line.into_iter().collect::<String>());
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn top_shows_the_site_tests_a_station_and_waits_for_the_daemon() {
    let mut laundry = Laundry::running();
    answering(&laundry, "meter-1");
    let mut top = Top::start(&laundry);
    let shown = ["washer-1", "available", "12.346 kWh", "laundry", "meter-1", "% ", "Last taps"];
    for words in shown.iter().chain(&["q quit"]) {
        top.until(words, true);
    }

    top.press("?");
    top.until("this help", true);
    top.press("x");
    top.until("this help", false);
    top.press("/dryer\r");
    top.until("washer-1", false);
    top.press("\x1b");
    top.until("washer-1", true);
    top.press("\r");
    top.until("Station washer-1", true);
    top.press("\x1b");

    top.press("t");
    top.until("Test washer-1?", true);
    top.press("n");
    top.until("is left as it is", true);
    assert!(!laundry.building.is_closed(1, 0));
    top.press("ty");
    top.until("is being tested", true);
    top.until("switch, feedback and meter are fine, 2000 W", true);

    top.until("available", true);
    top.press("oy");
    until_closed(&laundry, true);
    top.until("1 of 1 in use", true);
    top.press("fy");
    until_closed(&laundry, false);
    top.until("available", true);

    laundry.stop();
    top.until("the daemon does not run", true);
    laundry.start();
    top.until("the daemon does not run", false);
    top.press("q");
    top.ends_and_restores();
}

#[test]
fn top_gives_the_terminal_back_when_it_is_told_to_end() {
    let laundry = Laundry::running();
    let mut top = Top::start(&laundry);
    top.until("washer-1", true);
    let pid = Pid::from_raw(top.process.id() as i32).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    top.ends_and_restores();
}

#[test]
fn top_says_why_it_does_not_start() {
    let (exit, text) = Laundry::running().refusal(&["top"]);
    assert_eq!((exit, text.contains("tapgate status")), (64, true), "{text}");

    let stopped = Laundry::new();
    let mut top = Top::start(&stopped);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(ended) = top.process.try_wait().expect("ours") {
            break ended;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(super::Duration::from_millis(10));
    };
    assert_eq!(ended.code(), Some(69), "{}", top.written());
    let hint = "systemctl start tapgate";
    while !top.written().contains(hint) {
        assert!(Instant::now() < deadline, "{}", top.written());
        std::thread::sleep(super::Duration::from_millis(10));
    }
}
