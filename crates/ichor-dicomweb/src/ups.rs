//! UPS-RS as user agent (PS3.18 chapter 11, PS3.4 Annex CC): workitems of another are found, claimed, reported on and finished.
//!
//! What the server answers is read up to a cap and checked: an answer about another workitem than the one that was asked for is an
//! error.

mod channel;

use ichor_core::{AeTitle, Uid};
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, WARNING};
use reqwest::{Method, Url};
use thiserror::Error;
use tracing::debug;

pub use channel::EventChannel;

use crate::client::StowClient;
use crate::error::StowError;
use crate::outcome::words;
use crate::server::ups::attributes::{self, DataSet, SOP_INSTANCE, STATE, TRANSACTION, attribute};
use crate::server::ups::{UpsState, data_set};

/// All workitems (PS3.4 CC.2.3.1).
const WORKLIST: &str = "1.2.840.10008.5.1.4.34.5";

const JSON: &str = "application/dicom+json";

/// Why a request for a workitem did not end as it was meant to.
#[derive(Debug, Error)]
pub enum UpsError {
    /// There is no answer.
    #[error(transparent)]
    Web(#[from] StowError),
    /// The server refuses.
    #[error("HTTP status {status}: {words}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's words, cut and cleaned.
        words: String,
    },
    /// The answer is not one to the question.
    #[error("the answer of the task list: {0}")]
    NotAnAnswer(String),
}

impl UpsError {
    /// Whether the state of the workitem, or somebody else's Transaction UID, forbids it (409).
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether it is said to be somebody else's: the words of PS3.18 11.6.3 and 11.7.3 name the Transaction UID.
    #[must_use]
    pub fn is_of_another(&self) -> bool {
        let names_it = |words: &str| words.to_ascii_lowercase().contains("transaction uid");
        matches!(self, Self::Refused { status: 409, words } if names_it(words))
    }

    /// Whether there is no such workitem (404, 410).
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 410, .. })
    }

    /// Whether the same request may succeed later: nobody is there, the gate is closed, or the server is out of order.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Web(error) => !matches!(error, StowError::Url { .. } | StowError::ResponseTooLarge { .. }),
            Self::Refused { status, .. } => matches!(*status, 300..=399 | 401 | 403 | 405 | 407 | 408 | 429 | 500..),
            Self::NotAnAnswer(_) => true,
        }
    }
}

impl StowClient {
    /// Workitems that match (11.9), at most `limit` behind the first `offset`; `query` holds keywords or tags with values.
    ///
    /// # Errors
    /// [`UpsError`].
    pub async fn search_workitems(
        &self,
        query: &[(&str, &str)],
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DataSet>, UpsError> {
        let mut url = self.resource(&["workitems"]);
        url.query_pairs_mut().extend_pairs(query).append_pair("limit", &limit.to_string());
        // Not every server knows it.
        if offset > 0 {
            url.query_pairs_mut().append_pair("offset", &offset.to_string());
        }
        let (status, body) = self.ask(Method::GET, url, None).await?;
        if status == 204 || body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Vec::new());
        }
        let mut found = attributes::parse_all(&body).map_err(UpsError::NotAnAnswer)?;
        found.truncate(limit);
        Ok(found)
    }

    /// A workitem (11.5).
    ///
    /// # Errors
    /// [`UpsError`], among them [`UpsError::NotAnAnswer`] for another workitem.
    pub async fn workitem(&self, uid: &Uid) -> Result<DataSet, UpsError> {
        let (_, body) = self.ask(Method::GET, self.resource(&["workitems", uid.as_str()]), None).await?;
        let mut sets = attributes::parse_all(&body).map_err(UpsError::NotAnAnswer)?;
        let (Some(set), 0) = (sets.pop(), sets.len()) else {
            return Err(UpsError::NotAnAnswer(format!("not one workitem where {uid} was asked for")));
        };
        match attributes::uid(&set, SOP_INSTANCE) {
            Ok(Some(said)) if said == *uid => Ok(set),
            Ok(Some(said)) => Err(UpsError::NotAnAnswer(format!("workitem {said} where {uid} was asked for"))),
            Ok(None) => Err(UpsError::NotAnAnswer(format!("a workitem without a name where {uid} was asked for"))),
            Err(why) => Err(UpsError::NotAnAnswer(why)),
        }
    }

    /// Claims, completes or cancels a workitem (11.7).
    ///
    /// # Errors
    /// [`UpsError`].
    pub async fn change_workitem_state(&self, uid: &Uid, state: UpsState, transaction: &Uid) -> Result<(), UpsError> {
        let set =
            data_set([(TRANSACTION, attribute("UI", transaction.as_str())), (STATE, attribute("CS", state.as_str()))]);
        self.ask(Method::PUT, self.resource(&["workitems", uid.as_str(), "state"]), Some(set)).await.map(drop)
    }

    /// Sets attributes of a workitem that `transaction` has claimed (11.6). The Transaction UID stands in the query, as PS3.18 has
    /// it, and in the data set, as PS3.4 has it.
    ///
    /// # Errors
    /// [`UpsError`].
    pub async fn update_workitem(&self, uid: &Uid, transaction: &Uid, mut set: DataSet) -> Result<(), UpsError> {
        let mut url = self.resource(&["workitems", uid.as_str()]);
        url.query_pairs_mut().append_pair("transaction-uid", transaction.as_str());
        set.insert(TRANSACTION.to_owned(), attribute("UI", transaction.as_str()));
        self.ask(Method::POST, url, Some(set)).await.map(drop)
    }

    /// Subscribes to all workitems (11.10).
    ///
    /// # Errors
    /// [`UpsError`].
    pub async fn subscribe_to_workitems(&self, subscriber: &AeTitle) -> Result<(), UpsError> {
        let url = self.resource(&["workitems", WORKLIST, "subscribers", subscriber.as_str()]);
        self.ask(Method::POST, url, None).await.map(drop)
    }

    pub(crate) fn resource(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// A request and its answer with a status of success.
    async fn ask(&self, method: Method, url: Url, set: Option<DataSet>) -> Result<(u16, Vec<u8>), UpsError> {
        debug!(%url, %method, "UPS-RS request");
        let mut request = self.http.request(method, url).timeout(self.timeout);
        request = request.header(ACCEPT, JSON).header(CACHE_CONTROL, "no-cache");
        if let Some(set) = set {
            let body = serde_json::Value::Array(vec![serde_json::Value::Object(set)]).to_string();
            request = request.header(CONTENT_TYPE, JSON).body(body);
        }
        let response = self.with_credentials(request).send().await.map_err(|error| self.transport(error))?;
        let status = response.status().as_u16();
        let warning = response.headers().get(WARNING).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = self.read_body(response).await?;
        if (200..300).contains(&status) {
            return Ok((status, body));
        }
        let said = warning.map_or_else(|| words(&body), |warning| words(warning.as_bytes()));
        Err(UpsError::Refused { status, words: said })
    }
}
