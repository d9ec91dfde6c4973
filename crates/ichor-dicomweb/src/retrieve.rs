//! WADO-RS as user agent (PS3.18 10.4): the instances of a study, a series, or one instance, streamed part by part into sinks.

use std::time::Duration;

use ichor_core::Uid;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Response, Url};
use thiserror::Error;
use tokio::time::timeout;
use tracing::debug;

use crate::client::StowClient;
use crate::error::StowError;
use crate::outcome::words;
use crate::server::media::{BodyKind, body_kind, part_kind};
use crate::server::multipart::{Event, MultipartError, MultipartParser};
use crate::server::{PartFailure, PartResult, PartSink};

/// Files as they are stored, in whatever transfer syntax.
const FILES: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";

/// 0xA700, Out of Resources: the part is longer than it may be.
const TOO_LONG: u16 = 0xA700;

/// Which instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancesOf {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID; absent: all series.
    pub series: Option<Uid>,
    /// SOP Instance UID; absent: all instances.
    pub instance: Option<Uid>,
}

impl InstancesOf {
    /// Reads a Retrieve URL (0008,1190) that lies below `base`: its path goes on with `studies/…` and nothing else, and it has no
    /// query. `None` for every other URL: what a peer made up is never asked for, only what these names give below `base`.
    #[must_use]
    pub fn below(base: &str, url: &str) -> Option<Self> {
        let (base, url) = (Url::parse(base).ok()?, Url::parse(url.trim()).ok()?);
        let same_place = base.scheme() == url.scheme()
            && base.host() == url.host()
            && base.port_or_known_default() == url.port_or_known_default();
        let is_plain =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let rest = url.path().strip_prefix(base.path().trim_end_matches('/'))?.strip_prefix('/')?;
        let names: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
        if !same_place || !is_plain {
            return None;
        }
        let uid = |text: &str| Uid::parse(text).ok().filter(|uid| uid.as_str() == text);
        match names[..] {
            ["studies", study] => Some(Self { study: uid(study)?, series: None, instance: None }),
            ["studies", study, "series", series] => {
                Some(Self { study: uid(study)?, series: Some(uid(series)?), instance: None })
            }
            ["studies", study, "series", series, "instances", instance] => {
                Some(Self { study: uid(study)?, series: Some(uid(series)?), instance: Some(uid(instance)?) })
            }
            _ => None,
        }
    }

    fn path(&self) -> Vec<&str> {
        let mut path = vec!["studies", self.study.as_str()];
        if let Some(series) = &self.series {
            path.extend(["series", series.as_str()]);
            if let Some(instance) = &self.instance {
                path.extend(["instances", instance.as_str()]);
            }
        }
        path
    }
}

/// How much is taken of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrieveLimits {
    /// Most bytes of the whole answer.
    pub max_bytes: u64,
    /// Most bytes of one instance; a longer one is refused, the others are taken.
    pub max_part_bytes: u64,
    /// Most instances.
    pub max_parts: usize,
    /// Longest time without a byte.
    pub idle: Duration,
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retrieved {
    /// What became of each part, in the order in which they came.
    pub parts: Vec<PartResult>,
    /// Bytes of the answer.
    pub bytes: u64,
}

/// Why a retrieval did not come to its end.
#[derive(Debug, Error)]
pub enum RetrieveError {
    /// There is no answer that holds instances.
    #[error(transparent)]
    Web(#[from] StowError),
    /// The answer is of another kind than was asked for.
    #[error("the answer is no multipart/related with DICOM files: {0}")]
    Media(String),
    /// The answer is broken off, or is none.
    #[error("the answer broke off: {0}")]
    Broken(#[from] MultipartError),
    /// Nothing came for too long.
    #[error("nothing of the answer came for {0:?}")]
    Silent(Duration),
    /// It came too slowly.
    #[error("the answer was not over after {0:?}")]
    Late(Duration),
    /// The answer is larger than it may be.
    #[error("the answer is longer than {0}")]
    TooLarge(String),
}

impl RetrieveError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Web(error) => !error.is_permanent(),
            Self::Broken(_) | Self::Silent(_) | Self::Late(_) | Self::Media(_) => true,
            Self::TooLarge(_) => false,
        }
    }
}

impl StowClient {
    /// Where a retrieval is sent to, for the log.
    #[must_use]
    pub fn retrieve_url(&self, what: &InstancesOf) -> String {
        self.resource(&what.path()).to_string()
    }

