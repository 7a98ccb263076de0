//! TLS to the broker: whom to trust, what to show, which time to judge certificates by.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::Clock;
use crate::config::Cloud;
use crate::core::time::{Stamp, Wall};

/// TLS cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsSetupError {
    #[error("no certificate authority is installed; apt install ca-certificates, or set ca_file")]
    NoSystemRoots,
    #[error("{what} {path} cannot be read: {source}; check the path, its rights and its PEM form")]
    Pem { what: &'static str, path: PathBuf, source: pem::Error },
    #[error("{what} {path} holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)")]
    Empty { what: &'static str, path: PathBuf },
    #[error("ca_file {path} holds a certificate that cannot be used: {source}; replace it")]
    BadAuthority { path: PathBuf, source: rustls::Error },
    #[error(
        "client_cert_file {path} and its key cannot be used: {source}; do they belong together?"
    )]
    ClientPair { path: PathBuf, source: rustls::Error },
    #[error("TLS cannot be set up: {0}; report this")]
    Provider(rustls::Error),
}

/// The TLS side of a connection. Files are read anew each time, so that renewed certificates need
/// no restart.
pub(super) fn client_config(
    cloud: &Cloud,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let roots = match &cloud.ca_file {
        Some(path) => authorities(path)?,
        None => system_roots()?,
    };
    // The provider is named, not defaulted: another crate may bring a second one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(JudgedBy(clock)))
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::Provider)?
        .with_root_certificates(roots);
    let config = match &cloud.client_cert {
        Some((cert, key)) => {
            let chain = certificates("client_cert_file", cert)?;
            let source =
                |source| TlsSetupError::Pem { what: "client_key_file", path: key.clone(), source };
            let key = PrivateKeyDer::from_pem_file(key).map_err(source)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsSetupError::ClientPair { path: cert.clone(), source })?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a system certificate authority is left out");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TlsSetupError::NoSystemRoots) } else { Ok(roots) }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsSetupError::BadAuthority { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let path = path.to_owned();
    match found {
        Ok(found) if found.is_empty() => Err(TlsSetupError::Empty { what, path }),
        Ok(found) => Ok(found),
        Err(source) => Err(TlsSetupError::Pem { what, path, source }),
    }
}

/// Certificates are judged by the wall clock where it can be right, else by the time that is known
/// to have passed, so that a gateway that believes it is 1970 reaches its broker.
struct JudgedBy(Arc<dyn Clock>);

impl fmt::Debug for JudgedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JudgedBy")
    }
}

impl TimeProvider for JudgedBy {
    fn current_time(&self) -> Option<UnixTime> {
        let wall = judging_time(self.0.stamp(), self.0.floor());
        let since_1970 = Duration::from_millis(u64::try_from(wall.0).ok()?);
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}

/// A synchronised clock is believed over a floor that a wrong clock may once have written, but not
/// if it shows a time before this program was built.
fn judging_time(stamp: Stamp, floor: Wall) -> Wall {
    if stamp.synced && stamp.wall >= built() { stamp.wall } else { stamp.wall.max(floor) }
}

/// When this program was built: no moment before can be now.
pub(crate) fn built() -> Wall {
    let seconds: i64 = env!("TAPGATE_BUILD_TIME").parse().unwrap_or(0);
    Wall(seconds * 1_000)
}

/// How far what the cloud says may push the time that is known to have passed: a key that leaked or
/// a mistake must not put every certificate and badge of a gateway without a clock out of date.
pub(crate) fn believable(issued_at: Wall) -> Wall {
    issued_at.min(built() + Duration::from_secs(3 * 365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Uptime;

    #[test]
    fn what_is_said_is_believed_for_three_years_after_the_build() {
        let years = |n: u64| built() + Duration::from_secs(n * 365 * 86_400);
        assert_eq!(believable(Wall(0)), Wall(0));
        assert_eq!(believable(years(2)), years(2));
        assert_eq!(believable(years(70)), years(3));
    }

    #[test]
    fn only_a_clock_that_can_be_right_overrules_the_floor() {
        let at = |wall, synced| Stamp { boot: 1, uptime: Uptime(1), wall, synced };
        let [now, later] = [1, 2].map(|n| built() + Duration::from_secs(n * 86_400));
        let epoch = Wall(0);

        assert_eq!(judging_time(at(epoch, false), now), now, "no clock chip");
        assert_eq!(judging_time(at(epoch, true), now), now, "synchronised with nonsense");
        assert_eq!(judging_time(at(now, true), later), now, "a floor of a wrong clock");
        assert_eq!(judging_time(at(later, false), now), later);
    }
}
