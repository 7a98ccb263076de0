//! Programs that never outlive the process that started them, however it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, PipeWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Runs `"$@"` under the shell's own process id. Beside it waits a second shell, on a pipe whose
/// other end only the starting process holds: a line means that all is well, its end that the
/// process died without a word.
const LEASH: &str = r#"
exec 4<&1 1>&2
(read -r _ <&4 || kill -KILL $$) </dev/null 2>/dev/null &
exec 4<&-
exec "$@"
"#;

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Leashed {
    child: Child,
    /// `None` once it was let go.
    leash: Option<PipeWriter>,
}

impl Leashed {
    /// Runs a program; what it says is appended to the file `log`.
    pub fn spawn<A: AsRef<OsStr>>(
        command: impl IntoIterator<Item = A>,
        stdin: Stdio,
        log: &Path,
    ) -> io::Result<Leashed> {
        let (watched, leash) = io::pipe()?;
        let child = Command::new("sh")
            .args(["-c", LEASH, "leash"])
            .args(command)
            .stdin(stdin)
            .stdout(watched)
            .stderr(append_to(log)?)
            // Out of the terminal's process group: Ctrl-C ends the demo, which then ends this.
            .process_group(0)
            .spawn()?;
        Ok(Leashed { child, leash: Some(leash) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Leashed {
    /// SIGKILL. What fails here failed because the program is gone already.
    fn drop(&mut self) {
        if let Some(mut leash) = self.leash.take() {
            let _ = leash.write_all(b"\n");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn append_to(log: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).open(log)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn is_running(pid: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state …`; a zombie only waits to be reaped.
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    }

    #[test]
    fn a_program_dies_with_the_process_that_holds_its_leash() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = dir.path().join("log");
        let spawn = || Leashed::spawn(["sleep", "3600"], Stdio::null(), &log).expect("a shell");

        let dropped = spawn();
        let pid = dropped.pid();
        assert!(is_running(pid));
        drop(dropped);
        assert!(!is_running(pid));

        let mut orphan = spawn();
        orphan.leash = None;
        let until = Instant::now() + Duration::from_secs(10);
        while orphan.ended().expect("a child").is_none() {
            assert!(Instant::now() < until, "the program outlived its leash");
            std::thread::yield_now();
        }
    }
}
