//! The head's outline: the cavity of the skull, the skull and the scalp around it.

use rand::Rng;

use crate::geometry::{V3, bell, lerp, norm, smooth, unit};
use crate::noise::ValueNoise;

/// Side of the octahedral map that holds what depends on the direction only.
const MAP: usize = 80;
const BASE_STEP: f32 = 2.0;
const BASE_X: usize = 87;
const BASE_Y: usize = 111;
/// Height of the skull base's floor where there is none (the foramen magnum).
const OPEN: f32 = -120.0;

/// What lies in one direction from the middle of the head, in mm.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wall {
    /// To the inner table of the vault.
    pub(crate) inner: f32,
    /// Thickness of the skull.
    pub(crate) skull: f32,
    /// Thickness of the scalp.
    pub(crate) scalp: f32,
    /// Thickness of the fluid between brain and vault.
    pub(crate) rim: f32,
}

/// Size and form of one head, in mm.
pub(crate) struct HeadForm {
    half_width: f32,
    front: f32,
    back: f32,
    up: f32,
    down: f32,
    exponent: f32,
    egg: f32,
    skew: f32,
    skull: f32,
    scalp: f32,
    rim: f32,
    base_shift: f32,
    petrous_height: f32,
}

impl HeadForm {
    /// Draws a head; `atrophy` (0 to 1) widens the fluid around the brain.
    pub(crate) fn draw(rng: &mut impl Rng, atrophy: f32) -> Self {
        let size = rng.random_range(0.95..1.05f32);
        Self {
            half_width: rng.random_range(63.0..70.0f32) * size,
            front: rng.random_range(77.0..85.0f32) * size,
            back: rng.random_range(79.0..88.0f32) * size,
            up: rng.random_range(69.0..78.0f32) * size,
            down: rng.random_range(78.0..90.0f32),
            exponent: rng.random_range(2.1..2.5),
            egg: rng.random_range(0.02..0.12),
            skew: rng.random_range(-0.03..0.03),
            skull: rng.random_range(4.5..8.5),
            scalp: rng.random_range(3.0..7.0),
            rim: 0.3 + 2.4 * atrophy * rng.random_range(0.6..1.2f32),
            base_shift: rng.random_range(-5.0..5.0),
            petrous_height: rng.random_range(-26.0..-18.0),
        }
    }

    fn wall(&self, u: V3, noise: &ValueNoise) -> Wall {
        let p = self.exponent;
        let half_width = self.half_width * (1.0 + self.egg * u[1]);
        let depth = if u[1] < 0.0 { self.front } else { self.back };
        let height = if u[2] > 0.0 { self.up } else { self.down };
        let sum = (u[0].abs() / half_width).powf(p) + (u[1].abs() / depth).powf(p) + (u[2].abs() / height).powf(p);
        let wobble = 0.012 * noise.at([u[0] * 1.6 + 3.0, u[1] * 1.6, u[2] * 1.6]) + self.skew * u[0] * u[1];
        let inner = sum.powf(-1.0 / p) * (1.0 + wobble);
        let bossing = 0.25 * bell(u[0] / 0.25) * (0.4 - u[2]).clamp(0.0, 1.0);
        let temporal_thinning = 0.35 * smooth(0.7, 0.95, u[0].abs());
        let skull = self.skull
            * (1.0 + 0.22 * noise.at([u[0] * 3.0, u[1] * 3.0 + 7.0, u[2] * 3.0]) + bossing - temporal_thinning);
        let muscle = 9.0 * smooth(0.55, 0.9, u[0].abs()) * smooth(0.45, 0.0, u[2]) * smooth(0.6, 0.1, u[1]);
        let neck = 14.0 * smooth(0.4, 0.9, u[1]) * smooth(0.05, -0.4, u[2]);
        let scalp = self.scalp * (1.0 + 0.25 * noise.at([u[0] * 2.0, u[1] * 2.0, u[2] * 2.0 + 5.0])) + muscle + neck;
        let frontal = 1.0 + 0.8 * smooth(0.2, -0.8, u[1]);
        let rim = self.rim * frontal * (1.0 + 0.5 * noise.at([u[0] * 4.0 + 9.0, u[1] * 4.0, u[2] * 4.0]));
        Wall { inner, skull: skull.max(2.2), scalp: scalp.max(2.0), rim: rim.max(0.1) }
    }

