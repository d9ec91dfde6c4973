//! Over a real connection: nobody holds one for long by doing nothing.

use std::net::SocketAddr;
use std::time::Duration;

use ichor_admin::{AccessOptions, AdminOptions, AdminServer};
use ichor_core::TrustedProxies;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::Site;

/// A test that waits longer fails.
const PATIENCE: Duration = Duration::from_secs(30);

async fn served(site: &Site, timeout: Duration) -> (SocketAddr, DropGuard) {
    served_with(site, AdminOptions { timeout, ..AdminOptions::default() }).await
}

async fn served_with(site: &Site, options: AdminOptions) -> (SocketAddr, DropGuard) {
    let server = AdminServer::bind(SocketAddr::from(([127, 0, 0, 1], 0)), site.admin.routes(), options).await.unwrap();
    let (address, shutdown) = (server.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(server.run(shutdown.clone()));
    (address, shutdown.drop_guard())
}

async fn sent(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the peer closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("the connection stays open").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The status of the answer that begins to come.
async fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut line)).await.expect("no answer comes").unwrap();
    String::from_utf8_lossy(&line[9..]).into_owned()
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_connection() {
    let site = Site::new().await;
    let (address, _guard) = served(&site, Duration::from_millis(300)).await;
    for path in ["/login", "/welcome", "/health/live", "/nowhere"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: ichor\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: 100\r\n\r\nname="
        );
        let answer = rest(&mut sent(address, &request).await).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
    }
    let body = "name=anna&password=x";
    let head = format!(
        "POST /login HTTP/1.1\r\nhost: ichor\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(status(&mut sent(address, &format!("{head}{body}")).await).await, "401", "one that comes is read");
}

/// The status of a login with a wrong password, through a proxy that says this.
async fn guess(address: SocketAddr, fields: &str) -> String {
    let body = "name=eve&password=guess";
    let head = format!(
        "POST /login HTTP/1.1\r\nhost: ichor\r\ncontent-type: application/x-www-form-urlencoded\r\n{fields}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    status(&mut sent(address, &format!("{head}{body}")).await).await
}

#[tokio::test]
async fn a_proxy_is_believed_where_it_is_trusted() {
    let access = AccessOptions { login_attempts: 3, ..AccessOptions::default() };
    let site = Site::with(access).await;
    let admin = site.first_admin().await;
    let last = async || site.get(&admin, "/api/audit?limit=1").await.json()[0].clone();
    let trusted_proxies = TrustedProxies::new(vec!["127.0.0.1".parse().unwrap()]);
    let (address, _guard) = served_with(&site, AdminOptions { trusted_proxies, ..AdminOptions::default() }).await;
    for (fields, status, from) in [
        ("x-forwarded-for: 203.0.113.7\r\n", "401", "203.0.113.7"),
        // Whoever makes up the rest of the chain is counted by what the proxy says, and limited by it.
        ("x-forwarded-for: 10.0.0.1, 203.0.113.7\r\n", "401", "203.0.113.7"),
        ("x-forwarded-for: 127.0.0.1, 10.0.0.2, 203.0.113.7\r\n", "401", "203.0.113.7"),
        ("x-forwarded-for: 10.0.0.3, 203.0.113.7\r\n", "429", "203.0.113.7"),
        ("x-forwarded-for: 203.0.113.8\r\n", "401", "203.0.113.8"),
        ("forwarded: for=\"[2001:db8::1]:80\"\r\n", "401", "2001:db8::1"),
    ] {
        assert_eq!(guess(address, fields).await, status, "{fields}");
        let row = last().await;
        assert_eq!(row["address"], from, "{row}");
    }
    let before = last().await;
    for unclear in ["x-forwarded-for: nobody\r\n", "x-forwarded-for: 203.0.113.7\r\nforwarded: for=10.0.0.1\r\n"] {
        assert_eq!(guess(address, unclear).await, "400", "{unclear}");
    }
    assert_eq!(last().await, before, "nobody was asked for a password");

    // Without trust a chain says nothing, however it varies.
    let (address, _guard) = served(&site, PATIENCE).await;
    for (number, status) in ["401", "401", "401", "429"].into_iter().enumerate() {
        assert_eq!(guess(address, &format!("x-forwarded-for: 198.51.100.{number}\r\n")).await, status);
        assert_eq!(last().await["address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn answers_that_are_not_read_end_the_connection() {
    let site = Site::new().await;
    let (address, _guard) = served(&site, Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = "GET /assets/ichor.js HTTP/1.1\r\nhost: ichor\r\n\r\n".repeat(1_000);
    let asking = async {
        loop {
            if stream.write_all(ask.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the connection stays open");
}

#[tokio::test]
async fn a_user_hears_few_streams_at_once() {
    let site = Site::new().await;
    let admin = site.first_admin().await;
    let other = site.user(&admin, "vera", "viewer").await;
    let (address, _guard) = served(&site, Duration::from_secs(15)).await;
    let request = |who: &crate::support::Who| {
        let lines: String = who.0.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("GET /api/events HTTP/1.1\r\nhost: ichor\r\n{lines}\r\n")
    };
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut stream = sent(address, &request(&admin)).await;
        assert_eq!(status(&mut stream).await, "200");
        open.push(stream);
    }
    assert_eq!(status(&mut sent(address, &request(&admin)).await).await, "429");
    assert_eq!(status(&mut sent(address, &request(&other)).await).await, "200", "somebody else");
    open.pop();
    let again = async {
        while status(&mut sent(address, &request(&admin)).await).await != "200" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("the place of a stream that ended stays taken");
}
