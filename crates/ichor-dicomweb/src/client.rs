//! The STOW-RS client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ichor_core::{Uid, chain};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Body, Certificate, Client, Identity, RequestBuilder, Response, Url};
use tracing::debug;

use crate::error::StowError;
use crate::multipart::Multipart;
use crate::options::{Credentials, StowOptions};
use crate::outcome::{InstanceOutcome, ResponseModule, StowOutcome, words};

/// An instance to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StowInstance {
    /// Its SOP Instance UID, by which the peer must acknowledge it.
    pub sop_instance: Uid,
    /// The Part 10 file.
    pub path: PathBuf,
}

/// The slowest line that is waited for, in bytes a second, beyond the time for the answer itself.
const SLOWEST_LINE: u64 = 64 * 1024;

/// Stores instances at one DICOMweb service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StowClient {
    pub(crate) http: Client,
    pub(crate) base: Url,
    credentials: Option<Credentials>,
    pub(crate) timeout: Duration,
    max_response_bytes: usize,
    /// The header `traceparent` of W3C Trace Context.
    traceparent: Option<String>,
}

impl StowClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// [`StowError::Url`], [`StowError::Client`], and [`StowError::NoCryptoProvider`] when the process has not
    /// installed a rustls provider.
    pub fn new(options: StowOptions) -> Result<Self, StowError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(StowError::NoCryptoProvider);
        }
        let base = base_url(&options.url)?;
        let client_error = |e: reqwest::Error| StowError::Client(chain(&e));
        let mut http = Client::builder()
            .user_agent(concat!("ichor/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            // A token must not travel to wherever a redirection points, and a streamed body cannot be sent twice.
            .redirect(reqwest::redirect::Policy::none())
            // Results are rare; a connection that idled away in between would cost an attempt.
            .pool_max_idle_per_host(0)
            .tcp_nodelay(true);
        if !options.use_system_proxy {
            http = http.no_proxy();
        }
        if let Some(pem) = &options.root_certificates {
            http = http.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(client_error)?);
        } else if base.scheme() == "http" {
            // No certificate will be looked at; a machine without any must not keep the client from starting.
            http = http.tls_certs_only([]);
        }
        if let Some(pem) = &options.identity {
            http = http.identity(Identity::from_pem(pem).map_err(client_error)?);
        }
        Ok(Self {
            http: http.build().map_err(client_error)?,
            base,
            credentials: options.credentials,
            timeout: options.timeout,
            max_response_bytes: options.max_response_bytes,
            traceparent: None,
        })
    }

    /// The same client, whose requests say to which trace they belong (`traceparent` of W3C Trace Context).
    #[must_use]
    pub fn traced(&self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self.clone() }
    }

    /// Stores one instance and returns the peer's words about it.
    ///
    /// # Errors
    /// Every [`StowError`], among them [`StowError::Refused`] and [`StowError::Unconfirmed`] for an answer that does
    /// not say that the peer has **this** instance.
    pub async fn store_one(&self, sop_instance: &Uid, path: &Path) -> Result<String, StowError> {
        let instance = StowInstance { sop_instance: sop_instance.clone(), path: path.to_owned() };
        let outcome = self.store(None, std::slice::from_ref(&instance)).await?;
        let status = outcome.status;
        match outcome.instances.first().map(|(_, outcome)| *outcome) {
            Some(InstanceOutcome::Accepted { warning: None }) => Ok(format!("HTTP {status}, referenced")),
            Some(InstanceOutcome::Accepted { warning: Some(code) }) => {
                Ok(format!("HTTP {status}, referenced with warning 0x{code:04X}"))
            }
            Some(InstanceOutcome::Failed(reason)) => {
                Err(StowError::Refused { status, instance: instance.sop_instance, reason })
            }
            Some(InstanceOutcome::Unmentioned) | None => {
                Err(StowError::Unconfirmed { status, instance: instance.sop_instance, words: outcome.words })
            }
        }
    }

    /// Stores instances with one request, to `{base}/studies` or to `{base}/studies/{study}`.
    ///
    /// # Errors
    /// [`StowError`] when there is no answer that speaks of instances. Refusals of single instances are no error but
    /// an outcome.
    pub async fn store(&self, study: Option<&Uid>, instances: &[StowInstance]) -> Result<StowOutcome, StowError> {
        // A vector: a closure that borrows would keep the future from being `Send` for every caller.
        let paths: Vec<&Path> = instances.iter().map(|instance| instance.path.as_path()).collect();
        let multipart = Multipart::measure(paths).await?;
        let url = self.studies_url(study);
        debug!(%url, instances = instances.len(), bytes = multipart.content_length(), "STOW-RS request");
        let mut request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, multipart.content_type())
            .header(CONTENT_LENGTH, multipart.content_length())
            // A large object on a slow line takes its time.
            .timeout(self.timeout + Duration::from_secs(multipart.content_length() / SLOWEST_LINE))
            .header(ACCEPT, "application/dicom+json");
        request = self.with_credentials(request);
        let body = Body::wrap_stream(multipart.into_stream());
        let response = request.body(body).send().await.map_err(|e| self.transport(e))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = self.read_body(response).await?;
        interpret(status, &headers, &body, instances)
    }

    pub(crate) fn with_credentials(&self, mut request: RequestBuilder) -> RequestBuilder {
        if let Some(traceparent) = &self.traceparent {
            request = request.header("traceparent", traceparent);
        }
        match &self.credentials {
            None => request,
            Some(Credentials::Bearer(token)) => request.bearer_auth(token),
            Some(Credentials::Basic { user, password }) => request.basic_auth(user, Some(password)),
        }
    }

    fn studies_url(&self, study: Option<&Uid>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("studies");
            if let Some(study) = study {
                segments.push(study.as_str());
            }
        }
        url
    }

    /// Reads the answer up to the cap.
    pub(crate) async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, StowError> {
        let status = response.status().as_u16();
        let limit = self.max_response_bytes;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(e))? {
            if body.len() + chunk.len() > limit {
                return Err(StowError::ResponseTooLarge { status, limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(crate) fn transport(&self, error: reqwest::Error) -> StowError {
        if error.is_connect() {
            return StowError::Connect(chain(&error.without_url()));
        }
        if error.is_timeout() {
            return StowError::Timeout(self.timeout);
        }
        StowError::Connection(chain(&error.without_url()))
    }
}

/// Parses and checks the base URL.
fn base_url(text: &str) -> Result<Url, StowError> {
    let refuse = |why: String| StowError::Url { url: text.to_owned(), why };
    let url = Url::parse(text).map_err(|e| refuse(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(format!("scheme {} is neither http nor https", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // It would end up in logs and in this very message.
        return Err(StowError::Url {
            url: url.host_str().unwrap_or_default().to_owned(),
            why: "credentials belong into the credentials setting, not into the URL".to_owned(),
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("a base URL has neither query nor fragment".to_owned()));
    }
    Ok(url)
}

/// What an answer means (PS3.18 table 10.5.3-1).
fn interpret(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    instances: &[StowInstance],
) -> Result<StowOutcome, StowError> {
    let header = |name| headers.get(name).and_then(|v: &reqwest::header::HeaderValue| v.to_str().ok());
    let module = match status {
        200..=299 | 409 => ResponseModule::parse(body),
        _ => None,
    };
    let Some(module) = module else {
        if (200..=299).contains(&status)
            && let Some(first) = instances.first()
        {
            let instance = first.sop_instance.clone();
            return Err(StowError::Unconfirmed { status, instance, words: words(body) });
        }
        let words = header(LOCATION).map_or_else(|| words(body), |to| format!("redirection to {to}"));
        let retry_after = header(RETRY_AFTER).and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
        return Err(StowError::Status { status, words, retry_after });
    };
    let mut outcomes: Vec<(Uid, InstanceOutcome)> =
        instances.iter().map(|i| (i.sop_instance.clone(), module.of(&i.sop_instance))).collect();
    if let ([(_, outcome @ InstanceOutcome::Unmentioned)], Some(reason)) = (&mut outcomes[..], module.other_failure()) {
        // A failure without a name, and only one instance that it can mean.
        *outcome = InstanceOutcome::Failed(reason);
    }
    let mentioned = outcomes.iter().any(|(_, outcome)| *outcome != InstanceOutcome::Unmentioned);
    if status == 409 && !mentioned {
        return Err(StowError::Status { status, words: words(body), retry_after: None });
    }
    Ok(StowOutcome { status, instances: outcomes, words: words(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for bad in ["", "pacs", "ftp://pacs/", "http://u:p@pacs/", "http://pacs/?a=b", "http://pacs/#x", "http://"] {
            let error = base_url(bad).unwrap_err();
            assert!(error.is_permanent() && !error.to_string().contains("u:p"), "{bad}: {error}");
        }
        assert!(base_url("https://pacs.example/dicom-web/").is_ok());
    }
}
