//! Settings of the STOW-RS client.

use std::fmt;
use std::time::Duration;

/// How the client proves who it is. Its `Debug` form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// An OAuth 2.0 bearer token (RFC 6750).
    Bearer(String),
    /// HTTP basic authentication (RFC 7617).
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("Bearer(..)"),
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
        }
    }
}

/// Where and how to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StowOptions {
    /// Base URL of the DICOMweb service, without `/studies`.
    pub url: String,
    /// Credentials, if the peer asks for any.
    pub credentials: Option<Credentials>,
    /// Longest wait for a connection, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest time for one request, from the first byte sent to the last byte of the answer. Default 60 s.
    pub timeout: Duration,
    /// Largest answer that is read, in bytes. Default 1 MiB.
    pub max_response_bytes: usize,
    /// Certificates in PEM form to trust **instead of** the system's: a hospital's own authority.
    pub root_certificates: Option<Vec<u8>>,
    /// Own certificate with its chain, and its private key, in PEM form: for peers that ask for one (mutual TLS).
    pub identity: Option<Vec<u8>>,
    /// Whether to go through the proxy that the environment names. Default no: a PACS is a neighbour.
    pub use_system_proxy: bool,
}

impl StowOptions {
    /// The defaults for a service at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            credentials: None,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            max_response_bytes: 1024 * 1024,
            root_certificates: None,
            identity: None,
            use_system_proxy: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut options = StowOptions::new("http://pacs/dicom-web");
        options.credentials = Some(Credentials::Bearer("hush".to_owned()));
        assert!(!format!("{options:?}").contains("hush"));
        options.credentials = Some(Credentials::Basic { user: "ichor".to_owned(), password: "hush".to_owned() });
        assert!(!format!("{options:?}").contains("hush") && format!("{options:?}").contains("ichor"));
    }
}
