//! Plays the demo: starts all parts, lets residents tap, pulls some plugs, settles.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::broker::PrivateBroker;
use super::card::VirtualCard;
use super::cloud::{StandInCloud, View};
use super::devices::Building;
use super::leash::Leashed;
use super::pcscd::{PrivatePcscd, SOCKET_VARIABLE};
use super::site::{self, GATEWAY, INSTALLED, READERS, Resident};
use super::summary::Summary;

/// Longest wait for a part to come up.
const START: Duration = Duration::from_secs(20);
/// Longest wait for a tap to be answered: pcscd looks for cards every 400 ms at worst.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait for the last machine to finish and the last record to be acknowledged.
const SETTLE: Duration = Duration::from_secs(60);
/// The same badge counts again at the same reader after 5 s.
const REPEAT: Duration = Duration::from_millis(5_500);
/// Between two taps.
const PAUSE: Duration = Duration::from_millis(300);

/// What residents do, over and over: who taps where.
const SCRIPT: [(Resident, &str); 14] = [
    (site::ANNA, "Laundry"),
    (site::STRANGER, "Laundry"),
    (site::ANNA, "Garage"),
    (site::BORIS, "Garage"),
    (site::BORIS, "Laundry"),
    (site::GINA, "Garage"),
    (site::CHIARA, "Dryers"),
    (site::DAVID, "Laundry"),
    (site::PHONE, "Dryers"),
    (site::BORIS, "Dryers"),
    (site::ELENA, "Laundry"),
    (site::FELIX, "Dryers"),
    (site::CHIARA, "Laundry"),
    (site::ANNA, "Garage"),
];

/// Everything that runs.
struct Stage {
    folder: PathBuf,
    building: Building,
    broker: PrivateBroker,
    pcscd: PrivatePcscd,
    cloud: StandInCloud,
    daemon: Option<Leashed>,
    started: Instant,
    taps: u64,
    ends_told: usize,
    tapped: BTreeMap<(&'static str, &'static str), Instant>,
    teller: Teller,
}

/// How the demo is played.
pub(super) struct Direction {
    /// Until it is interrupted, where there is none.
    pub(super) duration: Option<Duration>,
    pub(super) folder: PathBuf,
    /// Nobody wants the folder afterwards.
    pub(super) temporary: bool,
    /// Set by whoever wants no more taps.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) teller: Teller,
}

/// Where the lines go that tell the story.
pub(super) enum Teller {
    Lines,
    /// To the live view; to plain lines once that is closed.
    View(SyncSender<String>),
}

impl Teller {
    fn say(&self, line: &str) {
        match self {
            Teller::Lines => println!("{line}"),
            Teller::View(view) => {
                if view.send(line.to_owned()).is_err() {
                    println!("{line}");
                }
            }
        }
    }
}

pub(super) fn play(direction: Direction) -> anyhow::Result<Summary> {
    let Direction { duration, folder, temporary, stop, teller } = direction;
    let mut stage = Stage::set(&folder, teller)?;
    let start_wh: Vec<i64> =
        INSTALLED.iter().map(|installed| stage.building.total_wh(installed.meter)).collect();
    stage.act(duration, &stop)?;
    let view = stage.settle()?;
    let summary = Summary::new(stage.taps, &view, &stage.building, &start_wh);
    drop(stage);
    if temporary && summary.is_settled() {
        // What is left behind is only litter.
        let _ = fs::remove_dir_all(&folder);
    } else {
        println!("everything is kept in {}", folder.display());
    }
    Ok(summary)
}

