//! What is told in the end: the performed procedure with its outputs (PS3.3 C.30.3), or why there are none (C.30.1).
//!
//! What was not analysed is CANCELED with a reason, also where a report of it was made: a step that is COMPLETED would be taken for a
//! head that was looked at.

use std::collections::BTreeMap;

use ichor_core::{AeTitle, DeliveryStatus, TaskStatus, Uid};
use ichor_dicomweb::server::ups::{DataSet, UpsState, attribute, code, data_set, date_time, sequence};
use ichor_store::{ObjectDetail, StudyDetail, Task, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::TaskList;
use super::offer::Request;
use crate::now;

/// Where objects can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By C-MOVE or C-GET from this title.
    AeTitle(AeTitle),
    /// By WADO-RS below this URL.
    WadoRs(String),
}

/// Why a step is not completed (CID 9300).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked for it.
    Asked,
    /// The input is not complete.
    Incomplete,
    /// The input is not what the workitem says.
    WrongInput,
    /// Nothing in the study may be analysed.
    NotAnalysed,
    /// The analysis, or the delivery of its results, failed.
    Failed,
}

impl Why {
    fn code(self) -> DataSet {
        let (value, meaning) = match self {
            Self::Asked => ("110513", "Discontinued for unspecified reason"),
            Self::Incomplete => ("110523", "Object Set incomplete"),
            Self::WrongInput => ("110514", "Incorrect worklist entry selected"),
            Self::NotAnalysed => ("110522", "Object Types not supported"),
            Self::Failed => ("110501", "Equipment failure"),
        };
        code(value, "DCM", meaning)
    }
}

/// What is told, as it stands in the store until it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ending {
    is_completed: bool,
    /// The last update.
    pub(super) update: DataSet,
    /// The same for people.
    pub(super) words: String,
}

impl Ending {
    pub(super) const fn state(&self) -> (UpsState, TaskStatus) {
        if self.is_completed {
            (UpsState::Completed, TaskStatus::Completed)
        } else {
            (UpsState::Canceled, TaskStatus::Canceled)
        }
    }
}

/// The objects of a study's newest version, by how far they are.
pub(super) struct Outputs<'a> {
    /// Accepted by all that they go to, or at least by one when the others gave up; with where they can be had.
    pub(super) done: Vec<(&'a ObjectDetail, Vec<Place>)>,
    /// Destinations that they still wait for.
    pub(super) waiting: Vec<String>,
    /// Accepted nowhere.
    pub(super) undelivered: Vec<&'a ObjectDetail>,
}

pub(super) fn outputs<'a>(list: &TaskList, detail: &'a StudyDetail) -> Outputs<'a> {
    let mut outputs = Outputs { done: Vec::new(), waiting: Vec::new(), undelivered: Vec::new() };
    let newest = detail.summary.result_version.unwrap_or_default();
    for object in detail.objects.iter().filter(|object| object.version == newest) {
        let deliveries: Vec<_> =
            detail.deliveries.iter().filter(|delivery| delivery.sop_instance == object.sop_instance).collect();
        let waits = |status| matches!(status, DeliveryStatus::Queued | DeliveryStatus::Sending);
        outputs.waiting.extend(
            deliveries.iter().filter(|delivery| waits(delivery.status)).map(|delivery| delivery.destination.clone()),
        );
        let accepted: Vec<&str> = deliveries
            .iter()
            .filter(|delivery| !waits(delivery.status) && delivery.status != DeliveryStatus::Dead)
            .map(|delivery| delivery.destination.as_str())
            .collect();
        if accepted.is_empty() && !deliveries.is_empty() {
            outputs.undelivered.push(object);
            continue;
        }
        let places = list.places.iter().filter(|(name, _)| accepted.contains(&name.as_str()));
        let mut places: Vec<Place> = places.map(|(_, place)| place.clone()).collect();
        if deliveries.is_empty() {
            places.extend(list.own_place.clone());
        }
        outputs.done.push((object, places));
    }
    outputs
}

/// The end of a step that was performed.
pub(super) fn completed(list: &TaskList, task: &Task, request: &Request, detail: &StudyDetail) -> Ending {
    let words = finding(detail);
    let update = data_set([
        ("00741002", sequence(vec![progress(100, &words)])),
        ("00741216", sequence(vec![performed(list, task, request, Some(detail))])),
    ]);
    Ending { is_completed: true, update, words }
}

