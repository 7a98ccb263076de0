//! Tries the way to the broker step by step, for a technician: what works, what fails, what to do.
//!
//! Blocking, in a connection of its own beside the daemon's. MQTT 5 is tried first, only because
//! its answers say whether a subscription or a message was allowed; MQTT 3.1.1 is silent there.

pub(super) mod packet;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::{Serialize, Serializer};

use self::packet::{Answer, Version};
use super::Clock;
use super::line::explain_tls;
use super::login::{PasswordError, password};
use super::tls::client_config;
use crate::config::Cloud;
use crate::protocol::cloud::Topics;

/// For a TCP connection, and for each answer of the broker.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// As it must not be: [`Check::next`] says what to do.
    Failed,
    /// Not tried, or nobody can tell.
    Skipped,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name: `credentials`, `resolve`, `tcp`, `tls`, `connect`, `subscribe`, `publish`.
    pub step: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(serialize_with = "null_if_empty")]
    pub next: String,
}

fn null_if_empty<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(text) }
}

impl Check {
    /// A step that is as it should be.
    pub fn ok(step: &'static str, detail: impl Into<String>) -> Check {
        Check { step, outcome: Outcome::Ok, detail: detail.into(), next: String::new() }
    }

    /// A step that failed; what to do follows the first semicolon, as in all messages.
    pub fn failed(step: &'static str, message: impl Into<String>) -> Check {
        let message = message.into();
        let (detail, next) = message.split_once("; ").unwrap_or((&message, ""));
        Check { step, outcome: Outcome::Failed, detail: detail.into(), next: next.into() }
    }

    /// A step of which nobody can tell.
    pub fn skipped(step: &'static str, detail: impl Into<String>) -> Check {
        Check { outcome: Outcome::Skipped, ..Check::ok(step, detail) }
    }
}

/// Who asks: the broker closes an older connection of the same client id.
pub struct Caller<'a> {
    /// The gateway's id, for the topics.
    pub gateway_id: &'a str,
    /// The MQTT client id.
    pub client_id: &'a str,
}

/// Walks the way to the broker until a step fails, and tells of each step when it is done.
pub fn probe(
    cloud: &Cloud,
    caller: &Caller<'_>,
    clock: Arc<dyn Clock>,
    mut tell: impl FnMut(Check),
) {
    let walked = walk(cloud, caller, &clock, &mut tell);
    if let Err(failed) = walked {
        tell(failed);
    }
}

type Tell<'a> = &'a mut dyn FnMut(Check);

fn walk(
    cloud: &Cloud,
    caller: &Caller<'_>,
    clock: &Arc<dyn Clock>,
    tell: Tell<'_>,
) -> Result<(), Check> {
    let failed = |error: PasswordError| Check::failed("credentials", error.to_string());
    let login = packet::Login {
        client_id: caller.client_id,
        username: cloud.username.as_deref(),
        password: password(cloud).map_err(failed)?,
    };
    tell(Check::ok("credentials", login.describe()));
    let addresses = resolve(cloud)?;
    let listed: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    tell(Check::ok("resolve", format!("{} is {}", cloud.host, listed.join(", "))));
    let (mut stream, how) = connect(cloud, &addresses, clock, tell)?;
    let mut version = Version::Five;
    let mut answer = packet::connect(&mut *stream, version, &login);
    if answer.as_ref().map_or(true, Answer::is_unsupported_version) {
        let (again, _) = connect(cloud, &addresses, clock, &mut |_| {})?;
        (stream, version) = (again, Version::Three);
        answer = packet::connect(&mut *stream, version, &login);
    }
    let broker = cloud.endpoint();
    let answer = answer.map_err(|error| no_answer(&error, &broker))?;
    answer.check_connected(&broker).map_err(|message| Check::failed("connect", message))?;
    tell(Check::ok("connect", format!("as client {}, {version}{how}", caller.client_id)));
    permissions(&mut *stream, version, &Topics::new(caller.gateway_id), tell)
}

