//! The field bus against a Modbus server of another make (pymodbus), over TCP and over a serial
//! line (a pair of ptys), and against the simulated building.

#[path = "support/field_bench.rs"]
mod bench;
#[path = "field_bus/health.rs"]
mod health;
#[path = "field_bus/lines.rs"]
mod lines;
#[path = "field_bus/order.rs"]
mod order;

use std::time::{Duration, Instant};

use bench::{Bench, Peer, SerialLine, serial_bus, station, tcp_bus};
use serde_json::json;
use tapgate::core::event::{Pace, SwitchReport};
use tapgate::io::modbus::{FieldCommand, FieldEvent, UnitState};

#[tokio::test]
async fn switches_and_reads_over_tcp() {
    let peer = Peer::tcp(0);
    let bench = Bench::new(tcp_bus(peer.port()));
    switches_and_reads(peer, bench).await;
}

#[tokio::test]
async fn switches_and_reads_over_a_serial_line() {
    let line = SerialLine::new();
    let peer = Peer::serial(&line.far());
    let bench = Bench::new(serial_bus(&line.near()));
    switches_and_reads(peer, bench).await;
}

/// Closes, verifies, meters, sees a relay that fell open by itself, opens.
async fn switches_and_reads(mut peer: Peer, mut bench: Bench) {
    let washer = station(1);
    peer.order(json!({"do": "energy", "unit": 11, "wh": 12_346}));
    peer.order(json!({"do": "follow", "input": 0, "coil": 0}));
    let first = bench.reading(&washer, |_| true).await;
    assert_eq!(first.serial.as_deref(), Some("20000011"));
    assert_eq!((first.energy_wh, first.power_mw), (Some(12_346), Some(0)));

    peer.order(json!({"do": "wire", "unit": 11, "coil": 0}));
    peer.order(json!({"do": "power", "unit": 11, "w": 2_012.4}));
    bench.field.send(FieldCommand::CloseSwitch(washer.clone()));
    let closed = SwitchReport::Closed { feedback: Some(true) };
    bench.switch(&washer, closed.clone()).await;
    assert_eq!(peer.order(json!({"do": "coil", "coil": 0})), json!({"on": true}));

    bench.field.send(FieldCommand::Pace(washer.clone(), Pace::Running));
    let running = bench.reading(&washer, |reading| reading.power_mw != Some(0)).await;
    assert_eq!(running.power_mw, Some(2_012_400));
    assert_eq!(running.serial, None);

    peer.order(json!({"do": "set_coil", "coil": 0, "on": false}));
    bench.switch(&washer, SwitchReport::Open { feedback: Some(false) }).await;
    bench.field.send(FieldCommand::CloseSwitch(washer.clone()));
    bench.switch(&washer, closed).await;

    bench.field.send(FieldCommand::OpenSwitch(washer.clone()));
    bench.switch(&washer, SwitchReport::Open { feedback: Some(false) }).await;
    assert_eq!(peer.order(json!({"do": "coil", "coil": 0})), json!({"on": false}));

    let health = bench.field.health();
    assert!(
        health.iter().all(|unit| unit.state == UnitState::Ok && unit.figures.errors == 0),
        "{health:?}"
    );
}

#[tokio::test]
async fn a_silent_meter_is_told_and_found_again_over_tcp() {
    let peer = Peer::tcp(0);
    let bench = Bench::new(tcp_bus(peer.port()));
    tells_and_finds_again(peer, bench).await;
}

#[tokio::test]
async fn a_silent_meter_is_told_and_found_again_over_a_serial_line() {
    let line = SerialLine::new();
    let peer = Peer::serial(&line.far());
    let bench = Bench::new(serial_bus(&line.near()));
    tells_and_finds_again(peer, bench).await;
}

