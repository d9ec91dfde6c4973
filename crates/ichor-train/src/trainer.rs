//! The training run: phases, epochs, steps, validation, checkpoints.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Tensor, nn};
use thiserror::Error;

use crate::adamw::AdamWError;
use crate::checkpoint::{self, CheckpointError, EpochRecord};
use crate::data::{self, DataError, Opened};
use crate::phantoms::{PhantomError, slice_set, twin_set};
use crate::progress::Progress;
use crate::recipe::{Phase, Recipe, RecipeError, Source};
use crate::sampler::SamplerError;
use crate::slices::{SliceSet, SliceSetError, Slices, levels};

mod input;
mod loader;
mod parts;
mod run;
#[cfg(test)]
mod tests;

use run::{Ended, Run};

/// A run cannot go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The network's sizes do not fit together.
    #[error("network: {0}")]
    Plan(String),
    /// libtorch refused an operation.
    #[error("training: {0}")]
    Torch(#[from] tch::TchError),
    /// libtorch threw where it could not be caught otherwise.
    #[error("training: {0}")]
    Panicked(String),
    /// Memory ran out with the smallest part of a batch.
    #[error("memory ran out with {0} slices at once: {1}")]
    OutOfMemory(usize, String),
    /// The optimizer cannot go on.
    #[error(transparent)]
    Optimizer(#[from] AdamWError),
    /// The training slices of a phase lack a class.
    #[error("phase {0:?}: {1}")]
    Sampler(String, SamplerError),
    /// The validation slices lack a class: no epoch can be told from another.
    #[error("validation needs bleeding and clean slices, found {bleeding} and {clean}")]
    OneClass {
        /// Bleeding slices.
        bleeding: usize,
        /// Clean slices.
        clean: usize,
    },
    /// Phantoms cannot be made or cached.
    #[error(transparent)]
    Phantoms(#[from] PhantomError),
    /// The data that the recipe names cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Prepared slices cannot be read.
    #[error(transparent)]
    Slices(#[from] SliceSetError),
    /// The recipe names no source, or one that is not there.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The weights to start from cannot be used.
    #[error("start_from: {0}")]
    Start(#[from] ichor_model::WeightsError),
    /// The checkpoint cannot be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Somebody asked the run to stop.
    #[error("stopped after step {steps}; the same command goes on from the checkpoint in {}", checkpoint.display())]
    Interrupted {
        /// Steps over the whole run.
        steps: u64,
        /// The checkpoint's folder.
        checkpoint: PathBuf,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} at step {step} of phase {phase:?}; lower the learning rate")]
    Diverged {
        /// Name of the phase.
        phase: String,
        /// Step over the whole run.
        step: u64,
        /// The loss.
        loss: f64,
    },
}

/// Where a run works; none of it changes what weights come out.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Folder of prepared slices, kept between runs.
    pub cache: PathBuf,
    /// Folder of the checkpoint; a run found there goes on. Splits of data are written beside it.
    pub checkpoint: PathBuf,
    /// Device to train on. Only the CPU is exact to the bit between runs.
    pub device: Device,
    /// Stops after this many epochs in all, as if the run had been killed there (for tests and short looks).
    pub stop_after: Option<usize>,
    /// Once true, the run finishes its step, writes a checkpoint and ends with [`TrainError::Interrupted`].
    pub interrupt: Option<Arc<AtomicBool>>,
}

impl TrainOptions {
    fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Trained {
    /// The averaged weights, under the network's parameter names, ready for inputs as preprocessing makes them.
    pub weights: Vec<(String, Tensor)>,
    /// One record for each epoch.
    pub history: Vec<EpochRecord>,
}

/// Trains from the recipe, going on from the checkpoint if there is one.
///
/// # Errors
/// [`TrainError`].
pub fn train(recipe: &Recipe, options: &TrainOptions, progress: &mut dyn Progress) -> Result<Trained, TrainError> {
    let opened = RefCell::new(BTreeMap::new());
    let slices = |what: &str, source: Source<'_>, progress: &mut dyn Progress| {
        prepare(recipe, what, source, options, &mut opened.borrow_mut(), progress)
    };
    let validation = slices("validation", recipe.validation_source()?, progress)?;
    let material = |phase: &Phase, progress: &mut dyn Progress| {
        let source = recipe.phase_source(phase)?;
        if let Source::Phantoms { seeds, mix } = source
            && phase.twin_share > 0.0
        {
            let size = side(recipe);
            let base = slice_set(&phase.name, seeds, mix, recipe.input_preset, size, &options.cache, progress)?;
            let twins = twin_set(&base, mix, recipe.input_preset, &options.cache, progress)?;
            return Ok(Material::with_twins(base, twins));
        }
        Ok(Material::new(slices(&phase.name, source, progress)?))
    };
    train_on(recipe, options, validation.as_ref(), material, progress)
}

fn side(recipe: &Recipe) -> usize {
    usize::try_from(recipe.model.img_size).unwrap_or_default()
}

/// Slices of a source; data sets stay in `opened`.
fn prepare(
    recipe: &Recipe,
    what: &str,
    source: Source<'_>,
    options: &TrainOptions,
    opened: &mut BTreeMap<String, Opened>,
    progress: &mut dyn Progress,
) -> Result<Box<dyn Slices>, TrainError> {
    let (preset, size) = (recipe.input_preset, side(recipe));
    match source {
        Source::Phantoms { seeds, mix } => {
            Ok(Box::new(slice_set(what, seeds, mix, preset, size, &options.cache, progress)?))
        }
        Source::Data { name, data, part } => {
            let opened = match opened.entry(name.to_owned()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let run = options.checkpoint.parent().unwrap_or(&options.checkpoint);
                    entry.insert(data::open(name, data, &options.cache, run, progress)?)
                }
            };
            opened.check_strategy(recipe.strategy)?;
            let going = || !options.is_interrupted();
            Ok(Box::new(opened.slices(part, preset, size, &going, progress)?))
        }
    }
}

/// Trains on what `source` gives, which is asked once for each phase that still has epochs to go.
fn train_on(
    recipe: &Recipe,
    options: &TrainOptions,
    validation: &dyn Slices,
    source: impl Fn(&Phase, &mut dyn Progress) -> Result<Material, TrainError>,
    progress: &mut dyn Progress,
) -> Result<Trained, TrainError> {
    let bleeding = validation.labels().iter().filter(|label| label.any()).count();
    let clean = validation.labels().len() - bleeding;
    if bleeding == 0 || clean == 0 {
        return Err(TrainError::OneClass { bleeding, clean });
    }
    let mut run = Run::start(recipe, options, progress)?;
    for (index, phase) in recipe.phases.iter().enumerate().skip(run.position.phase) {
        let mut material = None;
        while !run.is_done_with(phase) {
            if options.stop_after.is_some_and(|epochs| run.position.history.len() >= epochs) {
                return run.finish();
            }
            let material = match &mut material {
                Some(material) => material,
                empty => empty.insert(source(phase, progress)?),
            };
            let ended = run.epoch(index, phase, material, validation, progress)?;
            checkpoint::write(&options.checkpoint, &run.tensors()?, &run.position)?;
            if ended == Ended::Interrupted || options.is_interrupted() {
                let (steps, checkpoint) = (run.position.steps, options.checkpoint.clone());
                return Err(TrainError::Interrupted { steps, checkpoint });
            }
        }
        run.leave(index)?;
    }
    run.finish()
}

impl Trained {
    /// Copies the weights into a network's variables.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if they are another network's.
    pub fn fill(&self, store: &nn::VarStore) -> Result<(), TrainError> {
        let named = self.weights.iter().map(|(name, tensor)| (format!("weight.{name}"), tensor.shallow_clone()));
        Ok(checkpoint::restore(&store.variables(), &named.collect(), "weight")?)
    }
}

/// What a phase shows: slices, and behind them the twins of the positive ones.
struct Material {
    /// Whether each slice bleeds; twins are not among them.
    positive: Vec<bool>,
    /// The tenth of its study that each slice lies in.
    levels: Vec<usize>,
    shown: Box<dyn Slices>,
}

impl Material {
    fn new(slices: Box<dyn Slices>) -> Self {
        let positive = slices.labels().iter().map(|label| label.any()).collect();
        Self { positive, levels: levels(slices.studies()), shown: slices }
    }

    fn with_twins(slices: SliceSet, twins: SliceSet) -> Self {
        let positive = slices.labels().iter().map(|label| label.any()).collect();
        let levels = slices.levels();
        let mut shown = slices;
        shown.append(twins);
        Self { positive, levels, shown: Box::new(shown) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(n: usize) -> f64 {
    n as f64
}
