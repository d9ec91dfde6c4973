//! TLS as the provider speaks it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::{CertificateSummary, IdentityFiles, TlsError, authorities};
use super::{TlsPeer, VERSIONS, provider};
use crate::wire::PromptStream;

/// First byte of a TLS record with a handshake message (RFC 8446 5.1).
const HANDSHAKE: u8 = 0x16;
/// First byte of an A-ASSOCIATE-RQ (PS3.8 table 9-11).
const ASSOCIATE_RQ: u8 = 0x01;

/// What is asked of a peer's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    None,
    /// One may be shown; shown, it must be issued by an authority of the file.
    Optional(PathBuf),
    /// One must be shown, issued by an authority of the file.
    Required(PathBuf),
}

/// Files of the provider's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsOptions {
    /// Own certificate and key.
    pub identity: IdentityFiles,
    /// What is asked of peers.
    pub client_auth: ClientAuth,
}

/// The provider's side of TLS, with the certificate that is in force. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ServerTlsOptions,
    current: RwLock<Arc<ServerConfig>>,
    /// What the files were when they were read last, and whether they could be used.
    last: Mutex<Reading>,
}

#[derive(Debug)]
struct Reading {
    stamps: Vec<Stamp>,
    is_usable: bool,
}

/// Tells that a file is another one, or has changed; `None` if it is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], if they cannot be used.
    pub fn load(options: ServerTlsOptions) -> Result<(Self, CertificateSummary), TlsError> {
        let stamps = stamps(&options);
        let (config, summary) = configure(&options)?;
        let last = Mutex::new(Reading { stamps, is_usable: true });
        Ok((Self { inner: Arc::new(Inner { options, current: RwLock::new(config), last }) }, summary))
    }

    /// Reads the files again. New connections get what they hold now; open ones keep what they have. Sessions of the old
    /// certificate cannot be resumed.
    ///
    /// # Errors
    /// [`TlsError`], if they cannot be used; what was in force stays so.
    pub fn reload(&self) -> Result<CertificateSummary, TlsError> {
        let mut last = self.inner.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the files: a change in between is seen by the next call.
        let stamps = stamps(&self.inner.options);
        let configured = configure(&self.inner.options);
        *last = Reading { stamps, is_usable: configured.is_ok() };
        let (config, summary) = configured?;
        *self.inner.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(summary)
    }

    /// Reads the files again if they have changed since they were read, or could not be used then; else `None`.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub fn reload_if_changed(&self) -> Option<Result<CertificateSummary, TlsError>> {
        let is_current = {
            let last = self.inner.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.is_usable && last.stamps == stamps(&self.inner.options)
        };
        if is_current { None } else { Some(self.reload()) }
    }

    fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.inner.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn configure(options: &ServerTlsOptions) -> Result<(Arc<ServerConfig>, CertificateSummary), TlsError> {
    let identity = options.identity.load()?;
    let verifier = |path: &Path| {
        Ok((WebPkiClientVerifier::builder_with_provider(authorities(path)?, provider()), path.display().to_string()))
    };
    let verifier = match &options.client_auth {
        ClientAuth::None => None,
        ClientAuth::Required(path) => Some(verifier(path)?),
        ClientAuth::Optional(path) => {
            let (builder, origin) = verifier(path)?;
            Some((builder.allow_unauthenticated(), origin))
        }
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| options.identity.mismatch(&error))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some((verifier, origin)) => builder.with_client_cert_verifier(
            verifier.build().map_err(|error| TlsError::Authorities { origin, reason: error.to_string() })?,
        ),
    };
    let summary = CertificateSummary::of(&identity.chain[0]);
    let config =
        builder.with_single_cert(identity.chain, identity.key).map_err(|error| options.identity.mismatch(&error))?;
    Ok((Arc::new(config), summary))
}

fn stamps(options: &ServerTlsOptions) -> Vec<Stamp> {
    let mut files = vec![&options.identity.certificate_file, &options.identity.key_file];
    if let ClientAuth::Optional(authorities) | ClientAuth::Required(authorities) = &options.client_auth {
        files.push(authorities);
    }
    let stamp = |path: &PathBuf| -> Stamp {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        let identity = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let identity = 0;
        Some((metadata.modified().ok()?, metadata.len(), identity))
    };
    files.into_iter().map(stamp).collect()
}

/// Why a connection did not become a TLS connection.
#[derive(Debug)]
pub(crate) enum NoTls {
    /// The peer came and went without a byte.
    Nothing,
    /// In words.
    Failed(String),
}

/// Shakes hands with a peer. The caller bounds the time.
pub(crate) async fn accept(tls: &ServerTls, stream: TcpStream) -> Result<(TlsStream<PromptStream>, TlsPeer), NoTls> {
    let broken = |error: std::io::Error| NoTls::Failed(error.to_string());
    // One byte tells who has taken the wrong port; to such a peer a TLS alert would be noise.
    let mut first = [0];
    match stream.peek(&mut first).await.map_err(broken)? {
        0 => return Err(NoTls::Nothing),
        _ if first[0] == ASSOCIATE_RQ => {
            return Err(NoTls::Failed("an association request without TLS on the port for TLS".to_owned()));
        }
        _ if first[0] != HANDSHAKE => {
            return Err(NoTls::Failed(format!("first byte 0x{:02x}, which begins no TLS handshake", first[0])));
        }
        _ => {}
    }
    let stream = tls.acceptor().accept(PromptStream::new(stream).map_err(broken)?).await.map_err(broken)?;
    let peer = TlsPeer::of(stream.get_ref().1);
    Ok((stream, peer))
}
