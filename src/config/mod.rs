//! The configuration: one TOML file, parsed into a site that is valid by construction.
//!
//! `file` is the file as written, `site` checks it and builds [`Config`], `profile` is the register
//! map of a device model. Every error names file, line, column, the key and the fix; all errors of
//! a file are shown at once.

pub mod profile;
pub mod wiring;

use std::path::PathBuf;
use std::time::Duration;

use crate::core::site::Site;
use wiring::Wiring;

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The MQTT identity, `[a-z0-9-]`, 1 to 64.
    pub gateway_id: String,
    /// Where the store lies and how long it keeps what was acknowledged.
    pub storage: Storage,
    /// The control socket.
    pub control_socket: PathBuf,
    /// The cloud; `None` on a stand-alone site.
    pub cloud: Option<Cloud>,
    /// Age of the allowlist from which on a warning is raised.
    pub stale_warning: Option<Duration>,
    /// What the core needs.
    pub site: Site,
    /// What the I/O tasks need.
    pub wiring: Wiring,
    /// What is valid but not wise; `check` and the journal show it.
    pub warnings: Vec<String>,
}

/// `[storage]`.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The ledger's database file.
    pub path: PathBuf,
    /// How long acknowledged records are kept; for ever where `None`.
    pub retention: Option<Duration>,
}

/// `[cloud]`.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// Broker host.
    pub host: String,
    /// Broker port.
    pub port: u16,
    /// Whether the link is TLS (`mqtts://`).
    pub tls: bool,
    /// MQTT user.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Name of the systemd credential with the password.
    pub credential: Option<String>,
    /// Certificate authority in PEM; system roots where `None`.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key in PEM.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Raw Ed25519 keys that sign what comes down.
    pub trusted_keys: Vec<[u8; 32]>,
    /// Whether events on unknown badges name the UID.
    pub report_unknown_uids: bool,
}

/// (to come)
pub fn load(_file: &std::path::Path) -> Result<Config, String> {
    Err(String::new())
}
