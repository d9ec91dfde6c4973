//! The rivals that the method is measured against (arXiv 2304.04902, section 4.3): U-Net and Swin-UNETR, which are shown
//! masks, and a ResNet-LSTM with class-activation maps, which like the method itself sees slice labels only. Each is a
//! `[[rival]]` of the recipe.
//!
//! Networks, what they are trained on, the training and the measuring are apart from each other.

mod course;
pub mod examples;
mod learners;
mod measuring;
pub mod networks;
mod recipe;

use std::path::{Path, PathBuf};

use ichor_ct::input::PREPROCESSING_VERSION;
use sha2::{Digest, Sha256};
use tch::{Device, nn};
use thiserror::Error;

use self::course::Course;
use self::examples::{ExampleSource, ExamplesError, PhantomExamples};
use self::learners::{MaskLearner, ScanLearner};
use self::measuring::{PhantomStudies, Trained, measure};
use self::networks::{NetworkError, ResNetLstm, Segmenter, SwinUnetr, UNet};
use crate::adamw::AdamWError;
use crate::binarise::{Binarisation, BinariseError};
use crate::checkpoint::{CheckpointError, EpochRecord};
use crate::outcome::{MethodOutcome, Supervision};
use crate::phantoms::{PhantomError, generator_fingerprint};
use crate::progress::Progress;
use crate::recipe::{Recipe, RecipeError, Source};
use crate::sampler::SamplerError;
use crate::seeds::derive;

pub use learners::cross_entropy_and_dice;
pub use measuring::{StudySource, SurfaceDistance};
pub use recipe::{RivalKind, RivalRecipe, RivalRecipeError, check_rivals};

