//! One study: headers → series choice → slices → probabilities → masks → lesions → Segmentation.
//!
//! Slices go through in batches, the next one being decoded while the model works on the last, and only scores and
//! runs of mask pixels are kept: the memory does not grow with the study.

use std::time::Instant;

use ichor_core::{Finding, Reason, Uid, Verdict as Call, study_probability};
use ichor_ct::components::MaskStack;
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::{SeriesChoice, choose_series};
use ichor_ct::volume::Stack;
use ichor_store::{AnalysisClaim, AnalysisOutcome, SeriesOutcomeRow, SliceScore, Store, StoreError, Verdict};
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::prepare::{Batch, prepare};
use super::{AnalyseOptions, ModelError, ModelTraits, SliceModel, segment};

/// Why an analysis failed, as opposed to a study that cannot be analysed, which is a result.
#[derive(Debug, Error)]
pub enum AnalysisError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The header of the source that the result is built on.
    #[error(transparent)]
    Source(#[from] ichor_result::SourceError),
    /// The result object.
    #[error(transparent)]
    Result(#[from] ichor_result::ResultError),
    /// A thread of the analysis panicked; the text is the panic's.
    #[error("analysis thread: {0}")]
    Thread(String),
}

impl AnalysisError {
    /// The reason that is recorded.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::Model(_) => "model-failed",
            Self::Store(_) => "store-failed",
            Self::Source(_) | Self::Result(_) => "result-invalid",
            Self::Thread(_) => "analysis-crashed",
        };
        Reason::new(code, crate::ingest::chain(self))
    }
}

impl From<tokio::task::JoinError> for AnalysisError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Thread(error.to_string())
    }
}

/// Milliseconds of each step.
#[derive(Default)]
struct Timings(Vec<(String, u64)>);

impl Timings {
    fn lap(&mut self, step: &str, started: &mut Instant) {
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.push((step.to_owned(), milliseconds));
        *started = Instant::now();
    }
}

/// What the model said of a stack.
pub(super) struct Scored {
    /// The slices that were classified, in order.
    pub(super) stack: Stack,
    /// Their probabilities.
    pub(super) probabilities: Vec<f32>,
    /// Their masks; empty where the slice is negative.
    pub(super) masks: MaskStack,
}

/// Analyses a closed study.
pub(super) async fn analyse<M: SliceModel>(
    store: &Store,
    model: &M,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
) -> Result<AnalysisOutcome, AnalysisError> {
    let (mut timings, mut started) = (Timings::default(), Instant::now());
    let (instances, gate) = (claim.instances.clone(), options.gate);
    let (choice, mut rows) = spawn_blocking(move || {
        let (headers, unreadable) = read_headers(&instances);
        let choice = choose_series(headers, &gate);
        let rows = series_rows(&choice, unreadable);
        (choice, rows)
    })
    .await?;
    timings.lap("choose", &mut started);
    let Some((series, stack)) = choice.chosen else {
        let reason = why_none(&rows);
        return Ok(outcome(Verdict::NotAnalysed(reason), model.traits(), rows, timings, options));
    };

    let (scored, broken) = score(model, stack).await?;
    timings.lap("model", &mut started);
    if let Some(row) = rows.iter_mut().find(|row| row.series_instance == series) {
        row.reasons.extend(broken.iter().map(|(uid, reason)| about(uid, reason)));
    }
    if scored.stack.slices.len() < options.gate.min_slices {
        let text = format!(
            "{} of {} slices of series {series} can be decoded, at least {} are needed",
            scored.stack.slices.len(),
            scored.stack.slices.len() + broken.len(),
            options.gate.min_slices
        );
        if let Some(row) = rows.iter_mut().find(|row| row.series_instance == series) {
            row.chosen = false;
        }
        let reason = Reason::new("too-few-slices", text);
        return Ok(outcome(Verdict::NotAnalysed(reason), model.traits(), rows, timings, options));
    }

    let (finding, scored) = judge(scored, model.traits(), options);
    let slices = slice_scores(&scored, finding.verdict);
    let objects = match finding.verdict {
        Call::Positive => segment::segmentation(store, model.traits(), options, claim, scored).await?,
        Call::Negative => None,
    };
    timings.lap("result", &mut started);
    let mut outcome = outcome(Verdict::Analysed(finding), model.traits(), rows, timings, options);
    (outcome.slices, outcome.objects) = (slices, objects.into_iter().collect());
    Ok(outcome)
}

