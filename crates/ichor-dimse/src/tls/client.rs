//! TLS as the user speaks it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use thiserror::Error as ThisError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{IdentityFiles, TlsError, authorities, system_authorities};
use super::{VERSIONS, provider};

/// How to speak TLS with a peer. Files are read for each association, so that a renewed certificate needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities of which one must have issued the peer's certificate; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Own certificate and key, for peers that ask for one.
    pub identity: Option<IdentityFiles>,
    /// Name that the peer's certificate must have, if not the host of its address.
    pub server_name: Option<String>,
    /// Whether the peer's certificate must have that name (default: yes). Its chain and its dates count in any case.
    pub check_name: bool,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self { ca_file: None, identity: None, server_name: None, check_name: true }
    }
}

/// Why there is no TLS with a peer.
#[derive(Debug, ThisError)]
pub enum ClientTlsError {
    /// Its files cannot be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// Peer and we do not agree, or the peer is not who it should be.
    #[error("TLS: {0}")]
    Handshake(std::io::Error),
}

impl ClientTls {
    /// Speaks TLS over a connection to `address`, `host:port`.
    ///
    /// # Errors
    /// [`ClientTlsError`]: the files of this machine, or the handshake.
    pub async fn connect<S>(&self, address: &str, stream: S) -> Result<TlsStream<S>, ClientTlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (name, settings) = (self.name_for(address)?, self.clone());
        // Files are read, which may block.
        let config = tokio::task::spawn_blocking(move || settings.config()).await;
        let config = config.map_err(|error| ClientTlsError::Handshake(error.into()))??;
        TlsConnector::from(config).connect(name, stream).await.map_err(ClientTlsError::Handshake)
    }

    /// Reads the files, to find out early whether they can be used.
    ///
    /// # Errors
    /// [`TlsError`], if not.
    pub fn check(&self) -> Result<(), TlsError> {
        self.server_name.as_ref().map(|name| Self::name(name)).transpose()?;
        self.config().map(drop)
    }

    /// The name for a peer at `host:port`.
    pub(crate) fn name_for(&self, address: &str) -> Result<ServerName<'static>, TlsError> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Self::name(self.server_name.as_deref().unwrap_or(host.trim_matches(['[', ']'])))
    }

    fn name(name: &str) -> Result<ServerName<'static>, TlsError> {
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
    }

    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (roots, origin) = match &self.ca_file {
            Some(path) => (authorities(path)?, path.display().to_string()),
            None => (system_authorities()?, "the system's certificates".to_owned()),
        };
        let unusable = |reason: String| TlsError::Authorities { origin: origin.clone(), reason };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> =
            if self.check_name { verifier } else { Arc::new(AnyName(verifier)) };
        // "Dangerous" is the name of the door through which any verifier comes; both of these check the chain.
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let identity = files.load()?;
                builder.with_client_auth_cert(identity.chain, identity.key).map_err(|error| files.mismatch(&error))?
            }
        };
        Ok(Arc::new(config))
    }
}

/// Everything that [`WebPkiServerVerifier`] checks, but for the name, which it checks last.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