impl Stage {
    fn set(folder: &Path, teller: Teller) -> anyhow::Result<Stage> {
        let building = site::building();
        let modbus = serve(building.clone())?;
        teller.say(&format!("machines   6, behind Modbus TCP at {modbus}"));
        let broker = PrivateBroker::start(&subfolder(folder, "broker")?)?;
        teller.say(&format!("broker     mosquitto on port {}", broker.port()));
        let pcscd = PrivatePcscd::start(&subfolder(folder, "pcscd")?, &READERS)?;
        teller.say(&format!("readers    {} behind a pcscd of their own", READERS.join(", ")));
        let cloud = StandInCloud::start(broker.port(), GATEWAY)?;
        cloud.push_allowlist(site::allowlist(), 1);
        let config = site::config(folder, modbus, broker.port());
        fs::write(folder.join("config.toml"), config)?;
        let mut stage = Stage {
            folder: folder.to_owned(),
            building,
            broker,
            pcscd,
            cloud,
            daemon: None,
            started: Instant::now(),
            taps: 0,
            ends_told: 0,
            tapped: BTreeMap::new(),
            teller,
        };
        stage.wait("the stand-in cloud to subscribe", START, |view| view.connected)?;
        stage.start_daemon()?;
        stage.wait("the daemon to take the allowlist", START, |view| {
            view.online() && view.applied_version() == Some(1)
        })?;
        stage.wait("the stations to be available", START, |view| {
            INSTALLED.iter().all(|it| view.stations.contains_key(it.station))
        })?;
        stage.wait_for_readers()?;
        let badges = site::allowlist().len();
        stage.teller.say(&format!("daemon     tapgate run, allowlist 1 with {badges} badges"));
        stage.started = Instant::now();
        Ok(stage)
    }

    fn start_daemon(&mut self) -> anyhow::Result<()> {
        let mut socket = OsString::from(format!("{SOCKET_VARIABLE}="));
        socket.push(self.pcscd.socket());
        let command: [OsString; 8] = [
            "env".into(),
            "--unset=NOTIFY_SOCKET".into(),
            "--unset=JOURNAL_STREAM".into(),
            socket,
            std::env::current_exe()?.into(),
            "run".into(),
            "--config".into(),
            self.folder.join("config.toml").into(),
        ];
        let daemon = Leashed::spawn(command, Stdio::null(), &self.folder.join("daemon.log"));
        self.daemon = Some(daemon.context("the daemon does not start")?);
        Ok(())
    }

