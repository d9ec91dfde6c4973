//! What a workitem of another asks for, read with suspicion: whether it is ours, and what its input is.

use ichor_core::{AeTitle, TaskStatus, Uid};
use ichor_dicomweb::InstancesOf;
use ichor_dicomweb::server::ups::{DataSet, UpsState, items, text, uid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TaskList;

const NAME: &str = "00080018";
const STATE: &str = "00741000";
const PRIORITY: &str = "00741200";
const WORKLIST_LABEL: &str = "00741202";
const WORKITEM_CODE: &str = "00404018";
const STATION_NAME: &str = "00404025";
const READINESS: &str = "00404041";
const INPUTS: &str = "00404021";
const STUDY: &str = "0020000D";
const SERIES: &str = "0020000E";
const INSTANCES: &str = "00081199";
const INSTANCE: &str = "00081155";
/// WADO-RS Retrieval Sequence.
const WADO_RS: &str = "0040E025";
/// DICOM Retrieval Sequence.
const BY_DIMSE: &str = "0040E021";
/// Retrieve AE Title.
const RETRIEVE_TITLE: &str = "00080054";
/// Retrieve URL.
const RETRIEVE_URL: &str = "00081190";

/// Most instances that a workitem may name.
const MOST_INSTANCES: usize = 20_000;

/// A code: its value, and its scheme if that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Code Value.
    pub value: String,
    /// Coding Scheme Designator.
    pub scheme: Option<String>,
}

impl Code {
    fn is(&self, item: &DataSet) -> bool {
        text(item, "00080100") == Some(self.value.as_str())
            && self.scheme.as_deref().is_none_or(|scheme| text(item, "00080102") == Some(scheme))
    }
}

/// Which workitems are ours: every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Scheduled Workitem Codes of which it has one; empty: any.
    pub workitem_codes: Vec<Code>,
    /// Scheduled Station Name Codes of which it has one; empty: any.
    pub station_names: Vec<Code>,
    /// Its Worklist Label; absent: any.
    pub worklist_label: Option<String>,
}

impl Ours {
    /// The query that finds them, as far as one question can ask; the rest is looked at here.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![("ProcedureStepState", UpsState::Scheduled.as_str().to_owned())];
        if let Some(label) = &self.worklist_label {
            query.push(("WorklistLabel", label.clone()));
        }
        if let [code] = &self.workitem_codes[..] {
            query.push(("ScheduledWorkitemCodeSequence.CodeValue", code.value.clone()));
        }
        if let [station] = &self.station_names[..] {
            query.push(("ScheduledStationNameCodeSequence.CodeValue", station.value.clone()));
        }
        query
    }

    pub(super) fn has(&self, set: &DataSet) -> bool {
        let one_of = |codes: &[Code], tag: &str| {
            codes.is_empty() || items(set, tag).into_iter().any(|item| codes.iter().any(|code| code.is(item)))
        };
        one_of(&self.workitem_codes, WORKITEM_CODE)
            && one_of(&self.station_names, STATION_NAME)
            && self.worklist_label.as_deref().is_none_or(|label| text(set, WORKLIST_LABEL) == Some(label))
    }
}

/// What a task keeps of its workitem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Item of the Scheduled Workitem Code Sequence.
    pub(super) code: Option<Value>,
    /// Item of the Scheduled Station Name Code Sequence.
    pub(super) station: Option<Value>,
    /// What is to be analysed, all of one study.
    pub(super) inputs: Vec<Input>,
}

/// An item of the Input Information Sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Input {
    /// Series; absent: the whole study.
    pub(super) series: Option<Uid>,
    /// Instances that it names; none: all.
    pub(super) instances: Vec<Uid>,
    /// Where it can be had by WADO-RS, as the workitem says.
    pub(super) urls: Vec<String>,
    /// Titles of those who have it for C-MOVE, as the workitem says.
    #[serde(default)]
    pub(super) titles: Vec<AeTitle>,
}

/// The workitem's UID.
pub(super) fn name(set: &DataSet) -> Option<Uid> {
    uid(set, NAME).ok().flatten()
}

/// Its state, if it says one that is.
pub(super) fn state(set: &DataSet) -> Option<UpsState> {
    text(set, STATE).and_then(UpsState::parse)
}

/// Whether it is to be done before others. STAT is no defined term, and means the same.
pub(super) fn is_urgent(set: &DataSet) -> bool {
    matches!(text(set, PRIORITY), Some("HIGH" | "STAT"))
}

/// Whether its input is complete at its server.
pub(super) fn is_ready(set: &DataSet) -> bool {
    matches!(text(set, READINESS), None | Some("READY"))
}

/// Whether a workitem in this state here may be begun.
pub(super) const fn may_begin(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Left | TaskStatus::Lost)
}

