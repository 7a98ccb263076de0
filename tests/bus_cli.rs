//! What a technician does to buses, meters and stations from the shell, with the daemon running and
//! without it.
#![cfg(feature = "demo")]

#[path = "bus_cli/far.rs"]
mod far;
#[path = "bus_cli/live.rs"]
mod live;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tapgate::demo::devices::{Building, LoadProfile, Machine};
use tempfile::TempDir;

/// Longest wait for the daemon on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What unit 12 is, as its identifying register tells.
const NEW_METER: &str = r#"
name = "new-meter"
class = "meter"
identify = { point = "serial_number", equals = [20000012] }
[points.energy_import]
table = "input"
address = 72
type = "f32"
unit = "kWh"
[points.serial_number]
table = "holding"
address = 0xFC00
type = "u32"
"#;

/// A laundry with one washer: relay board 1, meters 11 and 12 (12 is not in the config).
struct Laundry {
    building: Building,
    daemon: Option<Child>,
    folder: TempDir,
}

impl Laundry {
    fn new() -> Laundry {
        let building = Building::new(1);
        building.add_board(1, 8, 8);
        for (meter, relay) in [(11, 0), (12, 1)] {
            let load = LoadProfile::of(&[(600, 2_000)]);
            let serial = 20_000_000 + u32::from(meter);
            let machine = Machine { meter, serial, start_wh: 12_346, relay: (1, relay), load };
            building.add_machine(machine);
        }
        let address = serve(building.clone());
        let folder = tempfile::tempdir().expect("a folder");
        let laundry = Laundry { building, daemon: None, folder };
        fs::write(laundry.path("config.toml"), laundry.config(address)).expect("written");
        fs::create_dir(laundry.path("profiles")).expect("a new folder");
        fs::write(laundry.path("profiles/new-meter.toml"), NEW_METER).expect("written");
        laundry
    }

    fn running() -> Laundry {
        let mut laundry = Laundry::new();
        laundry.start();
        laundry
    }

