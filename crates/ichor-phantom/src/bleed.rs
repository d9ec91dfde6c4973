//! Bleeds: forms, sizes, and how they push the brain aside.

use std::f32::consts::PI;

use ichor_core::HemorrhageSubtype;

use crate::brain::{FAR, Spot};
use crate::geometry::{V3, add, bump, dot, norm, scale, sub, unit};
use crate::noise::ValueNoise;

/// A bleed's form. Every function of it is a signed distance in mm, positive inside.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Biconvex lens or crescent on the inner table.
    Sheet {
        /// Middle, on the vault.
        middle: V3,
        /// Directions along the vault.
        along: [V3; 2],
        /// Half extents along them.
        extent: [f32; 2],
        /// Thickness in the middle.
        thickness: f32,
        /// 2 for a lens, more for a crescent that is equally thick over most of its length.
        power: i32,
        /// Dural folds that it does not cross.
        stops_at_folds: bool,
    },
    /// A film along the falx.
    Falx {
        /// Side of the falx, −1 or 1.
        side: f32,
        /// Where along y and z it is thickest.
        middle: [f32; 2],
        /// Half extents along y and z.
        extent: [f32; 2],
        /// Thickness.
        thickness: f32,
    },
    /// A film on the tentorium.
    Tentorium {
        /// Side, −1 or 1.
        side: f32,
        /// Half extent.
        extent: f32,
        /// Thickness.
        thickness: f32,
    },
    /// A lump within the brain.
    Lump {
        /// Middle.
        middle: V3,
        /// Rows of a rotation.
        axes: [V3; 3],
        /// Half axes.
        radii: V3,
        /// How uneven its surface is, as a share of the radius.
        ragged: f32,
    },
    /// Blood that lies in the ventricles below a level.
    Layer {
        /// Only on this side; 0 for both.
        side: f32,
        /// The level: y, to the back.
        level: f32,
    },
    /// Blood that fills a part of the ventricles.
    Cast {
        /// Middle of the part.
        middle: V3,
        /// Its radius.
        radius: f32,
    },
    /// Blood in sulci, fissures and cisterns around a point.
    Sulcal {
        /// Middle.
        middle: V3,
        /// Radius of the region.
        radius: f32,
        /// How far blood widens the fluid spaces.
        widened: f32,
    },
}

impl Form {
    /// The same form, larger or smaller by `s`; volume grows with it throughout.
    pub(crate) fn scaled(&self, s: f32) -> Self {
        let mut form = self.clone();
        match &mut form {
            Self::Sheet { extent, thickness, .. } => {
                *extent = extent.map(|e| e * s);
                *thickness *= s.powf(0.8);
            }
            Self::Falx { extent, thickness, .. } => {
                *extent = extent.map(|e| e * s);
                *thickness *= s.powf(0.5);
            }
            Self::Tentorium { extent, thickness, .. } => {
                *extent *= s;
                *thickness *= s.powf(0.5);
            }
            Self::Lump { radii, .. } => *radii = radii.map(|r| r * s),
            Self::Layer { level, .. } => *level -= 60.0 * (s - 1.0),
            Self::Cast { radius, .. } | Self::Sulcal { radius, .. } => *radius *= s,
        }
        form
    }

    /// Middle and radius of a ball that holds the form.
    pub(crate) fn bounds(&self) -> (V3, f32) {
        match self {
            Self::Sheet { middle, extent, thickness, .. } => {
                (*middle, extent[0].max(extent[1]) * 1.15 + thickness * 0.6 + 2.0)
            }
            Self::Falx { middle, extent, thickness, .. } => {
                ([0.0, middle[0], middle[1]], extent[0].max(extent[1]) + thickness + 4.0)
            }
            Self::Tentorium { extent, thickness, .. } => ([0.0, 48.0, -12.0], extent * 1.5 + thickness + 10.0),
            Self::Lump { middle, radii, ragged, .. } => {
                (*middle, radii[0].max(radii[1]).max(radii[2]) * (1.0 + ragged) + 2.0)
            }
            Self::Layer { .. } => ([0.0, 15.0, 0.0], 68.0),
            Self::Cast { middle, radius } => (*middle, radius + 3.0),
            Self::Sulcal { middle, radius, .. } => (*middle, radius * 1.3 + 2.0),
        }
    }

