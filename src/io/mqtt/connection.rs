//! One MQTT connection: its options, its event loop, and what its errors mean.
//!
//! Every connection has a client and an event loop of its own. rumqttc's event loop keeps what was
//! not confirmed, sends some of it again and loses the rest; since all that matters lies in the
//! ledger, it is thrown away with the connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions,
    NetworkOptions, Outgoing, Packet, QoS, StateError, TlsConfiguration, TlsError, Transport,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::tls::{TlsSetupError, client_config};
use super::{Clock, Timing};
use crate::config::Cloud;
use crate::protocol::cloud::{MAX_PAYLOAD_BYTES, Offline, Topics};

/// Largest MQTT packet in either direction. What comes down is refused above 64 KiB; the rest is
/// room for mistakes: MQTT 3.1.1 can refuse a packet only by ending the connection, and a retained
/// one would end each one anew. rumqttc reads up to ten of them at once.
const MAX_PACKET_BYTES: usize = 1536 * 1024;
/// Requests that rumqttc takes without waiting; more than are ever unconfirmed.
const REQUESTS: usize = 2 * super::session::MAX_UNCONFIRMED;
/// Packet ids: far more than are ever unconfirmed, so that none comes round while in use.
const PACKET_IDS: u16 = 256;
/// How late the answer to a ping may come on a line that is fine.
const ANSWER: Duration = Duration::from_secs(5);
/// Packets that wait for the session: as many as rumqttc reads at once.
const PACKETS: usize = 8;

/// A connection cannot be attempted or did not come up.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConnectError {
    #[error("the broker's password {path} cannot be read: {source}; check the path and its rights")]
    Password { path: String, source: io::Error },
    #[error(
        "the credential {0} is not there; add LoadCredential={0}:/path to the unit, or set \
         password_file"
    )]
    Credential(String),
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    #[error("{0}")]
    Refused(String),
}

/// What identifies a connection.
pub(super) struct Identity<'a> {
    pub(super) gateway_id: &'a str,
    pub(super) topics: &'a Topics,
    pub(super) conn: u64,
}

/// A connection that is not yet up: its first poll connects.
pub(super) fn prepare(
    cloud: &Cloud,
    identity: &Identity<'_>,
    clock: Arc<dyn Clock>,
    timing: &Timing,
) -> Result<(AsyncClient, EventLoop), ConnectError> {
    let mut options = MqttOptions::new(identity.gateway_id, host(cloud), cloud.port);
    let will = serde_json::to_vec(&Offline::new(identity.conn)).expect("a will is plain JSON");
    options
        .set_clean_session(true)
        .set_keep_alive(timing.keep_alive)
        .set_inflight(PACKET_IDS)
        .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES)
        .set_last_will(LastWill::new(identity.topics.state(), will, QoS::AtLeastOnce, true));
    if let Some(password) = password(cloud)? {
        options.set_credentials(cloud.username.clone().unwrap_or_default(), password);
    } else if let Some(username) = &cloud.username {
        options.set_credentials(username, "");
    }
    if cloud.tls {
        let config = TlsConfiguration::Rustls(client_config(cloud, clock)?);
        options.set_transport(Transport::tls_with_config(config));
    }
    let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(timing.network.as_secs().max(1));
    network.set_tcp_nodelay(true);
    eventloop.set_network_options(network);
    Ok((client, eventloop))
}

/// rumqttc joins host and port with a colon, and names the host to TLS as it is.
fn host(cloud: &Cloud) -> String {
    let bare_ipv6 = cloud.host.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_ipv6 && !cloud.tls { format!("[{}]", cloud.host) } else { cloud.host.clone() }
}

/// The broker's password, from the file or the systemd credential.
pub(super) fn password(cloud: &Cloud) -> Result<Option<String>, ConnectError> {
    let path = match (&cloud.password_file, &cloud.credential) {
        (Some(path), _) => path.clone(),
        (None, Some(name)) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(folder) => Path::new(&folder).join(name),
            None => return Err(ConnectError::Credential(name.clone())),
        },
        (None, None) => return Ok(None),
    };
    let text = fs::read_to_string(&path)
        .map_err(|source| ConnectError::Password { path: path.display().to_string(), source })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// The broker closed it although the line was fine, as it does when another client comes with
    /// the same id.
    pub(super) closed_by_broker: bool,
    /// A packet came that is too large to be read.
    pub(super) oversized: bool,
}

impl From<String> for Lost {
    fn from(reason: String) -> Lost {
        Lost { reason, closed_by_broker: false, oversized: false }
    }
}

/// Polls a connection until it ends, and says why it did. Nothing else may poll it: rumqttc's poll
/// is not cancel-safe.
pub(super) async fn pump(
    mut eventloop: EventLoop,
    packets: mpsc::Sender<Event>,
    timing: Timing,
    broker: String,
) -> Lost {
    let Timing { silence, keep_alive, .. } = timing;
    let mut heard = Instant::now();
    loop {
        // Answers to pings show that both directions work. rumqttc notices most silences itself,
        // but a write that blocks keeps it from looking.
        let event = match timeout_at(heard + silence, eventloop.poll()).await {
            Ok(Ok(event)) => without_excess(event),
            Ok(Err(error)) => {
                // After a silence the broker closes too, and is right to.
                let fine = heard.elapsed() <= keep_alive + ANSWER;
                let closed_by_broker = fine && is_close(&error);
                let (reason, oversized) = (explain(&error, &broker), is_oversized(&error));
                return Lost { reason, closed_by_broker, oversized };
            }
            Err(_) => {
                return format!("{broker} has been silent for {} s", silence.as_secs()).into();
            }
        };
        if event == Event::Incoming(Packet::PingResp) {
            heard = Instant::now();
        }
        // Polling on would connect anew.
        let last = event == Event::Outgoing(Outgoing::Disconnect);
        if packets.send(event).await.is_err() || last {
            return Lost::from("disconnected".to_owned());
        }
    }
}

