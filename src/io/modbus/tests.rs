//! Chargers and merged reads, against a table of registers behind Modbus TCP.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::profile::{
    Class, Heartbeat, Point, PointWrite, Profile, Scale, Table, ValueType,
};
use crate::config::wiring::{Bus, Control, Device, StationWiring, Transport};
use crate::core::event::Vehicle;

const PATIENCE: Duration = Duration::from_secs(20);

/// Holding registers, what was written to them in order, and what is refused.
#[derive(Default)]
struct Registers {
    words: BTreeMap<u16, u16>,
    written: Vec<(u16, u16)>,
    requests: Vec<(u8, u16, u16)>,
    without_function_6: bool,
    hole: Option<u16>,
    /// So many requests are answered with exception 06.
    busy: u32,
    hang_up: bool,
}

type Shared = Arc<Mutex<Registers>>;

impl Registers {
    fn answer(&mut self, pdu: &[u8]) -> Vec<u8> {
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let (function, address, value) = (pdu[0], word(1), word(3));
        self.requests.push((function, address, value));
        if self.busy > 0 {
            self.busy -= 1;
            return vec![function | 0x80, 6];
        }
        match function {
            3 if self.hole.is_some_and(|hole| (address..address + value).contains(&hole)) => {
                vec![0x83, 2]
            }
            3 => {
                let shown = |at| self.words.get(&at).copied().unwrap_or(0).to_be_bytes();
                let words = (address..address + value).flat_map(shown);
                [3, (value * 2) as u8].into_iter().chain(words).collect()
            }
            6 if self.without_function_6 => vec![0x86, 1],
            6 => {
                self.write(address, value);
                pdu.to_vec()
            }
            16 => {
                (0..value).for_each(|at| self.write(address + at, word(6 + 2 * usize::from(at))));
                pdu[..5].to_vec()
            }
            _ => vec![function | 0x80, 1],
        }
    }

    fn write(&mut self, address: u16, value: u16) {
        self.words.insert(address, value);
        self.written.push((address, value));
    }
}

async fn serve(registers: Shared) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(converse(stream, &registers).await);
        }
    });
    port
}

async fn converse(mut stream: TcpStream, registers: &Shared) -> std::io::Result<()> {
    loop {
        let mut header = [0; 7];
        stream.read_exact(&mut header).await?;
        let mut pdu = vec![0; usize::from(header[5]) - 1];
        stream.read_exact(&mut pdu).await?;
        let answer = {
            let mut registers = registers.lock().expect("not poisoned");
            if std::mem::take(&mut registers.hang_up) {
                return Ok(());
            }
            registers.answer(&pdu)
        };
        header[5] = answer.len() as u8 + 1;
        stream.write_all(&[&header[..], &answer].concat()).await?;
    }
}

fn point(address: u16, value: ValueType, unit: &str, scale: i64) -> Point {
    Point {
        scale: Scale { numerator: 1, denominator: scale },
        unit: Some(unit.into()),
        writable: true,
        ..Point::new(Table::Holding, address, value)
    }
}

/// A charger in the manner of Phoenix CHARX: enable 300, limit 301, state 299, energy 250.
fn charger() -> Profile {
    let state = Point {
        values: [("1", "A"), ("2", "B"), ("3", "C")].map(|(k, v)| (k.into(), v.into())).into(),
        ..point(299, ValueType::U16, "", 1)
    };
    let points = [
        ("enable", point(300, ValueType::U16, "", 1)),
        ("current_limit", point(301, ValueType::U16, "A", 1)),
        ("vehicle_state", state),
        ("energy_import", point(250, ValueType::U32, "Wh", 1)),
        ("power", point(254, ValueType::U32, "W", 1)),
        ("heartbeat", point(400, ValueType::U16, "", 1)),
        ("failsafe_timeout", point(401, ValueType::U16, "s", 1)),
    ];
    Profile {
        max_registers_per_read: 20,
        points: points.map(|(name, point)| (name.to_owned(), point)).into(),
        startup: vec![PointWrite { point: "failsafe_timeout".into(), value: 60 }],
        heartbeat: Some(Heartbeat {
            point: "heartbeat".into(),
            value: 21_930,
            interval: Duration::from_millis(50),
        }),
        refresh: Some(Duration::from_millis(50)),
        ..Profile::new("charger", Class::Charger)
    }
}

