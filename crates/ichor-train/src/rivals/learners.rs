//! How a batch becomes a loss: from masks for the supervised rivals, from the slice labels of whole scans for ResNet-LSTM.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, TchError, Tensor};

use super::RivalError;
use super::course::{Learner, Validation};
use super::examples::{Examples, ExamplesError, Parts};
use super::networks::{ResNetLstm, Segmenter};
use super::recipe::RivalRecipe;
use crate::augment::augment;
use crate::metrics::auc;
use crate::sampler::{SamplerError, balance_batches, balanced_epoch};
use crate::seeds::derive;

/// Half cross-entropy, half Dice loss (arXiv 2304.04902, section 4.2), of logits `[batch, 2, S, S]` against masks
/// `[batch, S, S]`, 0 or 1. Dice is that of the foreground over the whole batch, 1 added to both of its parts: slices
/// without hemorrhage have no Dice of their own.
///
/// # Errors
/// The libtorch error if shapes disagree.
pub fn cross_entropy_and_dice(logits: &Tensor, masks: &Tensor) -> Result<Tensor, TchError> {
    let target = masks.f_to_kind(Kind::Int64)?;
    let entropy = logits.f_cross_entropy_loss::<Tensor>(&target, None, tch::Reduction::Mean, -100, 0.0)?;
    let foreground = logits.f_softmax(1, Kind::Float)?.f_select(1, 1)?; // [batch, S, S]
    let both = foreground.f_mul(masks)?.f_sum(Kind::Float)?;
    let either = foreground.f_sum(Kind::Float)?.f_add(&masks.f_sum(Kind::Float)?)?;
    let dice = both.f_mul_scalar(2.0)?.f_add_scalar(1.0)?.f_div(&either.f_add_scalar(1.0)?)?;
    entropy.f_sub(&dice)?.f_add_scalar(1.0)?.f_mul_scalar(0.5)
}

/// A supervised rival at its lessons.
pub(super) struct MaskLearner<'a> {
    network: &'a dyn Segmenter,
    examples: &'a Examples,
    parts: Parts,
    rival: &'a RivalRecipe,
    device: Device,
}

impl<'a> MaskLearner<'a> {
    /// Fails if the examples have no masks, or their training part lacks a class.
    pub(super) fn new(
        network: &'a dyn Segmenter,
        examples: &'a Examples,
        parts: Parts,
        rival: &'a RivalRecipe,
        device: Device,
    ) -> Result<Self, RivalError> {
        examples.check_masks()?;
        let learner = Self { network, examples, parts, rival, device };
        learner.batches(0)?;
        Ok(learner)
    }

    fn masks(&self, indices: &[usize]) -> Result<Tensor, RivalError> {
        Ok(self.examples.masks(indices)?.ok_or(ExamplesError::NoMasks)?)
    }
}

