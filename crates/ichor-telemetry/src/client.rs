//! OTLP over HTTP with protobuf bodies (OTLP specification 1.x, "OTLP/HTTP").

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use thiserror::Error;

use crate::span::{Resource, Span, body};

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// Most characters of a collector's words that are kept.
const LONGEST_WORDS: usize = 200;

/// Where further headers come from: lines of `Name: value`, read at each attempt.
pub type HeaderSource = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// How a collector is reached.
pub struct OtlpOptions {
    /// The whole URL, such as `https://collector:4318/v1/traces`.
    pub url: String,
    /// What sends: its roots, its identity and its timeouts are the caller's. It must follow no redirection.
    pub http: Client,
    /// Further headers, such as `Authorization`.
    pub headers: Option<HeaderSource>,
    /// Time for the whole exchange, for words only.
    pub timeout: Duration,
}

/// Sends spans to one collector.
pub struct OtlpClient {
    options: OtlpOptions,
    url: Url,
}

impl fmt::Debug for OtlpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpClient").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// What the collector said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Spans that it refused for good; the others it has.
    pub refused: u64,
    /// Its words about that, tamed.
    pub words: Option<String>,
}

/// Why spans did not get there.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The URL cannot be posted to.
    #[error("URL {0:?} is neither http nor https")]
    Url(String),
    /// The file of headers cannot be read, or has a line that is no header. Never the line itself.
    #[error("headers: {0}")]
    Headers(String),
    /// No connection, or it broke before the answer.
    #[error("connection to {peer} failed: {why}")]
    Connection {
        /// Host.
        peer: String,
        /// What happened.
        why: String,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The collector refuses, and may take it later.
    #[error("refused: HTTP {0}")]
    Refused(u16),
    /// The collector will not take this at any time.
    #[error("refused for good: HTTP {0}")]
    RefusedForGood(u16),
}

impl OtlpError {
    /// Whether no other attempt with the same spans will change it.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::RefusedForGood(_))
    }
}

impl OtlpClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// [`OtlpError::Url`], [`OtlpError::Headers`].
    pub fn new(options: OtlpOptions) -> Result<Self, OtlpError> {
        let url = Url::parse(&options.url).map_err(|_| OtlpError::Url(options.url.clone()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(OtlpError::Url(options.url));
        }
        let client = Self { options, url };
        client.headers()?;
        Ok(client)
    }

    /// Sends spans and waits for the answer.
    ///
    /// # Errors
    /// Every [`OtlpError`]. 400 and 413 are for good; any other status but success may pass.
    pub async fn export(&self, resource: &Resource, spans: &[Span]) -> Result<Exported, OtlpError> {
        let request = self.options.http.post(self.url.clone()).headers(self.headers()?);
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(body(resource, spans));
        let mut answer = request.send().await.map_err(|error| self.failed(&error))?;
        let status = answer.status();
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) {
            return Err(OtlpError::RefusedForGood(status.as_u16()));
        }
        if !status.is_success() {
            return Err(OtlpError::Refused(status.as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.failed(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST_ANSWER {
                return Ok(Exported { refused: 0, words: None });
            }
        }
        // A success is one, whatever stands in it: some collectors answer in JSON.
        let partial = ExportTraceServiceResponse::decode(bytes.as_slice()).ok().and_then(|said| said.partial_success);
        Ok(partial.map_or(Exported { refused: 0, words: None }, |partial| Exported {
            refused: u64::try_from(partial.rejected_spans).unwrap_or(0).min(spans.len() as u64),
            words: (!partial.error_message.is_empty()).then(|| tame(&partial.error_message)),
        }))
    }

    fn headers(&self) -> Result<HeaderMap, OtlpError> {
        let Some(source) = &self.options.headers else { return Ok(HeaderMap::new()) };
        parse(&source().map_err(OtlpError::Headers)?)
    }

    fn failed(&self, error: &reqwest::Error) -> OtlpError {
        if error.is_timeout() {
            return OtlpError::Timeout(self.options.timeout);
        }
        let (mut why, mut cause) = ("no answer".to_owned(), error.source());
        while let Some(inner) = cause {
            (why, cause) = (inner.to_string(), inner.source());
        }
        OtlpError::Connection { peer: self.url.host_str().unwrap_or_default().to_owned(), why }
    }
}

fn parse(text: &str) -> Result<HeaderMap, OtlpError> {
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |what: &str| OtlpError::Headers(format!("line {number} {what}"));
        let (name, value) = line.split_once(':').ok_or_else(|| fault("is not Name: value"))?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| fault("has no name that a header can have"))?;
        let mut value =
            HeaderValue::try_from(value.trim()).map_err(|_| fault("has no value that a header can have"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn tame(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_and_faults_do_not_show_them() {
        let headers = parse("Authorization: Bearer a:b\n\nX-Scope-OrgID: 7\n").unwrap();
        assert_eq!(
            (headers["authorization"].to_str().unwrap(), headers["x-scope-orgid"].as_bytes()),
            ("Bearer a:b", &b"7"[..])
        );
        assert!(!format!("{headers:?}").contains("a:b"), "a secret");
        for bad in ["secret-without-colon", "a b: secret", "a: sec\u{1}ret"] {
            let said = parse(&format!("Good: 1\n{bad}")).unwrap_err().to_string();
            assert!(said.contains("line 2") && !said.contains("sec"), "{said}");
        }
    }

    #[test]
    fn words_of_a_collector_are_tamed() {
        assert_eq!(tame("a\u{1b}[2Jb"), "a [2Jb");
        assert_eq!(tame(&"x".repeat(500)).len(), LONGEST_WORDS);
    }
}
