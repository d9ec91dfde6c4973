//! What is bright or dark and no bleed: calcifications, vessels, old infarcts. Drawn alike for heads with and without
//! a bleed.

use rand::Rng;

use crate::geometry::{V3, dot, lerp, norm, ramp, smooth, sub};
use crate::noise::ValueNoise;

/// A dense spot with a soft edge.
#[derive(Clone, Debug)]
struct Spot {
    centre: V3,
    radii: V3,
    hu: f32,
    /// Above 0: grains rather than a lump.
    grainy: f32,
    reach: f32,
}

/// Lost tissue: a wedge of low attenuation.
#[derive(Clone, Debug)]
struct Scar {
    centre: V3,
    radii: V3,
    hu: f32,
}

/// A head's mimics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mimics {
    spots: Vec<Spot>,
    scars: Vec<Scar>,
}

impl Mimics {
    pub(crate) fn draw(rng: &mut impl Rng, atrophy: f32) -> Self {
        let mut mimics = Self::default();
        let age = f64::from(atrophy);
        let amount = rng.random_range(0.0..1.0f32);
        if rng.random_bool(0.35 + 0.45 * age) {
            for side in [-1.0, 1.0] {
                let r = rng.random_range(1.5..4.5f32);
                let centre =
                    [side * rng.random_range(20.0..27.0f32), rng.random_range(30.0..38.0), rng.random_range(6.0..14.0)];
                mimics.spot(centre, [r, r * 1.4, r * 1.2], rng.random_range(70.0..260.0), 0.5);
            }
        }
        if rng.random_bool(0.6) {
            let r = rng.random_range(1.2..3.8f32);
            mimics.spot(
                [rng.random_range(-1.5..1.5), rng.random_range(24.0..28.0), rng.random_range(0.0..5.0)],
                [r, r, r],
                rng.random_range(80.0..260.0),
                0.3,
            );
        }
        if rng.random_bool(0.12 + 0.25 * age) {
            let hu = rng.random_range(50.0..110.0);
            for side in [-1.0, 1.0] {
                let r = rng.random_range(2.0..7.0f32) * (0.5 + amount);
                mimics.spot(
                    [side * 20.0, rng.random_range(-8.0..0.0), rng.random_range(-1.0..6.0)],
                    [r * 0.7, r, r * 0.8],
                    hu,
                    0.7,
                );
            }
        }
        for _ in 0..rng.random_range(0..3u32) {
            let centre = [rng.random_range(-1.0..1.0), rng.random_range(-70.0..20.0), rng.random_range(38.0..64.0)];
            mimics.spot(centre, [1.2, rng.random_range(2.0..7.0), 3.0], rng.random_range(120.0..600.0), 0.2);
        }
        mimics.vessels(rng);
        if rng.random_bool(0.10 + 0.25 * age) {
            mimics.scar(rng);
        }
        for _ in 0..rng.random_range(0..=(4.0 * atrophy) as u32) {
            let side = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            let centre =
                [side * rng.random_range(8.0..28.0f32), rng.random_range(-20.0..20.0), rng.random_range(0.0..26.0)];
            let r = rng.random_range(1.5..4.0);
            mimics.scars.push(Scar { centre, radii: [r; 3], hu: rng.random_range(8.0..20.0) });
        }
        mimics
    }

    /// Arteries at the base, and veins on the convexity, as dense as flowing blood is.
    fn vessels(&mut self, rng: &mut impl Rng) {
        let hu = rng.random_range(42.0..60.0);
        self.spot([rng.random_range(-2.0..2.0), 0.0, -18.0], [1.8, 1.8, 9.0], hu, 0.0);
        for side in [-1.0, 1.0] {
            let y = rng.random_range(-14.0..-9.0);
            self.spot([side * 18.0, y, -14.0], [11.0, 1.6, 1.8], hu, 0.0);
            self.spot([side * 9.0, -8.0, -17.0], [2.4, 2.4, 7.0], hu, 0.0);
            if rng.random_bool(0.5) {
                let centre = [
                    side * rng.random_range(20.0..50.0f32),
                    rng.random_range(-50.0..50.0),
                    rng.random_range(30.0..55.0),
                ];
                self.spot(centre, [1.6, 1.6, 6.0], hu, 0.0);
            }
        }
    }

    fn spot(&mut self, centre: V3, radii: V3, hu: f32, grainy: f32) {
        let reach = radii[0].max(radii[1]).max(radii[2]) * 1.6 + 1.0;
        self.spots.push(Spot { centre, radii, hu, grainy, reach });
    }

    /// An old territorial infarct: from the cortex inwards.
    fn scar(&mut self, rng: &mut impl Rng) {
        let side = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        let r = rng.random_range(9.0..26.0f32);
        let centre = if rng.random_bool(0.2) {
            [side * 28.0, rng.random_range(45.0..60.0), -38.0]
        } else {
            let u = crate::geometry::unit([side, rng.random_range(-0.9..1.0), rng.random_range(-0.1..0.8)]);
            crate::geometry::scale(u, 62.0)
        };
        let radii =
            [r * rng.random_range(0.8..1.2f32), r * rng.random_range(0.7..1.3f32), r * rng.random_range(0.7..1.2f32)];
        self.scars.push(Scar { centre, radii, hu: rng.random_range(8.0..24.0) });
    }

    /// The mimics that may reach a plane through `on` with the unit normal `normal`, `half_thickness` to either side.
    pub(crate) fn near_plane(&self, on: V3, normal: V3, half_thickness: f32) -> Self {
        let reaches = |centre: V3, reach: f32| dot(sub(centre, on), normal).abs() < reach + half_thickness + 12.0;
        Self {
            spots: self.spots.iter().filter(|s| reaches(s.centre, s.reach)).cloned().collect(),
            scars: self.scars.iter().filter(|s| reaches(s.centre, norm(s.radii) * 1.4)).cloned().collect(),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.spots.is_empty() && self.scars.is_empty()
    }

    /// Attenuation with the mimics put in, at the point `p` of the undisturbed anatomy.
    #[inline]
    pub(crate) fn apply(&self, mut hu: f32, p: V3, noise: &ValueNoise, half: f32) -> f32 {
        for scar in &self.scars {
            let k = norm(std::array::from_fn(|i| (p[i] - scar.centre[i]) / scar.radii[i]));
            if k < 1.5 {
                let ragged = k + 0.22 * noise.at(p.map(|x| x / 9.0 + 7.7));
                hu = lerp(hu, hu.min(scar.hu), smooth(1.12, 0.85, ragged));
            }
        }
        for spot in &self.spots {
            let from = sub(p, spot.centre);
            if dot(from, from) < spot.reach * spot.reach {
                let k = norm(std::array::from_fn(|i| from[i] / spot.radii[i]));
                let least = spot.radii[0].min(spot.radii[1]).min(spot.radii[2]);
                let grains = 1.0 - spot.grainy * (0.5 + 0.5 * noise.at(p.map(|x| x / 2.6)));
                hu = lerp(hu, hu + (spot.hu - hu) * grains, ramp((1.0 - k) * least, half + 0.4));
            }
        }
        hu
    }
}
