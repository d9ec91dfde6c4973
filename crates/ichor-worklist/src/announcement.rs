//! What is told, whatever the way.

use ichor_core::{Finding, Reason, Subject, Uid};
use serde::Serialize;
use time::OffsetDateTime;

/// One thing that happened to a study. As JSON it is the body of a webhook (`docs/webhook.schema.json`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Announcement {
    /// The same at every attempt and never that of another: at most 20 characters of `A-Z`, `0-9` and `-`.
    pub id: String,
    /// What it is about.
    pub subject: Subject,
    /// Whether it goes before others.
    pub urgent: bool,
    /// When it happened, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The same in one line, without patient data.
    pub text: String,
    /// The analysed version of the study; a late slice makes another. Absent before an analysis.
    pub version: Option<u64>,
    /// The study.
    pub study: Study,
    /// What the analysis came to. Of a study that came to no result: the positive one of before, if that stands.
    pub finding: Option<Finding>,
    /// What an alert rests on; also that of a study that came to no result, if its alert stands.
    pub alert: Option<SuspiciousSlices>,
    /// Why not.
    pub reason: Option<Reason>,
    /// The model, `name@version+hash`.
    pub model: Option<String>,
    /// What the weights say about themselves.
    pub notice: Option<String>,
    /// Program and version.
    pub software: String,
    /// To which trace it belongs: the header `traceparent` of W3C Trace Context, where it travels by HTTP. No part of what is told.
    #[serde(skip)]
    pub traceparent: Option<String>,
}

/// The study that it is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Study {
    /// Study Instance UID (0020,000D).
    pub study_instance_uid: Uid,
    /// Accession Number (0008,0050).
    pub accession_number: Option<String>,
    /// Study Date (0008,0020), YYYYMMDD.
    pub study_date: Option<String>,
    /// Study Description (0008,1030).
    pub description: Option<String>,
    /// AE title of the sender.
    pub source_ae: Option<String>,
    /// Absent on a channel that is not told who it is.
    pub patient: Option<Patient>,
    /// What has arrived of it. No part of a webhook.
    #[serde(skip)]
    pub series: Vec<Series>,
}

/// A series of the study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: Uid,
    /// Modality (0008,0060).
    pub modality: Option<String>,
    /// Series Description (0008,103E).
    pub description: Option<String>,
    /// Series Number (0020,0011).
    pub number: Option<i64>,
}

/// Who it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Patient {
    /// Patient ID (0010,0020).
    pub id: Option<String>,
    /// Patient's Name (0010,0010), as PN.
    pub name: Option<String>,
}

/// What an alert rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuspiciousSlices {
    /// Series Instance UID (0020,000E).
    pub series_instance_uid: String,
    /// SOP Instance UIDs of neighbouring slices, along the patient.
    pub slices: Vec<String>,
    /// The lowest of their probabilities.
    pub probability: f64,
    /// From the first of them to the alert, in milliseconds.
    pub latency_ms: i64,
}

impl Announcement {
    /// Whether the study came to no result and its alert stands.
    #[must_use]
    pub fn alert_stands(&self) -> bool {
        matches!(self.subject, Subject::NotAnalysed | Subject::Failed) && self.alert.is_some()
    }

    /// Whether the study came to no result and a positive one of before stands: until a person or another result says
    /// otherwise.
    #[must_use]
    pub fn result_stands(&self) -> bool {
        matches!(self.subject, Subject::NotAnalysed | Subject::Failed) && self.finding.is_some()
    }

    /// One of each subject, to try templates on. The names in it are hard ones.
    #[must_use]
    pub fn samples() -> Vec<Self> {
        use ichor_core::Verdict;

        let finding = |verdict| Finding {
            verdict,
            probability: 0.9375,
            volume_ml: 12.5,
            volume_sd_ml: Some(3.5),
            positive_slices: 6,
            slices: 32,
            lesions_ml: vec![11.25, 1.25],
        };
        let sample = |subject: Subject| Self {
            id: format!("SAMPLE-{}", subject.as_str().len()),
            subject,
            urgent: subject.is_urgent(),
            at: OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000),
            text: format!("a sample of {subject}"),
            version: (subject != Subject::Alert).then_some(1),
            study: Study {
                study_instance_uid: Uid::derive(["sample"]),
                accession_number: Some("A|1^2&3~4\\5".to_owned()),
                study_date: Some("20241004".to_owned()),
                description: Some("CT head\r\nwithout contrast".to_owned()),
                source_ae: Some("CT1".to_owned()),
                patient: Some(Patient {
                    id: Some("P&C".to_owned()),
                    name: Some("O'Brien|^Seán~^\\X^Dr^=山田^太郎".to_owned()),
                }),
                series: vec![Series {
                    series_instance_uid: Uid::derive(["series"]),
                    modality: Some("CT".to_owned()),
                    description: Some(" 5 mm\u{1} <soft> & \"tissue\"".to_owned()),
                    number: Some(-2),
                }],
            },
            finding: match subject {
                Subject::Positive => Some(finding(Verdict::Positive)),
                Subject::Negative => Some(finding(Verdict::Negative)),
                _ => None,
            },
            alert: (subject == Subject::Alert).then(|| SuspiciousSlices {
                series_instance_uid: "1.2.3".to_owned(),
                slices: vec!["1.2.3.4".to_owned()],
                probability: 0.875,
                latency_ms: 420,
            }),
            reason: matches!(subject, Subject::NotAnalysed | Subject::Failed)
                .then(|| Reason::new("no-head", "no series shows a head")),
            model: Some("ichor-demo@0.1.0+0123456789ab".to_owned()),
            notice: Some("synthetic data, demonstration only; not for clinical use".to_owned()),
            software: "ichor 0.0.0".to_owned(),
            traceparent: None,
        };
        Subject::ALL.iter().copied().map(sample).collect()
    }
}
