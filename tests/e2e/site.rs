//! A site under test: real parts around the real daemon.
//!
//! Waits have a deadline and show the daemon's log where it passes; nothing is proved by waiting
//! for silence.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tapgate::demo::broker::PrivateBroker;
use tapgate::demo::card::VirtualCard;
use tapgate::demo::cloud::{Options, StandInCloud, View};
use tapgate::demo::pcscd::{PrivatePcscd, SOCKET_VARIABLE};
use tempfile::TempDir;

use crate::daemon::{Daemon, Launch, tapgate};
use crate::listener::Listener;
use crate::modbus_peer::{Peer, SerialLine};
use crate::people::{self, Card, GATEWAY, READERS};

/// Longest wait for anything that must happen: pauses between attempts to reach bus, pcscd and
/// broker grow to some seconds, and the machine may be loaded.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of the log that a failed wait shows.
const LOG_LINES: usize = 60;
/// Between one card leaving a reader and the next one arriving there.
const HAND: Duration = Duration::from_millis(300);

/// A tap by whoever started or stopped a session repeats its feedback for this long.
pub(crate) const REPEAT: Duration = Duration::from_secs(5);

/// A site. Dropped in this order: the daemon goes first.
pub(crate) struct Site {
    daemon: Option<Daemon>,
    pub(crate) cloud: StandInCloud,
    pub(crate) listener: Listener,
    pub(crate) broker: PrivateBroker,
    pub(crate) pcscd: PrivatePcscd,
    pub(crate) peer: Peer,
    _line: Option<SerialLine>,
    /// `NAME=value` for the daemon.
    pub(crate) environment: Vec<OsString>,
    /// What the shell does before it becomes the daemon, and what runs the shell.
    pub(crate) prelude: String,
    pub(crate) wrapper: Vec<&'static str>,
    folder: TempDir,
}

impl Site {
    /// A site that runs, over Modbus TCP.
    pub(crate) fn running() -> Site {
        let mut site = Site::ready_to_start();
        site.start();
        site.until_ready();
        site
    }

    /// The same, where the cloud signs what it sends.
    pub(crate) fn running_with_keys() -> Site {
        let mut site = Site::ready_to_start();
        site.sign(&[7; 32]);
        site.start();
        site.until_ready();
        site
    }

    /// Makes the cloud sign, and the gateway trust nobody else. Before the first start.
    pub(crate) fn sign(&mut self, seed: &[u8; 32]) {
        let options = Options {
            port: self.broker.port(),
            gateway_id: GATEWAY.into(),
            login: None,
            signing_seed: Some(*seed),
        };
        self.cloud = StandInCloud::start_with(options).expect("a thread");
        self.cloud.push_allowlist(people::allowlist(), 1);
        let key = SigningKey::from_bytes(seed).verifying_key();
        let key = URL_SAFE_NO_PAD.encode(key.as_bytes());
        self.change_config("[cloud]\n", &format!("[cloud]\ntrusted_keys = [\"{key}\"]\n"));
    }

