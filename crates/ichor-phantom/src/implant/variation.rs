//! Another scanner's images of the same head.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::HeadSlice;
use crate::scanner::{blur, grain};

/// What a study has of its own beside the head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Variation {
    /// Left for right.
    mirrored: bool,
    /// Gaussian sigma of a further blur, mm.
    blur_mm: f32,
    /// Standard deviation of further noise, HU, and its grain's sigma in pixels.
    noise_hu: f32,
    grain: f32,
    /// Miscalibration: value' = value · gain + offset.
    gain: f32,
    offset_hu: f32,
}

impl Variation {
    /// The images as they are.
    pub(super) const NONE: Self =
        Self { mirrored: false, blur_mm: 0.0, noise_hu: 0.0, grain: 0.6, gain: 1.0, offset_hu: 0.0 };

    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            mirrored: rng.random_bool(0.5),
            blur_mm: if rng.random_bool(0.5) { rng.random_range(0.2..0.7) } else { 0.0 },
            noise_hu: if rng.random_bool(0.6) { rng.random_range(0.5..3.5) } else { 0.0 },
            grain: rng.random_range(0.45..1.1),
            gain: rng.random_range(0.96..1.04),
            offset_hu: rng.random_range(-2.0..2.0),
        }
    }

    pub(super) fn apply(&self, slice: &HeadSlice, rng: &mut ChaCha8Rng) -> HeadSlice {
        let mut slice = slice.clone();
        if *self == Self::NONE {
            return slice;
        }
        let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
        let pixel = slice.plane.spacing[0] as f32;
        // Padding and air stay what they are: a blur over their edge would make a skin of it.
        let is_air: Vec<bool> = slice.hu.iter().map(|hu| *hu < -600).collect();
        let mut image: Vec<f32> = slice.hu.iter().map(|hu| f32::from(*hu)).collect();
        blur(&mut image, columns, self.blur_mm / pixel);
        let grain = if self.noise_hu > 0.0 { grain(rng, rows, columns, self.grain) } else { vec![0.0; image.len()] };
        for (at, hu) in slice.hu.iter_mut().enumerate().filter(|(at, _)| !is_air[*at]) {
            let value = image[at] * self.gain + self.offset_hu + self.noise_hu * grain[at];
            *hu = value.round().clamp(-1024.0, 3071.0) as i16;
        }
        if self.mirrored {
            slice.hu.chunks_exact_mut(columns).for_each(<[i16]>::reverse);
            slice.brain.chunks_exact_mut(columns).for_each(<[u8]>::reverse);
            slice.depth_mm.chunks_exact_mut(columns).for_each(<[f32]>::reverse);
        }
        slice
    }
}
