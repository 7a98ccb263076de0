//! tapgate's field bus over the simulated line: one station per meter, eight to a relay board.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tapgate::config::Library;
use tapgate::config::wiring::{
    Bus, Control, Device, Parity, PointRef, Serial, StationWiring, Transport, Wiring,
};
use tapgate::core::event::{Pace, SwitchReport};
use tapgate::core::ids::StationId;
use tapgate::io::modbus::{self, Field, FieldCommand, FieldEvent, UnitState};
use tokio::sync::mpsc;

use crate::TIMEOUT;
use crate::line::BAUD;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Master {
    field: Field,
    events: mpsc::Receiver<FieldEvent>,
    stations: usize,
}

impl Master {
    pub(crate) fn new(port: &Path, stations: usize) -> Master {
        let (sender, events) = mpsc::channel(64);
        let field = modbus::spawn(&wiring(port, stations), sender);
        Master { field, events, stations }
    }

    pub(crate) fn pace(&self, pace: Pace) {
        for number in 0..self.stations {
            self.field.send(FieldCommand::Pace(station(number), pace));
        }
    }

    /// Until every unit was asked and the dead ones are known as such.
    pub(crate) async fn settle(&mut self) {
        let known = |field: &Field| {
            let settled = |state| matches!(state, UnitState::Ok | UnitState::Down);
            field.health().iter().all(|unit| settled(unit.state))
        };
        while !known(&self.field) {
            self.listen(Duration::from_millis(100)).await;
        }
        self.listen(Duration::from_secs(3)).await;
    }

    /// Takes events for a while, as the daemon does.
    pub(crate) async fn listen(&mut self, span: Duration) {
        let take = async { while self.events.recv().await.is_some() {} };
        // It ends by the clock.
        drop(tokio::time::timeout(span, take).await);
    }

    /// Whether the meter answered.
    pub(crate) async fn read_register(&mut self, number: usize) -> bool {
        self.field.send(FieldCommand::ReadRegister(station(number)));
        let id = station(number);
        let read = |event: &FieldEvent| {
            matches!(event, FieldEvent::Meter { station, reading }
                if *station == id && reading.power_mw.is_none())
        };
        let silence = FieldEvent::MeterSilent { station: station(number) };
        let found = self.until(|event| read(event) || *event == silence);
        matches!(found.await, FieldEvent::Meter { .. })
    }

    pub(crate) async fn switch(&mut self, number: usize, closed: bool) {
        let (order, report) = match closed {
            true => {
                (FieldCommand::CloseSwitch as fn(_) -> _, SwitchReport::Closed { feedback: None })
            }
            false => {
                (FieldCommand::OpenSwitch as fn(_) -> _, SwitchReport::Open { feedback: None })
            }
        };
        let expected = FieldEvent::Switch { station: station(number), report };
        self.field.send(order(station(number)));
        drop(self.until(|event| *event == expected).await);
    }

    async fn until(&mut self, is: impl Fn(&FieldEvent) -> bool) -> FieldEvent {
        let mut others = Vec::new();
        let found = async {
            while let Some(event) = self.events.recv().await {
                if is(&event) {
                    return Some(event);
                }
                others.push(event);
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        match found {
            Ok(Some(event)) => event,
            Ok(None) | Err(_) => panic!("the bus does what it is told; it said {others:?}"),
        }
    }
}

fn station(number: usize) -> StationId {
    StationId::from(format!("washer-{number}"))
}

fn wiring(port: &Path, stations: usize) -> Wiring {
    let library = Library::built_in();
    let profile = |name| Arc::clone(library.find(name).expect("a built-in profile").profile());
    let device = |id: String, unit, name| Device {
        id: id.as_str().into(),
        bus: "laundry".into(),
        unit,
        profile: profile(name),
    };
    let boards = (1..=2).map(|unit| device(format!("relays-{unit}"), unit, "waveshare-relay-8"));
    let meters =
        (0..stations).map(|at| device(format!("meter-{at}"), 11 + at as u8, "eastron-sdm120"));
    let wired = |at: usize| StationWiring {
        station: station(at),
        control: Control::Switch(PointRef {
            device: format!("relays-{}", at / 8 + 1).as_str().into(),
            point: format!("relay-{}", at % 8 + 1),
        }),
        feedback: None,
        button: None,
        lamp: None,
        meter: Some(format!("meter-{at}").as_str().into()),
    };
    let serial = Serial { port: port.to_owned(), baud: BAUD, parity: Parity::Even, stop_bits: 1 };
    Wiring {
        devices: boards.chain(meters).collect(),
        readers: Vec::new(),
        stations: (0..stations).map(wired).collect(),
        buses: vec![Bus {
            id: "laundry".into(),
            transport: Transport::Rtu(serial),
            timeout: TIMEOUT,
        }],
    }
}
