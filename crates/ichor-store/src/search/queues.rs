//! What waits, and what an operator may do about it.

use ichor_core::Uid;
use serde::Serialize;

use crate::{Store, StoreError, Timestamp, Topic};

/// What an operator's word about one waiting thing did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ReleaseOutcome {
    /// It is due now.
    Done,
    /// There was nothing to do: it is in another state, perhaps by somebody else's word.
    Refused {
        /// The state that it is in.
        status: String,
    },
}

impl Store {
    /// Queues one dead delivery again, its attempts counted anew. Of two callers at once, one is refused.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn retry_delivery(&self, id: i64, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let outcome = self.index().retry_delivery(id, now).await?;
        self.topics().notify(Topic::Outbox);
        Ok(outcome)
    }

    /// Makes a delivery that waits for its next attempt due now.
    ///
    /// # Errors
    /// As [`Self::retry_delivery`].
    pub async fn release_delivery(&self, id: i64, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let outcome = self.index().release_delivery(id, now).await?;
        self.topics().notify(Topic::Outbox);
        Ok(outcome)
    }

    /// Makes a message that waits for its next attempt due now.
    ///
    /// # Errors
    /// As [`Self::retry_delivery`].
    pub async fn release_message(&self, id: i64, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let outcome = self.index().release_message(id, now).await?;
        self.topics().notify(Topic::Messages);
        Ok(outcome)
    }

    /// Makes a study's analysis that waits for its next attempt due now.
    ///
    /// # Errors
    /// As [`Self::retry_delivery`].
    pub async fn release_analysis(&self, study: &Uid, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let outcome = self.index().release_analysis(study, now).await?;
        self.topics().notify(Topic::Closed);
        Ok(outcome)
    }

    /// The file of an instance that was received as part of a study.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn instance_file(&self, study: &Uid, sop_instance: &Uid) -> Result<std::path::PathBuf, StoreError> {
        self.index().instance_file(self.blobs(), study, sop_instance).await
    }
}