    /// Residents tap until time is up; half-way, plugs are pulled.
    fn act(&mut self, duration: Option<Duration>, stop: &AtomicBool) -> anyhow::Result<()> {
        let over = |stage: &Stage| {
            stop.load(Ordering::Relaxed)
                || duration.is_some_and(|duration| stage.started.elapsed() >= duration)
        };
        let mut pulled = 0;
        for (number, (resident, reader)) in SCRIPT.iter().cycle().enumerate() {
            if over(self) {
                return Ok(());
            }
            if number > 0 && number % SCRIPT.len() == 0 {
                self.await_laundry()?;
            }
            if number % 9 == 8 {
                self.pull_a_plug(pulled)?;
                pulled += 1;
            }
            self.tap(resident, reader)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn pull_a_plug(&mut self, turn: u32) -> anyhow::Result<()> {
        if turn.is_multiple_of(2) {
            self.say("the daemon is killed (kill -9); machines go on");
            self.daemon = None;
            let connections = self.cloud.view().connections.len();
            self.start_daemon()?;
            self.wait("the daemon to come back", START, |view| {
                view.online() && view.connections.len() > connections
            })?;
            self.wait_for_readers()?;
        } else {
            self.say("the broker is killed and restarted; nobody notices");
            let subscriptions = self.cloud.view().subscriptions;
            self.broker.kill9();
            self.broker.restart()?;
            // A refused tap is an event: it passes by a cloud that is not there.
            self.wait("the cloud to come back", START, |view| view.subscriptions > subscriptions)?;
        }
        Ok(())
    }

    /// A card that lies on a reader when its watch begins is no tap: wait until all are watched.
    fn wait_for_readers(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut status = Command::new(std::env::current_exe()?);
            status.args(["status", "--json", "--config"]).arg(self.folder.join("config.toml"));
            let answer = status.output()?.stdout;
            let status: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
            let readers = status["readers"].as_array().cloned().unwrap_or_default();
            if !readers.is_empty() && readers.iter().all(|reader| reader["state"] == "ready") {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the readers are not found again; see {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One tap, until the cloud has heard what became of it.
    fn tap(&mut self, resident: &Resident, reader: &'static str) -> anyhow::Result<()> {
        if let Some(last) = self.tapped.insert((resident.name, reader), Instant::now()) {
            std::thread::sleep(REPEAT.saturating_sub(last.elapsed()));
            self.tapped.insert((resident.name, reader), Instant::now());
        }
        let before = Answers::of(&self.cloud.view());
        let card = VirtualCard::insert(self.pcscd.port(reader), resident.uid, resident.atr)?;
        self.taps += 1;
        let what = format!("an answer to {}'s tap at {reader}", resident.name);
        let view = self.wait(&what, ANSWER, |view| Answers::of(view).count() > before.count())?;
        card.remove();
        let answer = Answers::of(&view).newer_than(&before);
        self.say(&format!("{} taps at {reader}: {answer}", resident.name));
        self.tell_ends(&view);
        Ok(())
    }

    fn tell_ends(&mut self, view: &View) {
        let ended = view.usage.records.iter().filter(|record| record["kind"] == "session_ended");
        for end in ended.clone().skip(self.ends_told) {
            let text = |field: &str| end[field].as_str().unwrap_or("?").to_owned();
            let (station, reason) = (text("station"), text("reason"));
            self.say(&format!("  {station} ends, {reason}: {} Wh", end["energy_wh"]));
        }
        self.ends_told = ended.count();
    }

    /// A script that runs faster than its washes would only show occupied machines.
    fn await_laundry(&mut self) -> anyhow::Result<()> {
        let view = self.wait("the washes to finish", SETTLE, |view| {
            let mut open = view.usage.sessions.values().filter(|session| session.end.is_none());
            open.all(|session| session.station.starts_with("charger"))
        })?;
        self.tell_ends(&view);
        Ok(())
    }

    /// No more taps: chargers are stopped by their users, washes finish, the ledger drains.
    fn settle(&mut self) -> anyhow::Result<View> {
        let charging = |view: &View| {
            let open = view.usage.sessions.values().filter(|session| session.end.is_none());
            open.filter(|session| session.station.starts_with("charger")).count() > 0
        };
        if charging(&self.cloud.view()) {
            self.tap(&site::ANNA, "Garage")?;
        }
        self.say("no more taps; waiting for the machines to finish");
        let all_ended =
            |view: &View| view.usage.sessions.values().all(|session| session.end.is_some());
        let view = self.wait("all sessions to end", SETTLE, all_ended)?;
        self.tell_ends(&view);
        Ok(view)
    }

    fn wait(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&View) -> bool,
    ) -> anyhow::Result<View> {
        self.cloud.wait_for(wanted, patience).map_err(|_| {
            let seconds = patience.as_secs();
            anyhow::anyhow!("waited {seconds} s in vain for {what}; see {}", self.log())
        })
    }

    fn log(&self) -> String {
        self.folder.join("daemon.log").display().to_string()
    }

    fn say(&self, what: &str) {
        self.teller.say(&format!("{:6.1}s  {what}", self.started.elapsed().as_secs_f32()));
    }
}

/// What the cloud heard of taps.
struct Answers {
    starts_and_stops: Vec<String>,
    denials: Vec<String>,
}

impl Answers {
    fn of(view: &View) -> Answers {
        let records = view.usage.records.iter().filter_map(|record| {
            let station = record["station"].as_str().unwrap_or("?");
            match record["kind"].as_str() {
                Some("session_started") => Some(format!("starts {station}")),
                Some("session_ending") if record["reason"] == "tapped" => Some("stops it".into()),
                Some(_) | None => None,
            }
        });
        let refusal =
            |event: &Value| format!("refused, {}", event["reason"].as_str().unwrap_or("?"));
        Answers {
            starts_and_stops: records.collect(),
            denials: view.denials().map(refusal).collect(),
        }
    }

    fn count(&self) -> usize {
        self.starts_and_stops.len() + self.denials.len()
    }

    fn newer_than(&self, before: &Answers) -> String {
        let denied = self.denials.len() > before.denials.len();
        let answers = if denied { &self.denials } else { &self.starts_and_stops };
        answers.last().cloned().unwrap_or_default()
    }
}

fn subfolder(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Serves the machines from a thread of their own, for as long as the program runs.
fn serve(building: Building) -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = runtime.block_on(building.serve(SocketAddr::from(([127, 0, 0, 1], 0))))?;
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(address)
}
