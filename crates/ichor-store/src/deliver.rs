//! Deliver: the outbox, one queue a destination.

use std::path::PathBuf;

use ichor_core::{DeliveryStatus, Reason, Uid};
use serde::Serialize;

use crate::{Among, ProofPlan, Store, StoreError, Timestamp, Topic};

/// The right to send one object to one destination, held by one task.
#[derive(Debug)]
pub struct DeliveryClaim {
    /// Number of the delivery in the outbox.
    pub id: i64,
    /// Where to.
    pub destination: String,
    /// What.
    pub object: DeliveryObject,
    /// Attempts, this one included.
    pub attempts: u32,
    /// When the object was put into the outbox.
    pub queued_at: Timestamp,
    /// Whether its last attempt was held.
    pub was_held: bool,
}

/// An object to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryObject {
    /// What it is, such as `seg`.
    pub kind: String,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Transfer Syntax UID.
    pub transfer_syntax: Uid,
    /// The Part 10 file.
    pub path: PathBuf,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// The version of the study that it belongs to; of a received instance the last closed one.
    pub version: u32,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Whether it belongs to a positive finding.
    pub positive: bool,
}

/// How many deliveries of one destination are in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// Name of the destination.
    pub destination: String,
    /// The state.
    pub status: DeliveryStatus,
    /// How many.
    pub count: u64,
}

impl Store {
    /// Claims the next due delivery of a destination: positive findings first, then the oldest.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn claim_delivery(&self, destination: &str, now: Timestamp) -> Result<Option<DeliveryClaim>, StoreError> {
        self.claim_delivery_among(destination, Among::All, now).await
    }

    /// Records that the peer said it has the object, in its words, and which proofs of it are due, from `prove_at` on.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if the claim is no longer held; else as [`Self::claim_delivery`].
    pub async fn delivery_accepted(
        &self,
        claim: DeliveryClaim,
        peer_words: &str,
        proofs: ProofPlan,
        prove_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().delivery_accepted(&claim, peer_words, proofs, prove_at, now).await?;
        if !proofs.is_empty() {
            self.topics().notify(Topic::Proofs);
        }
        Ok(())
    }

    /// Records a failed attempt. With `next_attempt` the delivery is queued for that moment; without, it is dead
    /// until somebody asks for a retry.
    ///
    /// # Errors
    /// As [`Self::delivery_accepted`].
    pub async fn delivery_failed(
        &self,
        claim: DeliveryClaim,
        reason: Reason,
        next_attempt: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().delivery_failed(&claim, &reason, next_attempt, now).await
    }

    /// Queues again every delivery to a destination that is under way. For the one task that serves it, when an answer
    /// could not be recorded and nothing is being sent.
    ///
    /// # Errors
    /// As [`Self::claim_delivery`].
    pub async fn requeue_deliveries(&self, destination: &str, now: Timestamp) -> Result<u64, StoreError> {
        self.index().requeue_deliveries(destination, now).await
    }

    /// When the next queued delivery of a destination is due.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn next_delivery_deadline(&self, destination: &str) -> Result<Option<Timestamp>, StoreError> {
        self.index().next_delivery_deadline(destination).await
    }

    /// How many deliveries are in which state, by destination.
    ///
    /// # Errors
    /// As [`Self::next_delivery_deadline`].
    pub async fn queue_depths(&self) -> Result<Vec<QueueDepth>, StoreError> {
        self.index().queue_depths().await
    }
}
