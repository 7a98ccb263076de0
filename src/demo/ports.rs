//! TCP ports for programs that must be told theirs.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

/// Below the kernel's range for outgoing connections (32768 and up), so that none takes a port
/// between the look and its use.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Attempts to find a free port before giving up.
const ATTEMPTS: u32 = 1_000;

/// Ports that are free, held until this is dropped.
#[derive(Debug)]
pub(super) struct FreePorts {
    held: Vec<(u16, Vec<TcpListener>)>,
}

impl FreePorts {
    /// Free pairs of consecutive ports.
    pub(super) fn pairs(count: usize) -> anyhow::Result<FreePorts> {
        Self::runs(count, 2)
    }

    /// The first port of each pair.
    pub(super) fn first_of_pairs(&self) -> Vec<u16> {
        self.held.iter().map(|(port, _)| *port).collect()
    }

    /// One free port.
    pub(super) fn one() -> anyhow::Result<u16> {
        Ok(Self::runs(1, 1)?.held[0].0)
    }

    fn runs(count: usize, length: u16) -> anyhow::Result<FreePorts> {
        // Every `RandomState` is seeded anew: parallel processes look in different places.
        let start = RandomState::new().hash_one(std::process::id());
        let mut held = Vec::new();
        for attempt in 0..u64::from(ATTEMPTS) {
            if held.len() == count {
                return Ok(FreePorts { held });
            }
            let slot = start.wrapping_add(attempt * 7) % u64::from(COUNT / length);
            let port = FIRST + slot as u16 * length;
            let bind = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
            if let Ok(sockets) = (port..port + length).map(bind).collect() {
                held.push((port, sockets));
            }
        }
        bail!("no free TCP port between {FIRST} and {}", FIRST + COUNT)
    }
}

/// Whether process `pid` listens on a TCP port of this machine.
pub(super) fn is_listening(pid: u32, port: u16) -> bool {
    let sockets = listening_inodes(port);
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .any(|target| sockets.iter().any(|inode| target.to_str() == Some(inode)))
}

/// The sockets that listen on a port, as the links in `/proc/PID/fd` name them.
fn listening_inodes(port: u16) -> Vec<String> {
    const LISTENING: &str = "0A";
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            let inode = |line: &str| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTENING;
                listens.then(|| Some(format!("socket:[{}]", fields.get(9)?))).flatten()
            };
            table.lines().filter_map(inode).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_listens_on_a_port() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = socket.local_addr().expect("an address").port();
        assert!(is_listening(std::process::id(), port));
        drop(socket);
        assert!(!is_listening(std::process::id(), port));
    }
}
