//! The daemon under measurement: the release binary as systemd would start it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tapgate::demo::pcscd::SOCKET_VARIABLE;

use crate::READER;
use crate::room::RELAYS;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tapgate");
/// Longest wait for the daemon to come up, to find its reader or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon, killed when dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts it, and says how long it took until it called itself ready.
    pub(crate) fn start(folder: &Path, pcscd: &Path) -> anyhow::Result<(Daemon, Duration)> {
        let path = folder.join("notify");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let notify = UnixDatagram::bind(&path)?;
        notify.set_read_timeout(Some(PATIENCE))?;
        let log = File::options().create(true).append(true).open(folder.join("daemon.log"))?;
        let began = Instant::now();
        let child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(folder.join("config.toml"))
            .env("NOTIFY_SOCKET", &path)
            .env(SOCKET_VARIABLE, pcscd)
            .env_remove("JOURNAL_STREAM")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        let daemon = Daemon(child);
        let mut message = [0; 4096];
        loop {
            let length = notify.recv(&mut message).context("the daemon is not ready in time")?;
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok((daemon, began.elapsed()));
            }
        }
    }

    /// A card that lies on the reader when its watch begins is no tap.
    pub(crate) fn wait_for_reader(&self, folder: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while status(folder)?["readers"][0]["state"] != "ready" {
            ensure!(Instant::now() < deadline, "the reader is not found; see daemon.log");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Records in its ledger.
    pub(crate) fn committed(&self, folder: &Path) -> anyhow::Result<u64> {
        let status = status(folder)?;
        status["ledger"]["head"].as_u64().context("its status tells the ledger's head")
    }

    /// The most memory that it ever had in use, in KiB.
    pub(crate) fn peak_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        peak.context("the kernel tells VmHWM")?.parse().context("it is a number")
    }

    /// Ends it as systemd does, and waits for it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("a process id is positive")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the daemon ended with {status}; see daemon.log"),
                None => ensure!(Instant::now() < deadline, "the daemon does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What fails here failed because the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn status(folder: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(PROGRAM);
    command.args(["status", "--json", "--config"]).arg(folder.join("config.toml"));
    Ok(serde_json::from_slice(&command.output()?.stdout).unwrap_or_default())
}

/// Eight washers behind one board, each with a three-phase meter; whoever taps and does not wash
/// is out after a second.
pub(crate) fn write_config(folder: &Path, room: SocketAddr, broker: u16) -> anyhow::Result<()> {
    let mut text = format!(
        r#"[gateway]
id = "bench"
timezone = "Europe/Zurich"
billing = "managed"

[storage]
path = "{folder}/store/tapgate.db"

[control]
socket = "{folder}/control.sock"

[cloud]
url = "mqtt://127.0.0.1:{broker}"

[[reader]]
id = "laundry"
name = "{READER} 00 00"
selection = "first-free"

[[bus]]
id = "laundry"
transport = "tcp"
address = "{room}"

[[device]]
id = "relays"
bus = "laundry"
unit = 1
profile = "waveshare-relay-8"
"#,
        folder = folder.display(),
    );
    for number in 1..=RELAYS {
        let unit = 10 + number;
        write!(
            text,
            r#"
[[device]]
id = "meter-{number}"
bus = "laundry"
unit = {unit}
profile = "eastron-sdm630"

[[station]]
id = "washer-{number}"
kind = "washer"
label = "Washer {number}"
reader = "laundry"
switch = "relays/relay-{number}"
meter = "meter-{number}"
groups = ["laundry"]
start_timeout = "1s"
min_duration = "1s"
handover_after = "off"
"#
        )?;
    }
    Ok(fs::write(folder.join("config.toml"), text)?)
}
