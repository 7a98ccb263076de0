//! `[cloud]`: the broker, its credentials, and the keys that sign what comes down.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;

use super::Cloud;
use super::document::{At, Document, Section};
use super::values;

/// A file that the config names.
pub(super) struct NamedFile {
    path: At<PathBuf>,
    /// Whether nobody else may read it.
    secret: bool,
}

/// `[cloud]` and the files that it names; nothing of it is opened.
pub(super) fn read(root: &Section<'_>, files: &mut Vec<NamedFile>) -> Option<Cloud> {
    let section = root.table("cloud")?;
    section.require("url", "\"mqtts://mqtt.example.com:8883\"");
    let url = section.parsed("url", "mqtts://mqtt.example.com:8883", parse_url);
    let allow_plaintext = section.flag("allow_plaintext").is_some_and(|at| at.value);
    if let Some(url) = &url {
        check_plaintext(section.document, url, allow_plaintext);
    }
    let username = section.text("username").map(|at| at.value.to_owned());
    let credential = section.parsed("credential", "mqtt-password", credential_name);
    let mut file = |key, secret| {
        let path = section.path(key)?;
        files.push(NamedFile { path: path.clone(), secret });
        Some(path)
    };
    let password_file = file("password_file", true);
    let ca_file = file("ca_file", false).map(|at| at.value);
    let cert = file("client_cert_file", false);
    let key = file("client_key_file", true);
    check_password(&section, password_file.is_some());
    check_pair(&section, "client_cert_file", "client_key_file");
    let cloud = url.map(|url| Cloud {
        host: url.value.host,
        port: url.value.port,
        tls: url.value.tls,
        username,
        password_file: password_file.map(|at| at.value),
        credential: credential.map(|at| at.value),
        ca_file,
        client_cert: cert.zip(key).map(|(cert, key)| (cert.value, key.value)),
        trusted_keys: trusted_keys(&section),
        report_unknown_uids: section.flag("report_unknown_uids").is_some_and(|at| at.value),
    });
    section.finish();
    cloud
}

/// Each named file exists, and no secret lies open.
pub(super) fn check_files(document: &Document<'_>, files: &[NamedFile]) {
    for file in files {
        if let Some((message, help)) = fault_of(file) {
            document.error(&file.path.place, message, help);
        }
    }
}

fn fault_of(file: &NamedFile) -> Option<(String, String)> {
    /// Read, write or execute for everybody.
    const OTHERS: u32 = 0o007;
    let path = file.path.value.display();
    let metadata = match fs::metadata(&file.path.value) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Some((format!("`{path}`: {error}"), "run it with sudo".into()));
        }
        Err(error) => {
            let help = format!("create {path} or mend the path");
            return Some((format!("`{path}`: {error}"), help));
        }
    };
    if !metadata.is_file() {
        return Some((format!("`{path}` is no file"), "name the file itself".into()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if file.secret && mode & OTHERS != 0 {
        let message = format!("`{path}` holds a secret and others can read it (mode {mode:04o})");
        return Some((message, format!("chmod 0640 {path} && chgrp tapgate {path}")));
    }
    None
}

struct Url {
    host: String,
    port: u16,
    tls: bool,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let (scheme, rest) = text.split_once("://").ok_or("the url has no scheme: mqtts:// is TLS")?;
    let tls = match scheme {
        "mqtts" => true,
        "mqtt" => false,
        other => return Err(format!("`{other}://` is not supported, mqtts:// and mqtt:// are")),
    };
    if rest.contains('@') {
        return Err("a user in the url would show in logs: use username and password_file".into());
    }
    let default_port = if tls { 8883 } else { 1883 };
    let (host, port) = values::endpoint(rest.trim_end_matches('/'), default_port)?;
    Ok(Url { host, port, tls })
}

/// A password or an allowlist in plain text never leaves the machine unnoticed.
fn check_plaintext(document: &Document<'_>, url: &At<Url>, allowed: bool) {
    let Url { host, tls, .. } = &url.value;
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if *tls || loopback {
        return;
    }
    let message = format!("mqtt:// to {host} is neither encrypted nor authenticated");
    if allowed {
        document.warn(&url.place, message, "use mqtts:// as soon as the broker offers TLS");
    } else {
        let help = "write mqtts://, or allow_plaintext = true on a line that you trust";
        document.error(&url.place, message, help);
    }
}

fn credential_name(text: &str) -> Result<String, String> {
    // systemd.exec(5): the name of a credential is a file name.
    if crate::core::ids::is_opaque_id(text) && !text.starts_with('.') {
        return Ok(text.into());
    }
    Err(format!("`{text}` is no credential name as in LoadCredential=NAME:PATH"))
}

fn check_password(section: &Section<'_>, has_file: bool) {
    let credential = section.has("credential");
    if has_file && credential {
        let message = "password_file and credential are two sources of one password";
        section.document.error(&section.place, message, "remove one of them");
    }
    if (has_file || credential) && !section.has("username") {
        // MQTT 3.1.1, 3.1.2.9: no password without a user name.
        section.require("username", "\"the gateway's id\"");
    }
}

fn check_pair(section: &Section<'_>, one: &'static str, other: &'static str) {
    if section.has(one) {
        section.require(other, "\"/etc/tapgate/...\"");
    }
    if section.has(other) {
        section.require(one, "\"/etc/tapgate/...\"");
    }
}

fn trusted_keys(section: &Section<'_>) -> Vec<[u8; 32]> {
    let texts = section.texts("trusted_keys");
    let given = texts.as_ref().is_some_and(|texts| !texts.value.is_empty());
    let mut keys: Vec<[u8; 32]> = Vec::new();
    for text in texts.into_iter().flat_map(|texts| texts.value) {
        let bytes = URL_SAFE_NO_PAD.decode(text.value).ok();
        match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(key) if !keys.contains(&key) => {
                if is_weak(&key) {
                    let message = "is no key that can sign anything: nothing is taken on its word";
                    let help = "copy the cloud's public key once more";
                    section.document.warn(&text.place, message, help);
                }
                keys.push(key);
            }
            Some(_) => section.document.error(&text.place, "the key stands twice", "remove one"),
            None => section.document.error(
                &text.place,
                "is no Ed25519 public key",
                "write its 32 bytes in base64url without padding: 43 characters",
            ),
        }
    }
    if !given {
        let message = "no trusted_keys: an allowlist is accepted from whoever controls the broker";
        section.document.warn(&section.place, message, "add the cloud's public key");
    }
    keys
}

/// Whether the bytes are no point of the curve, or one for which anybody can sign.
fn is_weak(key: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(key).map_or(true, |key| key.is_weak())
}
