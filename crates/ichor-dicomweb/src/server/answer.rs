//! Answers: the Store Instances Response Module (PS3.18 I.2) as DICOM JSON or XML, and plain words for people.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::handler::{PartOutcome, PartResult};
use super::media::AnswerForm;
use super::stream::AnswerBody;

/// Most Warning fields of an answer; each says what is wrong with one instance.
const MAX_WARNINGS: usize = 4;
/// Longest text of a Warning field, in characters.
const MAX_WARNING_TEXT: usize = 160;

pub(super) type Answer = Response<AnswerBody>;

/// An answer in words (no instance was looked at).
pub(super) fn words(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))).into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ichor\""));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    answer
}

/// Asks the peer to come back after a while.
pub(super) fn retry_after(answer: &mut Answer, after: Duration) {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
}

/// The status of a request whose body was read to its end (PS3.18 table 10.5.3-1).
pub(super) fn status_of(results: &[PartResult]) -> StatusCode {
    let failures = || {
        results.iter().filter_map(|result| match &result.outcome {
            PartOutcome::Failed(failure) => Some(failure),
            PartOutcome::Stored | PartOutcome::Warning { .. } => None,
        })
    };
    let is_plain = results.iter().all(|result| result.outcome == PartOutcome::Stored);
    if is_plain {
        StatusCode::OK
    } else if failures().count() < results.len() {
        StatusCode::ACCEPTED
    } else if failures().all(|failure| failure.is_temporary) {
        // Nothing was taken, and for no fault of the peer's: later it may be.
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::CONFLICT
    }
}

/// Where what was stored can be had again.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// URL of the study, if all of it went into one.
    pub(super) study: Option<String>,
    /// URLs of instances by their UIDs.
    pub(super) instances: HashMap<String, String>,
}

/// An answer that says what became of each part. `problem` is what went wrong with the request as a whole.
pub(super) fn of_parts(
    status: StatusCode,
    results: &[PartResult],
    problem: Option<&str>,
    form: AnswerForm,
    places: &Places,
) -> Answer {
    let module = module(results, places);
    let body = match form {
        AnswerForm::Json => Value::Object(module).to_string(),
        AnswerForm::Xml => native_xml(&module),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)).into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    let texts = results.iter().filter_map(text_of);
    for text in problem.map(str::to_owned).into_iter().chain(texts).take(MAX_WARNINGS) {
        warn_of(&mut answer, &text);
    }
    answer
}

/// Adds a warning to an answer.
pub(super) fn warn_of(answer: &mut Answer, text: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("299 ichor \"{}\"", quotable(text))) {
        answer.headers_mut().append(WARNING, value);
    }
}

/// What is wrong with a part, with its name.
pub(super) fn text_of(result: &PartResult) -> Option<String> {
    let (code, text) = match &result.outcome {
        PartOutcome::Stored => return None,
        PartOutcome::Warning { reason, text } => (reason, text),
        PartOutcome::Failed(failure) => (&failure.reason, &failure.text),
    };
    let name = result.sop_instance.as_ref().map_or("a part without name", |uid| uid.as_str());
    Some(format!("{name}: 0x{code:04X} {text}"))
}

/// Printable ASCII that stands between quotes.
fn quotable(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    plain.map(|c| if matches!(c, '"' | '\\') { '\'' } else { c }).take(MAX_WARNING_TEXT).collect()
}

fn attribute(vr: &str, value: Value) -> Value {
    json!({ "vr": vr, "Value": [value] })
}

/// The module as DICOM JSON. Failures that cannot be pinned to an instance go into the Other Failures Sequence.
fn module(results: &[PartResult], places: &Places) -> Map<String, Value> {
    let (mut referenced, mut failed, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for result in results {
        let mut item = Map::new();
        if let Some(uid) = &result.sop_class {
            item.insert("00081150".to_owned(), attribute("UI", json!(uid)));
        }
        if let Some(uid) = &result.sop_instance {
            item.insert("00081155".to_owned(), attribute("UI", json!(uid)));
        }
        if let Some(url) = result.sop_instance.as_ref().and_then(|uid| places.instances.get(uid.as_str()))
            && !matches!(result.outcome, PartOutcome::Failed(_))
        {
            item.insert("00081190".to_owned(), attribute("UR", json!(url)));
        }
        match &result.outcome {
            PartOutcome::Stored => referenced.push(Value::Object(item)),
            PartOutcome::Warning { reason, .. } => {
                item.insert("00081196".to_owned(), attribute("US", json!(reason)));
                referenced.push(Value::Object(item));
            }
            PartOutcome::Failed(failure) => {
                item.insert("00081197".to_owned(), attribute("US", json!(failure.reason)));
                let list = if result.sop_instance.is_some() { &mut failed } else { &mut other };
                list.push(Value::Object(item));
            }
        }
    }
    let sequences = [("00081198", failed), ("00081199", referenced), ("0008119A", other)];
    let there = sequences.into_iter().filter(|(_, items)| !items.is_empty());
    let url = places.study.iter().map(|url| ("00081190".to_owned(), attribute("UR", json!(url))));
    url.chain(there.map(|(tag, items)| (tag.to_owned(), json!({ "vr": "SQ", "Value": items })))).collect()
}

/// The same data set in the Native DICOM Model (PS3.19 A.1). Every text in it is a UID, a number or a URL whose characters
/// were checked, so nothing needs escaping.
fn native_xml(data_set: &Map<String, Value>) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml.push_str("<NativeDicomModel xmlns=\"http://dicom.nema.org/PS3.19/models/NativeDICOM\">");
    attributes(&mut xml, data_set);
    xml.push_str("</NativeDicomModel>\n");
    xml
}

