//! Shapes of implanted blood, and how large they must be to hold their volume.

use ichor_core::HemorrhageSubtype;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::direction;
use crate::bleed::ball_radius;
use crate::geometry::{V3, add, cross, dot, norm, scale, sub, unit};
use crate::noise::ValueNoise;
use crate::options::BleedSpec;

/// Far outside of a shape, mm.
const FAR: f32 = -100.0;
/// Steps of the search for a shape's size.
const STEPS: usize = 12;

/// A place inside the skull.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// From the middle of the head, mm.
    pub(super) p: V3,
    /// From the inner table, in the plane, mm.
    pub(super) depth: f32,
    /// Share of fluid.
    pub(super) fluid: f32,
    /// Volume that it stands for, mL.
    pub(super) cell_ml: f32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A ragged ellipsoid in the tissue.
    Lump { middle: V3, axes: [V3; 3], radii: V3, ragged: f32 },
    /// A sheet along the inner table: a lens (`power` 2) or a crescent (4). `side` keeps it from crossing the midline.
    Sheet { middle: V3, along: [V3; 2], extent: [f32; 2], thickness: f32, power: i32, side: Option<f32> },
    /// Blood in place of fluid within a ball; `deep` for the ventricles, else the sulci and cisterns.
    Fluid { middle: V3, radius: f32, deep: bool },
}

impl Shape {
    /// Signed distance in mm, positive inside.
    pub(super) fn inside(&self, site: &Site, noise: &ValueNoise) -> f32 {
        match self {
            Self::Lump { middle, axes, radii, ragged } => {
                let from = sub(site.p, *middle);
                let k: V3 = std::array::from_fn(|i| dot(from, axes[i]) / radii[i]);
                let k = norm(k);
                if k > 1.5 + 2.0 * ragged {
                    return FAR;
                }
                let mean = (radii[0] * radii[1] * radii[2]).cbrt();
                let coarse = noise.at(site.p.map(|x| x / (0.75 * mean + 3.0)));
                let fine = noise.at(site.p.map(|x| x / (0.25 * mean + 2.0) + 4.4));
                let inside = (1.0 - k + ragged * (coarse + 0.45 * fine)) * mean;
                inside.min(site.depth - 2.0)
            }
            Self::Sheet { middle, along, extent, thickness, power, side } => {
                let from = sub(site.p, *middle);
                let (a, b) = (dot(from, along[0]) / extent[0], dot(from, along[1]) / extent[1]);
                let across = dot(from, unit(*middle)) / (0.8 * extent[0].max(extent[1])).max(25.0);
                let wobble = noise.at(site.p.map(|x| x / 16.0 + 2.2));
                let u = (a * a + b * b + 0.4 * across * across).sqrt() * (1.0 + 0.10 * wobble);
                if u > 1.3 {
                    return FAR;
                }
                let profile = 1.0 - u.powi(*power);
                let reach = thickness * profile * (1.0 + 0.12 * wobble) - site.depth;
                let inside = if profile < 0.0 { reach.min((1.0 - u) * extent[0]) } else { reach };
                side.map_or(inside, |side| inside.min(site.p[0] * side - 1.5))
            }
            Self::Fluid { middle, radius, deep } => {
                let patch = noise.at(site.p.map(|x| x / 12.0 + 6.1));
                let region = radius - norm(sub(site.p, *middle)) + 0.25 * radius * patch;
                let depth = if *deep { site.depth - 18.0 } else { site.depth - 0.5 };
                (4.0 * (site.fluid - 0.5)).min(region).min(depth)
            }
        }
    }

    fn scaled(&self, s: f32) -> Self {
        let mut shape = *self;
        match &mut shape {
            Self::Lump { radii, .. } => *radii = radii.map(|r| r * s),
            Self::Sheet { extent, thickness, .. } => {
                *extent = extent.map(|e| e * s.sqrt());
                *thickness *= s;
            }
            Self::Fluid { radius, .. } => *radius *= s,
        }
        shape
    }
}

/// One implanted bleed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesion {
    pub(super) subtype: HemorrhageSubtype,
    pub(super) shape: Shape,
    pub(super) hu: f32,
    /// Half width of its edge, mm.
    pub(super) edge: f32,
    /// Low attenuation around it: depth in HU and reach in mm.
    pub(super) oedema: Option<(f32, f32)>,
    pub(super) asked_ml: f32,
}

impl Lesion {
    /// Largest thickness, mm.
    pub(super) fn thickness(&self) -> f32 {
        match self.shape {
            Shape::Lump { radii, .. } => 2.0 * radii.iter().copied().fold(f32::INFINITY, f32::min),
            Shape::Sheet { thickness, .. } => thickness,
            Shape::Fluid { deep, .. } => {
                if deep {
                    8.0
                } else {
                    3.0
                }
            }
        }
    }
}