fn permissions(
    stream: &mut dyn Stream,
    version: Version,
    topics: &Topics,
    tell: Tell<'_>,
) -> Result<(), Check> {
    let filter = topics.subscription();
    let refused = |detail: String| {
        let next = format!("allow this user to read {filter}");
        Check::failed("subscribe", format!("{detail}; {next}"))
    };
    let code = packet::subscribe(stream, version, &filter)
        .map_err(|error| refused(format!("the broker ends the connection: {}", said(&error))))?;
    if code >= packet::FAILURE {
        return Err(refused(format!("the broker refuses {filter} (code 0x{code:02x})")));
    }
    tell(Check::ok("subscribe", filter.clone()));
    // A reply to a command that nobody sent: consumers of the contract ignore it.
    let topic = topics.reply();
    let writable = topic.strip_suffix("reply").unwrap_or(&topic);
    let refused =
        |detail: String| Check::failed("publish", format!("{detail}; allow to write {writable}#"));
    let reply = r#"{"id":"cloud-test","status":"done","code":null,"data":null}"#;
    let code = packet::publish(stream, version, &topic, reply)
        .map_err(|error| refused(format!("the broker ends the connection: {}", said(&error))))?;
    if code >= packet::FAILURE {
        return Err(refused(format!("the broker refuses {topic} (code 0x{code:02x})")));
    }
    tell(match version {
        Version::Five => Check::ok("publish", topic),
        Version::Three => Check::skipped(
            "publish",
            format!("{topic}: confirmed, but MQTT 3.1.1 does not say whether it was allowed"),
        ),
    });
    packet::disconnect(stream);
    Ok(())
}

/// Bytes to and from the broker, encrypted or not.
pub(super) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn resolve(cloud: &Cloud) -> Result<Vec<SocketAddr>, Check> {
    let failed = |error: String| {
        let next = "check [cloud] url and DNS (resolvectl status)";
        Check::failed("resolve", format!("{} is not found: {error}; {next}", cloud.host))
    };
    let found = (cloud.host.as_str(), cloud.port).to_socket_addrs();
    let found: Vec<SocketAddr> = found.map_err(|error| failed(error.to_string()))?.collect();
    if found.is_empty() { Err(failed("it has no address".into())) } else { Ok(found) }
}

/// TCP, and TLS where it is configured; what is to be said of the latter beside the former.
fn connect(
    cloud: &Cloud,
    addresses: &[SocketAddr],
    clock: &Arc<dyn Clock>,
    tell: Tell<'_>,
) -> Result<(Box<dyn Stream>, &'static str), Check> {
    let tcp = connect_tcp(cloud, addresses)?;
    tell(Check::ok("tcp", tcp.peer_addr().map_or_else(|_| cloud.endpoint(), |a| a.to_string())));
    if !cloud.tls {
        tell(Check::skipped("tls", "mqtt:// is not encrypted"));
        return Ok((Box::new(tcp), ", in plain text"));
    }
    let setup = |error: String| Check::failed("tls", error);
    let config = client_config(cloud, clock.clone()).map_err(|error| setup(error.to_string()))?;
    let name = ServerName::try_from(cloud.host.clone())
        .map_err(|_| setup(format!("{} is no name for TLS; mend [cloud] url", cloud.host)))?;
    let client =
        ClientConnection::new(config, name).map_err(|error| setup(format!("TLS: {error}")))?;
    let mut tls = StreamOwned::new(client, tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).map_err(|error| {
            let broker = cloud.endpoint();
            setup(explain_tls(&error, &broker).unwrap_or_else(|| {
                let error = said(&error);
                format!("{broker} broke off TLS: {error}; is this the broker's TLS port?")
            }))
        })?;
    }
    let version = tls.conn.protocol_version().and_then(|version| version.as_str());
    let trusted = cloud
        .ca_file
        .as_ref()
        .map_or("the system's authorities".into(), |path| format!("{}", path.display()));
    let client = if cloud.client_cert.is_some() { ", with a client certificate" } else { "" };
    let version = version.unwrap_or("TLS");
    tell(Check::ok("tls", format!("{version}, certificate trusted by {trusted}{client}")));
    Ok((Box::new(tls), ""))
}

fn connect_tcp(cloud: &Cloud, addresses: &[SocketAddr]) -> Result<TcpStream, Check> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let connected = TcpStream::connect_timeout(address, PATIENCE).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    let next = "is the broker running, is this its port, does a firewall block it?";
    Err(Check::failed("tcp", format!("{} cannot be reached: {last}; {next}", cloud.endpoint())))
}

/// With TLS 1.3 a broker refuses a client certificate only after the handshake.
fn no_answer(error: &io::Error, broker: &str) -> Check {
    match explain_tls(error, broker) {
        Some(why) => Check::failed("tls", why),
        None => {
            let error = said(error);
            let why = format!("{broker} does not answer CONNECT: {error}; is it an MQTT port?");
            Check::failed("connect", why)
        }
    }
}

/// An error as a technician reads it: a timeout of a socket shows as "try again".
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing comes within {} s", PATIENCE.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "it closes the connection".into(),
        _ => error.to_string(),
    }
}
