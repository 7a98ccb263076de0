//! Asks the running daemon, over the control socket that the config names.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::EXIT_UNAVAILABLE;
use crate::config;
use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE, EXIT_PERMISSION};
use crate::protocol::control::{REPLY_MAX_BYTES, Reply, Request};

/// A daemon that does not answer within this time is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks, or says on stderr why not and what to do, and gives the exit code.
pub(super) fn ask(config_file: &Path, request: &Request) -> Result<Reply, ExitCode> {
    let config = config::load(config_file).map_err(|errors| {
        eprintln!("{errors}");
        ExitCode::from(EXIT_CONFIG)
    })?;
    let socket = config.control_socket;
    let reply = converse(&socket, request).map_err(|error| {
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
    })?;
    match reply {
        Reply::Error(why) => {
            eprintln!("tapgate: {why}");
            Err(ExitCode::from(EXIT_FAILURE))
        }
        Reply::Status(_) | Reply::Done(_) => Ok(reply),
    }
}

fn converse(socket: &Path, request: &Request) -> std::io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = Vec::new();
    BufReader::new(stream.take(REPLY_MAX_BYTES as u64)).read_until(b'\n', &mut reply)?;
    Ok(serde_json::from_slice(&reply)?)
}
