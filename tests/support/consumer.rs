//! The consumer of docs/examples, as a process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tapgate::demo::leash::Leashed;

/// A running consumer; dropped, it is killed as by SIGKILL.
pub(crate) struct Consumer {
    _process: Leashed,
}

impl Consumer {
    /// Keeps what it gets in `database` and logs beside it.
    pub(crate) fn start(database: &Path, port: u16, sign_key: Option<&Path>) -> Consumer {
        let mut command: Vec<OsString> = vec![python().into(), script().into(), "run".into()];
        command.extend([database.into(), format!("mqtt://127.0.0.1:{port}").into()]);
        if let Some(key) = sign_key {
            command.extend(["--sign-key".into(), key.into()]);
        }
        let log = database.with_extension("log");
        let process = Leashed::spawn(command, Stdio::null(), &log);
        Consumer { _process: process.expect("python of .venv, made by `make python`") }
    }
}

/// What the consumer says of a database, and whether nothing is wrong with it.
pub(crate) fn verify(database: &Path) -> (Value, bool) {
    let output = Command::new(python())
        .arg(script())
        .arg("verify")
        .arg(database)
        .output()
        .expect("python of .venv, made by `make python`");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"));
    (report, output.status.success())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> PathBuf {
    root().join("docs/examples/consumer.py")
}

pub(crate) fn python() -> PathBuf {
    let named = std::env::var_os("TAPGATE_PYTHON");
    named.map_or_else(|| root().join(".venv/bin/python"), PathBuf::from)
}
