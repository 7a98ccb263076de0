//! Every built-in profile against a simulated device of its model: a Modbus TCP server that holds
//! the registers of the maker's list, packed by another program, and refuses all else.

#[path = "support/simulated_device.rs"]
mod device;
#[path = "support/device_vectors.rs"]
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use device::Simulated;
use tapgate::config::Library;
use tapgate::config::profile::{Class, Profile};
use tapgate::config::wiring::{Bus, Control, Device, PointRef, StationWiring, Transport, Wiring};
use tapgate::core::event::{Pace, Reading, SwitchReport, Vehicle};
use tapgate::io::modbus::{self, Field, FieldCommand, FieldEvent, check_voltage, is_model};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use vectors::{Charger, Relay, Vector, Write};

/// The slowest, a KEBA, is asked twice a second and written once.
const PATIENCE: Duration = Duration::from_secs(60);
const STATION: &str = "station";

/// A profile at work against a simulated device.
struct Bench {
    name: String,
    profile: Arc<Profile>,
    device: Simulated,
    field: Field,
    events: mpsc::Receiver<FieldEvent>,
}

impl Bench {
    async fn new(name: &str, vector: &Vector, wired: impl Fn(&mut StationWiring)) -> Bench {
        let profile = Arc::new(Profile {
            // No need to wait as long as the real one wants: it is the pause that is looked at.
            min_write_gap: profile(name).min_write_gap / 5,
            ..Profile::clone(&profile(name))
        });
        let (device, port) = Simulated::serve(vector.clone()).await;
        let mut station = StationWiring {
            station: STATION.into(),
            control: Control::Switch(PointRef { device: "none".into(), point: "none".into() }),
            feedback: None,
            button: None,
            lamp: None,
            meter: None,
        };
        wired(&mut station);
        let bus = Bus {
            id: "bus".into(),
            transport: Transport::Tcp(format!("127.0.0.1:{port}")),
            timeout: Duration::from_secs(2),
        };
        let here = Device {
            id: "device".into(),
            bus: "bus".into(),
            unit: 1,
            profile: Arc::clone(&profile),
        };
        let wiring = Wiring {
            buses: vec![bus],
            devices: vec![here],
            readers: Vec::new(),
            stations: vec![station],
        };
        let (sender, events) = mpsc::channel(64);
        let field = modbus::spawn(&wiring, sender);
        Bench { name: name.into(), profile, device, field, events }
    }

    async fn until<T>(&mut self, what: &str, is: impl Fn(&FieldEvent) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the bus lives");
                if let Some(found) = is(&event) {
                    return found;
                }
                seen.push(event);
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        let Ok(found) = found else {
            let state = self.device.state();
            panic!("{}: {what}; saw {seen:?}; refused {:?}", self.name, state.refused);
        };
        found
    }

    async fn reading(&mut self, is: impl Fn(&Reading) -> bool) -> Reading {
        self.until("a reading", |event| match event {
            FieldEvent::Meter { reading, .. } if is(reading) => Some(reading.clone()),
            _ => None,
        })
        .await
    }

    async fn switched(&mut self, report: SwitchReport) {
        let expected = FieldEvent::Switch { station: STATION.into(), report };
        self.until(&format!("{expected:?}"), |event| (*event == expected).then_some(())).await;
    }

    /// Waits until these writes were made, one after the other, from `since` on.
    async fn told(&mut self, since: usize, writes: &[Write]) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !windows(&self.device.state().written[since..], writes) {
            let waited = tokio::time::timeout_at(deadline, self.events.recv()).await;
            if waited.is_err() {
                let written = self.device.state().written[since..].to_vec();
                panic!("{}: told {written:?}, expected {writes:?}", self.name);
            }
        }
    }

    fn told_so_far(&self) -> usize {
        self.device.state().written.len()
    }

    fn refused_nothing(&self) {
        assert_eq!(self.device.state().refused, [], "{}", self.name);
    }
}

fn profile(name: &str) -> Arc<Profile> {
    let library = Library::built_in();
    Arc::clone(library.find(name).expect("a vector per built-in profile").profile())
}

/// Whether `part` is a stretch of `all`, heartbeats left out.
fn windows(all: &[Write], part: &[Write]) -> bool {
    let counts: Vec<&Write> =
        all.iter().filter(|(_, address, _)| part.iter().any(|(_, at, _)| at == address)).collect();
    part.is_empty() || counts.windows(part.len()).any(|some| some.iter().copied().eq(part))
}

fn letter(vehicle: Option<Vehicle>) -> Option<char> {
    vehicle.map(|vehicle| match vehicle {
        Vehicle::Absent => 'A',
        Vehicle::Connected => 'B',
        Vehicle::Charging => 'C',
        Vehicle::Fault => 'F',
    })
}

