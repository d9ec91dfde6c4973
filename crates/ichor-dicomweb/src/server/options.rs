//! Settings of the server.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, IpNetwork, TrustedProxies};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::handler::Refusal;
use super::ups::UpsOptions;

/// Settings of a [`super::StowServer`].
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Path before `/studies`, with a leading slash and without a trailing one (default: `/dicom-web`).
    pub prefix: String,
    /// Who may send; nobody without a rule (default: none).
    pub clients: Vec<ClientRule>,
    /// Proxies that are believed when they say whom they speak for (default: none).
    pub trusted_proxies: TrustedProxies,
    /// Connections at once; one more is answered with 503 (default: 64).
    pub max_connections: usize,
    /// Requests at once; one more is answered with 503 (default: 16).
    pub max_requests: usize,
    /// Longest header of a request, in bytes (default: 64 KiB, at least 8 KiB).
    pub max_header_bytes: usize,
    /// Longest body, in bytes; a longer one is answered with 413 (default: 16 GiB).
    pub max_body_bytes: u64,
    /// Longest part, in bytes; a longer one is answered with failure reason 0xA700, as a C-STORE is (default: 2 GiB).
    pub max_part_bytes: u64,
    /// Most parts of a body; one more is answered with 413 (default: 10,000).
    pub max_parts: usize,
    /// Time for a whole request header, and for a TLS handshake (default: 10 s).
    pub header_timeout: Duration,
    /// Time without a byte of the body before the connection is ended (default: 30 s).
    pub body_idle_timeout: Duration,
    /// Fewest bytes a second of a body, over each [`Self::body_idle_timeout`] of waiting for the peer (default: 1,024).
    pub min_bytes_per_second: u64,
    /// Time for a peer to read its answer and to begin another request (default: 30 s).
    pub answer_timeout: Duration,
    /// What Retry-After of a 503 says (default: 10 s).
    pub retry_after: Duration,
    /// Time that open requests have to finish at shutdown (default: 10 s).
    pub drain_timeout: Duration,
    /// TLS; plain HTTP without (default: none).
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Searching and retrieving.
    pub reading: ReadingOptions,
    /// The worklist (UPS-RS) beside the studies (default: none).
    pub ups: Option<UpsOptions>,
}

/// Settings of what searches and retrieves.
#[derive(Clone, Debug)]
pub struct ReadingOptions {
    /// What URLs in answers begin with, up to the prefix, such as `https://pacs.example`; without one it is taken from the
    /// request (default: none).
    pub url: Option<String>,
    /// Searches and retrievals at once; one more waits for [`ServerOptions::retry_after`], and is answered with 503
    /// (default: 16).
    pub max_at_once: usize,
    /// Most results of a search; a client that asks for more is warned (default: 1,000).
    pub max_results: usize,
    /// Most headers that are read for one search; a broader one is answered with 413 (default: 10,000).
    pub max_examined: usize,
    /// Most instances of one answer; more are answered with 413 (default: 20,000).
    pub max_instances: usize,
    /// Most frames that are asked for at once (default: 2,000).
    pub max_frames: usize,
    /// Most parameters of a query; more are answered with 400 (default: 100).
    pub max_parameters: usize,
    /// Origins of pages whose scripts may read answers (default: none).
    pub cors_origins: Vec<String>,
}

impl Default for ReadingOptions {
    fn default() -> Self {
        Self {
            url: None,
            max_at_once: 16,
            max_results: 1_000,
            max_examined: 10_000,
            max_instances: 20_000,
            max_frames: 2_000,
            max_parameters: 100,
            cors_origins: Vec::new(),
        }
    }
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Store instances (STOW-RS).
    Store,
    /// Search what is held (QIDO-RS).
    Search,
    /// Retrieve it (WADO-RS).
    Retrieve,
    /// See and change workitems (UPS-RS).
    Worklist,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Search => "search",
            Self::Retrieve => "retrieve",
            Self::Worklist => "use the worklist",
        })
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            prefix: "/dicom-web".to_owned(),
            clients: Vec::new(),
            trusted_proxies: TrustedProxies::default(),
            max_connections: 64,
            max_requests: 16,
            max_header_bytes: 64 << 10,
            max_body_bytes: 16 << 30,
            max_part_bytes: 2 << 30,
            max_parts: 10_000,
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(30),
            min_bytes_per_second: 1024,
            answer_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            tls: None,
            reading: ReadingOptions::default(),
            ups: None,
        }
    }
}

