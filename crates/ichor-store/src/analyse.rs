//! Analyse: claims on closed studies, and what comes of them.

use std::path::PathBuf;

use ichor_core::{AeTitle, Finding, ModelId, Reason, RuleOutcome, Uid};
use serde::Serialize;

use crate::{MapPlace, NewWorkitem, StagedBlob, Store, StoreError, StudyAttributes, Timestamp, Topic};

/// The right to analyse one version of a study, held by one worker.
#[derive(Debug)]
pub struct AnalysisClaim {
    /// Number of the analysis in the job log.
    pub id: i64,
    /// The study.
    pub study: StudyAttributes,
    /// Who sent the study's first instance.
    pub source_ae: Option<AeTitle>,
    /// Which version of the study.
    pub version: u32,
    /// Attempts, this one included.
    pub attempts: u32,
    /// When the version's last instance was recorded.
    pub accepted_at: Timestamp,
    /// The study's instances in the order of arrival, without our own results.
    pub instances: Vec<StoredInstance>,
    /// The model that somebody asked for; `None`: the active one.
    pub wanted_model: Option<ModelId>,
    /// The accession number that a peer told, of a study that was received without one. The same at every attempt of a
    /// version; the study's attributes have it too.
    pub looked_up_accession: Option<String>,
}

/// An instance in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredInstance {
    /// Number in the index.
    pub id: i64,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Modality of the series.
    pub modality: Option<String>,
    /// Transfer Syntax UID.
    pub transfer_syntax: Uid,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// What an analysis came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The model looked at it.
    Analysed(Finding),
    /// Nothing in it may be analysed.
    NotAnalysed(Reason),
}

/// One series in the light of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesOutcomeRow {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Whether it was analysed.
    pub chosen: bool,
    /// Why not, or what was peculiar.
    pub reasons: Vec<Reason>,
    /// What each rule of the gate said of it; empty if none could be asked.
    pub rules: Vec<RuleOutcome>,
}

/// One slice as the model saw it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SliceScore {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// The frame, counted from 1, where the instance has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u32>,
    /// Probability of hemorrhage, 0 to 1.
    pub probability: f32,
    /// Pixels in its mask.
    pub masked_pixels: u32,
    /// Where its attribution map is, if one is kept.
    #[serde(rename = "has_map", serialize_with = "is_some")]
    #[cfg_attr(feature = "schema", schema(value_type = bool))]
    pub map: Option<MapPlace>,
}

/// Whether there is one.
#[expect(clippy::ref_option, reason = "serde hands over a reference")]
fn is_some<S: serde::Serializer>(map: &Option<MapPlace>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(map.is_some())
}

/// A result object, its bytes staged.
#[derive(Debug)]
pub struct NewObject {
    /// What it is, such as `seg`.
    pub kind: String,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID, derived from what went into it.
    pub sop_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Transfer Syntax UID.
    pub transfer_syntax: Uid,
    /// Names of the destinations that get it.
    pub destinations: Vec<String>,
    /// The bytes.
    pub staged: StagedBlob,
}

/// Everything that an analysis leaves behind.
#[derive(Debug)]
pub struct AnalysisOutcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The model that gave it; `None` if none was asked.
    pub model: Option<ModelId>,
    /// What its weights say about themselves, if anything.
    pub notice: Option<String>,
    /// Each series and why it was or was not chosen.
    pub series: Vec<SeriesOutcomeRow>,
    /// Each slice that was classified, in slice order.
    pub slices: Vec<SliceScore>,
    /// How many of them had been classified when they arrived.
    pub slices_known: usize,
    /// Result objects.
    pub objects: Vec<NewObject>,
    /// The file with the attribution maps that [`SliceScore::map`] points into.
    pub maps: Option<StagedBlob>,
    /// Stages and how long they took, in milliseconds.
    pub timings: Vec<(String, u64)>,
    /// What the routing rules came to; `None`: there are none.
    pub routed: Option<Routed>,
}

/// What routing rules came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The rule that fired.
    pub rule: Option<String>,
    /// The rules before it, and why each did not.
    pub passed_over: Vec<(String, String)>,
    /// Whether its objects go before others; `None`: if positive.
    pub urgent: Option<bool>,
}

impl Store {
    /// The file of the first instance of a study that is not our own.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn first_instance(&self, study: &Uid) -> Result<Option<PathBuf>, StoreError> {
        self.index().first_instance(self.blobs(), study).await
    }

    /// Claims the analysis that has waited longest; `None` if none is due. A claim is held by one worker only.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn claim_analysis(&self, worker: &str, now: Timestamp) -> Result<Option<AnalysisClaim>, StoreError> {
        // Whatever is queued is overdue: the oldest comes first.
        self.claim_analysis_in_order(worker, now, now).await
    }

    /// Claims the next analysis: of those that are urgent by rule or by an alert, or were queued until `overdue`, the one that
    /// has waited longest; if there is none, that of the others; `None` if none is due.
    ///
    /// # Errors
    /// As [`Self::claim_analysis`].
    pub async fn claim_analysis_in_order(
        &self,
        worker: &str,
        overdue: Timestamp,
        now: Timestamp,
    ) -> Result<Option<AnalysisClaim>, StoreError> {
        self.index().claim_analysis(self.blobs(), worker, overdue, now).await
    }

    /// Queues again every analysis that is under way. For the one process that analyses, when an outcome could not be
    /// recorded and nothing is being analysed: the claim is gone, and the study must not wait for a restart.
    ///
    /// # Errors
    /// As [`Self::claim_analysis`].
    pub async fn requeue_analyses(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.index().requeue_analyses(now).await
    }

    /// When the next queued analysis is due, one that waits for another attempt included.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn next_analysis_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        self.index().next_analysis_deadline().await
    }

    /// Records an outcome with its objects and one delivery for each destination of each object, in one transaction.
    /// An object whose UID is there already is kept as it is and not sent twice. If the study has been opened again
    /// meanwhile, the outcome counts for its own version and the study stays as it is.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if the claim is no longer held; [`StoreError::DiskFull`], [`StoreError::Busy`],
    /// [`StoreError::File`], [`StoreError::Database`]: nothing was kept, the claim is still held.
    pub async fn complete_analysis(
        &self,
        claim: AnalysisClaim,
        outcome: AnalysisOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.complete_analysis_to_read(claim, outcome, None, now).await
    }

    /// As [`Self::complete_analysis`], with the workitem of whoever is to read the study, in the same transaction: one for
    /// each version, however often it is analysed.
    ///
    /// # Errors
    /// As [`Self::complete_analysis`].
    pub async fn complete_analysis_to_read(
        &self,
        claim: AnalysisClaim,
        outcome: AnalysisOutcome,
        reading: Option<NewWorkitem>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().complete_analysis(self.blobs(), &claim, outcome, reading.as_ref(), now).await?;
        self.topics().notify(Topic::Outbox);
        if reading.is_some() {
            self.topics().notify(Topic::Workitems);
        }
        Ok(())
    }

    /// Records a failed attempt. With `retry_at` the analysis is queued for that moment; without, the study has
    /// failed. If the study has been opened again meanwhile, neither happens: the next version replaces this one.
    ///
    /// # Errors
    /// As [`Self::complete_analysis`].
    pub async fn fail_analysis(
        &self,
        claim: AnalysisClaim,
        reason: Reason,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().fail_analysis(&claim, &reason, retry_at, now).await?;
        self.topics().notify(Topic::Closed);
        Ok(())
    }
}
