//! Receivers behind TLS: the right one, and those that are not who they should be.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::Subject;
use ichor_dimse::tls::{ClientTls, IdentityFiles};
use ichor_worklist::fhir::{FhirClient, FhirOptions, ImagingStudyPolicy, Naming};
use ichor_worklist::hl7::{Charset, Hl7Client, Hl7Options, Template};
use ichor_worklist::{Announcement, SetupError, TellError};
use support::{Authority, Issued, set_mode};
use time::Duration as Days;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

fn sample() -> Announcement {
    Announcement::samples().into_iter().find(|sample| sample.subject == Subject::Positive).unwrap()
}

/// Takes one block and answers AA; what is no block is answered too, as a receiver without TLS would.
async fn acknowledge(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    while !received.ends_with(b"\x1c\r") {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
            _ => return,
        }
        if received.first() != Some(&0x0B) {
            let _ = stream.write_all(b"\x0bMSH|^~\\&|RIS\rMSA|AR|none\r\x1c\r").await;
            return;
        }
    }
    let text = String::from_utf8_lossy(&received);
    let id = text.split('|').nth(9).unwrap().to_owned();
    let _ = stream.write_all(format!("\x0bMSH|^~\\&|RIS\rMSA|AA|{id}\r\x1c\r").as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Answers one request with what `answer` makes of its body.
async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    let body = loop {
        let Ok(count) = stream.read(&mut buffer).await else { return };
        if count == 0 {
            return;
        }
        received.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.contains("Bearer sesame") || head.contains("bearer sesame"), "{head}");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break body.to_owned();
        }
    };
    let sent: serde_json::Value = serde_json::from_str(&body).unwrap();
    let entries =
        vec![serde_json::json!({ "response": { "status": "201 Created" } }); sent["entry"].as_array().unwrap().len()];
    let answer =
        serde_json::json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": entries }).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[derive(Clone, Copy)]
enum Speaks {
    Mllp,
    Http,
}

/// A receiver on loopback; `tls` `None`: in the clear.
async fn receiver(tls: Option<ServerConfig>, speaks: Speaks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match (acceptor, speaks) {
                    (None, Speaks::Mllp) => acknowledge(stream).await,
                    (None, Speaks::Http) => respond(stream).await,
                    (Some(acceptor), speaks) => {
                        // A handshake that fails is the client's to tell.
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        match speaks {
                            Speaks::Mllp => acknowledge(stream).await,
                            Speaks::Http => respond(stream).await,
                        }
                    }
                }
            });
        }
    });
    port
}

fn hl7(port: u16, tls: Option<ClientTls>) -> Result<Hl7Client, SetupError> {
    Hl7Client::new(Hl7Options {
        address: format!("127.0.0.1:{port}"),
        template: Template::Oru,
        sending: ("ICHOR".to_owned(), String::new()),
        receiving: ("RIS".to_owned(), String::new()),
        processing_id: "T".to_owned(),
        charset: Charset::Utf8,
        timeout: Duration::from_secs(5),
        tls,
    })
}

async fn told(port: u16, tls: Option<ClientTls>) -> Result<String, String> {
    let told = hl7(port, tls).unwrap().tell(&sample()).await;
    told.map_err(|error| {
        assert!(!error.is_permanent(), "a certificate can be renewed: {error}");
        error.to_string()
    })
}

fn believing(authority: &Authority, own: Option<&Issued>) -> ClientTls {
    let identity =
        own.map(|own| IdentityFiles { certificate_file: own.certificate.clone(), key_file: own.key.clone() });
    ClientTls {
        ca_file: Some(authority.file.clone()),
        identity,
        server_name: Some("ris.example.org".to_owned()),
        check_name: true,
    }
}

#[tokio::test]
async fn hl7_over_tls_and_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let other = Authority::new(folder.path(), "elsewhere");
    let ris = authority.issue("ris.example.org", Days::days(30));
    let late = authority.issue("ris.example.org", Days::days(-1));
    let own = authority.issue("ichor", Days::days(30));

    let port = receiver(Some(ris.server(None)), Speaks::Mllp).await;
    assert_eq!(told(port, Some(believing(&authority, None))).await.unwrap(), "AA");
    let failure = told(port, Some(believing(&other, None))).await.unwrap_err();
    assert!(failure.contains("TLS") && failure.contains("UnknownIssuer"), "wrong authority: {failure}");
    let name = ClientTls { server_name: Some("pacs.example.org".to_owned()), ..believing(&authority, None) };
    let failure = told(port, Some(name.clone())).await.unwrap_err();
    assert!(failure.contains("not valid for name"), "another name: {failure}");
    assert_eq!(told(port, Some(ClientTls { check_name: false, ..name })).await.unwrap(), "AA");
    assert!(told(port, None).await.is_err(), "plain MLLP at a port of TLS");

    let port = receiver(Some(late.server(None)), Speaks::Mllp).await;
    let failure = told(port, Some(believing(&authority, None))).await.unwrap_err();
    assert!(failure.contains("xpired"), "expired: {failure}");

    let port = receiver(None, Speaks::Mllp).await;
    let failure = told(port, Some(believing(&authority, None))).await.unwrap_err();
    assert!(failure.contains("TLS"), "a peer without TLS: {failure}");

    // One that asks who we are.
    let port = receiver(Some(ris.server(Some(&authority))), Speaks::Mllp).await;
    assert!(told(port, Some(believing(&authority, None))).await.is_err());
    assert_eq!(told(port, Some(believing(&authority, Some(&own)))).await.unwrap(), "AA");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_found_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "hospital");
    let own = authority.issue("ichor", Days::days(30));
    let said = |tls: ClientTls| hl7(1, Some(tls)).unwrap_err().to_string();
    set_mode(&own.key, 0o644);
    assert!(said(believing(&authority, Some(&own))).contains("everybody may read"));
    set_mode(&own.key, 0o600);
    assert!(hl7(1, Some(believing(&authority, Some(&own)))).is_ok());
    let name = ClientTls { server_name: Some("no name".to_owned()), ..believing(&authority, None) };
    assert!(said(name).contains("no name"));
    std::fs::write(&authority.file, "nothing").unwrap();
    assert!(said(believing(&authority, None)).contains("certificate"));
}

fn fhir(port: u16, roots: &Authority, own: Option<&Issued>) -> FhirClient {
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    FhirClient::new(FhirOptions {
        url: format!("https://localhost:{port}/fhir"),
        token: Some(Box::new(|| Ok("sesame".to_owned()))),
        root_certificates: Some(read(&roots.file)),
        identity: own.map(|own| [read(&own.certificate), read(&own.key)].concat()),
        naming: Naming { patient_system: None, accession_system: None, imaging_study: ImagingStudyPolicy::Create },
        timeout: Duration::from_secs(5),
    })
    .unwrap()
}

#[tokio::test]
async fn fhir_with_certificates_of_both_sides() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(folder.path(), "hospital"), Authority::new(folder.path(), "elsewhere"));
    let (server, own) = (authority.issue("localhost", Days::days(30)), authority.issue("ichor", Days::days(30)));
    let port = receiver(Some(server.server(Some(&authority))), Speaks::Http).await;
    let client = fhir(port, &authority, Some(&own));
    assert_eq!(client.tell(&sample()).await.unwrap(), "HTTP 200, report created");
    assert!(!format!("{client:?}").contains("sesame"));
    for client in [fhir(port, &authority, None), fhir(port, &other, Some(&own))] {
        let failure = client.tell(&sample()).await.unwrap_err();
        assert!(matches!(failure, TellError::Connection { .. }) && !failure.is_permanent(), "{failure}");
    }
}