impl Learner for MaskLearner<'_> {
    fn batches(&self, seed: u64) -> Result<Vec<Vec<usize>>, RivalError> {
        let training = &self.parts.training;
        let positive = self.examples.bleeding(training);
        let order = balanced_epoch(&positive, self.rival.slices_per_epoch, seed)?;
        let order: Vec<usize> = balance_batches(&order, &positive).into_iter().map(|at| training[at]).collect();
        Ok(order.chunks(self.rival.batch).map(<[usize]>::to_vec).collect())
    }

    fn loss(&self, batch: &[usize], seed: u64) -> Result<Tensor, RivalError> {
        // The mask goes through the augmentation as a fourth channel, and where it is moved between pixels, the larger
        // share decides.
        let both = Tensor::f_cat(&[self.examples.inputs(batch)?, self.masks(batch)?.f_unsqueeze(1)?], 1)?;
        let moved = augment(&both, &self.rival.augment, false, seed)?.f_to_device(self.device)?;
        let masks = moved.f_select(1, 3)?.f_ge(0.5)?.f_to_kind(Kind::Float)?;
        let logits = self.network.logits(&moved.f_narrow(1, 0, 3)?)?;
        Ok(cross_entropy_and_dice(&logits, &masks)?)
    }

    fn validate(&self) -> Result<Validation, RivalError> {
        let _frozen = tch::no_grad_guard();
        let (mut sum, mut scores) = (0.0, Vec::with_capacity(self.parts.validation.len()));
        for batch in self.parts.validation.chunks(self.rival.batch) {
            let logits = self.network.logits(&self.examples.inputs(batch)?.f_to_device(self.device)?)?;
            let loss = cross_entropy_and_dice(&logits, &self.masks(batch)?.f_to_device(self.device)?)?;
            sum += loss.f_double_value(&[])? * as_f64(batch.len());
            let foreground = logits.f_softmax(1, Kind::Float)?.f_select(1, 1)?;
            for at in 0..batch.len() {
                let slice = foreground.f_select(0, i64::try_from(at).unwrap_or_default())?;
                scores.push(foreground_score(&slice)?.0);
            }
        }
        let positive = self.examples.bleeding(&self.parts.validation);
        validation(sum / as_f64(scores.len().max(1)), &scores, &positive)
    }
}

/// The score of a slice by its foreground probabilities `[S, S]`, and how many pixels are foreground (0.5 and above): their
/// number plus the highest probability. So slices are in the order of their foreground, and those with equally much, none
/// above all, in the order of suspicion.
pub(super) fn foreground_score(foreground: &Tensor) -> Result<(f32, usize), TchError> {
    let pixels = foreground.f_ge(0.5)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    let highest = foreground.f_max()?.f_double_value(&[])?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a count of pixels")]
    let score = (pixels as f64 + highest) as f32;
    Ok((score, usize::try_from(pixels).unwrap_or_default()))
}

/// ResNet-LSTM at its lessons.
pub(super) struct ScanLearner<'a> {
    network: &'a ResNetLstm,
    examples: &'a Examples,
    training: Vec<Vec<usize>>,
    validation: Vec<Vec<usize>>,
    rival: &'a RivalRecipe,
    device: Device,
    /// Negative slices for each positive one: what a positive slice weighs in the loss.
    weight: f32,
}

impl<'a> ScanLearner<'a> {
    /// Fails if the training part lacks a class.
    pub(super) fn new(
        network: &'a ResNetLstm,
        examples: &'a Examples,
        parts: &Parts,
        rival: &'a RivalRecipe,
        device: Device,
    ) -> Result<Self, RivalError> {
        let bleeding = examples.bleeding(&parts.training);
        let positive = bleeding.iter().filter(|bleeds| **bleeds).count();
        let negative = bleeding.len() - positive;
        for (class, count) in [("positive", positive), ("negative", negative)] {
            if count == 0 {
                return Err(SamplerError::EmptyClass(class, bleeding.len()).into());
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "a ratio of counts")]
        let weight = (as_f64(negative) / as_f64(positive)) as f32;
        let (training, validation) = (examples.scans(&parts.training), examples.scans(&parts.validation));
        Ok(Self { network, examples, training, validation, rival, device, weight })
    }

    /// Binary cross-entropy, positive slices weighed so that both classes weigh alike.
    fn entropy(&self, logits: &Tensor, slices: &[usize]) -> Result<Tensor, RivalError> {
        let labels: Vec<f32> =
            self.examples.bleeding(slices).into_iter().map(|bleeds| f32::from(u8::from(bleeds))).collect();
        let target = Tensor::f_from_slice(&labels)?.f_to_device(self.device)?;
        let weight = Tensor::f_from_slice(&[self.weight])?.f_to_device(self.device)?;
        Ok(logits.f_binary_cross_entropy_with_logits(&target, None, Some(&weight), tch::Reduction::Mean)?)
    }
}

