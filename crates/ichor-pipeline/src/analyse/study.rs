//! One study: headers → series choice → slices → probabilities → masks → lesions → result objects.
//!
//! Slices go through in batches, the next one being decoded while the model works on the last, and only scores and
//! runs of mask pixels are kept: the memory does not grow with the study. What [`crate::triage`] has classified on
//! arrival is not classified again.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ichor_core::{Finding, Reason, Uid, Verdict as Call};
use ichor_ct::components::MaskStack;
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::{SeriesChoice, choose_series};
use ichor_ct::volume::{PlacedSlice, Slice, Stack};
use ichor_decode::{DecodeError, Decoder, Unavailable};
use ichor_store::{
    AnalysisClaim, AnalysisOutcome, Routed, SeriesOutcomeRow, SliceProbability, SliceScore, Store, StoreError, Verdict,
};
use thiserror::Error;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::batches::{Batches, classify, mask};
use super::finished::Conclusions;
use super::maps::MapPages;
use super::prepare::Purpose;
use super::{AnalyseOptions, DestinationObjects, ModelError, ModelTraits, ObjectKind, SliceModel, objects};
use crate::route;

/// Why an analysis failed, as opposed to a study that cannot be analysed, which is a result.
#[derive(Debug, Error)]
pub enum AnalysisError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No decoder can be started.
    #[error(transparent)]
    Decoder(#[from] Unavailable),
    /// A slice that could be decoded a moment ago: its file has changed since.
    #[error("slice {0} could be decoded once and not again")]
    Gone(String),
    /// The header of the source that the result is built on.
    #[error(transparent)]
    Source(#[from] ichor_result::SourceError),
    /// A map cannot be drawn.
    #[error(transparent)]
    Map(#[from] ichor_picture::PictureError),
    /// The result object.
    #[error(transparent)]
    Result(#[from] ichor_result::ResultError),
    /// No object could be made that may leave.
    #[error("{0}")]
    Refused(Reason),
    /// What the rules ask for cannot be read.
    #[error("rules cannot look at the first instance: {0}")]
    Rules(String),
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
            Self::Decoder(_) => "decoder-unavailable",
            Self::Store(_) | Self::Gone(_) | Self::Rules(_) => "store-failed",
            Self::Source(_) | Self::Map(_) | Self::Result(_) | Self::Refused(_) => "result-invalid",
            Self::Thread(_) => "analysis-crashed",
        };
        Reason::new(code, ichor_core::chain(self))
    }
}

impl From<tokio::task::JoinError> for AnalysisError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Thread(error.to_string())
    }
}

/// A study of which a larger share of slices cannot be decoded is not called negative.
const MOST_UNREAD: f64 = 0.1;

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
pub(crate) struct Scored {
    /// The slices that were classified, in order.
    pub(crate) stack: Stack,
    /// Their probabilities, neighbours made consistent.
    pub(crate) probabilities: Vec<f32>,
    /// What the study's rule makes of them.
    pub(crate) study_score: f32,
    /// Their masks; empty where the slice is negative.
    pub(crate) masks: MaskStack,
    /// The maps of the positive ones, if they are kept.
    pub(crate) maps: Option<MapPages>,
}

/// Analyses a closed study.
pub(super) async fn analyse<M: SliceModel>(
    store: &Store,
    model: &M,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
) -> Result<AnalysisOutcome, AnalysisError> {
    let (mut timings, mut started) = (Timings::default(), Instant::now());
    let (mut rows, analysed) = look(store, model, options, claim, (&mut timings, &mut started)).await?;
    let Analysed { verdict, mut scored, slices_known } = analysed;
    let mut slices = scored.as_ref().map_or_else(Vec::new, |scored| slice_scores(scored, &verdict));
    let is_positive = matches!(&verdict, Verdict::Analysed(finding) if finding.is_positive());
    let pages = scored.as_mut().and_then(|scored| scored.maps.take()).filter(|_| is_positive);
    let maps = match pages {
        Some(pages) => pages.finish(&mut slices).await?,
        None => None,
    };
    let conclusions = Conclusions { verdict: verdict.clone(), scored, series: rows.clone() };
    let (destinations, routed) = route(options, claim, &verdict).await?;
    let built = objects::build(store, model.traits(), options, &destinations, claim, conclusions).await?;
    // Where nothing was chosen, with the first series: somewhere `why` must say it.
    let place = rows.iter().position(|row| row.chosen).unwrap_or(0);
    if let Some(row) = rows.get_mut(place) {
        row.reasons.extend(built.reasons);
    }
    timings.lap("result", &mut started);
    let (model, notice) = (Some(model.traits().id.clone()), model.traits().notice.clone());
    let (objects, timings) = (built.objects, timings.0);
    Ok(AnalysisOutcome { verdict, model, notice, series: rows, slices, slices_known, objects, maps, timings, routed })
}

