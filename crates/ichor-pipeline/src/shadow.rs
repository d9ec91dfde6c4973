//! The shadow: models that score the slices of studies whose analysis is committed, so that they can be compared with the
//! active one before anybody relies on them. Nothing follows from what they say.
//!
//! Best effort: real work goes first, slice batch by slice batch; a queue that is full drops its oldest; attempts are counted
//! before they begin, so that a study that kills the process is met a bounded number of times. The program runs this stage in a
//! process of its own: a crash, or memory that runs out, is that process's.

mod courteous;
mod dice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ichor_core::{ModelId, Reason};
use ichor_ct::series::GateOptions;
use ichor_decode::Decoder;
use ichor_store::{ShadowClaim, ShadowOutcome, Store, StoreError, Verdict};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::analyse::{AnalyseOptions, AnalysisError, SliceModel, study};
use crate::backoff::Backoff;
use crate::models::Loader;
use crate::now;
use crate::order::OrderOptions;
use courteous::Courteous;

/// Longest time between two looks at the store.
const POLL: Duration = Duration::from_secs(1);

/// Settings of the stage.
#[derive(Clone, Debug)]
pub struct ShadowOptions {
    /// Which series are eligible: the analysis's own gate.
    pub gate: GateOptions,
    /// What reads the slices.
    pub decoder: Decoder,
    /// Lesions below this volume are dropped from masks, in millilitres.
    pub min_lesion_ml: f64,
    /// Attempts at one study, and the waits between them.
    pub backoff: Backoff,
    /// Studies that may wait for one model.
    pub max_queue: u32,
    /// Slices that arrived within this time are real work.
    pub quiet: Duration,
    /// Time before a model that could not be loaded is tried again.
    pub reload: Duration,
}

/// The models that look on.
struct Shadows<M> {
    loaded: BTreeMap<ModelId, Arc<M>>,
    failed: BTreeMap<ModelId, Instant>,
}

/// Scores until `shutdown` with those of `models` that are not the active one.
pub async fn run<M: SliceModel>(
    store: Store,
    models: Vec<ModelId>,
    loader: Loader<M>,
    options: ShadowOptions,
    shutdown: CancellationToken,
) {
    let mut shadows = Shadows { loaded: BTreeMap::new(), failed: BTreeMap::new() };
    if let Err(error) = store.requeue_shadow_runs(now()).await {
        error!(%error, "runs that were cut off stay as they are until the next start");
    }
    loop {
        let round = round(&store, &models, &loader, &options, &mut shadows);
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = round => result,
        };
        match result {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => error!(%error, "the job log failed; the shadow tries again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Looks for work once; whether there was any.
async fn round<M: SliceModel>(
    store: &Store,
    models: &[ModelId],
    loader: &Loader<M>,
    options: &ShadowOptions,
    shadows: &mut Shadows<M>,
) -> Result<bool, StoreError> {
    let active = store.active_model().await?.map(|activation| activation.model);
    let wanted: Vec<ModelId> = models.iter().filter(|id| Some(*id) != active.as_ref()).cloned().collect();
    store.queue_shadow_runs(&wanted, options.max_queue, now()).await?;
    shadows.loaded.retain(|id, _| wanted.contains(id));
    for id in &wanted {
        shadows.load(id, loader, options.reload).await;
    }
    if store.has_real_work(options.quiet, now()).await? {
        return Ok(false);
    }
    let ready: Vec<ModelId> = shadows.loaded.keys().cloned().collect();
    let Some(claim) = store.claim_shadow_run(&ready, now()).await? else { return Ok(false) };
    let Some(model) = shadows.loaded.get(&claim.model) else { return Ok(false) };
    one(store, Arc::clone(model), options, claim).await?;
    Ok(true)
}

impl<M: SliceModel> Shadows<M> {
    /// Loads a model if it is not, and was not tried a moment ago. The loader says in the store what came of it.
    async fn load(&mut self, id: &ModelId, loader: &Loader<M>, reload: Duration) {
        let is_recent = self.failed.get(id).is_some_and(|tried| tried.elapsed() < reload);
        if self.loaded.contains_key(id) || is_recent {
            return;
        }
        match loader(id.clone()).await {
            Ok(model) => {
                info!(model = %id, "in the shadow");
                self.failed.remove(id);
                self.loaded.insert(id.clone(), model);
            }
            Err(reason) => {
                error!(model = %id, reason, "a model for the shadow cannot be used");
                self.failed.insert(id.clone(), Instant::now());
            }
        }
    }
}

async fn one<M: SliceModel>(
    store: &Store,
    model: Arc<M>,
    options: &ShadowOptions,
    claim: ShadowClaim,
) -> Result<(), StoreError> {
    let (study, id) = (claim.analysis.study.study_instance.clone(), claim.model.clone());
    if options.backoff.are_used_up(claim.attempts - 1) {
        let text = format!("each of {} attempts ended before it could be recorded", claim.attempts - 1);
        let reason = Reason::new("shadow-interrupted", text);
        error!(%study, model = %id, %reason, "the shadow gives a study up");
        return store.fail_shadow_run(&claim, &reason, None, now()).await;
    }
    let began = Instant::now();
    let scored = {
        // A task of its own: a panic ends that and no more.
        let (store, options, claim) = (store.clone(), options.clone(), claim);
        let task = tokio::spawn(async move { (score(&store, model, &options, &claim).await, claim) });
        task.await
    };
    let (scored, claim) = match scored {
        Ok(scored) => scored,
        Err(panic) => {
            // The claim went with it: it is put back, with its attempt counted.
            warn!(%study, model = %id, %panic, "the shadow crashed on a study");
            store.requeue_shadow_runs(now()).await?;
            return Ok(());
        }
    };
    match scored {
        Ok(outcome) => {
            let took = began.elapsed();
            info!(%study, model = %id, took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "scored in the shadow");
            store.complete_shadow_run(&claim, &outcome, took, now()).await
        }
        Err(error) => {
            let reason = error.reason();
            let retry_at = options.backoff.after(claim.attempts).map(|wait| now().after(wait));
            warn!(%study, model = %id, attempt = claim.attempts, %reason, is_final = retry_at.is_none(), "the shadow failed");
            store.fail_shadow_run(&claim, &reason, retry_at, now()).await
        }
    }
}

async fn score<M: SliceModel>(
    store: &Store,
    model: Arc<M>,
    options: &ShadowOptions,
    claim: &ShadowClaim,
) -> Result<ShadowOutcome, AnalysisError> {
    let analyse = AnalyseOptions {
        gate: options.gate,
        decoder: options.decoder.clone(),
        backoff: options.backoff,
        min_lesion_ml: options.min_lesion_ml,
        keep_maps: false,
        destinations: Vec::new(),
        rules: Vec::new(),
        reading: None,
        order: OrderOptions::default(),
    };
    let model = Courteous::new(model, store.clone(), options.quiet);
    let (verdict, scored) = study::score(store, &model, &analyse, &claim.analysis).await?;
    let finding = match verdict {
        Verdict::NotAnalysed(reason) => return Ok(ShadowOutcome::NotAnalysed(reason)),
        Verdict::Analysed(finding) => finding,
    };
    let dice = match (&claim.segmentation, scored) {
        (Some(path), Some(scored)) if finding.is_positive() => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || dice::against(&path, &scored)).await?
        }
        _ => None,
    };
    Ok(ShadowOutcome::Judged { finding, dice })
}
