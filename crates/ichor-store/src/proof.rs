//! Proof of delivery: a peer said that it has an object; does it keep it, and can others find it there?
//!
//! A delivery that a destination accepted carries the proofs that are still due. Storage commitment (PS3.4 Annex J) makes it
//! `committed`, a query `visible`. What the peer turns out not to have is queued again, a bounded number of times.

use ichor_core::{Proof, Reason, Uid};

use crate::{Store, StoreError, Timestamp, Topic};

/// Which proofs are asked for, in this order: commitment, then a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProofPlan {
    /// Storage commitment.
    pub commitment: bool,
    /// A query for the instance.
    pub read_back: bool,
}

impl ProofPlan {
    /// Whether the peer's answer to the storing is all that is asked for.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.commitment && !self.read_back
    }

    pub(crate) const fn word(self) -> Option<&'static str> {
        match (self.commitment, self.read_back) {
            (false, false) => None,
            (true, false) => Some("commitment"),
            (true, true) => Some("commitment+read-back"),
            (false, true) => Some("read-back"),
        }
    }
}

impl FromIterator<Proof> for ProofPlan {
    fn from_iter<I: IntoIterator<Item = Proof>>(proofs: I) -> Self {
        proofs.into_iter().fold(Self::default(), |plan, proof| match proof {
            Proof::Commitment => Self { commitment: true, ..plan },
            Proof::ReadBack => Self { read_back: true, ..plan },
        })
    }
}

/// A delivery that is to be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// Number of the delivery.
    pub delivery: i64,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Answers that proved nothing, so far.
    pub attempts: u32,
}

/// A request for storage commitment that is in the store, to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofRequest {
    /// Number of the request.
    pub id: i64,
    /// Transaction UID.
    pub transaction: Uid,
    /// What it is about; all of as many attempts.
    pub items: Vec<Unproven>,
}

/// A delivery of which its peer said, or shows, that it does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostDelivery {
    /// Number of the delivery.
    pub delivery: i64,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// How often it was sent again already.
    pub resends: u32,
    /// What says so.
    pub words: String,
}

/// What follows from a proof that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It is asked for again at that moment. The attempt counts unless the peer was not there at all.
    AskAgain {
        /// When.
        at: Timestamp,
        /// Whether the peer was there.
        counts: bool,
    },
    /// The peer has lost the object: see [`Store::lost_deliveries`].
    Lost,
    /// It is given up; the delivery is dead.
    GiveUp,
}

/// A report on a storage commitment request of ours (PS3.4 J.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofReport {
    /// Transaction UID.
    pub transaction: Uid,
    /// Who reports.
    pub peer_ae: String,
    /// SOP Instance UIDs that the peer keeps.
    pub committed: Vec<Uid>,
    /// SOP Instance UIDs that it does not keep, with the Failure Reason (PS3.3 C.14.1.1) in words and as a number.
    pub failed: Vec<(Uid, u16, String)>,
}

/// What a report came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofReported {
    /// Deliveries that are committed now.
    pub committed: u64,
    /// Deliveries that the peer does not keep, or did not speak of.
    pub lost: u64,
}

impl Store {
    /// Puts a request for storage commitment on record, over at most `most` deliveries of a destination that are due and were
    /// asked for equally often. Its report is waited for until `report_by`.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn request_commitment(
        &self,
        destination: &str,
        transaction: &Uid,
        most: u32,
        report_by: Timestamp,
        now: Timestamp,
    ) -> Result<Option<ProofRequest>, StoreError> {
        self.index().request_commitment(destination, transaction, most, report_by, now).await
    }

    /// Requests to a destination whose report has not come in time.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn overdue_commitments(
        &self,
        destination: &str,
        now: Timestamp,
    ) -> Result<Vec<ProofRequest>, StoreError> {
        self.index().overdue_commitments(destination, now).await
    }

    /// Records that a request came to nothing. A report that comes all the same is still taken.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn commitment_came_to_nothing(
        &self,
        request: &ProofRequest,
        reason: &Reason,
        consequence: Consequence,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().commitment_came_to_nothing(request, reason, consequence, now).await
    }

    /// Records a report, on whichever association it came. `None`: there is no such transaction, and nothing was changed.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn commitment_report(
        &self,
        report: &ProofReport,
        now: Timestamp,
    ) -> Result<Option<ProofReported>, StoreError> {
        let reported = self.index().commitment_report(report, now).await?;
        self.topics().notify(Topic::Proofs);
        Ok(reported)
    }

    /// Deliveries of a destination for which a query is due, the oldest first.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn due_read_backs(
        &self,
        destination: &str,
        most: u32,
        now: Timestamp,
    ) -> Result<Vec<Unproven>, StoreError> {
        self.index().due_read_backs(destination, most, now).await
    }

    /// Records that a query has found the object of a delivery.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if it is not to be proven any more; else as [`Self::request_commitment`].
    pub async fn read_back_found(&self, delivery: i64, words: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().read_back_found(delivery, words, now).await
    }

    /// Records that a query has not found the objects of deliveries, or was not answered.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn read_back_came_to_nothing(
        &self,
        deliveries: &[i64],
        reason: &Reason,
        consequence: Consequence,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().read_back_came_to_nothing(deliveries, reason, consequence, now).await
    }

    /// Deliveries whose objects the destination has lost.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn lost_deliveries(&self, destination: &str) -> Result<Vec<LostDelivery>, StoreError> {
        self.index().lost_deliveries(destination).await
    }

    /// Queues a lost delivery again for `at`; without, it is dead.
    ///
    /// # Errors
    /// [`StoreError::StaleClaim`] if it is not lost any more; else as [`Self::request_commitment`].
    pub async fn send_again(
        &self,
        lost: &LostDelivery,
        at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().send_again(lost, at, now).await?;
        self.topics().notify(Topic::Outbox);
        Ok(())
    }

    /// Forgets proofs that are due and not asked for any more: the plan of a destination has changed. Returns how many.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn settle_proofs(&self, destination: &str, plan: ProofPlan, now: Timestamp) -> Result<u64, StoreError> {
        self.index().settle_proofs(destination, plan, now).await
    }

    /// When the next proof of a destination is due, the end of a wait for a report included.
    ///
    /// # Errors
    /// As [`Self::request_commitment`].
    pub async fn next_proof_deadline(&self, destination: &str) -> Result<Option<Timestamp>, StoreError> {
        self.index().next_proof_deadline(destination).await
    }
}
