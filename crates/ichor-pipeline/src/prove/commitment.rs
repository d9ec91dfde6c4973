//! Storage commitment as user: asks, takes the report on the same association, or leaves it to the listener.

use ichor_core::{Reason, Uid, chain};
use ichor_dimse::commitment::{CommitmentReport, CommitmentRequest, Reference, failure_words};
use ichor_dimse::scu::{CommitmentScu, ReceivedReport, ScuError, ScuOptions};
use ichor_dimse::status::StoreStatus;
use ichor_store::{Consequence, ProofReport, ProofRequest, StoreError};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Prover, Round};
use crate::deliver::Transport;
use crate::now;

/// Reports on other requests that are taken on the association of a request.
const MOST_OTHERS: u32 = 16;

/// What became of a request.
enum Asked {
    /// The peer has heard it; the report is recorded, or may come later.
    Heard,
    /// The peer was there, and it came to nothing.
    InVain(Reason),
    /// The peer was not there.
    Unreachable(Reason),
}

impl Prover {
    pub(super) async fn ask_for_commitment(&self) -> Result<Round, StoreError> {
        let Transport::CStore(options) = &self.destination.transport else { return Ok(Round::Answered) };
        let (name, proof) = (&self.destination.name, &self.destination.proof);
        loop {
            let transaction = Uid::derive(["storage-commitment", &rand::random::<u128>().to_string()]);
            let report_by = now().after(proof.report_timeout);
            let request = self.store.request_commitment(name, &transaction, proof.batch, report_by, now()).await?;
            let Some(request) = request else { return Ok(Round::Answered) };
            info!(destination = name, transaction = %request.transaction, instances = request.items.len(), "asking for commitment");
            match self.ask(options, &request).await? {
                Asked::Heard => {}
                Asked::InVain(reason) => self.in_vain(&request, &reason).await?,
                Asked::Unreachable(reason) => {
                    let consequence = Consequence::AskAgain { at: now(), counts: false };
                    self.store.commitment_came_to_nothing(&request, &reason, consequence, now()).await?;
                    return Ok(Round::Unreachable(reason));
                }
            }
        }
    }

    /// Ends the wait for reports that have not come in time.
    pub(super) async fn give_overdue_up(&self) -> Result<(), StoreError> {
        for request in self.store.overdue_commitments(&self.destination.name, now()).await? {
            let limit = self.destination.proof.report_timeout;
            let reason = Reason::new("no-report", format!("no commitment report within {limit:?}"));
            self.in_vain(&request, &reason).await?;
        }
        Ok(())
    }

    async fn in_vain(&self, request: &ProofRequest, reason: &Reason) -> Result<(), StoreError> {
        // All items were asked for equally often.
        let attempts = request.items.first().map_or(0, |item| item.attempts);
        let consequence = self.destination.proof.asked_in_vain(attempts, Consequence::GiveUp);
        let again = matches!(consequence, Consequence::AskAgain { .. });
        let (destination, instances) = (&self.destination.name, request.items.len());
        warn!(destination, transaction = %request.transaction, instances, again, %reason, "accepted, and not committed");
        self.store.commitment_came_to_nothing(request, reason, consequence, now()).await
    }

    async fn ask(&self, options: &ScuOptions, request: &ProofRequest) -> Result<Asked, StoreError> {
        let refused = |error: ScuError| Asked::InVain(Reason::new("commitment-refused", chain(&error)));
        let mut scu = match CommitmentScu::connect(options).await {
            Ok(scu) => scu,
            Err(error @ (ScuError::NoAcceptedContext | ScuError::ContextNotAccepted { .. })) => {
                return Ok(refused(error));
            }
            Err(error) => return Ok(Asked::Unreachable(Reason::new("unreachable", chain(&error)))),
        };
        let references = request.items.iter();
        let references = references
            .map(|item| Reference { sop_class: item.sop_class.clone(), sop_instance: item.sop_instance.clone() })
            .collect();
        let message = CommitmentRequest { transaction: request.transaction.clone(), references };
        match scu.request(&message).await {
            Ok(response) if response.status.is_success_or_warning() => {}
            Ok(response) => {
                let words = crate::commit::event_words(response.status, response.comment.as_deref());
                let _ = scu.release().await;
                return Ok(Asked::InVain(Reason::new("commitment-refused", words)));
            }
            Err(error) => return Ok(refused(error)),
        }
        let deadline = Instant::now() + self.destination.proof.report_wait;
        let mut others = 0;
        loop {
            // The peer has heard: however this association ends, the report may come on another.
            match scu.report(deadline.saturating_duration_since(Instant::now())).await {
                Ok(Some(report)) => {
                    let is_ours = report.report.as_ref().is_ok_and(|report| report.transaction == request.transaction);
                    let (status, comment) = self.take(&report, options.called_ae.as_str()).await?;
                    if let Err(error) = scu.answer(&report, status, comment).await {
                        warn!(destination = self.destination.name, %error, "a commitment report could not be answered");
                        return Ok(Asked::Heard);
                    }
                    others += 1;
                    // A peer that goes on reporting something else does not keep the next request from being sent.
                    if is_ours || others >= MOST_OTHERS || Instant::now() >= deadline {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    info!(destination = self.destination.name, %error, "the association ended before a commitment report");
                    return Ok(Asked::Heard);
                }
            }
        }
        if let Err(error) = scu.release().await {
            // What was said counts; how it hangs up does not.
            warn!(destination = self.destination.name, %error, "release after storage commitment failed");
        }
        Ok(Asked::Heard)
    }

    /// Records a report before it is answered.
    async fn take(&self, report: &ReceivedReport, peer: &str) -> Result<(StoreStatus, &'static str), StoreError> {
        let destination = &self.destination.name;
        match &report.report {
            Ok(report) => match self.store.commitment_report(&proof_report(report, peer.to_owned()), now()).await? {
                Some(taken) => {
                    let (committed, lost) = (taken.committed, taken.lost);
                    info!(destination, transaction = %report.transaction, committed, lost, "commitment report taken");
                    Ok((StoreStatus::Success, ""))
                }
                None => Ok((StoreStatus::InvalidArgumentValue, "unknown Transaction UID")),
            },
            Err(error) => {
                warn!(destination, %error, "a commitment report cannot be read");
                Ok((StoreStatus::InvalidArgumentValue, "the report cannot be read"))
            }
        }
    }
}

/// A report as the store takes it.
pub(crate) fn proof_report(report: &CommitmentReport, peer_ae: String) -> ProofReport {
    let failed = |(reference, reason): &(Reference, u16)| {
        (reference.sop_instance.clone(), *reason, failure_words(*reason).to_owned())
    };
    ProofReport {
        transaction: report.transaction.clone(),
        peer_ae,
        committed: report.committed.iter().map(|reference| reference.sop_instance.clone()).collect(),
        failed: report.failed.iter().map(failed).collect(),
    }
}
