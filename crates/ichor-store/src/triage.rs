//! Triage: slices are classified as they arrive, and an alert does not wait for the study.

use std::collections::HashMap;

use ichor_core::Uid;

use crate::{AnalysisClaim, Store, StoreError, StoredInstance, Timestamp, Topic};

/// An instance of a study that is still arriving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivedInstance {
    /// The instance.
    pub instance: StoredInstance,
    /// Study Instance UID of its study.
    pub study_instance: Uid,
}

/// What a model says of one slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SliceProbability {
    /// The instance's number in the index.
    pub instance: i64,
    /// The frame, counted from 1, where the instance has several.
    pub frame: Option<u32>,
    /// Probability of hemorrhage, 0 to 1, before neighbours are made consistent.
    pub probability: f32,
    /// Where the slice lies along its own normal, in mm.
    pub height_mm: f64,
}

/// A classified slice of a series that is still arriving.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrivedSlice {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// When it was recorded.
    pub received_at: Timestamp,
    /// Probability of hemorrhage, 0 to 1, before neighbours are made consistent.
    pub probability: f32,
    /// Where the slice lies along its own normal, in mm.
    pub height_mm: f64,
}

/// Neighbouring slices that are suspicious, of a study that need not be complete.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAlert {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// The model and its input, in words.
    pub model: String,
    /// What its weights say about themselves, if anything.
    pub notice: Option<String>,
    /// The slices, in order along the patient.
    pub slices: Vec<Uid>,
    /// The lowest of their probabilities, neighbours made consistent.
    pub probability: f32,
    /// When the first of them to arrive was recorded.
    pub first_received_at: Timestamp,
}

impl Store {
    /// Instances of receiving studies that `model` has not classified, in the order of arrival: at most `limit`, with
    /// numbers above `after`. Results of this program are not among them.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn unclassified_instances(
        &self,
        model: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<ArrivedInstance>, StoreError> {
        self.index().unclassified_instances(self.blobs(), model, after, limit).await
    }

    /// The number of the newest instance: where triage begins after a start. 0 if there is none.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn newest_instance(&self) -> Result<i64, StoreError> {
        self.index().newest_instance().await
    }

    /// Keeps what `model` said, in one transaction. What it said of the same slice before stays.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn record_probabilities(&self, model: &str, said: &[SliceProbability]) -> Result<(), StoreError> {
        self.index().record_probabilities(model, said).await
    }

    /// What `model` has said of a claimed study's slices, by SOP Instance UID and, where an instance has several, frame.
    ///
    /// # Errors
    /// As [`Self::unclassified_instances`].
    pub async fn probabilities(
        &self,
        claim: &AnalysisClaim,
        model: &str,
    ) -> Result<HashMap<(Uid, Option<u32>), f32>, StoreError> {
        self.index().probabilities(claim, model).await
    }

    /// The slices of a series that `model` has classified, in order along their normal. Empty if the study has had its
    /// alert, or is not on its way to a result any more.
    ///
    /// # Errors
    /// As [`Self::unclassified_instances`].
    pub async fn slices_to_alert(
        &self,
        study: &Uid,
        series: &Uid,
        model: &str,
    ) -> Result<Vec<ArrivedSlice>, StoreError> {
        self.index().slices_to_alert(study, series, model).await
    }

    /// Records an alert, once a study: how long after the first of its slices it came, in milliseconds. `None` if the
    /// study has had one, or has its result.
    ///
    /// # Errors
    /// As [`Self::record_probabilities`]; [`StoreError::NotFound`] if there is no such study.
    pub async fn record_alert(&self, alert: &NewAlert, now: Timestamp) -> Result<Option<i64>, StoreError> {
        let latency = self.index().record_alert(alert, now).await?;
        if latency.is_some() {
            self.topics().notify(Topic::Alert);
        }
        Ok(latency)
    }
}
