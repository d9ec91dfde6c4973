//! The server behind TLS, with our own client before it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use ichor_core::Uid;
use ichor_dicomweb::server::{
    ClientRule, PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Right, Sender, ServerOptions,
    StowHandler, StowServer, TlsError, Token, tls_config,
};
use ichor_dicomweb::{Credentials, StowClient, StowError, StowOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

struct Taker;
struct Sink(Vec<u8>);

impl PartSink for Sink {
    async fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn refuse(self, failure: PartFailure) -> PartResult {
        PartResult { sop_class: None, sop_instance: None, outcome: PartOutcome::Failed(failure) }
    }

    async fn commit(self) -> PartResult {
        let sop_instance = Uid::parse(std::str::from_utf8(&self.0).unwrap()).ok();
        PartResult { sop_class: None, sop_instance, outcome: PartOutcome::Stored }
    }
}

impl StowHandler for Taker {
    type Request = ();
    type Sink = Sink;

    async fn request_opened(&self, _: &Sender, _: Option<&Uid>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn request_refused(&self, _: &Sender, _: &Refusal) {}

    async fn request_closed(&self, (): (), _: RequestEnd) {}

    fn begin(&self, (): &()) -> Sink {
        Sink(Vec::new())
    }
}

const SECRET: &str = "a secret of the tests";

async fn serve(mut options: ServerOptions) -> (u16, CancellationToken) {
    let client = ClientRule {
        name: "C".to_owned(),
        token: Some(Token::new(SECRET)),
        networks: Vec::new(),
        may: vec![Right::Store],
        subscribers: Vec::new(),
    };
    options.clients = vec![client];
    let server = StowServer::bind("127.0.0.1:0", options, Taker).await.unwrap();
    let (port, stop) = (server.local_addr().unwrap().port(), CancellationToken::new());
    tokio::spawn(server.run(stop.clone()));
    (port, stop)
}

async fn store(port: u16, roots: &[u8], token: &str, file: &Path) -> Result<String, StowError> {
    let mut options = StowOptions::new(&format!("https://localhost:{port}/dicom-web"));
    options.use_system_proxy = false;
    options.root_certificates = Some(roots.to_vec());
    options.credentials = Some(Credentials::Bearer(token.to_owned()));
    StowClient::new(options)?.store_one(&Uid::parse("1.2.3").unwrap(), file).await
}

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
    assert_eq!(store(port, &certificate, SECRET, &file).await.unwrap(), "HTTP 200, referenced");
    let refused = store(port, &certificate, "another secret", &file).await.unwrap_err();
    assert!(matches!(refused, StowError::Status { status: 401, .. }), "{refused}");
    let untrusted = store(port, other.cert.pem().as_bytes(), SECRET, &file).await.unwrap_err();
    assert!(matches!(untrusted, StowError::Connect(_)), "{untrusted}");

    // Plain HTTP, and nothing at all, on the port of TLS: the connection ends, and no instance is taken.
    for said in ["POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\n\r\n", ""] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut heard)).await.unwrap();
        assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    }
    assert!(store(port, &certificate, SECRET, &file).await.is_ok());

    // TLS on the port of plain HTTP.
    let (port, _stop) = serve(ServerOptions::default()).await;
    let mixed = store(port, &certificate, SECRET, &file).await.unwrap_err();
    assert!(matches!(mixed, StowError::Connect(_)), "{mixed}");
}
