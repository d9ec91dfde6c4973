//! From a recipe to what ships: weights, manifest, held-out evaluation.

use std::path::{Path, PathBuf};

use ichor_ct::input::PREPROCESSING_VERSION;
use ichor_ct::refine::{REFINE_VERSION, RefineOptions};
use ichor_model::attribution::GradientSite;
use ichor_model::{
    InputCard, Manifest, MapCard, MapKind, ModelCard, PlanError, RefineCard, SaveError, Swin, SwinPlan, save_model,
};
use serde::Deserialize;
use tch::{Device, nn};
use thiserror::Error;

use crate::calibrate::{CalibrationError, Thresholds, calibrate};
use crate::evaluate::{EvaluateError, Subject};
use crate::held_out::{Places, measure_source, published};
use crate::measure::{Method, StudyMeasure, Trial};
use crate::metrics::hausdorff95_mm;
use crate::outcome::MethodOutcome;
use crate::prepared::PreparedSlice;
use crate::progress::Progress;
use crate::recipe::{Recipe, RecipeError, Source};
use crate::report::{Evaluation, EvaluationFile, Named, Report, ReportError, of_data, of_phantoms, write_evaluation};
use crate::rivals::{RivalError, RivalPlace, measure_all};
use crate::seeds::SeedRange;
use crate::trainer::{TrainError, TrainOptions, train};

/// What must stand in every object made with weights that were trained on phantoms.
pub const NOTICE: &str = "synthetic data, demonstration only; not for clinical use";

/// What must stand in every object made with weights that were trained on data somebody brought.
pub const DATA_NOTICE: &str = "trained for research; not for clinical use";

/// Weights cannot be published or evaluated.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The evaluation failed.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The recipe names no source, or one that is not there.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// No thresholds can be chosen.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Weights and manifest cannot be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ichor_model::ManifestError),
    /// The recipe's sizes make no network.
    #[error("network: {0}")]
    Plan(#[from] PlanError),
    /// The weights are not those of the recipe's network.
    #[error("weights {path}: {source}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What libtorch says.
        source: tch::TchError,
    },
    /// No report can be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A rival cannot be trained or measured.
    #[error(transparent)]
    Rival(#[from] RivalError),
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A file has no thresholds that can be used.
    #[error("{path} is no evaluation.json with thresholds: {source}")]
    NoThresholds {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        source: serde_json::Error,
    },
    /// The thresholds were chosen for other weights.
    #[error("{path} has thresholds of {evaluated}, the weights are {model}")]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// Whose thresholds.
        evaluated: String,
        /// The weights.
        model: String,
    },
    /// The report cannot be put into JSON.
    #[error("report: {0}")]
    Json(#[from] serde_json::Error),
}

/// What a run leaves in its output folder.
#[derive(Debug)]
pub struct Published {
    /// The weights; the manifest lies beside them.
    pub weights: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// The held-out evaluation in short.
    pub report: Report,
    /// The further tests in short, with their names.
    pub also: Vec<(String, Report)>,
}

/// Trains, chooses thresholds on the validation studies, writes `<stem>.safetensors` and its manifest into `out`, measures
/// the test studies and writes `evaluation.json` and `evaluation.html`.
///
/// # Errors
/// [`PublishError`].
pub fn train_and_publish(
    recipe: &Recipe,
    out: &Path,
    stem: &str,
    options: &TrainOptions,
    progress: &mut dyn Progress,
) -> Result<Published, PublishError> {
    let places = Places { cache: Some(&options.cache), run: out };
    let trained = train(recipe, options, progress)?;
    let plan = SwinPlan::check(&recipe.model)?;
    let store = nn::VarStore::new(options.device);
    let network = Swin::new(&store.root(), &plan);
    trained.fill(&store)?;
    let subject =
        Subject { network: &network, strategy: recipe.strategy, preset: recipe.input_preset, device: options.device };
    let thresholds = choose(recipe, &subject, places, progress)?;
    let weights = out.join(format!("{stem}.safetensors"));
    std::fs::create_dir_all(out).map_err(|source| PublishError::Write { path: out.to_owned(), source })?;
    let manifest = save_model(&weights, &store, card(recipe, &thresholds))?;
    let tested = test(recipe, &subject, &manifest, &thresholds, places, progress)?;
    write_evaluation(out, &tested.file)?;
    Ok(Published { weights, manifest, report: tested.report, also: tested.also })
}

/// Where and how weights are evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvaluateOptions<'a> {
    /// The device.
    pub device: Device,
    /// Folder of prepared studies; absent: they are made anew.
    pub cache: Option<&'a Path>,
    /// An `evaluation.json` of these weights, whose thresholds are used; absent: they are chosen anew on the recipe's
    /// validation studies.
    pub thresholds: Option<&'a Path>,
}

