//! The admin's questions, and the retry.

use std::fmt;

use ichor_core::{DeliveryStatus, Finding, ModelId, Reason, RuleOutcome, StudyStatus, Uid};
use serde::Serialize;

use crate::{SliceScore, Store, StoreError, Timestamp, Topic};

/// A study in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StudySummary {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Patient's Name.
    pub patient_name: Option<String>,
    /// Accession Number: as received, else as a peer told it.
    pub accession_number: Option<String>,
    /// The peer (`[[lookup]]`) that told it; `None`: it was received.
    pub accession_source: Option<String>,
    /// Study Date, YYYYMMDD.
    pub study_date: Option<String>,
    /// Study Description.
    pub description: Option<String>,
    /// Who sent the first instance.
    pub source_ae: Option<String>,
    /// Where it stands.
    pub status: StudyStatus,
    /// The last closed version; 0 before the first close.
    pub version: u32,
    /// Instances, without our own results.
    pub instances: u32,
    /// How many a peer (`[[lookup]]`) expects there to be; `None`: none has said so.
    pub expected_instances: Option<u32>,
    /// Bytes of these.
    pub bytes: u64,
    /// When the first instance was recorded.
    pub received_at: Timestamp,
    /// When the last one was.
    pub last_instance_at: Timestamp,
    /// When it closes if nothing else arrives, while receiving.
    pub quiet_until: Option<Timestamp>,
    /// Why the status is what it is, where it needs a reason.
    pub reason: Option<Reason>,
    /// The version that the following fields are about; `None` before the first outcome.
    pub result_version: Option<u32>,
    /// Verdict.
    pub positive: Option<bool>,
    /// Probability, 0 to 1.
    pub probability: Option<f64>,
    /// Volume of all masks in millilitres.
    pub volume_ml: Option<f64>,
    /// How far that may be off: one standard deviation in millilitres.
    pub volume_sd_ml: Option<f64>,
    /// The model.
    pub model: Option<ModelId>,
    /// When the outcome was recorded.
    pub analysed_at: Option<Timestamp>,
    /// When it was found suspicious before it was complete.
    pub alerted_at: Option<Timestamp>,
    /// How urgent it is to those who read: 4 positive, or alerted and not decided yet; 3 failed; 2 under way; 1 not analysed;
    /// 0 negative.
    pub urgency: u8,
    /// Since when it is on hold: none of its files goes.
    pub held_at: Option<Timestamp>,
    /// Why it is on hold.
    pub hold_reason: Option<String>,
    /// Since when received files of it are no longer kept; `None`: all are here.
    pub pixels_removed_at: Option<Timestamp>,
    /// Since when result objects of it are no longer kept; `None`: all are here.
    pub results_removed_at: Option<Timestamp>,
}

/// A series of a study.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SeriesDetail {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Modality.
    pub modality: Option<String>,
    /// Series Description.
    pub description: Option<String>,
    /// Series Number.
    pub number: Option<i32>,
    /// Instances, without our own results.
    pub instances: u32,
    /// Whether the newest outcome analysed it; `None` before there is one.
    pub chosen: Option<bool>,
    /// Why not, or what was peculiar.
    pub reasons: Vec<Reason>,
    /// What each rule of the gate said of it; empty before there is an outcome.
    pub rules: Vec<RuleOutcome>,
}

/// A result object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectDetail {
    /// What it is, such as `seg`.
    pub kind: String,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// The study's version that it belongs to.
    pub version: u32,
    /// Size in bytes.
    pub size: u64,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// The Part 10 file.
    pub path: std::path::PathBuf,
    /// Since when the file is no longer kept.
    pub removed_at: Option<Timestamp>,
}

