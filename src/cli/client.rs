//! Asks the running daemon, over the control socket that the config names.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::config;
use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE, EXIT_PERMISSION, EXIT_STORAGE};
use crate::protocol::control::{Maintenance, REPLY_MAX_BYTES, Reply, Request, Status};

/// A daemon that does not answer this long after it should have is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, and takes from the reply what the request is answered with. Says on stderr what is
/// wrong and what to do, and gives the exit code.
pub(super) fn ask<T>(
    config_file: &Path,
    request: &Request,
    answer: impl FnOnce(Reply) -> Option<T>,
) -> Result<T, ExitCode> {
    ask_at(&socket_of(config_file)?, request, answer)
}

/// The same, for a command that asks often and knows the socket.
pub(super) fn ask_at<T>(
    socket: &Path,
    request: &Request,
    answer: impl FnOnce(Reply) -> Option<T>,
) -> Result<T, ExitCode> {
    let reply = converse(socket, request).map_err(|error| explain(socket, &error))?;
    let refused = match &reply {
        Reply::Error(why) => Some((why, EXIT_FAILURE)),
        Reply::Unknown(why) => Some((why, EXIT_USAGE)),
        Reply::Storage(why) => Some((why, EXIT_STORAGE)),
        Reply::Status(_)
        | Reply::Bus(_)
        | Reply::BusFailed(_)
        | Reply::StationTest(_)
        | Reply::LedgerRecords(_)
        | Reply::LedgerVerified(_)
        | Reply::Identity { .. }
        | Reply::Done(_)
        | Reply::Badge(_)
        | Reply::Readers(_)
        | Reply::Taps(_)
        | Reply::List(_)
        | Reply::Watching {} => None,
    };
    if let Some((why, code)) = refused {
        eprintln!("tapgate: {why}");
        return Err(ExitCode::from(code));
    }
    answer(reply).ok_or_else(out_of_step)
}

/// A file with errors still names the socket: the daemon runs on what it said before.
pub(crate) fn socket_of(config_file: &Path) -> Result<PathBuf, ExitCode> {
    let errors = match config::load(config_file) {
        Ok(config) => return Ok(config.control_socket),
        Err(errors) => errors,
    };
    match config::control_socket(config_file) {
        Ok(socket) => {
            let file = config_file.display();
            eprintln!("tapgate: the config has errors by now; run: tapgate check {file}");
            Ok(socket)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(explain(config_file, &error))
        }
        Err(_) => {
            eprintln!("{errors}");
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

/// Asks for a change and says what became of it.
pub(super) fn change(config_file: &Path, order: Maintenance) -> ExitCode {
    let request = Request::Maintenance { order };
    let done =
        ask(
            config_file,
            &request,
            |reply| {
                if let Reply::Done(what) = reply { Some(what) } else { None }
            },
        );
    match done {
        Ok(what) => {
            println!("{what}");
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// The whole status, of which a command shows a part.
pub(super) fn status(config_file: &Path) -> Result<Box<Status>, ExitCode> {
    ask(config_file, &Request::Status {}, |reply| {
        if let Reply::Status(status) = reply { Some(status) } else { None }
    })
}

/// Says on stderr why the daemon cannot be asked and what to do.
pub(crate) fn explain(socket: &Path, error: &std::io::Error) -> ExitCode {
    let (code, hint) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            (EXIT_UNAVAILABLE, "the daemon does not run; start it: systemctl start tapgate")
        }
        ErrorKind::PermissionDenied => {
            (EXIT_PERMISSION, "use sudo, or join the group: sudo adduser $USER tapgate")
        }
        _ => (EXIT_FAILURE, "look at: journalctl -u tapgate -n 50"),
    };
    eprintln!("tapgate: {}: {error}\n  {hint}", socket.display());
    ExitCode::from(code)
}

/// Prints what a command found. A reader that went away, as `| head` does, ends the command.
pub(super) fn print(text: &str) -> Result<(), ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| ExitCode::SUCCESS)
}

/// The same as JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), ExitCode> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        eprintln!("tapgate: {error}");
        ExitCode::from(EXIT_FAILURE)
    })?;
    print(&(text + "\n"))
}

/// An answer that is not one to the request.
pub(super) fn out_of_step() -> ExitCode {
    eprintln!("tapgate: the daemon answers something else; restart it, it may be an older version");
    ExitCode::from(EXIT_FAILURE)
}

/// One request, one answer.
pub(crate) fn converse(socket: &Path, request: &Request) -> std::io::Result<Reply> {
    let stream = send(socket, request)?;
    stream.set_read_timeout(Some(request.patience() + PATIENCE))?;
    let mut reply = Vec::new();
    BufReader::new(stream.take(REPLY_MAX_BYTES as u64)).read_until(b'\n', &mut reply)?;
    Ok(serde_json::from_slice(&reply)?)
}

/// Hands a request over; the answer can be read from what is returned.
pub(super) fn send(socket: &Path, request: &Request) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
}
