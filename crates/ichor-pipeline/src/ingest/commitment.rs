//! Storage commitment as it meets the listener: requests become rows, and reports of rows go out on the association
//! that asked, while it is open.

use std::time::Duration;

use ichor_core::Reason;
use ichor_dimse::commitment::CommitmentRequest;
use ichor_dimse::scp::{PendingReport, StoreFailure};
use ichor_dimse::status::StoreStatus;
use ichor_store::{CommitmentRecorded, NewCommitment, StoreError, Topic};
use tracing::{error, info, warn};

use super::{Ingest, OpenAssociation, chain};
use crate::commit::{event_words, report_of};
use crate::now;

/// Longest time between two looks for a report.
const POLL: Duration = Duration::from_secs(1);

impl Ingest {
    pub(super) async fn record_request(
        &self,
        association: &OpenAssociation,
        request: &CommitmentRequest,
    ) -> Result<(), StoreFailure> {
        let new = NewCommitment {
            peer_ae: association.calling_ae.as_ref().map_or_else(String::new, ToString::to_string),
            transaction: request.transaction.clone(),
            association: association.id,
            references: request.references.iter().map(|r| (r.sop_class.clone(), r.sop_instance.clone())).collect(),
            wait: self.options.commitment.wait,
        };
        let (transaction, instances) = (&request.transaction, request.references.len());
        match self.store.record_commitment_request(&new, now()).await {
            Ok(CommitmentRecorded::New | CommitmentRecorded::Again) => {
                info!(association = association.id.get(), %transaction, instances, "commitment requested");
                Ok(())
            }
            Ok(CommitmentRecorded::Conflict) => {
                warn!(association = association.id.get(), %transaction, "commitment refused: other content");
                let comment = "Transaction UID was used for other content";
                Err(StoreFailure::new(StoreStatus::DuplicateTransactionUid, comment))
            }
            Err(error) => {
                error!(association = association.id.get(), %transaction, %error, "commitment could not be recorded");
                let status = match error {
                    StoreError::DiskFull { .. } => StoreStatus::ResourceLimitation,
                    _ => StoreStatus::ProcessingFailure,
                };
                Err(StoreFailure::new(status, chain(&error)))
            }
        }
    }

    /// Completes when a report is due. Reads only, so that dropping it loses nothing.
    pub(super) async fn wait_for_report(&self, association: &OpenAssociation) {
        let mut changes = self.store.changes(Topic::Commitments);
        loop {
            match self.store.has_commitment_report(association.id, now()).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => warn!(association = association.id.get(), %error, "reports cannot be looked for"),
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = changes.changed() => {}
            }
        }
    }

    pub(super) async fn claim_report(&self, association: &OpenAssociation) -> Option<PendingReport> {
        match self.store.claim_commitment_report(Some(association.id), now()).await {
            Ok(claim) => claim.map(|claim| PendingReport { id: claim.id, report: report_of(&claim) }),
            Err(error) => {
                warn!(association = association.id.get(), %error, "a commitment report could not be claimed");
                None
            }
        }
    }

    pub(super) async fn record_answer(&self, id: i64, status: StoreStatus, comment: Option<String>) {
        let words = event_words(status, comment.as_deref());
        let recorded = if status.is_success_or_warning() {
            info!(id, answer = words, "commitment reported");
            self.store.commitment_answered(id, &words, now()).await
        } else {
            warn!(id, answer = words, "commitment report refused");
            // The association is no better a second time; the stage tries on one of its own.
            let next = now().after(self.options.commitment.retry_after);
            self.store.commitment_failed(id, &Reason::new("refused", words), Some(next), now()).await
        };
        if let Err(error) = recorded {
            error!(id, %error, "the answer to a commitment report could not be recorded");
        }
    }
}
