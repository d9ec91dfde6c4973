//! The shadow: models that see the same slices after the analysis, and of which nothing follows.

use std::path::PathBuf;
use std::time::Duration;

use ichor_core::{Agreement, Finding, ModelId, Reason, ShadowStatus, Uid};
use serde::Serialize;

use crate::{AnalysisClaim, Store, StoreError, Timestamp};

/// The right to have one model in the shadow score one analysis.
#[derive(Debug)]
pub struct ShadowClaim {
    /// Number of the run.
    pub id: i64,
    /// The model.
    pub model: ModelId,
    /// Attempts, this one included.
    pub attempts: u32,
    /// The analysis that it repeats, with the instances that there were then. Never completed or failed by this.
    pub analysis: AnalysisClaim,
    /// The Segmentation of the active model, if one was made.
    pub segmentation: Option<PathBuf>,
}

/// What a model in the shadow came to.
#[derive(Clone, Debug, PartialEq)]
pub enum ShadowOutcome {
    /// It judged.
    Judged {
        /// What it found.
        finding: Finding,
        /// Dice of its masks against the active model's, where both made some.
        dice: Option<f64>,
    },
    /// It would not have analysed the study.
    NotAnalysed(Reason),
}

/// How many runs of a model are in which state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowDepth {
    /// The model.
    pub model: ModelId,
    /// The state.
    pub status: ShadowStatus,
    /// How many.
    pub count: u64,
}

/// What a model in the shadow said of one study.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ShadowResult {
    /// The model.
    pub model: ModelId,
    /// The study's version that it saw.
    pub version: u32,
    /// Where it stands.
    pub status: ShadowStatus,
    /// What it found.
    pub finding: Option<Finding>,
    /// Why it did not, or failed.
    pub reason: Option<Reason>,
    /// Dice of its masks against the active model's.
    pub dice: Option<f64>,
}

/// A study of which two models say different things.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Disagreement {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Its version.
    pub version: u32,
    /// Who sent it.
    pub source_ae: Option<String>,
    /// What the active model found.
    pub active: Finding,
    /// What the other found.
    pub other: Finding,
}

/// How far two models agree on the studies of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SourceAgreement {
    /// AE title; absent: unnamed.
    pub source_ae: Option<String>,
    /// How far.
    pub agreement: Agreement,
}

/// How far a model in the shadow agrees with the active one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AgreementReport {
    /// The model in the shadow.
    pub model: ModelId,
    /// The active model that it is compared with; absent: none is.
    pub active: Option<ModelId>,
    /// Since when.
    pub since: Timestamp,
    /// All sources together.
    pub agreement: Agreement,
    /// Studies that the other would not have analysed.
    pub not_analysed: u64,
    /// Studies that it could not score.
    pub failed: u64,
    /// By source, the busiest first.
    pub sources: Vec<SourceAgreement>,
    /// Studies of different verdicts, newest first; at most 200.
    pub disagreements: Vec<Disagreement>,
    /// Whether only the newest 100,000 studies were counted.
    pub is_cut: bool,
}

impl Store {
    /// Queues, for each of `models`, the analyses that were committed since the last call; with the first call it begins with
    /// those of that moment. Of more than `most` that wait for one model the oldest are dropped. How many were queued.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn queue_shadow_runs(&self, models: &[ModelId], most: u32, now: Timestamp) -> Result<u64, StoreError> {
        self.index().queue_shadow_runs(models, most, now).await
    }

    /// Puts back what was under way when the process that scores was cut off.
    ///
    /// # Errors
    /// As [`Self::queue_shadow_runs`].
    pub async fn requeue_shadow_runs(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.index().requeue_shadow_runs(now).await
    }

    /// Whether anything real has to be done: an analysis is under way or due, or slices have arrived within `quiet`.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn has_real_work(&self, quiet: Duration, now: Timestamp) -> Result<bool, StoreError> {
        self.index().has_real_work(quiet, now).await
    }

    /// Claims the run of one of `models` that has waited longest; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::queue_shadow_runs`].
    pub async fn claim_shadow_run(
        &self,
        models: &[ModelId],
        now: Timestamp,
    ) -> Result<Option<ShadowClaim>, StoreError> {
        self.index().claim_shadow_run(self.blobs(), models, now).await
    }

    /// Records what came of a run. Nothing else follows.
    ///
    /// # Errors
    /// As [`Self::queue_shadow_runs`]; [`StoreError::StaleClaim`] if the claim is no longer held.
    pub async fn complete_shadow_run(
        &self,
        claim: &ShadowClaim,
        outcome: &ShadowOutcome,
        took: Duration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().complete_shadow_run(claim, outcome, took, now).await
    }

    /// Records a failed attempt; with `retry_at` it is queued for that moment, without it is given up.
    ///
    /// # Errors
    /// As [`Self::complete_shadow_run`].
    pub async fn fail_shadow_run(
        &self,
        claim: &ShadowClaim,
        reason: &Reason,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().fail_shadow_run(claim, reason, retry_at, now).await
    }

    /// Runs by model and state.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn shadow_depths(&self) -> Result<Vec<ShadowDepth>, StoreError> {
        self.index().shadow_depths().await
    }

    /// What models in the shadow said of a study, newest version first.
    ///
    /// # Errors
    /// As [`Self::shadow_depths`].
    pub async fn shadow_results(&self, study: &Uid) -> Result<Vec<ShadowResult>, StoreError> {
        self.index().shadow_results(study).await
    }

    /// How far `model` agrees with the active one on what it scored since `since`.
    ///
    /// # Errors
    /// [`StoreError::Filter`] if it is the active one; else as [`Self::shadow_depths`].
    pub async fn agreement(&self, model: &ModelId, since: Timestamp) -> Result<AgreementReport, StoreError> {
        let active = self.active_model().await?.map(|activation| activation.model);
        if active.as_ref() == Some(model) {
            let what =
                format!("{model} is the active model: it is with this one that others agree or not; name another");
            return Err(StoreError::Filter { what });
        }
        self.index().agreement(model, active, since).await
    }
}
