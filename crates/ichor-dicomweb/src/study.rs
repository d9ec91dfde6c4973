//! A study and its series, with their numbers of instances, asked by QIDO-RS (PS3.18 10.6, table 10.6.1-5).

use ichor_core::Uid;
use reqwest::header::{ACCEPT, CACHE_CONTROL};
use serde_json::Value;
use tracing::debug;

use crate::client::StowClient;
use crate::error::StowError;
use crate::find::not_an_answer;

/// Longest value that is kept, in bytes: what is asked for is shorter.
const LONGEST_VALUE: usize = 256;

/// What a search has found: one item of a DICOM JSON answer (PS3.18 Annex F).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebMatch {
    item: Value,
}

impl WebMatch {
    /// The first value of an attribute as text, numbers as they are written; `None` if it is absent, empty or too long.
    #[must_use]
    pub fn get(&self, (group, element): (u16, u16)) -> Option<String> {
        let text = match &self.item[format!("{group:04X}{element:04X}")]["Value"][0] {
            Value::String(text) if text.len() <= LONGEST_VALUE => text.trim_matches(['\0', ' ']).to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (!text.is_empty()).then_some(text)
    }
}

impl StowClient {
    /// Searches for a study: Accession Number, Patient ID, Number of Study Related Instances.
    ///
    /// # Errors
    /// [`StowError`] when there is no answer to a search.
    pub async fn find_study(&self, study: &Uid) -> Result<Vec<WebMatch>, StowError> {
        let fields = ["00080050", "00100020", "00201208"].map(|field| ("includefield", field));
        let keys = [("StudyInstanceUID", study.as_str())].into_iter().chain(fields);
        self.search(&["studies"], keys).await
    }

    /// Searches for the series of a study: Modality, Number of Series Related Instances.
    ///
    /// # Errors
    /// As [`Self::find_study`].
    pub async fn find_series(&self, study: &Uid) -> Result<Vec<WebMatch>, StowError> {
        let fields = ["00080060", "00201209"].map(|field| ("includefield", field));
        self.search(&["studies", study.as_str(), "series"], fields).await
    }

    async fn search(
        &self,
        path: &[&str],
        keys: impl IntoIterator<Item = (&str, &str)>,
    ) -> Result<Vec<WebMatch>, StowError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.query_pairs_mut().extend_pairs(keys);
        debug!(%url, "QIDO-RS search");
        let request = self.http.get(url).timeout(self.timeout);
        // What a cache remembers may be long past.
        let request = request.header(ACCEPT, "application/dicom+json").header(CACHE_CONTROL, "no-cache");
        let response = self.with_credentials(request).send().await.map_err(|error| self.transport(error))?;
        let status = response.status().as_u16();
        let body = self.read_body(response).await?;
        match status {
            204 => Ok(Vec::new()),
            200 => items(&body).ok_or_else(|| not_an_answer(status, &body)),
            _ => Err(not_an_answer(status, &body)),
        }
    }
}

/// The items of a DICOM JSON answer; `None` if it is no such answer.
fn items(body: &[u8]) -> Option<Vec<WebMatch>> {
    // Some answer an empty search with nothing at all.
    if body.iter().all(u8::is_ascii_whitespace) {
        return Some(Vec::new());
    }
    let Value::Array(items) = serde_json::from_slice(body).ok()? else { return None };
    Some(items.into_iter().map(|item| WebMatch { item }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_and_numbers() {
        let body = br#"[{"00080050":{"vr":"SH","Value":["A-7 "]},"00201208":{"vr":"IS","Value":[28]},
            "0020000D":{"vr":"UI"},"00100020":{"vr":"LO","Value":[null]},"00201209":{"vr":"IS","Value":["28"]}}]"#;
        let found = items(body).unwrap();
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(one.get((0x0008, 0x0050)).as_deref(), Some("A-7"));
        assert_eq!(one.get((0x0020, 0x1208)).as_deref(), Some("28"));
        assert_eq!(one.get((0x0020, 0x1209)).as_deref(), Some("28"));
        for absent in [(0x0020, 0x000D), (0x0010, 0x0020), (0x0008, 0x0060)] {
            assert_eq!(one.get(absent), None);
        }
    }

    #[test]
    fn only_arrays_are_answers() {
        for (body, count) in
            [(&b""[..], Some(0)), (b"[]", Some(0)), (b"{}", None), (b"<html>", None), (b"[1]", Some(1))]
        {
            assert_eq!(items(body).map(|items| items.len()), count, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(items(b"[1]").unwrap()[0].get((0x0008, 0x0050)), None, "an item that is none");
    }
}
