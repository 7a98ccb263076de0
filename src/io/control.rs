//! The control socket: takes requests of commands in, hands them to the event loop.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::io::feed::{Feed, Watcher};
use crate::protocol::control::{REQUEST_MAX_BYTES, Reply, Request};

/// Commands at once; a ninth waits in the listener's backlog.
const CONNECTIONS: usize = 8;
/// A command that neither asks nor listens for this long is cut off.
const PATIENCE: Duration = Duration::from_secs(5);
/// A command writes its request at once; who does not is no command and gives its place up.
const REQUEST_PATIENCE: Duration = Duration::from_secs(1);
/// The group that may give commands.
const GROUP: &str = "tapgate";

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What was asked.
    pub request: Request,
    /// Who asked, for the journal.
    pub peer: Peer,
    /// Dropping it tells the command that the daemon is busy.
    pub reply: oneshot::Sender<Reply>,
}

/// The process at the other end of the control socket, as the kernel knows it (SO_PEERCRED).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: Option<u32>,
    /// Its process id.
    pub pid: Option<i32>,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |number: Option<i64>| number.map_or("?".into(), |number| number.to_string());
        write!(
            f,
            "user {} process {}",
            shown(self.uid.map(i64::from)),
            shown(self.pid.map(i64::from))
        )
    }
}

impl From<&UnixStream> for Peer {
    fn from(stream: &UnixStream) -> Peer {
        let known = stream.peer_cred().ok();
        Peer { uid: known.map(|peer| peer.uid()), pid: known.and_then(|peer| peer.pid()) }
    }
}

/// Why the control socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("control socket {path}: {source}; check [control] socket and the folder's permissions")]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else lies there.
    #[error(
        "control socket {0}: something that is no socket lies there; remove it or change [control] socket"
    )]
    NotASocket(PathBuf),
    /// Another daemon serves it.
    #[error("control socket {0}: another tapgate answers there; stop it first")]
    InUse(PathBuf),
}

/// Serves the socket until the daemon ends; removes it then.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Control {
    /// Opens the socket, for the group `tapgate` where it exists, else for the owner alone.
    pub async fn open(
        path: &Path,
        asked: mpsc::Sender<Asked>,
        feed: Feed,
    ) -> Result<Control, ControlError> {
        let failed = |source| ControlError::Bind { path: path.into(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        clear_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = if give_to_group(path) { 0o660 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Control { path: path.into(), task: tokio::spawn(serve(listener, asked, feed)) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what a killed daemon left; refuses to take over from a living one.
async fn clear_stale(path: &Path) -> Result<(), ControlError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotASocket(path.into()));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ControlError::InUse(path.into()));
    }
    std::fs::remove_file(path).map_err(|source| ControlError::Bind { path: path.into(), source })
}

fn give_to_group(path: &Path) -> bool {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(GROUP)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    // The unit's sandbox refuses chown; there the group is the process's own already.
    let has = |gid| std::fs::metadata(path).is_ok_and(|socket| socket.gid() == gid);
    gid.is_some_and(|gid| has(gid) || std::os::unix::fs::chown(path, None, Some(gid)).is_ok())
}

async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>, feed: Feed) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (asked, watcher) = (asked.clone(), feed.watcher());
                // A command that hung up is gone; its request has its own end.
                tokio::spawn(async move { drop(answer(stream, asked, watcher, permit).await) });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept commands");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    asked: mpsc::Sender<Asked>,
    watcher: Watcher,
    permit: OwnedSemaphorePermit,
) -> std::io::Result<()> {
    let peer = Peer::from(&stream);
    let (reading, mut writing) = stream.into_split();
    let mut line = Vec::new();
    let bound = REQUEST_MAX_BYTES as u64 + 1;
    let mut request = BufReader::new(reading.take(bound));
    tokio::time::timeout(REQUEST_PATIENCE, request.read_until(b'\n', &mut line)).await??;
    let reply = if line.len() > REQUEST_MAX_BYTES {
        Reply::Error(format!("the request is longer than {REQUEST_MAX_BYTES} bytes"))
    } else {
        match serde_json::from_slice(&line) {
            Ok(Request::Watch {}) => {
                // Who watches stays: it must not take a command's place.
                drop((permit, asked));
                return watcher.follow(request.into_inner().into_inner(), writing).await;
            }
            Ok(request) => ask(request, peer, asked).await,
            Err(error) => Reply::Error(format!(
                "the daemon does not understand the request ({error}); \
                 are command and daemon of the same version?"
            )),
        }
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    tokio::time::timeout(PATIENCE, writing.write_all(&text)).await?
}

async fn ask(request: Request, peer: Peer, asked: mpsc::Sender<Asked>) -> Reply {
    let patience = request.patience();
    let busy = || Reply::Error("the daemon is busy or stopping; try again".into());
    let (reply, answer) = oneshot::channel();
    let sent = tokio::time::timeout(PATIENCE, asked.send(Asked { request, peer, reply })).await;
    if !matches!(sent, Ok(Ok(()))) {
        return busy();
    }
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) | Err(_) => busy(),
    }
}
