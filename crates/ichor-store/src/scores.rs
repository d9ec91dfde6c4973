//! The distribution of scores: what drifts shows in it.

use ichor_core::ModelId;

use crate::{Store, StoreError, Timestamp};

/// Bins of a histogram: tenths of the probability.
pub const BINS: usize = 10;

/// How many scores fell into each tenth of the probability.
pub type Histogram = [u64; BINS];

/// What one model said in the last day and the last thirty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// Study-level probabilities of the last 24 hours.
    pub studies_24h: Histogram,
    /// The same of the last 30 days, those 24 hours included.
    pub studies_30d: Histogram,
    /// Probabilities of slices of the last 24 hours, as they were read together.
    pub slices_24h: Histogram,
    /// The same of the last 30 days.
    pub slices_30d: Histogram,
}

impl Store {
    /// The distribution of what `model` said, by the hour of the analysis: the hour that has begun and the 23, or 719, before.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn scores(&self, model: &ModelId, now: Timestamp) -> Result<Scores, StoreError> {
        self.index().scores(model, now).await
    }
}
