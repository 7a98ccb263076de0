//! Eight weeks of records, from the daemon and from a bare publisher in turn.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
use tapgate::demo::broker::PrivateBroker;

use crate::consumer::{self, Arrival};
use crate::daemon::Daemon;
use crate::offline::{self, RECORDS_PER_SESSION};
use crate::{GATEWAY, WINDOW, median};

/// Longest pause between two batches: a connection that comes before its time waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// What draining took.
pub(crate) struct Drained {
    records: u64,
    sessions: u64,
    bytes: usize,
    daemon: Duration,
    bare: Duration,
    peak_kib: u64,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |took: Duration| self.records as f64 / took.as_secs_f64();
        let Drained { records, sessions, bytes, daemon, bare, peak_kib } = self;
        writeln!(f, "drain of {records} records, {bytes} bytes of payload, medians")?;
        writeln!(f, "  daemon          {:>9.0} records/s  ({daemon:.2?})", rate(*daemon))?;
        writeln!(f, "  bare publisher  {:>9.0} records/s  ({bare:.2?})", rate(*bare))?;
        writeln!(f, "  ratio           {:>9.2}", rate(*daemon) / rate(*bare))?;
        writeln!(f, "  peak memory     {peak_kib:>9} KiB")?;
        write!(f, "  a session       {:>9} bytes of payload", *bytes as u64 / sessions)
    }
}

pub(crate) fn measure(folder: &Path, sessions: u64, rounds: u32) -> anyhow::Result<Drained> {
    offline::fill(&folder.join("full/tapgate.db"), sessions);
    let records = sessions * RECORDS_PER_SESSION + 1;
    let (mut daemons, mut bares) = (Vec::new(), Vec::new());
    let (mut bytes, mut peak_kib) = (0, 0);
    for _ in 0..rounds {
        // A broker of its own each time: nothing is retained from the round before.
        let broker_folder = folder.join("broker");
        fs::create_dir_all(&broker_folder)?;
        let broker = PrivateBroker::start(&broker_folder)?;
        let arrivals = consumer::start(broker.port())?;
        copy(&folder.join("full"), &folder.join("store"))?;
        write_config(folder, broker.port())?;
        let (daemon, _) = Daemon::start(folder, Path::new("/nonexistent"))?;
        let (took, payloads) = receive(&arrivals, records)?;
        daemons.push(took);
        peak_kib = peak_kib.max(daemon.peak_kib()?);
        daemon.stop()?;
        bytes = payloads.iter().map(Vec::len).sum();
        // The same consumer, which begins anew with record 1.
        publish(broker.port(), &payloads)?;
        bares.push(receive(&arrivals, records)?.0);
        drop(broker);
        fs::remove_dir_all(&broker_folder)?;
    }
    let (daemon, bare) = (median(daemons), median(bares));
    Ok(Drained { records, sessions, bytes, daemon, bare, peak_kib })
}

/// From the first batch to the one that holds record `records`.
fn receive(arrivals: &Receiver<Arrival>, records: u64) -> anyhow::Result<(Duration, Vec<Vec<u8>>)> {
    let mut payloads = Vec::new();
    let mut begin = None;
    loop {
        let arrival = arrivals.recv_timeout(PATIENCE).context("no batch comes")?;
        let begin = *begin.get_or_insert(arrival.at);
        // A daemon that restarted has a record of that too, which is not waited for.
        if arrival.first > records {
            continue;
        }
        payloads.push(arrival.payload);
        if arrival.last >= records {
            return Ok((arrival.at - begin, payloads));
        }
    }
}

/// A publisher that does nothing else, in a thread of its own.
fn publish(port: u16, payloads: &[Vec<u8>]) -> anyhow::Result<()> {
    let payloads = payloads.to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(publish_all(port, payloads)));
    Ok(())
}

async fn publish_all(port: u16, payloads: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let mut options = MqttOptions::new("bare", "127.0.0.1", port);
    options.set_max_packet_size(256 * 1024, 256 * 1024).set_inflight(WINDOW);
    let (client, mut eventloop) = AsyncClient::new(options, payloads.len() + 1);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    eventloop.set_network_options(network);
    let mut confirmed = 0;
    let count = payloads.len();
    let topic = format!("tapgate/1/{GATEWAY}/up/usage");
    for payload in payloads {
        client.try_publish(&topic, QoS::AtLeastOnce, false, payload)?;
    }
    let begin = Instant::now();
    while confirmed < count && begin.elapsed() < PATIENCE {
        match eventloop.poll().await? {
            Event::Incoming(Packet::PubAck(_)) => confirmed += 1,
            Event::Outgoing(Outgoing::Disconnect) => break,
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn write_config(folder: &Path, broker: u16) -> anyhow::Result<()> {
    let at = folder.display();
    let text = format!(
        "[gateway]\nid = \"{GATEWAY}\"\ntimezone = \"Europe/Zurich\"\nbilling = \"managed\"\n\
         [storage]\npath = \"{at}/store/tapgate.db\"\n[control]\nsocket = \"{at}/control.sock\"\n\
         [cloud]\nurl = \"mqtt://127.0.0.1:{broker}\"\n"
    );
    Ok(fs::write(folder.join("config.toml"), text)?)
}
