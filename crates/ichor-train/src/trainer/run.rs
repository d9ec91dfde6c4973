//! The state of a run, and what one epoch does to it.

use std::time::Instant;

use ichor_model::{StartHead, Swin, SwinPlan, start_from};
use tch::{Device, Tensor, nn};

use super::input::{centre, fold, unfold};
use super::loader::{Changes, Feed, Job, feed};
use super::parts::Room;
use super::{Material, TrainError, TrainOptions, Trained, as_f64};
use crate::adamw::{AdamW, AdamWOptions};
use crate::augment::AugmentOptions;
use crate::checkpoint::{self, Best, EpochRecord, Position, UnderWay};
use crate::init::initialise;
use crate::labels::SliceLabel;
use crate::loss::loss;
use crate::metrics::auc;
use crate::progress::{Progress, Timing};
use crate::recipe::{Phase, Recipe};
use crate::sampler::{balance_batches, balanced_epoch, matched_epoch, with_twins};
use crate::schedule::learning_rate;
use crate::seeds::derive;
use crate::slices::Slices;

/// Slices that are validated at once.
const VALIDATION_BATCH: usize = 16;

/// How an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With its last step and the validation.
    Whole,
    /// After a step, because somebody asked for it.
    Interrupted,
}

pub(super) struct Run<'a> {
    recipe: &'a Recipe,
    options: &'a TrainOptions,
    store: nn::VarStore,
    network: Swin,
    average_store: nn::VarStore,
    average: Swin,
    /// The averaged weights of the phase's best epoch, where it stops early.
    best: Option<nn::VarStore>,
    optimizer: AdamW,
    room: Room,
    pub(super) position: Position,
}

/// One epoch's plan.
struct Plan<'a> {
    index: usize,
    phase: &'a Phase,
    order: Vec<usize>,
    seed: u64,
    head_only: bool,
}

impl<'a> Run<'a> {
    pub(super) fn start(
        recipe: &'a Recipe,
        options: &'a TrainOptions,
        progress: &mut dyn Progress,
    ) -> Result<Self, TrainError> {
        let plan = SwinPlan::check(&recipe.model).map_err(|error| TrainError::Plan(error.to_string()))?;
        let (store, average_store) = (nn::VarStore::new(options.device), nn::VarStore::new(options.device));
        let network = Swin::new(&store.root(), &plan);
        let average = Swin::new(&average_store.root(), &plan);
        let constants = AdamWOptions {
            beta2: recipe.optimizer.beta2,
            weight_decay: recipe.optimizer.weight_decay,
            max_gradient_norm: Some(recipe.optimizer.max_gradient_norm).filter(|&norm| norm > 0.0),
            ..AdamWOptions::default()
        };
        let mut optimizer = AdamW::new(&store.variables(), constants)?;
        let digest = recipe.digest();
        let mut best = None;
        let position = match checkpoint::read(&options.checkpoint, &digest)? {
            Some((tensors, position)) => {
                checkpoint::restore(&store.variables(), &tensors, "weight")?;
                checkpoint::restore(&average_store.variables(), &tensors, "average")?;
                optimizer.restore(&tensors, position.steps, position.moments_since)?;
                if position.best.is_some() {
                    let kept = twin_of(&store, &plan);
                    checkpoint::restore(&kept.variables(), &tensors, "best")?;
                    best = Some(kept);
                }
                position
            }
            None => {
                first_weights(recipe, &store, progress)?;
                copy(&store, &average_store)?;
                Position { recipe: digest, ..Position::default() }
            }
        };
        let room = Room::default();
        Ok(Self { recipe, options, store, network, average_store, average, best, optimizer, room, position })
    }

    /// Whether the phase that the run stands in has no epoch to go.
    pub(super) fn is_done_with(&self, phase: &Phase) -> bool {
        let done = self.position.epoch;
        let waited = self.position.best.as_ref().map_or(0, |best| done.saturating_sub(best.epoch + 1));
        let stops = phase.early_stop.is_some_and(|patience| self.position.best.is_some() && waited >= patience);
        self.position.under_way.is_none() && (done >= phase.all_epochs() || stops)
    }

