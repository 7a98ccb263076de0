//! A private, real mosquitto on this machine's loopback, which can be killed and restarted.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::leash::Leashed;
use super::ports::{FreePorts, is_listening};

/// A start takes some 10 ms on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Another process may take the port between the look and mosquitto's use of it.
const START_ATTEMPTS: u32 = 3;

/// Where Debian puts it; `/usr/sbin` is not in every user's path.
const MOSQUITTO: [&str; 3] =
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];

/// A user of the broker.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Name.
    pub username: &'a str,
    /// Password.
    pub password: &'a str,
}

/// A running private broker, killed when dropped.
#[derive(Debug)]
pub struct PrivateBroker {
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    process: Option<Leashed>,
}

impl PrivateBroker {
    /// Starts a broker that keeps what it is to keep in `dir` and lets everybody in.
    pub fn start(dir: &Path) -> anyhow::Result<PrivateBroker> {
        Self::start_guarded(dir, &[])
    }

    /// Starts a broker for these users, or for everybody where there are none.
    pub fn start_guarded(dir: &Path, users: &[Login<'_>]) -> anyhow::Result<PrivateBroker> {
        let program = MOSQUITTO.iter().map(Path::new).find(|path| path.exists());
        let program = program
            .context("mosquitto is not installed; try: apt-get install mosquitto")?
            .to_owned();
        let dir = dir.canonicalize().with_context(|| format!("no directory {}", dir.display()))?;
        let mut broker = PrivateBroker { program, dir, port: 0, process: None };
        broker.write_users(users)?;
        let mut attempt = 1;
        loop {
            broker.port = FreePorts::one()?;
            broker.write_config(!users.is_empty())?;
            match broker.launch() {
                Ok(()) => return Ok(broker),
                Err(error) if attempt >= START_ATTEMPTS => return Err(error),
                Err(_) => broker.kill9(),
            }
            attempt += 1;
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the broker at once (SIGKILL), as a power cut would.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Starts the broker again on the same port, with what it had kept.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill9();
        self.launch()
    }

    /// Removes what the stopped broker kept: sessions, queues and retained messages.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the broker still runs; kill it before wiping it");
        fs::remove_dir_all(self.kept()).context("cannot remove what the broker kept")?;
        fs::create_dir(self.kept()).context("cannot create the broker's directory")
    }

    /// The broker's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("mosquitto.log")
    }

    fn write_config(&self, guarded: bool) -> anyhow::Result<()> {
        fs::create_dir_all(self.kept()).context("cannot create the broker's directory")?;
        let access = if guarded {
            format!("allow_anonymous false\npassword_file {}\n", self.users().display())
        } else {
            "allow_anonymous true\n".to_owned()
        };
        // Saved after every change, or a kill would lose up to half an hour. Started by root,
        // mosquitto would become a user that may not write here; else `user` has no effect.
        let config = format!(
            "listener {} 127.0.0.1\n{access}user root\npersistence true\n\
             persistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n\
             log_type all\nlog_timestamp_format %Y-%m-%dT%H:%M:%S\n",
            self.port,
            self.kept().display(),
        );
        fs::write(self.config(), config).context("cannot write the broker's configuration")
    }

    fn write_users(&self, users: &[Login<'_>]) -> anyhow::Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let lines: String =
            users.iter().map(|user| format!("{}:{}\n", user.username, user.password)).collect();
        fs::write(self.users(), lines).context("cannot write the broker's users")?;
        // Turns the plain passwords in the file into hashes.
        let hashed = Command::new("mosquitto_passwd").arg("-U").arg(self.users()).status();
        let hashed = hashed.context("cannot run mosquitto_passwd; apt-get install mosquitto")?;
        ensure!(hashed.success(), "mosquitto_passwd failed ({hashed})");
        Ok(())
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let command = [self.program.as_os_str(), "-c".as_ref(), self.config().as_os_str()]
            .map(ToOwned::to_owned);
        let process = Leashed::spawn(command, Stdio::null(), &self.log());
        self.process = Some(process.context("cannot run mosquitto")?);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START_PATIENCE;
        loop {
            let process = self.process.as_mut().expect("launched just before");
            if let Some(status) = process.ended()? {
                bail!("mosquitto ended at once ({status}); see {}", self.log().display());
            }
            let pid = process.pid();
            if is_listening(pid, self.port)
                && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("mosquitto does not listen; see {}", self.log().display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.join("mosquitto.conf")
    }

    fn users(&self) -> PathBuf {
        self.dir.join("mosquitto.users")
    }

    fn kept(&self) -> PathBuf {
        self.dir.join("mosquitto")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_broker_comes_back_on_its_port() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let login = Login { username: "tapgate", password: "secret" };
        let mut broker = PrivateBroker::start_guarded(dir.path(), &[login]).expect("mosquitto");
        let port = broker.port();

        broker.kill9();
        broker.wipe().expect("a stopped broker");
        broker.restart().expect("mosquitto again");

        assert_eq!(broker.port(), port);
        assert!(broker.wipe().is_err(), "a running broker is not wiped");
        let users = fs::read_to_string(dir.path().join("mosquitto.users")).expect("users");
        assert!(!users.contains("secret"), "passwords are hashed");
    }
}
