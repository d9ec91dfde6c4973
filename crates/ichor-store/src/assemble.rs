//! Assemble: studies whose quiet period has passed.

use ichor_core::Uid;

use crate::{Store, StoreError, Timestamp, Topic};

/// A version of a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyRef {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Version, from 1.
    pub version: u32,
}

impl Store {
    /// Closes each receiving study whose quiet period has passed: its version goes up by one, and one analysis of
    /// that version is queued. Calling it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn close_quiet_studies(&self, now: Timestamp) -> Result<Vec<StudyRef>, StoreError> {
        let closed = self.index().close_quiet_studies(now).await?;
        if !closed.is_empty() {
            self.topics().notify(Topic::Closed);
        }
        Ok(closed)
    }

    /// When the next receiving study closes, if nothing else arrives.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn next_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        self.index().next_deadline().await
    }
}
