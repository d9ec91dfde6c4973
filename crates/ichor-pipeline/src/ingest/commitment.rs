//! Storage commitment as it meets the listener: requests become rows, and reports of rows go out on the association
//! that asked, while it is open.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ichor_core::{Reason, chain};
use ichor_dimse::commitment::{CommitmentReport, CommitmentRequest};
use ichor_dimse::scp::{PendingReport, StoreFailure};
use ichor_dimse::status::StoreStatus;
use ichor_store::{CommitmentRecorded, NewCommitment, StoreError, Topic};
use tracing::{error, info, warn};

use super::{Ingest, OpenAssociation};
use crate::commit::{event_words, report_of};
use crate::now;
use crate::prove::proof_report;

/// What an association has to do with commitments. Most have nothing, and cost nothing then.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Whether anything was asked for on it.
    any: AtomicBool,
    /// Attempts of the reports that are out on it, by their number.
    attempts: Mutex<HashMap<i64, u32>>,
}

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
                association.asked.any.store(true, Ordering::SeqCst);
                Ok(())
            }
            Ok(CommitmentRecorded::Conflict) => {
                warn!(association = association.id.get(), %transaction, "commitment refused: other content");
                let comment = "Transaction UID was used for other content";
                Err(StoreFailure::new(StoreStatus::InvalidArgumentValue, comment))
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

    /// Records a report on a request of our own, which its provider gives on an association that it has opened.
    pub(super) async fn record_report(
        &self,
        association: &OpenAssociation,
        report: &CommitmentReport,
    ) -> Result<(), StoreFailure> {
        let peer = association.calling_ae.as_ref().map_or_else(String::new, ToString::to_string);
        let transaction = &report.transaction;
        match self.store.commitment_report(&proof_report(report, peer), now()).await {
            Ok(Some(taken)) => {
                let (committed, lost) = (taken.committed, taken.lost);
                info!(association = association.id.get(), %transaction, committed, lost, "commitment report taken");
                Ok(())
            }
            Ok(None) => {
                warn!(association = association.id.get(), %transaction, "commitment report on a request that was never made");
                Err(StoreFailure::new(StoreStatus::InvalidArgumentValue, "unknown Transaction UID"))
            }
            Err(error) => {
                error!(association = association.id.get(), %transaction, %error, "commitment report could not be recorded");
                Err(StoreFailure::new(StoreStatus::ProcessingFailure, "cannot be recorded just now"))
            }
        }
    }

    /// Completes when a report is due. Reads only, so that dropping it loses nothing.
    pub(super) async fn wait_for_report(&self, association: &OpenAssociation) {
        if !association.asked.any.load(Ordering::SeqCst) {
            return pending().await;
        }
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
            Ok(claim) => claim.map(|claim| {
                association.asked.out().insert(claim.id, claim.attempts);
                PendingReport { id: claim.id, report: report_of(&claim) }
            }),
            Err(error) => {
                warn!(association = association.id.get(), %error, "a commitment report could not be claimed");
                None
            }
        }
    }

    pub(super) async fn record_answer(
        &self,
        association: &OpenAssociation,
        id: i64,
        status: StoreStatus,
        comment: Option<String>,
    ) {
        let attempts = association.asked.out().remove(&id).unwrap_or(1);
        let words = event_words(status, comment.as_deref());
        let recorded = if status.is_success_or_warning() {
            info!(id, answer = words, "commitment reported");
            self.store.commitment_answered(id, &words, now()).await
        } else {
            // While the association lasts it is tried on it again; the stage takes over when it has ended.
            let next = self.options.commitment.backoff.after(attempts).map(|wait| now().after(wait));
            warn!(id, answer = words, again = next.is_some(), "commitment report refused");
            self.store.commitment_failed(id, &Reason::new("refused", words), next, now()).await
        };
        if let Err(error) = recorded {
            error!(id, %error, "the answer to a commitment report could not be recorded");
        }
    }

    /// Reports that went out on an association and were not answered before it ended are the stage's.
    pub(super) async fn put_reports_back(&self, association: &OpenAssociation) {
        if association.asked.any.load(Ordering::SeqCst)
            && let Err(error) = self.store.requeue_commitment_reports(Some(association.id), now()).await
        {
            warn!(association = association.id.get(), %error, "unanswered commitment reports wait for a restart");
        }
    }
}

impl Asked {
    fn out(&self) -> std::sync::MutexGuard<'_, HashMap<i64, u32>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
