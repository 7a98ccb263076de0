//! From a badge's UID to the start of its session at the consumer, and what a session weighs.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tapgate::demo::broker::PrivateBroker;
use tapgate::demo::pcscd::PrivatePcscd;

use crate::daemon::{self, Daemon};
use crate::room::Room;
use crate::tap::Tapper;
use crate::{READER, allowlist, consumer, median};

/// Longest wait for a record.
const PATIENCE: Duration = Duration::from_secs(10);
/// Taps that warm caches and connections up.
const WARM_UP: u32 = 5;
/// Between two taps, for the cards to leave.
const PAUSE: Duration = Duration::from_millis(100);

/// What was measured while online.
pub(crate) struct Online {
    times: Vec<Duration>,
    bytes_a_session: u64,
    peak_kib: u64,
    records: u64,
}

impl fmt::Display for Online {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        writeln!(f, "from the tap to session_started at the consumer, {} taps", sorted.len())?;
        writeln!(
            f,
            "  min {:.1?}, median {:.1?}, 90 % {:.1?}, max {:.1?}",
            at(0),
            median(sorted.clone()),
            at(90),
            at(100)
        )?;
        writeln!(f, "  {} bytes on the wire a session, both ways, online", self.bytes_a_session)?;
        write!(f, "  {} records, peak memory {} KiB", self.records, self.peak_kib)
    }
}

pub(crate) fn measure(folder: &Path, taps: u32) -> anyhow::Result<Online> {
    allowlist::fill(folder)?;
    let subfolder = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).map(|()| path)
    };
    let pcscd = PrivatePcscd::start(&subfolder("pcscd")?, &[READER])?;
    let broker = PrivateBroker::start(&subfolder("broker")?)?;
    let scales = Scales::before(broker.port())?;
    let room = Room::serve()?;
    daemon::write_config(folder, room.address, scales.port)?;
    let arrivals = consumer::start(broker.port())?;
    let (daemon, _) = Daemon::start(folder, &pcscd.socket())?;
    daemon.wait_for_reader(folder)?;
    let mut tapper = Tapper::new(pcscd.port(READER), room);
    let (mut times, mut before) = (Vec::new(), 0);
    for number in 0..WARM_UP + taps {
        if number == WARM_UP {
            before = scales.bytes();
        }
        let (answered, _) = tapper.tap_at(number)?;
        let started = loop {
            let arrival = arrivals.recv_timeout(PATIENCE).context("no record comes")?;
            if arrival.starts {
                break arrival.at;
            }
        };
        if number >= WARM_UP {
            times.push(started.saturating_duration_since(answered));
        }
        std::thread::sleep(PAUSE);
    }
    let bytes_a_session = (scales.bytes() - before) / u64::from(taps);
    let (records, peak_kib) = (daemon.committed(folder)?, daemon.peak_kib()?);
    daemon.stop()?;
    Ok(Online { times, bytes_a_session, peak_kib, records })
}

/// Weighs what goes between the daemon and its broker.
struct Scales {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl Scales {
    fn before(broker: u16) -> anyhow::Result<Scales> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let weighed = bytes.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)) else {
                    continue;
                };
                if let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) {
                    carry(from, to, weighed.clone());
                    carry(server, client, weighed.clone());
                }
            }
        });
        Ok(Scales { port, bytes })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, bytes: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        to.set_nodelay(true).ok();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            bytes.fetch_add(count as u64, Ordering::Relaxed);
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
}
