//! The scanner's part in an image: table, beam hardening, motion, streaks, blur, noise.

use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

use crate::geometry::{V3, bell, lerp, smooth};
use crate::noise::ValueNoise;
use crate::options::{Padding, PhantomOptions};
use crate::outside::AIR;

/// The head rest: an arc behind the head, or a tray with upright sides.
#[derive(Clone, Copy, Debug)]
struct Rest {
    radius: f32,
    centre_y: f32,
    flat: f32,
    thickness: f32,
    opening: f32,
    hu: f32,
}

/// A line across the image that is too bright or too dark.
#[derive(Clone, Copy, Debug)]
struct Streak {
    normal: [f32; 2],
    offset: f32,
    width: f32,
    hu: f32,
    /// Table positions at which it is seen, against the middle of the head.
    z: [f32; 2],
}

/// One scanner and its habits, drawn from the seed.
pub(crate) struct Scanner {
    /// Table position of the head's middle, in mm.
    pub(crate) table_mm: f64,
    /// Middle of the field of view, in mm.
    pub(crate) centre: [f64; 2],
    /// Radius of the circle that is reconstructed, in mm, where padding is written outside it.
    pub(crate) circle_mm: Option<f64>,
    /// Excess attenuation at the inner table that the correction leaves, in HU.
    pub(crate) cupping: f32,
    rest: Option<Rest>,
    petrous: f32,
    motion: Option<([f32; 2], f32)>,
    streaks: Vec<Streak>,
}

impl Scanner {
    pub(crate) fn draw(rng: &mut ChaCha8Rng, options: &PhantomOptions) -> Self {
        let strength = options.artefacts;
        let rest = rng.random_bool(0.85).then(|| Rest {
            radius: rng.random_range(104.0..122.0),
            centre_y: rng.random_range(-6.0..6.0),
            flat: rng.random_range(0.85..1.1),
            thickness: rng.random_range(1.2..3.0),
            opening: rng.random_range(-0.3..0.5),
            hu: rng.random_range(-250.0..180.0),
        });
        let motion = rng.random_bool(0.15).then(|| {
            let shift = [rng.random_range(-3.0..3.0), rng.random_range(-2.0..2.0)];
            (shift, strength.min(1.5) * rng.random_range(0.06..0.22f32))
        });
        let streaks = (0..rng.random_range(0..5u32)).map(|_| Streak::draw(rng, strength)).collect();
        let table_mm = f64::from(rng.random_range(-20_000..20_000i32)) / 100.0;
        let centre = [f64::from(rng.random_range(-60..60i32)) / 10.0, f64::from(rng.random_range(-80..80i32)) / 10.0];
        Self {
            table_mm,
            centre,
            circle_mm: (options.padding != Padding::None).then_some(options.fov_mm / 2.0),
            cupping: strength * rng.random_range(2.0..10.0f32),
            rest,
            petrous: strength * rng.random_range(0.2..1.2f32),
            motion,
            streaks,
        }
    }

    /// Excess or lack of attenuation at a point of the head, in HU: dark and bright bands between the petrous bones,
    /// and the streaks.
    #[inline]
    pub(crate) fn bands(&self, p: V3, petrous_z: f32, noise: &ValueNoise) -> f32 {
        let mut hu = 0.0;
        let level = (p[2] - petrous_z) / 11.0;
        if self.petrous > 0.0 && level.abs() < 2.2 && p[0].abs() < 60.0 {
            let across = bell(p[0] / 42.0) * bell(level);
            let band = -13.0 * bell((p[1] - 14.0) / 9.0) + 10.0 * noise.at([p[0] / 70.0, p[1] / 5.0, p[2] / 9.0]);
            hu += self.petrous * across * band * smooth(-40.0, -15.0, p[1]) * smooth(62.0, 35.0, p[1]);
        }
        for streak in &self.streaks {
            if (streak.z[0]..streak.z[1]).contains(&p[2]) {
                let from = p[0] * streak.normal[0] + p[1] * streak.normal[1] - streak.offset;
                if from.abs() < 3.0 * streak.width {
                    hu += streak.hu * bell(from / streak.width);
                }
            }
        }
        hu
    }

    /// Attenuation of the head rest at a point of the room, where it is.
    #[inline]
    pub(crate) fn rest(&self, x: f32, y: f32) -> Option<f32> {
        let rest = self.rest?;
        let (dx, dy) = (x, (y - rest.centre_y) / rest.flat);
        let from = ((dx * dx + dy * dy).sqrt() - rest.radius).abs();
        (dy > rest.opening * rest.radius && from < rest.thickness).then_some(rest.hu)
    }

    /// Blends an image with itself, shifted, as a head that moved gives it.
    pub(crate) fn shake(&self, image: &mut [f32], columns: usize, pixel_mm: f32) {
        let Some((shift, weight)) = self.motion else { return };
        let [dx, dy] = shift.map(|s| (s / pixel_mm).round() as isize);
        let rows = image.len() / columns;
        let still = image.to_vec();
        for row in 0..rows {
            let Some(from_row) = row.checked_add_signed(dy).filter(|r| *r < rows) else { continue };
            for column in 0..columns {
                let Some(from) = column.checked_add_signed(dx).filter(|c| *c < columns) else { continue };
                let at = row * columns + column;
                image[at] = lerp(still[at], still[from_row * columns + from], weight);
            }
        }
    }
}

