//! Lesions implanted into a real head: anatomy that no generator has, with a truth that no reader has to draw.
//!
//! A real series without a bleed lends skull, brain, noise and artefacts; a seed gives each study its own scanner
//! ([`Variation`]) and its own bleeds, laid into what the images show: sheets along the measured inner table, lumps in the
//! tissue, blood in place of fluid. The scanner's own grain stays in the blood.

mod paint;
mod shape;
mod variation;

use ichor_core::ImagePlane;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::PhantomError;
use crate::geometry::{V3, scale, sub};
use crate::noise::ValueNoise;
use crate::options::{BleedPlan, generator};
use crate::phantom::{Bleed, PhantomSlice, bleeds_of};
use crate::plan::draw;
use crate::render::MOST_LESIONS;
use paint::Painter;
use shape::Site;
use variation::Variation;

/// Streams of the seed's generator.
mod stream {
    pub(super) const VARIATION: u64 = 20;
    pub(super) const BLEEDS: u64 = 21;
    pub(super) const NOISE: u64 = 22;
    /// Slice `i` has stream `SLICES + i`.
    pub(super) const SLICES: u64 = 2000;
}

/// A slice of a real head.
#[derive(Clone, Debug)]
pub struct HeadSlice {
    /// Where it lies.
    pub plane: ImagePlane,
    /// Extent along the normal that it stands for, mm.
    pub slab_mm: f64,
    /// Slice thickness, mm.
    pub thickness_mm: f64,
    /// Hounsfield units, row by row.
    pub hu: Vec<i16>,
    /// 1 inside the skull, row by row.
    pub brain: Vec<u8>,
    /// Distance in the plane from the outside of the skull's inside, mm, row by row; 0 outside.
    pub depth_mm: Vec<f32>,
}

/// A real head without a bleed, ready to be given some.
#[derive(Clone, Debug)]
pub struct RealHead {
    slices: Vec<HeadSlice>,
    /// Middle of the inside of the skull, in the patient's coordinates, mm.
    centre: [f64; 3],
}

/// A study made of a real head.
#[derive(Clone, Debug)]
pub struct Implanted {
    /// Slices in the head's order.
    pub slices: Vec<PhantomSlice>,
    /// What was implanted.
    pub bleeds: Vec<Bleed>,
    /// Volume of all masks, mL.
    pub truth_ml: f64,
}

/// Smoothed values below this are fluid, HU; and over so many HU more the share of fluid falls to nothing.
const FLUID_HU: f32 = 19.0;

impl RealHead {
    /// Takes the slices of one series in their order.
    ///
    /// # Errors
    /// [`PhantomError::Option`] if sizes do not agree or there is no inside of a skull.
    pub fn new(slices: Vec<HeadSlice>) -> Result<Self, PhantomError> {
        let fail = |why: String| PhantomError::Option { name: "real head", why };
        let (mut sum, mut count) = ([0.0f64; 3], 0u32);
        for (index, slice) in slices.iter().enumerate() {
            let pixels = slice.plane.rows as usize * slice.plane.columns as usize;
            if [slice.hu.len(), slice.brain.len(), slice.depth_mm.len()] != [pixels; 3] {
                return Err(fail(format!("slice {index} does not have {pixels} values in each layer")));
            }
            let columns = slice.plane.columns as usize;
            for at in (0..pixels).step_by(7).filter(|&at| slice.brain[at] != 0) {
                let p = patient(&slice.plane, at / columns, at % columns);
                (0..3).for_each(|axis| sum[axis] += p[axis]);
                count += 1;
            }
        }
        if count < 100 {
            return Err(fail("no slice shows the inside of a skull".to_owned()));
        }
        Ok(Self { slices, centre: sum.map(|s| s / f64::from(count)) })
    }

    /// How many slices it has.
    #[must_use]
    pub fn slice_count(&self) -> usize {
        self.slices.len()
    }

