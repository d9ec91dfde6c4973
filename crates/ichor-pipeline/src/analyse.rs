//! Analyse: a closed study becomes a finding with its objects, or a reason why not, committed in one transaction.

mod model;
mod prepare;
mod segment;
mod study;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::Reason;
use ichor_store::{AnalysisClaim, Store, StoreError, Topic, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use model::{ModelError, ModelTraits, SliceModel};
pub use study::AnalysisError;

use crate::backoff::Backoff;
use crate::now;

/// Longest time between two looks at the queue, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);

/// Settings of the stage.
#[derive(Clone, Debug)]
pub struct AnalyseOptions {
    /// Which series are eligible.
    pub gate: ichor_ct::series::GateOptions,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Lesions below this volume are dropped from the mask, in millilitres.
    pub min_lesion_ml: f64,
    /// Names of the destinations that get the objects.
    pub destinations: Vec<String>,
}

/// Analyses until `shutdown`. An analysis in flight at that moment is dropped and taken up again at the next start.
pub async fn run<M: SliceModel>(store: Store, model: Arc<M>, options: AnalyseOptions, shutdown: CancellationToken) {
    let mut closed = store.changes(Topic::Closed);
    loop {
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = analyse_queued(&store, &model, &options) => result,
        };
        let wait = result.unwrap_or_else(|error| {
            error!(%error, "the queue of studies cannot be read; trying again");
            POLL
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = closed.changed() => {}
        }
    }
}

async fn analyse_queued<M: SliceModel>(
    store: &Store,
    model: &Arc<M>,
    options: &AnalyseOptions,
) -> Result<Duration, StoreError> {
    while let Some(claim) = store.claim_analysis("analyse", now()).await? {
        analyse_one(store, model, options, claim).await?;
    }
    Ok(POLL)
}

async fn analyse_one<M: SliceModel>(
    store: &Store,
    model: &Arc<M>,
    options: &AnalyseOptions,
    claim: AnalysisClaim,
) -> Result<(), StoreError> {
    let (study, version) = (claim.study.study_instance.clone(), claim.version);
    if options.backoff.are_used_up(claim.attempts - 1) {
        // A failure would have been counted; these attempts ended with the process. A study that kills the process must
        // not be met by every start anew, before all others.
        let text = format!("the process ended during each of {} attempts", claim.attempts - 1);
        let reason = Reason::new("analysis-interrupted", text);
        error!(%study, version, %reason, "analysis given up");
        return store.fail_analysis(claim, reason, None, now()).await;
    }
    match study::analyse(store, model.as_ref(), options, &claim).await {
        Ok(outcome) => {
            match &outcome.verdict {
                Verdict::Analysed(finding) => info!(
                    %study,
                    version,
                    verdict = ?finding.verdict,
                    probability = finding.probability,
                    volume_ml = finding.volume_ml,
                    objects = outcome.objects.len(),
                    "study analysed"
                ),
                Verdict::NotAnalysed(reason) => info!(%study, version, %reason, "study not analysed"),
            }
            store.complete_analysis(claim, outcome, now()).await
        }
        Err(failure) => {
            let reason: Reason = failure.reason();
            let retry_at = options.backoff.after(claim.attempts).map(|wait| now().after(wait));
            match retry_at {
                Some(_) => warn!(%study, version, attempt = claim.attempts, %reason, "analysis failed; trying again"),
                None => error!(%study, version, attempt = claim.attempts, %reason, "analysis failed for good"),
            }
            store.fail_analysis(claim, reason, retry_at, now()).await
        }
    }
}
