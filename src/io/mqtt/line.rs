//! The line to the broker: TCP, and TLS where it is configured; and what its errors mean to a
//! technician.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Clock;
use super::tls::client_config;
use crate::config::Cloud;

/// Bytes to and from the broker, encrypted or not.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// Reaches the broker, or says why it cannot. Files of certificates are read anew each time.
pub(super) async fn dial(cloud: &Cloud, clock: Arc<dyn Clock>) -> Result<Box<dyn Line>, String> {
    let broker = cloud.endpoint();
    let tls = match cloud.tls {
        true => Some(client_config(cloud, clock).map_err(|error| error.to_string())?),
        false => None,
    };
    let unreachable = |error: io::Error| {
        format!("{broker} cannot be reached: {error}; check [cloud] url, DNS and the firewall")
    };
    let tcp = TcpStream::connect((cloud.host.as_str(), cloud.port)).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(cloud.host.clone()).map_err(|error| {
        format!("{broker} is no name that TLS can check: {error}; check [cloud] url")
    })?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(explain_tls(&error, &broker).unwrap_or_else(|| {
            format!("{broker} broke off TLS: {error}; is this the broker's TLS port?")
        })),
    }
}

/// The other side closed the connection: MQTT 3.1.1 has no word for why.
pub(super) fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What the end of a line means.
pub(super) fn explain(error: &io::Error, broker: &str) -> String {
    explain_tls(error, broker).unwrap_or_else(|| broke(error, broker))
}

/// A line that broke for a reason of which there is no more to say.
pub(super) fn broke(why: impl std::fmt::Display, broker: &str) -> String {
    format!("the connection to {broker} broke: {why}; it is tried again")
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