/// What a model says of a study, without any consequence: no object, no outcome.
pub(crate) async fn score<M: SliceModel>(
    store: &Store,
    model: &M,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
) -> Result<(Verdict, Option<Scored>), AnalysisError> {
    let (mut timings, mut started) = (Timings::default(), Instant::now());
    let (_, analysed) = look(store, model, options, claim, (&mut timings, &mut started)).await?;
    Ok((analysed.verdict, analysed.scored))
}

/// Headers, series choice, and what the model says of the chosen series.
async fn look<M: SliceModel>(
    store: &Store,
    model: &M,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
    (timings, started): (&mut Timings, &mut Instant),
) -> Result<(Vec<SeriesOutcomeRow>, Analysed), AnalysisError> {
    let (instances, gate, decoder) = (claim.instances.clone(), options.gate, options.decoder.clone());
    let (choice, mut rows) = spawn_blocking(move || {
        let (headers, unreadable) = read_headers(&instances);
        let choice = choose_series(headers, &gate, |placed| look_at(placed, &decoder))?;
        let rows = series_rows(&choice, unreadable);
        Ok::<_, Unavailable>((choice, rows))
    })
    .await??;
    timings.lap("choose", started);
    let analysed = match choice.chosen {
        None => Analysed::not(why_none(&rows)),
        Some((series, stack)) => {
            let chosen = rows.iter_mut().find(|row| row.series_instance == series);
            chosen_series(store, model, options, claim, (&series, stack), chosen, (timings, started)).await?
        }
    };
    Ok((rows, analysed))
}

/// Asks the rules, if there are any: which destinations get what, and what the job log is to say of it.
async fn route(
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
    verdict: &Verdict,
) -> Result<(Vec<DestinationObjects>, Option<Routed>), AnalysisError> {
    if options.rules.is_empty() {
        return Ok((options.destinations.clone(), None));
    }
    let first = claim.instances.iter().min_by_key(|instance| instance.id).map(|instance| instance.path.clone());
    let instance = route::look_into(&options.rules, first).await.map_err(AnalysisError::Rules)?;
    let (outcome, reason) = route::outcome_of(verdict);
    let facts = route::Facts {
        source: claim.source_ae.as_ref().map(ichor_core::AeTitle::as_str),
        instance: instance.as_ref(),
        outcome: Some(outcome),
        reason: reason.map(|reason| reason.code.as_str()),
        now: crate::now(),
    };
    let routing = route::route(&options.rules, &facts);
    let destinations = options.destinations.iter();
    let destinations = match routing.fired {
        Some(rule) => destinations.filter_map(|destination| rule.narrow(destination)).collect(),
        None => destinations.cloned().collect(),
    };
    let routed = Routed {
        rule: routing.fired.map(|rule| rule.name.clone()),
        passed_over: routing.passed_over.iter().map(|(rule, why)| (rule.name.clone(), why.clone())).collect(),
        urgent: routing.fired.and_then(|rule| rule.urgent),
    };
    Ok((destinations, Some(routed)))
}

/// What came of the slices.
struct Analysed {
    verdict: Verdict,
    /// `None` where nothing was analysed.
    scored: Option<Scored>,
    slices_known: usize,
}

impl Analysed {
    fn not(reason: Reason) -> Self {
        Self { verdict: Verdict::NotAnalysed(reason), scored: None, slices_known: 0 }
    }
}