/// A rival cannot be trained or measured.
#[derive(Debug, Error)]
pub enum RivalError {
    /// The recipe names no test studies.
    #[error(transparent)]
    Source(#[from] RecipeError),
    /// The test studies are data that somebody brought.
    #[error("rivals are measured on phantoms; the recipe's test studies are not")]
    Data,
    /// Something went wrong with one rival.
    #[error("rival {name:?}: {source}")]
    Rival {
        /// Its name.
        name: String,
        /// What went wrong.
        source: Box<RivalError>,
    },
    /// Its recipe cannot be.
    #[error(transparent)]
    Recipe(#[from] RivalRecipeError),
    /// Its network cannot be, or does not take the input.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Its training slices cannot be had, or do not serve.
    #[error(transparent)]
    Examples(#[from] ExamplesError),
    /// A class is missing among the slices.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The optimizer cannot go on.
    #[error(transparent)]
    Optimizer(#[from] AdamWError),
    /// The checkpoint cannot be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The held-out studies cannot be made.
    #[error(transparent)]
    Phantoms(#[from] PhantomError),
    /// Its maps cannot become masks.
    #[error(transparent)]
    Binarise(#[from] BinariseError),
    /// libtorch refused an operation.
    #[error("network: {0}")]
    Torch(#[from] tch::TchError),
    /// The loss is no longer a number.
    #[error("the loss became {loss} in step {step} of epoch {epoch}; lower the learning rate")]
    Diverged {
        /// Epoch, from 0.
        epoch: usize,
        /// Step of the epoch, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
}

/// Where rivals are trained and measured; none of it changes what comes out.
#[derive(Debug, Clone, Copy)]
pub struct RivalPlace<'a> {
    /// Device of the networks. Only the CPU is exact to the bit between runs.
    pub device: Device,
    /// Folder of prepared slices and studies, kept between runs.
    pub cache: &'a Path,
    /// Output folder: each rival has its checkpoint in `rivals/<name>` there. One that is found there goes on, or is not
    /// trained again if it had come to its end.
    pub out: &'a Path,
}

impl RivalPlace<'_> {
    /// Folder of a rival's checkpoint.
    #[must_use]
    pub fn folder(&self, rival: &RivalRecipe) -> PathBuf {
        self.out.join("rivals").join(rival.name())
    }
}

/// Where rivals get their slices and studies from.
pub struct Materials<'a> {
    /// The training slices of a rival.
    pub examples: &'a dyn Fn(&RivalRecipe) -> Box<dyn ExampleSource + 'a>,
    /// The held-out studies.
    pub studies: &'a dyn StudySource,
}

/// Trains every rival of the recipe that is not trained yet on its phantoms, and measures each on the recipe's test
/// studies, in their order. `surface` measures masks against the truth; `|_, _| None` leaves distances out.
///
/// # Errors
/// [`RivalError`] naming the rival.
pub fn measure_all(
    recipe: &Recipe,
    place: &RivalPlace<'_>,
    surface: &SurfaceDistance,
    progress: &mut dyn Progress,
) -> Result<Vec<MethodOutcome>, RivalError> {
    let size = usize::try_from(recipe.model.img_size).unwrap_or_default();
    let (preset, cache, generator) = (recipe.input_preset, place.cache, generator_fingerprint());
    let Source::Phantoms { seeds, mix } = recipe.test_source()? else { return Err(RivalError::Data) };
    let studies = PhantomStudies { seeds, mix, preset, size, cache, generator: &generator };
    let examples = |rival: &RivalRecipe| -> Box<dyn ExampleSource> {
        let (name, mix) = (rival.name().to_owned(), rival.phantoms.clone());
        Box::new(PhantomExamples { name, seeds: rival.seeds, mix, preset, size, cache: cache.to_owned() })
    };
    measure_on(recipe, place, &Materials { examples: &examples, studies: &studies }, surface, progress)
}

/// The same with slices and studies from elsewhere.
///
/// # Errors
/// [`RivalError`] naming the rival.
pub fn measure_on(
    recipe: &Recipe,
    place: &RivalPlace<'_>,
    materials: &Materials<'_>,
    surface: &SurfaceDistance,
    progress: &mut dyn Progress,
) -> Result<Vec<MethodOutcome>, RivalError> {
    check_rivals(&recipe.rivals, recipe.model.img_size)?;
    let named =
        |rival: &RivalRecipe, source| RivalError::Rival { name: rival.name().to_owned(), source: Box::new(source) };
    for rival in &recipe.rivals {
        // Known before hours of training are spent.
        check_folds(rival, materials.studies.count()).map_err(|error| named(rival, error.into()))?;
    }
    let mut outcomes = Vec::with_capacity(recipe.rivals.len());
    for rival in &recipe.rivals {
        let named = |source| named(rival, source);
        let source = (materials.examples)(rival);
        let (trained, _) = train(recipe, rival, place, source.as_ref(), progress).map_err(named)?;
        let measured = measure(&trained, rival, materials.studies, place.device, surface, progress).map_err(named)?;
        outcomes.push(MethodOutcome {
            id: rival.name().to_owned(),
            title: title(rival),
            supervision: match rival.kind {
                RivalKind::Unet | RivalKind::SwinUnetr => Supervision::Masks,
                RivalKind::ResnetLstm => Supervision::Slices,
            },
            binarisation: measured.binarisation,
            studies: measured.studies,
        });
    }
    Ok(outcomes)
}

/// A grid search needs a study in every fold.
fn check_folds(rival: &RivalRecipe, studies: usize) -> Result<(), BinariseError> {
    match rival.binarisation() {
        Binarisation::GridSearch { folds } if rival.kind == RivalKind::ResnetLstm && studies < folds => {
            Err(BinariseError::TooFewStudies { studies, folds })
        }
        _ => Ok(()),
    }
}

fn title(rival: &RivalRecipe) -> String {
    let title = match rival.kind {
        RivalKind::Unet => "U-Net (fully supervised)",
        RivalKind::SwinUnetr => "Swin-UNETR (fully supervised)",
        RivalKind::ResnetLstm => "ResNet-LSTM with class-activation maps",
    };
    match &rival.name {
        Some(name) if name != rival.kind.name() => format!("{title}, {name}"),
        _ => title.to_owned(),
    }
}

/// Trains a rival from a source of examples, or takes up what stands in its folder. The examples are asked for only if
/// epochs are left to do.
fn train(
    recipe: &Recipe,
    rival: &RivalRecipe,
    place: &RivalPlace<'_>,
    source: &dyn ExampleSource,
    progress: &mut dyn Progress,
) -> Result<(Trained, Vec<EpochRecord>), RivalError> {
    let seed = derive(recipe.seed, &rival.name().bytes().map(u64::from).collect::<Vec<u64>>());
    let (folder, digest) = (place.folder(rival), digest(recipe, rival));
    let size = recipe.model.img_size;
    tch::manual_seed(seed.cast_signed());
    let store = nn::VarStore::new(place.device);
    let root = store.root();
    let segmenter: Option<Box<dyn Segmenter>> = match rival.kind {
        RivalKind::Unet => Some(Box::new(UNet::new(&root, &rival.unet.clone().unwrap_or_default(), size)?)),
        RivalKind::SwinUnetr => {
            Some(Box::new(SwinUnetr::new(&root, &rival.swin_unetr.clone().unwrap_or_default(), size)?))
        }
        RivalKind::ResnetLstm => None,
    };
    match segmenter {
        Some(network) => {
            let mut course = Course::open(rival, &store, &folder, digest, seed)?;
            if !course.finished() {
                let examples = source.examples(true, progress)?;
                let parts = examples.split(rival.validation_share, seed)?;
                let learner = MaskLearner::new(network.as_ref(), &examples, parts, rival, place.device)?;
                course.go(&learner, progress)?;
            }
            let history = course.finish()?;
            Ok((Trained::Masks(network), history))
        }
        None => {
            let network = ResNetLstm::new(&root, &rival.resnet_lstm.clone().unwrap_or_default(), size)?;
            let mut course = Course::open(rival, &store, &folder, digest, seed)?;
            if !course.finished() {
                let examples = source.examples(false, progress)?;
                let parts = examples.split(rival.validation_share, seed)?;
                let learner = ScanLearner::new(&network, &examples, &parts, rival, place.device)?;
                course.go(&learner, progress)?;
            }
            let history = course.finish()?;
            Ok((Trained::Scans(Box::new(network)), history))
        }
    }
}

/// SHA-256 of all that decides what weights come out; how maps become masks does not.
fn digest(recipe: &Recipe, rival: &RivalRecipe) -> String {
    let learning = RivalRecipe { binarisation: None, min_pixels: 0, ..rival.clone() };
    let key = serde_json::json!({
        "rival": learning, "seed": recipe.seed, "preset": recipe.input_preset, "size": recipe.model.img_size,
        "preprocessing": PREPROCESSING_VERSION, "generator": generator_fingerprint(),
    });
    hex::encode(Sha256::digest(key.to_string()))
}

#[cfg(test)]
mod tests;
