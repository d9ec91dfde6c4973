//! The training run: phases, epochs, steps, validation, checkpoints.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use ichor_model::{Swin, SwinPlan};
use tch::{Device, Kind, Tensor, nn};
use thiserror::Error;

use crate::adamw::{AdamW, AdamWError, AdamWOptions};
use crate::augment::augment;
use crate::checkpoint::{self, CheckpointError, EpochRecord, Position};
use crate::init::initialise;
use crate::loss::loss;
use crate::metrics::auc;
use crate::phantoms::{PhantomError, PhantomMix, slice_set, twin_set};
use crate::progress::Progress;
use crate::recipe::{Phase, Recipe};
use crate::sampler::{SamplerError, balance_batches, balanced_epoch, matched_epoch, with_twins};
use crate::schedule::learning_rate;
use crate::seeds::{SeedRange, derive};
use crate::slices::SliceSet;

/// A run cannot go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The network's sizes do not fit together.
    #[error("network: {0}")]
    Plan(String),
    /// libtorch refused an operation.
    #[error("training: {0}")]
    Torch(#[from] tch::TchError),
    /// The optimizer cannot go on.
    #[error(transparent)]
    Optimizer(#[from] AdamWError),
    /// The training slices of a phase lack a class.
    #[error("phase {0:?}: {1}")]
    Sampler(String, SamplerError),
    /// Phantoms cannot be made or cached.
    #[error(transparent)]
    Phantoms(#[from] PhantomError),
    /// The checkpoint cannot be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
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
    /// Folder of the checkpoint; a run found there goes on.
    pub checkpoint: PathBuf,
    /// Device to train on. Only the CPU is exact to the bit between runs.
    pub device: Device,
    /// Stops after this many epochs in all, as if the run had been killed there (for tests and short looks).
    pub stop_after: Option<usize>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Trained {
    /// The averaged weights, under the network's parameter names, ready for inputs as preprocessing makes them.
    pub weights: Vec<(String, Tensor)>,
    /// One record for each epoch.
    pub history: Vec<EpochRecord>,
}

/// Inputs are centred for training, (x − 0.4) / 0.25; the shipped first convolution takes this in (see [`fold`]).
const INPUT_MEAN: f64 = 0.4;
const INPUT_SD: f64 = 0.25;

/// Trains from the recipe, going on from the checkpoint if there is one.
///
/// # Errors
/// [`TrainError`].
pub fn train(recipe: &Recipe, options: &TrainOptions, progress: &mut dyn Progress) -> Result<Trained, TrainError> {
    let size = usize::try_from(recipe.model.img_size).unwrap_or_default();
    let prepare = |what: &str, seeds: SeedRange, mix: &PhantomMix, progress: &mut dyn Progress| {
        slice_set(what, seeds, mix, recipe.input_preset, size, &options.cache, progress)
    };
    let validation = prepare("validation", recipe.validation.seeds, &recipe.validation.phantoms, progress)?;
    let source = |phase: &Phase, progress: &mut dyn Progress| {
        let slices = prepare(&phase.name, phase.seeds, &phase.phantoms, progress)?;
        let twins = (phase.twin_share > 0.0)
            .then(|| twin_set(&slices, &phase.phantoms, recipe.input_preset, &options.cache, progress))
            .transpose()?;
        Ok((slices, twins))
    };
    train_on(recipe, options, &validation, source, progress)
}

/// Trains on slices (and their twins) from `source`, which is asked once for each phase that still has epochs to go.
fn train_on(
    recipe: &Recipe,
    options: &TrainOptions,
    validation: &SliceSet,
    source: impl Fn(&Phase, &mut dyn Progress) -> Result<(SliceSet, Option<SliceSet>), PhantomError>,
    progress: &mut dyn Progress,
) -> Result<Trained, TrainError> {
    let mut run = Run::start(recipe, options)?;
    for (index, phase) in recipe.phases.iter().enumerate().skip(run.position.phase) {
        let material = Material::new(source(phase, progress)?);
        while run.position.epoch < phase.epochs {
            if options.stop_after.is_some_and(|epochs| run.position.history.len() >= epochs) {
                return run.finish();
            }
            run.epoch(index, phase, &material, validation, progress)?;
            checkpoint::write(&options.checkpoint, &run.tensors()?, &run.position)?;
        }
        run.position.phase = index + 1;
        run.position.epoch = 0;
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
    shown: SliceSet,
}

impl Material {
    fn new((slices, twins): (SliceSet, Option<SliceSet>)) -> Self {
        let positive = slices.labels().iter().map(|label| label.any()).collect();
        let levels = slices.levels();
        let mut shown = slices;
        twins.into_iter().for_each(|twins| shown.append(twins));
        Self { positive, levels, shown }
    }
}

struct Run<'a> {
    recipe: &'a Recipe,
    device: Device,
    store: nn::VarStore,
    network: Swin,
    average_store: nn::VarStore,
    average: Swin,
    optimizer: AdamW,
    position: Position,
}

impl<'a> Run<'a> {
    fn start(recipe: &'a Recipe, options: &TrainOptions) -> Result<Self, TrainError> {
        let plan = SwinPlan::check(&recipe.model).map_err(|error| TrainError::Plan(error.to_string()))?;
        let (store, average_store) = (nn::VarStore::new(options.device), nn::VarStore::new(options.device));
        let network = Swin::new(&store.root(), &plan);
        let average = Swin::new(&average_store.root(), &plan);
        initialise(&store.variables(), recipe.model.depths.iter().sum(), recipe.seed)?;
        copy(&store, &average_store)?;
        let constants = AdamWOptions {
            beta2: recipe.optimizer.beta2,
            weight_decay: recipe.optimizer.weight_decay,
            max_gradient_norm: Some(recipe.optimizer.max_gradient_norm).filter(|&norm| norm > 0.0),
            ..AdamWOptions::default()
        };
        let mut optimizer = AdamW::new(&store.variables(), constants)?;
        let digest = recipe.digest();
        let position = match checkpoint::read(&options.checkpoint, &digest)? {
            Some((tensors, position)) => {
                checkpoint::restore(&store.variables(), &tensors, "weight")?;
                checkpoint::restore(&average_store.variables(), &tensors, "average")?;
                optimizer.restore(&tensors, position.steps)?;
                position
            }
            None => Position { recipe: digest, phase: 0, epoch: 0, steps: 0, history: Vec::new() },
        };
        Ok(Self { recipe, device: options.device, store, network, average_store, average, optimizer, position })
    }

    fn epoch(
        &mut self,
        index: usize,
        phase: &Phase,
        material: &Material,
        validation: &SliceSet,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError> {
        let started = Instant::now();
        let Material { positive, levels, shown } = material;
        let epoch = self.position.epoch;
        let seed = derive(self.recipe.seed, &[index as u64, epoch as u64]);
        let draw = match phase.matched_share {
            share if share > 0.0 => matched_epoch(positive, levels, share, phase.slices_per_epoch, seed),
            _ => balanced_epoch(positive, phase.slices_per_epoch, seed),
        };
        let order = draw.map_err(|error| TrainError::Sampler(phase.name.clone(), error))?;
        let order = with_twins(&balance_batches(&order, positive), positive, phase.twin_share, seed);
        let batches: Vec<&[usize]> = order.chunks(self.recipe.optimizer.batch).collect();
        let (steps, total) = (batches.len() as u64, (batches.len() * phase.epochs) as u64);
        let mut sum = 0.0;
        for (step, batch) in batches.iter().enumerate() {
            let at = steps * epoch as u64 + step as u64;
            let rate = learning_rate(phase.learning_rate, phase.final_rate, phase.warm_up_steps, at, total);
            let batch_loss = self.step(shown, batch, phase.twin_share > 0.0, rate, derive(seed, &[step as u64]))?;
            if !batch_loss.is_finite() {
                return Err(TrainError::Diverged {
                    phase: phase.name.clone(),
                    step: self.optimizer.steps(),
                    loss: batch_loss,
                });
            }
            sum += batch_loss;
            progress.step(step + 1, batches.len(), sum / as_f64(step + 1));
        }
        let seconds = started.elapsed().as_secs_f64();
        let (validation_loss, validation_auc) = self.validate(validation)?;
        let record = EpochRecord {
            phase: phase.name.clone(),
            epoch,
            slices: order.len(),
            training_loss: sum / as_f64(batches.len().max(1)),
            validation_loss,
            validation_auc,
            seconds,
        };
        progress.epoch(&record);
        self.position.history.push(record);
        self.position.epoch += 1;
        self.position.steps = self.optimizer.steps();
        Ok(())
    }

    fn step(
        &mut self,
        slices: &SliceSet,
        batch: &[usize],
        pairs_alike: bool,
        rate: f64,
        seed: u64,
    ) -> Result<f64, TrainError> {
        let labels: Vec<_> = batch.iter().map(|&i| slices.labels()[i]).collect();
        let input = augment(&stack(slices, batch)?, &self.recipe.augment, pairs_alike, seed)?;
        let logits = self.network.forward(&centre(&input.f_to_device(self.device)?)?);
        let batch_loss = loss(self.recipe.strategy, &logits, &labels, &self.recipe.loss)?;
        self.optimizer.zero_grad();
        batch_loss.f_backward()?;
        self.optimizer.step(rate)?;
        self.update_average()?;
        Ok(batch_loss.f_double_value(&[])?)
    }

    fn update_average(&self) -> Result<(), TrainError> {
        let _frozen = tch::no_grad_guard();
        let steps = as_f64(usize::try_from(self.optimizer.steps()).unwrap_or(usize::MAX));
        // Young averages follow closely, or the starting weights would linger in them.
        let decay = self.recipe.optimizer.average_decay.min((1.0 + steps) / (10.0 + steps));
        let averages = self.average_store.variables();
        for (name, weight) in self.store.variables() {
            if let Some(average) = averages.get(&name) {
                let _ = average.shallow_clone().f_lerp_(&weight, 1.0 - decay)?;
            }
        }
        Ok(())
    }

    /// Mean loss and slice AUC of the averaged weights.
    fn validate(&self, slices: &SliceSet) -> Result<(f64, f64), TrainError> {
        let _frozen = tch::no_grad_guard();
        let (mut scores, mut sum) = (Vec::with_capacity(slices.len()), 0.0);
        let all: Vec<usize> = (0..slices.len()).collect();
        for batch in all.chunks(16) {
            let labels: Vec<_> = batch.iter().map(|&i| slices.labels()[i]).collect();
            let logits = self.average.forward(&centre(&stack(slices, batch)?.f_to_device(self.device)?)?);
            let mean = loss(self.recipe.strategy, &logits, &labels, &self.recipe.loss)?.f_double_value(&[])?;
            sum += mean * as_f64(batch.len());
            let probability = self.recipe.strategy.probability(&logits).f_to_device(Device::Cpu)?;
            scores.extend(Vec::<f32>::try_from(&probability)?);
        }
        let positive: Vec<bool> = slices.labels().iter().map(|label| label.any()).collect();
        Ok((sum / as_f64(slices.len().max(1)), auc(&scores, &positive).unwrap_or(f64::NAN)))
    }

    fn tensors(&self) -> Result<Vec<(String, Tensor)>, TrainError> {
        let mut tensors = checkpoint::named(&self.store.variables(), "weight")?;
        tensors.extend(checkpoint::named(&self.average_store.variables(), "average")?);
        tensors.extend(self.optimizer.state());
        Ok(tensors)
    }

    fn finish(self) -> Result<Trained, TrainError> {
        Ok(Trained { weights: fold(&self.average_store.variables())?, history: self.position.history })
    }
}

/// The batch as B×3×S×S values 0..1.
fn stack(slices: &SliceSet, batch: &[usize]) -> Result<Tensor, TrainError> {
    let bytes: Vec<u8> = batch.iter().flat_map(|&i| slices.input(i)).copied().collect();
    let (count, size) = (batch.len() as i64, slices.size() as i64);
    let tensor = Tensor::f_from_slice(&bytes)?.f_reshape([count, 3, size, size])?;
    Ok(tensor.f_to_kind(Kind::Float)?.f_mul_scalar(1.0 / 255.0)?)
}

fn centre(input: &Tensor) -> Result<Tensor, tch::TchError> {
    input.f_sub_scalar(INPUT_MEAN)?.f_mul_scalar(1.0 / INPUT_SD)
}

/// The variables with the centring of the input taken into the first convolution: W/σ and b − Σ W·μ/σ. The convolution
/// has no padding, so this is exact, and whoever loads the weights needs to know nothing of it.
fn fold(variables: &HashMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, TrainError> {
    let _frozen = tch::no_grad_guard();
    let mut weights: HashMap<String, Tensor> = variables.clone_shallow();
    let stem = weights.keys().find_map(|name| name.strip_suffix("patch_embed.proj.weight").map(str::to_owned));
    let stem = stem.ok_or_else(|| TrainError::Plan("the network has no patch_embed.proj.weight".to_owned()))?;
    let (weight_name, bias_name) = (format!("{stem}patch_embed.proj.weight"), format!("{stem}patch_embed.proj.bias"));
    let weight = weights[&weight_name].f_mul_scalar(1.0 / INPUT_SD)?;
    let shift = weight.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float)?.f_mul_scalar(INPUT_MEAN)?;
    let bias = weights.get(&bias_name).ok_or_else(|| TrainError::Plan(format!("the network has no {bias_name}")))?;
    let bias = bias.f_sub(&shift)?;
    weights.insert(bias_name, bias);
    weights.insert(weight_name, weight);
    let mut sorted = checkpoint::named(&weights, "")?;
    for (name, _) in &mut sorted {
        name.remove(0);
    }
    Ok(sorted)
}

trait CloneShallow {
    fn clone_shallow(&self) -> Self;
}

impl CloneShallow for HashMap<String, Tensor> {
    fn clone_shallow(&self) -> Self {
        self.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }
}

fn copy(from: &nn::VarStore, to: &nn::VarStore) -> Result<(), TrainError> {
    let _frozen = tch::no_grad_guard();
    let source = from.variables();
    for (name, mut target) in to.variables() {
        if let Some(weight) = source.get(&name) {
            target.f_copy_(weight)?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::SliceLabel;
    use ichor_core::HemorrhageSubtype;
    use rand::{Rng, SeedableRng};

    const TINY: &str = r#"
        name = "tiny"
        version = "0"
        seed = 3
        strategy = "categorical"
        input_preset = "physionet"
        [model]
        img_size = 32
        patch_size = 4
        window_size = 4
        embed_dim = 8
        depths = [2, 2]
        num_heads = [2, 4]
        num_classes = 2
        [optimizer]
        batch = 8
        weight_decay = 0.01
        beta2 = 0.99
        max_gradient_norm = 1.0
        average_decay = 0.9
        [[phases]]
        name = "first"
        seeds = { first = 1, studies = 1 }
        phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
        epochs = 2
        learning_rate = 2e-3
        final_rate = 0.8
        warm_up_steps = 10
        [[phases]]
        name = "second"
        seeds = { first = 10, studies = 1 }
        phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
        epochs = 2
        learning_rate = 2e-3
        final_rate = 0.1
        warm_up_steps = 5
        [validation]
        seeds = { first = 20, studies = 1 }
        phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
        [test]
        seeds = { first = 30, studies = 1 }
        phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
    "#;

    /// Grey noise; half of the slices carry a bright square somewhere.
    fn squares(count: usize, seed: u64) -> SliceSet {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut set = SliceSet::new(32);
        for index in 0..count {
            let mut plane: Vec<f32> = (0..32 * 32).map(|_| rng.random_range(0.3..0.5)).collect();
            let bright = index % 2 == 0;
            if bright {
                let (row, column) = (rng.random_range(2..20), rng.random_range(2..20));
                for line in row..row + 9 {
                    plane[line * 32 + column..line * 32 + column + 9].fill(0.8);
                }
            }
            let label = if bright { SliceLabel::of([HemorrhageSubtype::Subdural]) } else { SliceLabel::NONE };
            set.push(&[plane.clone(), plane.clone(), plane].concat(), label, index as u64);
        }
        set
    }

    fn run(recipe: &Recipe, folder: &std::path::Path, stop_after: Option<usize>) -> Trained {
        let options = TrainOptions {
            cache: folder.join("cache"),
            checkpoint: folder.join("checkpoint"),
            device: Device::Cpu,
            stop_after,
        };
        let source = |phase: &Phase, _: &mut dyn Progress| Ok((squares(160, phase.seeds.first), None));
        train_on(recipe, &options, &squares(40, 99), source, &mut ()).unwrap()
    }

    fn tiny() -> Recipe {
        Recipe::parse(TINY, "tiny.toml".as_ref()).unwrap()
    }

    #[test]
    fn learns_from_labels_and_resumes_to_the_bit() {
        let _drawing = crate::draw_alone();
        // One thread: sums in another order would differ in the last bit.
        tch::set_num_threads(1);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let recipe = tiny();
        let straight = run(&recipe, whole.path(), None);
        let (first, last) = (&straight.history[0], &straight.history[3]);
        assert!(last.training_loss < 0.7 * first.training_loss, "{first:?} {last:?}");
        assert!(last.validation_auc > 0.9, "{last:?}");
        // Stopped in the first phase, between the phases, and in the second.
        for stop in [1, 2, 3] {
            assert_eq!(run(&recipe, parts.path(), Some(stop)).history.len(), stop);
        }
        let resumed = run(&recipe, parts.path(), None);
        assert_eq!(resumed.history.len(), 4);
        for (ours, theirs) in resumed.history.iter().zip(&straight.history) {
            assert_eq!(ours.training_loss.to_bits(), theirs.training_loss.to_bits());
        }
        for ((name, a), (_, b)) in resumed.weights.iter().zip(&straight.weights) {
            assert!(a.equal(b), "{name} differs after resuming");
        }
    }

    #[test]
    fn shipped_weights_take_plain_input() {
        let _drawing = crate::draw_alone();
        let recipe = tiny();
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions {
            cache: folder.path().into(),
            checkpoint: folder.path().into(),
            device: Device::Cpu,
            stop_after: None,
        };
        let run = Run::start(&recipe, &options).unwrap();
        let input = stack(&squares(4, 5), &[0, 1, 2, 3]).unwrap();
        // The head starts at zero, so a feature of it is compared.
        let head = run.average_store.variables()["head.weight"].shallow_clone();
        let _ = tch::no_grad(|| head.shallow_clone().normal_(0.0, 1.0));
        let centred = run.average.forward(&centre(&input).unwrap());
        let store = nn::VarStore::new(Device::Cpu);
        let shipped = Swin::new(&store.root(), run.average.plan());
        let weights: HashMap<String, Tensor> = fold(&run.average_store.variables()).unwrap().into_iter().collect();
        tch::no_grad(|| store.variables().iter_mut().for_each(|(name, variable)| variable.copy_(&weights[name])));
        let difference = (centred - shipped.forward(&input)).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "{difference}");
    }
}
