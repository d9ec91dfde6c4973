//! TLS of the server (PS3.15 B.9 asks for what rustls does by default: TLS 1.2 with AEAD suites, and 1.3).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No rustls crypto provider was installed before.
    #[error("no TLS crypto provider is installed")]
    NoCryptoProvider,
    /// The certificates are not PEM, or there is none.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The key is not PEM, or there is none.
    #[error("key: {0}")]
    Key(String),
    /// Key and certificate do not fit, or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Makes the configuration of a server with one identity, without client certificates, for HTTP/1.1.
///
/// # Errors
/// [`TlsError`].
pub fn tls_config(certificates_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = rustls::crypto::CryptoProvider::get_default().ok_or(TlsError::NoCryptoProvider)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificates_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    if certificates.is_empty() {
        return Err(TlsError::Certificate("there is none in the file".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| TlsError::Key(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
