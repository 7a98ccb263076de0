//! The Modbus server of another make (pymodbus), and the serial line to it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// The Modbus server of another make.
pub(crate) struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    ready: Value,
}

impl Peer {
    /// Serves on a port of the loopback; 0 takes a free one.
    pub(crate) fn tcp(port: u16) -> Peer {
        Peer::start(&["--port", &port.to_string()])
    }

    /// Serves on a serial line.
    pub(crate) fn serial(line: &Path) -> Peer {
        Peer::start(&["--serial", line.to_str().expect("a plain path"), "--baud", "19200"])
    }

    pub(crate) fn port(&self) -> u16 {
        let port = self.ready.as_u64().and_then(|port| port.try_into().ok());
        port.expect("the peer serves TCP")
    }

    /// Tells the peer to do something, and waits until it is done.
    pub(crate) fn order(&mut self, order: Value) -> Value {
        writeln!(self.orders, "{order}").expect("the peer listens");
        let answer = line(&mut self.answers);
        assert_eq!(answer.get("error"), None, "{order}");
        answer
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it was killed");
    }

    fn start(arguments: &[&str]) -> Peer {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("TAPGATE_PYTHON")
            .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
        let mut child = Command::new(&python)
            .arg(root.join("tests/support/modbus_peer.py"))
            .args(["--relay", "1", "--meters", "11,12,13"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} cannot be started ({error}): run `python3 -m venv .venv && \
                     .venv/bin/pip install -r tests/requirements.txt` or set TAPGATE_PYTHON",
                    python.display()
                )
            });
        let orders = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let ready = line(&mut answers)["ready"].clone();
        Peer { child, orders, answers, ready }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be dead already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut text = String::new();
    answers.read_line(&mut text).expect("the peer answers");
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "the Modbus peer said {text:?} ({error}): is pymodbus there? run \
             `.venv/bin/pip install -r tests/requirements.txt`"
        )
    })
}

/// A serial line: two ptys with a socat between them.
pub(crate) struct SerialLine {
    socat: Child,
    ends: [PathBuf; 2],
    /// Kept open: socat ends when it cannot log.
    _log: BufReader<ChildStderr>,
}

impl SerialLine {
    pub(crate) fn new() -> SerialLine {
        let mut socat = Command::new("socat")
            .args(["-d", "-d", "pty,raw,echo=0", "pty,raw,echo=0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("socat is installed: apt install socat");
        let mut log = BufReader::new(socat.stderr.take().expect("it is piped"));
        let mut end = || loop {
            let mut line = String::new();
            let read = log.read_line(&mut line).expect("socat writes text");
            assert!(read > 0, "socat ended before it named both ptys");
            if let Some((_, path)) = line.trim_end().split_once("PTY is ") {
                return PathBuf::from(path);
            }
        };
        let ends = [end(), end()];
        SerialLine { socat, ends, _log: log }
    }

    pub(crate) fn near(&self) -> PathBuf {
        self.ends[0].clone()
    }

    pub(crate) fn far(&self) -> PathBuf {
        self.ends[1].clone()
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        // It may be dead already.
        drop(self.socat.kill());
        drop(self.socat.wait());
    }
}
