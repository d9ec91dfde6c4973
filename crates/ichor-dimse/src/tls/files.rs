//! PEM files: read, bounded, and checked before they are used.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::FromDer;

use crate::negotiation::printable;

/// Longest PEM file that is read, in bytes: the system's bundle of all public authorities has some 250,000.
const MAX_PEM_BYTES: u64 = 4 << 20;
/// Longest subject that is kept, in characters.
const MAX_SUBJECT: usize = 256;

/// Why files of certificates and keys cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Longer than any file of certificates.
    #[error("{0} has more than {MAX_PEM_BYTES} bytes, which is no file of certificates")]
    TooLong(PathBuf),
    /// Everybody on the machine may read or change the private key.
    #[error("{path} has mode {mode:04o}: everybody may read or change this private key; chmod o-rwx it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing of the kind stands in the file, or it does not decode.
    #[error("{path} holds no {what} in PEM form: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Certificate and key are each readable, but do not make an identity.
    #[error("{certificate} and {key} do not go together: {reason}")]
    Identity {
        /// Certificate file.
        certificate: PathBuf,
        /// Key file.
        key: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The authorities cannot be used.
    #[error("{origin} cannot be used as authorities: {reason}")]
    Authorities {
        /// The file, or the system.
        origin: String,
        /// Why not.
        reason: String,
    },
    /// The name that the peer's certificate must have is no name.
    #[error("{0:?} is neither a host name nor an address, so no certificate can be checked against it")]
    ServerName(String),
}

/// Where a certificate with its chain, and its private key lie, both in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, then those that lead to its authority.
    pub certificate_file: PathBuf,
    /// The private key (PKCS #8, PKCS #1 or SEC 1), not encrypted. Others than owner and group must have no right to it.
    pub key_file: PathBuf,
}

pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl IdentityFiles {
    pub(super) fn load(&self) -> Result<Identity, TlsError> {
        let chain = certificates(&self.certificate_file)?;
        let bytes = read_key_file(&self.key_file)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| TlsError::Pem {
            path: self.key_file.clone(),
            what: "private key without a password",
            reason: error.to_string(),
        })?;
        Ok(Identity { chain, key })
    }

    pub(super) fn mismatch(&self, error: &rustls::Error) -> TlsError {
        let (certificate, key) = (self.certificate_file.clone(), self.key_file.clone());
        TlsError::Identity { certificate, key, reason: error.to_string() }
    }
}

/// Reads the authorities of a file.
pub(super) fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authorities { origin: path.display().to_string(), reason: error.to_string() })?;
    }
    Ok(Arc::new(roots))
}

/// Reads the authorities that the system trusts.
pub(super) fn system_authorities() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::Authorities { origin: "the system's certificates".to_owned(), reason });
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |reason: String| TlsError::Pem { path: path.to_owned(), what: "certificate", reason };
    let bytes = read(path, open(path)?)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    if chain.is_empty() { Err(unusable("no such section".to_owned())) } else { Ok(chain) }
}

/// The rights are those of the file that is read, not of whatever lies at its path a moment later.
fn read_key_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = file.metadata().map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o006 != 0 {
            return Err(TlsError::Exposed { path: path.to_owned(), mode });
        }
    }
    read(path, file)
}

fn open(path: &Path) -> Result<File, TlsError> {
    File::open(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn read(path: &Path, file: File) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    file.take(MAX_PEM_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_PEM_BYTES { Err(TlsError::TooLong(path.to_owned())) } else { Ok(bytes) }
}

/// A certificate in a line: whose it is, and which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Distinguished name of the subject, printable ASCII, at most 256 characters.
    pub subject: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// End of its validity; `None` if it cannot be told.
    pub not_after: Option<SystemTime>,
}

impl CertificateSummary {
    /// Reads the first certificate of a PEM file: the one that is shown, before those that lead to its authority.
    ///
    /// # Errors
    /// [`TlsError`]: the file cannot be read, or holds no certificate.
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        certificates(path).map(|chain| Self::of(&chain[0]))
    }

    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let parsed = x509_parser::certificate::X509Certificate::from_der(certificate).ok();
        let (subject, not_after) = match parsed {
            Some((_, parsed)) => {
                let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
                let not_after = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                (printable(&parsed.subject().to_string(), MAX_SUBJECT), not_after)
            }
            None => ("a subject that cannot be read".to_owned(), None),
        };
        Self { subject, fingerprint: hex::encode(Sha256::digest(certificate)), not_after }
    }

    /// Time until it expires; zero if it has.
    #[must_use]
    pub fn expires_in(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.map(|end| end.duration_since(now).unwrap_or_default())
    }
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SHA-256 {})", self.subject, self.fingerprint)
    }
}
