//! The floor: the least that a tap can cost on this machine.
//!
//! A process with one thread and blocking calls only: waits for a card, asks for its UID, one
//! SELECT in the same allowlist file, one row of 400 bytes in a WAL database with
//! `synchronous=FULL`, one Modbus TCP coil write. No rules, no meter, no recovery, no verification.
//! A second one also reads the meter's register before the commit, as the ledger's rules demand.

use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pcsc::{Card, Disposition, Protocols, ReaderState, Scope, ShareMode, State};
use rusqlite::{Connection, OpenFlags, params};
use tapgate::demo::pcscd::SOCKET_VARIABLE;

/// What the process is to do; its presence makes the bench be the floor.
const TASK_VARIABLE: &str = "TAPGATE_BENCH_FLOOR";
/// Bytes of a row: what a session's start takes in the ledger.
const ROW: usize = 400;
/// Longest wait for a card before it looks whether its parent still lives.
const SLICE: Duration = Duration::from_secs(1);
const READY: &str = "ready";
/// Read two input registers at 72 of unit 11; write coil 0 of unit 1: on.
const READ_REGISTER: [u8; 12] = [0, 1, 0, 0, 0, 6, 11, 4, 0, 72, 0, 2];
const CLOSE_RELAY: [u8; 12] = [0, 2, 0, 0, 0, 6, 1, 5, 0, 0, 0xFF, 0];

/// Where the floor finds its parts.
pub(crate) struct Task {
    pub(crate) folder: PathBuf,
    pub(crate) allowlist: PathBuf,
    pub(crate) room: SocketAddr,
    /// As pcscd lists it; also the name of its database.
    pub(crate) reader: String,
    pub(crate) with_register: bool,
}

impl Task {
    pub(crate) fn from_env() -> Option<Task> {
        let task = std::env::var(TASK_VARIABLE).ok()?;
        let mut parts = task.split('\n');
        Some(Task {
            folder: parts.next()?.into(),
            allowlist: parts.next()?.into(),
            room: parts.next()?.parse().ok()?,
            reader: parts.next()?.into(),
            with_register: parts.next()?.parse().ok()?,
        })
    }
}

/// The running floor, killed when dropped.
pub(crate) struct Floor(Child);

impl Floor {
    /// Starts it in a process of its own: libpcsclite reads its socket's name once per process.
    pub(crate) fn start(task: &Task, pcscd: &Path) -> anyhow::Result<Floor> {
        let Task { folder, allowlist, room, reader, with_register } = task;
        let (folder, allowlist) = (folder.display(), allowlist.display());
        let task = format!("{folder}\n{allowlist}\n{room}\n{reader}\n{with_register}");
        let mut child = Command::new(std::env::current_exe()?)
            .env(TASK_VARIABLE, task)
            .env(SOCKET_VARIABLE, pcscd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().context("its output is piped")?;
        let floor = Floor(child);
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(line.trim() == READY, "the floor does not start");
        Ok(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // What fails here failed because the process is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process itself.
pub(crate) fn run(task: &Task) -> anyhow::Result<()> {
    let parent = std::os::unix::process::parent_id();
    let mut parts = Parts::open(task)?;
    let context = pcsc::Context::establish(Scope::User)?;
    let name = CString::new(task.reader.clone())?;
    let mut reader = [ReaderState::new(name.clone(), State::UNAWARE)];
    context.get_status_change(SLICE, &mut reader)?;
    println!("{READY}");
    while std::os::unix::process::parent_id() == parent {
        reader[0].sync_current_state();
        match context.get_status_change(SLICE, &mut reader) {
            Err(pcsc::Error::Timeout) => continue,
            outcome => outcome?,
        }
        let state = reader[0].event_state();
        if state.contains(State::PRESENT) && !reader[0].current_state().contains(State::PRESENT) {
            let card = context.connect(&name, ShareMode::Shared, Protocols::ANY)?;
            parts.serve(&card)?;
            card.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error)?;
        }
    }
    Ok(())
}

/// Everything but the reader.
struct Parts {
    allowlist: Connection,
    ledger: Connection,
    bus: TcpStream,
    with_register: bool,
}

impl Parts {
    fn open(task: &Task) -> anyhow::Result<Parts> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let allowlist = Connection::open_with_flags(&task.allowlist, flags)?;
        let ledger = Connection::open(task.folder.join(&task.reader))?;
        ledger.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        ledger.pragma_update(None, "journal_mode", "WAL")?;
        ledger.pragma_update(None, "synchronous", "FULL")?;
        ledger.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")?;
        let bus = TcpStream::connect(task.room)?;
        bus.set_nodelay(true)?;
        Ok(Parts { allowlist, ledger, bus, with_register: task.with_register })
    }

    fn serve(&mut self, card: &Card) -> anyhow::Result<()> {
        let mut answer = [0; 258];
        let answer = card.transmit(&[0xFF, 0xCA, 0, 0, 0], &mut answer)?;
        let uid = answer.strip_suffix(&[0x90, 0x00]).context("the card tells its UID")?;
        let mut bytes: Vec<u8> = self
            .allowlist
            .prepare_cached(
                "SELECT entry.canonical FROM uid CROSS JOIN entry ON entry.ordinal = uid.ordinal
                 WHERE uid.uid = ?1",
            )?
            .query_row([uid], |row| row.get(0))?;
        bytes.resize(ROW, b' ');
        if self.with_register {
            self.ask(&READ_REGISTER, &mut [0; 13])?;
        }
        self.ledger
            .prepare_cached("INSERT INTO row (bytes) VALUES (?1)")?
            .execute(params![bytes])?;
        self.ask(&CLOSE_RELAY, &mut [0; 12])
    }

    fn ask(&mut self, request: &[u8], answer: &mut [u8]) -> anyhow::Result<()> {
        self.bus.write_all(request)?;
        Ok(self.bus.read_exact(answer)?)
    }
}