    /// Signed distance at a point inside the skull.
    pub(crate) fn inside(&self, spot: &Spot, noise: &ValueNoise) -> f32 {
        match self {
            Self::Sheet { middle, along, extent, thickness, power, stops_at_folds } => {
                let from = sub(spot.surface, *middle);
                let (a, b) = (dot(from, along[0]) / extent[0], dot(from, along[1]) / extent[1]);
                let across = dot(from, unit(*middle)) / extent[0].max(extent[1]);
                let wobble = noise.at(spot.surface.map(|x| x / 16.0 + 2.2));
                let u = (a * a + b * b + 0.25 * across * across).sqrt() * (1.0 + 0.10 * wobble);
                if u > 1.3 {
                    return FAR;
                }
                let profile = 1.0 - u.powi(*power);
                let reach = thickness * profile * (1.0 + 0.12 * wobble) - spot.depth;
                let mut inside = if profile < 0.0 { reach.min((1.0 - u) * extent[0]) } else { reach };
                if *stops_at_folds {
                    let fold = if spot.posterior_fossa { -1.0 } else { 1.0 };
                    inside = inside.min(spot.midline * middle[0].signum() - 0.8).min(fold * spot.above_tentorium);
                }
                inside.min(spot.depth + 1.0)
            }
            Self::Falx { side, middle, extent, thickness } => {
                let (a, b) = ((spot.head[1] - middle[0]) / extent[0], (spot.head[2] - middle[1]) / extent[1]);
                let profile = 1.0 - (a * a + b * b);
                let wobble = noise.at([spot.head[0] / 30.0, spot.head[1] / 12.0, spot.head[2] / 12.0]);
                let from_falx = spot.midline * side;
                let inside = thickness * profile.max(-1.0) * (1.0 + 0.3 * wobble) - from_falx;
                inside.min(from_falx + 0.3).min(spot.falx + 6.0 + spot.midline.abs()).min(spot.depth)
            }
            Self::Tentorium { side, extent, thickness } => {
                let from = [spot.head[0] - side * 26.0, spot.head[1] - 48.0];
                let profile = 1.0 - (from[0] * from[0] + from[1] * from[1]) / (extent * extent);
                let wobble = noise.at(spot.head.map(|x| x / 12.0));
                let inside = thickness * profile.max(-1.0) * (1.0 + 0.3 * wobble) - spot.above_tentorium;
                inside.min(spot.above_tentorium + 0.4).min(spot.tentorium + 8.0).min(spot.depth)
            }
            Self::Lump { middle, axes, radii, ragged } => {
                let from = sub(spot.head, *middle);
                let k: V3 = std::array::from_fn(|i| dot(from, axes[i]) / radii[i]);
                let k = norm(k);
                if k > 1.0 + 2.0 * ragged + 0.5 {
                    return FAR;
                }
                let mean = (radii[0] * radii[1] * radii[2]).cbrt();
                let coarse = noise.at(spot.head.map(|x| x / (0.75 * mean + 3.0)));
                let fine = noise.at(spot.head.map(|x| x / (0.25 * mean + 2.0) + 4.4));
                let inside = (1.0 - k + ragged * (coarse + 0.45 * fine)) * mean;
                inside.min(spot.brain - 0.5)
            }
            Self::Layer { side, level } => {
                let wobble = 1.2 * noise.at(spot.p.map(|x| x / 9.0));
                let below = spot.p[1] - level + wobble;
                let here = if *side == 0.0 { below } else { below.min(spot.p[0] * side + 3.0) };
                (spot.ventricle + 0.3).min(here)
            }
            Self::Cast { middle, radius } => (spot.ventricle + 0.6)
                .min(radius - norm(sub(spot.p, *middle)) + 3.0 * noise.at(spot.p.map(|x| x / 9.0))),
            Self::Sulcal { middle, radius, widened } => {
                let patch = noise.at(spot.p.map(|x| x / 12.0 + 6.1));
                let region = radius - norm(sub(spot.head, *middle)) + 0.28 * radius * patch;
                let taper = widened * (region / (0.5 * radius)).clamp(-1.0, 1.0);
                (spot.subarachnoid + taper).min(region).min(spot.depth - 0.2)
            }
        }
    }

