//! The configuration: one TOML file, parsed into a site that is valid by construction.
//!
//! `document` reads the file as written, `site` and its neighbours check it section by section and
//! build [`Config`]; `profile` is the register map of a device model, `library` holds them all.
//! Every error names file, line, column, the key and the fix; all errors of a file are shown at
//! once.

mod buses;
mod cloud;
mod document;
pub mod library;
pub mod problem;
pub mod profile;
mod profile_file;
mod profile_points;
mod readers;
mod rules;
mod site;
mod stations;
#[cfg(test)]
mod tests;
mod uses;
mod values;
pub mod wiring;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use library::Library;
pub use problem::{ConfigErrors, Problem};

use crate::core::site::Site;
use wiring::Wiring;

/// Where the config lies, unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/tapgate/config.toml";
/// Where the daemon listens, unless `[control] socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tapgate/control.sock";

/// Reads and checks a config file, the profiles in its folder, and the files that it names.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let text =
        library::read_text(path).map_err(|problem| ConfigErrors::new(vec![problem], Vec::new()))?;
    site::read(&path.display().to_string(), &text, None)
}

/// Where the daemon listens that was started on this file, whatever else is wrong with it by now.
pub fn control_socket(path: &Path) -> std::io::Result<PathBuf> {
    let table: Option<toml::Table> = std::fs::read_to_string(path)?.parse().ok();
    let socket = table.as_ref().and_then(|table| table.get("control")?.get("socket")?.as_str());
    Ok(socket.map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from))
}

/// Where the site's own profiles lie by this file, whatever else is wrong with it.
pub fn profiles_folder(path: &Path) -> PathBuf {
    let text = std::fs::read_to_string(path).ok();
    let table: Option<toml::Table> = text.and_then(|text| text.parse().ok());
    let folder = table.as_ref().and_then(|table| table.get("storage")?.get("profiles")?.as_str());
    folder.map_or_else(|| library::DEFAULT_FOLDER.into(), PathBuf::from)
}

/// Checks a config as text against the built-in profiles; no other file is looked at.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, file, &Library::built_in())
}

/// Checks a config as text against `library`; no other file is looked at.
pub fn parse_with(text: &str, file: &str, library: &Library) -> Result<Config, ConfigErrors> {
    site::read(file, text, Some(library))
}

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
    pub warnings: Vec<Problem>,
}

/// `[storage]`.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The ledger's database file.
    pub path: PathBuf,
    /// How long acknowledged records are kept; for ever where `None`.
    pub retention: Option<Duration>,
    /// The folder with the technician's own profiles.
    pub profiles: PathBuf,
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

impl Cloud {
    /// Host and port as one writes them; an IPv6 address stands in brackets.
    pub fn endpoint(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}