fn attributes(xml: &mut String, data_set: &Map<String, Value>) {
    for (tag, attribute) in data_set {
        let (vr, keyword) = (attribute["vr"].as_str().unwrap_or_default(), keyword(tag));
        let _ = write!(xml, "<DicomAttribute tag=\"{tag}\" vr=\"{vr}\" keyword=\"{keyword}\">");
        for (number, value) in (1..).zip(attribute["Value"].as_array().into_iter().flatten()) {
            match value {
                Value::Object(item) => {
                    let _ = write!(xml, "<Item number=\"{number}\">");
                    attributes(xml, item);
                    xml.push_str("</Item>");
                }
                Value::String(text) => {
                    let _ = write!(xml, "<Value number=\"{number}\">{text}</Value>");
                }
                other => {
                    let _ = write!(xml, "<Value number=\"{number}\">{other}</Value>");
                }
            }
        }
        xml.push_str("</DicomAttribute>");
    }
}

/// Keywords (PS3.6) of what [`module`] writes.
fn keyword(tag: &str) -> &'static str {
    match tag {
        "00081150" => "ReferencedSOPClassUID",
        "00081155" => "ReferencedSOPInstanceUID",
        "00081196" => "WarningReason",
        "00081190" => "RetrieveURL",
        "00081197" => "FailureReason",
        "00081198" => "FailedSOPSequence",
        "00081199" => "ReferencedSOPSequence",
        "0008119A" => "OtherFailuresSequence",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use ichor_core::Uid;

    use super::super::handler::PartFailure;
    use super::*;
    use crate::outcome::{FailureReason, InstanceOutcome, ResponseModule};

    fn result(uid: Option<&str>, outcome: PartOutcome) -> PartResult {
        let sop_class = uid.map(|_| Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap());
        PartResult { sop_class, sop_instance: uid.map(|uid| Uid::parse(uid).unwrap()), outcome }
    }

    fn failed(reason: u16, is_temporary: bool) -> PartOutcome {
        PartOutcome::Failed(PartFailure { reason, text: "\"why\"\r\nX: y".to_owned(), is_temporary })
    }

    #[test]
    fn statuses() {
        let (stored, full, wrong) = (PartOutcome::Stored, failed(0xA700, true), failed(0xA900, false));
        let warning = PartOutcome::Warning { reason: 0xB000, text: String::new() };
        for (outcomes, status) in [
            (vec![stored.clone(), stored.clone()], 200),
            (vec![stored.clone(), wrong.clone()], 202),
            (vec![stored.clone(), full.clone()], 202),
            (vec![warning.clone()], 202),
            (vec![wrong.clone(), full.clone()], 409),
            (vec![wrong], 409),
            (vec![full.clone(), full], 503),
        ] {
            let results: Vec<_> = outcomes.into_iter().map(|outcome| result(Some("1.2"), outcome)).collect();
            assert_eq!(status_of(&results).as_u16(), status, "{results:?}");
        }
    }

    #[test]
    fn both_forms_are_read_by_the_client() {
        let results = [
            result(Some("1.1"), PartOutcome::Stored),
            result(Some("1.2"), failed(0xA900, false)),
            result(Some("1.3"), PartOutcome::Warning { reason: 0xB000, text: String::new() }),
            result(None, failed(0xC000, false)),
        ];
        let url = "http://host/dicom-web/studies/1/series/2/instances/1.1";
        let instances = HashMap::from([("1.1".to_owned(), url.to_owned()), ("1.2".to_owned(), "no".to_owned())]);
        let places = Places { study: Some("http://host/dicom-web/studies/1".to_owned()), instances };
        for form in [AnswerForm::Json, AnswerForm::Xml] {
            let body = match form {
                AnswerForm::Json => Value::Object(module(&results, &places)).to_string(),
                AnswerForm::Xml => native_xml(&module(&results, &places)),
            };
            let read = ResponseModule::parse(body.as_bytes()).unwrap();
            let of = |uid: &str| read.of(&Uid::parse(uid).unwrap());
            assert_eq!(of("1.1"), InstanceOutcome::Accepted { warning: None }, "{body}");
            assert_eq!(of("1.2"), InstanceOutcome::Failed(FailureReason(Some(0xA900))));
            assert_eq!(of("1.3"), InstanceOutcome::Accepted { warning: Some(0xB000) });
            assert_eq!(read.other_failure(), Some(FailureReason(Some(0xC000))));
            assert!(body.contains(url) && body.contains("studies/1\"") == (form == AnswerForm::Json), "{body}");
            assert!(!body.contains("no\""), "what was not stored is nowhere: {body}");
        }
    }

    #[test]
    fn warnings_stay_in_their_field() {
        let results: Vec<_> = (0..9).map(|_| result(Some("1.2"), failed(0xA900, false))).collect();
        let answer = of_parts(StatusCode::CONFLICT, &results, Some("é"), AnswerForm::Json, &Places::default());
        let warnings: Vec<_> = answer.headers().get_all(WARNING).iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(warnings.len(), MAX_WARNINGS);
        assert_eq!(warnings[0], "299 ichor \"?\"");
        assert_eq!(warnings[1], "299 ichor \"1.2: 0xA900 'why'??X: y\"");
    }
}
