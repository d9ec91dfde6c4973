//! The event log as a feed: each event has a number, and who heard one asks for what came after it.

use ichor_core::Uid;
use serde::Serialize;

use crate::{Store, StoreError, Timestamp};

/// Most events of one answer.
const MOST_EVENTS: u32 = 1_000;

/// An event with its number. Holds no patient data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LoggedEvent {
    /// Its number; they grow.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Stable word for machines, such as `reopened`.
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// The same for machines.
    pub detail: serde_json::Value,
    /// The study that it is about.
    pub study_instance: Option<Uid>,
}

impl Store {
    /// Events behind a number, oldest first, at most 1,000.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn events_after(&self, id: i64, limit: u32) -> Result<Vec<LoggedEvent>, StoreError> {
        self.index().events_after(id, limit.min(MOST_EVENTS)).await
    }

    /// The number of the newest event; 0 if there is none.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn newest_event(&self) -> Result<i64, StoreError> {
        self.index().newest_event().await
    }
}
