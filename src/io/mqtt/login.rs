//! The secret that the gateway shows to the broker. It is read anew for each connection, and in no
//! message.

use std::path::Path;
use std::{fs, io};

use crate::config::Cloud;

/// The broker's password cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum PasswordError {
    #[error("the broker's password {path} cannot be read: {source}; check the path and its rights")]
    Unreadable { path: String, source: io::Error },
    #[error(
        "the credential {0} is not there; add LoadCredential={0}:/path to the unit, or set \
         password_file"
    )]
    NoCredential(String),
}

/// The broker's password, from the file or the systemd credential.
pub(super) fn password(cloud: &Cloud) -> Result<Option<String>, PasswordError> {
    let path = match (&cloud.password_file, &cloud.credential) {
        (Some(path), _) => path.clone(),
        (None, Some(name)) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(folder) => Path::new(&folder).join(name),
            None => return Err(PasswordError::NoCredential(name.clone())),
        },
        (None, None) => return Ok(None),
    };
    let text = fs::read_to_string(&path).map_err(|source| {
        let path = path.display().to_string();
        PasswordError::Unreadable { path, source }
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}