    /// Goes on to the next phase, with the best epoch's weights if the phase kept them.
    pub(super) fn leave(&mut self, index: usize) -> Result<(), TrainError> {
        if let Some(best) = self.best.take() {
            copy(&best, &self.average_store)?;
            copy(&best, &self.store)?;
        }
        self.position.best = None;
        self.position.phase = index + 1;
        self.position.epoch = 0;
        Ok(())
    }

    /// Trains one epoch from where it stands, and validates it.
    pub(super) fn epoch(
        &mut self,
        index: usize,
        phase: &Phase,
        material: &Material,
        validation: &dyn Slices,
        progress: &mut dyn Progress,
    ) -> Result<Ended, TrainError> {
        let plan = self.plan(index, phase, material)?;
        if self.position.epoch == phase.head_epochs() && phase.head_first.is_some() && self.position.under_way.is_none()
        {
            self.optimizer.restart()?;
        }
        self.set_trainable(plan.head_only);
        let batches: Vec<&[usize]> = plan.order.chunks(self.recipe.optimizer.batch).collect();
        let began = self.position.under_way.take().unwrap_or_default();
        let step_seed = |step: usize| derive(plan.seed, &[step as u64]);
        let jobs: Vec<Job<'_>> = batches
            .iter()
            .enumerate()
            .skip(began.step)
            .map(|(step, indices)| Job { indices, seed: Some(step_seed(step)) })
            .collect();
        let shown = material.shown.as_ref();
        let changes = Changes {
            options: &self.recipe.augment,
            pairs_alike: phase.twin_share > 0.0,
            ahead: self.options.device != Device::Cpu,
        };
        let (ended, reached) =
            feed(shown, &jobs, changes, |feed| self.steps(&plan, &batches, shown.labels(), feed, began, progress))?;
        self.position.steps = self.optimizer.steps();
        self.position.moments_since = self.optimizer.born();
        if ended == Ended::Interrupted {
            self.position.under_way = Some(reached);
            return Ok(ended);
        }
        let (validation_loss, validation_auc) = self.validate(validation, progress)?;
        let record = EpochRecord {
            phase: phase.name.clone(),
            epoch: self.position.epoch,
            slices: plan.order.len(),
            training_loss: reached.loss() / as_f64(batches.len().max(1)),
            validation_loss,
            validation_auc,
            seconds: reached.seconds,
            waited_share: reached.waited / reached.seconds.max(1e-9),
        };
        progress.epoch(&record);
        self.keep_best(phase, &plan, validation_loss)?;
        self.position.history.push(record);
        self.position.epoch += 1;
        Ok(Ended::Whole)
    }