fn outcome(
    verdict: Verdict,
    model: &ModelTraits,
    series: Vec<SeriesOutcomeRow>,
    timings: Timings,
    options: &AnalyseOptions,
) -> AnalysisOutcome {
    AnalysisOutcome {
        verdict,
        model: Some(model.id.clone()),
        series,
        slices: Vec::new(),
        objects: Vec::new(),
        destinations: options.destinations.clone(),
        timings: timings.0,
    }
}

/// Headers, and per series the reasons about instances whose header cannot be read.
fn read_headers(instances: &[ichor_store::StoredInstance]) -> (Vec<InstanceHeader>, Vec<(Uid, Reason)>) {
    let (mut headers, mut unreadable) = (Vec::with_capacity(instances.len()), Vec::new());
    for instance in instances {
        match InstanceHeader::read(&instance.path) {
            Ok(header) => headers.push(header),
            Err(error) => {
                unreadable.push((instance.series_instance.clone(), about(&instance.sop_instance, &error.reason())));
            }
        }
    }
    (headers, unreadable)
}

/// A reason about one instance, as it stands among its series' reasons.
fn about(sop_instance: &Uid, reason: &Reason) -> Reason {
    Reason { code: reason.code.clone(), text: format!("instance {sop_instance}: {}", reason.text) }
}

fn series_rows(choice: &SeriesChoice, unreadable: Vec<(Uid, Reason)>) -> Vec<SeriesOutcomeRow> {
    let mut rows: Vec<SeriesOutcomeRow> = choice
        .outcomes
        .iter()
        .map(|outcome| SeriesOutcomeRow {
            series_instance: outcome.series_instance.clone(),
            chosen: outcome.chosen,
            reasons: outcome.reasons.clone(),
        })
        .collect();
    for (series_instance, reason) in unreadable {
        match rows.iter_mut().find(|row| row.series_instance == series_instance) {
            Some(row) => row.reasons.push(reason),
            None => rows.push(SeriesOutcomeRow { series_instance, chosen: false, reasons: vec![reason] }),
        }
    }
    rows
}

/// The study's reason where no series is eligible: the only series' own, or one that names each.
fn why_none(rows: &[SeriesOutcomeRow]) -> Reason {
    match rows {
        [] => Reason::new("no-instances", "the study holds nothing that could be analysed"),
        [only] if !only.reasons.is_empty() => only.reasons[0].clone(),
        _ => {
            let each: Vec<String> = rows
                .iter()
                .map(|row| {
                    let first = row.reasons.first().map_or("", |reason| reason.text.as_str());
                    format!("series {}: {first}", row.series_instance)
                })
                .collect();
            Reason::new("no-eligible-series", each.join("; "))
        }
    }
}

/// Classifies every slice and masks the positive ones. Slices that cannot be decoded leave the stack, with a reason.
async fn score<M: SliceModel>(model: &M, stack: Stack) -> Result<(Scored, Vec<(Uid, Reason)>), AnalysisError> {
    let traits = model.traits().clone();
    let (rows, columns) = stack.slices.first().map_or((0, 0), |slice| (slice.plane.rows, slice.plane.columns));
    let mut scored = Scored {
        stack: Stack { slices: Vec::with_capacity(stack.slices.len()), left_out: stack.left_out },
        probabilities: Vec::with_capacity(stack.slices.len()),
        masks: MaskStack::new(rows, columns),
    };
    let mut broken = Vec::new();
    let size = traits.batch.max(1);
    let mut pending = stack.slices.into_iter();
    let mut take = || pending.by_ref().take(size).collect::<Vec<_>>();
    let prefetch = |slices: Vec<_>| {
        let (preset, side) = (traits.preset, traits.size);
        (!slices.is_empty()).then(|| spawn_blocking(move || prepare(slices, preset, side)))
    };
    let mut next = prefetch(take());
    while let Some(preparing) = next {
        let batch = preparing.await?;
        next = prefetch(take());
        broken.extend(batch.broken.iter().cloned());
        score_batch(model, &traits, batch, &mut scored).await?;
    }
    Ok((scored, broken))
}