/// One object for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryDetail {
    /// SOP Instance UID of the object.
    pub sop_instance: Uid,
    /// Name of the destination.
    pub destination: String,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it may be tried again, while queued.
    pub next_attempt: Option<Timestamp>,
    /// When it was accepted or given up.
    pub finished_at: Option<Timestamp>,
    /// What the peer, or the last failed attempt, said.
    pub last_words: Option<String>,
    /// What is delivered, such as `seg`; `source`: an instance as it was received.
    pub kind: String,
    /// What is still to be proven: `commitment`, `read-back` or both; `None`: nothing.
    pub proof_due: Option<String>,
    /// How often it was sent again because the peer had lost it.
    pub resends: u32,
    /// When the last proof came.
    pub proven_at: Option<Timestamp>,
}

/// Everything about a study.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyDetail {
    /// As in the list.
    pub summary: StudySummary,
    /// The newest finding, if the newest outcome is one.
    pub finding: Option<Finding>,
    /// Its series, in the order of arrival.
    pub series: Vec<SeriesDetail>,
    /// Slices of the newest outcome, in slice order.
    pub slices: Vec<SliceScore>,
    /// Stages of the newest outcome and how long they took, in milliseconds.
    pub timings: Vec<(String, u64)>,
    /// Result objects of all versions, oldest first.
    pub objects: Vec<ObjectDetail>,
    /// Their deliveries.
    pub deliveries: Vec<DeliveryDetail>,
}

/// How a person names a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StudyKey {
    /// Study Instance UID.
    Uid(Uid),
    /// The beginning of a Study Instance UID.
    UidPrefix(String),
    /// Accession Number.
    Accession(String),
    /// The first of these that fits: UID, Accession Number, beginning of a UID.
    Any(String),
}

impl StudyKey {
    /// The key for a text of which only the person who typed it knows what it is.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::Any(text.trim().to_owned())
    }
}

/// What a retry did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum RetryOutcome {
    /// The study's version is queued for analysis.
    Queued {
        /// Which version.
        version: u32,
        /// Dead deliveries that are queued again.
        deliveries: u64,
    },
    /// The study is on its way already, perhaps by somebody else's retry.
    UnderWay {
        /// Where it stands.
        status: StudyStatus,
        /// Dead deliveries that are queued again.
        deliveries: u64,
    },
    /// There is nothing in the study that could be analysed: it holds our own results only.
    NothingToAnalyse,
    /// Received files of the study are no longer kept: it cannot be analysed unless they come again.
    PixelsRemoved {
        /// Dead deliveries that are queued again.
        deliveries: u64,
    },
}

impl fmt::Display for RetryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deliveries = match self {
            Self::Queued { version, deliveries } => {
                write!(f, "version {version} is queued for analysis")?;
                *deliveries
            }
            Self::UnderWay { status, deliveries } => {
                write!(f, "nothing to repeat: the study is {status} already")?;
                *deliveries
            }
            Self::PixelsRemoved { deliveries } => {
                f.write_str(
                    "not analysed again: its received files are no longer kept; send the study once more first",
                )?;
                *deliveries
            }
            Self::NothingToAnalyse => {
                return f.write_str("nothing to analyse: the study holds results of this program only");
            }
        };
        match deliveries {
            0 => Ok(()),
            1 => f.write_str("; one dead delivery is queued again"),
            n => write!(f, "; {n} dead deliveries are queued again"),
        }
    }
}

impl Store {
    /// Everything about one study.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Ambiguous`] if several studies fit; [`StoreError::Busy`],
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn study(&self, key: &StudyKey) -> Result<StudyDetail, StoreError> {
        let study = self.index().find_study(key).await?;
        self.index().study_detail(self.blobs(), study).await
    }

    /// Queues a finished or failed study's version for analysis again, attempts counted anew, and its dead
    /// deliveries for sending. Of two callers at once, one gets [`RetryOutcome::Queued`], the other
    /// [`RetryOutcome::UnderWay`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn retry(&self, study: &Uid, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let outcome = self.index().retry(study, now).await?;
        self.topics().notify(Topic::Closed);
        self.topics().notify(Topic::Outbox);
        Ok(outcome)
    }
}
