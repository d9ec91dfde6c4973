//! What lies outside the skull's cavity: skull, scalp, skull base, face.

use rand::Rng;

use crate::geometry::{V3, bell, lerp, ramp, smooth};
use crate::head::{Head, HeadForm, Place};
use crate::noise::ValueNoise;

/// Attenuation of air in HU.
pub(crate) const AIR: f32 = -1000.0;

/// An ellipsoid of one material.
struct Pocket {
    centre: V3,
    inverse: V3,
    hu: f32,
}

/// Materials outside the cavity of one head.
pub(crate) struct Outside {
    table: f32,
    diploe: f32,
    fat: f32,
    muscle: f32,
    mastoid: f32,
    pockets: Vec<Pocket>,
    /// A swelling of the scalp, dense as blood, outside the skull: centre, radius, thickness.
    swelling: Option<(V3, f32, f32)>,
}

impl Outside {
    pub(crate) fn draw(rng: &mut impl Rng) -> Self {
        let globe = rng.random_range(11.0..13.0f32);
        let mut pockets = Vec::new();
        let mut add =
            |centre: V3, radii: V3, hu: f32| pockets.push(Pocket { centre, inverse: radii.map(|r| 1.0 / r), hu });
        let lift = rng.random_range(-4.0..3.0f32);
        for side in [-1.0, 1.0] {
            add([side * 31.0, -60.0, -23.0 + lift], [20.0, 28.0, 17.0], -85.0);
            add([side * 32.0, -72.0, -25.0 + lift], [globe, globe, globe], 12.0);
            add([side * 24.0, -52.0, -26.0 + lift], [2.5, 20.0, 4.0], 45.0);
            add([side * 42.0, -54.0, -26.0 + lift], [2.5, 18.0, 5.0], 45.0);
            add([side * 30.0, -50.0, -26.0 + lift], [2.0, 16.0, 2.0], 35.0);
            add([side * 27.0, -58.0, -58.0], [15.0, 17.0, 16.0], AIR);
            add([side * 47.0, -10.0, -62.0], [4.0, 13.0, 24.0], 1150.0);
            add([side * 59.0, -36.0, -42.0], [3.5, 22.0, 4.0], 1000.0);
            add([side * 15.0, -28.0, -56.0], [2.2, 9.0, 13.0], 800.0);
            add([side * 54.0, 12.0, -38.0], [11.0, 3.0, 3.0], AIR);
            add([side * 18.0, 26.0, -74.0], [9.0, 10.0, 9.0], 900.0);
        }
        add([0.0, -56.0, -28.0 + lift], [11.0, 22.0, 14.0], AIR);
        add([0.0, -14.0, -34.0 + lift], [12.0, 10.0, 9.0], if rng.random_bool(0.85) { AIR } else { 30.0 });
        add([rng.random_range(-8.0..8.0), -86.0, -8.0 + lift], [16.0, 5.0, 12.0], AIR);
        add([0.0, -70.0, -56.0], [9.0, 30.0, 14.0], AIR);
        add([0.0, 0.0, -70.0], [14.0, 10.0, 22.0], AIR);
        let swelling = rng.random_bool(0.14).then(|| {
            let azimuth = rng.random_range(0.0..std::f32::consts::TAU);
            let height = rng.random_range(0.0..0.7f32);
            let flat = (1.0 - height * height).sqrt();
            let direction = [flat * azimuth.cos(), flat * azimuth.sin(), height];
            (direction, rng.random_range(0.18..0.45), rng.random_range(4.0..13.0))
        });
        Self {
            table: rng.random_range(1100.0..1750.0),
            diploe: rng.random_range(420.0..850.0),
            fat: rng.random_range(-105.0..-80.0),
            muscle: rng.random_range(45.0..60.0),
            mastoid: rng.random_range(-0.15..0.35),
            pockets,
            swelling,
        }
    }

    /// Most that a swelling adds to the scalp.
    pub(crate) fn thickest_swelling(&self) -> f32 {
        self.swelling.map_or(0.0, |(_, _, thickness)| thickness)
    }

    /// Thickness that a swelling adds to the scalp in a direction.
    #[inline]
    fn swelling(&self, u: V3) -> f32 {
        let Some((centre, radius, thickness)) = self.swelling else { return 0.0 };
        let chord = ((u[0] - centre[0]).powi(2) + (u[1] - centre[1]).powi(2) + (u[2] - centre[2]).powi(2)).sqrt();
        thickness * smooth(radius, 0.3 * radius, chord)
    }

    /// Attenuation at a point outside the cavity.
    pub(crate) fn hu(&self, p: V3, place: &Place, head: &Head, noise: &ValueNoise, half: f32) -> f32 {
        let swelling = self.swelling(place.direction);
        let skin = head.within_skin(p, place) + swelling;
        if skin < -half {
            return AIR;
        }
        let below_vault = place.vault > 0.0;
        let grain = noise.at(p.map(|x| x / 6.0));
        let tissue = if !below_vault && (p[2] > -4.0 || place.floor > -6.0) {
            self.wall(p, place, skin, swelling, grain, half)
        } else {
            self.base(p, place, skin, noise, grain, half)
        };
        lerp(AIR, tissue, ramp(skin, half))
    }