async fn tells_and_finds_again(mut peer: Peer, mut bench: Bench) {
    let (washer, dryer) = (station(1), station(2));
    for station in [&washer, &dryer] {
        bench.reading(station, |_| true).await;
        bench.field.send(FieldCommand::Pace(station.clone(), Pace::Running));
    }

    peer.order(json!({"do": "silence", "unit": 12}));
    let silent = FieldEvent::MeterSilent { station: dryer.clone() };
    bench.until("the dryer's meter is silent", |event| *event == silent).await;
    let down = |event: &FieldEvent| matches!(event, FieldEvent::UnitDown { unit: 12, .. });
    bench.until("unit 12 is down", down).await;
    bench.reading(&washer, |_| true).await;

    peer.order(json!({"do": "wake", "unit": 12}));
    let back = |event: &FieldEvent| matches!(event, FieldEvent::UnitBack { unit: 12, .. });
    bench.until("unit 12 is back", back).await;
    // It may be another meter now: its serial number is read again.
    let again = bench.reading(&dryer, |_| true).await;
    assert_eq!(again.serial.as_deref(), Some("20000012"));
}

#[tokio::test]
async fn a_late_answer_is_never_another_meters_value_over_tcp() {
    let peer = Peer::tcp(0);
    let bench = Bench::new(tcp_bus(peer.port()));
    believes_no_late_answer(peer, bench).await;
}

#[tokio::test]
async fn a_late_answer_is_never_another_meters_value_over_a_serial_line() {
    let line = SerialLine::new();
    let peer = Peer::serial(&line.far());
    let bench = Bench::new(serial_bus(&line.near()));
    believes_no_late_answer(peer, bench).await;
}

async fn believes_no_late_answer(mut peer: Peer, mut bench: Bench) {
    let (washer, dryer) = (station(1), station(2));
    peer.order(json!({"do": "energy", "unit": 11, "wh": 111_111}));
    peer.order(json!({"do": "energy", "unit": 12, "wh": 222_222}));
    bench.reading(&washer, |reading| reading.energy_wh == Some(111_111)).await;
    bench.reading(&dryer, |reading| reading.energy_wh == Some(222_222)).await;

    // Later than the time-out: the answer arrives while the next unit is being asked.
    peer.order(json!({"do": "delay", "unit": 11, "ms": bench::TIMEOUT.as_millis() as u64 + 60}));
    for _ in 0..3 {
        bench.field.send(FieldCommand::ReadMeter(washer.clone()));
        bench.field.send(FieldCommand::ReadMeter(dryer.clone()));
        let told = |event: &FieldEvent| match event {
            FieldEvent::Meter { station, .. } | FieldEvent::MeterSilent { station } => {
                station == &dryer
            }
            _ => false,
        };
        bench.until("the dryer's meter was asked", told).await;
    }

    for event in &bench.seen {
        if let FieldEvent::Meter { station, reading } = event
            && let Some(energy) = reading.energy_wh
        {
            let own = if *station == washer { [0, 111_111] } else { [0, 222_222] };
            assert!(own.contains(&energy), "{station} shows {energy}");
        }
    }
}

#[tokio::test]
async fn a_bus_that_was_away_works_again_by_itself() {
    let mut peer = Peer::tcp(0);
    let port = peer.port();
    let mut bench = Bench::new(tcp_bus(port));
    let washer = station(1);
    bench.reading(&washer, |_| true).await;
    bench.field.send(FieldCommand::Pace(washer.clone(), Pace::Running));

    peer.kill();
    bench.until("the bus is down", |event| matches!(event, FieldEvent::BusDown { .. })).await;
    let asked = Instant::now();
    bench.field.send(FieldCommand::CloseSwitch(washer.clone()));
    bench.switch(&washer, SwitchReport::Unknown).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "it fails at once");
    let before = bench.field.progress();
    bench.field.send(FieldCommand::ReadMeter(washer.clone()));
    let silent = FieldEvent::MeterSilent { station: washer.clone() };
    bench.until("the meter is silent", |event| *event == silent).await;

    let _again = Peer::tcp(port);
    bench.until("the bus is back", |event| matches!(event, FieldEvent::BusBack { .. })).await;
    assert!(bench.field.progress()[0].1 > before[0].1, "the watchdog sees progress");
    let reading = bench.reading(&washer, |_| true).await;
    assert!(reading.serial.is_some(), "it may be another meter");
    bench.field.send(FieldCommand::CloseSwitch(washer.clone()));
    bench.switch(&washer, SwitchReport::Closed { feedback: Some(false) }).await;
}