/// Analyses the chosen series; what is peculiar about its slices goes into `row`.
async fn chosen_series<M: SliceModel>(
    store: &Store,
    model: &M,
    options: &AnalyseOptions,
    claim: &AnalysisClaim,
    (series, stack): (&Uid, Stack),
    row: Option<&mut SeriesOutcomeRow>,
    (timings, started): (&mut Timings, &mut Instant),
) -> Result<Analysed, AnalysisError> {
    let known = store.probabilities(claim, &model.traits().fed()).await?;
    let (first, broken, slices_known) = first_pass(store, model, &options.decoder, claim, stack, &known).await?;
    timings.lap("classify", started);
    let scored = second_pass(store, model, options, first).await?;
    timings.lap("mask", started);
    let (usable, all) = (scored.stack.slices.len(), scored.stack.slices.len() + broken.len());
    let is_too_few = usable < options.gate.min_slices;
    if let Some(row) = row {
        row.reasons.extend(broken.iter().map(|(label, reason)| about(label, reason)));
        row.chosen &= !is_too_few;
    }
    if is_too_few {
        let least = options.gate.min_slices;
        let text = format!("{usable} of {all} slices of series {series} can be decoded, at least {least} are needed");
        return Ok(Analysed::not(Reason::new("too-few-slices", text)));
    }
    let (finding, scored) = judge(scored, model.traits(), options);
    // Half a head without blood is no head without blood.
    if finding.verdict == Call::Negative && broken.len() as f64 / all as f64 > MOST_UNREAD {
        let unread = broken.len();
        let text = format!("nothing was found, but {unread} of {all} slices of series {series} cannot be decoded");
        return Ok(Analysed::not(Reason::new("slices-unreadable", text)));
    }
    Ok(Analysed { verdict: Verdict::Analysed(finding), scored: Some(scored), slices_known })
}

/// Headers, and per series the reasons about instances whose header cannot be read.
fn read_headers(instances: &[ichor_store::StoredInstance]) -> (Vec<InstanceHeader>, Vec<(Uid, Reason)>) {
    let (mut headers, mut unreadable) = (Vec::with_capacity(instances.len()), Vec::new());
    for instance in instances {
        // A multi-frame file that does not describe each of its frames is left out whole: none can be told from another.
        match InstanceHeader::read_all(&instance.path) {
            Ok(read) => headers.extend(read),
            Err(error) => {
                let reason = about(instance.sop_instance.as_str(), &error.reason());
                unreadable.push((instance.series_instance.clone(), reason));
            }
        }
    }
    (headers, unreadable)
}

/// A slice for the gate to look at; `None` if it cannot be read, which its analysis would name.
fn look_at(placed: &PlacedSlice, decoder: &Decoder) -> Result<Option<Slice>, Unavailable> {
    let slice = placed.header.label();
    match catch_unwind(AssertUnwindSafe(|| decoder.read_slice(placed))) {
        Ok(Ok(read)) => Ok(Some(read)),
        Ok(Err(DecodeError::Unavailable(error))) => Err(error),
        Ok(Err(DecodeError::Slice(reason))) => {
            debug!(%slice, %reason, "the gate cannot look at a slice");
            Ok(None)
        }
        Err(_) => {
            warn!(%slice, "reading a slice for the gate crashed");
            Ok(None)
        }
    }
}

/// A reason about one instance or one of its frames, as it stands among its series' reasons.
fn about(label: &str, reason: &Reason) -> Reason {
    Reason { code: reason.code.clone(), text: format!("instance {label}: {}", reason.text) }
}