/// A study that it names, whether or not the rest can be understood.
pub(super) fn any_study(set: &DataSet) -> Option<Uid> {
    items(set, INPUTS).into_iter().find_map(|item| uid(item, STUDY).ok().flatten())
}

/// The study, and what of it is to be analysed; `names` is what a Retrieve URL names that may be followed.
///
/// # Errors
/// A sentence about what cannot be done.
pub(super) fn request(
    set: &DataSet,
    ours: &Ours,
    names: impl Fn(&str) -> Option<InstancesOf>,
) -> Result<(Uid, Request), String> {
    let mut studies: Vec<Uid> = Vec::new();
    let mut inputs = Vec::new();
    for item in items(set, INPUTS) {
        let study = uid(item, STUDY)?.ok_or("an item of its Input Information Sequence names no study")?;
        if !studies.contains(&study) {
            studies.push(study);
        }
        inputs.push(input(item)?);
    }
    let [study] = &studies[..] else {
        return Err(match studies.len() {
            0 => "its Input Information Sequence names nothing".to_owned(),
            several => format!("its input is {several} studies; one is analysed at a time"),
        });
    };
    if inputs.iter().map(|input| input.instances.len()).sum::<usize>() > MOST_INSTANCES {
        return Err(format!("its input has more than {MOST_INSTANCES} instances"));
    }
    let followed = inputs.iter().flat_map(|input| &input.urls).filter_map(|url| names(url));
    if let Some(other) = followed.map(|what| what.study).find(|named| named != study) {
        return Err(format!("it asks for study {study}, and its Retrieve URL is that of another study, {other}"));
    }
    let first = |tag: &str, codes: &[Code]| {
        let found = items(set, tag);
        let ours = found.iter().find(|item| codes.iter().any(|code| code.is(item))).or_else(|| found.first());
        ours.map(|item| Value::Object((*item).clone()))
    };
    let code = first(WORKITEM_CODE, &ours.workitem_codes);
    let station = first(STATION_NAME, &ours.station_names);
    Ok((study.clone(), Request { code, station, inputs }))
}

fn input(item: &DataSet) -> Result<Input, String> {
    let instances: Result<Vec<Option<Uid>>, String> =
        items(item, INSTANCES).into_iter().map(|reference| uid(reference, INSTANCE)).collect();
    let urls = items(item, WADO_RS).into_iter().filter_map(|way| text(way, RETRIEVE_URL)).map(str::to_owned);
    Ok(Input {
        series: uid(item, SERIES)?,
        instances: instances?.into_iter().flatten().collect(),
        urls: urls.collect(),
        titles: items(item, BY_DIMSE).into_iter().flat_map(titles).collect(),
    })
}

/// Retrieve AE Titles of an item; what is none is passed over.
fn titles(way: &DataSet) -> Vec<AeTitle> {
    let values = way.get(RETRIEVE_TITLE).and_then(|attribute| attribute["Value"].as_array());
    let texts = values.into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| AeTitle::parse(text).ok()).collect()
}

