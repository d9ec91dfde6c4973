//! Mutual TLS: a server that asks for a certificate, with our own client before it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use ichor_dicomweb::StowError;
use ichor_dicomweb::server::ServerOptions;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use support::{SECRET, serve, store};

/// Who issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// As a client shows it: the certificate, then the key.
    fn identity(&self) -> Option<Vec<u8>> {
        let (certificate, key) = self.issue("ichor");
        Some(format!("{certificate}\n{key}").into_bytes())
    }

    /// A server of its own, for clients that have a certificate of it.
    fn server(&self) -> ServerConfig {
        let (certificate, key) = self.issue("localhost");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap()
    }
}

#[tokio::test]
async fn stow_with_certificates_of_both_sides() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let (authority, other) = (Authority::new("hospital"), Authority::new("elsewhere"));
    let tls = Some(Arc::new(authority.server()));
    let (port, _stop) = serve(ServerOptions { tls, ..ServerOptions::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance");
    std::fs::write(&file, "1.2.3").unwrap();
    let roots = authority.pem.as_bytes();
    assert_eq!(store(port, roots, SECRET, authority.identity(), &file).await.unwrap(), "HTTP 200, referenced");

    // A token does not stand for a certificate, nor does a certificate of somebody else.
    for identity in [None, other.identity()] {
        let refused = store(port, roots, SECRET, identity, &file).await.unwrap_err();
        assert!(matches!(refused, StowError::Connect(_) | StowError::Connection(_)), "{refused}");
        assert!(!refused.is_permanent(), "a certificate can be renewed: {refused}");
    }
    // Nor does a certificate stand for a token, and the server has to be the right one too.
    let refused = store(port, roots, "another secret", authority.identity(), &file).await.unwrap_err();
    assert!(matches!(refused, StowError::Status { status: 401, .. }), "{refused}");
    let untrusted = store(port, other.pem.as_bytes(), SECRET, authority.identity(), &file).await.unwrap_err();
    assert!(matches!(untrusted, StowError::Connect(_)), "{untrusted}");
    // What is no identity is told before anything is sent.
    let unusable = store(port, roots, SECRET, Some(b"no certificate".to_vec()), &file).await.unwrap_err();
    assert!(matches!(unusable, StowError::Client(_)), "{unusable}");
}
