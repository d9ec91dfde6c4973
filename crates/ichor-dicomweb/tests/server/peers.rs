//! Peers that are slow, too many, unknown, or gone; and the end of the server.

use std::time::{Duration, Instant};

use ichor_core::TrustedProxies;
use ichor_dicomweb::server::{ClientRule, Refusal, Right, ServerOptions, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn silent_and_slow_peers_are_ended() {
    let options = ServerOptions {
        header_timeout: Duration::from_millis(300),
        body_idle_timeout: Duration::from_millis(300),
        answer_timeout: Duration::from_millis(300),
        min_bytes_per_second: 1000,
        ..open_to_all()
    };
    let server = Server::start(options).await;
    let begun = Instant::now();
    // Nothing, half a header, half a body.
    let body = multipart(&[b"1.1 whole", b"1.2 cut"]);
    let bytes = request(STUDIES, RELATED, &body);
    for said in [&b""[..], b"POST /dicom-web/studies HTTP/1.1\r\nHost", &bytes[..bytes.len() - 14]] {
        let mut stream = server.connect().await;
        stream.write_all(said).await.unwrap();
        let answer = Answer::read(&mut stream).await;
        match said.len() {
            0..100 => assert!(answer.is_none_or(|answer| answer.status == 408)),
            _ => assert_eq!(answer.map(|answer| (answer.status, answer.stored())), Some((408, vec!["1.1".to_owned()]))),
        }
    }
    // A header, byte by byte: slow, but never silent.
    let mut stream = server.connect().await;
    let mut sent = 0;
    while stream.write_all(b"x").await.is_ok() && sent < 200 {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(sent < 200, "a header that never ends was read for {:?}", begun.elapsed());
    // A body, byte by byte.
    let mut stream = server.connect().await;
    stream.write_all(&bytes[..bytes.len() - body.len()]).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        for byte in &body {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer).await;
    drip.abort();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("less than 1000 bytes a second"), "{answer}");
    // A peer that has heard its answer and goes on holding the connection.
    let mut stream = server.connect().await;
    stream.write_all(&request(STUDIES, RELATED, &multipart(&[b"1.3"]))).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
    assert!(Answer::read(&mut stream).await.is_none());
}

/// A client by its address alone, who comes through a proxy on loopback.
#[tokio::test]
async fn proxies_are_believed_where_they_are_trusted() {
    let ward = ClientRule {
        subscribers: Vec::new(),
        name: "WARD".to_owned(),
        token: None,
        networks: vec!["203.0.113.0/24".parse().unwrap()],
        may: vec![Right::Store],
    };
    let with = |proxies: &[&str]| ServerOptions {
        clients: vec![ward.clone()],
        trusted_proxies: TrustedProxies::new(proxies.iter().map(|network| network.parse().unwrap()).collect()),
        ..ServerOptions::default()
    };
    let body = multipart(&[b"1.1"]);
    let said = |fields: &str| format!("{RELATED}{fields}");
    let open = Server::start(with(&["127.0.0.1"])).await;
    for (fields, status) in [
        ("X-Forwarded-For: 203.0.113.7\r\n", 200),
        ("Forwarded: for=203.0.113.7;proto=https\r\n", 200),
        ("X-Forwarded-For: 203.0.113.7, 127.0.0.1\r\n", 200),
        // What the client itself says of whom it speaks for is not believed.
        ("X-Forwarded-For: 203.0.113.7, 198.51.100.9\r\n", 403),
        ("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 198.51.100.9\r\n", 403),
        ("X-Forwarded-For: 198.51.100.9\r\nForwarded: for=203.0.113.7\r\n", 400),
        ("X-Forwarded-For: unknown\r\n", 400),
        ("Forwarded: for=_ward\r\n", 400),
        // The proxy's own request.
        ("", 403),
    ] {
        assert_eq!(open.post(STUDIES, &said(fields), &body).await.status, status, "{fields:?}");
    }
    let closed = Server::start(with(&["10.0.0.0/8"])).await;
    assert_eq!(closed.post(STUDIES, &said("X-Forwarded-For: 203.0.113.7\r\n"), &body).await.status, 403);
    assert_eq!(closed.last_refusal(), Refusal::UnknownAddress);
}

#[tokio::test]
async fn who_may_send() {
    let rule = |name: &str, token: &str, network: &str| ClientRule {
        name: name.to_owned(),
        token: Some(Token::new(token)),
        networks: vec![network.parse().unwrap()],
        may: vec![Right::Store],
        subscribers: Vec::new(),
    };
    let clients =
        vec![rule("ROUTER", "a good secret", "127.0.0.0/8"), rule("ELSEWHERE", "another secret", "10.0.0.0/8")];
    let server = Server::start(ServerOptions { clients, ..ServerOptions::default() }).await;
    // Larger than what sockets hold: the refusal must be heard although nobody reads the body.
    let large = multipart(&[&vec![b'1'; 3 << 20]]);
    for (authorization, status) in [
        ("", 401),
        ("Authorization: Bearer a bad secret\r\n", 401),
        ("Authorization: Basic YTpi\r\n", 401),
        ("Authorization: Bearer another secret\r\n", 403),
        ("Authorization: Bearer a good secret\r\n", 200),
    ] {
        let body = if status == 200 { multipart(&[b"1.1"]) } else { large.clone() };
        let mut stream = server.connect().await;
        let bytes = request(STUDIES, &format!("{RELATED}{authorization}"), &body);
        let (mut reader, mut writer) = stream.split();
        let mut heard = Vec::new();
        let hear = async {
            let mut chunk = [0u8; 4096];
            while let Ok(n) = reader.read(&mut chunk).await
                && n > 0
            {
                heard.extend(&chunk[..n]);
                if status == 200 {
                    break;
                }
            }
        };
        let _ = tokio::join!(writer.write_all(&bytes), hear);
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(heard.starts_with(&format!("HTTP/1.1 {status}")), "{authorization:?}: {heard}");
        assert_eq!(status == 401, field(&heard, "www-authenticate").is_some());
    }
    {
        let heard = server.heard.lock().unwrap();
        assert_eq!(heard.refused.iter().map(|(_, refusal)| refusal.status()).collect::<Vec<_>>(), [401, 401, 401, 403]);
        assert_eq!(heard.opened.iter().map(|(sender, _)| sender.client.as_str()).collect::<Vec<_>>(), ["ROUTER"]);
    }
    let nobody = Server::start(ServerOptions::default()).await;
    assert_eq!(nobody.post(STUDIES, RELATED, &multipart(&[b"1.1"])).await.status, 403);
}

#[tokio::test]
async fn too_many_at_once_are_asked_to_wait() {
    let options = ServerOptions { max_requests: 1, max_connections: 2, ..open_to_all() };
    let server = Server::start(options).await;
    let bytes = request(STUDIES, RELATED, &multipart(&[b"1.1"]));
    let mut first = server.connect().await;
    first.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    while server.heard.lock().unwrap().opened.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut second = server.connect().await;
    second.write_all(&bytes).await.unwrap();
    let answer = Answer::read(&mut second).await.unwrap();
    assert_eq!((answer.status, field(&answer.head, "retry-after")), (503, Some("10")));
    assert_eq!(server.last_refusal(), Refusal::Busy("requests"));
    let mut third = server.connect().await;
    assert_eq!(Answer::read(&mut third).await.unwrap().status, 503);
    first.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
    assert_eq!(Answer::read(&mut first).await.unwrap().status, 200);
    drop((first, second, third));
    // The permits come back.
    for _ in 0..200 {
        let mut stream = server.connect().await;
        let _ = stream.write_all(&bytes).await;
        if Answer::read(&mut stream).await.is_some_and(|answer| answer.status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server takes nothing any more");
}

#[tokio::test]
async fn drain_lets_open_requests_finish_and_ends_those_that_do_not() {
    let options = ServerOptions { drain_timeout: Duration::from_secs(2), ..open_to_all() };
    let mut server = Server::start(options).await;
    let bytes = request(STUDIES, RELATED, &multipart(&[b"1.1 a", b"9.3 slow"]));
    let (mut finishes, mut hangs) = (server.connect().await, server.connect().await);
    finishes.write_all(&bytes[..bytes.len() - 2]).await.unwrap();
    hangs.write_all(&bytes[..bytes.len() - 20]).await.unwrap();
    while server.heard.lock().unwrap().opened.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "a stopping server takes connections");
    finishes.write_all(&bytes[bytes.len() - 2..]).await.unwrap();
    let answer = Answer::read(&mut finishes).await.unwrap();
    assert_eq!((answer.status, answer.stored().len()), (200, 2));
    assert!(Answer::read(&mut hangs).await.is_none_or(|answer| answer.status == 400));
    tokio::time::timeout(Duration::from_secs(10), &mut server.task).await.expect("the drain ends").unwrap();
    let heard = server.heard.lock().unwrap();
    let mut ends: Vec<_> = heard.closed.iter().map(|end| (end.status, end.instances)).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(None, 1), (Some(200), 2)]);
}

#[tokio::test]
async fn a_large_body_passes_in_small_pieces() {
    let server = Server::start(open_to_all()).await;
    const LENGTH: usize = 64 << 20;
    let frame = multipart(&[b"1.1 "]);
    let split = frame.len() - b"\r\n--b-1--\r\n".len();
    let mut stream = server.connect().await;
    let head =
        format!("POST {STUDIES} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{RELATED}\r\n", frame.len() + LENGTH);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&frame[..split]).await.unwrap();
    let block = vec![b'-'; 1 << 20];
    for _ in 0..LENGTH / block.len() {
        stream.write_all(&block).await.unwrap();
    }
    stream.write_all(&frame[split..]).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
    let heard = server.heard.lock().unwrap();
    assert_eq!(heard.committed, [("1.1".to_owned(), LENGTH as u64 + 4)]);
    assert!(heard.largest_write <= 512 << 10, "{} bytes at once", heard.largest_write);
}
