//! Triage: slices are classified as they arrive, so that a closing study needs only what is missing, and neighbours
//! that are suspicious raise an alert that does not wait for the study.
//!
//! Best effort: what this stage does not get to, the analysis of the closed study does. It looks at what arrives while
//! it runs and at nothing before, so that a slice that killed the process is not met again before it counts as one of
//! its study's attempts.

mod alert;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ichor_core::Uid;
use ichor_ct::header::{CT_IMAGE_STORAGE, InstanceHeader};
use ichor_ct::series::{GateOptions, place};
use ichor_ct::volume::PlacedSlice;
use ichor_decode::Decoder;
use ichor_store::{ArrivedInstance, NewAlert, SliceProbability, Store, Topic};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::analyse::batches::{Batches, classify};
use crate::analyse::prepare::Purpose;
use crate::analyse::{AnalysisError, ModelTraits, SliceModel};
use crate::models::Roster;
use crate::now;
use crate::traffic::{StandBack, Traffic};

pub use alert::AlertOptions;

/// Longest time between two looks at the store, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(2);

/// Attempts at the same slices before they are left to their study's analysis.
const ATTEMPTS: u32 = 3;

/// Settings of the stage.
#[derive(Clone, Debug)]
pub struct TriageOptions {
    /// Which series are eligible.
    pub gate: GateOptions,
    /// What reads the slices.
    pub decoder: Decoder,
    /// When to raise an alert.
    pub alert: AlertOptions,
    /// What is under way: the stage stands back behind it.
    pub traffic: Traffic,
    /// The share of the time for which it works while instances follow each other without a pause, above 0 and up to 1.
    pub share: f64,
}

/// Classifies what arrives until `shutdown`, each batch with the model that is active then. What another model said before
/// is neither asked for nor mixed in: probabilities are kept under the model and its input.
pub async fn run<M: SliceModel>(
    store: Store,
    models: impl Into<Roster<M>>,
    options: TriageOptions,
    shutdown: CancellationToken,
) {
    let mut received = store.changes(Topic::Received);
    let stand_back = StandBack::new(options.traffic.clone(), options.share);
    let models = models.into();
    let mut stage = Stage { store, models, options, stand_back, after: None, failures: 0 };
    loop {
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = stage.next_batch() => result,
        };
        match result {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => stage.failed(&error),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            () = received.changed(), if stage.failures == 0 => {}
        }
    }
}

struct Stage<M> {
    store: Store,
    models: Roster<M>,
    options: TriageOptions,
    stand_back: StandBack,
    /// The last instance that was looked at; `None` before the first look.
    after: Option<i64>,
    failures: u32,
}

impl<M: SliceModel> Stage<M> {
    /// Classifies the oldest slices that wait, as many as the model takes at once; whether there were any.
    async fn next_batch(&mut self) -> Result<bool, AnalysisError> {
        let after = match self.after {
            Some(after) => after,
            None => *self.after.insert(self.store.newest_instance().await?),
        };
        let Some(model) = self.models.active() else { return Ok(false) };
        let traits = model.traits();
        let (said_under, batch) = (traits.fed(), u32::try_from(traits.batch).unwrap_or(u32::MAX));
        let arrived = self.store.unclassified_instances(&said_under, after, batch).await?;
        let Some(last) = arrived.last().map(|arrived| arrived.instance.id) else { return Ok(false) };
        if self.failures < ATTEMPTS {
            self.classify(&model, arrived, &said_under).await?;
        } else {
            warn!(slices = arrived.len(), "slices are left to the analysis of their study");
        }
        (self.after, self.failures) = (Some(last), 0);
        Ok(true)
    }

    fn failed(&mut self, error: &AnalysisError) {
        self.failures += 1;
        error!(reason = %error.reason(), attempt = self.failures, "slices cannot be classified as they arrive");
    }

    async fn classify(
        &mut self,
        model: &Arc<M>,
        arrived: Vec<ArrivedInstance>,
        said_under: &str,
    ) -> Result<(), AnalysisError> {
        let gate = self.options.gate;
        let placed = spawn_blocking(move || eligible(arrived, &gate)).await?;
        let (mut touched, mut numbers, mut slices) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (arrived, slice) in placed {
            touched.insert((arrived.study_instance, arrived.instance.series_instance));
            numbers.push((slice.header.sop_instance.clone(), arrived.instance.id));
            slices.push(slice);
        }
        let (traits, mut said) = (model.traits(), Vec::with_capacity(slices.len()));
        let size = traits.batch_on_arrival;
        let mut batches = Batches::new(slices, &self.options.decoder, traits, Purpose::Classify, size);
        loop {
            self.stand_back.wait().await;
            let began = Instant::now();
            let Some(batch) = batches.next().await? else { break };
            for (slice, reason) in &batch.broken {
                debug!(%slice, %reason, "not classified on arrival");
            }
            let probabilities = classify(model.as_ref(), &batch.slices).await?;
            self.stand_back.worked(began.elapsed());
            said.extend((batch.slices.iter().zip(probabilities)).filter_map(|(slice, probability)| {
                let sop_instance = &slice.placed.header.sop_instance;
                let (_, instance) = numbers.iter().find(|(uid, _)| uid == sop_instance)?;
                let height_mm = slice.placed.plane.height();
                Some(SliceProbability { instance: *instance, frame: slice.placed.header.frame, probability, height_mm })
            }));
        }
        // Together: each transaction keeps what arrives waiting.
        self.store.record_probabilities(said_under, &said).await?;
        for (study, series) in touched {
            self.alert(traits, study, series, said_under).await?;
        }
        Ok(())
    }

    async fn alert(
        &self,
        traits: &ModelTraits,
        study: Uid,
        series: Uid,
        said_under: &str,
    ) -> Result<(), AnalysisError> {
        let slices = self.store.slices_to_alert(&study, &series, said_under).await?;
        let options = &self.options.alert;
        let threshold = options.threshold.unwrap_or(traits.slice_threshold);
        let Some(suspicious) = alert::suspicious(slices, &traits.reading, options, threshold) else { return Ok(()) };
        let alert = NewAlert {
            study_instance: study,
            series_instance: series,
            model: said_under.to_owned(),
            notice: traits.notice.clone(),
            slices: suspicious.slices,
            probability: suspicious.probability,
            first_received_at: suspicious.first_received_at,
        };
        if let Some(latency_ms) = self.store.record_alert(&alert, now()).await? {
            let (study, slices, probability) = (&alert.study_instance, alert.slices.len(), alert.probability);
            info!(%study, slices, probability, latency_ms, "alert: suspicious before the study is complete");
        }
        Ok(())
    }
}

/// The slices that may belong to an eligible series.
fn eligible(arrived: Vec<ArrivedInstance>, gate: &GateOptions) -> Vec<(ArrivedInstance, PlacedSlice)> {
    let slice = |arrived: ArrivedInstance| {
        if arrived.instance.sop_class.as_str() != CT_IMAGE_STORAGE {
            return None;
        }
        match InstanceHeader::read(&arrived.instance.path).map_err(|error| error.reason()).and_then(|h| place(h, gate))
        {
            Ok(placed) => Some((arrived, placed)),
            Err(reason) => {
                debug!(sop_instance = %arrived.instance.sop_instance, %reason, "not classified on arrival");
                None
            }
        }
    };
    arrived.into_iter().filter_map(slice).collect()
}