async fn score_batch<M: SliceModel>(
    model: &M,
    traits: &ModelTraits,
    batch: Batch,
    scored: &mut Scored,
) -> Result<(), AnalysisError> {
    if batch.slices.is_empty() {
        return Ok(());
    }
    let inputs: Vec<f32> = batch.slices.iter().flat_map(|slice| slice.input.iter().copied()).collect();
    let probabilities = model.classify(inputs, batch.slices.len()).await?;
    if probabilities.len() != batch.slices.len() || probabilities.iter().any(|p| !(0.0..=1.0).contains(p)) {
        return Err(ModelError(format!("probabilities {probabilities:?} for {} slices", batch.slices.len())).into());
    }
    let positive: Vec<usize> =
        (0..probabilities.len()).filter(|index| probabilities[*index] >= traits.slice_threshold).collect();
    let maps = if positive.is_empty() {
        Vec::new()
    } else {
        let inputs = positive.iter().flat_map(|index| batch.slices[*index].input.iter().copied()).collect();
        let brains = positive.iter().flat_map(|index| batch.slices[*index].brain_on_input()).collect();
        model.maps(inputs, brains, positive.len()).await?
    };
    let mut maps = maps.into_iter();
    for (slice, probability) in batch.slices.into_iter().zip(probabilities) {
        let map = if probability >= traits.slice_threshold { maps.next() } else { None };
        match map {
            Some(map) => scored.masks.push(&slice.grid.mask_to_source(&map, traits.mask_threshold, &slice.brain)),
            None => scored.masks.push_empty(),
        }
        scored.probabilities.push(probability);
        scored.stack.slices.push(slice.placed);
    }
    Ok(())
}

/// Scores → verdict, lesions and millilitres. A negative study keeps no mask.
fn judge(mut scored: Scored, traits: &ModelTraits, options: &AnalyseOptions) -> (Finding, Scored) {
    let probability = study_probability(&scored.probabilities, traits.min_positive_slices);
    let verdict = if probability >= traits.slice_threshold { Call::Positive } else { Call::Negative };
    let positive_slices = scored.probabilities.iter().filter(|p| **p >= traits.slice_threshold).count();
    let mut lesions_ml = Vec::new();
    if verdict == Call::Positive {
        let slabs: Vec<f64> = scored.stack.slices.iter().map(|slice| slice.slab_mm).collect();
        let area = scored.stack.slices.first().map_or(0.0, |slice| slice.plane.pixel_area());
        scored.masks.drop_specks(area, &slabs, options.min_lesion_ml);
        lesions_ml = scored.masks.lesions(area, &slabs).iter().map(|lesion| lesion.volume_ml).collect();
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let finding = Finding {
        verdict,
        probability: f64::from(probability),
        volume_ml: lesions_ml.iter().sum(),
        positive_slices: count(positive_slices),
        slices: count(scored.probabilities.len()),
        lesions_ml,
    };
    (finding, scored)
}

fn slice_scores(scored: &Scored, verdict: Call) -> Vec<SliceScore> {
    let masked = |index| match verdict {
        Call::Positive => u32::try_from(scored.masks.pixels(index)).unwrap_or(u32::MAX),
        Call::Negative => 0,
    };
    let slices = scored.stack.slices.iter().zip(&scored.probabilities).enumerate();
    slices
        .map(|(index, (slice, probability))| SliceScore {
            sop_instance: slice.header.sop_instance.clone(),
            probability: *probability,
            masked_pixels: masked(index),
        })
        .collect()
}
