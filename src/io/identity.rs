//! The gateway's own Ed25519 key: made at the first start, readable for its owner alone, and never
//! part of a backup. It signs checkpoints; the cloud knows its public half from `up/state`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};

/// The header of everything that this gateway signs.
const HEADER: &str = r#"{"alg":"EdDSA"}"#;

/// Damaged keys that are kept beside the new one; more mean a dying disk.
const MAX_SET_ASIDE: u32 = 100;

/// The gateway's key.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {doing} the gateway's key {path}: {source}; check the disk and who may write there"
)]
pub struct IdentityError {
    /// What was tried.
    pub doing: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl Identity {
    /// Where the key lies: beside the ledger, whose `[storage] path` this is.
    pub fn beside(ledger: &Path) -> PathBuf {
        let stem = ledger.file_stem().unwrap_or_default().to_string_lossy();
        ledger.with_file_name(format!("{stem}-identity.key"))
    }

    /// The key in `path`; a new one where there is none yet. A damaged file is set aside: without
    /// a key the gateway would not start, and the cloud sees the new one in `up/state`.
    pub fn open(path: &Path) -> Result<Identity, IdentityError> {
        let failed = |doing| move |source| IdentityError { doing, path: path.into(), source };
        match Identity::read(path) {
            Ok(identity) => return Ok(identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = set_aside(path).map_err(failed("set aside"))?;
                tracing::error!(
                    "the gateway's key was damaged and is kept as {}; tell the operator the new \
                     one: tapgate identity",
                    aside.display()
                );
            }
            Err(error) => return Err(failed("read")(error)),
        }
        create(path).map_err(failed("create"))
    }

    /// The key in `path`, which must be there.
    pub fn read(path: &Path) -> io::Result<Identity> {
        let text = fs::read_to_string(path)?;
        let seed = URL_SAFE_NO_PAD.decode(text.trim_end()).ok();
        let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        let seed = seed.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it is not 32 bytes in base64url")
        })?;
        Ok(Identity { key: SigningKey::from_bytes(&seed) })
    }

    /// The public half: 32 bytes in base64url without padding.
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes())
    }

    /// A JWS in compact form (RFC 7515, RFC 8037) over these bytes.
    pub fn sign(&self, payload: &[u8]) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.key.sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.public_key()).finish()
    }
}

/// Whole or not there: a power cut never leaves half a key.
fn create(path: &Path) -> io::Result<Identity> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let staging = path.with_extension("staging");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staging)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(format!("{}\n", URL_SAFE_NO_PAD.encode(seed)).as_bytes())?;
    file.sync_all()?;
    fs::rename(&staging, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(Identity { key: SigningKey::from_bytes(&seed) })
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = (1..=MAX_SET_ASIDE)
        .map(|n| path.with_file_name(format!("{name}.damaged-{n}")))
        .find(|aside| !aside.exists())
        .ok_or_else(|| io::Error::other("too many damaged copies are kept beside it"))?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signature, VerifyingKey};

    #[test]
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Identity::beside(&folder.path().join("tapgate.db"));
        let made = Identity::open(&path).expect("a new key");

        assert!(path.ends_with("tapgate-identity.key"));
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Identity::open(&path).expect("the same").public_key(), made.public_key());
        assert_eq!(made.public_key().len(), 43);
        assert!(!format!("{made:?}").contains(fs::read_to_string(&path).expect("text").trim()));
    }

    #[test]
    fn a_damaged_key_is_set_aside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tapgate-identity.key");
        fs::write(&path, "half a ke").expect("a file");

        let made = Identity::open(&path).expect("a new key");

        assert_eq!(Identity::read(&path).expect("whole").public_key(), made.public_key());
        let kept = fs::read_to_string(folder.path().join("tapgate-identity.key.damaged-1"));
        assert_eq!(kept.expect("kept"), "half a ke");
    }

    #[test]
    fn what_it_signs_verifies_with_its_public_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let identity = Identity::open(&folder.path().join("k")).expect("a new key");

        let jws = identity.sign(b"{\"typ\":\"checkpoint\"}");

        let (signed, signature) = jws.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let key = URL_SAFE_NO_PAD.decode(identity.public_key()).expect("base64url");
        let key = VerifyingKey::from_bytes(&key.try_into().expect("32 bytes")).expect("a key");
        let signature = Signature::from_slice(&signature).expect("64 bytes");
        assert!(key.verify_strict(signed.as_bytes(), &signature).is_ok());
    }
}
