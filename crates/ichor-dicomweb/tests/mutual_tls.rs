//! The client before a service that asks for its certificate, as a STOW-RS destination may.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use ichor_core::Uid;
use ichor_dicomweb::{StowClient, StowError, StowOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const OURS: &str = "2.25.1";

/// Who issues certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a name, until the beginning of a year.
    fn issue(&self, name: &str, until: i32) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

impl Issued {
    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    /// A service that shows it, and asks for a certificate of an authority.
    fn service(&self, clients: &Authority) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![self.der()], PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The certificates that were shown with requests that came whole.
type Shown = Arc<Mutex<Vec<CertificateDer<'static>>>>;

/// Stores whatever comes, from whomever the acceptor lets in.
async fn serve(acceptor: TlsAcceptor) -> (u16, Shown) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, shown) = (listener.local_addr().unwrap().port(), Shown::default());
    let noted = Arc::clone(&shown);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A handshake that fails is the client's to tell.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
            let (mut received, mut buffer) = (Vec::<u8>::new(), [0; 4096]);
            let is_whole = |received: &[u8]| {
                let text = String::from_utf8_lossy(received);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                length.is_some_and(|length| body.len() >= length)
            };
            while !is_whole(&received) {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            if is_whole(&received) {
                noted.lock().unwrap().push(certificate);
                let body = format!(
                    r#"{{"00081199":{{"vr":"SQ","Value":[{{"00081155":{{"vr":"UI","Value":["{OURS}"]}}}}]}}}}"#
                );
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
            let _ = stream.shutdown().await;
        }
    });
    (port, shown)
}

fn client(port: u16, roots: &Authority, own: Option<&Issued>) -> Result<StowClient, StowError> {
    let mut options = StowOptions::new(&format!("https://localhost:{port}/dicom-web"));
    options.use_system_proxy = false;
    options.root_certificates = Some(roots.pem.clone().into_bytes());
    options.identity = own.map(|own| [own.certificate.as_bytes(), b"\n", own.key.as_bytes(), b"\n"].concat());
    StowClient::new(options)
}

#[tokio::test]
async fn stow_with_certificates_of_both_sides() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (authority, other) = (Authority::new("hospital"), Authority::new("elsewhere"));
    let (service, own) = (authority.issue("localhost", 4_000), authority.issue("ichor", 4_000));
    let (foreign, expired) = (other.issue("ichor", 4_000), authority.issue("ichor", 2_020));
    let (port, shown) = serve(service.service(&authority)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance.dcm");
    std::fs::write(&file, "an instance").unwrap();
    let instance = Uid::parse(OURS).unwrap();

    let stored = client(port, &authority, Some(&own)).unwrap().store_one(&instance, &file).await;
    assert_eq!(stored.unwrap(), "HTTP 200, referenced");
    assert_eq!(*shown.lock().unwrap(), [own.der()], "it has seen our certificate");

    for (what, roots, own) in [
        ("no certificate", &authority, None),
        ("one of another authority", &authority, Some(&foreign)),
        ("one that has expired", &authority, Some(&expired)),
        ("a service of another authority", &other, Some(&own)),
    ] {
        let failure = client(port, roots, own).unwrap().store_one(&instance, &file).await.unwrap_err();
        assert!(matches!(failure, StowError::Connect(_) | StowError::Connection(_)), "{what}: {failure:?}");
        assert!(!failure.is_permanent(), "{what}: a certificate can be renewed: {failure}");
        assert_eq!(shown.lock().unwrap().len(), 1, "{what}: nothing more came through");
    }

    let broken = Issued { certificate: own.certificate.clone(), key: "no key".to_owned() };
    let failure = client(port, &authority, Some(&broken)).unwrap_err();
    assert!(matches!(failure, StowError::Client(_)) && failure.is_permanent(), "{failure}");
    // What was refused leaves the service as it was.
    let stored = client(port, &authority, Some(&own)).unwrap().store_one(&instance, &file).await;
    assert_eq!(stored.unwrap(), "HTTP 200, referenced");
}