    /// Starts the daemon and waits until it answers.
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("daemon.log"));
        let mut command = self.command(&["run"]);
        let daemon = command.stderr(log.expect("a log")).spawn().expect("it starts");
        self.daemon = Some(daemon);
        let deadline = Instant::now() + PATIENCE;
        while self.run(&["status"]).status.code() == Some(69) {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL.
    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may be dead already.
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    fn config(&self, address: SocketAddr) -> String {
        format!(
            r#"
            [gateway]
            id = "test"
            [storage]
            path = "{store}"
            profiles = "{profiles}"
            [control]
            socket = "{socket}"
            [[bus]]
            id = "laundry"
            transport = "tcp"
            address = "{address}"
            timeout = "300ms"
            [[device]]
            id = "relays"
            bus = "laundry"
            unit = 1
            profile = "waveshare-relay-8"
            [[device]]
            id = "meter-1"
            bus = "laundry"
            unit = 11
            profile = "eastron-sdm120"
            [[reader]]
            id = "door"
            name = "No such reader*"
            [[station]]
            id = "washer-1"
            kind = "washer"
            label = "Machine 1"
            reader = "door"
            groups = ["laundry"]
            switch = "relays/relay-1"
            meter = "meter-1"
            max_power = "2500W"
            "#,
            store = self.path("tapgate.db").display(),
            profiles = self.path("profiles").display(),
            socket = self.path("control.sock").display(),
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapgate"));
        command.arg("--config").arg(self.path("config.toml")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// What a command that must succeed prints with `--json`.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}{}", said(&output), self.log());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What a command that must fail says, with its exit code.
    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap_or(-1), said(&output))
    }
}

impl Drop for Laundry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn serve(building: Building) -> SocketAddr {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = runtime.block_on(building.serve(any)).expect("a free port");
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    address
}

#[test]
fn reads_points_and_registers_with_the_daemon_and_without_it() {
    for laundry in [Laundry::new(), Laundry::running()] {
        let energy = laundry.json(&["bus", "read", "meter-1", "energy_import"]);
        assert_eq!((&energy["value"], &energy["unit"]), (&json!("12.346"), &json!("kWh")));
        let raw = laundry.json(&["bus", "read", "--raw", "laundry", "11", "input", "0x48", "2"]);
        assert_eq!(raw["raw"], energy["raw"]);
        let unknown = laundry.json(&["bus", "read", "--raw", "laundry", "12", "holding", "64512"]);
        assert_eq!(unknown["raw"].as_array().map(Vec::len), Some(1));

        let meters = laundry.json(&["meter", "read"]);
        assert_eq!(meters[0]["energy_import"]["value"], json!("12.346"));
        assert_eq!(meters[0]["serial_number"]["value"], json!("20000011"));
        let text = laundry.run(&["meter", "read", "washer-1"]);
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert_eq!(text, "washer-1 meter-1: 12.346 kWh, 0 W, no. 20000011\n");
    }
}

#[test]
fn says_what_is_wrong_with_a_request_and_what_to_do() {
    for laundry in [Laundry::new(), Laundry::running()] {
        let cases: [(&[&str], i32, &str); 7] = [
            (&["bus", "read", "meter-9", "power"], 64, "the config has: relays, meter-1"),
            (&["bus", "read", "meter-1", "volts"], 64, "it has: energy_import, "),
            (&["bus", "read", "--raw", "garage", "1", "coil", "0"], 64, "the config has: laundry"),
            (&["bus", "read", "--raw", "laundry", "1", "coil", "0", "0"], 1, "1 to 2000 at once"),
            (&["bus", "read", "--raw", "laundry", "1", "coil", "77"], 1, "exception 02"),
            (&["meter", "read", "washer-9"], 64, "the config has: washer-1"),
            (&["bus", "scan", "laundry", "--units", "1-300"], 64, "no range of unit ids"),
        ];
        for (arguments, code, words) in cases {
            let (exit, text) = laundry.refusal(arguments);
            assert_eq!(exit, code, "{arguments:?}: {text}");
            assert!(text.contains(words), "{arguments:?}: {text}");
        }
        laundry.building.silence(11, true);
        let (exit, text) = laundry.refusal(&["bus", "read", "meter-1", "power"]);
        assert_eq!(exit, 1);
        assert!(text.contains("bus laundry unit 11") && text.contains("check power"), "{text}");
    }
}

#[test]
fn writes_what_gives_no_power_and_refuses_what_does() {
    for laundry in [Laundry::new(), Laundry::running()] {
        let written = laundry.json(&["bus", "write", "relays", "relay-8", "on"]);
        assert_eq!(written["reads"], json!("1"));
        assert!(laundry.building.is_closed(1, 7));

        let (exit, text) = laundry.refusal(&["bus", "write", "relays", "relay-1", "on"]);
        assert_eq!(exit, 64);
        let advice = "relays/relay-1 switches station washer-1; use: tapgate station on washer-1";
        assert!(text.contains(advice), "{text}");
        assert!(!laundry.building.is_closed(1, 0));
        let (_, text) = laundry.refusal(&["bus", "write", "meter-1", "power", "0"]);
        assert!(text.contains("read-only"), "{text}");
        if laundry.daemon.is_some() {
            assert!(laundry.log().contains("written by hand by user "), "{}", laundry.log());
        }
    }
}

#[test]
fn scan_finds_who_answers_knows_the_config_and_proposes_profiles() {
    for laundry in [Laundry::new(), Laundry::running()] {
        laundry.building.silence(2, true);

        let found = laundry.json(&["bus", "scan", "laundry", "--units", "1-2,11-12"]);

        let shown: Vec<(u64, &Value)> = found
            .as_array()
            .expect("a list")
            .iter()
            .map(|unit| (unit["unit"].as_u64().unwrap_or(0), &unit["device"]))
            .collect();
        let expected = [(1, &json!("relays")), (11, &json!("meter-1")), (12, &Value::Null)];
        assert_eq!(shown, expected);
        assert_eq!(found[2]["profiles"], json!(["new-meter"]));
    }
}

#[test]
fn a_test_closes_the_switch_for_two_seconds_on_record() {
    let laundry = Laundry::running();

    let test = laundry.json(&["station", "test", "washer-1"]);

    assert_eq!(test["problems"], json!([]), "{test}");
    assert!(test["closed_after_ms"].is_u64() && test["opened_after_ms"].is_u64(), "{test}");
    assert_eq!(test["power_mw"], json!(2_000_000));
    assert!(!laundry.building.is_closed(1, 0));
    let status = laundry.run(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["stations"][0]["session"], Value::Null);
    assert!(status["ledger"]["head"].as_u64() >= Some(3), "start and end are on record");
    assert_eq!(status["buses"][0]["bus"], json!("laundry"));
    assert!(status["devices"][0]["latency_p99_ms"].is_u64(), "{status}");
    assert!(laundry.log().contains("tested by user "), "{}", laundry.log());
}

#[test]
fn a_test_needs_the_daemon_and_a_station_that_nobody_uses() {
    let (exit, text) = Laundry::new().refusal(&["station", "test", "washer-1"]);
    assert_eq!((exit, text.contains("systemctl start tapgate")), (69, true), "{text}");

    let laundry = Laundry::running();
    let (exit, text) = laundry.refusal(&["station", "test", "washer-9"]);
    assert_eq!((exit, text.contains("there is no station washer-9")), (1, true), "{text}");
    let first = laundry.command(&["station", "test", "washer-1"]).stdout(Stdio::null()).spawn();
    let deadline = Instant::now() + PATIENCE;
    while !laundry.building.is_closed(1, 0) {
        assert!(Instant::now() < deadline, "{}", laundry.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (exit, text) = laundry.refusal(&["station", "test", "washer-1"]);
    assert_eq!((exit, text.contains("is being tested")), (1, true), "{text}");
    assert!(first.expect("it runs").wait().expect("it ends").success());
}

#[test]
fn a_test_of_a_relay_that_does_not_answer_says_so_and_leaves_no_session() {
    let laundry = Laundry::running();
    laundry.building.silence(1, true);

    let (exit, _) = laundry.refusal(&["station", "test", "washer-1"]);

    assert_eq!(exit, 1);
    laundry.building.silence(1, false);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = laundry.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
        if status["stations"][0]["session"].is_null() && !laundry.building.is_closed(1, 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn doctor_names_what_is_wrong_on_site_with_the_next_step() {
    for laundry in [Laundry::new(), Laundry::running()] {
        let (healthy, _) = diagnosis(&laundry);
        assert_eq!(verdict(&healthy, "device meter-1"), "ok", "{healthy}");
        let silence = verdict(&healthy, "station washer-1");
        assert_eq!(silence, "note", "what happens when the gateway dies: {healthy}");
        let runs = if laundry.daemon.is_some() { "ok" } else { "failure" };
        assert_eq!(verdict(&healthy, "daemon"), runs, "{healthy}");

        laundry.building.silence(11, true);
        let (silent, code) = diagnosis(&laundry);

        assert_eq!(code, Some(1));
        assert_eq!(verdict(&silent, "device meter-1"), "failure", "{silent}");
        let findings = silent["findings"].as_array().expect("a list");
        let bad = |finding: &&Value| {
            finding["verdict"] == json!("warning") || finding["verdict"] == json!("failure")
        };
        assert!(findings.iter().filter(bad).all(|finding| finding["next"].is_string()), "{silent}");
    }
}

fn diagnosis(laundry: &Laundry) -> (Value, Option<i32>) {
    let output = laundry.run(&["doctor", "--json"]);
    let found = serde_json::from_slice(&output.stdout);
    (found.unwrap_or_else(|_| panic!("JSON: {}", said(&output))), output.status.code())
}

fn verdict(diagnosis: &Value, subject: &str) -> String {
    let findings = diagnosis["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["subject"] == json!(subject));
    found.map_or("not looked at", |found| found["verdict"].as_str().unwrap_or("?")).into()
}