    /// The study of a seed: another scanner's images of this head, or of its mirror image, with the bleeds of the plan. The
    /// same seed, head and plan give the same bytes, and without bleeds the same images.
    ///
    /// `min_slice_area_mm2` of [`crate::BleedRanges`] holds here too. `varied` false leaves the images as they are.
    ///
    /// # Errors
    /// [`PhantomError::Option`] if the plan asks for more than there can be.
    pub fn implant(&self, seed: u64, plan: &BleedPlan, varied: bool) -> Result<Implanted, PhantomError> {
        crate::PhantomOptions::default().with_bleeds(plan.clone()).checked()?;
        let variation = if varied { Variation::draw(&mut generator(seed, stream::VARIATION)) } else { Variation::NONE };
        let mut rng = generator(seed, stream::BLEEDS);
        let (specs, least_mm2) = match plan {
            BleedPlan::None => (Vec::new(), 0.0),
            BleedPlan::Random(ranges) => (draw(ranges, &mut rng), ranges.min_slice_area_mm2),
            BleedPlan::Listed(specs) => (specs.clone(), 0.0),
        };
        let varied: Vec<HeadSlice> = self
            .slices
            .par_iter()
            .enumerate()
            .map(|(index, slice)| variation.apply(slice, &mut generator(seed, stream::SLICES + index as u64)))
            .collect();
        let noise = ValueNoise::new(&mut generator(seed, stream::NOISE));
        let smooth: Vec<Vec<f32>> = varied.par_iter().map(paint::smoothed).collect();
        let sites = if specs.is_empty() { Vec::new() } else { self.sites(&varied, &smooth) };
        let mut lesions = Vec::new();
        for spec in specs.iter().take(MOST_LESIONS) {
            let lesion = shape::lesion(spec, &sites, &noise, &mut rng);
            lesions.extend(lesion);
        }
        let painter = Painter { lesions: &lesions, noise: &noise, centre: self.centre, least_mm2 };
        let slices: Vec<PhantomSlice> =
            varied.into_par_iter().zip(&smooth).map(|(slice, smooth)| painter.paint(slice, smooth)).collect();
        let facts = lesions.iter().map(|lesion| (lesion.subtype, lesion.hu, lesion.asked_ml, lesion.thickness()));
        let bleeds = bleeds_of(&slices, facts);
        let truth_ml = slices.iter().map(|s| s.bleed_pixels() as f64 * s.voxel_ml()).sum();
        Ok(Implanted { slices, bleeds, truth_ml })
    }

    /// Places inside the skull, a few millimetres apart, at which shapes are measured.
    fn sites(&self, slices: &[HeadSlice], smooth: &[Vec<f32>]) -> Vec<Site> {
        let mut sites = Vec::new();
        for (slice, smooth) in slices.iter().zip(smooth) {
            let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
            let step = ((1.6 / slice.plane.spacing[0]).round() as usize).max(1);
            let cell_ml = (slice.slab_mm * slice.plane.pixel_area() * (step * step) as f64 / 1000.0) as f32;
            for row in (step / 2..rows).step_by(step) {
                for column in (step / 2..columns).step_by(step) {
                    let at = row * columns + column;
                    if slice.brain[at] != 0 {
                        let p = from_centre(&slice.plane, row, column, self.centre);
                        sites.push(Site { p, depth: slice.depth_mm[at], fluid: fluid(smooth[at]), cell_ml });
                    }
                }
            }
        }
        sites
    }
}

/// Share of fluid from a smoothed value, 0 to 1.
fn fluid(hu: f32) -> f32 {
    ((FLUID_HU + 4.0 - hu) / 8.0).clamp(0.0, 1.0)
}

fn patient(plane: &ImagePlane, row: usize, column: usize) -> [f64; 3] {
    let (down, across) = (row as f64 * plane.spacing[0], column as f64 * plane.spacing[1]);
    std::array::from_fn(|i| plane.position[i] + plane.column[i] * down + plane.row[i] * across)
}

fn from_centre(plane: &ImagePlane, row: usize, column: usize, centre: [f64; 3]) -> V3 {
    let p = patient(plane, row, column);
    std::array::from_fn(|i| (p[i] - centre[i]) as f32)
}