    fn plan<'p>(&self, index: usize, phase: &'p Phase, material: &Material) -> Result<Plan<'p>, TrainError> {
        let Material { positive, levels, .. } = material;
        let epoch = self.position.epoch;
        let seed = derive(self.recipe.seed, &[index as u64, epoch as u64]);
        let draw = match phase.matched_share {
            share if share > 0.0 => matched_epoch(positive, levels, share, phase.slices_per_epoch, seed),
            _ => balanced_epoch(positive, phase.slices_per_epoch, seed),
        };
        let order = draw.map_err(|error| TrainError::Sampler(phase.name.clone(), error))?;
        let order = with_twins(&balance_batches(&order, positive), positive, phase.twin_share, seed);
        Ok(Plan { index, phase, order, seed, head_only: epoch < phase.head_epochs() })
    }

    /// The steps of an epoch that are still to go; gives where the epoch stands then.
    fn steps(
        &mut self,
        plan: &Plan<'_>,
        batches: &[&[usize]],
        labels: &[SliceLabel],
        feed: &mut Feed<'_>,
        began: UnderWay,
        progress: &mut dyn Progress,
    ) -> Result<(Ended, UnderWay), TrainError> {
        let started = Instant::now();
        let mut at = began;
        while let Some(input) = feed.next() {
            let batch_labels: Vec<_> = batches[at.step].iter().map(|&i| labels[i]).collect();
            let batch_loss = self.step(&input?, &batch_labels, self.rate(plan, batches.len(), at.step), progress)?;
            if !batch_loss.is_finite() {
                let (phase, step) = (plan.phase.name.clone(), self.optimizer.steps());
                return Err(TrainError::Diverged { phase, step, loss: batch_loss });
            }
            at.add(batch_loss);
            let now = started.elapsed().as_secs_f64();
            (at.seconds, at.waited) = (began.seconds + now, began.waited + feed.waited.as_secs_f64());
            let to_come = plan.phase.all_epochs().saturating_sub(self.position.epoch + 1) * batches.len();
            progress.step(at.step, batches.len(), at.loss() / as_f64(at.step));
            progress.timing(&Timing {
                step: at.step,
                steps: batches.len(),
                slices_per_second: as_f64((at.step - began.step) * self.recipe.optimizer.batch) / now,
                phase_left_s: now / as_f64(at.step - began.step) * as_f64(batches.len() - at.step + to_come),
                waited_share: feed.waited.as_secs_f64() / now,
            });
            if self.options.is_interrupted() && at.step < batches.len() {
                return Ok((Ended::Interrupted, at));
            }
        }
        Ok((Ended::Whole, at))
    }

    fn rate(&self, plan: &Plan<'_>, steps: usize, step: usize) -> f64 {
        let phase = plan.phase;
        if let Some(head) = phase.head_first
            && plan.head_only
        {
            return head.learning_rate;
        }
        let at = steps * (self.position.epoch - phase.head_epochs()) + step;
        let total = steps * phase.epochs;
        learning_rate(phase.learning_rate, phase.final_rate, phase.warm_up_steps, at as u64, total as u64)
    }

    /// One optimizer step on a batch, in as many parts as memory asks for.
    fn step(
        &mut self,
        input: &Tensor,
        labels: &[SliceLabel],
        rate: f64,
        progress: &mut dyn Progress,
    ) -> Result<f64, TrainError> {
        let Self { recipe, options, network, optimizer, room, .. } = self;
        let count = labels.len();
        optimizer.zero_grad();
        let parts = room.run(
            count,
            progress,
            || optimizer.zero_grad(),
            |range| {
                let share = as_f64(range.len()) / as_f64(count);
                let part = if range.len() == count {
                    input.shallow_clone()
                } else {
                    input.f_narrow(0, range.start as i64, range.len() as i64)?
                };
                let logits = network.forward(&centre(&part.f_to_device(options.device)?)?);
                let mean = loss(recipe.strategy, &logits, &labels[range], &recipe.loss)?;
                let weighed = if share < 1.0 { mean.f_mul_scalar(share)? } else { mean };
                weighed.f_backward()?;
                Ok(weighed.f_double_value(&[])?)
            },
        )?;
        self.optimizer.step(rate)?;
        self.update_average()?;
        Ok(parts.into_iter().sum())
    }

    /// Holds all but the head still, or nothing.
    fn set_trainable(&self, head_only: bool) {
        for (name, variable) in self.store.variables() {
            let _ = variable.set_requires_grad(!head_only || name.starts_with("head."));
        }
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
    fn validate(&mut self, slices: &dyn Slices, progress: &mut dyn Progress) -> Result<(f64, f64), TrainError> {
        let _frozen = tch::no_grad_guard();
        let labels = slices.labels();
        let (mut scores, mut sum) = (Vec::with_capacity(labels.len()), 0.0);
        let all: Vec<usize> = (0..labels.len()).collect();
        let jobs: Vec<Job<'_>> = all.chunks(VALIDATION_BATCH).map(|indices| Job { indices, seed: None }).collect();
        let unchanged = AugmentOptions::default();
        let changes = Changes { options: &unchanged, pairs_alike: false, ahead: true };
        let Self { recipe, options, average, room, .. } = self;
        feed(slices, &jobs, changes, |feed| -> Result<(), TrainError> {
            for job in &jobs {
                let Some(input) = feed.next() else { break };
                let input = input?;
                let parts = room.run(
                    job.indices.len(),
                    progress,
                    || (),
                    |range| {
                        let labels: Vec<_> = job.indices[range.clone()].iter().map(|&i| labels[i]).collect();
                        let part = input.f_narrow(0, range.start as i64, range.len() as i64)?;
                        let logits = average.forward(&centre(&part.f_to_device(options.device)?)?);
                        let mean = loss(recipe.strategy, &logits, &labels, &recipe.loss)?.f_double_value(&[])?;
                        let probability = recipe.strategy.probability(&logits).f_to_device(Device::Cpu)?;
                        Ok((mean * as_f64(range.len()), Vec::<f32>::try_from(&probability)?))
                    },
                )?;
                for (part, probabilities) in parts {
                    sum += part;
                    scores.extend(probabilities);
                }
            }
            Ok(())
        })?;
        let positive: Vec<bool> = labels.iter().map(|label| label.any()).collect();
        Ok((sum / as_f64(labels.len().max(1)), auc(&scores, &positive).unwrap_or(f64::NAN)))
    }

    /// Keeps the averaged weights if the phase stops early and no epoch of it was better.
    fn keep_best(&mut self, phase: &Phase, plan: &Plan<'_>, loss: f64) -> Result<(), TrainError> {
        let lower = self.position.best.is_none_or(|best| loss < best.loss());
        if phase.early_stop.is_none() || plan.head_only || !lower {
            return Ok(());
        }
        let kept = self.best.take().unwrap_or_else(|| twin_of(&self.store, self.network.plan()));
        copy(&self.average_store, &kept)?;
        self.best = Some(kept);
        self.position.best = Some(Best::new(self.position.epoch, loss));
        debug_assert_eq!(self.position.phase, plan.index);
        Ok(())
    }

    pub(super) fn tensors(&self) -> Result<Vec<(String, Tensor)>, TrainError> {
        let mut tensors = checkpoint::named(&self.store.variables(), "weight")?;
        tensors.extend(checkpoint::named(&self.average_store.variables(), "average")?);
        if let Some(best) = &self.best {
            tensors.extend(checkpoint::named(&best.variables(), "best")?);
        }
        tensors.extend(self.optimizer.state());
        Ok(tensors)
    }

    pub(super) fn finish(self) -> Result<Trained, TrainError> {
        let weights = fold(&self.best.as_ref().unwrap_or(&self.average_store).variables())?;
        Ok(Trained { weights, history: self.position.history })
    }

    #[cfg(test)]
    pub(super) fn averages(&self) -> (&nn::VarStore, &Swin) {
        (&self.average_store, &self.average)
    }

    #[cfg(test)]
    pub(super) fn allow(&mut self, most: usize) {
        self.room = Room::at_most(most);
    }
}

/// The weights of a run that begins: from nothing, or from a file.
fn first_weights(recipe: &Recipe, store: &nn::VarStore, progress: &mut dyn Progress) -> Result<(), TrainError> {
    initialise(&store.variables(), recipe.model.depths.iter().sum(), recipe.seed)?;
    let Some(path) = recipe.start_from.as_ref().map(|path| recipe.folder.join(path)) else { return Ok(()) };
    let head = start_from(&path, store)?;
    unfold(&store.variables())?;
    progress.note(&match head {
        StartHead::Taken => format!("starting from {}, head included", path.display()),
        StartHead::Kept { why } => format!("starting from {}; the head starts anew: {why}", path.display()),
    });
    Ok(())
}

/// A store of the same variables on the same device, values yet to be set.
fn twin_of(store: &nn::VarStore, plan: &SwinPlan) -> nn::VarStore {
    let twin = nn::VarStore::new(store.device());
    let _network = Swin::new(&twin.root(), plan);
    twin
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