    /// Largest thickness in mm: what a reader's eye goes by.
    pub(crate) fn thickness(&self) -> f32 {
        match self {
            Self::Sheet { thickness, .. } | Self::Falx { thickness, .. } | Self::Tentorium { thickness, .. } => {
                *thickness
            }
            Self::Lump { radii, .. } => 2.0 * radii.iter().copied().fold(f32::INFINITY, f32::min),
            Self::Layer { .. } | Self::Cast { .. } => 8.0,
            Self::Sulcal { widened, .. } => 2.0 + 2.0 * widened,
        }
    }
}

/// One bleed of a head.
#[derive(Clone, Debug)]
pub(crate) struct Lesion {
    pub(crate) subtype: HemorrhageSubtype,
    pub(crate) form: Form,
    pub(crate) hu: f32,
    /// Half width of its edge in mm: clots are sharper than oozing blood.
    pub(crate) edge: f32,
    /// Low attenuation around it: depth in HU and reach in mm.
    pub(crate) oedema: Option<(f32, f32)>,
    pub(crate) asked_ml: f32,
    bounds: (V3, f32),
}

impl Lesion {
    pub(crate) fn new(
        subtype: HemorrhageSubtype,
        form: Form,
        hu: f32,
        edge: f32,
        oedema: Option<(f32, f32)>,
        asked_ml: f32,
    ) -> Self {
        let (middle, radius) = form.bounds();
        let reach = oedema.map_or(0.0, |(_, reach)| reach);
        Self { subtype, form, hu, edge, oedema, asked_ml, bounds: (middle, radius + reach) }
    }

    /// Whether the lesion may reach a point.
    #[inline]
    pub(crate) fn near(&self, p: V3) -> bool {
        let from = sub(p, self.bounds.0);
        dot(from, from) < self.bounds.1 * self.bounds.1
    }

    /// Middle and radius of the ball that holds lesion and oedema.
    pub(crate) fn bounds(&self) -> (V3, f32) {
        self.bounds
    }
}

/// Mass effect: tissue around `centre` is pushed away from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Push {
    centre: V3,
    by: f32,
    reach: f32,
}

impl Push {
    /// The push of a lesion, if its form is one that pushes. `strength` is 0 to 1.
    pub(crate) fn of(form: &Form, strength: f32) -> Option<Self> {
        match form {
            Form::Sheet { middle, thickness, extent, .. } => {
                let reach = 55.0 + 0.4 * extent[0].min(60.0);
                Some(Self { centre: scale(*middle, 1.05), by: strength * thickness * 0.75, reach })
            }
            Form::Lump { middle, radii, .. } => {
                let mean = (radii[0] * radii[1] * radii[2]).cbrt();
                Some(Self { centre: *middle, by: strength * mean * 0.45, reach: 3.2 * mean })
            }
            _ => None,
        }
    }

    /// Where the tissue at `p` came from, and how much sulci are pressed shut there (0 to 1).
    #[inline]
    pub(crate) fn undo(&self, p: V3) -> (V3, f32) {
        let from = sub(p, self.centre);
        let distance = norm(from);
        if distance >= self.reach || distance < 1e-3 {
            return (p, 0.0);
        }
        let share = bump(distance / self.reach) * (distance / (0.15 * self.reach)).min(1.0);
        (add(p, scale(from, -self.by * share / distance)), (share * self.by / 5.0).min(1.0))
    }
}

/// Radius in mm of a ball of so many mL.
pub(crate) fn ball_radius(volume_ml: f32) -> f32 {
    (volume_ml * 1000.0 * 3.0 / (4.0 * PI)).cbrt()
}