impl Learner for ScanLearner<'_> {
    /// A batch names scans, by their place among the training scans.
    fn batches(&self, seed: u64) -> Result<Vec<Vec<usize>>, RivalError> {
        let mut order: Vec<usize> = (0..self.training.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        Ok(order.chunks(self.rival.batch).map(<[usize]>::to_vec).collect())
    }

    fn loss(&self, batch: &[usize], seed: u64) -> Result<Tensor, RivalError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut inputs, mut slices, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for &scan in batch {
            let scan = &self.training[scan];
            let length = scan.len().min(self.rival.sequence);
            let start = rng.random_range(0..=scan.len() - length);
            let shown = &scan[start..start + length];
            // All slices of a scan move together: they go through the augmentation as channels of one.
            let (stacked, length) = (self.examples.inputs(shown)?, i64::try_from(length).unwrap_or_default());
            let (_, _, rows, columns) = stacked.size4()?;
            let one = stacked.f_reshape([1, 3 * length, rows, columns])?;
            let moved = augment(&one, &self.rival.augment, false, derive(seed, &[rng.random()]))?;
            inputs.push(moved.f_reshape([length, 3, rows, columns])?);
            slices.extend_from_slice(shown);
            lengths.push(length);
        }
        let input = Tensor::f_cat(&inputs, 0)?.f_to_device(self.device)?;
        self.entropy(&self.network.train_logits(&input, &lengths)?, &slices)
    }

    fn validate(&self) -> Result<Validation, RivalError> {
        let _frozen = tch::no_grad_guard();
        let (mut sum, mut scores, mut positive) = (0.0, Vec::new(), Vec::new());
        for scan in &self.validation {
            let logits = self.network.read(&self.examples.inputs(scan)?.f_to_device(self.device)?)?.logits;
            sum += self.entropy(&logits, scan)?.f_double_value(&[])? * as_f64(scan.len());
            scores.extend(Vec::<f32>::try_from(&logits.f_to_device(Device::Cpu)?)?);
            positive.extend(self.examples.bleeding(scan));
        }
        validation(sum / as_f64(scores.len().max(1)), &scores, &positive)
    }
}

/// A part without one of the classes has no AUC, and could not choose an epoch.
fn validation(loss: f64, scores: &[f32], positive: &[bool]) -> Result<Validation, RivalError> {
    let missing = if positive.contains(&true) { "negative" } else { "positive" };
    let auc = auc(scores, positive).ok_or(SamplerError::EmptyClass(missing, positive.len()))?;
    Ok(Validation { loss, auc })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_by_hand() {
        // Logits of ±ln 3: foreground probability 3/4 and 1/4.
        let sure = 3.0f32.ln();
        let foreground = Tensor::from_slice(&[sure, 0.0, sure, 0.0]).view([1, 1, 2, 2]);
        let background = Tensor::from_slice(&[0.0, sure, 0.0, sure]).view([1, 1, 2, 2]);
        let logits = Tensor::cat(&[background, foreground], 1);
        let masks = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.0]).view([1, 2, 2]);
        let loss = cross_entropy_and_dice(&logits, &masks).unwrap().double_value(&[]);
        let entropy = -(0.75f64.ln() * 3.0 + 0.25f64.ln()) / 4.0;
        let dice = (2.0 * 0.75 + 1.0) / (2.0 + 1.0 + 1.0);
        assert!((loss - 0.5 * (entropy + 1.0 - dice)).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn scores_put_foreground_first_and_suspicion_second() {
        let score = |values: &[f32]| foreground_score(&Tensor::from_slice(values).view([2, 2])).unwrap();
        assert_eq!(score(&[0.5, 0.9, 0.1, 0.0]).1, 2);
        let order =
            [score(&[0.0; 4]).0, score(&[0.4; 4]).0, score(&[0.5, 0.0, 0.0, 0.0]).0, score(&[0.6, 0.6, 0.0, 0.0]).0];
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
    }
}
