//! The least that a cloud does with usage: checks the chain, acknowledges, notes the time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use anyhow::Context as _;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tapgate::core::time::Wall;
use tapgate::demo::cloud::chain;
use tapgate::protocol::cloud::{Ack, Hash, UsageBatch};

use crate::GATEWAY;

/// Largest packet in either direction.
const MAX_PACKET_BYTES: usize = 256 * 1024;

/// A batch that follows what came before.
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) payload: Vec<u8>,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Whether it holds the start of a session.
    pub(crate) starts: bool,
}

/// Subscribes; the first arrival comes only after this returns.
pub(crate) fn start(port: u16) -> anyhow::Result<Receiver<Arrival>> {
    let (arrived, arrivals) = channel();
    let (subscribed, ready) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(run(port, &arrived, &subscribed)));
    ready.recv().context("the consumer cannot subscribe")?;
    Ok(arrivals)
}

async fn run(port: u16, arrived: &Sender<Arrival>, subscribed: &Sender<()>) -> anyhow::Result<()> {
    let mut options = MqttOptions::new("consumer", "127.0.0.1", port);
    options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
    let (client, mut eventloop) = AsyncClient::new(options, 256);
    client.try_subscribe(format!("tapgate/1/{GATEWAY}/up/usage"), QoS::AtLeastOnce)?;
    let mut held: (u64, Hash) = (0, [0; 32]);
    loop {
        match eventloop.poll().await? {
            Event::Incoming(Packet::SubAck(_)) => subscribed.send(())?,
            Event::Incoming(Packet::Publish(publish)) => {
                let at = Instant::now();
                let batch: UsageBatch = serde_json::from_slice(&publish.payload)?;
                // The next round starts anew.
                if batch.first == 1 && batch.last < held.0 {
                    held = (0, [0; 32]);
                }
                if batch.first != held.0 + 1 || batch.prev != held.1 {
                    continue;
                }
                let hash = batch.records.iter().fold(held.1, |last, record| chain(&last, record));
                held = (batch.last, hash);
                client.try_publish(
                    format!("tapgate/1/{GATEWAY}/down/ack"),
                    QoS::AtLeastOnce,
                    false,
                    acknowledgement(&batch, hash)?,
                )?;
                let starts =
                    batch.records.iter().any(|r| r.contains(r#""kind":"session_started""#));
                let payload = publish.payload.to_vec();
                let (first, last) = (batch.first, batch.last);
                if arrived.send(Arrival { at, payload, first, last, starts }).is_err() {
                    return Ok(());
                }
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

fn acknowledgement(batch: &UsageBatch, hash: Hash) -> anyhow::Result<Vec<u8>> {
    let issued_at = Wall(jiff::Timestamp::now().as_millisecond());
    let ack = Ack { epoch: batch.epoch.clone(), upto: batch.last, hash, issued_at };
    Ok(serde_json::to_vec(&ack)?)
}