impl Streak {
    fn draw(rng: &mut ChaCha8Rng, strength: f32) -> Self {
        let angle = rng.random_range(0.0..std::f32::consts::PI);
        let z = rng.random_range(-50.0..60.0f32);
        Self {
            normal: [angle.cos(), angle.sin()],
            offset: rng.random_range(-60.0..60.0),
            width: rng.random_range(1.5..5.0),
            hu: strength * rng.random_range(-7.0..7.0f32),
            z: [z, z + rng.random_range(4.0..16.0f32)],
        }
    }
}

/// Blurs rows, then columns, with a Gaussian of `sigma` pixels.
pub(crate) fn blur(image: &mut [f32], columns: usize, sigma: f32) {
    if sigma < 0.2 {
        return;
    }
    let kernel = kernel(sigma);
    let radius = kernel.len() - 1;
    let rows = image.len() / columns;
    let mut line = vec![0.0f32; columns + 2 * radius];
    for row in image.chunks_exact_mut(columns) {
        line[..radius].fill(row[0]);
        line[radius..radius + columns].copy_from_slice(row);
        line[radius + columns..].fill(row[columns - 1]);
        for (column, out) in row.iter_mut().enumerate() {
            let middle = column + radius;
            let mut sum = kernel[0] * line[middle];
            for (k, weight) in kernel.iter().enumerate().skip(1) {
                sum += weight * (line[middle - k] + line[middle + k]);
            }
            *out = sum;
        }
    }
    let source = image.to_vec();
    for row in 0..rows {
        let out = &mut image[row * columns..(row + 1) * columns];
        let middle = &source[row * columns..(row + 1) * columns];
        for (o, m) in out.iter_mut().zip(middle) {
            *o = kernel[0] * m;
        }
        for (k, weight) in kernel.iter().enumerate().skip(1) {
            let above = row.saturating_sub(k) * columns;
            let below = (row + k).min(rows - 1) * columns;
            let neighbours = source[above..above + columns].iter().zip(&source[below..below + columns]);
            for (o, (a, b)) in out.iter_mut().zip(neighbours) {
                *o += weight * (a + b);
            }
        }
    }
}

/// One side of a Gaussian, the middle first; the whole sums to 1.
fn kernel(sigma: f32) -> Vec<f32> {
    let radius = (2.6 * sigma).ceil().max(1.0) as usize;
    let mut weights: Vec<f32> = (0..=radius).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// Correlated noise of unit standard deviation; `sigma` of the correlation in pixels.
pub(crate) fn grain(rng: &mut ChaCha8Rng, rows: usize, columns: usize, sigma: f32) -> Vec<f32> {
    let mut image: Vec<f32> = (0..rows * columns)
        .map(|_| {
            // Four 16-bit uniform numbers: their sum is near enough to normal, and the blur brings it nearer.
            let bits = rng.next_u64();
            let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
            (sum as f32 - 131_070.0) * (1.0 / 37_837.0)
        })
        .collect();
    if sigma >= 0.2 {
        blur(&mut image, columns, sigma);
        let weights = kernel(sigma);
        let energy = weights[0].powi(2) + 2.0 * weights[1..].iter().map(|w| w * w).sum::<f32>();
        image.iter_mut().for_each(|value| *value /= energy);
    }
    image
}

/// Share of the noise at a point of the head: more in the middle, and between the petrous bones.
#[inline]
pub(crate) fn noise_share(p: V3, petrous_z: f32) -> f32 {
    let r2 = (p[0] * p[0] + p[1] * p[1]) / 8000.0;
    0.75 + 0.3 * (1.0 - r2).max(0.0) + 0.7 * bell((p[2] - petrous_z) / 14.0) * bell(p[0] / 50.0)
}

/// What is written where nothing attenuates.
pub(crate) const OUTSIDE: f32 = AIR;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn grain_has_unit_deviation_and_is_correlated() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let (rows, columns) = (160, 200);
        let image = grain(&mut rng, rows, columns, 0.9);
        let count = image.len() as f32;
        let mean = image.iter().sum::<f32>() / count;
        let variance = image.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
        let neighbour = image.windows(2).map(|w| w[0] * w[1]).sum::<f32>() / count / variance;
        assert!(mean.abs() < 0.05 && (variance.sqrt() - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(neighbour > 0.5, "{neighbour}");
    }

    #[test]
    fn blur_keeps_the_sum_away_from_the_border() {
        let mut image = vec![0.0; 31 * 41];
        image[15 * 41 + 20] = 100.0;
        blur(&mut image, 41, 1.3);
        assert!((image.iter().sum::<f32>() - 100.0).abs() < 1e-2);
        assert!(image[15 * 41 + 20] < 12.0 && (image[14 * 41 + 20] - image[16 * 41 + 20]).abs() < 1e-4);
    }
}
