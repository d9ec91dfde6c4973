//! Phantom studies as training and evaluation see them: which kinds are drawn, and slices prepared once and kept.

use std::path::Path;

use ichor_core::{HemorrhageSubtype, ImagePlane};
use ichor_ct::input::{HuImage, InputPreset, PREPROCESSING_VERSION, model_input};
use ichor_phantom::{Bleed, BleedPlan, BleedRanges, Difficulty, Phantom, PhantomOptions, PhantomSlice, Scene};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::anatomy::{AnatomyError, RealHeadMix};
use crate::labels::SliceLabel;
use crate::progress::Progress;
use crate::seeds::{SeedRange, derive};
use crate::slices::{SliceSet, SliceSetError};

/// Phantoms cannot be made or cached.
#[derive(Debug, Error)]
pub enum PhantomError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] SliceSetError),
    /// The generator refuses the options.
    #[error("phantom {0}: {1}")]
    Generate(u64, ichor_phantom::PhantomError),
    /// The real head cannot be had.
    #[error(transparent)]
    Anatomy(#[from] AnatomyError),
}

/// Which phantoms are drawn. Sizes and contrasts of bleeds are the generator's options; this is how a curriculum goes
/// from large to small bleeds without ever showing a mask to the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomMix {
    /// Share of studies with a bleed.
    pub positive_share: f64,
    /// Sides of the matrix, one of which is drawn for each study; a side listed twice is drawn twice as often.
    pub matrices: Vec<u32>,
    /// Smallest slice spacing, mm: thinner scans are drawn at this spacing, so that no head floods the set.
    pub min_spacing_mm: f64,
    /// Bleeds of the positive studies; keys that are absent keep the generator's defaults.
    #[serde(default)]
    pub bleeds: BleedRanges,
    /// Studies made of a real head instead of a synthetic one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_head: Option<RealHeadMix>,
}

/// One study with its truth.
#[derive(Debug, Clone)]
pub struct Study {
    /// The phantom's seed.
    pub seed: u64,
    /// Its slices, foot to head.
    pub slices: Vec<StudySlice>,
    /// Volume of all bleeds, mL.
    pub truth_ml: f64,
    /// How hard its easiest bleed is to see: who sees that one has seen the study bleed. `None` without a bleed.
    pub difficulty: Option<Difficulty>,
}

/// One slice with its truth.
#[derive(Debug, Clone)]
pub struct StudySlice {
    /// Values in HU, row by row.
    pub hu: Vec<i16>,
    /// The plane.
    pub plane: ImagePlane,
    /// What it shows.
    pub label: SliceLabel,
    /// True mask, non-zero where it bleeds.
    pub mask: Vec<u8>,
    /// Volume that one pixel stands for, mL.
    pub pixel_ml: f64,
}

impl PhantomMix {
    /// Says what is wrong with the values, if anything is.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.positive_share) {
            return Err(format!("positive_share {} is not between 0 and 1", self.positive_share));
        }
        if self.matrices.is_empty() {
            return Err("matrices is empty".to_owned());
        }
        self.real_head.as_ref().map_or(Ok(()), RealHeadMix::check)?;
        for seed in 0..4 {
            self.options(seed).checked().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The generator's options for a seed.
    fn options(&self, seed: u64) -> PhantomOptions {
        let mut rng = ChaCha8Rng::seed_from_u64(derive(seed, &[0x6d69_7865]));
        let positive = rng.random_bool(self.positive_share);
        let matrix = self.matrices[rng.random_range(0..self.matrices.len())];
        let mut options = PhantomOptions::random(seed, Some(positive)).with_matrix(matrix);
        if options.slice_spacing_mm < self.min_spacing_mm {
            options = options.with_spacing(self.min_spacing_mm);
        }
        if positive { options.with_bleeds(BleedPlan::Random(self.bleeds.clone())) } else { options }
    }
}

impl PhantomMix {
    /// The real head that the study of a seed is made of; `None` if it is a synthetic one. Drawn from a stream of its own:
    /// mixes without real heads stay what they are.
    fn real_head_of(&self, seed: u64) -> Option<&RealHeadMix> {
        let real = self.real_head.as_ref()?;
        let mut rng = ChaCha8Rng::seed_from_u64(derive(seed, &[0x7265_616c]));
        rng.random_bool(real.share).then_some(real)
    }
}

