//! Clients of HTTP that the program makes for others: whom they believe, and what they show.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Client, Identity};

use crate::secrets;

/// Whom a client believes, and what it shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trust<'a> {
    /// Authorities of which one must have issued the other's certificate, PEM; `None`: the system's.
    pub(crate) ca_file: Option<&'a Path>,
    /// Own certificate with its chain, and its key, PEM.
    pub(crate) identity: Option<(&'a Path, &'a Path)>,
}

/// A client that follows no redirection.
///
/// # Errors
/// With the path: a file that cannot be used; a key that anybody may read.
pub(crate) fn client(is_secure: bool, timeout: Duration, trust: Trust<'_>) -> anyhow::Result<Client> {
    let mut http = Client::builder()
        .user_agent(concat!("ichor/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeout)
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(file) = trust.ca_file {
        let certificates = Certificate::from_pem_bundle(&read(file)?);
        http = http.tls_certs_only(certificates.with_context(|| format!("reading {}", file.display()))?);
    } else if !is_secure {
        // No certificate will be looked at; a machine without any must not keep the client from being made.
        http = http.tls_certs_only([]);
    }
    if let Some((certificate, key)) = trust.identity {
        let pem = [read(certificate)?, b"\n".to_vec(), secrets::read(key)?.into_bytes(), b"\n".to_vec()].concat();
        let identity = Identity::from_pem(&pem).with_context(|| format!("reading {}", certificate.display()))?;
        http = http.identity(identity);
    }
    http.build().context("making a client of HTTP")
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}
