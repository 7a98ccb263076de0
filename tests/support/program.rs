//! The program itself on a site that has nothing but a cloud.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use tapgate::demo::leash::Leashed;

use super::gateway::{GATEWAY, PATIENCE};

const TAPGATE: &str = env!("CARGO_BIN_EXE_tapgate");

/// A site without readers and buses.
pub(crate) struct Program {
    folder: tempfile::TempDir,
    daemon: Option<Leashed>,
}

impl Program {
    /// A site whose `[cloud]` holds these lines.
    pub(crate) fn with_cloud(cloud: &str) -> Program {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = Program { folder, daemon: None };
        program.set_cloud(cloud);
        program
    }

    pub(crate) fn set_cloud(&self, cloud: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "[gateway]\nid = \"{GATEWAY}\"\ntimezone = \"Europe/Zurich\"\nbilling = \"managed\"\n\
             [storage]\npath = \"{at}/store/tapgate.db\"\n\
             [control]\nsocket = \"{at}/control.sock\"\n[cloud]\n{cloud}\n"
        );
        fs::write(self.path("config.toml"), text).expect("a config");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn secret(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its owner");
        path
    }

    /// Starts the daemon with `NAME=value`s, replacing one that runs.
    pub(crate) fn start(&mut self, environment: &[String]) {
        self.kill9();
        let mut command = vec!["env".to_owned(), "--unset=NOTIFY_SOCKET".into()];
        command.extend(environment.iter().cloned());
        command.extend([TAPGATE, "run", "--config"].map(str::to_owned));
        command.push(self.path("config.toml").display().to_string());
        let log = self.path("daemon.log");
        let daemon = Leashed::spawn(command, Stdio::null(), &log).expect("the program");
        self.daemon = Some(daemon);
    }

    /// The most memory that the daemon has had since it was started.
    pub(crate) fn peak_kib(&self) -> Option<u64> {
        let pid = self.daemon.as_ref()?.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().strip_suffix(" kB")?.trim().parse().ok()
    }

    pub(crate) fn kill9(&mut self) {
        self.daemon = None;
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(TAPGATE);
        command.args(arguments).arg("--config").arg(self.path("config.toml"));
        command.stdin(Stdio::null()).env("NO_COLOR", "1").output().expect("the program")
    }

    /// `tapgate cloud status --json`; null where there is no daemon to ask.
    pub(crate) fn cloud(&self) -> Value {
        let output = self.run(&["cloud", "status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.cloud()) {
            let log = || fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "in vain: {what}\n{}\n{}", self.cloud(), log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The steps of `tapgate cloud test --json`, and its exit code.
    pub(crate) fn test(&self) -> (Value, Option<i32>) {
        let output = self.run(&["cloud", "test", "--json"]);
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        let report =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", error()));
        (report, output.status.code())
    }
}

/// `[cloud]` lines for a broker on this machine.
pub(crate) fn plain(port: u16) -> String {
    format!("url = \"mqtt://127.0.0.1:{port}\"")
}

/// `[cloud]` lines for a broker on this machine that speaks TLS.
pub(crate) fn tls(port: u16, ca_file: &Path) -> String {
    format!("url = \"mqtts://localhost:{port}\"\nca_file = \"{}\"", ca_file.display())
}
