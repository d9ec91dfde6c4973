//! Measures weights on held-out phantom studies, the way serving sees a study: brain masks computed
//! from the pixels, one function for the model's input, maps brought back to the source grid.

use std::path::Path;

use ichor_ct::input::InputPreset;
use ichor_ct::refine::Tissue;
use ichor_model::{Strategy, Swin};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use crate::data::DataError;
use crate::maps::{MapsError, all_maps};
use crate::measure::{NEVER_POSITIVE, SliceMeasure, StudyMeasure, Trial};
use crate::metrics::OverlapCurve;
use crate::phantoms::{PhantomError, PhantomMix, generator_fingerprint};
use crate::prepared::{PreparedStudy, ReadySlice, prepare};
use crate::progress::Progress;
use crate::seeds::SeedRange;

/// A study cannot be measured.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The phantom cannot be made or written.
    #[error(transparent)]
    Phantom(#[from] PhantomError),
    /// The data that the recipe names cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network or its maps fail.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// The network under evaluation.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The network, weights loaded.
    pub network: &'a Swin,
    /// How its logits are read.
    pub strategy: Strategy,
    /// Its input preset.
    pub preset: InputPreset,
    /// Its device.
    pub device: Device,
}

/// Measures the studies of a seed range. A few phantoms are generated beside each other; the network works on one study
/// after the other. `cache` keeps the studies for the next candidate.
///
/// # Errors
/// [`EvaluateError`].
pub fn measure(
    subject: &Subject<'_>,
    seeds: SeedRange,
    mix: &PhantomMix,
    trial: &Trial,
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<Vec<StudyMeasure>, EvaluateError> {
    let (size, preset) = (subject.size(), subject.preset);
    let fingerprint = generator_fingerprint();
    let cache = cache.map(|folder| (folder, fingerprint.as_str()));
    let all: Vec<u64> = seeds.seeds().collect();
    let mut measured = Vec::with_capacity(all.len());
    for group in all.chunks(rayon::current_num_threads().max(1)) {
        let prepared: Vec<PreparedStudy> = group
            .par_iter()
            .map(|&seed| prepare(seed, mix, preset, size, cache))
            .collect::<Result<_, PhantomError>>()?;
        for study in prepared {
            measured.push(measure_study(subject, &study, trial)?);
            progress.evaluated(measured.len(), all.len());
        }
    }
    Ok(measured)
}

/// Measures one prepared study.
///
/// # Errors
/// [`EvaluateError::Maps`].
pub fn measure_study(
    subject: &Subject<'_>,
    study: &PreparedStudy,
    trial: &Trial,
) -> Result<StudyMeasure, EvaluateError> {
    let slices: Vec<&ReadySlice> = study.slices.iter().map(|slice| &slice.ready).collect();
    let probabilities = subject.probabilities(&slices)?;
    let near = |i: usize| &probabilities[i.saturating_sub(2)..(i + 3).min(slices.len())];
    let suspected = |i: usize| near(i).iter().any(|p| *p >= NEVER_POSITIVE);
    let mapped: Vec<usize> = (0..slices.len()).filter(|&i| study.slices[i].label.any() || suspected(i)).collect();
    let mut overlaps: Vec<Overlaps> = vec![Overlaps::default(); slices.len()];
    for batch in mapped.chunks(8) {
        let inputs = subject.stack(batch.iter().map(|&i| slices[i]))?;
        let brains = stack_brains(batch.iter().map(|&i| slices[i]), subject)?;
        let maps = all_maps(subject.network, subject.strategy, &inputs, &brains)?;
        let here: Vec<Overlaps> = batch
            .par_iter()
            .zip(maps)
            .map(|(&index, maps)| Overlaps::of(&maps, slices[index], &study.slices[index].mask, trial))
            .collect();
        batch.iter().zip(here).for_each(|(&index, here)| overlaps[index] = here);
    }
    let measures =
        slices.iter().zip(overlaps).enumerate().map(|(i, (slice, Overlaps { curves, refined }))| SliceMeasure {
            offset_mm: study.slices[i].offset_mm,
            label: study.slices[i].label,
            probability: probabilities[i],
            brightness: slice.brightness,
            brightness_overlap: overlap_counts(&slice.bright_mask, &study.slices[i].mask),
            curves,
            refined,
            pixel_ml: study.slices[i].pixel_ml,
        });
    let (seed, truth_ml, difficulty) = (study.seed, study.truth_ml, study.difficulty);
    Ok(StudyMeasure { seed, truth_ml, difficulty, slices: measures.collect() })
}

/// Overlap of a slice's maps with the truth, plain and refined.
#[derive(Clone, Default)]
struct Overlaps {
    curves: Vec<OverlapCurve>,
    refined: Vec<Vec<Option<(usize, usize, usize)>>>,
}

impl Overlaps {
    /// On the source grid, inside the brain mask, as serving masks it.
    fn of(maps: &[Vec<f32>], slice: &ReadySlice, truth: &[u8], trial: &Trial) -> Self {
        let tissue = Tissue::new(&slice.refine_input());
        let mut overlaps = Self::default();
        for (map, options) in maps.iter().zip(&trial.0) {
            let source = slice.map_on_source(map);
            overlaps.curves.push(OverlapCurve::new(&source, truth));
            let pointed = tissue.pointed_at(&source);
            let refined = options.iter().map(|options| Some(overlap_counts(&pointed.mask(options)?, truth)));
            overlaps.refined.push(refined.collect());
        }
        overlaps
    }
}

fn overlap_counts(mask: &[u8], truth: &[u8]) -> (usize, usize, usize) {
    // In blocks whose sums fit into a byte: this is asked for every refinement that is tried.
    const BLOCK: usize = 255;
    let blocks = mask.chunks(BLOCK).zip(truth.chunks(BLOCK));
    blocks.fold((0, 0, 0), |(both, predicted, true_pixels), (mask, truth)| {
        let pairs = || mask.iter().map(|m| u8::from(*m != 0)).zip(truth.iter().map(|t| u8::from(*t != 0)));
        let sums = pairs().fold((0u8, 0u8, 0u8), |sums, (m, t)| (sums.0 + (m & t), sums.1 + m, sums.2 + t));
        (both + usize::from(sums.0), predicted + usize::from(sums.1), true_pixels + usize::from(sums.2))
    })
}

impl Subject<'_> {
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.network.plan().config.img_size).unwrap_or_default()
    }

    /// Probability of each slice, a few slices at a time.
    ///
    /// # Errors
    /// [`EvaluateError::Maps`] if libtorch refuses.
    pub fn probabilities(&self, slices: &[&ReadySlice]) -> Result<Vec<f32>, EvaluateError> {
        let _frozen = tch::no_grad_guard();
        let mut probabilities = Vec::with_capacity(slices.len());
        for batch in slices.chunks(16) {
            let logits = self.network.forward(&self.stack(batch.iter().copied())?);
            let batch = self.strategy.probability(&logits).f_to_device(Device::Cpu).map_err(MapsError::from)?;
            probabilities.extend(Vec::<f32>::try_from(&batch).map_err(MapsError::from)?);
        }
        Ok(probabilities)
    }

    pub(crate) fn stack<'s>(&self, slices: impl Iterator<Item = &'s ReadySlice>) -> Result<Tensor, EvaluateError> {
        let values: Vec<f32> = slices.flat_map(|slice| &slice.input).copied().collect();
        let size = self.network.plan().config.img_size;
        let tensor = Tensor::f_from_slice(&values)
            .and_then(|t| t.f_reshape([-1, 3, size, size]))
            .and_then(|t| t.f_to_device(self.device));
        Ok(tensor.map_err(MapsError::from)?)
    }
}

pub(crate) fn stack_brains<'s>(
    slices: impl Iterator<Item = &'s ReadySlice>,
    subject: &Subject<'_>,
) -> Result<Tensor, EvaluateError> {
    let size = subject.network.plan().config.img_size;
    let values: Vec<u8> = slices.flat_map(|slice| slice.grid.mask_to_input(&slice.brain)).collect();
    let tensor = Tensor::f_from_slice(&values)
        .and_then(|t| t.f_reshape([-1, size, size]))
        .and_then(|t| t.f_ne(0)?.f_to_kind(Kind::Float))
        .and_then(|t| t.f_to_device(subject.device));
    Ok(tensor.map_err(MapsError::from)?)
}
