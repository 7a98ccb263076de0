//! Serial adapters that come, go, change places or belong to somebody else: one clear message each,
//! and the bus works again by itself.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bench::{Bench, Peer, SerialLine, serial_bus, station};
use serde_json::json;
use tapgate::core::event::Pace;
use tapgate::io::modbus::{FieldCommand, FieldEvent};
use tempfile::TempDir;

/// A folder like `/dev/serial/by-id` with one lasting name in it.
struct ById(TempDir);

impl ById {
    fn new() -> ById {
        ById(tempfile::tempdir().expect("a folder"))
    }

    fn port(&self) -> PathBuf {
        self.0.path().join("usb-FTDI_FT232R-if00-port0")
    }

    fn plug(&self, line: &SerialLine) {
        self.unplug();
        symlink(line.near(), self.port()).expect("linked");
    }

    fn unplug(&self) {
        // It may be out already.
        drop(std::fs::remove_file(self.port()));
    }
}

/// A program that has taken the port for itself.
struct Holder(Child);

impl Holder {
    fn of(port: &Path) -> Holder {
        let hold = "import fcntl,sys,time; port=open(sys.argv[1]); \
                    fcntl.flock(port, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)";
        let mut child = Command::new("python3")
            .args(["-c", hold])
            .arg(port)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let mut said = [0; 5];
        let answers = child.stdout.as_mut().expect("it is piped");
        std::io::Read::read_exact(answers, &mut said).expect("it holds the port");
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn down(bench: &mut Bench) -> String {
    let is_down = |event: &FieldEvent| matches!(event, FieldEvent::BusDown { .. });
    match bench.until("the bus is down", is_down).await {
        FieldEvent::BusDown { error, .. } => error,
        other => panic!("not that: {other:?}"),
    }
}

async fn back(bench: &mut Bench) {
    bench.until("the bus is back", |event| matches!(event, FieldEvent::BusBack { .. })).await;
}

fn names(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

#[tokio::test]
async fn an_adapter_that_is_unplugged_and_plugged_in_elsewhere_is_used_again() {
    let by_id = ById::new();
    let line = SerialLine::new();
    by_id.plug(&line);
    let peer = Peer::serial(&line.far());
    let mut bench = Bench::new(serial_bus(&by_id.port()));
    bench.reading(&station(1), |_| true).await;

    drop(peer);
    drop(line);
    by_id.unplug();
    let error = down(&mut bench).await;
    let path = by_id.port().display().to_string();
    names(&error, &["bus laundry", &path, "there is no such port", "plug the adapter in"]);

    let line = SerialLine::new();
    let mut peer = Peer::serial(&line.far());
    peer.order(json!({"do": "energy", "unit": 11, "wh": 4_711_000}));
    by_id.plug(&line);
    back(&mut bench).await;
    let again = bench.reading(&station(1), |reading| reading.energy_wh == Some(4_711_000)).await;
    assert!(again.serial.is_some(), "it may be another meter: {again:?}");
}

#[tokio::test]
async fn a_name_that_leads_to_nothing_says_that_its_adapter_is_unplugged() {
    let by_id = ById::new();
    symlink("/dev/ttyUSB99", by_id.port()).expect("linked");
    let mut bench = Bench::new(serial_bus(&by_id.port()));

    let error = down(&mut bench).await;

    names(&error, &["bus laundry", "leads to nothing", "unplugged"]);
    let line = SerialLine::new();
    let _peer = Peer::serial(&line.far());
    by_id.plug(&line);
    back(&mut bench).await;
    bench.reading(&station(1), |_| true).await;
}

#[tokio::test]
async fn a_port_that_another_process_holds_is_named_with_its_holder_and_used_once_free() {
    let line = SerialLine::new();
    let _peer = Peer::serial(&line.far());
    let holder = Holder::of(&line.near());
    let mut bench = Bench::new(serial_bus(&line.near()));

    let error = down(&mut bench).await;

    let path = line.near().display().to_string();
    names(&error, &["bus laundry", &path, "held by another process", "python3 ", "fuser -v"]);
    let downs = |event: &&FieldEvent| matches!(event, FieldEvent::BusDown { .. });
    assert_eq!(bench.seen.iter().filter(downs).count(), 1, "one message");
    drop(holder);
    back(&mut bench).await;
    bench.reading(&station(1), |_| true).await;
}

#[tokio::test]
async fn a_name_that_leads_to_another_adapter_is_followed() {
    let (by_id, first, second) = (ById::new(), SerialLine::new(), SerialLine::new());
    by_id.plug(&first);
    let mut old = Peer::serial(&first.far());
    let mut new = Peer::serial(&second.far());
    old.order(json!({"do": "energy", "unit": 11, "wh": 1_000}));
    new.order(json!({"do": "energy", "unit": 11, "wh": 2_000}));
    let mut bench = Bench::new(serial_bus(&by_id.port()));
    bench.reading(&station(1), |reading| reading.energy_wh == Some(1_000)).await;

    bench.field.send(FieldCommand::Pace(station(1), Pace::Running));
    // What is open still is a port, with nobody at its end.
    old.kill();
    by_id.plug(&second);

    bench.reading(&station(1), |reading| reading.energy_wh == Some(2_000)).await;
}

#[tokio::test]
async fn what_is_no_serial_port_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ttyUSB0");
    std::fs::write(&file, "").expect("written");
    let mut bench = Bench::new(serial_bus(&file));

    let error = down(&mut bench).await;

    names(&error, &["bus laundry", &file.display().to_string(), "serial adapter"]);
}