/// The source that a URL lies below, and what it names there.
pub(super) fn allowed<'a>(list: &'a TaskList, url: &str) -> Option<(&'a super::InputSource, InstancesOf)> {
    list.sources.iter().find_map(|source| Some((source, InstancesOf::below(&source.url, url)?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(value: &str, scheme: &str) -> Value {
        json!({ "00080100": { "vr": "SH", "Value": [value] }, "00080102": { "vr": "SH", "Value": [scheme] } })
    }

    fn workitem(more: &Value) -> DataSet {
        let mut set = json!({
            "00080018": { "vr": "UI", "Value": ["1.2.3"] },
            "00404018": { "vr": "SQ", "Value": [code("OTHER", "X"), code("ICH", "99A")] },
            "00404025": { "vr": "SQ", "Value": [code("ICHOR", "99A")] },
            "00741202": { "vr": "LO", "Value": ["AI"] },
            "00404021": { "vr": "SQ", "Value": [{ "0020000D": { "vr": "UI", "Value": ["1.9"] } }] },
        });
        set.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        set.as_object().unwrap().clone()
    }

    fn wanted(text: &str) -> Code {
        let (value, scheme) = text.split_once('^').map_or((text, None), |(value, scheme)| (value, Some(scheme)));
        Code { value: value.to_owned(), scheme: scheme.map(str::to_owned) }
    }

    #[test]
    fn ours_is_what_meets_every_condition() {
        let set = workitem(&json!({}));
        let ours = |codes: &[&str], stations: &[&str], label: Option<&str>| Ours {
            workitem_codes: codes.iter().map(|text| wanted(text)).collect(),
            station_names: stations.iter().map(|text| wanted(text)).collect(),
            worklist_label: label.map(str::to_owned),
        };
        for (ours, is) in [
            (ours(&["ICH"], &[], None), true),
            (ours(&["ICH^99A"], &[], None), true),
            (ours(&["ICH^99B"], &[], None), false),
            (ours(&["NONE", "OTHER^X"], &["ICHOR"], Some("AI")), true),
            (ours(&["ICH"], &["SOMEBODY"], None), false),
            (ours(&[], &[], Some("AI")), true),
            (ours(&["ICH"], &[], Some("PEOPLE")), false),
        ] {
            assert_eq!(ours.has(&set), is, "{ours:?}");
        }
        assert!(!ours(&["ICH"], &[], None).has(&DataSet::new()));
        let query = ours(&["ICH^99A"], &["A", "B"], Some("AI")).query();
        let keys: Vec<&str> = query.iter().map(|(key, _)| *key).collect();
        // Of two stations one question cannot ask: they are looked at here.
        assert_eq!(keys, ["ProcedureStepState", "WorklistLabel", "ScheduledWorkitemCodeSequence.CodeValue"]);
    }

    #[test]
    fn input_is_one_study_that_may_be_had() {
        let ours = Ours { workitem_codes: vec![wanted("ICH")], ..Ours::default() };
        let base = "http://pacs/dicom-web";
        let read = |items: Value| {
            let set = workitem(&json!({ "00404021": { "vr": "SQ", "Value": items } }));
            request(&set, &ours, |url| InstancesOf::below(base, url))
        };
        let item = |study: &str, url: Option<&str>| {
            let mut item = json!({ "0020000D": { "vr": "UI", "Value": [study] },
                "00081199": { "vr": "SQ", "Value": [{ "00081155": { "vr": "UI", "Value": ["1.9.1"] } }] } });
            if let Some(url) = url {
                item[WADO_RS] = json!({ "vr": "SQ", "Value": [{ RETRIEVE_URL: { "vr": "UR", "Value": [url] } }] });
            }
            item
        };
        let (study, found) =
            read(json!([item("1.9", Some("http://pacs/dicom-web/studies/1.9")), item("1.9", None)])).unwrap();
        assert_eq!((study.as_str(), found.inputs.len()), ("1.9", 2));
        assert_eq!(found.inputs[0].urls, ["http://pacs/dicom-web/studies/1.9"]);
        assert_eq!(found.inputs[0].instances, [Uid::parse("1.9.1").unwrap()]);
        assert_eq!(found.code.unwrap()["00080100"]["Value"][0], "ICH", "the one that makes it ours");
        for (items, word) in [
            (json!([]), "names nothing"),
            (json!([{}]), "names no study"),
            (json!([item("1.9", None), item("1.8", None)]), "2 studies"),
            (json!([item("1.9", Some("http://pacs/dicom-web/studies/1.8"))]), "another study"),
            (json!([item("x", None)]), "0020000D"),
        ] {
            let error = read(items).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
        let by_dimse = json!([{ "0020000D": { "vr": "UI", "Value": ["1.9"] }, BY_DIMSE: { "vr": "SQ", "Value": [
            { RETRIEVE_TITLE: { "vr": "AE", "Value": ["PACS", 7, "not a title at all"] } }, { RETRIEVE_TITLE: { "vr": "AE" } },
            { RETRIEVE_TITLE: { "vr": "AE", "Value": ["ARCHIVE "] } }] } }]);
        let (_, found) = read(by_dimse).unwrap();
        assert_eq!(found.inputs[0].titles, ["PACS", "ARCHIVE"].map(|text| AeTitle::parse(text).unwrap()));
        // Not followed, and no reason to refuse: the study may be here.
        assert!(read(json!([item("1.9", Some("http://evil/studies/1.8"))])).is_ok());
    }

    #[test]
    fn urgency_readiness_and_state() {
        let with = |tag: &str, value: &str| workitem(&json!({ tag: { "vr": "CS", "Value": [value] } }));
        assert!(is_urgent(&with(PRIORITY, "HIGH")) && is_urgent(&with(PRIORITY, "STAT")));
        assert!(!is_urgent(&with(PRIORITY, "MEDIUM")) && !is_urgent(&workitem(&json!({}))));
        assert!(is_ready(&with(READINESS, "READY")) && !is_ready(&with(READINESS, "INCOMPLETE")));
        assert_eq!(state(&with(STATE, "IN PROGRESS")), Some(UpsState::InProgress));
        assert_eq!(state(&with(STATE, "DONE")), None);
        assert!(!may_begin(TaskStatus::Completed) && !may_begin(TaskStatus::Claimed) && may_begin(TaskStatus::Left));
    }
}