    /// Scalp: skin, fat, and muscle on the bone where it is thick.
    fn scalp(&self, depth_below_skin: f32, above_bone: f32, swelling: f32, grain: f32) -> f32 {
        let muscle = ramp(above_bone - 1.5, 1.0) * smooth(6.0, 9.0, depth_below_skin + above_bone - swelling);
        let mut hu =
            lerp(self.fat + 22.0 * grain, self.muscle + 8.0 * grain, muscle * smooth(1.0, 3.5, depth_below_skin));
        if swelling > 0.5 {
            hu = lerp(hu, 58.0 + 14.0 * grain, smooth(swelling + 1.5, swelling - 1.5, above_bone));
        }
        lerp(30.0, hu, smooth(0.8, 2.2, depth_below_skin))
    }

    fn bone(&self, from_inside: f32, thickness: f32, grain: f32) -> f32 {
        let core =
            smooth(1.2, 2.2, from_inside) * smooth(1.2, 2.2, thickness - from_inside) * smooth(3.5, 5.5, thickness);
        lerp(self.table + 90.0 * grain, self.diploe + 160.0 * grain, core)
    }

    /// Vault: skull under scalp.
    fn wall(&self, p: V3, place: &Place, skin: f32, swelling: f32, grain: f32, half: f32) -> f32 {
        let out = -place.depth();
        let skull = place.wall.skull;
        // The frontal bone is thick, and hollow, above the nose.
        let sinus = 5.0 * bell(p[0] / 14.0) * bell((p[2] + 2.0) / 9.0) * smooth(-55.0, -70.0, p[1]);
        let thickness = skull + sinus;
        let mut bone = self.bone(out, thickness, grain);
        if sinus > 1.5 {
            bone = lerp(bone, AIR, ramp((sinus * 0.5 + 0.5) - (out - thickness * 0.5).abs(), half));
        }
        lerp(self.scalp(skin, out - thickness, swelling, grain), bone, ramp(thickness - out, half))
    }

    /// Skull base and face.
    fn base(&self, p: V3, place: &Place, skin: f32, noise: &ValueNoise, grain: f32, half: f32) -> f32 {
        let out = -place.depth();
        let ax = p[0].abs();
        let petrous_y = HeadForm::petrous_line(ax);
        let petrous = bell((p[1] - petrous_y - 3.0) / 9.0)
            * smooth(10.0, 18.0, ax)
            * smooth(66.0, 56.0, ax)
            * smooth(-58.0, -44.0, p[2]);
        let clivus = bell(p[0] / 12.0) * bell((p[1] - 4.0) / 12.0);
        let roof = smooth(-26.0, -40.0, p[1]);
        let thickness =
            4.0 - 2.2 * roof + 1.2 * grain + 18.0 * petrous + 10.0 * clivus + place.wall.skull * 0.3 * (1.0 - roof);
        let mut hu = if petrous > 0.3 { self.petrous(p, ax, noise, grain) } else { self.bone(out, thickness, grain) };
        let soft = noise.at(p.map(|x| x / 15.0 + 4.0));
        let mut beneath = lerp(self.fat, self.muscle, smooth(-0.35, -0.05, soft)) + 6.0 * grain;
        let strut = noise.at([p[0] / 11.0, p[1] / 11.0, p[2] / 26.0 + 8.0]);
        if p[1] < -20.0 && p[0].abs() < 34.0 && strut.abs() < 0.02 && skin > 14.0 {
            beneath = 700.0;
        }
        for pocket in &self.pockets {
            let k: f32 = (0..3).map(|i| ((p[i] - pocket.centre[i]) * pocket.inverse[i]).powi(2)).sum();
            if k < 1.25 {
                if pocket.hu == AIR {
                    beneath = lerp(beneath, 600.0, ramp((1.12 - k) * 5.0, half + 0.2));
                    hu = lerp(hu, AIR, ramp((1.0 - k) * 5.0, half));
                }
                beneath = lerp(beneath, pocket.hu, ramp((1.0 - k) * 5.0, half));
            }
        }
        let covered = self.scalp(skin, 8.0, 0.0, grain);
        beneath = lerp(covered, beneath, smooth(2.0, 6.0, skin));
        lerp(beneath, hu, ramp(thickness - out, half))
    }

    /// The petrous bone: dense within, air cells towards the mastoid.
    fn petrous(&self, p: V3, ax: f32, noise: &ValueNoise, grain: f32) -> f32 {
        let cells = noise.at(p.map(|x| x / 3.5 + 2.0)) - self.mastoid;
        let dense = 1500.0 + 250.0 * grain;
        lerp(dense, -650.0, smooth(0.0, 0.15, cells) * smooth(30.0, 44.0, ax))
    }
}