/// Lays a bleed; `None` where the head has no place for it.
pub(super) fn lesion(spec: &BleedSpec, sites: &[Site], noise: &ValueNoise, rng: &mut ChaCha8Rng) -> Option<Lesion> {
    let start = match spec.subtype {
        HemorrhageSubtype::Epidural => sheet(sites, spec.volume_ml, false, rng),
        HemorrhageSubtype::Subdural => sheet(sites, spec.volume_ml, true, rng),
        HemorrhageSubtype::Intraparenchymal => lump(sites, spec.volume_ml, rng),
        HemorrhageSubtype::Intraventricular => pool(sites, true, rng),
        HemorrhageSubtype::Subarachnoid => pool(sites, false, rng),
    }?;
    let shape = sized(&start, spec.volume_ml, sites, noise);
    let oedema = (spec.subtype == HemorrhageSubtype::Intraparenchymal && rng.random_bool(0.75))
        .then(|| (rng.random_range(3.0..9.0), rng.random_range(2.0..7.0)));
    let edge = rng.random_range(0.5..1.2);
    Some(Lesion { subtype: spec.subtype, shape, hu: spec.hu, edge, oedema, asked_ml: spec.volume_ml })
}

/// One of the sites that `fits` says yes to.
fn pick(sites: &[Site], rng: &mut ChaCha8Rng, fits: impl Fn(&Site) -> bool) -> Option<Site> {
    let mut tried = (0..4000).map(|_| sites.get(rng.random_range(0..sites.len().max(1))).copied());
    tried.find_map(|site| site.filter(&fits))
}

fn lump(sites: &[Site], volume_ml: f32, rng: &mut ChaCha8Rng) -> Option<Shape> {
    let radius = ball_radius(volume_ml);
    let wanted = (0.8 * radius + 2.0).min(28.0);
    let site = pick(sites, rng, |site| site.depth > wanted && site.fluid < 0.5)
        .or_else(|| pick(sites, rng, |site| site.depth > 0.5 * wanted))?;
    let stretch: V3 = std::array::from_fn(|_| rng.random_range(0.72..1.35f32));
    let even = (stretch[0] * stretch[1] * stretch[2]).cbrt();
    let first = direction(rng);
    let second = unit(cross(first, [0.31, 0.52, 0.79]));
    Some(Shape::Lump {
        middle: site.p,
        axes: [first, second, cross(first, second)],
        radii: stretch.map(|s| radius * s / even),
        ragged: rng.random_range(0.16..0.42),
    })
}

fn sheet(sites: &[Site], volume_ml: f32, crescent: bool, rng: &mut ChaCha8Rng) -> Option<Shape> {
    // On the vault: at the base the inner table is no surface that blood lies along.
    let on_vault = |site: &Site| site.depth < 2.5 && site.p[2] > -22.0 && site.p[0].abs() > 12.0;
    let site = pick(sites, rng, on_vault)?;
    let middle = site.p;
    let outward = unit([middle[0], middle[1], 0.35 * middle[2]]);
    let level = unit(cross([0.0, 0.0, 1.0], outward));
    let along = [level, cross(outward, level)];
    let oval = rng.random_range(0.8..1.25f32);
    Some(if crescent {
        let thickness = rng.random_range(2.2..4.2) * volume_ml.powf(0.36);
        let radius = (volume_ml * 1000.0 / thickness / 2.2).sqrt();
        let oval = oval * 1.4;
        let extent = [radius * oval.sqrt(), radius / oval.sqrt()];
        Shape::Sheet { middle, along, extent, thickness, power: 4, side: Some(middle[0].signum()) }
    } else {
        let ratio = rng.random_range(0.34..0.72f32);
        let radius = (volume_ml * 1000.0 / (1.57 * ratio)).cbrt();
        let extent = [radius * oval, radius / oval];
        Shape::Sheet { middle, along, extent, thickness: radius * ratio, power: 2, side: None }
    })
}

fn pool(sites: &[Site], deep: bool, rng: &mut ChaCha8Rng) -> Option<Shape> {
    let fits = |site: &Site| {
        site.fluid > 0.8
            && if deep { site.depth > 25.0 && site.p[2] > -25.0 } else { (1.0..16.0).contains(&site.depth) }
    };
    let site = pick(sites, rng, fits)?;
    let off: V3 = scale(direction(rng), 3.0);
    Some(Shape::Fluid { middle: add(site.p, off), radius: 16.0, deep })
}

/// The size at which a shape holds the volume; where the head has no room for it, the largest.
fn sized(shape: &Shape, volume_ml: f32, sites: &[Site], noise: &ValueNoise) -> Shape {
    let most = if matches!(shape, Shape::Fluid { .. }) { 4.0 } else { 2.2 };
    let volume = |s: f32| -> f32 {
        let tried = shape.scaled(s);
        sites.iter().filter(|site| tried.inside(site, noise) > 0.0).map(|site| site.cell_ml).sum()
    };
    let (mut low, mut high) = (0.2f32, most);
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if volume(middle) < volume_ml { low = middle } else { high = middle }
    }
    shape.scaled(0.5 * (low + high))
}
