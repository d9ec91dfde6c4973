//! What a batch of slice labels asks of the logits, by learning strategy.

use ichor_model::Strategy;
use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use crate::labels::SliceLabel;

/// Constants of the losses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossOptions {
    /// Focusing exponent of the focal loss (Lin et al. 2017); 0 is plain cross-entropy. Binary and multi-label only.
    pub focal_gamma: f64,
    /// Label smoothing of the cross-entropy. Categorical only.
    pub label_smoothing: f64,
    /// Feeds the cross-entropy softmax outputs instead of logits, as the reference implementation does.
    pub reference_double_softmax: bool,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self { focal_gamma: 2.0, label_smoothing: 0.0, reference_double_softmax: false }
    }
}

/// Mean loss of `logits` (batch × classes) against the labels.
///
/// # Errors
/// The libtorch error if shapes disagree.
pub fn loss(
    strategy: Strategy,
    logits: &Tensor,
    labels: &[SliceLabel],
    options: &LossOptions,
) -> Result<Tensor, TchError> {
    match strategy {
        Strategy::Categorical => {
            let target: Vec<i64> = labels.iter().map(|l| i64::from(l.any())).collect();
            let target = Tensor::f_from_slice(&target)?.f_to_device(logits.device())?;
            let input = match options.reference_double_softmax {
                true => logits.f_softmax(-1, Kind::Float)?,
                false => logits.shallow_clone(),
            };
            input.f_cross_entropy_loss::<Tensor>(&target, None, tch::Reduction::Mean, -100, options.label_smoothing)
        }
        Strategy::Binary => {
            let target: Vec<f32> = labels.iter().map(|l| f32::from(u8::from(l.any()))).collect();
            focal(logits, &target, options.focal_gamma)
        }
        Strategy::Multilabel => {
            let bits = labels.iter().flat_map(|l| (0..6).map(|bit| f32::from((l.bits() >> bit) & 1)));
            focal(logits, &bits.collect::<Vec<_>>(), options.focal_gamma)
        }
    }
}

/// Focal binary cross-entropy: (1 − p_t)^γ · BCE, mean over all elements.
fn focal(logits: &Tensor, target: &[f32], gamma: f64) -> Result<Tensor, TchError> {
    let target = Tensor::f_from_slice(target)?.f_reshape(logits.size())?.f_to_device(logits.device())?;
    let bce = logits.f_binary_cross_entropy_with_logits::<Tensor>(&target, None, None, tch::Reduction::None)?;
    if gamma == 0.0 {
        return bce.f_mean(Kind::Float);
    }
    let confidence = bce.f_neg()?.f_exp()?;
    let weight = confidence.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(1e-6)?.f_pow_tensor_scalar(gamma)?;
    weight.f_mul(&bce)?.f_mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ichor_core::HemorrhageSubtype;

    fn labels() -> Vec<SliceLabel> {
        vec![SliceLabel::of([HemorrhageSubtype::Subdural]), SliceLabel::NONE]
    }

    fn value(strategy: Strategy, logits: &Tensor, options: &LossOptions) -> f64 {
        loss(strategy, logits, &labels(), options).unwrap().double_value(&[])
    }

    #[test]
    fn losses_by_hand() {
        let options = LossOptions::default();
        let two = Tensor::from_slice(&[0.0f32, 1.0, 0.0, 1.0]).reshape([2, 2]);
        // −ln σ(1) for the positive, −ln σ(−1) for the negative.
        let (right, wrong) = (0.313_261_69, 1.313_261_69);
        assert!((value(Strategy::Categorical, &two, &options) - (right + wrong) / 2.0).abs() < 1e-6);
        let one = Tensor::from_slice(&[1.0f32, 1.0]).reshape([2, 1]);
        let weighed = |loss: f64| (1.0 - (-loss).exp()).powi(2) * loss;
        assert!((value(Strategy::Binary, &one, &options) - (weighed(right) + weighed(wrong)) / 2.0).abs() < 1e-6);
        let plain = LossOptions { focal_gamma: 0.0, ..options };
        assert!((value(Strategy::Binary, &one, &plain) - (right + wrong) / 2.0).abs() < 1e-6);
        // Zero logits: every element costs ln 2, whatever the labels.
        let six = Tensor::zeros([2, 6], (Kind::Float, tch::Device::Cpu));
        assert!((value(Strategy::Multilabel, &six, &plain) - std::f64::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn double_softmax_never_gets_below_its_floor() {
        let options = LossOptions { reference_double_softmax: true, ..LossOptions::default() };
        let sure = Tensor::from_slice(&[-50.0f32, 50.0, 50.0, -50.0]).reshape([2, 2]);
        let floor = (1.0 + (-1.0f64).exp()).ln();
        assert!((value(Strategy::Categorical, &sure, &options) - floor).abs() < 1e-5);
    }
}
