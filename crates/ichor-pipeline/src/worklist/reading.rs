//! The workitem of whoever reads an analysed study: positives first, with references to the images and to our objects.

use std::collections::BTreeMap;

use ichor_core::{AeTitle, Uid};
use ichor_dicomweb::server::ups::{
    DataSet, Fault, attribute, code, create, data_set, date_time, sequence, state_report,
};
use ichor_store::{AnalysisClaim, AnalysisOutcome, NewWorkitem, Verdict, WorkitemRow};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// What stands in a workitem of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadingOptions {
    /// Where the images can be had by C-MOVE or C-GET: Retrieve AE Title (0008,0054).
    pub retrieve_ae_title: AeTitle,
}

/// The workitem of one version of a study; the same at every attempt but for its time.
///
/// # Errors
/// [`Fault`], if the study's own attributes make no valid workitem.
pub fn workitem(
    claim: &AnalysisClaim,
    outcome: &AnalysisOutcome,
    options: &ReadingOptions,
) -> Result<NewWorkitem, Fault> {
    let now = OffsetDateTime::now_utc();
    let study = &claim.study;
    let (priority, label) = match &outcome.verdict {
        Verdict::Analysed(finding) if finding.is_positive() => ("HIGH", "Read head CT: hemorrhage found by algorithm"),
        Verdict::Analysed(_) => ("LOW", "Read head CT: no hemorrhage detected by algorithm"),
        Verdict::NotAnalysed(_) => ("MEDIUM", "Read study: not analysed by algorithm"),
    };
    let uid = Uid::derive(["reading", study.study_instance.as_str(), &claim.version.to_string()]);
    let name = study.patient_name.as_deref().map(person_name);
    let mut set = data_set([
        ("00100010", name.unwrap_or_else(|| json!({ "vr": "PN" }))),
        ("00100020", optional("LO", study.patient_id.as_deref())),
        ("00100030", json!({ "vr": "DA" })),
        ("00100040", json!({ "vr": "CS" })),
        ("00380010", json!({ "vr": "LO" })),
        ("00741000", attribute("CS", "SCHEDULED")),
        ("00741200", attribute("CS", priority)),
        ("00741202", attribute("LO", "ichor: reading")),
        ("00741204", attribute("LO", label)),
        ("00400400", attribute("LT", words(claim.version, outcome))),
        ("00404005", attribute("DT", date_time(now))),
        ("00404018", sequence(vec![code("110005", "DCM", "Interpretation")])),
        ("00404025", sequence(Vec::new())),
        ("00404041", attribute("CS", "READY")),
        ("00404021", sequence(inputs(claim, outcome, options))),
        ("0040A370", sequence(vec![request(claim)])),
    ]);
    set.retain(|_, value| !value.is_null());
    let item = create(Some(&uid), set, now)?;
    let report = Value::Object(state_report(&item)).to_string();
    let row = WorkitemRow {
        state: item.state.as_str().to_owned(),
        transaction: None,
        revision: 1,
        priority: item.priority(),
        starts: item.starts().to_owned(),
        uid: item.uid,
        attributes: Value::Object(item.attributes),
    };
    Ok(NewWorkitem { row, report, supersedes: format!("version {} of the study has replaced it", claim.version) })
}

fn optional(vr: &str, value: Option<&str>) -> Value {
    match value.map(str::trim).filter(|value| !value.is_empty()) {
        Some(value) => attribute(vr, value),
        None => json!({ "vr": vr }),
    }
}

/// PN in DICOM JSON (PS3.18 F.2.2): one member a group.
fn person_name(name: &str) -> Value {
    let groups = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(name.split('='));
    let groups: serde_json::Map<String, Value> = groups
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(group, text)| (group.to_owned(), json!(text.trim())))
        .collect();
    if groups.is_empty() { json!({ "vr": "PN" }) } else { json!({ "vr": "PN", "Value": [groups] }) }
}

/// Comments on the Scheduled Procedure Step: what was found, and what the weights say about themselves.
fn words(version: u32, outcome: &AnalysisOutcome) -> String {
    let said = match &outcome.verdict {
        Verdict::Analysed(finding) => format!(
            "version {version}: probability {:.3}, {:.1} mL, {} of {} slices positive",
            finding.probability, finding.volume_ml, finding.positive_slices, finding.slices
        ),
        Verdict::NotAnalysed(reason) => format!("version {version} was not analysed: {reason}"),
    };
    match &outcome.notice {
        Some(notice) => format!("{said}. {notice}"),
        None => said,
    }
}

/// What was asked for (Referenced Request Sequence).
fn request(claim: &AnalysisClaim) -> DataSet {
    data_set([
        ("0020000D", attribute("UI", claim.study.study_instance.as_str())),
        ("00080050", optional("SH", claim.study.accession_number.as_deref())),
        ("00401001", json!({ "vr": "SH" })),
        ("00321060", optional("LO", claim.study.description.as_deref())),
    ])
}

/// The images, and the objects that were made of them: one item a series (Input Information Sequence).
fn inputs(claim: &AnalysisClaim, outcome: &AnalysisOutcome, options: &ReadingOptions) -> Vec<DataSet> {
    let mut series: BTreeMap<&str, Vec<DataSet>> = BTreeMap::new();
    let images = claim.instances.iter().map(|one| (&one.series_instance, &one.sop_class, &one.sop_instance));
    let objects = outcome.objects.iter().map(|one| (&one.series_instance, &one.sop_class, &one.sop_instance));
    for (name, class, instance) in images.chain(objects) {
        series.entry(name.as_str()).or_default().push(data_set([
            ("00081150", attribute("UI", class.as_str())),
            ("00081155", attribute("UI", instance.as_str())),
        ]));
    }
    let retrieve = data_set([("00080054", attribute("AE", options.retrieve_ae_title.as_str()))]);
    let item = |(name, instances): (&str, Vec<DataSet>)| {
        data_set([
            ("0040E020", attribute("CS", "DICOM")),
            ("0020000D", attribute("UI", claim.study.study_instance.as_str())),
            ("0020000E", attribute("UI", name)),
            ("00081199", sequence(instances)),
            ("0040E021", sequence(vec![retrieve.clone()])),
        ])
    };
    series.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_groups() {
        assert_eq!(
            person_name("Yamada^Tarou=山田^太郎")["Value"][0],
            json!({ "Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎" })
        );
        assert_eq!(person_name("==")["Value"], Value::Null);
    }
}
