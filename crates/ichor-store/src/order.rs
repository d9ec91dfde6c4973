//! The order of analysis: urgent ones first, then the oldest; whoever has waited long enough counts as urgent.

use std::path::PathBuf;

use ichor_core::{AeTitle, Uid};
use serde::Serialize;

use crate::{Store, StoreError, Timestamp};

/// A queued analysis of which it is not decided whether it is urgent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedAnalysis {
    pub(crate) id: i64,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Who sent the first instance.
    pub source_ae: Option<AeTitle>,
    /// The first instance that arrived.
    pub first_instance: Option<PathBuf>,
}

/// Whether an analysis is urgent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// The rule by which it is.
    pub by: Option<String>,
    /// What is written into the study's timeline; `None`: nothing.
    pub words: Option<String>,
}

/// An analysis that waits or is under way, in the order in which they are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WaitingAnalysis {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// The study's version.
    pub version: u32,
    /// Whether it is under way.
    pub is_running: bool,
    /// Attempts so far.
    pub attempts: u32,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it may begin.
    pub not_before: Timestamp,
    /// The rule that makes it urgent.
    pub urgent_by: Option<String>,
    /// When the study was found suspicious before it was complete: that makes it urgent too.
    pub alerted_at: Option<Timestamp>,
}

impl Store {
    /// Queued analyses of which it is not decided whether they are urgent, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn undecided_analyses(&self, most: u32) -> Result<Vec<UndecidedAnalysis>, StoreError> {
        self.index().undecided_analyses(self.blobs(), most).await
    }

    /// Records whether an analysis is urgent. A second decision changes nothing.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn decide_urgency(
        &self,
        analysis: &UndecidedAnalysis,
        urgency: &Urgency,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().decide_urgency(analysis, urgency, now).await
    }

    /// What waits for its analysis or is analysed, in the order in which it is taken at `now`, when everything that was queued
    /// until `overdue` counts as urgent.
    ///
    /// # Errors
    /// As [`Self::undecided_analyses`].
    pub async fn analysis_queue(
        &self,
        overdue: Timestamp,
        most: u32,
        now: Timestamp,
    ) -> Result<Vec<WaitingAnalysis>, StoreError> {
        self.index().analysis_queue(overdue, most, now).await
    }
}
