//! What the HTTP clients of this crate have in common.

use std::error::Error as _;
use std::time::Duration;

use ichor_core::chain;
use reqwest::{Certificate, Client, Identity, RequestBuilder, StatusCode, Url};

use crate::{Announcement, SetupError, TellError};

/// Whom a client believes, and what it shows.
#[derive(Default)]
pub(crate) struct Trust<'a> {
    /// Authorities of which one must have issued the receiver's certificate, PEM; `None`: the system's.
    pub(crate) roots: Option<&'a [u8]>,
    /// Own certificate with its chain, and its key, PEM.
    pub(crate) identity: Option<&'a [u8]>,
}

/// A URL that can be posted to.
pub(crate) fn url(text: &str) -> Result<Url, SetupError> {
    let value = |why: String| SetupError::Value(why);
    let url = Url::parse(text).map_err(|error| value(format!("URL {text:?}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(value(format!("URL {text:?} is neither http nor https")));
    }
    Ok(url)
}

/// A client that follows no redirection and keeps no connection: results are rare.
pub(crate) fn client(url: &Url, timeout: Duration, trust: &Trust<'_>) -> Result<Client, SetupError> {
    let value = |why: String| SetupError::Value(why);
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(value("no TLS crypto provider is installed".to_owned()));
    }
    let mut http = Client::builder()
        .user_agent(concat!("ichor/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeout)
        .timeout(timeout)
        // What is told must not travel to wherever a redirection points.
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0);
    if let Some(pem) = trust.roots {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|error| value(chain(&error)))?;
        http = http.tls_certs_only(certificates);
    } else if url.scheme() == "http" {
        // No certificate will be looked at; a machine without any must not keep the client from starting.
        http = http.tls_certs_only([]);
    }
    if let Some(pem) = trust.identity {
        http = http.identity(Identity::from_pem(pem).map_err(|error| value(chain(&error)))?);
    }
    http.build().map_err(|error| value(chain(&error)))
}

/// The request, with the trace that it belongs to.
pub(crate) fn traced(request: RequestBuilder, announcement: &Announcement) -> RequestBuilder {
    match &announcement.traceparent {
        Some(traceparent) => request.header("traceparent", traceparent),
        None => request,
    }
}

/// Whether what a status says may pass by itself.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

/// What an exchange that came to no answer is told as.
pub(crate) fn failed(error: &reqwest::Error, url: &Url, timeout: Duration) -> TellError {
    if error.is_timeout() {
        return TellError::Timeout(timeout);
    }
    // The path of a URL can be a secret of its own.
    let peer = url.host_str().unwrap_or_default().to_owned();
    let mut cause = error.source();
    let mut why = "no answer".to_owned();
    while let Some(inner) = cause {
        why = inner.to_string();
        cause = inner.source();
    }
    TellError::Connection { peer, why }
}
