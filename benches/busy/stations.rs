//! 64 washers on eight Modbus TCP buses, all washing, at their default poll rates: what the daemon
//! takes of a core, and its memory.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tapgate::demo::devices::{Building, LoadProfile, Machine};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tapgate");
const BUSES: u16 = 8;
/// Stations of a bus, on one board; their meters are the units from 11 on.
const STATIONS: u8 = 8;
const FIRST_METER: u8 = 11;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of /proc/PID/stat, on every Linux that Rust runs on.
const TICKS_PER_S: f64 = 100.0;

pub(crate) fn measure(watched: Duration) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ports = serve()?;
    let config = folder.path().join("config.toml");
    fs::write(&config, config_of(folder.path(), &ports))?;
    let daemon = Daemon::start(&config, folder.path())?;
    daemon.until(&config, |status| all(status, "register_wh", |it| it.is_i64()))?;
    let stations = (0..usize::from(BUSES) * usize::from(STATIONS)).map(|n| format!("washer-{n}"));
    for station in stations {
        let output = tapgate(&config, &["station", "on", &station])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "station on {station}: {said}");
    }
    daemon.until(&config, |status| all(status, "state", |it| it == "in_use"))?;
    let (before, began) = (daemon.ticks()?, Instant::now());
    std::thread::sleep(watched);
    let ticks = (daemon.ticks()? - before) as f64;
    let share = 100.0 * ticks / TICKS_PER_S / began.elapsed().as_secs_f64();
    let count = BUSES * u16::from(STATIONS);
    println!(
        "{count} stations in use on {BUSES} buses: {share:.1} % of one core over {} s, RSS {} KiB, \
         peak {} KiB",
        watched.as_secs(),
        daemon.memory("VmRSS")?,
        daemon.memory("VmHWM")?
    );
    Ok(())
}

/// Serves all rooms from a thread of their own until the program ends; their ports.
fn serve() -> anyhow::Result<Vec<u16>> {
    let (sender, ports) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for _ in 0..BUSES {
                sender.send(room().serve("127.0.0.1:0".parse()?).await?.port())?;
            }
            drop(sender);
            std::future::pending().await
        })
    });
    let ports: Vec<u16> = ports.iter().collect();
    ensure!(ports.len() == usize::from(BUSES), "a room cannot be served");
    Ok(ports)
}

fn room() -> Building {
    let building = Building::new(1);
    building.add_board(1, usize::from(STATIONS), 0);
    for station in 0..STATIONS {
        building.add_machine(Machine {
            meter: FIRST_METER + station,
            serial: 4_711 + u32::from(station),
            start_wh: 1_000,
            relay: (1, u16::from(station)),
            load: LoadProfile::washer(),
        });
    }
    building
}

/// Killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    fn start(config: &Path, folder: &Path) -> anyhow::Result<Daemon> {
        let log = fs::File::create(folder.join("daemon.log"))?;
        let child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(config)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Daemon(child))
    }

    fn until(&self, config: &Path, holds: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = tapgate(config, &["status", "--json"])?;
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if holds(&status) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "in vain: {status}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Processor time so far, of user and kernel.
    fn ticks(&self) -> anyhow::Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields = stat.rsplit_once(") ").context("a process")?.1;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }

    fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with(name)).context("a process")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
    }
}

fn all(status: &Value, field: &str, holds: impl Fn(&Value) -> bool) -> bool {
    let stations = status["stations"].as_array();
    stations
        .is_some_and(|stations| !stations.is_empty() && stations.iter().all(|s| holds(&s[field])))
}

fn tapgate(config: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(PROGRAM).args(arguments).arg("--config").arg(config).output()?)
}

fn config_of(folder: &Path, ports: &[u16]) -> String {
    let folder = folder.display();
    let mut text = format!(
        "[gateway]\nid = \"busy\"\ntimezone = \"UTC\"\nbilling = \"owner\"\n\n[storage]\n\
         path = \"{folder}/store/tapgate.db\"\n\n[control]\nsocket = \"{folder}/control.sock\"\n\n\
         [[reader]]\nid = \"door\"\nname = \"Door*\"\nselection = \"first-free\"\n"
    );
    for (bus, port) in ports.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[bus]]\nid = \"bus-{bus}\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n\
             timeout = \"500ms\"\n\n[[device]]\nid = \"relays-{bus}\"\nbus = \"bus-{bus}\"\n\
             unit = 1\nprofile = \"waveshare-relay-8\"\n"
        );
        for station in 0..STATIONS {
            let number = bus * usize::from(STATIONS) + usize::from(station);
            let (unit, relay) = (FIRST_METER + station, station + 1);
            let _ = write!(
                text,
                "\n[[device]]\nid = \"meter-{number}\"\nbus = \"bus-{bus}\"\nunit = {unit}\n\
                 profile = \"eastron-sdm120\"\n\n[[station]]\nid = \"washer-{number}\"\n\
                 kind = \"washer\"\nlabel = \"{number}\"\nreader = \"door\"\n\
                 switch = \"relays-{bus}/relay-{relay}\"\nmeter = \"meter-{number}\"\n"
            );
        }
    }
    text
}
