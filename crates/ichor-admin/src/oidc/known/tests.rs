//! A provider that counts what it is asked, changes its keys, and goes away.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::claims::tests::options as any_options;
use super::*;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

#[derive(Default)]
struct Mock {
    issuer: String,
    /// Which key is its own.
    key: AtomicU8,
    is_down: AtomicBool,
    descriptions: AtomicUsize,
    key_sets: AtomicUsize,
}

fn pair(key: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[key; 32]).unwrap()
}

/// A token that is signed with a key.
fn token(key: u8) -> String {
    let header = json!({ "alg": "EdDSA", "kid": key.to_string() }).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(r#"{"sub":"7"}"#));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair(key).sign(signed.as_bytes())))
}

impl Mock {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let mock = Arc::new(Self { issuer, key: AtomicU8::new(1), ..Self::default() });
        let served = Arc::clone(&mock);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&served).answer(stream));
            }
        });
        mock
    }

    async fn answer(self: Arc<Self>, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await.unwrap() == 0 {
                return;
            }
        }
        let is_for_keys = request.starts_with(b"GET /keys ");
        let counter = if is_for_keys { &self.key_sets } else { &self.descriptions };
        counter.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let key = self.key.load(Ordering::SeqCst);
        let body = if is_for_keys {
            let point = URL_SAFE_NO_PAD.encode(pair(key).public_key().as_ref());
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": key.to_string(), "x": point }] })
        } else {
            json!({
                "issuer": self.issuer,
                "authorization_endpoint": format!("{}/authorize", self.issuer),
                "token_endpoint": format!("{}/token", self.issuer),
                "jwks_uri": format!("{}/keys", self.issuer),
                "end_session_endpoint": "/logout",
            })
        };
        let status = if self.is_down.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }

    /// How often it was asked for its description, and for its keys, since the last time.
    fn asked(&self) -> (usize, usize) {
        (self.descriptions.swap(0, Ordering::SeqCst), self.key_sets.swap(0, Ordering::SeqCst))
    }

    fn options(&self, keys_pause: Duration) -> OidcOptions {
        let base = any_options();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        OidcOptions { issuer: self.issuer.clone(), discovery_age: LONG, keys_pause, http, ..base }
    }
}

/// What becomes of eight tokens at once.
async fn at_once(cache: &Cache, token: &str, options: &OidcOptions) -> Vec<Result<Verified, OidcError>> {
    join_all((0..8).map(|_| cache.verify(token, options))).await
}

fn cannot_be_said(verified: &Result<Verified, OidcError>) -> bool {
    matches!(verified, Err(OidcError::Provider(_)))
}

#[tokio::test]
async fn after_other_keys_every_token_is_heard() {
    let (mock, cache) = (Mock::start().await, Cache::default());
    let (at_once_again, later) = (mock.options(Duration::ZERO), mock.options(LONG));
    assert!(at_once(&cache, &token(1), &later).await.iter().all(Result::is_ok));
    assert_eq!(mock.asked(), (1, 1), "one asks for all");
    mock.key.store(2, Ordering::SeqCst);
    // Its keys were asked for a moment ago: nobody knows, and the provider says it again.
    assert!(cannot_be_said(&cache.verify(&token(2), &later).await));
    assert_eq!(mock.asked(), (0, 0));
    let verified = at_once(&cache, &token(2), &at_once_again).await;
    assert!(verified.iter().all(Result::is_ok), "{verified:?}");
    assert_eq!(mock.asked(), (0, 1));
    // A key that it has not, though it was asked after the token came, is not its own.
    let verified = cache.verify(&token(3), &at_once_again).await;
    assert!(matches!(verified, Err(OidcError::Token(_))), "{verified:?}");
}

#[tokio::test]
async fn a_question_for_keys_that_came_to_nothing_refuses_no_token() {
    let (mock, cache) = (Mock::start().await, Cache::default());
    let (at_once_again, later) = (mock.options(Duration::ZERO), mock.options(LONG));
    cache.provider(&later).await.unwrap();
    mock.asked();
    mock.key.store(2, Ordering::SeqCst);
    mock.is_down.store(true, Ordering::SeqCst);
    let verified = at_once(&cache, &token(2), &at_once_again).await;
    assert!(verified.iter().all(cannot_be_said), "{verified:?}");
    assert_eq!(mock.asked(), (0, 1), "those who waited do not ask again");
    assert!(cannot_be_said(&cache.verify(&token(2), &later).await));
    assert_eq!(mock.asked(), (0, 0), "there is a pause");
    assert!(cache.verify(&token(1), &later).await.is_ok(), "what was known is");
    mock.is_down.store(false, Ordering::SeqCst);
    assert!(cache.verify(&token(2), &at_once_again).await.is_ok());
}

#[tokio::test]
async fn a_provider_that_is_away_is_asked_seldom() {
    let (mock, cache) = (Mock::start().await, Cache::default());
    let (at_once_again, later) = (mock.options(Duration::ZERO), mock.options(LONG));
    mock.is_down.store(true, Ordering::SeqCst);
    for made_up in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(matches!(cache.verify(made_up, &later).await, Err(OidcError::Token(_))), "{made_up:?}");
    }
    assert_eq!(mock.asked(), (0, 0), "what is no token asks nobody");
    assert!(at_once(&cache, &token(1), &later).await.iter().all(cannot_be_said));
    assert_eq!(mock.asked(), (1, 0));
    assert!(cache.provider(&later).await.is_err() && cannot_be_said(&cache.verify(&token(1), &later).await));
    assert_eq!(mock.asked(), (0, 0), "there is a pause");
    mock.is_down.store(false, Ordering::SeqCst);
    assert!(cache.verify(&token(1), &at_once_again).await.is_ok());
    mock.asked();

    // What it said is old, or in doubt, and it is away: its keys still tell its tokens.
    mock.is_down.store(true, Ordering::SeqCst);
    let old = OidcOptions { discovery_age: Duration::ZERO, ..mock.options(LONG) };
    assert!(at_once(&cache, &token(1), &old).await.iter().all(Result::is_ok));
    assert_eq!(mock.asked(), (1, 0));
    cache.doubt();
    assert!(cache.verify(&token(1), &later).await.is_ok() && cannot_be_said(&cache.verify(&token(2), &later).await));
    assert!(cache.provider(&later).await.is_err());
    assert_eq!(mock.asked(), (0, 0));
    mock.is_down.store(false, Ordering::SeqCst);
    assert!(cache.provider(&at_once_again).await.is_ok());
}

#[tokio::test]
async fn a_question_runs_on_when_its_asker_has_gone() {
    let (mock, cache) = (Mock::start().await, Cache::default());
    let later = mock.options(LONG);
    let gone = tokio::time::timeout(Duration::from_millis(10), cache.verify(&token(1), &later)).await;
    assert!(gone.is_err());
    assert!(cache.verify(&token(1), &later).await.is_ok());
    assert_eq!(mock.asked(), (1, 1));
}

#[tokio::test]
async fn an_odd_place_to_log_out_at_keeps_nobody_out() {
    let (mock, cache) = (Mock::start().await, Cache::default());
    let provider = cache.provider(&mock.options(LONG)).await.unwrap();
    assert!(provider.end_session.is_none());
}