    /// Height of the floor of the skull's cavity.
    fn floor(&self, x: f32, y: f32) -> f32 {
        let ax = x.abs();
        let anterior = -13.0 + 6.0 * bell((ax - 25.0) / 13.0) * bell((y + 50.0) / 18.0) - 5.0 * bell(ax / 6.0);
        let middle = lerp(-17.0, -36.0 + 4.0 * bell((ax - 40.0) / 9.0), smooth(10.0, 22.0, ax));
        let clivus = lerp(-18.0, -50.0, smooth(2.0, 24.0, y));
        let bowl = -56.0 + 30.0 * smooth(55.0, 92.0, y) - 4.0 * bell((ax - 22.0) / 14.0);
        let posterior = lerp(clivus, bowl, smooth(10.0, 20.0, y + 0.5 * ax));
        let petrous = Self::petrous_line(ax);
        let mut floor = lerp(anterior, middle, smooth(-36.0, -25.0, y + 0.10 * ax));
        floor = lerp(floor, posterior, smooth(-5.0, 6.0, y - petrous));
        let wing = -9.0 - ((y + 31.0 + 0.10 * ax) / 3.2).powi(2) - 12.0 * smooth(42.0, 58.0, ax);
        let ridge = self.petrous_height - ((y - petrous) / 4.5).powi(2) * 2.2 - 24.0 * smooth(20.0, 8.0, ax);
        let dorsum = -15.0 - ((y - 3.0) / 2.2).powi(2) * 2.0 - 30.0 * smooth(6.0, 12.0, ax);
        floor = floor.max(wing).max(ridge).max(dorsum);
        let foramen = ((x / 15.0).powi(2) + ((y - 32.0) / 18.0).powi(2)).sqrt();
        lerp(OPEN, floor, smooth(0.85, 1.1, foramen)) + self.base_shift
    }

    /// Where the ridge of the petrous bone runs: `y` at the distance `ax` from the middle.
    pub(crate) fn petrous_line(ax: f32) -> f32 {
        7.0 + 0.40 * ax
    }
}

/// A head's outline, ready to be asked at points.
pub(crate) struct Head {
    /// Inner, skull, scalp, rim: of [`Wall`], side by side so that they are mixed at once.
    walls: Vec<[f32; 4]>,
    base: Vec<[f32; 2]>,
    /// Beyond this radius there is nothing but air, above the face.
    pub(crate) reach: f32,
    /// Within this radius everything is inside the vault.
    pub(crate) nearest: f32,
    /// Level of the petrous bones.
    pub(crate) petrous_z: f32,
}

/// Where a point lies against the outline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Direction from the middle of the head.
    pub(crate) direction: V3,
    /// The outline in that direction.
    pub(crate) wall: Wall,
    /// Distance to the vault's inner table, positive inside.
    pub(crate) vault: f32,
    /// Distance to the floor of the cavity, positive above.
    pub(crate) floor: f32,
}

impl Place {
    /// Depth within the cavity; negative outside.
    #[inline]
    pub(crate) fn depth(&self) -> f32 {
        self.vault.min(self.floor)
    }
}

impl Head {
    pub(crate) fn new(form: &HeadForm, noise: &ValueNoise) -> Self {
        let walls: Vec<[f32; 4]> = (0..MAP * MAP)
            .map(|i| form.wall(map_direction(i % MAP, i / MAP), noise))
            .map(|w| [w.inner, w.skull, w.scalp, w.rim])
            .collect();
        let reach = walls.iter().map(|w| w[0] + w[1] + w[2]).fold(0.0, f32::max);
        let nearest = walls.iter().map(|w| w[0]).fold(f32::INFINITY, f32::min);
        let heights: Vec<f32> = (0..BASE_X * BASE_Y)
            .map(|i| {
                let (x, y) = base_point(i % BASE_X, i / BASE_X);
                form.floor(x, y) + 1.2 * noise.at([x / 9.0, y / 9.0, 2.5])
            })
            .collect();
        let base = (0..BASE_X * BASE_Y).map(|i| [heights[i], steepness(&heights, i % BASE_X, i / BASE_X)]).collect();
        Self { walls, base, reach, nearest, petrous_z: form.petrous_height + form.base_shift - 6.0 }
    }