/// A payload beyond the contract's limit is judged by its length alone: the rest of it need not
/// wait in memory.
fn without_excess(event: Event) -> Event {
    match event {
        Event::Incoming(Packet::Publish(mut publish))
            if publish.payload.len() > MAX_PAYLOAD_BYTES + 1 =>
        {
            publish.payload = publish.payload[..=MAX_PAYLOAD_BYTES].to_vec().into();
            Event::Incoming(Packet::Publish(publish))
        }
        event => event,
    }
}

fn is_oversized(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(StateError::Deserialization(error)) = error else {
        return false;
    };
    matches!(error, rumqttc::Error::PayloadSizeLimitExceeded(_))
}

/// The other side closed the connection: MQTT 3.1.1 has no word for why.
fn is_close(error: &ConnectionError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error)),
        ) => {
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        // rumqttc's errors, not ours: whatever else there is, it is no close.
        _ => false,
    }
}

/// A channel for the packets of one connection.
pub(super) fn packet_channel() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(PACKETS)
}

/// Whether the broker may have seen this attempt: then its last will may still come, and the
/// connection's number is spent.
pub(super) fn may_have_connected(error: &ConnectionError) -> bool {
    !matches!(
        error,
        ConnectionError::Io(_) | ConnectionError::Tls(_) | ConnectionError::ConnectionRefused(_)
    )
}

/// What an error means to a technician.
pub(super) fn explain(error: &ConnectionError, broker: &str) -> String {
    match error {
        ConnectionError::Io(error) => {
            format!("{broker} cannot be reached: {error}; check [cloud] url, DNS and the firewall")
        }
        ConnectionError::NetworkTimeout => {
            format!("{broker} does not answer; check the network and the firewall")
        }
        ConnectionError::FlushTimeout => format!("{broker} takes no more data; is the line down?"),
        ConnectionError::ConnectionRefused(code) => refusal(*code, broker),
        ConnectionError::Tls(TlsError::Io(error)) => {
            explain_tls(error, broker).unwrap_or_else(|| {
                format!("{broker} broke off TLS: {error}; is this the broker's TLS port?")
            })
        }
        ConnectionError::Tls(error) => {
            format!("{broker} is no name that TLS can check: {error}; check [cloud] url")
        }
        ConnectionError::MqttState(error) => explain_state(error, broker),
        ConnectionError::NotConnAck(_) | ConnectionError::RequestsDone => {
            format!("{broker} does not speak MQTT 3.1.1: {error}; check the port in [cloud] url")
        }
    }
}

fn explain_state(error: &StateError, broker: &str) -> String {
    match error {
        StateError::ConnectionAborted => {
            format!("{broker} closed the connection; is another client using this gateway's id?")
        }
        StateError::AwaitPingResp => format!("{broker} no longer answers; is the line down?"),
        StateError::Deserialization(rumqttc::Error::PayloadSizeLimitExceeded(bytes)) => format!(
            "a message of {bytes} bytes is more than the {MAX_PACKET_BYTES} that a gateway takes; \
             clear or shorten it on the down topics"
        ),
        StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error)) => {
            explain_tls(error, broker).unwrap_or_else(|| {
                format!("the connection to {broker} broke: {error}; it is tried again")
            })
        }
        error => format!("the connection to {broker} broke: {error}; it is tried again"),
    }
}

fn refusal(code: ConnectReturnCode, broker: &str) -> String {
    let hint = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "check username and password in [cloud]"
        }
        ConnectReturnCode::BadClientId => "does the broker accept this gateway's id?",
        ConnectReturnCode::ServiceUnavailable => "the broker is overloaded; it is tried again",
        ConnectReturnCode::RefusedProtocolVersion => "the broker must accept MQTT 3.1.1",
        ConnectReturnCode::Success => "report this",
    };
    format!("{broker} refuses the gateway ({code:?}); {hint}")
}

/// What an error of TLS means; `None` for other errors.
pub(super) fn explain_tls(error: &io::Error, broker: &str) -> Option<String> {
    use rustls::CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())?;
    Some(match tls {
        InvalidCertificate(UnknownIssuer | BadSignature) => {
            format!("the certificate of {broker} is signed by an unknown authority; set ca_file")
        }
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => format!(
            "the certificate of {broker} is for another name; write that name into [cloud] url"
        ),
        InvalidCertificate(Expired | ExpiredContext { .. }) => {
            format!("the certificate of {broker} has expired; renew it, and check the clock here")
        }
        InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            format!(
                "the certificate of {broker} is not valid yet; check the clock here (timedatectl)"
            )
        }
        InvalidMessage(_) => {
            format!("{broker} does not speak TLS; use mqtt:// or the broker's TLS port")
        }
        AlertReceived(alert) => {
            format!("{broker} ends TLS with {alert:?}; does it want a (valid) client certificate?")
        }
        other => format!("TLS with {broker} failed: {other}"),
    })
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
