//! `tapgate identity`: who this gateway is to its cloud.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::{EXIT_UNAVAILABLE, client};
use crate::config;
use crate::daemon::{EXIT_CONFIG, EXIT_FAILURE, EXIT_PERMISSION, EXIT_STORAGE};
use crate::io::identity::Identity;
use crate::protocol::control::{Reply, Request};

/// Prints the gateway's id and public key: from the daemon, else from the key's file.
pub(super) fn run(config_file: &Path, json: bool) -> ExitCode {
    let config = match config::load(config_file) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let public_key = match client::converse(&config.control_socket, &Request::Identity {}) {
        Ok(Reply::Identity { public_key, .. }) => Ok(public_key),
        Ok(_) => {
            eprintln!("tapgate: the daemon answers something else; restart it");
            return ExitCode::from(EXIT_FAILURE);
        }
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            read(&Identity::beside(&config.storage.path))
        }
        Err(error) => Err(client::explain(&config.control_socket, &error)),
    };
    match public_key {
        Ok(public_key) if json => {
            println!("{:#}", json!({"gateway": config.gateway_id, "public_key": public_key}));
            ExitCode::SUCCESS
        }
        Ok(public_key) => {
            println!("gateway     {}\npublic key  {public_key}", config.gateway_id);
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn read(path: &Path) -> Result<String, ExitCode> {
    let file = path.display();
    Identity::read(path).map(|identity| identity.public_key()).map_err(|error| {
        let (code, hint) = match error.kind() {
            ErrorKind::NotFound => {
                (EXIT_UNAVAILABLE, "the key is made at the first start: systemctl start tapgate")
            }
            ErrorKind::PermissionDenied => (EXIT_PERMISSION, "use sudo, or start the daemon"),
            _ => (EXIT_STORAGE, "start the daemon, which makes a new one"),
        };
        eprintln!("tapgate: {file}: {error}\n  {hint}");
        ExitCode::from(code)
    })
}
