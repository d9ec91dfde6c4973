//! FHIR R4 (4.0.1): what happened to a study as a transaction of `DiagnosticReport`, `Observation`s, `ImagingStudy` and
//! `Device` (<https://hl7.org/fhir/R4/http.html#transaction>).
//!
//! Everything in it is found again by an identifier that is derived from the study: report and observations are updated
//! where they exist (conditional update), study and device created where they do not (conditional create). The same
//! message sent twice leaves the same resources.

mod answer;
mod bundle;
mod parts;

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use self::answer::{Transaction, issues};
use crate::http::{self, Trust};
use crate::{Announcement, SetupError, TellError};

/// Largest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Largest statement of what a server can do that is read, in bytes: it lists every search of every resource.
const LONGEST_CAPABILITIES: usize = 32 << 20;

/// The media type of resources as JSON.
const FHIR_JSON: &str = "application/fhir+json";

/// Gives the bearer token of an attempt, or says why there is none: a token that was renewed needs no restart.
pub type TokenSource = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What becomes of the server's own record of the study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagingStudyPolicy {
    /// Created where there is none; one that is there, such as the PACS's, stays as it is.
    Create,
    /// Kept up to date by ichor.
    Update,
}

/// How identifiers of the site are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Namespace of Patient IDs, a URI; `None`: none is named.
    pub patient_system: Option<String>,
    /// Namespace of accession numbers, a URI; `None`: none is named.
    pub accession_system: Option<String>,
    /// What becomes of the study's record.
    pub imaging_study: ImagingStudyPolicy,
}

/// Settings of a channel.
pub struct FhirOptions {
    /// Base URL of the server.
    pub url: String,
    /// Where the bearer token comes from, if the server asks for one.
    pub token: Option<TokenSource>,
    /// Authorities of which one must have issued the server's certificate, PEM; `None`: the system's.
    pub root_certificates: Option<Vec<u8>>,
    /// Own certificate with its chain, and its key, PEM, for servers that ask for one.
    pub identity: Option<Vec<u8>>,
    /// Names of the site.
    pub naming: Naming,
    /// Time to connect, and for the whole exchange.
    pub timeout: Duration,
}

/// Tells one server.
pub struct FhirClient {
    http: Client,
    url: Url,
    token: Option<TokenSource>,
    naming: Naming,
    timeout: Duration,
}

impl fmt::Debug for FhirClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FhirClient").field("naming", &self.naming).finish_non_exhaustive()
    }
}

impl FhirClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// [`SetupError::Value`] for a URL, a token or a certificate that cannot be used.
    pub fn new(options: FhirOptions) -> Result<Self, SetupError> {
        let url = http::url(&options.url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(SetupError::Value("the base URL of a FHIR server has neither query nor fragment".to_owned()));
        }
        let trust = Trust { roots: options.root_certificates.as_deref(), identity: options.identity.as_deref() };
        let http = http::client(&url, options.timeout, &trust)?;
        let FhirOptions { token, naming, timeout, .. } = options;
        let client = Self { http, url, token, naming, timeout };
        client.authorization().map_err(SetupError::Value)?;
        Ok(client)
    }

    /// Sends one and waits for the answer: its status, and what became of the report.
    ///
    /// # Errors
    /// Every [`TellError`]. 408, 409, 425, 429, 5xx, and 401 and 403, which a renewed token mends, may pass; all else of
    /// 300 and more will not. An answer of 2xx that is no answer to a transaction counts as none.
    pub async fn tell(&self, announcement: &Announcement) -> Result<String, TellError> {
        let bundle = bundle::of(announcement, &self.naming)?;
        let sent = bundle["entry"].as_array().map_or(0, Vec::len);
        let body = serde_json::to_vec(&bundle).map_err(|error| TellError::Message(error.to_string()))?;
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, FHIR_JSON)
            .header(ACCEPT, FHIR_JSON)
            .header("prefer", "return=minimal")
            .header("x-request-id", &announcement.id);
        if let Some(value) = self.authorization().map_err(TellError::Refused)? {
            request = request.header(reqwest::header::AUTHORIZATION, value);
        }
        request = http::traced(request, announcement);
        let failed = |error: reqwest::Error| http::failed(&error, &self.url, self.timeout);
        let response = request.body(body).send().await.map_err(failed)?;
        let status = response.status();
        let answer = self.body(response, LONGEST_ANSWER).await?;
        if status.is_success() {
            let report = Transaction::parse(&answer).and_then(|transaction| transaction.check(sent));
            return report
                .map(|word| format!("HTTP {}, report {word}", status.as_u16()))
                .map_err(|why| TellError::Answer(format!("HTTP {}: {why}", status.as_u16())));
        }
        let mut words = format!("HTTP {}", status.as_u16());
        for issue in issues(&answer) {
            words = format!("{words}, {issue}");
        }
        let is_access = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if http::may_pass(status) || is_access || status == StatusCode::CONFLICT {
            Err(TellError::Refused(words))
        } else {
            Err(TellError::RefusedForGood(words))
        }
    }

    /// Asks the server what it can do (<https://hl7.org/fhir/R4/http.html#capabilities>), with the credentials of a message; its
    /// version of FHIR. The server keeps nothing of it.
    ///
    /// # Errors
    /// As [`Self::tell`]: a status other than success is a refusal, what is no `CapabilityStatement` no answer.
    pub async fn capabilities(&self) -> Result<String, TellError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("metadata");
        }
        let mut request = self.http.get(url).header(ACCEPT, FHIR_JSON);
        if let Some(value) = self.authorization().map_err(TellError::Refused)? {
            request = request.header(reqwest::header::AUTHORIZATION, value);
        }
        let failed = |error: reqwest::Error| http::failed(&error, &self.url, self.timeout);
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(TellError::Refused(format!("HTTP {status}")));
        }
        let answer = self.body(response, LONGEST_CAPABILITIES).await?;
        answer::version(&answer).map_err(|why| TellError::Answer(format!("HTTP {status}: {why}")))
    }

    /// Reads an answer up to the cap.
    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, TellError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| http::failed(&error, &self.url, self.timeout))? {
            if body.len() + chunk.len() > limit {
                return Err(TellError::Answer(format!("longer than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The field of the header, marked as a secret.
    fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let Some(source) = &self.token else { return Ok(None) };
        let token = source()?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "the bearer token is no single line of printable characters".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
