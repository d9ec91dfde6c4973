//! A whole study: slices, masks, bleeds.

use ichor_core::{HemorrhageSubtype, ImagePlane};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::PhantomError;
use crate::options::{Difficulty, PhantomOptions};
use crate::render::{self, MOST_LESIONS};
use crate::scene::Scene;

/// Attenuation of brain that a bleed's contrast is given against, in HU.
const BRAIN_HU: f32 = 33.0;

/// One slice and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PhantomSlice {
    /// Where it lies.
    pub plane: ImagePlane,
    /// Extent along the normal that the slice stands for, in mm: half the way to either neighbour, and half the slice
    /// thickness at the ends of the stack.
    pub slab_mm: f64,
    /// Hounsfield units, row by row; −1000 where a scanner would write padding.
    pub hu: Vec<i16>,
    /// 1 inside the skull (blood included), row by row.
    pub brain: Vec<u8>,
    /// 0, or 1 + the index of the subtype in [`HemorrhageSubtype::ALL`]: the voxels at least half of which are blood.
    pub bleed: Vec<u8>,
    pub(crate) lesion_pixels: [u64; MOST_LESIONS],
}

impl PhantomSlice {
    /// The mask of all subtypes: 1 where there is blood.
    #[must_use]
    pub fn bleed_mask(&self) -> Vec<u8> {
        self.bleed.iter().map(|b| u8::from(*b != 0)).collect()
    }

    /// Voxels with blood.
    #[must_use]
    pub fn bleed_pixels(&self) -> u64 {
        self.lesion_pixels.iter().sum()
    }

    /// Area of the blood in mm².
    #[must_use]
    pub fn bleed_area_mm2(&self) -> f64 {
        self.bleed_pixels() as f64 * self.plane.pixel_area()
    }

    /// The slice's label: whether any voxel is blood.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.bleed_pixels() > 0
    }

    /// Labels by subtype, in the order of [`HemorrhageSubtype::ALL`].
    #[must_use]
    pub fn labels(&self) -> [bool; 5] {
        let mut labels = [false; 5];
        for b in &self.bleed {
            if let Some(label) = usize::from(*b).checked_sub(1).and_then(|index| labels.get_mut(index)) {
                *label = true;
            }
        }
        labels
    }

    /// Volume of one voxel in mL.
    #[must_use]
    pub fn voxel_ml(&self) -> f64 {
        self.plane.pixel_area() * self.slab_mm / 1000.0
    }
}

/// What is known of one bleed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bleed {
    /// Which.
    pub subtype: HemorrhageSubtype,
    /// Volume of its mask in mL; what another bleed covers counts for that one.
    pub volume_ml: f64,
    /// Volume that was aimed at, in mL.
    pub asked_ml: f64,
    /// Mean attenuation in HU.
    pub hu: f64,
    /// The same, less that of brain.
    pub contrast_hu: f64,
    /// Largest thickness of sheet or lump in mm.
    pub thickness_mm: f64,
    /// How hard it is to see.
    pub difficulty: Difficulty,
    /// Slices on which it is seen.
    pub slices: u32,
}

/// A synthetic study with its truth.
#[derive(Clone, Debug)]
pub struct Phantom {
    /// The seed it came from.
    pub seed: u64,
    /// The scan it was made by.
    pub options: PhantomOptions,
    /// Slices, lowest first.
    pub slices: Vec<PhantomSlice>,
    /// Its bleeds; one that no voxel shows is left out.
    pub bleeds: Vec<Bleed>,
    /// Volume of all masks in mL.
    pub truth_ml: f64,
    /// Radius in mm of the circle that the scanner reconstructs, where it pads outside.
    pub circle_mm: Option<f64>,
}

/// What is known of each bleed: subtype, attenuation in HU, volume asked for in mL, thickness in mm; those that no voxel
/// shows are left out.
pub(crate) fn bleeds_of(
    slices: &[PhantomSlice],
    facts: impl Iterator<Item = (HemorrhageSubtype, f32, f32, f32)>,
) -> Vec<Bleed> {
    let bleed = |(index, (subtype, hu, asked_ml, thickness)): (usize, (HemorrhageSubtype, f32, f32, f32))| {
        let volume_ml: f64 = slices.iter().map(|s| s.lesion_pixels[index] as f64 * s.voxel_ml()).sum();
        let (hu_f64, thickness_mm) = (f64::from(hu), f64::from(thickness));
        Bleed {
            subtype,
            volume_ml,
            asked_ml: f64::from(asked_ml),
            hu: hu_f64,
            contrast_hu: f64::from(hu - BRAIN_HU),
            thickness_mm,
            difficulty: Difficulty::of(volume_ml, hu_f64, thickness_mm),
            slices: slices.iter().filter(|s| s.lesion_pixels[index] > 0).count() as u32,
        }
    };
    facts.enumerate().map(bleed).filter(|bleed| bleed.slices > 0).collect()
}

impl Phantom {
    /// Makes the study of a seed, its slices in parallel. The same seed and options give the same bytes.
    ///
    /// # Errors
    /// [`PhantomError::Option`] if an option makes no scan.
    pub fn generate(seed: u64, options: &PhantomOptions) -> Result<Self, PhantomError> {
        Ok(Self::of(&Scene::new(seed, options)?))
    }

    /// Makes all slices of a scene, in parallel.
    #[must_use]
    pub fn of(scene: &Scene) -> Self {
        let slices: Vec<PhantomSlice> =
            (0..scene.slice_count()).into_par_iter().map(|index| render::slice(scene, index)).collect();
        let facts =
            scene.lesions.iter().map(|lesion| (lesion.subtype, lesion.hu, lesion.asked_ml, lesion.form.thickness()));
        let bleeds = bleeds_of(&slices, facts);
        let truth_ml = slices.iter().map(|s| s.bleed_pixels() as f64 * s.voxel_ml()).sum();
        Self {
            seed: scene.seed,
            options: scene.options.clone(),
            slices,
            bleeds,
            truth_ml,
            circle_mm: scene.scanner.circle_mm,
        }
    }

    /// Whether anything bleeds.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.slices.iter().any(PhantomSlice::is_positive)
    }
}

impl Scene {
    /// Makes one slice, counted from the lowest; several threads may do so at once.
    ///
    /// # Errors
    /// [`PhantomError::Option`] if the scan has no such slice.
    pub fn slice(&self, index: usize) -> Result<PhantomSlice, PhantomError> {
        if index >= self.slice_count() {
            let why = format!("no slice {index} in a scan of {}", self.slice_count());
            return Err(PhantomError::Option { name: "slices", why });
        }
        Ok(render::slice(self, index))
    }
}
