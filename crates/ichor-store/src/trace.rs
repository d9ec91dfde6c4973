//! Traces: what of a study's story is to be exported for OpenTelemetry. The event log is followed as channels follow it; a
//! study is exported when nothing more is on its way, and again when something happened since. What is exported together is
//! fixed before the first attempt, so that every attempt carries the same.

use std::time::Duration;

use ichor_core::Uid;
use serde_json::Value;

use crate::{Store, StoreError, Timestamp};

/// When a study is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePace {
    /// So long after its last event, if nothing more is on its way.
    pub settle: Duration,
    /// So long after its oldest event that is not exported, whatever is on its way.
    pub longest_wait: Duration,
}

/// What is to be exported of one study.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceClaim {
    /// Row of the study.
    pub(crate) study: i64,
    /// The study.
    pub study_instance: Uid,
    /// What ended by this event was exported before.
    pub after: i64,
    /// What ends by this event is exported now.
    pub through: i64,
    /// Failed attempts so far.
    pub attempts: u32,
    /// The study's events up to [`Self::through`], in their order; of a kind that is part of a trace.
    pub events: Vec<TraceEvent>,
    /// What was received, for the newest versions that have closed.
    pub arrivals: Vec<TraceArrival>,
}

/// One event of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceEvent {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Stable word.
    pub kind: String,
    /// For machines.
    pub detail: Value,
    /// The version that it names, or whose object it is about.
    pub version: Option<u32>,
    /// The event that a message told of.
    pub about: Option<i64>,
}

/// What one association or request brought to one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceArrival {
    /// Version that closed with it.
    pub version: u32,
    /// The association or request, where there was one.
    pub association: Option<i64>,
    /// Who called.
    pub source_ae: Option<String>,
    /// Instances, and their bytes.
    pub instances: u64,
    /// Bytes.
    pub bytes: u64,
    /// First and last instance.
    pub first: Timestamp,
    /// Last instance.
    pub last: Timestamp,
}

/// How the export stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFigures {
    /// Spans that were taken since the database was made.
    pub spans: u64,
    /// Requests that were taken.
    pub exports: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Spans that were refused for good.
    pub refused: u64,
    /// Studies that were tried and are not exported yet.
    pub waiting: u64,
    /// When the oldest event of those happened.
    pub oldest: Option<Timestamp>,
}

impl TraceClaim {
    /// One that no store has made, for tests of what is made of it.
    #[must_use]
    pub fn of(study_instance: Uid, after: i64, events: Vec<TraceEvent>, arrivals: Vec<TraceArrival>) -> Self {
        let through = events.last().map_or(after, |event| event.id);
        Self { study: 0, study_instance, after, through, attempts: 0, events, arrivals }
    }
}

impl Store {
    /// Notes which studies have something to export since the last call; how many. At the first call it begins with what
    /// happens from then on.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn follow_for_traces(&self, pace: TracePace) -> Result<u64, StoreError> {
        self.index().follow_for_traces(pace).await
    }

    /// The next study that is due. For one task at a time.
    ///
    /// # Errors
    /// As [`Self::follow_for_traces`], and [`StoreError::Corrupt`].
    pub async fn claim_trace(&self, pace: TracePace, now: Timestamp) -> Result<Option<TraceClaim>, StoreError> {
        self.index().claim_trace(pace, now).await
    }

    /// Records that the collector took so many spans and refused others for good.
    ///
    /// # Errors
    /// As [`Self::follow_for_traces`].
    pub async fn trace_exported(
        &self,
        claim: &TraceClaim,
        (taken, refused): (u64, u64),
        pace: TracePace,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().trace_exported(claim, (taken, refused), pace, now).await
    }

    /// Records a failed attempt, and when the next is due.
    ///
    /// # Errors
    /// As [`Self::follow_for_traces`].
    pub async fn trace_failed(&self, claim: &TraceClaim, words: &str, next: Timestamp) -> Result<(), StoreError> {
        self.index().trace_failed(claim, words, next).await
    }

    /// How the export stands.
    ///
    /// # Errors
    /// As [`Self::follow_for_traces`].
    pub async fn trace_figures(&self) -> Result<TraceFigures, StoreError> {
        self.index().trace_figures().await
    }
}