    /// Edits the config file; whoever runs has to be told.
    pub(crate) fn change_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).expect("a config");
        assert!(text.contains(from), "{from}");
        fs::write(self.config(), text.replacen(from, to, 1)).expect("a config");
    }

    /// Everything but the daemon, over Modbus TCP.
    pub(crate) fn ready_to_start() -> Site {
        let peer = Peer::tcp(0);
        let port = peer.port();
        let bus =
            format!("transport = \"tcp\"\naddress = \"127.0.0.1:{port}\"\ntimeout = \"500ms\"");
        Site::assemble(peer, None, &bus)
    }

    /// A site that runs, over a serial line.
    pub(crate) fn running_on_a_serial_line() -> Site {
        let line = SerialLine::new();
        let bus = format!(
            "transport = \"rtu\"\nport = \"{}\"\nbaud = 19200\nparity = \"none\"\ntimeout = \"300ms\"",
            line.near().display()
        );
        let mut site = Site::assemble(Peer::serial(&line.far()), Some(line), &bus);
        site.start();
        site.until_ready();
        site
    }

    fn assemble(peer: Peer, line: Option<SerialLine>, bus: &str) -> Site {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let subfolder = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).expect("a new directory");
            path
        };
        let broker = PrivateBroker::start(&subfolder("broker")).expect("mosquitto");
        let pcscd = PrivatePcscd::start(&subfolder("pcscd"), &READERS).expect("pcscd");
        let cloud = StandInCloud::start(broker.port(), GATEWAY).expect("a thread");
        cloud.push_allowlist(people::allowlist(), 1);
        let config = people::config(folder.path(), bus, broker.port());
        fs::write(folder.path().join("config.toml"), config).expect("a config");
        let mut socket = OsString::from(format!("{SOCKET_VARIABLE}="));
        socket.push(pcscd.socket());
        let mut site = Site {
            daemon: None,
            cloud,
            listener: Listener::start(broker.port()),
            broker,
            pcscd,
            peer,
            _line: line,
            environment: vec![socket],
            prelude: String::new(),
            wrapper: Vec::new(),
            folder,
        };
        site.wire_meters();
        site
    }

    /// Each meter counts what its relay lets through; registers are as a used meter's.
    pub(crate) fn wire_meters(&mut self) {
        let meters = [(people::WASHER_METER, 12_346.7), (people::CHARGER_METER, 1_204_988.0)];
        for (unit, wh) in meters.into_iter().chain([(people::DRYER_METER, 0.0)]) {
            self.peer.order(json!({"do": "energy", "unit": unit, "wh": wh}));
            self.peer.order(json!({"do": "wire", "unit": unit, "coil": unit - 11}));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    // The daemon.

    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        self.daemon = Some(Daemon::start(Launch {
            config: &self.config(),
            log: self.path("daemon.log"),
            environment: self.environment.clone(),
            prelude: &self.prelude,
            wrapper: &self.wrapper,
        }));
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.daemon = None;
    }

    /// SIGTERM; how and after what time it ended.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut daemon = self.daemon.take().expect("it was started");
        daemon.terminate()
    }

    pub(crate) fn pid(&mut self) -> u32 {
        let daemon = self.daemon.as_mut().expect("it was started");
        assert_eq!(daemon.ended(), None, "the daemon ended by itself");
        daemon.pid()
    }

    /// Starts the daemon again and waits until it can be tapped.
    pub(crate) fn start_again(&mut self) {
        let before = self.cloud.view().connections.len();
        self.start();
        self.until_ready();
        self.seen("the daemon is online again", |view| {
            view.online() && view.connections.len() > before
        });
    }

    /// Waits until readers, units and broker are there, meters are known, the allowlist decides.
    pub(crate) fn until_ready(&mut self) {
        self.until("everything is there", |site| {
            let status = site.status();
            let all = |list: &str, state: &str| {
                let list = status[list].as_array();
                list.is_some_and(|list| {
                    !list.is_empty() && list.iter().all(|it| it["state"] == state)
                })
            };
            let stations = status["stations"].as_array();
            all("readers", "ready")
                && all("devices", "ok")
                && stations.is_some_and(|list| list.iter().all(|it| it["register_wh"].is_i64()))
                && status["cloud"]["connected"] == true
                && !status["allowlist"].is_null()
        });
    }

    // What it says.

    /// Null where it does not answer.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.command(&["status", "--json"]).stdout).unwrap_or_default()
    }

    pub(crate) fn station(&self, station: &str) -> Value {
        let status = self.status();
        let stations = status["stations"].as_array().cloned().unwrap_or_default();
        stations.into_iter().find(|it| it["station"] == station).unwrap_or_default()
    }

    /// Runs a command with the site's config.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let config = self.config();
        let config = ["--config", config.to_str().expect("a plain path")];
        tapgate(&[arguments, &config].concat())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    // Waiting.

    /// Waits until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Site) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() >= deadline {
                self.give_up(what);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the cloud has seen something.
    pub(crate) fn seen(&self, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        let view = self.cloud.wait_for(wanted, PATIENCE);
        view.unwrap_or_else(|_| self.give_up(what))
    }

    /// Waits until the cloud has the `count`th record of a kind, and gives it.
    pub(crate) fn record(&self, kind: &str, count: usize) -> Value {
        let view =
            self.seen(&format!("{kind} number {count}"), |view| records(view, kind).len() >= count);
        records(&view, kind)[count - 1].clone()
    }

    /// Waits until every record is acknowledged, and nothing is wrong with any.
    pub(crate) fn settled(&mut self) -> View {
        self.until("all records are acknowledged", |site| {
            let status = site.status();
            let ledger = &status["ledger"];
            ledger["head"].as_u64().is_some()
                && ledger["head"] == ledger["acked"]
                && ledger["head"].as_u64() == Some(site.cloud.view().usage.records.len() as u64)
        });
        let view = self.cloud.view();
        let usage = &view.usage;
        let nothing: [String; 0] = [];
        assert_eq!(usage.imbalances(), nothing);
        assert_eq!(usage.conflicts, nothing);
        assert_eq!(usage.quarantined, nothing);
        assert_eq!(view.unreadable, nothing);
        let numbers: Vec<u64> = usage.records.iter().filter_map(|it| it["seq"].as_u64()).collect();
        assert_eq!(numbers, (1..=usage.records.len() as u64).collect::<Vec<_>>());
        view
    }

    /// Waits until every record of this epoch is acknowledged.
    pub(crate) fn settled_epoch(&mut self, epoch: &str) {
        self.until("all records of the epoch are acknowledged", |site| {
            let ledger = site.status()["ledger"].clone();
            ledger["epoch"] == epoch && ledger["head"] == ledger["acked"]
        });
    }

    fn give_up(&self, what: &str) -> ! {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        panic!("in vain: {what}\n{last}\nstatus: {}", self.status());
    }

    // What people do.

    /// Puts a card on a reader; it leaves when it is dropped.
    pub(crate) fn present(&self, reader: &str, card: &Card) -> VirtualCard {
        let port = self.pcscd.port(reader);
        VirtualCard::insert(port, card.uid, card.atr).expect("a listening reader")
    }

    /// Holds a card to a reader until the cloud has heard of a session's start.
    pub(crate) fn tap_to_start(&self, reader: &str, card: &Card) -> Value {
        let before = records(&self.cloud.view(), "session_started").len();
        let card = self.present(reader, card);
        let start = self.record("session_started", before + 1);
        card.remove();
        start
    }

    /// Holds a card to a reader until the cloud has heard of the refusal.
    pub(crate) fn tap_in_vain(&self, reader: &str, card: &Card) -> Value {
        let before = self.cloud.view().denials().count();
        let card = self.present(reader, card);
        let view = self.seen("a refused tap", |view| view.denials().count() > before);
        card.remove();
        // As fast as a hand. In no time at all the driver takes the next card for this one: where a
        // command meets a card that just left, pcscd never sees the reader empty.
        std::thread::sleep(HAND);
        view.denials().nth(before).expect("just seen").clone()
    }

    /// The machine behind a meter draws this much from now on, as long as its relay is closed.
    pub(crate) fn draw(&mut self, meter: u8, watts: u32) {
        self.peer.order(json!({"do": "power", "unit": meter, "w": watts}));
    }

    /// The meter's register.
    pub(crate) fn register(&mut self, meter: u8) -> i64 {
        self.peer.order(json!({"do": "read", "unit": meter}))["wh"].as_i64().expect("a number")
    }

    pub(crate) fn is_closed(&mut self, coil: u8) -> bool {
        self.peer.order(json!({"do": "coil", "coil": coil}))["on"] == true
    }

    /// Every write to a relay: which, and whether it closed it.
    pub(crate) fn writes(&mut self) -> Vec<(u8, bool)> {
        let writes = self.peer.order(json!({"do": "writes"}));
        serde_json::from_value(writes["writes"].clone()).expect("pairs")
    }

    /// Relays that were opened while a load was behind them: which, and the watts.
    pub(crate) fn cuts(&mut self) -> Vec<(u8, u32)> {
        let cuts = self.peer.order(json!({"do": "cuts"}));
        serde_json::from_value(cuts["cuts"].clone()).expect("pairs")
    }

    /// Waits until a station's meter has shown a machine at work.
    pub(crate) fn until_in_use(&mut self, station: &str) {
        self.until("the station is in use", |site| {
            let view = site.station(station);
            view["state"] == "in_use" && view["session"]["phase"] == "running"
        });
    }
}

/// The cloud's records of a kind.
pub(crate) fn records<'a>(view: &'a View, kind: &str) -> Vec<&'a Value> {
    view.usage.records.iter().filter(|record| record["kind"] == kind).collect()
}
