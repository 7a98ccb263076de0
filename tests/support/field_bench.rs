//! A field bus under test, and the Modbus server of another make that it talks to.

#[path = "modbus_peer.rs"]
mod modbus_peer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tapgate::config::profile::{Class, Point, Profile, Table, ValueType};
use tapgate::config::wiring::{
    Bus, Control, Device, Parity, PointRef, Serial, StationWiring, Transport, Wiring,
};
use tapgate::core::event::{Reading, SwitchReport};
use tapgate::core::ids::StationId;
use tapgate::io::modbus::{self, Field, FieldEvent};
use tokio::sync::mpsc;

pub(crate) use modbus_peer::{Peer, SerialLine};

/// Of every request.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);
/// Longest wait for something that must happen; a silent unit is asked again within 20 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// `washer-N`: meter 10 + N, relay N; the first two have a button, the first a contactor.
pub(crate) fn station(number: u8) -> StationId {
    StationId::from(format!("washer-{number}"))
}

pub(crate) fn tcp_bus(port: u16) -> Bus {
    let transport = Transport::Tcp(format!("127.0.0.1:{port}"));
    Bus { id: "laundry".into(), transport, timeout: TIMEOUT }
}

pub(crate) fn serial_bus(port: &Path) -> Bus {
    let serial = Serial { port: port.to_owned(), baud: 19_200, parity: Parity::None, stop_bits: 1 };
    Bus { id: "laundry".into(), transport: Transport::Rtu(serial), timeout: TIMEOUT }
}

/// A field bus with three washers, and all that it has told.
pub(crate) struct Bench {
    pub(crate) field: Field,
    pub(crate) seen: Vec<FieldEvent>,
    events: mpsc::Receiver<FieldEvent>,
}

impl Bench {
    pub(crate) fn new(bus: Bus) -> Bench {
        let (sender, events) = mpsc::channel(64);
        let field = modbus::spawn(&wiring(bus), sender);
        Bench { field, seen: Vec::new(), events }
    }

    /// Waits for an event.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        is: impl Fn(&FieldEvent) -> bool,
    ) -> FieldEvent {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(event) = event else { panic!("waited for: {what}; seen: {:?}", self.seen) };
            let event = event.expect("the bus tasks live as long as the field");
            self.seen.push(event.clone());
            if is(&event) {
                return event;
            }
        }
    }

    /// Waits for a reading of a station.
    pub(crate) async fn reading(
        &mut self,
        of: &StationId,
        is: impl Fn(&Reading) -> bool,
    ) -> Reading {
        let event = self
            .until(&format!("a reading of {of}"), |event| match event {
                FieldEvent::Meter { station, reading } => station == of && is(reading),
                _ => false,
            })
            .await;
        match event {
            FieldEvent::Meter { reading, .. } => reading,
            other => panic!("not a reading: {other:?}"),
        }
    }

    /// Waits until a station's switch is reported so.
    pub(crate) async fn switch(&mut self, station: &StationId, report: SwitchReport) {
        let expected = FieldEvent::Switch { station: station.clone(), report };
        self.until(&format!("{expected:?}"), |event| *event == expected).await;
    }

    /// Waits until the inputs have been read twice from now on.
    pub(crate) async fn looked_at_inputs(&mut self, peer: &mut Peer) {
        let requests = |peer: &mut Peer| {
            let board = peer.order(json!({"do": "board"}));
            board["inputs"].as_u64().expect("a number")
        };
        let enough = requests(peer) + 2;
        while requests(peer) < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn wiring(bus: Bus) -> Wiring {
    let board = Arc::new(board());
    let meter = Arc::new(eastron_sdm120());
    let device = |id: &str, unit, profile: &Arc<Profile>| Device {
        id: id.into(),
        bus: bus.id.clone(),
        unit,
        profile: Arc::clone(profile),
    };
    let point = |point: String| PointRef { device: "relays".into(), point };
    let stations = (1..=3).map(|number| StationWiring {
        station: station(number),
        control: Control::Switch(point(format!("relay-{number}"))),
        feedback: (number == 1).then(|| point("input-1".into())),
        button: (number <= 2).then(|| point(format!("input-{}", number + 4))),
        lamp: None,
        meter: Some(format!("meter-{number}").into()),
    });
    Wiring {
        devices: vec![
            device("relays", 1, &board),
            device("meter-1", 11, &meter),
            device("meter-2", 12, &meter),
            device("meter-3", 13, &meter),
        ],
        readers: Vec::new(),
        stations: stations.collect(),
        buses: vec![bus],
    }
}

fn board() -> Profile {
    let relay = |n: u16| (format!("relay-{}", n + 1), point(Table::Coil, n, ValueType::Bool, ""));
    let input =
        |n: u16| (format!("input-{}", n + 1), point(Table::Discrete, n, ValueType::Bool, ""));
    profile("waveshare-relay-8", Class::Relay, (0..8).map(relay).chain((0..8).map(input)).collect())
}

fn eastron_sdm120() -> Profile {
    let points = [
        ("power", point(Table::Input, 12, ValueType::F32, "W")),
        ("energy_import", point(Table::Input, 72, ValueType::F32, "kWh")),
        ("serial_number", point(Table::Holding, 0xFC00, ValueType::U32, "")),
    ];
    let points = points.map(|(name, point)| (name.to_owned(), point));
    profile("eastron-sdm120", Class::Meter, BTreeMap::from(points))
}

fn profile(name: &str, class: Class, points: BTreeMap<String, Point>) -> Profile {
    Profile { max_registers_per_read: 40, points, ..Profile::new(name, class) }
}

fn point(table: Table, address: u16, value: ValueType, unit: &str) -> Point {
    Point {
        unit: (!unit.is_empty()).then(|| unit.to_owned()),
        writable: table == Table::Coil,
        ..Point::new(table, address, value)
    }
}
