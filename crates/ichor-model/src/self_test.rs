//! The golden self-test: what the weights say of a fixed input, recorded when they are saved and repeated on the
//! machine that uses them. It catches what no digest can: another libtorch, device or setting that computes otherwise.

use ichor_core::Precision;
use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};
use thiserror::Error;

use crate::config::SwinConfig;
use crate::manifest::ManifestProblem;
use crate::strategy::Strategy;

/// Slices of the fixed input.
pub(crate) const SLICES: usize = 2;

/// Largest difference allowed, for probabilities, and for logits relative to their size where that is above 1.
pub(crate) const fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 1e-3,
        Precision::Bf16 => 1e-2,
    }
}

/// Answers to the fixed input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// `[slices × classes]`, row-major.
    pub logits: Vec<f32>,
    /// `[slices]`
    pub probabilities: Vec<f32>,
}

/// How a repeated self-test went.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTestReport {
    /// The device that computed it.
    pub device: String,
    /// In what precision.
    pub precision: Precision,
    /// Largest difference of a logit, relative where the logit is above 1.
    pub logit_difference: f32,
    /// Largest difference of a probability.
    pub probability_difference: f32,
}

/// The weights do not say what they said when they were saved.
#[derive(Clone, Debug, PartialEq, Error)]
#[error(
    "self-test on {} in {}: logits differ by {:.2e} and probabilities by {:.2e} from what the manifest records, at most \
     {:.0e} is allowed",
    .0.device, .0.precision, .0.logit_difference, .0.probability_difference, tolerance(.0.precision)
)]
pub struct SelfTestFailed(pub SelfTestReport);

impl SelfTest {
    /// Asks the network: `forward` gives its logits on `device`.
    pub(crate) fn run(
        config: &SwinConfig,
        strategy: Strategy,
        device: Device,
        forward: impl FnOnce(&Tensor) -> Result<Tensor, TchError>,
    ) -> Result<Self, TchError> {
        let _guard = tch::no_grad_guard();
        let shape = [SLICES as i64, config.in_chans, config.img_size, config.img_size];
        let input = Tensor::f_from_slice(&input(config))?.f_view(shape)?.f_to_device(device)?;
        let logits = forward(&input)?;
        let probabilities = strategy.probability(&logits).try_into()?;
        Ok(Self { logits: logits.f_flatten(0, -1)?.try_into()?, probabilities })
    }

    /// Compares a repetition with the recorded answers.
    pub(crate) fn compare(
        &self,
        now: &Self,
        device: String,
        precision: Precision,
    ) -> Result<SelfTestReport, SelfTestFailed> {
        let worst = |was: &[f32], now: &[f32]| {
            let differences = was.iter().zip(now).map(|(was, now)| (was - now).abs() / was.abs().max(1.0));
            // f32::max would drop a NaN.
            differences.fold(0.0, |worst: f32, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
        };
        let report = SelfTestReport {
            device,
            precision,
            logit_difference: worst(&self.logits, &now.logits),
            probability_difference: worst(&self.probabilities, &now.probabilities),
        };
        let most = tolerance(precision);
        let within = report.logit_difference <= most && report.probability_difference <= most;
        if within { Ok(report) } else { Err(SelfTestFailed(report)) }
    }

    pub(crate) fn check_lengths(&self, strategy: Strategy) -> Result<(), ManifestProblem> {
        let wanted = [
            ("logits", self.logits.len(), SLICES * strategy.classes() as usize),
            ("probabilities", self.probabilities.len(), SLICES),
        ];
        match wanted.into_iter().find(|(_, got, want)| got != want) {
            Some((what, got, want)) => Err(ManifestProblem::SelfTest { what, got, want }),
            None => Ok(()),
        }
    }
}

/// The fixed input, `[2, channels, S, S]`, by integer arithmetic alone: a fine texture that reaches every token
/// differently, and a disc that fades towards the edge.
fn input(config: &SwinConfig) -> Vec<f32> {
    let (channels, side) = (config.in_chans, config.img_size);
    let pixels = (0..channels).flat_map(|c| (0..side).flat_map(move |y| (0..side).map(move |x| (c, y, x))));
    let texture = pixels.clone().map(|(c, y, x)| ((3 * y * y + 7 * y * x + 5 * x * x + 11 * c * (y + 1)) % 251, 250));
    let disc = pixels.map(|(c, y, x)| {
        let (y, x) = (2 * y - side + 1, 2 * x - side + 1);
        ((side * side - y * y - x * x).max(0) * (c + 1), side * side * channels)
    });
    texture.chain(disc).map(|(part, whole)| part as f32 / whole as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(logits: [f32; 2]) -> SelfTest {
        SelfTest { logits: logits.to_vec(), probabilities: vec![0.5; SLICES] }
    }

    #[test]
    fn differences_and_nan_fail() {
        let recorded = answers([20.0, -1.0]);
        let compare = |logits, precision| recorded.compare(&answers(logits), "cpu".into(), precision);
        assert!(compare([20.015, -1.0], Precision::F32).is_ok(), "relative for large logits");
        assert!(compare([20.03, -1.0], Precision::F32).is_err());
        assert!(compare([20.0, -1.002], Precision::F32).is_err());
        assert!(compare([20.0, -1.009], Precision::Bf16).is_ok());
        assert!(compare([20.0, -1.011], Precision::Bf16).is_err());
        let error = compare([f32::NAN, -1.0], Precision::F32).unwrap_err();
        assert!(error.to_string().starts_with("self-test on cpu in f32: logits differ by inf"), "{error}");
    }

    #[test]
    fn input_is_fixed_and_in_range() {
        let config = SwinConfig {
            img_size: 8,
            patch_size: 4,
            window_size: 2,
            embed_dim: 4,
            depths: vec![2],
            num_heads: vec![1],
            num_classes: 2,
            in_chans: 3,
        };
        let values = input(&config);
        assert_eq!(values.len(), SLICES * 3 * 64);
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        assert_eq!(values[..4], [0.0, 0.02, 0.08, 0.18]);
    }
}