/// The end of a step that was not.
pub(super) fn canceled(
    list: &TaskList,
    task: &Task,
    request: &Request,
    (why, words): (Why, &str),
    detail: Option<&StudyDetail>,
) -> Ending {
    let mut item = progress(task.progress, words);
    item.extend(data_set([
        ("00404052", attribute("DT", moment(now()))),
        ("00741238", attribute("LT", words)),
        ("0074100E", sequence(vec![why.code()])),
    ]));
    let update = data_set([
        ("00741002", sequence(vec![item])),
        ("00741216", sequence(vec![performed(list, task, request, detail)])),
    ]);
    Ending { is_completed: false, update, words: words.to_owned() }
}

fn progress(percent: u8, words: &str) -> DataSet {
    data_set([("00741004", attribute("DS", percent)), ("00741006", attribute("ST", words))])
}

fn moment(at: Timestamp) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_millis()) * 1_000_000);
    at.map(date_time).unwrap_or_default()
}

/// What was found, without a word about the patient.
fn finding(detail: &StudyDetail) -> String {
    let summary = &detail.summary;
    let verdict = if summary.positive == Some(true) { "hemorrhage found" } else { "no hemorrhage detected" };
    let (version, probability) = (summary.result_version.unwrap_or_default(), summary.probability.unwrap_or_default());
    let model = summary.model.as_ref().map(|model| format!(", model {}", model.as_str())).unwrap_or_default();
    let volume = summary.volume_ml.unwrap_or_default();
    format!("version {version}: {verdict} by algorithm, probability {probability:.3}, {volume:.1} mL{model}")
}

/// Item of the Unified Procedure Step Performed Procedure Sequence.
fn performed(list: &TaskList, task: &Task, request: &Request, detail: Option<&StudyDetail>) -> DataSet {
    let own_station = || code(list.performer.as_str(), "99ICHOR", "ichor");
    let item = |kept: &Option<Value>| kept.as_ref().and_then(Value::as_object).cloned();
    let begun = task.claimed_at.unwrap_or(task.seen_at);
    let study = &task.new.study_instance;
    let outputs = detail.map(|detail| outputs(list, detail).done).unwrap_or_default();
    data_set([
        ("00404028", sequence(vec![item(&request.station).unwrap_or_else(own_station)])),
        ("00404019", sequence(item(&request.code).into_iter().collect())),
        ("00404050", attribute("DT", moment(begun))),
        ("00404051", attribute("DT", moment(now()))),
        ("00404033", sequence(references(study, &outputs))),
    ])
}

/// Items of the Output Information Sequence (PS3.3 table 10-3b): one a series, with where its objects can be had.
fn references(study: &Uid, outputs: &[(&ObjectDetail, Vec<Place>)]) -> Vec<DataSet> {
    let mut series: BTreeMap<&str, (Vec<DataSet>, Vec<&Place>)> = BTreeMap::new();
    for (object, places) in outputs {
        let (references, known) = series.entry(object.series_instance.as_str()).or_default();
        references.push(data_set([
            ("00081150", attribute("UI", object.sop_class.as_str())),
            ("00081155", attribute("UI", object.sop_instance.as_str())),
        ]));
        for place in places {
            if !known.contains(&place) {
                known.push(place);
            }
        }
    }
    let item = |(name, (references, places)): (&str, (Vec<DataSet>, Vec<&Place>))| {
        let (mut titles, mut urls) = (Vec::new(), Vec::new());
        for place in places {
            match place {
                Place::AeTitle(title) => titles.push(data_set([("00080054", attribute("AE", title.as_str()))])),
                Place::WadoRs(base) => {
                    let url = format!("{}/studies/{study}/series/{name}", base.trim_end_matches('/'));
                    urls.push(data_set([("00081190", attribute("UR", url))]));
                }
            }
        }
        let mut item = data_set([
            ("0040E020", attribute("CS", "DICOM")),
            ("0020000D", attribute("UI", study.as_str())),
            ("0020000E", attribute("UI", name)),
            ("00081199", sequence(references)),
        ]);
        if !titles.is_empty() {
            item.extend(data_set([("0040E021", sequence(titles))]));
        }
        if !urls.is_empty() {
            item.extend(data_set([("0040E025", sequence(urls))]));
        }
        item
    };
    series.into_iter().map(item).collect()
}
