//! Analyse: a closed study becomes a finding with its objects, or a reason why not, committed in one transaction.

pub(crate) mod batches;
mod explain;
mod finished;
mod maps;
mod model;
mod objects;
pub(crate) mod prepare;
pub(crate) mod study;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::Reason;
use ichor_store::{AnalysisClaim, Store, StoreError, Topic, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use explain::{Explanation, explain};
pub use model::{ModelError, ModelTraits, SliceModel};
pub use objects::{DestinationObjects, ObjectKind, ReportOn};
pub use study::AnalysisError;

use crate::backoff::Backoff;
use crate::models::Roster;
use crate::order::{self, OrderOptions};
use crate::route::Rule;
use crate::worklist::reading::{self, ReadingOptions};
use crate::{Live, now};

/// Longest time between two looks at the queue, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);

/// Settings of the stage.
#[derive(Clone, Debug)]
pub struct AnalyseOptions {
    /// Which series are eligible.
    pub gate: ichor_ct::series::GateOptions,
    /// What reads the slices.
    pub decoder: ichor_decode::Decoder,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Lesions below this volume are dropped from the mask, in millilitres.
    pub min_lesion_ml: f64,
    /// Whether the attribution maps of positive studies are kept.
    pub keep_maps: bool,
    /// What each destination gets.
    pub destinations: Vec<DestinationObjects>,
    /// Which of them get it; empty: all.
    pub rules: Vec<Rule>,
    /// Whether each finished study makes a workitem for whoever reads it, and what stands in it.
    pub reading: Option<ReadingOptions>,
    /// Which studies are analysed first.
    pub order: OrderOptions,
}

/// Analyses until `shutdown`, each study with the model that is active when it begins; while none is, studies wait. An
/// analysis in flight at the end is dropped and taken up again at the next start.
pub async fn run<M: SliceModel>(
    store: Store,
    models: impl Into<Roster<M>>,
    options: Live<AnalyseOptions>,
    shutdown: CancellationToken,
) {
    let models = models.into();
    let mut closed = store.changes(Topic::Closed);
    // After an error of the store a claim may be lost: what it was for must not wait for a restart.
    let mut claim_lost = false;
    loop {
        let work = async {
            if claim_lost {
                store.requeue_analyses(now()).await?;
            }
            analyse_queued(&store, &models, &options).await
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = work => result,
        };
        claim_lost = result.is_err();
        let wait = result.unwrap_or_else(|error| {
            error!(%error, "the job log failed; trying again");
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
    models: &Roster<M>,
    options: &Live<AnalyseOptions>,
) -> Result<Duration, StoreError> {
    while let Some(active) = models.active() {
        let options = Arc::clone(&options.borrow());
        // Before each claim: one that was queued meanwhile may be more urgent than all others.
        order::decide(store, &options.order).await?;
        let overdue = options.order.overdue(now());
        let Some(claim) = store.claim_analysis_in_order("analyse", overdue, now()).await? else { break };
        analyse_one(store, (models, active), &options, claim).await?;
    }
    Ok(POLL)
}

/// The model that somebody asked for, else the active one.
async fn model_for<M: SliceModel>(
    models: &Roster<M>,
    active: Arc<M>,
    claim: &AnalysisClaim,
) -> Result<Arc<M>, ModelError> {
    match &claim.wanted_model {
        Some(wanted) if *wanted != active.traits().id => {
            let failed =
                |why| ModelError(format!("{wanted}, which this study is to be analysed with, cannot be used: {why}"));
            models.obtain(wanted).await.map_err(failed)
        }
        _ => Ok(active),
    }
}

async fn analyse_one<M: SliceModel>(
    store: &Store,
    (models, active): (&Roster<M>, Arc<M>),
    options: &AnalyseOptions,
    claim: AnalysisClaim,
) -> Result<(), StoreError> {
    let (study, version) = (claim.study.study_instance.clone(), claim.version);
    if options.backoff.are_used_up(claim.attempts - 1) {
        // A failure would have been recorded; these attempts were cut off. A study that kills the process must not be met
        // by every start anew, before all others.
        let text = format!("each of {} attempts ended before it could be recorded", claim.attempts - 1);
        let reason = Reason::new("analysis-interrupted", text);
        error!(%study, version, %reason, "analysis given up");
        return store.fail_analysis(claim, reason, None, now()).await;
    }
    let analysed = match model_for(models, active, &claim).await {
        Ok(model) => study::analyse(store, model.as_ref(), options, &claim).await,
        Err(error) => Err(error.into()),
    };
    match analysed {
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
            let workitem = match options.reading.as_ref().map(|reading| reading::workitem(&claim, &outcome, reading)) {
                Some(Err(fault)) => {
                    error!(%study, version, %fault, "no workitem can be made of this study");
                    None
                }
                Some(Ok(workitem)) => Some(workitem),
                None => None,
            };
            store.complete_analysis_to_read(claim, outcome, workitem, now()).await
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
