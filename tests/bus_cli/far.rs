//! What a scan and other commands make of devices that are not as tame as those of the simulated
//! building: particular boards, chargers that ignore unit ids, meters that need a pause.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::PATIENCE;

/// The answer of a unit to function, address and count; `None` for silence.
type Answers = fn(unit: u8, function: u8, address: u16, count: u16) -> Option<Vec<u8>>;

/// A Modbus TCP server of one kind of devices, and when which unit was asked.
struct Far {
    port: u16,
    asked: Arc<Mutex<Vec<(u8, Instant)>>>,
}

impl Far {
    fn serve(answers: Answers) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked: Arc<Mutex<Vec<(u8, Instant)>>> = Arc::default();
        let note = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let note = Arc::clone(&note);
                // It ends when the other side hangs up.
                std::thread::spawn(move || drop(converse(stream, answers, &note)));
            }
        });
        Far { port, asked }
    }
}

fn converse(
    mut stream: TcpStream,
    answers: Answers,
    asked: &Mutex<Vec<(u8, Instant)>>,
) -> std::io::Result<()> {
    loop {
        let mut header = [0; 7];
        stream.read_exact(&mut header)?;
        let mut pdu = vec![0; usize::from(header[5]) - 1];
        stream.read_exact(&mut pdu)?;
        asked.lock().expect("whole").push((header[6], Instant::now()));
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let Some(answer) = answers(header[6], pdu[0], word(1), word(3)) else { continue };
        header[5] = u8::try_from(answer.len() + 1).expect("a frame");
        stream.write_all(&[&header[..], &answer].concat())?;
    }
}

fn refusal(function: u8, exception: u8) -> Option<Vec<u8>> {
    Some(vec![function | 0x80, exception])
}

/// Registers, and an exception for all that is none of them.
fn registers(held: &BTreeMap<u16, u16>, function: u8, first: u16, count: u16) -> Option<Vec<u8>> {
    let words: Option<Vec<u16>> = (first..first + count).map(|at| held.get(&at).copied()).collect();
    match words {
        Some(words) => {
            let bytes = words.iter().flat_map(|word| word.to_be_bytes());
            Some([function, count as u8 * 2].into_iter().chain(bytes).collect())
        }
        None => refusal(function, 2),
    }
}

/// Volts at 0, watts at 12, kilowatt-hours at 72, as of an Eastron meter, and its model.
fn eastron(function: u8, first: u16, count: u16) -> Option<Vec<u8>> {
    let value = |at: u16, value: f32| {
        let bits = value.to_bits();
        [(at, (bits >> 16) as u16), (at + 1, bits as u16)]
    };
    let measured = [value(0, 231.4), value(12, 0.0), value(72, 12.346)].concat();
    match function {
        4 => registers(&measured.into_iter().collect(), 4, first, count),
        3 => {
            let held = [(0xFC00, 0x0131), (0xFC01, 0x2D0B), (0xFC02, 0x20), (0xFC03, 0x101)];
            registers(&BTreeMap::from(held), 3, first, count)
        }
        _ => refusal(function, 1),
    }
}

/// A site whose buses lead to these ports.
struct Site(TempDir);