struct Bench {
    field: Field,
    events: mpsc::Receiver<FieldEvent>,
    registers: Shared,
}

impl Bench {
    async fn new(profile: Profile, registers: Registers) -> Bench {
        let registers = Arc::new(Mutex::new(registers));
        let port = serve(Arc::clone(&registers)).await;
        let bus = Bus {
            id: "garage".into(),
            transport: Transport::Tcp(format!("127.0.0.1:{port}")),
            timeout: Duration::from_secs(2),
        };
        let control = Control::Charger { device: "wallbox".into(), current_limit_ma: 16_000 };
        let wiring = Wiring {
            buses: vec![bus],
            devices: vec![Device {
                id: "wallbox".into(),
                bus: "garage".into(),
                unit: 7,
                profile: Arc::new(profile),
            }],
            readers: Vec::new(),
            stations: vec![StationWiring {
                station: "charger-13".into(),
                control,
                feedback: None,
                button: None,
                lamp: None,
                meter: None,
            }],
        };
        let (sender, events) = mpsc::channel(16);
        Bench { field: spawn(&wiring, sender), events, registers }
    }

    async fn until(&mut self, is: impl Fn(&FieldEvent) -> bool) -> FieldEvent {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the bus lives");
                if is(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it must happen")
    }

    async fn switched(&mut self, report: SwitchReport) {
        let expected = FieldEvent::Switch { station: "charger-13".into(), report };
        self.until(|event| *event == expected).await;
    }

    /// Waits until so many more writes to a register have been seen.
    async fn writes(&mut self, register: u16, more: usize) {
        let count = |registers: &Shared| {
            let registers = registers.lock().expect("not poisoned");
            registers.written.iter().filter(|(address, _)| *address == register).count()
        };
        let enough = count(&self.registers) + more;
        let seen = async {
            while count(&self.registers) < enough {
                tokio::select! {
                    _ = self.events.recv() => {}
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("it must be written");
    }
}

#[tokio::test]
async fn a_charger_is_set_up_then_limited_then_enabled_and_stopped_again() {
    let mut bench = Bench::new(charger(), Registers::default()).await;

    bench.field.send(FieldCommand::CloseSwitch("charger-13".into()));
    bench.switched(SwitchReport::Closed { feedback: None }).await;
    let written: Vec<(u16, u16)> = {
        let registers = bench.registers.lock().expect("not poisoned");
        registers.written.iter().filter(|(address, _)| *address != 400).copied().collect()
    };
    assert_eq!(written[..3], [(401, 60), (301, 16), (300, 1)]);

    bench.writes(400, 3).await;
    bench.writes(301, 3).await;

    bench.field.send(FieldCommand::OpenSwitch("charger-13".into()));
    bench.switched(SwitchReport::Open { feedback: None }).await;
    assert_eq!(bench.registers.lock().expect("not poisoned").words[&300], 0);
    bench.writes(300, 3).await;
    assert_eq!(bench.registers.lock().expect("not poisoned").words[&300], 0, "stopped again");
}

#[tokio::test]
async fn a_charger_that_cannot_be_read_counts_as_closed_and_is_not_started() {
    let mut profile = charger();
    profile.points.remove("enable");
    profile.points.entry("current_limit".into()).and_modify(|point| point.readable = false);
    let mut bench = Bench::new(profile, Registers::default()).await;

    bench.switched(SwitchReport::Closed { feedback: None }).await;
    bench.writes(400, 5).await;
    let limits = |registers: &Shared| {
        let registers = registers.lock().expect("not poisoned");
        registers.written.iter().filter(|(address, _)| *address == 301).count()
    };
    assert_eq!(limits(&bench.registers), 0, "nobody ordered it");

    bench.field.send(FieldCommand::OpenSwitch("charger-13".into()));
    bench.switched(SwitchReport::Open { feedback: None }).await;
    assert_eq!(bench.registers.lock().expect("not poisoned").words[&301], 0);
}

#[tokio::test]
async fn a_charger_that_was_lost_is_set_up_again() {
    let mut bench = Bench::new(charger(), Registers::default()).await;
    bench.writes(401, 1).await;

    bench.registers.lock().expect("not poisoned").hang_up = true;

    bench.writes(401, 1).await;
}

#[tokio::test]
async fn energy_power_and_car_come_in_one_reading() {
    let words = BTreeMap::from([(250, 1), (251, 2), (255, 7_360), (299, 3)]);
    let mut bench = Bench::new(charger(), Registers { words, ..Registers::default() }).await;

    let event = bench.until(|event| matches!(event, FieldEvent::Meter { .. })).await;

    let reading = Reading {
        energy_wh: Some(65_538),
        power_mw: Some(7_360_000),
        serial: None,
        vehicle: Some(Vehicle::Charging),
    };
    assert_eq!(event, FieldEvent::Meter { station: "charger-13".into(), reading });
    let registers = bench.registers.lock().expect("not poisoned");
    assert!(registers.requests.contains(&(3, 250, 6)), "energy and power in one request");
}

#[tokio::test]
async fn a_refused_merged_read_is_asked_for_point_by_point() {
    let words = BTreeMap::from([(251, 9), (255, 5)]);
    let registers = Registers { words, hole: Some(252), ..Registers::default() };
    let mut bench = Bench::new(charger(), registers).await;

    let event = bench.until(|event| matches!(event, FieldEvent::Meter { .. })).await;

    let FieldEvent::Meter { reading, .. } = event else { unreachable!("it was matched") };
    assert_eq!((reading.energy_wh, reading.power_mw), (Some(9), Some(5_000)));
}

#[tokio::test]
async fn a_device_without_function_6_is_written_with_function_16() {
    let registers = Registers { without_function_6: true, ..Registers::default() };
    let mut bench = Bench::new(charger(), registers).await;

    bench.field.send(FieldCommand::CloseSwitch("charger-13".into()));
    bench.switched(SwitchReport::Closed { feedback: None }).await;
}

#[tokio::test]
async fn a_charger_without_enable_is_stopped_by_its_limit() {
    let mut profile = charger();
    profile.points.remove("enable");
    let mut bench = Bench::new(profile, Registers::default()).await;

    bench.field.send(FieldCommand::CloseSwitch("charger-13".into()));
    bench.switched(SwitchReport::Closed { feedback: None }).await;
    bench.field.send(FieldCommand::OpenSwitch("charger-13".into()));
    bench.switched(SwitchReport::Open { feedback: None }).await;

    assert_eq!(bench.registers.lock().expect("not poisoned").words[&301], 0);
}

#[tokio::test]
async fn a_charger_that_is_busy_at_first_is_set_up_all_the_same() {
    let mut bench = Bench::new(charger(), Registers { busy: 3, ..Registers::default() }).await;

    bench.writes(401, 1).await;
}

#[tokio::test]
async fn a_device_that_is_busy_for_a_moment_is_asked_again_and_is_not_silent() {
    let mut bench = Bench::new(charger(), Registers::default()).await;
    bench.until(|event| matches!(event, FieldEvent::Meter { .. })).await;

    for urgent in [true, false] {
        bench.registers.lock().expect("not poisoned").busy = 3;
        bench.field.send(match urgent {
            true => FieldCommand::ReadRegister("charger-13".into()),
            false => FieldCommand::Pace("charger-13".into(), Pace::Running),
        });
        let told = |event: &FieldEvent| {
            matches!(event, FieldEvent::Meter { .. } | FieldEvent::MeterSilent { .. })
        };
        let event = bench.until(told).await;
        assert!(matches!(event, FieldEvent::Meter { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn what_a_unit_refuses_is_known_for_as_long_as_it_does() {
    let registers = Registers { hole: Some(254), ..Registers::default() };
    let mut bench = Bench::new(charger(), registers).await;
    bench.until(|event| matches!(event, FieldEvent::Meter { .. })).await;

    let health = bench.field.health().remove(0);
    let trouble = health.trouble.unwrap_or_default();
    assert_eq!(health.state, UnitState::Ok, "it answers");
    for words in ["bus garage unit 7 power", "exception 02 (illegal data address)", "profile"] {
        assert!(trouble.contains(words), "{trouble}");
    }

    bench.registers.lock().expect("not poisoned").hole = None;
    bench.field.send(FieldCommand::ReadMeter("charger-13".into()));
    let whole = |event: &FieldEvent| match event {
        FieldEvent::Meter { reading, .. } => reading.power_mw.is_some(),
        _ => false,
    };
    bench.until(whole).await;
    assert_eq!(bench.field.health().remove(0).trouble, None);
}