/// Measures weights on the recipe's test studies: in short, and every figure of the report.
///
/// # Errors
/// [`PublishError`].
pub fn evaluate(
    recipe: &Recipe,
    weights: &Path,
    options: EvaluateOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<Tested, PublishError> {
    let EvaluateOptions { device, cache, thresholds } = options;
    let manifest = Manifest::read(weights)?;
    let (_store, network) = load(&manifest, weights, device)?;
    let subject = Subject { network: &network, strategy: manifest.model.strategy, preset: recipe.input_preset, device };
    // A split that was made for the training stands beside its weights.
    let places = Places { cache, run: weights.parent().unwrap_or(Path::new("")) };
    let thresholds = match thresholds {
        Some(file) => known_thresholds(file, &manifest)?,
        None => choose(recipe, &subject, places, progress)?,
    };
    test(recipe, &subject, &manifest, &thresholds, places, progress)
}

/// The thresholds in an `evaluation.json`, if that is of these weights.
fn known_thresholds(file: &Path, manifest: &Manifest) -> Result<Thresholds, PublishError> {
    let text = std::fs::read(file).map_err(|source| PublishError::Read { path: file.to_owned(), source })?;
    let known: KnownThresholds =
        serde_json::from_slice(&text).map_err(|source| PublishError::NoThresholds { path: file.to_owned(), source })?;
    let model = model_name(manifest);
    if known.model == model {
        Ok(known.thresholds)
    } else {
        Err(PublishError::OtherModel { path: file.to_owned(), evaluated: known.model, model })
    }
}

/// What is read of an `evaluation.json`.
#[derive(Deserialize)]
struct KnownThresholds {
    model: String,
    thresholds: Thresholds,
}

/// `name@version+hash`.
fn model_name(manifest: &Manifest) -> String {
    manifest.id().map_or_else(|_| manifest.model.name.clone(), |id| id.to_string())
}

/// Thresholds from the validation studies; those of maps as published where no masks were drawn.
fn choose(
    recipe: &Recipe,
    subject: &Subject<'_>,
    places: Places<'_>,
    progress: &mut dyn Progress,
) -> Result<Thresholds, PublishError> {
    let trial = Trial::grid();
    let validation = measure_source(subject, recipe.validation_source()?, &trial, places, progress)?;
    let mut thresholds = calibrate(&validation.studies, &trial)?;
    if !validation.has_masks {
        progress.note("the validation data have no masks: the maps' thresholds are those that were published");
        published(&mut thresholds);
    }
    Ok(thresholds)
}

/// Loads the network that a manifest describes.
///
/// # Errors
/// [`PublishError::Plan`] or [`PublishError::Load`].
pub fn load(manifest: &Manifest, weights: &Path, device: Device) -> Result<(nn::VarStore, Swin), PublishError> {
    let plan = SwinPlan::check(&manifest.model.sizes)?;
    let mut store = nn::VarStore::new(device);
    let network = Swin::new(&store.root(), &plan);
    store.load(weights).map_err(|source| PublishError::Load { path: weights.to_owned(), source })?;
    store.freeze();
    Ok((store, network))
}

/// What the test studies say.
#[derive(Debug)]
pub struct Tested {
    /// In short.
    pub report: Report,
    /// The further tests in short, with their names.
    pub also: Vec<(String, Report)>,
    /// Every figure, to be written.
    pub file: EvaluationFile,
}

fn test(
    recipe: &Recipe,
    subject: &Subject<'_>,
    manifest: &Manifest,
    thresholds: &Thresholds,
    places: Places<'_>,
    progress: &mut dyn Progress,
) -> Result<Tested, PublishError> {
    let (source, trial) = (recipe.test_source()?, Trial::chosen(&thresholds.refine));
    let measured = measure_source(subject, source, &trial, places, progress)?;
    if !measured.has_masks {
        progress.note("the test data have no masks: what the report says of overlap means nothing");
    }
    let model = model_name(manifest);
    let notice = manifest.model.notice.clone().unwrap_or_else(|| NOTICE.to_owned());
    let rivals = rivals(recipe, subject.device, places, progress)?;
    let named = Named { model: &model, notice: &notice, rivals: &rivals };
    let (seeds, evaluation) = evaluation(subject, source, named, (&measured.studies, thresholds), places, progress)?;
    let report = Report::new(model.clone(), notice.clone(), seeds, &measured.studies, thresholds.clone());
    let mut also = Vec::with_capacity(recipe.also_tests.len());
    for test in &recipe.also_tests {
        let source = Source::Phantoms { seeds: test.seeds, mix: &test.phantoms };
        let measured = measure_source(subject, source, &trial, places, progress)?;
        let report = Report::new(model.clone(), notice.clone(), test.seeds, &measured.studies, thresholds.clone());
        also.push((test.name.clone(), report));
    }
    let file = EvaluationFile { summary: Some(report.clone()), also: also.clone(), evaluation };
    Ok(Tested { report, also, file })
}

fn evaluation(
    subject: &Subject<'_>,
    source: Source<'_>,
    named: Named<'_>,
    measured: (&[StudyMeasure], &Thresholds),
    places: Places<'_>,
    progress: &mut dyn Progress,
) -> Result<(SeedRange, Evaluation), PublishError> {
    Ok(match source {
        Source::Phantoms { seeds, mix } => {
            (seeds, of_phantoms(subject, (seeds, mix), named, measured, places.cache, progress)?)
        }
        Source::Data { name, data, .. } => {
            let title = format!("{name}: {}", data.form.title());
            // Studies that somebody brought are counted.
            let seeds = SeedRange { first: 0, studies: measured.0.len() as u64 };
            (seeds, of_data(&title, named, measured)?)
        }
    })
}

/// The recipe's rivals, trained and measured on the same test studies.
fn rivals(
    recipe: &Recipe,
    device: Device,
    places: Places<'_>,
    progress: &mut dyn Progress,
) -> Result<Vec<MethodOutcome>, PublishError> {
    if recipe.rivals.is_empty() {
        return Ok(Vec::new());
    }
    let cache = places.cache.map_or_else(|| places.run.join("cache"), Path::to_owned);
    let place = RivalPlace { device, cache: &cache, out: places.run };
    let surface = |slice: &PreparedSlice, mask: &[u8]| {
        let ready = &slice.ready;
        hausdorff95_mm(mask, &slice.mask, ready.grid.rows, ready.grid.columns, ready.spacing_mm)
    };
    Ok(measure_all(recipe, &place, &surface, progress)?)
}

/// What the weights were trained on, in words, and the notice that goes with it.
fn training_data(recipe: &Recipe) -> (String, &'static str) {
    let sources = || recipe.phases.iter().filter_map(|phase| recipe.phase_source(phase).ok());
    let studies: u64 = sources()
        .map(|source| match source {
            Source::Phantoms { seeds, .. } => seeds.studies,
            Source::Data { .. } => 0,
        })
        .sum();
    let mut parts: Vec<String> = sources()
        .filter_map(|source| match source {
            Source::Data { data, .. } => Some(data.form.title().to_owned()),
            Source::Phantoms { .. } => None,
        })
        .collect();
    parts.dedup();
    let notice = if parts.is_empty() { NOTICE } else { DATA_NOTICE };
    let has_real_head = |source: Source<'_>| matches!(source, Source::Phantoms { mix, .. } if mix.real_head.is_some());
    if studies > 0 {
        let implanted = if sources().any(has_real_head) { ", in part bleeds implanted into a real head" } else { "" };
        parts.push(format!("{studies} synthetic head CT studies (ichor phantoms){implanted}"));
    }
    (format!("{}, slice labels only", parts.join(" and ")), notice)
}

/// How the map was chosen, for whoever reads the manifest.
fn map_choice(thresholds: &Thresholds) -> String {
    if thresholds.validation_dice.is_empty() {
        return "not chosen: the validation data have no masks".to_owned();
    }
    let each = thresholds.validation_dice.iter();
    let each =
        each.map(|(method, dice)| format!("{} {:.3} raw, {:.3} refined", method.title(), dice.raw, dice.refined));
    format!("by the Dice of refined masks on the validation studies: {}", each.collect::<Vec<_>>().join("; "))
}

fn card(recipe: &Recipe, thresholds: &Thresholds) -> ModelCard {
    let (training_data, notice) = training_data(recipe);
    #[expect(clippy::cast_possible_truncation, reason = "a threshold between 0 and 1")]
    let threshold = thresholds.maps.get(&thresholds.served).copied().unwrap_or(1.0) as f32;
    let kind = match thresholds.served {
        Method::HgiSamScores | Method::HgiSamSoftmax => MapKind::HgiSam,
        Method::SwinSam => MapKind::SwinSam,
        Method::GradCam => MapKind::GradCam,
    };
    let refine = thresholds.refine.get(&thresholds.served);
    let gradient_site = match thresholds.served {
        Method::HgiSamSoftmax => GradientSite::SoftmaxOutput,
        _ => GradientSite::SoftmaxInput,
    };
    ModelCard {
        name: recipe.name.clone(),
        version: recipe.version.clone(),
        sizes: recipe.model.clone(),
        strategy: recipe.strategy,
        input: InputCard {
            preset: recipe.input_preset.name().to_owned(),
            preprocessing_version: PREPROCESSING_VERSION,
        },
        map: MapCard {
            kind,
            gradient_site,
            threshold,
            refine: refine.copied().map(|RefineOptions { support, floor, contrast_hu }| RefineCard {
                version: REFINE_VERSION,
                support,
                floor,
                contrast_hu,
            }),
        },
        map_choice: Some(map_choice(thresholds)),
        slice_reach_mm: thresholds.slice_reach_mm,
        slice_calibration: thresholds.slice_calibration,
        study_calibration: thresholds.study_calibration,
        volume: thresholds.volume,
        slice_threshold: thresholds.slice_probability,
        study_rule: Some(thresholds.study_rule),
        min_positive_slices: None,
        training_data,
        demonstration: true,
        notice: Some(notice.to_owned()),
    }
}
