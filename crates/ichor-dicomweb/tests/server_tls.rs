//! The server behind TLS, with our own client before it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use ichor_dicomweb::StowError;
use ichor_dicomweb::server::{ServerOptions, TlsError, tls_config};
use support::{SECRET, serve, store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn https_and_what_is_not() {
    assert!(matches!(tls_config(b"", b""), Err(TlsError::NoCryptoProvider)));
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (ours.cert.pem().into_bytes(), ours.signing_key.serialize_pem().into_bytes());
    assert!(matches!(tls_config(b"", &key), Err(TlsError::Certificate(_))));
    assert!(matches!(tls_config(&certificate, b"no key"), Err(TlsError::Key(_))));
    let foreign = other.signing_key.serialize_pem();
    assert!(matches!(tls_config(&certificate, foreign.as_bytes()), Err(TlsError::Unusable(_))));

    let tls = tls_config(&certificate, &key).unwrap();
    let header_timeout = Duration::from_millis(500);
    let (port, _stop) = serve(ServerOptions { tls: Some(tls), header_timeout, ..ServerOptions::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance");
    std::fs::write(&file, "1.2.3").unwrap();
    assert_eq!(store(port, &certificate, SECRET, None, &file).await.unwrap(), "HTTP 200, referenced");
    let refused = store(port, &certificate, "another secret", None, &file).await.unwrap_err();
    assert!(matches!(refused, StowError::Status { status: 401, .. }), "{refused}");
    let untrusted = store(port, other.cert.pem().as_bytes(), SECRET, None, &file).await.unwrap_err();
    assert!(matches!(untrusted, StowError::Connect(_)), "{untrusted}");

    // Plain HTTP, and nothing at all, on the port of TLS: the connection ends, and no instance is taken.
    for said in ["POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\n\r\n", ""] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut heard)).await.unwrap();
        assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    }
    assert!(store(port, &certificate, SECRET, None, &file).await.is_ok());

    // TLS on the port of plain HTTP.
    let (port, _stop) = serve(ServerOptions::default()).await;
    let mixed = store(port, &certificate, SECRET, None, &file).await.unwrap_err();
    assert!(matches!(mixed, StowError::Connect(_)), "{mixed}");
}
