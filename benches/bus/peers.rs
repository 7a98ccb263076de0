//! Other masters on the same line, each a program of its own that is told of taps over TCP.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::line::{BAUD, Line};
use crate::node_red::NodeRed;
use crate::{METERS, TIMEOUT};

/// Node-RED takes some seconds to start.
const START: Duration = Duration::from_secs(60);
/// Between two looks whether the program is there.
const LOOK: Duration = Duration::from_millis(20);

/// Somebody else's master.
pub(crate) enum Peer {
    /// A loop over all meters that looks for a tap between two requests.
    Pymodbus(PathBuf),
    /// One polling node per register, one writing node for taps.
    NodeRed(NodeRed),
}

/// A peer at work, until this is dropped.
pub(crate) struct Running {
    child: Child,
    taps: TcpStream,
}

impl Peer {
    /// The loop; an error says what is missing.
    pub(crate) fn pymodbus() -> anyhow::Result<Peer> {
        let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
        let import = Command::new(&python).args(["-c", "import pymodbus, serial"]).output();
        let there = import.is_ok_and(|output| output.status.success());
        ensure!(there, "{} has no pymodbus: run make python", python.display());
        Ok(Peer::Pymodbus(python))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Peer::Pymodbus(_) => "pymodbus loop",
            Peer::NodeRed(_) => "Node-RED",
        }
    }

    /// Lets it poll all meters of the line, each at best once in `interval` where it has one.
    pub(crate) fn start(&self, line: &Line, interval: Duration) -> anyhow::Result<Running> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let mut command = match self {
            Peer::Pymodbus(python) => {
                let mut command = Command::new(python);
                let root = env!("CARGO_MANIFEST_DIR");
                command.arg(format!("{root}/benches/bus/pymodbus_loop.py")).arg(&line.port);
                let timeout = TIMEOUT.as_millis();
                command.args([BAUD.to_string(), METERS.to_string(), timeout.to_string()]);
                command.arg(port.to_string());
                command
            }
            Peer::NodeRed(node_red) => node_red.command(&line.port, interval, port)?,
        };
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name()))?;
        connected(child, &listener, self.name())
    }
}

/// Waits until the program asks for taps: from then on it works.
fn connected(mut child: Child, listener: &TcpListener, name: &str) -> anyhow::Result<Running> {
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    loop {
        if let Ok((taps, _)) = listener.accept() {
            taps.set_nodelay(true)?;
            return Ok(Running { child, taps });
        }
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended at once: {status}");
        }
        if begun.elapsed() > START {
            child.kill()?;
            child.wait()?;
            bail!("{name} did not begin to work within {} s", START.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

impl Running {
    /// Somebody tapped: the first relay is to close or to open.
    pub(crate) fn tap(&mut self, closed: bool) -> anyhow::Result<()> {
        let line: &[u8] = if closed { b"1\n" } else { b"0\n" };
        self.taps.write_all(line).context("the peer listens no more")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