impl Site {
    fn new(buses: &[(&str, u16)], rest: &str) -> Site {
        let site = Site(tempfile::tempdir().expect("a folder"));
        let folder = site.0.path().display();
        let buses = buses.iter().map(|(id, port)| {
            format!(
                "[[bus]]\nid = \"{id}\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n\
                 timeout = \"150ms\"\n"
            )
        });
        let config = format!(
            "[gateway]\nid = \"test\"\n[storage]\npath = \"{folder}/tapgate.db\"\n\
             [control]\nsocket = \"{folder}/control.sock\"\n{}{rest}",
            buses.collect::<String>()
        );
        std::fs::write(site.0.path().join("config.toml"), config).expect("written");
        site
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapgate"));
        command.arg("--config").arg(self.0.path().join("config.toml")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("it runs");
        let found = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
        (status.code(), found, String::from_utf8_lossy(&stderr).into_owned())
    }

    fn daemon(&self) -> Daemon {
        let mut command = self.command(&["run"]);
        Daemon(command.stderr(Stdio::null()).spawn().expect("it starts"))
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const METER: &str = "[[device]]\nid = \"relays\"\nbus = \"laundry\"\nunit = 1\n\
    profile = \"waveshare-relay-8\"\n\
    [[device]]\nid = \"meter\"\nbus = \"laundry\"\nunit = 11\nprofile = \"eastron-sdm120\"\n\
    [[reader]]\nid = \"door\"\nname = \"No such reader*\"\nselection = \"first-free\"\n\
    [[station]]\nid = \"washer-1\"\nkind = \"washer\"\nlabel = \"1\"\nreader = \"door\"\n\
    groups = [\"a\"]\nswitch = \"relays/relay-1\"\nmeter = \"meter\"\n";

#[test]
fn a_scan_knows_relay_boards_by_what_they_hold_and_chargers_at_their_own_unit_id() {
    let far = Far::serve(|unit, function, first, count| match (unit, function) {
        // Eight relays, no inputs, and silence for all that it does not know.
        (1, 1) if first + count <= 8 => Some(vec![1, 1, 0]),
        (1, 1) => refusal(1, 2),
        (1, _) => None,
        (255, function) => eastron(function, first, count),
        _ => None,
    });
    let site = Site::new(&[("garage", far.port)], "");

    let (code, found, _) = site.run(&["bus", "scan", "garage", "--units", "1-2,255", "--json"]);

    assert_eq!(code, Some(0), "{found}");
    let units: Vec<&Value> = found.as_array().expect("a list").iter().collect();
    assert_eq!((units.len(), &units[0]["unit"], &units[1]["unit"]), (2, &json!(1), &json!(255)));
    let boards = units[0]["profiles"].as_array().expect("a list");
    assert!(boards.contains(&json!("waveshare-relay-8")), "{found}");
    assert!(!boards.contains(&json!("waveshare-relay-16")), "{found}");
    assert!(!boards.contains(&json!("waveshare-relay-8d")), "it has no inputs: {found}");
    assert_eq!(units[1]["profiles"], json!(["eastron-sdm120"]));
}

#[test]
fn a_device_that_ignores_unit_ids_is_found_once_and_several_devices_are_not_taken_for_one() {
    let one = Far::serve(|_, function, first, count| eastron(function, first, count));
    let three = Far::serve(|unit, function, first, count| match unit {
        1..=3 => eastron(function, first, count),
        _ => None,
    });
    let site = Site::new(&[("one", one.port), ("three", three.port)], "");

    let (code, found, _) = site.run(&["bus", "scan", "--units", "1-3", "--json"]);

    let units = found.as_array().cloned().unwrap_or_default();
    let shown =
        |unit: &Value| (unit["bus"].clone(), unit["unit"].clone(), unit["any_unit"].clone());
    let expected =
        [("one", 1, true), ("three", 1, false), ("three", 2, false), ("three", 3, false)];
    let expected = expected.map(|(bus, unit, any)| (json!(bus), json!(unit), json!(any)));
    assert_eq!(units.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(code, Some(0));
}

#[test]
fn a_bus_that_is_not_there_keeps_no_other_from_being_scanned() {
    let far = Far::serve(|unit, function, first, count| match unit {
        11 => eastron(function, first, count),
        _ => None,
    });
    let gone = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = gone.local_addr().expect("it is bound").port();
    drop(gone);
    let site = Site::new(&[("away", port), ("laundry", far.port)], "");

    let (code, found, error) = site.run(&["bus", "scan", "--units", "11", "--json"]);

    assert_eq!((code, &found[0]["bus"]), (Some(1), &json!("laundry")), "{found} {error}");
    assert!(error.contains("bus away cannot be opened"), "{error}");
    assert!(!error.contains('\r'), "no progress for scripts: {error:?}");
}

#[test]
fn a_meter_has_its_pause_between_requests_without_the_daemon_too() {
    let far = Far::serve(|unit, function, first, count| match unit {
        11 => eastron(function, first, count),
        _ => None,
    });
    let site = Site::new(&[("laundry", far.port)], METER);

    let (code, read, error) = site.run(&["meter", "read", "--json"]);

    assert_eq!(code, Some(0), "{read} {error}");
    let asked = far.asked.lock().expect("whole");
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert_eq!(pauses.len(), 2, "{pauses:?}");
    // The profile's 60 ms, less what an answer takes on its way.
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(50)), "{pauses:?}");
}

#[test]
fn a_unit_that_refuses_is_told_apart_from_a_silent_one() {
    let far = Far::serve(|unit, function, first, _| match (unit, function) {
        (1, 1) => Some(vec![1, 1, 0]),
        (11, 4) if first == 12 => refusal(4, 2),
        (11, function) => eastron(function, first, 2),
        _ => None,
    });
    let site = Site::new(&[("laundry", far.port)], METER);
    let _daemon = site.daemon();
    let deadline = Instant::now() + PATIENCE;
    let meter = loop {
        let (_, status, _) = site.run(&["status", "--json"]);
        let meter = status["devices"][1].clone();
        let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
        let told = |alarm: &Value| alarm.as_str().is_some_and(|it| it.starts_with("device meter"));
        if meter["trouble"].is_string() && alarms.iter().any(told) {
            break meter;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    };

    assert_eq!(meter["state"], json!("ok"), "it answers: {meter}");
    let trouble = meter["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("unit 11 power: refused with exception 02"), "{trouble}");
    let (code, _, error) = site.run(&["bus", "read", "meter", "power"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("meter/power: bus laundry unit 11 input 12"), "{error}");
    let output = site.command(&["status"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("illegal data address"), "{text}");
}
