//! Storage commitment: what peers asked for, what is true of it, and whether they have heard.
//!
//! Committed means: the instance is in the index under the class that the peer names, and its file is there with the
//! size that was fsynced before the index took it. The digest is not computed again: a request for a study would read
//! all of it, mostly from memory, and so would say little about the medium.

use std::time::Duration;

use ichor_core::{Reason, Uid};
use serde::Serialize;

use crate::{AssociationId, Store, StoreError, Timestamp, Topic};

/// There is no such instance (PS3.3 C.14.1.1, Failure Reason).
pub const NO_SUCH_INSTANCE: u16 = 0x0112;
/// The instance is of another SOP class.
pub const CLASS_INSTANCE_CONFLICT: u16 = 0x0119;
/// The instance is in the index, but its file is not there as it was written.
pub const PROCESSING_FAILURE: u16 = 0x0110;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCommitment {
    /// Calling AE title; with the Transaction UID it names the request.
    pub peer_ae: String,
    /// Transaction UID.
    pub transaction: Uid,
    /// The association that it came over.
    pub association: AssociationId,
    /// SOP Class UID and SOP Instance UID of each instance.
    pub references: Vec<(Uid, Uid)>,
    /// How long instances that are not there yet may still come.
    pub wait: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitmentRecorded {
    /// Not seen before.
    New,
    /// Asked before with the same content: it is judged and answered again.
    Again,
    /// The peer uses this Transaction UID for other content; nothing was changed.
    Conflict,
}

/// The right to report on one request.
#[derive(Debug)]
pub struct CommitmentClaim {
    /// Number of the request.
    pub id: i64,
    /// Who asked.
    pub peer_ae: String,
    /// Address and port that it asked from.
    pub peer_address: String,
    /// AE title that it called.
    pub called_ae: String,
    /// Transaction UID.
    pub transaction: Uid,
    /// Class and instance, with the Failure Reason of those that are not committed.
    pub references: Vec<(Uid, Uid, Option<u16>)>,
    /// Attempts to report, this one included.
    pub attempts: u32,
}

/// A request for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitmentSummary {
    /// Who asked.
    pub peer_ae: String,
    /// Transaction UID.
    pub transaction: Uid,
    /// `waiting`, `ready`, `reporting`, `answered` or `dead`.
    pub status: String,
    /// Last time that it was asked.
    pub requested_at: Timestamp,
    /// Referenced instances.
    pub references: u64,
    /// Of these, found not to be committed.
    pub failed: u64,
    /// Attempts to report.
    pub attempts: u32,
    /// What the peer, or the last failed attempt, said.
    pub last_words: Option<String>,
}

impl Store {
    /// Records a request; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`]: nothing was kept.
    pub async fn record_commitment_request(
        &self,
        request: &NewCommitment,
        now: Timestamp,
    ) -> Result<CommitmentRecorded, StoreError> {
        let recorded = self.index().record_commitment_request(request, now).await?;
        self.topics().notify(Topic::Commitments);
        Ok(recorded)
    }

    /// Judges every request that is due: it becomes ready to be reported when everything is committed, or when its wait
    /// is over. Returns when to look again, if anything still waits.
    ///
    /// # Errors
    /// As [`Self::record_commitment_request`], and [`StoreError::Corrupt`].
    pub async fn judge_commitments(
        &self,
        look_again: Duration,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (ready, next) = self.index().judge_commitments(self.blobs(), look_again, now).await?;
        if ready > 0 {
            self.topics().notify(Topic::Commitments);
        }
        Ok(next)
    }

    /// Whether a report is due on this association.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn has_commitment_report(&self, association: AssociationId, now: Timestamp) -> Result<bool, StoreError> {
        self.index().has_commitment_report(association, now).await
    }

    /// Claims a report that is due: with `association` one to be sent on it, without one whose association has ended.
    ///
    /// # Errors
    /// As [`Self::judge_commitments`].
    pub async fn claim_commitment_report(
        &self,
        association: Option<AssociationId>,
        now: Timestamp,
    ) -> Result<Option<CommitmentClaim>, StoreError> {
        self.index().claim_commitment_report(association, now).await
    }

    /// Records that the peer took the report.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if the report is not under way; else as [`Self::record_commitment_request`].
    pub async fn commitment_answered(&self, id: i64, peer_words: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().commitment_answered(id, peer_words, now).await
    }

    /// Records a failed attempt. With `next_attempt` the report is due then; without, it is dead until the peer asks
    /// again.
    ///
    /// # Errors
    /// As [`Self::commitment_answered`].
    pub async fn commitment_failed(
        &self,
        id: i64,
        reason: &Reason,
        next_attempt: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().commitment_failed(id, reason, next_attempt, now).await?;
        self.topics().notify(Topic::Commitments);
        Ok(())
    }

    /// Puts reports back that are under way: those of one association, which has ended, or all but those of open
    /// associations, for the one task that sends them.
    ///
    /// # Errors
    /// As [`Self::record_commitment_request`].
    pub async fn requeue_commitment_reports(
        &self,
        association: Option<AssociationId>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let requeued = self.index().requeue_commitment_reports(association, now).await?;
        self.topics().notify(Topic::Commitments);
        Ok(requeued)
    }

    /// The last requests, newest first.
    ///
    /// # Errors
    /// As [`Self::judge_commitments`].
    pub async fn commitments(&self, only_open: bool, limit: u32) -> Result<Vec<CommitmentSummary>, StoreError> {
        self.index().commitments(only_open, limit.min(10_000)).await
    }
}
