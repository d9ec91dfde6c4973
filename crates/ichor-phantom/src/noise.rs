//! Smooth noise: values on a periodic lattice, interpolated.

use rand::Rng;

use crate::geometry::V3;

const SIDE: usize = 16;
const MASK: usize = SIDE - 1;
/// Added before truncation, so that truncation is a floor; a multiple of the period.
const BIAS: f32 = 4096.0;

/// Value noise in three dimensions, −1 to 1, features one unit wide, period 16 units. Small enough (16 KiB) to stay in
/// the first-level cache.
pub(crate) struct ValueNoise {
    cells: Vec<f32>,
}

struct Cell {
    corners: [f32; 8],
    fraction: V3,
}

impl ValueNoise {
    pub(crate) fn new(rng: &mut impl Rng) -> Self {
        Self { cells: (0..SIDE * SIDE * SIDE).map(|_| rng.random_range(-1.0..1.0)).collect() }
    }

    #[inline]
    fn cell(&self, p: V3) -> Cell {
        let shifted = p.map(|x| (x + BIAS).max(0.0));
        let whole = shifted.map(|x| x as usize);
        let fraction = std::array::from_fn(|i| shifted[i] - whole[i] as f32);
        let [x0, y0, z0] = whole.map(|w| w & MASK);
        let [x1, y1, z1] = whole.map(|w| (w + 1) & MASK);
        let at = |x: usize, y: usize, z: usize| self.cells[((z * SIDE + y) * SIDE + x) & (SIDE * SIDE * SIDE - 1)];
        let corners = [
            at(x0, y0, z0),
            at(x1, y0, z0),
            at(x0, y1, z0),
            at(x1, y1, z0),
            at(x0, y0, z1),
            at(x1, y0, z1),
            at(x0, y1, z1),
            at(x1, y1, z1),
        ];
        Cell { corners, fraction }
    }

    /// The noise at a point.
    #[inline]
    pub(crate) fn at(&self, p: V3) -> f32 {
        let Cell { corners: c, fraction } = self.cell(p);
        let [u, v, w] = fraction.map(|t| t * t * (3.0 - 2.0 * t));
        let (a, b) = (c[0] + (c[1] - c[0]) * u, c[2] + (c[3] - c[2]) * u);
        let (d, e) = (c[4] + (c[5] - c[4]) * u, c[6] + (c[7] - c[6]) * u);
        let (low, high) = (a + (b - a) * v, d + (e - d) * v);
        low + (high - low) * w
    }

    /// The noise at a point and its gradient.
    #[inline]
    pub(crate) fn with_gradient(&self, p: V3) -> (f32, V3) {
        let Cell { corners: c, fraction } = self.cell(p);
        let [u, v, w] = fraction.map(|t| t * t * (3.0 - 2.0 * t));
        let [du, dv, dw] = fraction.map(|t| 6.0 * t * (1.0 - t));
        let (a, b) = (c[0] + (c[1] - c[0]) * u, c[2] + (c[3] - c[2]) * u);
        let (d, e) = (c[4] + (c[5] - c[4]) * u, c[6] + (c[7] - c[6]) * u);
        let (low, high) = (a + (b - a) * v, d + (e - d) * v);
        let x_low = (c[1] - c[0]) + ((c[3] - c[2]) - (c[1] - c[0])) * v;
        let x_high = (c[5] - c[4]) + ((c[7] - c[6]) - (c[5] - c[4])) * v;
        let gradient =
            [(x_low + (x_high - x_low) * w) * du, ((b - a) + ((e - d) - (b - a)) * w) * dv, (high - low) * dw];
        (low + (high - low) * w, gradient)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_noise() {
        let noise = ValueNoise::new(&mut ChaCha8Rng::seed_from_u64(5));
        let h = 1.0 / 64.0;
        for p in [[0.3, -2.7, 5.1], [-11.8, 0.45, 8.6], [20.2, 33.3, -44.4]] {
            let (value, gradient) = noise.with_gradient(p);
            assert!((value - noise.at(p)).abs() < 1e-6);
            for axis in 0..3 {
                let (mut after, mut before) = (p, p);
                after[axis] += h;
                before[axis] -= h;
                let slope = (noise.at(after) - noise.at(before)) / (2.0 * h);
                assert!((slope - gradient[axis]).abs() < 0.02, "{slope} against {}", gradient[axis]);
            }
        }
    }
}
