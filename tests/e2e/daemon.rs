//! The program under test as a process: the daemon on a leash, and commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tapgate::demo::leash::Leashed;

/// The program.
pub(crate) const TAPGATE: &str = env!("CARGO_BIN_EXE_tapgate");

/// Longest time that the program may take to end.
const END: Duration = Duration::from_secs(10);

/// How a daemon is started.
pub(crate) struct Launch<'a> {
    pub(crate) config: &'a Path,
    pub(crate) log: PathBuf,
    /// `NAME=value`.
    pub(crate) environment: Vec<OsString>,
    /// What the shell does before it becomes the daemon.
    pub(crate) prelude: &'a str,
    /// What runs the shell, such as `unshare --mount`.
    pub(crate) wrapper: &'a [&'a str],
}

/// A running daemon; it is killed when this is dropped, and dies with the test.
pub(crate) struct Daemon {
    process: Leashed,
}

impl Daemon {
    pub(crate) fn start(launch: Launch<'_>) -> Daemon {
        let unset = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"];
        let mut command: Vec<OsString> = vec!["env".into()];
        command.extend(unset.map(|name| format!("--unset={name}").into()));
        command.extend(launch.environment);
        command.extend(launch.wrapper.iter().map(OsString::from));
        let script = format!("{}\nexec \"$@\"", launch.prelude);
        command.extend(
            ["sh", "-c", &script, "tapgate", TAPGATE, "run", "--config"].map(OsString::from),
        );
        command.push(launch.config.into());
        let process = Leashed::spawn(command, Stdio::null(), &launch.log).expect("a shell");
        Daemon { process }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended().expect("a child")
    }

    /// SIGTERM; how and after what time it ended.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let pid = Pid::from_raw(self.pid() as i32).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it runs");
        (self.wait(), begun.elapsed())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + END;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < until, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs a command of the program to its end.
pub(crate) fn tapgate(arguments: &[&str]) -> Output {
    let mut command = Command::new(TAPGATE);
    command.args(arguments).stdin(Stdio::null());
    command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
    command.output().expect("the program runs")
}

/// Starts the daemon with a config that it refuses: exit code, and what it said.
pub(crate) fn refused(config: &Path) -> (Option<i32>, String) {
    let log = config.with_extension("refused.log");
    let launch = Launch { config, log, environment: Vec::new(), prelude: "", wrapper: &[] };
    let log = launch.log.clone();
    let status = Daemon::start(launch).wait();
    (status.code(), std::fs::read_to_string(log).expect("a log"))
}
