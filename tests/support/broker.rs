//! A mosquitto of its own for each test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long mosquitto may take to listen.
const STARTING: Duration = Duration::from_secs(10);

/// A broker without persistence: a restart forgets everything.
pub(crate) struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// A running broker on a free port.
    pub(crate) fn start() -> Broker {
        let mut broker = Broker::absent();
        broker.restart();
        broker
    }

    /// A port on which no broker listens yet.
    pub(crate) fn absent() -> Broker {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Broker { folder, port, child: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("mosquitto.conf")
    }

    /// SIGKILL: nothing is saved, no connection is closed properly.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the broker can be killed");
            child.wait().expect("the broker can be waited for");
        }
    }

    pub(crate) fn restart(&mut self) {
        self.restart_with("");
    }

    /// Starts with more lines in its configuration.
    pub(crate) fn restart_with(&mut self, lines: &str) {
        self.kill9();
        let config = self.config();
        let listener = if lines.contains("listener") {
            String::new()
        } else {
            format!("listener {} 127.0.0.1\n", self.port)
        };
        let text = format!("{listener}allow_anonymous true\npersistence false\n{lines}\n");
        fs::write(&config, text).expect("a configuration can be written");
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        self.child = Some(child);
        let deadline = Instant::now() + STARTING;
        let listens = |host| TcpStream::connect((host, self.port)).is_ok();
        while !listens("127.0.0.1") && !listens("::1") {
            assert!(Instant::now() < deadline, "mosquitto listens on port {}", self.port);
            std::thread::yield_now();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill9();
    }
}