fn charger_station(station: &mut StationWiring, metered: bool) {
    station.control = Control::Charger { device: "device".into(), current_limit_ma: 16_000 };
    station.meter = metered.then(|| "device".into());
}

async fn all_of(runs: JoinSet<()>) {
    runs.join_all().await;
}

#[test]
fn every_built_in_profile_has_a_simulated_device() {
    let library = Library::built_in();
    let profiles: Vec<&str> = library.iter().map(|(name, _)| name).collect();
    let devices = vectors::all();
    assert_eq!(profiles, devices.keys().map(String::as_str).collect::<Vec<_>>());
    for (name, vector) in &devices {
        let told = match library.find(name).expect("listed").profile().class {
            Class::Meter => vector.expected.wh.is_some() && vector.expected.mw.is_some(),
            Class::Charger => vector.charger.is_some(),
            Class::Relay => vector.relay.is_some(),
            Class::Io => true,
        };
        assert!(told, "{name}");
    }
}

#[tokio::test]
async fn every_meter_is_read_to_the_watt_hour_in_requests_that_it_answers() {
    let mut runs = JoinSet::new();
    for (name, vector) in vectors::all() {
        if vector.expected.wh.is_some() {
            runs.spawn(reads_meter(name, vector));
        }
    }
    assert!(runs.len() > 35, "{}", runs.len());
    all_of(runs).await;
}

async fn reads_meter(name: String, vector: Vector) {
    let wired = |station: &mut StationWiring| station.meter = Some("device".into());
    let mut bench = Bench::new(&name, &vector, wired).await;
    let reading = bench.reading(|_| true).await;

    let shown = (reading.energy_wh, reading.power_mw, reading.serial.as_deref());
    let expected = &vector.expected;
    assert_eq!(shown, (expected.wh, expected.mw, expected.serial.as_deref()), "{name}");
    bench.refused_nothing();
}

#[test]
fn every_voltage_is_one_that_a_grid_has() {
    for (name, vector) in vectors::all() {
        let profile = profile(&name);
        assert_eq!(profile.points.contains_key("voltage"), vector.expected.mv.is_some(), "{name}");
        let Some(point) = profile.points.get("voltage") else { continue };
        let words = words_at(&vector, point.address, point.value.registers());
        let exponent = point.exponent.as_ref().map(|_| -1);
        let mv = check_voltage(point, &words, exponent).map_err(|wrong| wrong.to_string());
        assert_eq!(mv.map(Some), Ok(vector.expected.mv), "{name}");
    }
}