fn series_rows(choice: &SeriesChoice, unreadable: Vec<(Uid, Reason)>) -> Vec<SeriesOutcomeRow> {
    let mut rows: Vec<SeriesOutcomeRow> = choice
        .outcomes
        .iter()
        .map(|outcome| SeriesOutcomeRow {
            series_instance: outcome.series_instance.clone(),
            chosen: outcome.chosen,
            reasons: outcome.reasons.clone(),
            rules: outcome.rules.clone(),
        })
        .collect();
    for (series_instance, reason) in unreadable {
        match rows.iter_mut().find(|row| row.series_instance == series_instance) {
            Some(row) => row.reasons.push(reason),
            None => {
                rows.push(SeriesOutcomeRow { series_instance, chosen: false, reasons: vec![reason], rules: Vec::new() })
            }
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

/// Probabilities of a stack, neighbours made consistent, before there are masks.
struct FirstPass {
    stack: Stack,
    probabilities: Vec<f32>,
    study_score: f32,
}

/// Classifies every slice that was not when it arrived, and makes neighbours consistent. Slices that cannot be decoded
/// leave the stack, with a reason. How many slices were known comes last.
async fn first_pass<M: SliceModel>(
    store: &Store,
    model: &M,
    decoder: &Decoder,
    claim: &AnalysisClaim,
    stack: Stack,
    known: &HashMap<(Uid, Option<u32>), f32>,
) -> Result<(FirstPass, Vec<(String, Reason)>, usize), AnalysisError> {
    let traits = model.traits();
    let key = |slice: &PlacedSlice| (slice.header.sop_instance.clone(), slice.header.frame);
    let is_new = |slice: &&PlacedSlice| !known.contains_key(&key(slice));
    let new: Vec<PlacedSlice> = stack.slices.iter().filter(is_new).cloned().collect();
    let numbers: HashMap<&Uid, i64> = claim.instances.iter().map(|i| (&i.sop_instance, i.id)).collect();
    let (mut said, mut broken) = (HashMap::with_capacity(new.len()), Vec::new());
    let mut batches = Batches::new(new, decoder, traits, Purpose::Classify, traits.batch);
    while let Some(batch) = batches.next().await? {
        broken.extend(batch.broken);
        let probabilities = classify(model, &batch.slices).await?;
        let mut rows = Vec::with_capacity(probabilities.len());
        for (slice, probability) in batch.slices.iter().zip(probabilities) {
            let (sop_instance, frame) = key(&slice.placed);
            if let Some(instance) = numbers.get(&sop_instance) {
                let height_mm = slice.placed.plane.height();
                rows.push(SliceProbability { instance: *instance, frame, probability, height_mm });
            }
            said.insert((sop_instance, frame), probability);
        }
        // For another attempt, and for the next version if late slices come.
        store.record_probabilities(&traits.fed(), &rows).await?;
    }
    let mut slices_known = 0;
    let (mut slices, mut probabilities) = (Vec::with_capacity(stack.slices.len()), Vec::new());
    for slice in stack.slices {
        let key = key(&slice);
        let known = known.get(&key);
        slices_known += usize::from(known.is_some());
        if let Some(probability) = known.or_else(|| said.get(&key)) {
            probabilities.push(*probability);
            slices.push(slice);
        }
    }
    let offsets: Vec<f64> = slices.iter().map(|slice| slice.offset_mm).collect();
    let study_score = traits.study_rule.score(&probabilities, &offsets, &traits.reading);
    let probabilities = traits.reading.read(&probabilities, &offsets);
    let stack = Stack { slices, left_out: stack.left_out };
    Ok((FirstPass { stack, probabilities, study_score }, broken, slices_known))
}

/// Masks the positive slices: whether a slice is positive hangs on its neighbours, and positive slices are few. They are
/// read again rather than held, so that the memory does not grow with the study.
async fn second_pass<M: SliceModel>(
    store: &Store,
    model: &M,
    options: &AnalyseOptions,
    first: FirstPass,
) -> Result<Scored, AnalysisError> {
    let FirstPass { stack, probabilities, study_score } = first;
    let traits = model.traits();
    let slices = &stack.slices;
    let (rows, columns) = slices.first().map_or((0, 0), |slice| (slice.plane.rows, slice.plane.columns));
    let is_positive = |index: usize| probabilities[index] >= traits.slice_threshold;
    let positive = (0..slices.len()).filter(|index| is_positive(*index)).map(|index| slices[index].clone()).collect();
    let mut batches = Batches::new(positive, &options.decoder, traits, Purpose::Mask, traits.batch);
    let mut masks = MaskStack::new(rows, columns);
    let mut next_masks = Vec::new().into_iter();
    let wants = |what: fn(&ObjectKind) -> bool| options.destinations.iter().any(|d| d.objects.iter().any(what));
    let (with_values, with_hounsfield) = (wants(ObjectKind::has_values), wants(ObjectKind::has_hounsfield));
    let mut maps = if options.keep_maps { Some(MapPages::begin(store).await?) } else { None };
    for (index, slice) in slices.iter().enumerate() {
        if !is_positive(index) {
            masks.push_empty();
            continue;
        }
        if next_masks.len() == 0 {
            let batch = batches.next().await?.ok_or_else(|| gone(slice))?;
            if !batch.broken.is_empty() {
                return Err(gone(slice));
            }
            next_masks = mask(model, batch.slices, with_values || options.keep_maps).await?.into_iter();
        }
        let here = next_masks.next().ok_or_else(|| gone(slice))?;
        let value = |at: usize| fraction(probabilities[index] * here.map[at]);
        let value: Option<&dyn Fn(usize) -> u8> = if with_values { Some(&value) } else { None };
        masks.push_with_pixels(&here.mask, value, with_hounsfield.then_some(&here.hu[..]));
        if let Some(maps) = &mut maps {
            maps.add(index, slice.plane.rows, slice.plane.columns, here.map).await?;
        }
    }
    Ok(Scored { stack, probabilities, study_score, masks, maps })
}

/// A probability as the value of a mask's pixel: 255 is 1, and what is in the mask is never 0.
fn fraction(probability: f32) -> u8 {
    (probability * 255.0).round().clamp(1.0, 255.0) as u8
}

fn gone(slice: &PlacedSlice) -> AnalysisError {
    AnalysisError::Gone(slice.header.label())
}

/// Scores → verdict, lesions and millilitres. A negative study keeps no mask.
fn judge(mut scored: Scored, traits: &ModelTraits, options: &AnalyseOptions) -> (Finding, Scored) {
    let score = scored.study_score;
    let verdict = if score >= traits.study_rule.threshold() { Call::Positive } else { Call::Negative };
    let positive_slices = scored.probabilities.iter().filter(|p| **p >= traits.slice_threshold).count();
    let mut lesions_ml = Vec::new();
    if verdict == Call::Positive {
        let slabs: Vec<f64> = scored.stack.slices.iter().map(|slice| slice.slab_mm).collect();
        let area = scored.stack.slices.first().map_or(0.0, |slice| slice.plane.pixel_area());
        scored.masks.drop_specks(area, &slabs, options.min_lesion_ml);
        lesions_ml = scored.masks.lesions(area, &slabs).iter().map(|lesion| lesion.volume_ml).collect();
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    // The sum of nothing is -0.0.
    let volume_ml: f64 = lesions_ml.iter().sum::<f64>() + 0.0;
    let finding = Finding {
        verdict,
        probability: f64::from(traits.study_calibration.apply(score)),
        volume_ml,
        volume_sd_ml: traits.volume.filter(|_| volume_ml > 0.0).map(|volume| volume.sd_ml(volume_ml)),
        positive_slices: count(positive_slices),
        slices: count(scored.probabilities.len()),
        lesions_ml,
    };
    (finding, scored)
}

fn slice_scores(scored: &Scored, verdict: &Verdict) -> Vec<SliceScore> {
    let has_masks = matches!(verdict, Verdict::Analysed(finding) if finding.is_positive());
    let pixels = |index| u32::try_from(scored.masks.pixels(index)).unwrap_or(u32::MAX);
    let masked = |index| if has_masks { pixels(index) } else { 0 };
    let slices = scored.stack.slices.iter().zip(&scored.probabilities).enumerate();
    slices
        .map(|(index, (slice, probability))| SliceScore {
            sop_instance: slice.header.sop_instance.clone(),
            frame: slice.header.frame,
            probability: *probability,
            masked_pixels: masked(index),
            map: None,
        })
        .collect()
}
