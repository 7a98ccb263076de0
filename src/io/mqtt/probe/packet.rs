//! The few MQTT packets that a probe needs, in 3.1.1 and 5 alike: they differ in empty properties.

use std::fmt;
use std::io;

/// From here on a code says no (MQTT 5, 2.4).
pub(in crate::io::mqtt) const FAILURE: u8 = 0x80;
/// Largest answer that is read; a probe asks for nothing long, but a retained list may come.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Messages that may come before the answer that is waited for: what is retained for a gateway.
const MAX_OTHER_PACKETS: usize = 16;
/// MQTT, 3.1.2.10: longer than a probe takes.
const KEEP_ALIVE_S: u16 = 60;
const CLEAN: u8 = 0x02;
const WITH_PASSWORD: u8 = 0x40;
const WITH_USERNAME: u8 = 0x80;

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io::mqtt) enum Version {
    Three,
    Five,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Three => "MQTT 3.1.1",
            Version::Five => "MQTT 5",
        })
    }
}

impl Version {
    fn level(self) -> u8 {
        match self {
            Version::Three => 4,
            Version::Five => 5,
        }
    }

    fn no_properties(self) -> &'static [u8] {
        match self {
            Version::Three => &[],
            Version::Five => &[0],
        }
    }
}

/// Who connects.
pub(in crate::io::mqtt) struct Login<'a> {
    pub(in crate::io::mqtt) client_id: &'a str,
    pub(in crate::io::mqtt) username: Option<&'a str>,
    pub(in crate::io::mqtt) password: Option<String>,
}

impl Login<'_> {
    pub(in crate::io::mqtt) fn describe(&self) -> String {
        match (self.username, &self.password) {
            (None, _) => "no user name".into(),
            (Some(user), None) => format!("user {user}, no password"),
            (Some(user), Some(_)) => format!("user {user}, with a password"),
        }
    }
}

/// The answer to CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io::mqtt) struct Answer {
    version: Version,
    code: u8,
}

impl Answer {
    pub(in crate::io::mqtt) fn is_unsupported_version(&self) -> bool {
        self.version == Version::Five && matches!(self.code, 0x01 | 0x84)
    }

    /// Why the broker refuses; what to do follows the semicolon.
    pub(in crate::io::mqtt) fn check_connected(self, broker: &str) -> Result<(), String> {
        // MQTT 3.1.1, table 3.1; MQTT 5, table 3-1.
        let why = match self.code {
            0 => return Ok(()),
            0x01 | 0x84 => "the protocol version; it must accept MQTT 3.1.1",
            0x02 | 0x85 => {
                "the client id; allow it, or stop tapgate and test again with the gateway's own"
            }
            0x04 | 0x86 => "the user name or password; check them in [cloud]",
            0x05 | 0x87 => "the user; check username, password and the broker's access rules",
            0x8a => "the gateway, it is banned; ask the broker's operator",
            0x03 | 0x88 | 0x89 | 0x97 | 0x9f => "more clients for now; it is busy, try again",
            _ => "the gateway; look into the broker's log",
        };
        let (what, next) = why.split_once("; ").unwrap_or((why, ""));
        Err(format!("{broker} refuses {what} (code 0x{:02x}); {next}", self.code))
    }
}

type Wire<'a> = &'a mut dyn super::Stream;

pub(in crate::io::mqtt) fn connect(
    wire: Wire<'_>,
    version: Version,
    login: &Login<'_>,
) -> io::Result<Answer> {
    let mut body = string("MQTT");
    let username = login.username.map_or(0, |_| WITH_USERNAME);
    let password = login.password.as_ref().map_or(0, |_| WITH_PASSWORD);
    body.extend([version.level(), CLEAN | username | password]);
    body.extend(KEEP_ALIVE_S.to_be_bytes());
    body.extend(version.no_properties());
    body.extend(string(login.client_id));
    for text in [login.username, login.password.as_deref()].into_iter().flatten() {
        body.extend(string(text));
    }
    let answer = ask(wire, 0x10, &body, 0x20)?;
    Ok(Answer { version, code: answer.get(1).copied().unwrap_or(FAILURE) })
}

/// The code for the filter.
pub(in crate::io::mqtt) fn subscribe(
    wire: Wire<'_>,
    version: Version,
    filter: &str,
) -> io::Result<u8> {
    let mut body = vec![0, 1];
    body.extend(version.no_properties());
    body.extend(string(filter));
    body.push(1);
    let answer = ask(wire, 0x82, &body, 0x90)?;
    Ok(answer.last().copied().unwrap_or(FAILURE))
}

/// The code for the message, QoS 1; MQTT 3.1.1 has none and confirms what it drops.
pub(in crate::io::mqtt) fn publish(
    wire: Wire<'_>,
    version: Version,
    topic: &str,
    payload: &str,
) -> io::Result<u8> {
    let mut body = string(topic);
    body.extend([0, 2]);
    body.extend(version.no_properties());
    body.extend(payload.as_bytes());
    let answer = ask(wire, 0x32, &body, 0x40)?;
    Ok(answer.get(2).copied().unwrap_or(0))
}

pub(in crate::io::mqtt) fn disconnect(wire: Wire<'_>) {
    // The probe is over: a broker that is gone already has no need of it.
    wire.write_all(&[0xe0, 0]).and_then(|()| wire.flush()).ok();
}

/// Sends a packet and waits for the answer of a type; what else comes is skipped.
fn ask(wire: Wire<'_>, header: u8, body: &[u8], wanted: u8) -> io::Result<Vec<u8>> {
    let mut packet = vec![header];
    packet.extend(length(body.len()));
    packet.extend(body);
    wire.write_all(&packet)?;
    wire.flush()?;
    for _ in 0..MAX_OTHER_PACKETS {
        let (header, body) = read(wire)?;
        if header & 0xf0 == wanted {
            return Ok(body);
        }
        if header & 0xf0 == 0xe0 {
            let code = body.first().copied().unwrap_or(0);
            return Err(io::Error::other(format!("it says DISCONNECT (code 0x{code:02x})")));
        }
    }
    Err(io::Error::other("it sends something else"))
}

fn read(wire: Wire<'_>) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    wire.read_exact(&mut byte)?;
    let header = byte[0];
    let mut length = 0;
    // MQTT 3.1.1, 2.2.3: at most four digits of seven bits.
    for shift in [0, 7, 14, 21] {
        wire.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if length > MAX_ANSWER_BYTES {
        return Err(io::Error::other("its answer is no MQTT"));
    }
    let mut body = vec![0; length];
    wire.read_exact(&mut body)?;
    Ok((header, body))
}

fn length(mut bytes: usize) -> Vec<u8> {
    let mut digits = Vec::new();
    loop {
        let digit = (bytes & 0x7f) as u8;
        bytes >>= 7;
        if bytes == 0 {
            digits.push(digit);
            return digits;
        }
        digits.push(digit | 0x80);
    }
}

fn string(text: &str) -> Vec<u8> {
    // Longer than any id, topic or password; what is cut would be refused by the broker anyway.
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    let mut string = (bytes.len() as u16).to_be_bytes().to_vec();
    string.extend(bytes);
    string
}
