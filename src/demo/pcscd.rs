//! A private, real pcscd with virtual readers, beside any pcscd that the machine runs.
//!
//! pcscd takes its listening socket from systemd when there is one: file descriptor 3,
//! `LISTEN_FDS` and `LISTEN_PID`. A shell passes it ours. As root it runs in a mount namespace of
//! its own, so that it neither touches `/run/pcscd` nor takes the machine's USB readers.
//!
//! Clients find it through [`SOCKET_VARIABLE`], which libpcsclite reads once per process: it must
//! be in the environment before the process starts.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::leash::Leashed;
use super::ports::{FreePorts, is_listening};

/// The environment variable that tells libpcsclite where pcscd listens.
pub const SOCKET_VARIABLE: &str = "PCSCLITE_CSOCK_NAME";

const PCSCD: &str = "/usr/sbin/pcscd";
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";

/// Debian's vpcd has two slots on consecutive ports, and pcscd 16 places for readers.
const READERS_MAX: usize = 8;

/// A start takes 50 to 200 ms on two cores, many times that when tests run in parallel.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Another process may take a port between the look and pcscd's use of it.
const START_ATTEMPTS: u32 = 3;

/// What runs pcscd: `$1` is the configuration directory, `$2` the shim or nothing. `exec` keeps
/// the process id, which is what `LISTEN_PID` must name. Builds with polkit ask a bus that is not
/// there.
const LAUNCH: &str = r#"
exec 3<&0 </dev/null
if [ "$(id -u)" = 0 ]; then
    mkdir -p /run/pcscd && mount -t tmpfs none /run/pcscd || exit 1
    [ ! -d /dev/bus/usb ] || mount -t tmpfs none /dev/bus/usb
fi
pcscd=/usr/sbin/pcscd
case "$($pcscd --help 2>&1)" in *--disable-polkit*) polkit=--disable-polkit ;; *) polkit= ;; esac
export LISTEN_FDS=1 LISTEN_PID=$$
[ -z "$2" ] || export LD_PRELOAD="$2"
exec $pcscd --foreground $polkit -c "$1"
"#;

/// A running private pcscd, killed when dropped.
#[derive(Debug)]
pub struct PrivatePcscd {
    dir: PathBuf,
    readers: Vec<String>,
    ports: Vec<u16>,
    fastpoll: Option<PathBuf>,
    process: Option<Leashed>,
}

impl PrivatePcscd {
    /// Where a pcscd that is started in `dir` listens: the value of [`SOCKET_VARIABLE`].
    pub fn socket_in(dir: &Path) -> PathBuf {
        dir.join("pcscd.comm")
    }

    /// Starts pcscd with these readers, named `NAME 00 00` in its list, and waits until it serves.
    /// Each also has an empty second slot, `NAME 00 01`.
    pub fn start(dir: &Path, readers: &[&str]) -> anyhow::Result<PrivatePcscd> {
        for needed in [PCSCD, DRIVER] {
            ensure!(
                Path::new(needed).exists(),
                "{needed} is missing; try: apt-get install pcscd vsmartcard-vpcd"
            );
        }
        ensure!(
            is_root() || Path::new("/run/pcscd").exists(),
            "pcscd needs the directory /run/pcscd; try: sudo mkdir /run/pcscd, or run as root"
        );
        ensure!(readers.len() <= READERS_MAX, "pcscd has room for {READERS_MAX} virtual readers");
        let mut pcscd = PrivatePcscd {
            dir: dir.canonicalize().with_context(|| format!("no directory {}", dir.display()))?,
            readers: readers.iter().map(|name| (*name).to_owned()).collect(),
            ports: Vec::new(),
            fastpoll: compile_fastpoll(dir),
            process: None,
        };
        let mut attempt = 1;
        loop {
            pcscd.choose_ports()?;
            match pcscd.launch() {
                Ok(()) => return Ok(pcscd),
                Err(error) if attempt >= START_ATTEMPTS => return Err(error),
                Err(_) => pcscd.kill(),
            }
            attempt += 1;
        }
    }

    /// The socket, for [`SOCKET_VARIABLE`].
    pub fn socket(&self) -> PathBuf {
        Self::socket_in(&self.dir)
    }

    /// The TCP port on which a reader takes its virtual card.
    pub fn port(&self, reader: &str) -> u16 {
        let index = self.readers.iter().position(|name| name == reader);
        self.ports[index.expect("the reader is one that this pcscd was started with")]
    }

    /// The name under which pcscd lists a reader.
    pub fn listed_name(reader: &str) -> String {
        format!("{reader} 00 00")
    }

    /// The process, for other signals; `None` where it was killed.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Leashed::pid)
    }

    /// Kills pcscd at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills pcscd and starts it anew, with the same readers on the same ports.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.launch()
    }

    /// Gives each reader its ports and its configuration: a driver file and a name of its own,
    /// since one driver file shares its cards among all its readers.
    fn choose_ports(&mut self) -> anyhow::Result<()> {
        let conf = self.conf();
        fs::create_dir_all(&conf).context("cannot create the directory of the readers")?;
        let free = FreePorts::pairs(self.readers.len())?;
        self.ports = free.first_of_pairs();
        for (index, (name, port)) in self.readers.iter().zip(&self.ports).enumerate() {
            let driver = self.dir.join(format!("libifdvpcd-{index}.so"));
            fs::copy(DRIVER, &driver).context("cannot copy vpcd's driver")?;
            let entry = format!(
                "FRIENDLYNAME \"{name}\"\nDEVICENAME /dev/null:{port}\nLIBPATH {}\n\
                 CHANNELID {port}\n",
                driver.display()
            );
            fs::write(conf.join(format!("reader-{index}")), entry)
                .context("cannot write the configuration of a reader")?;
        }
        Ok(())
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let socket = self.listen()?;
        let namespace: &[&str] = if is_root() { &["unshare", "--mount"] } else { &[] };
        let command = namespace
            .iter()
            .chain(&["sh", "-c", LAUNCH, "pcscd"])
            .map(OsString::from)
            .chain([self.conf().into(), self.fastpoll.clone().unwrap_or_default().into()]);
        let process = Leashed::spawn(command, Stdio::from(OwnedFd::from(socket)), &self.log());
        self.process = Some(process.context("cannot run pcscd through a shell")?);
        self.wait_until_ready()
    }

    fn listen(&self) -> anyhow::Result<UnixListener> {
        let path = self.socket();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("cannot remove pcscd's old socket");
            }
            _ => {}
        }
        let socket = UnixListener::bind(&path)
            .with_context(|| format!("cannot listen on {}; a shorter path?", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(socket)
    }

    /// Waits until pcscd listens for every reader's card: its own socket was there before it.
    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START_PATIENCE;
        loop {
            let process = self.process.as_mut().expect("launched just before");
            if let Some(status) = process.ended()? {
                bail!("pcscd ended at once ({status}); see {}", self.log().display());
            }
            let pid = process.pid();
            if self.ports.iter().all(|port| is_listening(pid, *port)) {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("pcscd does not serve its readers; see {}", self.log().display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn conf(&self) -> PathBuf {
        self.dir.join("readers")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("pcscd.log")
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Builds the shim that makes pcscd poll virtual readers every 10 ms instead of every 400 ms;
/// without a C compiler taps are slower, nothing else.
fn compile_fastpoll(dir: &Path) -> Option<PathBuf> {
    let source = dir.join("fastpoll.c");
    let library = dir.join("fastpoll.so");
    fs::write(&source, include_str!("fastpoll.c")).ok()?;
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    built.is_ok_and(|status| status.success()).then(|| library.canonicalize().ok()).flatten()
}