#[test]
fn the_documents_name_every_built_in_profile() {
    let document = include_str!("../docs/profiles.md");
    for (name, _) in Library::built_in().iter() {
        assert!(document.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn a_scan_knows_the_models_that_tell_themselves() {
    for (name, vector) in vectors::all() {
        let profile = profile(&name);
        let Some(identify) = &profile.identify else { continue };
        let point = &profile.points[&identify.point];
        let mut words = words_at(&vector, point.address, point.value.registers());
        assert!(is_model(&profile, &words), "{name}: {words:?}");
        words[0] ^= 0x0101;
        assert!(!is_model(&profile, &words), "{name}");
    }
}

fn words_at(vector: &Vector, address: u16, count: u16) -> Vec<u16> {
    let held = vector.registers.iter().find_map(|(_, first, words)| {
        let skip = usize::from(address.checked_sub(*first)?);
        words.get(skip..skip + usize::from(count)).map(<[u16]>::to_vec)
    });
    held.unwrap_or_else(|| panic!("nothing at {address}"))
}

#[tokio::test]
async fn every_relay_board_closes_verifies_and_opens_the_right_relay() {
    let mut runs = JoinSet::new();
    for (name, vector) in vectors::all() {
        if let Some(relay) = vector.relay.clone() {
            runs.spawn(switches(name.clone(), vector.clone(), relay.clone(), 1));
            let last = relay.count;
            runs.spawn(switches(name, vector, relay, last));
        }
    }
    assert_eq!(runs.len(), 2 * 14);
    all_of(runs).await;
}

async fn switches(name: String, vector: Vector, relay: Relay, number: u16) {
    let input = PointRef { device: "device".into(), point: "input-1".into() };
    let point = PointRef { device: "device".into(), point: format!("relay-{number}") };
    let mut bench = Bench::new(&name, &vector, |station| {
        station.control = Control::Switch(point.clone());
        station.feedback = relay.inputs.is_some().then(|| input.clone());
    })
    .await;
    let table = if relay.function == 5 { "coil" } else { "holding" };
    let address = relay.first + number - 1;
    let feedback = |on: bool| relay.inputs.is_some().then_some(on);
    bench.told(0, &relay.startup).await;

    if let Some((table, first)) = relay.inputs.clone() {
        bench.device.state().set(&(table, first, vec![1]));
    }
    bench.field.send(FieldCommand::CloseSwitch(STATION.into()));
    bench.switched(SwitchReport::Closed { feedback: feedback(true) }).await;
    bench.told(0, &[(relay.function, address, vec![relay.on])]).await;
    assert_eq!(bench.device.state().get(table, address), Some(1), "{name}");

    if let Some((table, first)) = relay.inputs.clone() {
        bench.device.state().set(&(table, first, vec![0]));
    }
    bench.field.send(FieldCommand::OpenSwitch(STATION.into()));
    bench.switched(SwitchReport::Open { feedback: feedback(false) }).await;
    assert_eq!(bench.device.state().get(table, address), Some(0), "{name}");
    let last = bench.device.state().written.last().cloned();
    assert_eq!(last, Some((relay.function, address, vec![relay.off])), "{name}");
    bench.refused_nothing();
}

#[tokio::test]
async fn every_charger_is_set_up_started_stopped_and_set_up_again_when_it_was_lost() {
    let mut runs = JoinSet::new();
    for (name, vector) in vectors::all() {
        if let Some(charger) = vector.charger.clone() {
            runs.spawn(charges(name, vector, charger));
        }
    }
    assert_eq!(runs.len(), 18);
    all_of(runs).await;
}

async fn charges(name: String, vector: Vector, charger: Charger) {
    let metered = vector.expected.wh.is_some();
    let mut bench = Bench::new(&name, &vector, |station| charger_station(station, metered)).await;
    fits_the_time_outs(&bench.profile, &charger);
    bench
        .until("a first look", |event| match event {
            FieldEvent::Switch { report, .. } if *report != SwitchReport::Unknown => Some(()),
            _ => None,
        })
        .await;
    bench.told(0, &charger.startup).await;
    never_started(&bench, &charger);

    let since = bench.told_so_far();
    bench.field.send(FieldCommand::CloseSwitch(STATION.into()));
    bench.switched(SwitchReport::Closed { feedback: None }).await;
    bench.told(since, &charger.start).await;
    bench.told(0, charger.heartbeat.as_slice()).await;

    bench.field.send(FieldCommand::Pace(STATION.into(), Pace::Running));
    for (cells, shown) in &charger.states {
        cells.iter().for_each(|cells| bench.device.state().set(cells));
        bench.reading(|reading| letter(reading.vehicle) == Some(*shown)).await;
    }

    let since = bench.told_so_far();
    bench.field.send(FieldCommand::OpenSwitch(STATION.into()));
    bench.switched(SwitchReport::Open { feedback: None }).await;
    bench.told(since, &charger.stop).await;

    let since = bench.told_so_far();
    bench.device.state().hang_up = true;
    bench.told(since, &charger.startup).await;
    bench.told(since, &charger.stop).await;
    wrote_nothing_else(&bench, &charger);
    bench.refused_nothing();
    keeps_its_pause_between_writes(&bench);
}

/// A charger that nobody ordered to start is given no current.
fn never_started(bench: &Bench, charger: &Charger) {
    let state = bench.device.state();
    let only_start = |write: &&Write| charger.start.contains(write);
    let begun: Vec<&Write> = state.written.iter().filter(only_start).collect();
    assert_eq!(begun, Vec::<&Write>::new(), "{}", bench.name);
}

fn wrote_nothing_else(bench: &Bench, charger: &Charger) {
    let lists = [&charger.startup, &charger.start, &charger.stop].into_iter().flatten();
    let known: Vec<&Write> = lists.chain(&charger.heartbeat).collect();
    for write in &bench.device.state().written {
        assert!(known.contains(&write), "{}: {write:?}", bench.name);
    }
}

fn keeps_its_pause_between_writes(bench: &Bench) {
    let state = bench.device.state();
    for pair in state.written_at.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= bench.profile.min_write_gap, "{}: {pause:?}", bench.name);
    }
}

/// Heartbeats and set-points come well before the charger stops waiting for them.
fn fits_the_time_outs(profile: &Profile, charger: &Charger) {
    let heartbeat = profile.heartbeat.as_ref().map(|heartbeat| heartbeat.interval);
    let longest = charger.heartbeat_s.map(Duration::from_secs);
    assert_eq!(heartbeat.is_some(), longest.is_some(), "{}", profile.name);
    assert!(heartbeat <= longest, "{}: {heartbeat:?}", profile.name);
    let valid = charger.refresh_s.map_or(PATIENCE, Duration::from_secs);
    assert!(profile.refresh.is_some_and(|refresh| refresh <= valid), "{}", profile.name);
    let pause = Duration::from_secs(charger.write_gap_s.unwrap_or_default());
    assert_eq!(profile.min_write_gap, pause / 5, "{}", profile.name);
}
