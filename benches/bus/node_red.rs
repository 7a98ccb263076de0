//! Node-RED with node-red-contrib-modbus as a site would wire it: a polling node per register, one
//! writing node for taps, all over one serial client.
//!
//! Kinder to it than its defaults: parallel requests are off (on a serial line they break each
//! other) and so is closing the port for 2 s after every time-out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::line::BAUD;
use crate::{METERS, TIMEOUT};

const PACKAGES: &str = include_str!("node_red/package.json");
const SETTINGS: &str = include_str!("node_red/settings.js");
/// Power and energy of an SDM120.
const REGISTERS: [u16; 2] = [12, 72];

/// An installed Node-RED.
pub(crate) struct NodeRed {
    folder: PathBuf,
}

impl NodeRed {
    /// Installs it below the build's folder where it is not there yet; an error says why not.
    pub(crate) fn install(target: &Path) -> anyhow::Result<NodeRed> {
        let folder = target.join("bench-node-red");
        let stamp = folder.join("installed.json");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == PACKAGES) {
            return Ok(NodeRed { folder });
        }
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("package.json"), PACKAGES)?;
        eprintln!("installing Node-RED into {}", folder.display());
        // Its packages bring what they need built; nothing of theirs runs while they install.
        let quiet = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"];
        let mut npm = Command::new("npm");
        npm.arg("install").args(quiet).arg("--loglevel=error").current_dir(&folder);
        let output = npm.stdin(Stdio::null()).output().context("npm is not installed")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().find(|line| line.contains("error")).unwrap_or("it says nothing");
        ensure!(output.status.success(), "npm install failed: {why}");
        fs::write(&stamp, PACKAGES)?;
        Ok(NodeRed { folder })
    }

    /// Starts it on this line with this poll interval; it fetches taps from `taps`.
    pub(crate) fn command(
        &self,
        line: &Path,
        interval: Duration,
        taps: u16,
    ) -> anyhow::Result<Command> {
        let user = self.folder.join("user");
        fs::create_dir_all(&user)?;
        fs::write(user.join("settings.js"), SETTINGS)?;
        fs::write(user.join("flows.json"), flow(line, interval, taps).to_string())?;
        let mut command = Command::new("node");
        command.arg(self.folder.join("node_modules/node-red/red.js"));
        command.arg("--userDir").arg(&user).arg("--settings").arg(user.join("settings.js"));
        Ok(command)
    }
}

fn flow(line: &Path, interval: Duration, taps: u16) -> Value {
    let mut nodes = vec![
        json!({ "id": "flow", "type": "tab", "label": "laundry" }),
        client(line),
        json!({
            "id": "taps", "z": "flow", "type": "tcp in", "server": "client",
            "host": "127.0.0.1", "port": taps.to_string(),
            "datamode": "stream", "datatype": "utf8", "newline": "\n", "wires": [["order"]],
        }),
        json!({
            "id": "order", "z": "flow", "type": "function", "outputs": 1,
            "func": "msg.payload = msg.payload.trim() === '1'; return msg;",
            "wires": [["relay"]],
        }),
        json!({
            "id": "relay", "z": "flow", "type": "modbus-write", "server": "line",
            "unitid": "1", "dataType": "Coil", "adr": "0", "quantity": "1", "wires": [[], []],
        }),
    ];
    for unit in 11..11 + METERS {
        nodes.extend(REGISTERS.map(|register| poll(unit, register, interval)));
    }
    Value::Array(nodes)
}

fn client(line: &Path) -> Value {
    json!({
        "id": "line",
        "type": "modbus-client",
        "clienttype": "simpleser",
        "bufferCommands": true,
        "serialPort": line,
        "serialType": "RTU-BUFFERD",
        "serialBaudrate": BAUD.to_string(),
        "serialDatabits": "8",
        "serialStopbits": "1",
        // A pty has none. The line counts 11 bits a byte all the same.
        "serialParity": "none",
        "serialConnectionDelay": "100",
        "unit_id": 1,
        "commandDelay": 1,
        "clientTimeout": TIMEOUT.as_millis() as u64,
        "reconnectOnTimeout": false,
        "reconnectTimeout": 2000,
        "parallelUnitIdsAllowed": false,
    })
}

fn poll(unit: usize, register: u16, interval: Duration) -> Value {
    json!({
        "id": format!("meter-{unit}-{register}"),
        "z": "flow",
        "type": "modbus-read",
        "server": "line",
        "unitid": unit.to_string(),
        "dataType": "InputRegister",
        "adr": register.to_string(),
        "quantity": "2",
        "rate": interval.as_millis().to_string(),
        "rateUnit": "ms",
        "wires": [[], []],
    })
}