/// Fingerprint of the generator: what it makes of a small fixed request. Caches carry it, so that a generator that draws
/// otherwise is never mixed with slices of the one before.
#[must_use]
pub fn generator_fingerprint() -> String {
    let bleeds = BleedPlan::Random(BleedRanges::easy());
    let options = PhantomOptions::default().with_matrix(48).with_slices(6).with_bleeds(bleeds);
    let mut digest = Sha256::new();
    if let Ok(phantom) = Phantom::generate(1, &options) {
        for slice in &phantom.slices {
            digest.update(slice.hu.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
            digest.update(&slice.bleed);
        }
    }
    hex::encode(digest.finalize())[..16].to_owned()
}

/// Generates the study of a seed.
///
/// # Errors
/// [`PhantomError::Generate`].
pub fn study(seed: u64, mix: &PhantomMix) -> Result<Study, PhantomError> {
    let refused = |error| PhantomError::Generate(seed, error);
    let options = mix.options(seed);
    let (slices, bleeds, truth_ml): (Vec<PhantomSlice>, Vec<Bleed>, f64) = match mix.real_head_of(seed) {
        Some(real) => {
            let study = real.head()?.implant(seed, &options.bleeds, real.varied).map_err(refused)?;
            (real.chosen(study.slices), study.bleeds, study.truth_ml)
        }
        None => {
            let phantom = Phantom::generate(seed, &options).map_err(refused)?;
            (phantom.slices, phantom.bleeds, phantom.truth_ml)
        }
    };
    let slices: Vec<StudySlice> = slices
        .into_iter()
        .map(|slice| {
            let shows = HemorrhageSubtype::ALL.into_iter().zip(slice.labels()).filter(|(_, shows)| *shows);
            let label = SliceLabel::of(shows.map(|(subtype, _)| subtype));
            let pixel_ml = slice.voxel_ml();
            StudySlice { hu: slice.hu, plane: slice.plane, label, mask: slice.bleed, pixel_ml }
        })
        .collect();
    let difficulty = bleeds.iter().map(|bleed| bleed.difficulty).min();
    Ok(Study { seed, slices, truth_ml, difficulty })
}

/// The slices of a seed range as labelled model inputs, from the cache or generated in parallel and cached.
///
/// # Errors
/// [`PhantomError`].
pub fn slice_set(
    what: &str,
    seeds: SeedRange,
    mix: &PhantomMix,
    preset: InputPreset,
    size: usize,
    cache: &Path,
    progress: &mut dyn Progress,
) -> Result<SliceSet, PhantomError> {
    let key = serde_json::json!({
        "seeds": seeds, "mix": mix, "preset": preset, "size": size, "preprocessing": PREPROCESSING_VERSION,
        "generator": generator_fingerprint(),
    });
    let digest = hex::encode(Sha256::digest(key.to_string()));
    let path = cache.join(format!("{}.slices", &digest[..24]));
    if let Some(set) = SliceSet::read(&path)? {
        return Ok(set);
    }
    let mut set = SliceSet::new(size);
    let all: Vec<u64> = seeds.seeds().collect();
    for (done, group) in all.chunks(8).enumerate() {
        let parts: Vec<SliceSet> =
            group.par_iter().map(|&seed| study_slices(seed, mix, preset, size)).collect::<Result<_, _>>()?;
        parts.into_iter().for_each(|part| set.append(part));
        progress.prepared(what, (done * 8 + group.len()).min(all.len()), all.len());
    }
    set.write(&path)?;
    Ok(set)
}

/// The twins of a set's positive slices, in their order: the same slices of the same heads without the bleed. `base` must
/// be what [`slice_set`] gave for the same arguments.
///
/// # Errors
/// [`PhantomError`].
pub fn twin_set(
    base: &SliceSet,
    mix: &PhantomMix,
    preset: InputPreset,
    cache: &Path,
    progress: &mut dyn Progress,
) -> Result<SliceSet, PhantomError> {
    let positions: Vec<(u64, Vec<usize>)> = base
        .runs()
        .map(|(study, run)| {
            let start = run.start;
            (study, run.filter(|&i| base.labels()[i].any()).map(|i| i - start).collect())
        })
        .collect();
    let key = serde_json::json!({
        "twins": positions, "mix": mix, "preset": preset, "size": base.size(), "preprocessing": PREPROCESSING_VERSION,
        "generator": generator_fingerprint(),
    });
    let digest = hex::encode(Sha256::digest(key.to_string()));
    let path = cache.join(format!("{}.slices", &digest[..24]));
    if let Some(set) = SliceSet::read(&path)? {
        return Ok(set);
    }
    let mut set = SliceSet::new(base.size());
    for (done, group) in positions.chunks(8).enumerate() {
        let twins = |(seed, indices): &(u64, Vec<usize>)| -> Result<SliceSet, PhantomError> {
            let refused = |error| PhantomError::Generate(*seed, error);
            let mut set = SliceSet::new(base.size());
            if let Some(real) = mix.real_head_of(*seed) {
                let bare = real.head()?.implant(*seed, &BleedPlan::None, real.varied).map_err(refused)?;
                let slices = real.chosen(bare.slices);
                for slice in indices.iter().filter_map(|&index| slices.get(index)) {
                    set.push(&input(&slice.hu, &slice.plane, preset, base.size()), SliceLabel::NONE, *seed);
                }
                return Ok(set);
            }
            let scene = Scene::new(*seed, &mix.options(*seed).with_bleeds(BleedPlan::None)).map_err(refused)?;
            for &index in indices {
                let slice = scene.slice(index).map_err(refused)?;
                set.push(&input(&slice.hu, &slice.plane, preset, base.size()), SliceLabel::NONE, *seed);
            }
            Ok(set)
        };
        let parts: Vec<SliceSet> = group.par_iter().map(twins).collect::<Result<_, _>>()?;
        parts.into_iter().for_each(|part| set.append(part));
        progress.prepared("twins", (done * 8 + group.len()).min(positions.len()), positions.len());
    }
    set.write(&path)?;
    Ok(set)
}

fn input(hu: &[i16], plane: &ImagePlane, preset: InputPreset, size: usize) -> Vec<f32> {
    let (rows, columns) = (plane.rows as usize, plane.columns as usize);
    model_input(HuImage { rows, columns, spacing: plane.spacing, hu, window: None }, preset, size).channels
}

fn study_slices(seed: u64, mix: &PhantomMix, preset: InputPreset, size: usize) -> Result<SliceSet, PhantomError> {
    let mut set = SliceSet::new(size);
    for slice in study(seed, mix)?.slices {
        set.push(&input(&slice.hu, &slice.plane, preset, size), slice.label, seed);
    }
    Ok(set)
}