    /// The outline in a direction (a unit vector).
    #[inline]
    pub(crate) fn wall(&self, u: V3) -> Wall {
        let inverse = 1.0 / (u[0].abs() + u[1].abs() + u[2].abs()).max(1e-9);
        let (mut a, mut b) = (u[0] * inverse, u[1] * inverse);
        if u[2] < 0.0 {
            (a, b) = ((1.0 - b.abs()).copysign(a), (1.0 - a.abs()).copysign(b));
        }
        let half = (MAP - 1) as f32 * 0.5;
        let (fa, fb) = ((a + 1.0) * half, (b + 1.0) * half);
        let (i, j) = ((fa as usize).min(MAP - 2), (fb as usize).min(MAP - 2));
        let (s, t) = (fa - i as f32, fb - j as f32);
        let at = j * MAP + i;
        let (w00, w10, w01, w11) =
            (&self.walls[at], &self.walls[at + 1], &self.walls[at + MAP], &self.walls[at + MAP + 1]);
        let mixed: [f32; 4] = std::array::from_fn(|k| lerp(lerp(w00[k], w10[k], s), lerp(w01[k], w11[k], s), t));
        Wall { inner: mixed[0], skull: mixed[1], scalp: mixed[2], rim: mixed[3] }
    }

    /// Where a point lies.
    #[inline]
    pub(crate) fn place(&self, p: V3) -> Place {
        let r = norm(p).max(1e-3);
        let direction = p.map(|x| x / r);
        let wall = self.wall(direction);
        Place { direction, wall, vault: wall.inner - r, floor: self.above_floor(p) }
    }

    /// Distance from the cavity's floor, positive above it.
    #[inline]
    fn above_floor(&self, p: V3) -> f32 {
        let fx = (p[0] / BASE_STEP + (BASE_X / 2) as f32).clamp(0.0, (BASE_X - 1) as f32 - 1e-3);
        let fy = (p[1] / BASE_STEP + (BASE_Y / 2) as f32).clamp(0.0, (BASE_Y - 1) as f32 - 1e-3);
        let (i, j) = (fx as usize, fy as usize);
        let (s, t) = (fx - i as f32, fy - j as f32);
        let at = j * BASE_X + i;
        let (c00, c10, c01, c11) =
            (self.base[at], self.base[at + 1], self.base[at + BASE_X], self.base[at + BASE_X + 1]);
        let height = lerp(lerp(c00[0], c10[0], s), lerp(c01[0], c11[0], s), t);
        let cosine = lerp(lerp(c00[1], c10[1], s), lerp(c01[1], c11[1], s), t);
        (p[2] - height) * cosine
    }

    /// Distance to the skin, positive inside. Below the middle of the head the outline goes straight down, with a
    /// face before it.
    #[inline]
    pub(crate) fn within_skin(&self, p: V3, place: &Place) -> f32 {
        if p[2] > -4.0 {
            return place.vault + place.wall.skull + place.wall.scalp;
        }
        let down = -4.0 - p[2];
        let face = 20.0 * smooth(4.0, 30.0, down) * bell(p[0] / 42.0) * smooth(0.0, -60.0, p[1]);
        let nose = 18.0 * smooth(20.0, 45.0, down) * bell(p[0] / 11.0) * smooth(-40.0, -70.0, p[1]);
        let flattened = [p[0], p[1], -4.0 - down * 0.3];
        let r = norm(flattened);
        let wall = self.wall(unit(flattened));
        wall.inner + wall.skull + wall.scalp + face + nose - r
    }
}

fn map_direction(i: usize, j: usize) -> V3 {
    let half = (MAP - 1) as f32 * 0.5;
    let (mut a, mut b) = (i as f32 / half - 1.0, j as f32 / half - 1.0);
    let c = 1.0 - a.abs() - b.abs();
    if c < 0.0 {
        (a, b) = ((1.0 - b.abs()).copysign(a), (1.0 - a.abs()).copysign(b));
    }
    unit([a, b, c])
}

fn base_point(i: usize, j: usize) -> (f32, f32) {
    ((i as f32 - (BASE_X / 2) as f32) * BASE_STEP, (j as f32 - (BASE_Y / 2) as f32) * BASE_STEP)
}

/// Cosine of the floor's slope at a lattice point, so that heights become distances.
fn steepness(heights: &[f32], i: usize, j: usize) -> f32 {
    let at = |i: usize, j: usize| heights[j * BASE_X + i];
    let (west, east) = (i.saturating_sub(1), (i + 1).min(BASE_X - 1));
    let (north, south) = (j.saturating_sub(1), (j + 1).min(BASE_Y - 1));
    let along_x = (at(east, j) - at(west, j)) / ((east - west) as f32 * BASE_STEP);
    let along_y = (at(i, south) - at(i, north)) / ((south - north) as f32 * BASE_STEP);
    1.0 / (1.0 + along_x * along_x + along_y * along_y).sqrt()
}