/// A client: every condition must hold.
#[derive(Clone, Debug)]
pub struct ClientRule {
    /// Name; the handler gets it.
    pub name: String,
    /// The bearer token (RFC 6750) that it shows; without one, the address alone is enough.
    pub token: Option<Token>,
    /// Networks of which one must hold its address; none at all is any address.
    pub networks: Vec<IpNetwork>,
    /// What it may do.
    pub may: Vec<Right>,
    /// Titles of subscribers (UPS-RS) that are this client's alone; titles of no client are anybody's.
    pub subscribers: Vec<AeTitle>,
}

impl ClientRule {
    /// Whether it may do something.
    pub(super) fn check(&self, right: Right) -> Result<(), Refusal> {
        if self.may.contains(&right) { Ok(()) } else { Err(Refusal::NotAllowed(right)) }
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(address))
    }
}

/// A secret, of which only the digest is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Keeps the digest of a secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Compares in a time that does not depend on the secret.
    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl ServerOptions {
    /// Whether some client may send from this address.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        self.clients.iter().any(|client| client.covers(address))
    }

    /// The client that a request comes from, by its address and the Authorization field.
    pub(super) fn client(&self, address: IpAddr, authorization: Option<&str>) -> Result<&ClientRule, Refusal> {
        if !self.is_known(address) {
            return Err(Refusal::UnknownAddress);
        }
        let Some(authorization) = authorization else {
            let open = self.clients.iter().find(|client| client.token.is_none() && client.covers(address));
            return open.ok_or(Refusal::Unauthorized);
        };
        let (scheme, secret) = authorization.split_once(' ').unwrap_or((authorization, ""));
        let shown = Token::new(secret.trim());
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        // Every token is compared: the time does not tell which one matched.
        let mut named = None;
        for client in &self.clients {
            if client.token.as_ref().is_some_and(|token| token.is(&shown)) && is_bearer {
                let better = named.is_none_or(|found: &ClientRule| !found.covers(address));
                named = if better { Some(client) } else { named };
            }
        }
        match named {
            Some(client) if client.covers(address) => Ok(client),
            Some(_) => Err(Refusal::WrongAddress),
            None => Err(Refusal::Unauthorized),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ServerOptions {
        let rule = |name: &str, token: Option<&str>, network: &str| ClientRule {
            name: name.to_owned(),
            token: token.map(Token::new),
            networks: vec![network.parse().unwrap()],
            may: vec![Right::Store],
            subscribers: Vec::new(),
        };
        let clients = vec![
            rule("ROUTER", Some("router's secret"), "10.0.0.0/8"),
            rule("SCANNER", None, "10.1.0.0/16"),
            rule("ROUTER_B", Some("router's secret"), "192.168.0.0/16"),
        ];
        ServerOptions { clients, ..ServerOptions::default() }
    }

    #[test]
    fn who_may_send() {
        let options = options();
        for (address, authorization, wanted) in [
            ("10.2.0.1", Some("Bearer router's secret"), Ok("ROUTER")),
            ("10.2.0.1", Some("bearer  router's secret "), Ok("ROUTER")),
            ("192.168.0.1", Some("Bearer router's secret"), Ok("ROUTER_B")),
            ("10.1.0.1", None, Ok("SCANNER")),
            ("10.1.0.1", Some("Bearer guess"), Err(Refusal::Unauthorized)),
            ("10.2.0.1", None, Err(Refusal::Unauthorized)),
            ("10.2.0.1", Some("Basic router's secret"), Err(Refusal::Unauthorized)),
            ("10.2.0.1", Some(""), Err(Refusal::Unauthorized)),
            ("10.2.0.1", Some("Bearer"), Err(Refusal::Unauthorized)),
            ("172.16.0.1", Some("Bearer router's secret"), Err(Refusal::UnknownAddress)),
        ] {
            let found = options.client(address.parse().unwrap(), authorization).map(|client| client.name.as_str());
            assert_eq!(found, wanted, "{address} {authorization:?}");
        }
        let nobody = ServerOptions::default();
        assert_eq!(nobody.client("127.0.0.1".parse().unwrap(), None).unwrap_err(), Refusal::UnknownAddress);
    }

    #[test]
    fn a_client_elsewhere_is_told_so() {
        let mut options = options();
        options.clients.truncate(2);
        options.clients[0].networks = vec!["10.9.0.0/16".parse().unwrap()];
        let found = options.client("10.1.0.1".parse().unwrap(), Some("Bearer router's secret"));
        assert_eq!(found.unwrap_err(), Refusal::WrongAddress);
    }

    #[test]
    fn rights_are_those_given() {
        let client = &options().clients[0];
        assert_eq!(client.check(Right::Store), Ok(()));
        assert_eq!(client.check(Right::Search), Err(Refusal::NotAllowed(Right::Search)));
        assert_eq!(Refusal::NotAllowed(Right::Retrieve).to_string(), "this client may not retrieve");
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", options()).contains("secret"));
    }
}
