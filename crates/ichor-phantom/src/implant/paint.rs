//! Blood painted into a slice.

use super::shape::{Lesion, Site};
use super::{HeadSlice, fluid, from_centre};
use crate::geometry::{V3, add, lerp, ramp, scale, smooth, unit};
use crate::noise::ValueNoise;
use crate::phantom::PhantomSlice;
use crate::render::MOST_LESIONS;
use crate::scanner::blur;

/// Values are smoothed by this much to tell fluid from tissue and grain from both, mm.
const SMOOTH_MM: f32 = 1.3;
/// Most of the scanner's grain that stays in the blood, HU: near bone a difference to the neighbourhood is no grain.
const MOST_GRAIN_HU: f32 = 10.0;

/// A slice's values inside the skull without their grain; bone is left out of the mean.
pub(super) fn smoothed(slice: &HeadSlice) -> Vec<f32> {
    let columns = slice.plane.columns as usize;
    let sigma = SMOOTH_MM / slice.plane.spacing[0] as f32;
    let soft = |at: usize| slice.brain[at] != 0 && (-60..110).contains(&slice.hu[at]);
    let weight = |at: usize| f32::from(u8::from(soft(at)));
    let mut weights: Vec<f32> = (0..slice.hu.len()).map(weight).collect();
    let mut values: Vec<f32> = slice.hu.iter().enumerate().map(|(at, hu)| f32::from(*hu) * weight(at)).collect();
    blur(&mut weights, columns, sigma);
    blur(&mut values, columns, sigma);
    values.iter().zip(&weights).map(|(value, weight)| if *weight > 0.02 { value / weight } else { 33.0 }).collect()
}

/// What all slices are painted with.
pub(super) struct Painter<'a> {
    pub(super) lesions: &'a [Lesion],
    pub(super) noise: &'a ValueNoise,
    /// Middle of the head, the patient's coordinates, mm.
    pub(super) centre: [f64; 3],
    /// Less blood than this on a slice is left out of it, mm².
    pub(super) least_mm2: f64,
}

/// What a voxel becomes.
struct Voxel {
    hu: f32,
    blood: f32,
    lesion: usize,
}

impl Painter<'_> {
    pub(super) fn paint(&self, slice: HeadSlice, smooth: &[f32]) -> PhantomSlice {
        let HeadSlice { plane, slab_mm, thickness_mm, hu, brain, depth_mm } = slice;
        let (rows, columns) = (plane.rows as usize, plane.columns as usize);
        let mut painted = hu.clone();
        let mut bleed = vec![0u8; hu.len()];
        let mut lesion_pixels = [0u64; MOST_LESIONS];
        let normal: V3 = unit(plane.normal().map(|x| x as f32));
        let parts = [-0.33f32, 0.0, 0.33].map(|share| scale(normal, share * thickness_mm as f32));
        for row in 0..rows {
            for column in 0..columns {
                let at = row * columns + column;
                if self.lesions.is_empty() || brain[at] == 0 {
                    continue;
                }
                let p = from_centre(&plane, row, column, self.centre);
                let site = Site { p, depth: depth_mm[at], fluid: fluid(smooth[at]), cell_ml: 0.0 };
                let Some(voxel) = self.voxel(&site, &parts, f32::from(hu[at]), smooth[at]) else { continue };
                painted[at] = voxel.hu.round().clamp(-1024.0, 3071.0) as i16;
                if voxel.blood >= 0.5 {
                    bleed[at] = 1 + self.lesions[voxel.lesion].subtype as u8;
                    lesion_pixels[voxel.lesion] += 1;
                }
            }
        }
        let area = lesion_pixels.iter().sum::<u64>() as f64 * plane.pixel_area();
        if area < self.least_mm2 {
            painted = hu;
            bleed.fill(0);
            lesion_pixels = [0; MOST_LESIONS];
        }
        PhantomSlice { plane, slab_mm, hu: painted, brain, bleed, lesion_pixels }
    }

    /// `None` where nothing changes. Bone at the edge of the mask keeps its value: blood lies before it.
    fn voxel(&self, site: &Site, parts: &[V3; 3], hu: f32, smooth_hu: f32) -> Option<Voxel> {
        let (mut most, mut lesion_at, mut tissue) = (0.0f32, 0, hu);
        for (index, lesion) in self.lesions.iter().enumerate() {
            let half = lesion.edge;
            let inside = parts.map(|offset| lesion.shape.inside(&Site { p: add(site.p, offset), ..*site }, self.noise));
            let share = inside.iter().map(|d| ramp(*d, half)).sum::<f32>() / 3.0;
            if share > most {
                (most, lesion_at) = (share, index);
            }
            if let Some((drop, reach)) = lesion.oedema {
                let nearest = inside.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if smooth_hu < 60.0 {
                    tissue = tissue.min(hu - drop * smooth(-reach, 0.0, nearest));
                }
            }
        }
        if most <= 0.0 && tissue >= hu {
            return None;
        }
        let lesion = &self.lesions[lesion_at];
        let clots = self.noise.at(site.p.map(|x| x / 5.0)) + 0.6 * self.noise.at(site.p.map(|x| x / 14.0 + 3.3));
        let grain = (hu - smooth_hu).clamp(-MOST_GRAIN_HU, MOST_GRAIN_HU);
        // Near the table the blood shares its voxels with bone.
        let bone = ((hu - 100.0) / 100.0).clamp(0.0, 1.0);
        let blood_hu = lerp(lesion.hu + 3.5 * clots + grain, hu, bone);
        Some(Voxel { hu: lerp(tissue, blood_hu, most), blood: most, lesion: lesion_at })
    }
}