/// A direction drawn evenly from the sphere.
fn direction(rng: &mut ChaCha8Rng) -> V3 {
    loop {
        let v: V3 = std::array::from_fn(|_| rng.random_range(-1.0..1.0f32));
        let square = v.iter().map(|x| x * x).sum::<f32>();
        if (0.05..1.0).contains(&square) {
            return scale(sub(v, [0.0; 3]), 1.0 / square.sqrt());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BleedSpec, Phantom, PhantomOptions};
    use ichor_core::HemorrhageSubtype;

    /// A phantom stands for the real head: its brain is known.
    fn head() -> RealHead {
        let options = PhantomOptions::default().with_matrix(128).with_slices(30);
        let phantom = Phantom::generate(5, &options).unwrap();
        let slices = phantom.slices.into_iter().map(|slice| {
            let (rows, columns) = (slice.plane.rows as i64, slice.plane.columns as i64);
            let inside = |r: i64, c: i64| {
                (0..rows).contains(&r) && (0..columns).contains(&c) && slice.brain[(r * columns + c) as usize] != 0
            };
            let depth_mm = (0..rows * columns)
                .map(|at| {
                    let (r, c) = (at / columns, at % columns);
                    let near = (0..60i64)
                        .find(|d| [(-d, 0), (*d, 0), (0, -d), (0, *d)].iter().any(|(dr, dc)| !inside(r + dr, c + dc)));
                    near.unwrap_or(60) as f32 * slice.plane.spacing[0] as f32
                })
                .collect();
            HeadSlice {
                thickness_mm: slice.slab_mm,
                slab_mm: slice.slab_mm,
                plane: slice.plane,
                hu: slice.hu.clone(),
                brain: slice.brain.clone(),
                depth_mm,
            }
        });
        RealHead::new(slices.collect()).unwrap()
    }

    #[test]
    fn every_subtype_holds_about_the_volume_asked_for() {
        let head = head();
        for subtype in HemorrhageSubtype::ALL {
            for volume_ml in [6.0, 25.0] {
                let fluid = matches!(subtype, HemorrhageSubtype::Intraventricular | HemorrhageSubtype::Subarachnoid);
                let plan = BleedPlan::Listed(vec![BleedSpec { subtype, volume_ml, hu: 65.0 }]);
                let study = head.implant(11, &plan, false).unwrap();
                let ratio = study.truth_ml / f64::from(volume_ml);
                // There is only so much fluid in a head.
                let least = if fluid { 0.15 } else { 0.55 };
                assert!((least..1.6).contains(&ratio), "{subtype:?} {volume_ml} mL became {:.1}", study.truth_ml);
                assert_eq!(study.bleeds.len(), 1);
                assert_eq!(study.bleeds[0].subtype, subtype);
            }
        }
    }

    #[test]
    fn blood_is_as_dense_as_asked_and_nothing_else_changes() {
        let head = head();
        let subtype = HemorrhageSubtype::Intraparenchymal;
        let plan = BleedPlan::Listed(vec![BleedSpec { subtype, volume_ml: 30.0, hu: 70.0 }]);
        let (with, without) = (head.implant(3, &plan, true).unwrap(), head.implant(3, &BleedPlan::None, true).unwrap());
        assert!(without.bleeds.is_empty() && without.truth_ml == 0.0);
        let (mut sum, mut count) = (0.0, 0.0);
        for (a, b) in with.slices.iter().zip(&without.slices) {
            if !a.is_positive() && !b.is_positive() {
                let far = a.hu.iter().zip(&b.hu).filter(|(a, b)| a > b).count();
                assert!(far * 50 < a.hu.len(), "{far} pixels brighter on a slice without blood");
            }
            for (at, bleed) in a.bleed.iter().enumerate() {
                assert!(*bleed == 0 || a.brain[at] != 0, "blood outside the skull");
                if *bleed != 0 {
                    sum += f64::from(a.hu[at]);
                    count += 1.0;
                }
            }
        }
        let mean: f64 = sum / count;
        assert!((60.0..74.0).contains(&mean), "{mean:.1} HU");
    }

    #[test]
    fn a_seed_is_a_study() {
        let head = head();
        let plan = BleedPlan::Random(crate::BleedRanges::default());
        let (one, again) = (head.implant(8, &plan, true).unwrap(), head.implant(8, &plan, true).unwrap());
        assert_eq!(one.slices, again.slices);
        assert_ne!(one.slices, head.implant(9, &plan, true).unwrap().slices);
        let plain = head.implant(8, &BleedPlan::None, false).unwrap();
        assert!(plain.slices.iter().zip(&head.slices).all(|(made, given)| made.hu == given.hu), "left as they are");
    }

    #[test]
    fn layers_of_other_sizes_are_refused() {
        let mut slices = head().slices;
        slices[3].brain.pop();
        assert!(RealHead::new(slices).unwrap_err().to_string().contains("slice 3"));
        assert!(RealHead::new(Vec::new()).unwrap_err().to_string().contains("inside of a skull"));
    }
}
