//! Event reports (PS3.4 CC.2.4, PS3.18 11.13): what subscribers hear, as DICOM JSON.

use serde_json::{Value, json};

use super::attributes::{DataSet, PROGRESS, READINESS, STATE, attribute, data_set, items};
use super::workitem::Workitem;

/// UPS Event SOP Class, in whose name events are reported.
const UPS_EVENT: &str = "1.2.840.10008.5.1.4.34.6.4";

/// UPS State Report.
const STATE_REPORT: u16 = 1;
/// UPS Cancel Requested.
const CANCEL_REQUESTED: u16 = 2;
/// UPS Progress Report.
const PROGRESS_REPORT: u16 = 3;
/// UPS Assigned.
const ASSIGNED: u16 = 5;

const STATIONS: &str = "00404025";
const PERFORMERS: &str = "00404034";

fn report(item: &Workitem, event: u16, information: impl IntoIterator<Item = (String, Value)>) -> DataSet {
    let mut set = data_set([
        ("00000002", attribute("UI", UPS_EVENT)),
        ("00001000", attribute("UI", item.uid.as_str())),
        ("00001002", attribute("US", event)),
    ]);
    set.extend(information);
    set
}

fn kept(set: &DataSet, tags: &[&str]) -> Vec<(String, Value)> {
    tags.iter().filter_map(|tag| Some(((*tag).to_owned(), set.get(*tag)?.clone()))).collect()
}

/// The state, and whether the input is ready; of a canceled one why.
#[must_use]
pub fn of_state(item: &Workitem) -> DataSet {
    let mut information = kept(&item.attributes, &[STATE, READINESS]);
    let progress = items(&item.attributes, PROGRESS);
    if let (Some(progress), true) = (progress.first(), item.state.is_final()) {
        information.extend(kept(progress, &["00741238", "0074100E"]));
    }
    report(item, STATE_REPORT, information)
}

/// What an update is to subscribers: progress, readiness, or another performer.
pub(super) fn of_update(item: &Workitem, set: &DataSet) -> Vec<DataSet> {
    let mut reports = Vec::new();
    if set.contains_key(READINESS) && set.get(READINESS) != item.attributes.get(READINESS) {
        let mut next = item.clone();
        next.attributes.extend(kept(set, &[READINESS]));
        reports.push(of_state(&next));
    }
    if set.contains_key(PROGRESS) {
        reports.push(report(item, PROGRESS_REPORT, kept(set, &[PROGRESS])));
    }
    if set.contains_key(STATIONS) || set.contains_key(PERFORMERS) {
        reports.push(report(item, ASSIGNED, kept(set, &[STATIONS, PERFORMERS])));
    }
    reports
}

pub(super) fn of_cancel_request(item: &Workitem, set: &DataSet, requester: &str) -> DataSet {
    let mut information = kept(set, &["00741238", "0074100E", "0074100C", "0074100A"]);
    information.push(("00741236".to_owned(), json!({ "vr": "AE", "Value": [requester] })));
    report(item, CANCEL_REQUESTED, information)
}
