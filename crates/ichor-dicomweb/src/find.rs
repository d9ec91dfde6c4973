//! Is an instance there? Asked by QIDO-RS (PS3.18 10.6) or by the metadata of WADO-RS (PS3.18 10.4).

use ichor_core::Uid;
use reqwest::header::{ACCEPT, CACHE_CONTROL};
use serde_json::Value;
use tracing::debug;

use crate::client::StowClient;
use crate::error::StowError;
use crate::outcome::words;

const SOP_INSTANCE_UID: &str = "00080018";

/// How to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// A search for the instance (QIDO-RS).
    #[default]
    Search,
    /// Its metadata (WADO-RS): the service has read the object, not only its index.
    Metadata,
}

/// The unique keys of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceKey {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
}

impl StowClient {
    /// Whether the service finds an instance. A search that is answered without it, and metadata that are not there (404, 410),
    /// are a no; whatever else is no answer is an error.
    ///
    /// # Errors
    /// [`StowError`] when there is no answer that speaks of the instance.
    pub async fn find(&self, key: &InstanceKey, how: Lookup) -> Result<bool, StowError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            match how {
                Lookup::Search => segments.push("instances"),
                Lookup::Metadata => segments.extend([
                    "studies",
                    key.study.as_str(),
                    "series",
                    key.series.as_str(),
                    "instances",
                    key.sop_instance.as_str(),
                    "metadata",
                ]),
            };
        }
        if how == Lookup::Search {
            url.query_pairs_mut()
                .append_pair("StudyInstanceUID", key.study.as_str())
                .append_pair("SeriesInstanceUID", key.series.as_str())
                .append_pair("SOPInstanceUID", key.sop_instance.as_str());
        }
        debug!(%url, "DICOMweb look-up");
        let request = self.http.get(url).timeout(self.timeout);
        // What a cache remembers proves nothing.
        let request = request.header(ACCEPT, "application/dicom+json").header(CACHE_CONTROL, "no-cache");
        let response = self.with_credentials(request).send().await.map_err(|error| self.transport(error))?;
        let status = response.status().as_u16();
        let body = self.read_body(response).await?;
        match (status, how) {
            (204, Lookup::Search) | (404 | 410, Lookup::Metadata) => Ok(false),
            (200, _) => names(&body, &key.sop_instance).ok_or_else(|| not_an_answer(status, &body)),
            _ => Err(not_an_answer(status, &body)),
        }
    }
}

pub(crate) fn not_an_answer(status: u16, body: &[u8]) -> StowError {
    StowError::Status { status, words: words(body), retry_after: None }
}

/// Whether an item of a DICOM JSON answer (PS3.18 F.2) has this SOP Instance UID; `None` if it is no such answer.
fn names(body: &[u8], wanted: &Uid) -> Option<bool> {
    // Some answer an empty search with nothing at all.
    if body.iter().all(u8::is_ascii_whitespace) {
        return Some(false);
    }
    let Value::Array(items) = serde_json::from_slice(body).ok()? else { return None };
    let found = |item: &Value| item[SOP_INSTANCE_UID]["Value"][0].as_str().and_then(|text| Uid::parse(text).ok());
    Some(items.iter().any(|item| found(item).as_ref() == Some(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_names_the_instance_is_a_yes() {
        let wanted = Uid::parse("1.2.3").unwrap();
        let item = |uid: &str| format!(r#"{{"00080018":{{"vr":"UI","Value":["{uid}"]}}}}"#);
        for (body, is) in [
            (String::new(), Some(false)),
            ("[]".to_owned(), Some(false)),
            (format!("[{}]", item("1.2.3")), Some(true)),
            (format!("[{},{}]", item("1.2.4"), item("1.2.3")), Some(true)),
            (format!("[{}]", item("1.2.33")), Some(false)),
            (r#"[{"00080018":{"vr":"UI"}},7]"#.to_owned(), Some(false)),
            (item("1.2.3"), None),
            ("<html>".to_owned(), None),
        ] {
            assert_eq!(names(body.as_bytes(), &wanted), is, "{body}");
        }
    }
}
