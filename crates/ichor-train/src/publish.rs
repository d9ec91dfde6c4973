//! From a recipe to what ships: weights, manifest, held-out evaluation.

use std::path::{Path, PathBuf};

use ichor_ct::input::PREPROCESSING_VERSION;
use ichor_model::attribution::GradientSite;
use ichor_model::{InputCard, Manifest, MapCard, MapKind, ModelCard, PlanError, SaveError, Swin, SwinPlan, save_model};
use tch::{Device, nn};
use thiserror::Error;

use crate::calibrate::{CalibrationError, Thresholds, calibrate};
use crate::evaluate::{EvaluateError, Subject, measure};
use crate::measure::Method;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::report::{Evaluation, EvaluationFile, Report, ReportError, of_phantoms, write_evaluation};
use crate::trainer::{TrainError, TrainOptions, train};

/// What must stand in every object made with weights that were trained on phantoms.
pub const NOTICE: &str = "synthetic data, demonstration only; not for clinical use";

/// Weights cannot be published or evaluated.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The evaluation failed.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
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
    /// The report cannot be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The report cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
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
    let cache = Some(options.cache.as_path());
    let trained = train(recipe, options, progress)?;
    let plan = SwinPlan::check(&recipe.model)?;
    let store = nn::VarStore::new(options.device);
    let network = Swin::new(&store.root(), &plan);
    trained.fill(&store)?;
    let subject =
        Subject { network: &network, strategy: recipe.strategy, preset: recipe.input_preset, device: options.device };
    let validation = measure(&subject, recipe.validation.seeds, &recipe.validation.phantoms, cache, progress)?;
    let thresholds = calibrate(&validation)?;
    let weights = out.join(format!("{stem}.safetensors"));
    std::fs::create_dir_all(out).map_err(|source| PublishError::Write { path: out.to_owned(), source })?;
    let manifest = save_model(&weights, &store, card(recipe, &thresholds))?;
    let (report, evaluation) = test_report(recipe, &subject, &manifest, thresholds, cache, progress)?;
    write_evaluation(out, &EvaluationFile { summary: Some(report.clone()), evaluation })?;
    Ok(Published { weights, manifest, report })
}

/// Measures weights on the recipe's test studies, with thresholds chosen anew on its validation studies: in short, and
/// every figure of the report.
///
/// # Errors
/// [`PublishError`].
pub fn evaluate(
    recipe: &Recipe,
    weights: &Path,
    device: Device,
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<(Report, Evaluation), PublishError> {
    let manifest = Manifest::read(weights)?;
    let (_store, network) = load(&manifest, weights, device)?;
    let subject = Subject { network: &network, strategy: manifest.model.strategy, preset: recipe.input_preset, device };
    let validation = measure(&subject, recipe.validation.seeds, &recipe.validation.phantoms, cache, progress)?;
    test_report(recipe, &subject, &manifest, calibrate(&validation)?, cache, progress)
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

fn test_report(
    recipe: &Recipe,
    subject: &Subject<'_>,
    manifest: &Manifest,
    thresholds: Thresholds,
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<(Report, Evaluation), PublishError> {
    let measures = measure(subject, recipe.test.seeds, &recipe.test.phantoms, cache, progress)?;
    let id = manifest.id().map_or_else(|_| manifest.model.name.clone(), |id| id.to_string());
    let evaluation = of_phantoms(subject, &recipe.test, &id, &measures, &thresholds, progress)?;
    Ok((Report::new(id, NOTICE.to_owned(), recipe.test.seeds, &measures, thresholds), evaluation))
}

fn card(recipe: &Recipe, thresholds: &Thresholds) -> ModelCard {
    let studies: u64 = recipe.phases.iter().map(|phase| phase.seeds.studies).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a threshold between 0 and 1")]
    let threshold = thresholds.maps.get(&thresholds.served).copied().unwrap_or(1.0) as f32;
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
        map: MapCard { kind: MapKind::HgiSam, gradient_site, threshold },
        slice_reach_mm: thresholds.slice_reach_mm,
        slice_threshold: thresholds.slice_probability,
        min_positive_slices: thresholds.min_positive_slices,
        training_data: format!("{studies} synthetic head CT studies (ichor phantoms), slice labels only"),
        demonstration: true,
        notice: Some(NOTICE.to_owned()),
    }
}