    /// Retrieves instances; each goes to a sink of its own. What was committed before an error stays.
    ///
    /// # Errors
    /// [`RetrieveError`].
    pub async fn retrieve<S: PartSink>(
        &self,
        what: &InstancesOf,
        limits: &RetrieveLimits,
        retrieved: &mut Retrieved,
        begin: impl FnMut() -> S + Send,
    ) -> Result<(), RetrieveError> {
        let url = self.resource(&what.path());
        debug!(%url, "WADO-RS request");
        let request = self.with_credentials(self.http.get(url).header(ACCEPT, FILES)).send();
        let answer = timeout(self.timeout, request).await.map_err(|_| StowError::Timeout(self.timeout))?;
        let response = answer.map_err(|error| self.transport(error))?;
        let status = response.status().as_u16();
        if status != 200 && status != 206 {
            let body = timeout(self.timeout, self.read_body(response)).await;
            let body = body.map_err(|_| StowError::Timeout(self.timeout))??;
            return Err(StowError::Status { status, words: words(&body), retry_after: None }.into());
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = match body_kind(content_type).map_err(|error| RetrieveError::Media(error.to_string()))? {
            BodyKind::Multipart { boundary } => boundary,
            BodyKind::Single => return Err(RetrieveError::Media("it is a single file".to_owned())),
        };
        let mut parts = Parts { limits, retrieved, open: None };
        self.read_parts(response, &boundary, &mut parts, begin).await
    }

    async fn read_parts<S: PartSink>(
        &self,
        mut response: Response,
        boundary: &str,
        parts: &mut Parts<'_, S>,
        mut begin: impl FnMut() -> S + Send,
    ) -> Result<(), RetrieveError> {
        let idle = parts.limits.idle;
        let mut parser = MultipartParser::new(boundary);
        loop {
            let chunk = timeout(idle, response.chunk()).await.map_err(|_| RetrieveError::Silent(idle))?;
            let Some(chunk) = chunk.map_err(|error| self.transport(error))? else { break };
            parts.retrieved.bytes += chunk.len() as u64;
            if parts.retrieved.bytes > parts.limits.max_bytes {
                return Err(RetrieveError::TooLarge(format!("{} bytes", parts.limits.max_bytes)));
            }
            parser.push(&chunk);
            while let Some(event) = parser.next()? {
                parts.take(event, &mut begin).await?;
            }
        }
        Ok(parser.finish()?)
    }
}

struct Parts<'a, S> {
    limits: &'a RetrieveLimits,
    retrieved: &'a mut Retrieved,
    /// The sink of the present part, and its length.
    open: Option<(S, u64)>,
}

impl<S: PartSink> Parts<'_, S> {
    async fn take(&mut self, event: Event, begin: &mut (impl FnMut() -> S + Send)) -> Result<(), RetrieveError> {
        match event {
            Event::Part(header) => {
                if self.retrieved.parts.len() >= self.limits.max_parts {
                    return Err(RetrieveError::TooLarge(format!("{} instances", self.limits.max_parts)));
                }
                part_kind(header.content_type.as_deref().unwrap_or("application/dicom"))
                    .map_err(|error| RetrieveError::Media(error.to_string()))?;
                self.open = Some((begin(), 0));
            }
            Event::Data(data) => {
                let most = self.limits.max_part_bytes;
                if let Some((sink, length)) = &mut self.open {
                    *length += data.len() as u64;
                    if *length <= most {
                        sink.write(&data).await;
                        return Ok(());
                    }
                }
                if let Some((sink, _)) = self.open.take() {
                    let text = format!("the instance is longer than {most} bytes");
                    let failure = PartFailure { reason: TOO_LONG, text, is_temporary: false };
                    self.retrieved.parts.push(sink.refuse(failure));
                }
            }
            Event::PartEnd => {
                if let Some((sink, _)) = self.open.take() {
                    self.retrieved.parts.push(sink.commit().await);
                }
            }
            Event::End => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_the_base_is_retrieved() {
        let base = "https://pacs.example/dicom-web";
        let whole = InstancesOf::below(base, "https://pacs.example:443/dicom-web/studies/1.2").unwrap();
        assert_eq!((whole.study.as_str(), whole.series, whole.instance), ("1.2", None, None));
        let one = "https://pacs.example/dicom-web/studies/1.2/series/1.3/instances/1.4/";
        let one = InstancesOf::below("https://pacs.example/dicom-web/", one).unwrap();
        assert_eq!(one.path(), ["studies", "1.2", "series", "1.3", "instances", "1.4"]);
        for bad in [
            "http://pacs.example/dicom-web/studies/1.2",
            "https://pacs.example:8443/dicom-web/studies/1.2",
            "https://pacs.example.evil/dicom-web/studies/1.2",
            "https://evil/https://pacs.example/dicom-web/studies/1.2",
            "https://u:p@pacs.example/dicom-web/studies/1.2",
            "https://pacs.example@evil/dicom-web/studies/1.2",
            "https://pacs.example/dicom-web/../admin/studies/1.2",
            "https://pacs.example/dicom-web/%2e%2e/admin",
            "https://pacs.example/dicom-web/studies/..%2f..%2fadmin",
            "https://pacs.example/dicom-web/studies/1.2/metadata",
            "https://pacs.example/dicom-web/studies/1.2?x=http://evil",
            "https://pacs.example/dicom-web/studies/1.2#x",
            "https://pacs.example/dicom-webber/studies/1.2",
            "https://pacs.example/dicom-web/studies/1.2%20",
            "file:///etc/passwd",
            "gopher://pacs.example/dicom-web/studies/1.2",
            "/dicom-web/studies/1.2",
            "",
        ] {
            assert_eq!(InstancesOf::below(base, bad), None, "{bad}");
        }
    }
}