#[tokio::test]
async fn a_button_counts_when_it_goes_down_while_it_is_watched() {
    let mut peer = Peer::tcp(0);
    let mut bench = Bench::new(tcp_bus(peer.port()));
    let (washer, dryer) = (station(1), station(2));
    // Stuck since before anybody looked.
    peer.order(json!({"do": "input", "input": 5, "on": true}));
    bench.field.send(FieldCommand::WatchButtons(vec![washer.clone(), dryer.clone()]));
    bench.looked_at_inputs(&mut peer).await;

    peer.order(json!({"do": "input", "input": 4, "on": true}));
    let pressed = |event: &FieldEvent| matches!(event, FieldEvent::Button { .. });
    let event = bench.until("a button", pressed).await;
    assert_eq!(event, FieldEvent::Button { station: washer });

    peer.order(json!({"do": "input", "input": 5, "on": false}));
    bench.looked_at_inputs(&mut peer).await;
    peer.order(json!({"do": "input", "input": 5, "on": true}));
    let event = bench.until("a button", pressed).await;
    assert_eq!(event, FieldEvent::Button { station: dryer });
}

#[tokio::test]
async fn a_tap_is_metered_and_switched_well_within_50_ms() {
    let peer = Peer::tcp(0);
    let mut bench = Bench::new(tcp_bus(peer.port()));
    let washer = station(3);
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for turn in 0..20 {
        let begun = Instant::now();
        bench.field.send(FieldCommand::ReadMeter(washer.clone()));
        bench.reading(&washer, |_| true).await;
        let read = Instant::now();
        let (order, report): (fn(_) -> _, _) = match turn % 2 {
            0 => (FieldCommand::CloseSwitch, SwitchReport::Closed { feedback: None }),
            _ => (FieldCommand::OpenSwitch, SwitchReport::Open { feedback: None }),
        };
        bench.field.send(order(washer.clone()));
        bench.switch(&washer, report).await;
        reads.push(read - begun);
        writes.push(read.elapsed());
    }
    reads.sort_unstable();
    writes.sort_unstable();
    eprintln!("read energy and power: median {:?}, worst {:?}", reads[10], reads[19]);
    eprintln!("write and read back:   median {:?}, worst {:?}", writes[10], writes[19]);
    assert!(reads[10] + writes[10] < Duration::from_millis(50));
}

#[cfg(feature = "demo")]
#[tokio::test]
async fn the_simulated_building_behaves_like_a_real_one() {
    use tapgate::demo::devices::{Building, LoadProfile, Machine};

    let building = Building::new(1);
    building.add_board(1, 8, 8);
    for (meter, relay) in [(11, 0), (12, 1), (13, 2)] {
        let load = LoadProfile::of(&[(60, 2_000)]);
        let serial = 20_000_000 + u32::from(meter);
        let start_wh = 12_346;
        building.add_machine(Machine { meter, serial, start_wh, relay: (1, relay), load });
    }
    let address = building.serve(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let mut bench = Bench::new(tcp_bus(address.port()));
    let washer = station(3);

    bench.field.send(FieldCommand::CloseSwitch(washer.clone()));
    bench.switch(&washer, SwitchReport::Closed { feedback: None }).await;
    assert!(building.is_closed(1, 2));
    bench.field.send(FieldCommand::Pace(washer.clone(), Pace::Running));
    let reading = bench.reading(&washer, |reading| reading.power_mw == Some(2_000_000)).await;
    assert!(reading.energy_wh >= Some(12_346), "{reading:?}");

    building.reset_board(1);
    bench.switch(&washer, SwitchReport::Open { feedback: None }).await;
    assert_eq!(building.power_mw(13), 0);
    bench.field.send(FieldCommand::ReadMeter(washer.clone()));
    let total = building.total_wh(13);
    bench.reading(&washer, |reading| reading.energy_wh == Some(total)).await;

    building.silence(13, true);
    let silent = FieldEvent::MeterSilent { station: washer.clone() };
    bench.until("the meter is silent", |event| *event == silent).await;
}
