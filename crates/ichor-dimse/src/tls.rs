//! DICOM TLS: the BCP 195 profile (PS3.15 B.12, RFC 9325), that is TLS 1.3, and 1.2 with ephemeral keys and
//! authenticated encryption. rustls knows nothing weaker; ring does the arithmetic.
//!
//! - [`ServerTls`]: the provider's side. Its files can be read again while associations are open: those go on with what
//!   they have, new connections get the new certificate.
//! - [`ClientTls`]: the user's side. Its files are read for each association.

mod client;
mod files;
mod server;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, SupportedProtocolVersion};

pub use client::{ClientTls, ClientTlsError};
pub use files::{CertificateSummary, IdentityFiles, TlsError};
pub use server::{ClientAuth, ServerTls, ServerTlsOptions};

/// TLS 1.0 and 1.1 are out since RFC 8996.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The one provider of this house, named here so that nothing depends on which one a process has installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What the handshake with a peer has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// Protocol version and cipher suite, as `TLSv1_3 TLS13_AES_256_GCM_SHA384`.
    pub protocol: String,
    /// The peer's certificate, which one of the configured authorities has issued; `None` if it showed none.
    pub certificate: Option<CertificateSummary>,
}

impl TlsPeer {
    fn of(state: &CommonState) -> Self {
        let version = state.protocol_version().map(|version| format!("{version:?}"));
        let suite = state.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        let certificate = state.peer_certificates().and_then(|chain| chain.first()).map(summary);
        Self { protocol: [version, suite].into_iter().flatten().collect::<Vec<_>>().join(" "), certificate }
    }
}

fn summary(certificate: &CertificateDer<'_>) -> CertificateSummary {
    CertificateSummary::of(certificate)
}

impl fmt::Display for TlsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol)?;
        match &self.certificate {
            Some(certificate) => write!(f, ", certificate of {certificate}"),
            None => f.write_str(", no certificate"),
        }
    }
}

pub(crate) use server::{NoTls, accept};
