//! What goes before what on a busy bus, as the far side sees it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bench::{Bench, station, tcp_bus};
use tapgate::core::event::{Pace, SwitchReport};
use tapgate::io::modbus::{FieldCommand, FieldEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Of every answer: long enough to order something meanwhile.
const LATENCY: Duration = Duration::from_millis(40);
const WRITE_COIL: u8 = 5;

/// A far side on which everything reads as it was written, and that remembers who was asked what:
/// unit, function and address.
#[derive(Clone, Default)]
struct Far {
    asked: Arc<Mutex<Vec<(u8, u8, u16)>>>,
    coils: Arc<Mutex<[bool; 8]>>,
}

impl Far {
    async fn serve(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let far = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It ends when the bus hangs up.
                drop(far.converse(stream).await);
            }
        });
        port
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut header = [0; 7];
            stream.read_exact(&mut header).await?;
            let mut pdu = vec![0; usize::from(header[5]) - 1];
            stream.read_exact(&mut pdu).await?;
            let address = u16::from_be_bytes([pdu[1], pdu[2]]);
            self.asked.lock().expect("not poisoned").push((header[6], pdu[0], address));
            let answer = self.answer(&pdu);
            tokio::time::sleep(LATENCY).await;
            header[5] = answer.len() as u8 + 1;
            stream.write_all(&[&header[..], &answer].concat()).await?;
        }
    }

    fn answer(&self, pdu: &[u8]) -> Vec<u8> {
        let (first, count) = (usize::from(pdu[2]), usize::from(pdu[4]));
        let mut coils = self.coils.lock().expect("not poisoned");
        match pdu[0] {
            1 | 2 => {
                let bits = (0..count).map(|at| u8::from(coils[(first + at) % 8]) << at);
                vec![pdu[0], 1, bits.sum()]
            }
            WRITE_COIL => {
                coils[first] = pdu[3] == 0xFF;
                pdu.to_vec()
            }
            function => [&[function, 2 * pdu[4]][..], &vec![0; 2 * count]].concat(),
        }
    }

    fn count(&self) -> usize {
        self.asked.lock().expect("not poisoned").len()
    }

    /// How many requests came from the `mark`th on until this coil was written.
    fn before_write(&self, mark: usize, coil: u16) -> usize {
        let asked = self.asked.lock().expect("not poisoned");
        let write = (1, WRITE_COIL, coil);
        asked[mark..].iter().position(|request| *request == write).expect("it was written")
    }
}

#[tokio::test]
async fn a_switch_waits_for_no_more_than_the_request_in_flight() {
    let far = Far::default();
    let mut bench = Bench::new(tcp_bus(far.serve().await));
    for number in 1..=3 {
        bench.field.send(FieldCommand::Pace(station(number), Pace::Ending));
    }
    for turn in 0_u64..24 {
        let number = (turn % 3) as u8 + 1;
        // Orders fall into every moment of the line's life.
        tokio::time::sleep(Duration::from_millis(7 * turn)).await;
        let mark = far.count();
        bench.field.send(FieldCommand::CloseSwitch(station(number)));
        bench.closed(number).await;
        let before = far.before_write(mark, u16::from(number) - 1);
        assert!(before <= 1, "turn {turn}: {before} requests came first");
        bench.field.send(FieldCommand::OpenSwitch(station(number)));
        bench.opened(number).await;
    }
}

#[tokio::test]
async fn all_switches_are_written_before_the_first_is_read_back() {
    let far = Far::default();
    let mut bench = Bench::new(tcp_bus(far.serve().await));
    bench.field.send(FieldCommand::Pace(station(1), Pace::Ending));
    bench.reading(&station(1), |_| true).await;

    let mark = far.count();
    for number in 1..=3 {
        bench.field.send(FieldCommand::CloseSwitch(station(number)));
    }
    for number in 1..=3 {
        bench.closed(number).await;
    }

    let before: Vec<usize> = (0..3).map(|coil| far.before_write(mark, coil)).collect();
    assert!(before.iter().all(|before| *before <= 3), "{before:?}");
}

#[tokio::test]
async fn switches_that_open_are_written_before_those_that_close() {
    let far = Far::default();
    let mut bench = Bench::new(tcp_bus(far.serve().await));
    bench.reading(&station(1), |_| true).await;
    bench.field.send(FieldCommand::Pace(station(1), Pace::Ending));
    for turn in 0_u64..6 {
        tokio::time::sleep(Duration::from_millis(11 * turn)).await;
        let mark = far.count();
        // Whatever was ordered first.
        bench.field.send(FieldCommand::CloseSwitch(station(1)));
        bench.field.send(FieldCommand::OpenSwitch(station(3)));
        bench.field.send(FieldCommand::CloseSwitch(station(2)));
        bench.all_of(&[(1, true), (2, true), (3, false)]).await;
        let [first, second, third] = [2, 0, 1].map(|coil| far.before_write(mark, coil));
        assert!(first < second.min(third), "turn {turn}: {first}, {second}, {third}");
        for number in 1..=2 {
            bench.field.send(FieldCommand::OpenSwitch(station(number)));
        }
        bench.all_of(&[(1, false), (2, false)]).await;
    }
}

#[tokio::test]
async fn a_later_order_wins_while_the_earlier_one_is_being_read_back() {
    let far = Far::default();
    let mut bench = Bench::new(tcp_bus(far.serve().await));
    bench.reading(&station(2), |_| true).await;
    for pause in [0, 20, 45, 60, 90] {
        bench.field.send(FieldCommand::CloseSwitch(station(2)));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        bench.field.send(FieldCommand::OpenSwitch(station(2)));
        bench.opened(2).await;
        // Nothing of the first order is left to be done.
        tokio::time::sleep(4 * LATENCY).await;
        assert!(!far.coils.lock().expect("not poisoned")[1], "after {pause} ms");
    }
}

impl Bench {
    async fn closed(&mut self, number: u8) {
        self.all_of(&[(number, true)]).await;
    }

    async fn opened(&mut self, number: u8) {
        self.all_of(&[(number, false)]).await;
    }

    /// Waits until all of these stations are reported closed or open, in any order.
    async fn all_of(&mut self, positions: &[(u8, bool)]) {
        let mut left: Vec<FieldEvent> = positions.iter().map(report).collect();
        while !left.is_empty() {
            let told = self.until(&format!("{left:?}"), |event| left.contains(event)).await;
            left.retain(|report| *report != told);
        }
    }
}

/// The first station has a contactor whose feedback is input 1: here the relay itself.
fn report((number, closed): &(u8, bool)) -> FieldEvent {
    let feedback = (*number == 1).then_some(*closed);
    let report = match closed {
        true => SwitchReport::Closed { feedback },
        false => SwitchReport::Open { feedback },
    };
    FieldEvent::Switch { station: station(*number), report }
}
