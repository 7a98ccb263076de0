//! How soon a unit that falls silent is known to be, and what one lost answer costs.

use crate::bench::{Bench, Peer, station, tcp_bus};
use serde_json::json;
use tapgate::io::modbus::{FieldCommand, FieldEvent};

/// At rest a meter is asked once a minute; what is waited for here comes much sooner.
async fn at_rest() -> (Peer, Bench) {
    let peer = Peer::tcp(0);
    let mut bench = Bench::new(tcp_bus(peer.port()));
    for number in 1..=3 {
        bench.reading(&station(number), |_| true).await;
    }
    (peer, bench)
}

async fn falls_silent(peer: &mut Peer, bench: &mut Bench) {
    peer.order(json!({"do": "silence", "unit": 12}));
    bench.field.send(FieldCommand::ReadMeter(station(2)));
    let silent = FieldEvent::MeterSilent { station: station(2) };
    bench.until("the meter is silent", |event| *event == silent).await;
}

#[tokio::test]
async fn a_meter_that_falls_silent_at_rest_is_down_within_seconds() {
    let (mut peer, mut bench) = at_rest().await;

    falls_silent(&mut peer, &mut bench).await;

    let down = |event: &FieldEvent| matches!(event, FieldEvent::UnitDown { unit: 12, .. });
    bench.until("unit 12 is down", down).await;
}

#[tokio::test]
async fn a_meter_at_rest_that_lost_one_answer_is_read_again_at_once() {
    let (mut peer, mut bench) = at_rest().await;

    falls_silent(&mut peer, &mut bench).await;
    peer.order(json!({"do": "wake", "unit": 12}));

    bench.reading(&station(2), |reading| reading.energy_wh.is_some()).await;
    let down = |event: &FieldEvent| matches!(event, FieldEvent::UnitDown { .. });
    assert!(!bench.seen.iter().any(down), "{:?}", bench.seen);
}
