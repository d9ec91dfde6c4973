//! The course of a rival's training, whatever it learns from: epochs, steps, the choice of the best epoch, checkpoints.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use tch::{Tensor, nn};

use super::RivalError;
use super::recipe::RivalRecipe;
use crate::adamw::{AdamW, AdamWOptions};
use crate::checkpoint::{self, EpochRecord, Position};
use crate::progress::Progress;
use crate::schedule::learning_rate;
use crate::seeds::derive;

/// Largest norm of the gradient; the LSTM's can jump.
const MAX_GRADIENT_NORM: f64 = 5.0;

/// What an epoch came to on the slices kept apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Validation {
    /// Mean loss.
    pub(super) loss: f64,
    /// Slice AUC.
    pub(super) auc: f64,
}

/// Who learns, and from what.
pub(super) trait Learner {
    /// The batches of an epoch; the seed alone decides which.
    fn batches(&self, seed: u64) -> Result<Vec<Vec<usize>>, RivalError>;

    /// The loss of a batch as a scalar that can be differentiated; `seed` decides its augmentation.
    fn loss(&self, batch: &[usize], seed: u64) -> Result<Tensor, RivalError>;

    /// Loss and AUC on what was kept apart.
    fn validate(&self) -> Result<Validation, RivalError>;
}

/// A training under way, or at its end.
pub(super) struct Course<'a> {
    rival: &'a RivalRecipe,
    store: &'a nn::VarStore,
    folder: &'a Path,
    seed: u64,
    optimizer: AdamW,
    /// Variables of the best epoch so far.
    best: HashMap<String, Tensor>,
    position: Position,
}

impl<'a> Course<'a> {
    /// Takes up the training where its folder says it stands, or at its beginning.
    pub(super) fn open(
        rival: &'a RivalRecipe,
        store: &'a nn::VarStore,
        folder: &'a Path,
        digest: String,
        seed: u64,
    ) -> Result<Self, RivalError> {
        let variables = store.variables();
        let constants = AdamWOptions {
            weight_decay: rival.weight_decay,
            max_gradient_norm: Some(MAX_GRADIENT_NORM),
            ..AdamWOptions::default()
        };
        let mut optimizer = AdamW::new(&variables, constants)?;
        let best = copies(&variables)?;
        let position = match checkpoint::read(folder, &digest)? {
            Some((tensors, position)) => {
                checkpoint::restore(&variables, &tensors, "weight")?;
                checkpoint::restore(&best, &tensors, "best")?;
                optimizer.restore(&tensors, position.steps, position.moments_since)?;
                position
            }
            None => Position { recipe: digest, ..Position::default() },
        };
        Ok(Self { rival, store, folder, seed, optimizer, best, position })
    }

    /// Whether no epoch is left to do: all are done, or the last ones brought nothing.
    pub(super) fn finished(&self) -> bool {
        let since_best = self.position.history.len().saturating_sub(1 + self.best_epoch().unwrap_or(0));
        self.position.epoch >= self.rival.epochs || self.rival.patience.is_some_and(|patience| since_best >= patience)
    }

    /// Index of the epoch with the lowest validation loss, the first of equals.
    fn best_epoch(&self) -> Option<usize> {
        let losses = self.position.history.iter().map(|record| record.validation_loss).enumerate();
        losses.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(epoch, _)| epoch)
    }

    /// Trains to the end. After each epoch the checkpoint holds the weights, those of the best epoch and the optimizer.
    pub(super) fn go(&mut self, learner: &dyn Learner, progress: &mut dyn Progress) -> Result<(), RivalError> {
        while !self.finished() {
            self.epoch(learner, progress)?;
            let mut tensors = checkpoint::named(&self.store.variables(), "weight")?;
            tensors.extend(checkpoint::named(&self.best, "best")?);
            tensors.extend(self.optimizer.state());
            checkpoint::write(self.folder, &tensors, &self.position)?;
        }
        Ok(())
    }

    fn epoch(&mut self, learner: &dyn Learner, progress: &mut dyn Progress) -> Result<(), RivalError> {
        let started = Instant::now();
        let epoch = self.position.epoch;
        let seed = derive(self.seed, &[epoch as u64]);
        let batches = learner.batches(seed)?;
        let (steps, total) = (batches.len() as u64, (batches.len() * self.rival.epochs) as u64);
        let mut sum = 0.0;
        for (step, batch) in batches.iter().enumerate() {
            let at = steps * epoch as u64 + step as u64;
            let rate = learning_rate(self.rival.learning_rate, self.rival.final_rate, 0, at, total);
            let loss = tch::with_grad(|| learner.loss(batch, derive(seed, &[step as u64])))?;
            self.optimizer.zero_grad();
            loss.f_backward()?;
            self.optimizer.step(rate)?;
            let value = loss.f_double_value(&[])?;
            if !value.is_finite() {
                return Err(RivalError::Diverged { epoch, step, loss: value });
            }
            sum += value;
            progress.step(step + 1, batches.len(), sum / as_f64(step + 1));
        }
        let seconds = started.elapsed().as_secs_f64();
        let validation = learner.validate()?;
        if !validation.loss.is_finite() {
            return Err(RivalError::Diverged { epoch, step: batches.len(), loss: validation.loss });
        }
        let record = EpochRecord {
            phase: self.rival.name().to_owned(),
            epoch,
            slices: batches.iter().map(Vec::len).sum(),
            training_loss: sum / as_f64(batches.len().max(1)),
            validation_loss: validation.loss,
            validation_auc: validation.auc,
            seconds,
            waited_share: 0.0,
        };
        progress.epoch(&record);
        self.position.history.push(record);
        self.position.epoch += 1;
        self.position.steps = self.optimizer.steps();
        if self.best_epoch() == Some(epoch) {
            self.best = copies(&self.store.variables())?;
        }
        Ok(())
    }

    /// Puts the weights of the best epoch into the network, and gives the records of all epochs.
    pub(super) fn finish(self) -> Result<Vec<EpochRecord>, RivalError> {
        let _frozen = tch::no_grad_guard();
        for (name, mut variable) in self.store.variables() {
            if let Some(best) = self.best.get(&name) {
                variable.f_copy_(best)?;
            }
        }
        Ok(self.position.history)
    }
}

fn copies(variables: &HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>, RivalError> {
    let _frozen = tch::no_grad_guard();
    variables.iter().map(|(name, variable)| Ok((name.clone(), variable.f_detach_copy()?))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(n: usize) -> f64 {
    n as f64
}
