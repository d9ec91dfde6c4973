//! Random changes to a batch that leave its labels true.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

/// How far a slice may be changed. Each change is made with its probability, slice by slice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentOptions {
    /// Probability of a left–right flip.
    pub flip: f64,
    /// Probability of an affine change.
    pub affine: f64,
    /// Largest rotation of an affine change, degrees.
    pub rotation_degrees: f64,
    /// Largest relative change of scale (0.1 = ±10 %).
    pub scale: f64,
    /// Largest shift, as a share of the side.
    pub shift: f64,
    /// Probability of added Gaussian noise.
    pub noise: f64,
    /// Largest standard deviation of the noise, in input units (the windowed slice spans 0..1).
    pub noise_sigma: f64,
    /// Probability of a change of gain.
    pub gain: f64,
    /// Largest relative change of gain; the result is clipped to 0..1.
    pub gain_change: f64,
}

impl Default for AugmentOptions {
    fn default() -> Self {
        Self {
            flip: 0.5,
            affine: 0.5,
            rotation_degrees: 15.0,
            scale: 0.1,
            shift: 0.05,
            noise: 0.5,
            noise_sigma: 0.02,
            gain: 0.0,
            gain_change: 0.05,
        }
    }
}

/// Changes a batch (B×3×S×S, 0..1) at random; the same seed makes the same changes. `pairs_alike` changes a slice at an
/// odd place in the same way as the one before it (but for the noise itself), so that what is left between twins is the
/// bleed.
///
/// # Errors
/// The libtorch error if the batch has another shape.
pub fn augment(batch: &Tensor, options: &AugmentOptions, pairs_alike: bool, seed: u64) -> Result<Tensor, TchError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = batch.size4()?.0;
    let (mut theta, mut sigma, mut gain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        theta.push(affine(options, &mut rng));
        sigma.push(amount(options.noise, 0.0..options.noise_sigma, &mut rng).unwrap_or(0.0));
        let change = amount(options.gain, -options.gain_change..options.gain_change, &mut rng);
        gain.push(1.0 + change.unwrap_or(0.0));
    }
    if pairs_alike {
        for at in (1..theta.len()).step_by(2) {
            (theta[at], sigma[at], gain[at]) = (theta[at - 1], sigma[at - 1], gain[at - 1]);
        }
    }
    let theta = theta.concat();
    let per_slice = |values: &[f32]| Tensor::f_from_slice(values)?.f_reshape([count, 1, 1, 1]);
    let theta = Tensor::f_from_slice(&theta)?.f_reshape([count, 2, 3])?;
    let grid = Tensor::f_affine_grid_generator(&theta, batch.size(), false)?;
    // 0, 0: bilinear, zeros outside (air, which is 0 in every window).
    let moved = batch.f_grid_sampler(&grid, 0, 0, false)?;
    let mut changed = moved.f_mul(&per_slice(&gain)?)?;
    if sigma.iter().any(|&s| s > 0.0) {
        tch::manual_seed(rng.random());
        let noise = Tensor::f_randn(batch.size(), (Kind::Float, Device::Cpu))?;
        changed = changed.f_add(&noise.f_mul(&per_slice(&sigma)?)?)?;
    }
    changed.f_clamp(0.0, 1.0)
}

/// Rows of the sampling matrix (output → input, coordinates −1..1), row by row.
fn affine(options: &AugmentOptions, rng: &mut ChaCha8Rng) -> [f32; 6] {
    let flip = if rng.random_bool(options.flip) { -1.0f32 } else { 1.0 };
    if !rng.random_bool(options.affine) {
        return [flip, 0.0, 0.0, 0.0, 1.0, 0.0];
    }
    let mut symmetric = |most: f64| rng.random_range(-most..=most);
    let angle = symmetric(options.rotation_degrees).to_radians();
    let zoom = 1.0 / (1.0 + symmetric(options.scale));
    let (sin, cos) = (narrow(zoom * angle.sin()), narrow(zoom * angle.cos()));
    let (dx, dy) = (narrow(2.0 * symmetric(options.shift)), narrow(2.0 * symmetric(options.shift)));
    [flip * cos, -sin, dx, flip * sin, cos, dy]
}

fn amount(probability: f64, range: std::ops::Range<f64>, rng: &mut ChaCha8Rng) -> Option<f32> {
    (rng.random_bool(probability) && !range.is_empty()).then(|| narrow(rng.random_range(range)))
}

#[expect(clippy::cast_possible_truncation, reason = "small factors; float32 is what the tensors hold")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: AugmentOptions = AugmentOptions {
        flip: 0.0,
        affine: 0.0,
        rotation_degrees: 0.0,
        scale: 0.0,
        shift: 0.0,
        noise: 0.0,
        noise_sigma: 0.0,
        gain: 0.0,
        gain_change: 0.0,
    };

    fn batch() -> Tensor {
        tch::manual_seed(5);
        Tensor::rand([2, 3, 8, 8], (Kind::Float, Device::Cpu))
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn without_changes_the_batch_stays() {
        let _drawing = crate::draw_alone();
        let batch = batch();
        assert!(distance(&augment(&batch, &NOTHING, false, 1).unwrap(), &batch) < 1e-5);
    }

    #[test]
    fn a_flip_is_a_mirror() {
        let _drawing = crate::draw_alone();
        let batch = batch();
        let flipped = augment(&batch, &AugmentOptions { flip: 1.0, ..NOTHING }, false, 1).unwrap();
        assert!(distance(&flipped, &batch.flip([3])) < 1e-5);
    }

    #[test]
    fn a_quarter_turn_moves_the_corner() {
        let _drawing = crate::draw_alone();
        // A rotation keeps the sum of a centred square and the seed decides which way it goes.
        let options = AugmentOptions { affine: 1.0, rotation_degrees: 30.0, ..NOTHING };
        let square = Tensor::zeros([1, 3, 33, 33], (Kind::Float, Device::Cpu));
        let _ = square.narrow(2, 12, 9).narrow(3, 12, 9).fill_(1.0);
        let turned = augment(&square, &options, false, 4).unwrap();
        assert!(distance(&turned, &square) > 0.1);
        let (before, after) = (square.sum(Kind::Float).double_value(&[]), turned.sum(Kind::Float).double_value(&[]));
        assert!((before - after).abs() < 0.05 * before, "{before} {after}");
    }

    #[test]
    fn pairs_move_together() {
        let _drawing = crate::draw_alone();
        let one = batch().narrow(0, 0, 1);
        let options = AugmentOptions { noise: 0.0, affine: 1.0, gain: 1.0, ..AugmentOptions::default() };
        let pair = Tensor::cat(&[&one, &one], 0);
        let alike = augment(&pair, &options, true, 3).unwrap();
        assert_eq!(distance(&alike.get(0), &alike.get(1)), 0.0);
        let apart = augment(&pair, &options, false, 3).unwrap();
        assert!(distance(&apart.get(0), &apart.get(1)) > 0.01);
    }

    #[test]
    fn the_seed_alone_decides() {
        let _drawing = crate::draw_alone();
        let (batch, options) = (batch(), AugmentOptions { noise: 1.0, ..AugmentOptions::default() });
        let first = augment(&batch, &options, false, 9).unwrap();
        assert_eq!(distance(&first, &augment(&batch, &options, false, 9).unwrap()), 0.0);
        assert!(distance(&first, &augment(&batch, &options, false, 10).unwrap()) > 0.0);
        assert!(first.min().double_value(&[]) >= 0.0 && first.max().double_value(&[]) <= 1.0);
    }
}
