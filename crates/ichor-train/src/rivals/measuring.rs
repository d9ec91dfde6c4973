//! Rivals on held-out studies: scores, calls and masks on the source grid.

use std::path::Path;

use ichor_ct::input::InputPreset;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::RivalError;
use super::learners::foreground_score;
use super::networks::{ResNetLstm, Segmenter};
use super::recipe::RivalRecipe;
use crate::binarise::{Binarisation, GridCurve, grid_search_on_other_folds, stratified_folds};
use crate::outcome::{MaskOutcome, SliceOutcome};
use crate::phantoms::PhantomMix;
use crate::prepared::{PreparedSlice, PreparedStudy, prepare};
use crate::progress::Progress;
use crate::seeds::SeedRange;

/// 95 % Hausdorff distance in mm of a mask on the source grid from the slice's truth; `None` where either is empty.
pub type SurfaceDistance = dyn Fn(&PreparedSlice, &[u8]) -> Option<f64> + Sync;

/// Slices that go through a supervised network at once.
const AT_ONCE: usize = 8;

/// Held-out studies, from wherever they come.
pub trait StudySource: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// The study at a place below [`StudySource::count`]; it is asked for twice.
    ///
    /// # Errors
    /// [`RivalError`] if it cannot be read or made.
    fn study(&self, index: usize) -> Result<PreparedStudy, RivalError>;
}

/// Phantoms as held-out studies.
#[derive(Debug, Clone, Copy)]
pub(super) struct PhantomStudies<'a> {
    pub(super) seeds: SeedRange,
    pub(super) mix: &'a PhantomMix,
    pub(super) preset: InputPreset,
    pub(super) size: usize,
    pub(super) cache: &'a Path,
    /// Fingerprint of the generator.
    pub(super) generator: &'a str,
}

impl StudySource for PhantomStudies<'_> {
    fn count(&self) -> usize {
        usize::try_from(self.seeds.studies).unwrap_or(usize::MAX)
    }

    fn study(&self, index: usize) -> Result<PreparedStudy, RivalError> {
        let seed = self.seeds.first.wrapping_add(index as u64);
        Ok(prepare(seed, self.mix, self.preset, self.size, Some((self.cache, self.generator)))?)
    }
}

/// Hands the studies to `each`, in order; a few are made ready beside each other.
fn for_each_study(
    studies: &dyn StudySource,
    mut each: impl FnMut(PreparedStudy) -> Result<(), RivalError>,
) -> Result<(), RivalError> {
    let all: Vec<usize> = (0..studies.count()).collect();
    for group in all.chunks(rayon::current_num_threads().max(1)) {
        let prepared: Vec<PreparedStudy> =
            group.par_iter().map(|&index| studies.study(index)).collect::<Result<_, _>>()?;
        prepared.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// A trained rival.
pub(super) enum Trained {
    /// Learned from masks.
    Masks(Box<dyn Segmenter>),
    /// Learned from the labels of slices.
    Scans(Box<ResNetLstm>),
}

/// What a network says of a slice before its map becomes a mask.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) score: f32,
    pub(super) called: bool,
    /// The map, S × S, 0..1; only for slices that bleed or are called.
    pub(super) map: Option<Vec<f32>>,
}

impl Trained {
    fn read(&self, study: &PreparedStudy, rival: &RivalRecipe, device: Device) -> Result<Vec<Reading>, RivalError> {
        let _frozen = tch::no_grad_guard();
        match self {
            Self::Masks(network) => read_masks(network.as_ref(), study, rival, device),
            Self::Scans(network) => read_scan(network, study, device),
        }
    }
}

fn read_masks(
    network: &dyn Segmenter,
    study: &PreparedStudy,
    rival: &RivalRecipe,
    device: Device,
) -> Result<Vec<Reading>, RivalError> {
    let mut readings = Vec::with_capacity(study.slices.len());
    for batch in study.slices.chunks(AT_ONCE) {
        let logits = network.logits(&inputs(batch, device)?)?;
        let foreground = logits.f_softmax(1, Kind::Float)?.f_select(1, 1)?.f_to_device(Device::Cpu)?; // [batch, S, S]
        for (at, slice) in batch.iter().enumerate() {
            let map = foreground.f_select(0, index(at))?;
            let (score, pixels) = foreground_score(&map)?;
            let called = pixels > rival.min_pixels;
            let wanted = called || slice.label.any();
            let map = wanted.then(|| values(&map)).transpose()?;
            readings.push(Reading { score, called, map });
        }
    }
    Ok(readings)
}

fn read_scan(network: &ResNetLstm, study: &PreparedStudy, device: Device) -> Result<Vec<Reading>, RivalError> {
    let scan = network.read(&inputs(&study.slices, device)?)?;
    let scores = values(&scan.logits.f_sigmoid()?.f_to_device(Device::Cpu)?)?;
    let mut readings = Vec::with_capacity(scores.len());
    for (at, (slice, score)) in study.slices.iter().zip(scores).enumerate() {
        let called = score >= 0.5;
        let map = if called || slice.label.any() {
            Some(activation_map(&network.activation(&scan, index(at))?, slice)?)
        } else {
            None
        };
        readings.push(Reading { score, called, map });
    }
    Ok(readings)
}

/// A class-activation map `[g, g]` at the input's size, inside the brain mask, min–max normalised.
fn activation_map(activation: &Tensor, slice: &PreparedSlice) -> Result<Vec<f32>, RivalError> {
    let grid = &slice.ready.grid;
    let side = index(grid.size);
    let plane = activation.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let map = values(&plane.f_upsample_bilinear2d([side, side], false, None, None)?.f_to_device(Device::Cpu)?)?;
    let brain = grid.mask_to_input(&slice.ready.brain);
    let map: Vec<f32> = map.iter().zip(brain).map(|(value, brain)| if brain == 0 { 0.0 } else { *value }).collect();
    let least = map.iter().copied().fold(f32::INFINITY, f32::min);
    let most = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = if most > least { most - least } else { 1.0 };
    Ok(map.into_iter().map(|value| (value - least) / range).collect())
}

fn inputs(slices: &[PreparedSlice], device: Device) -> Result<Tensor, tch::TchError> {
    let size = index(slices.first().map_or(0, |slice| slice.ready.grid.size));
    let flat: Vec<f32> = slices.iter().flat_map(|slice| &slice.ready.input).copied().collect();
    Tensor::f_from_slice(&flat)?.f_reshape([index(slices.len()), 3, size, size])?.f_to_device(device)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, tch::TchError> {
    Vec::<f32>::try_from(&tensor.f_contiguous()?.f_reshape([-1])?)
}

fn index(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// How the maps of a rival become masks on the source grid.
enum Rule {
    /// A supervised network's own word: foreground probability 0.5 and above, wherever it lies.
    ArgMax,
    /// A rule on maps inside the brain mask, with the threshold of each study's fold where it searches for one.
    Binarised(Binarisation, Option<Vec<f32>>),
}

impl Rule {
    fn mask(&self, slice: &PreparedSlice, map: &[f32], study: usize) -> Result<Vec<u8>, RivalError> {
        let grid = &slice.ready.grid;
        match self {
            Self::ArgMax => Ok(grid.map_to_source(map).into_iter().map(|value| u8::from(value >= 0.5)).collect()),
            Self::Binarised(rule, chosen) => {
                let chosen = chosen.as_ref().and_then(|chosen| chosen.get(study).copied());
                let cut = rule.cut(map, grid.size, chosen)?;
                Ok(grid.mask_to_source(&cut.map, cut.threshold, &slice.ready.brain))
            }
        }
    }
}

/// What measuring gives: the outcome of each slice, and how maps became masks.
pub(super) struct Measured {
    pub(super) studies: Vec<Vec<SliceOutcome>>,
    pub(super) binarisation: String,
}

/// Measures a trained rival. The studies are gone through twice: for its maps, and, once thresholds are chosen, for masks.
pub(super) fn measure(
    trained: &Trained,
    rival: &RivalRecipe,
    studies: &dyn StudySource,
    device: Device,
    surface: &SurfaceDistance,
    progress: &mut dyn Progress,
) -> Result<Measured, RivalError> {
    let supervised = matches!(trained, Trained::Masks(_));
    let rule = rival.binarisation();
    let searching = !supervised && matches!(rule, Binarisation::GridSearch { .. });
    let (mut readings, mut curves) = (Vec::new(), Vec::new());
    for_each_study(studies, |study| {
        let read = trained.read(&study, rival, device)?;
        let bleeding = study.slices.iter().zip(&read).filter(|(slice, _)| searching && slice.label.any());
        curves.push(bleeding.filter_map(|(slice, reading)| curve(slice, reading)).collect::<Vec<GridCurve>>());
        readings.push(read);
        progress.evaluated(readings.len(), studies.count());
        Ok(())
    })?;
    let (rule, binarisation) = match (supervised, rule) {
        (true, _) => (Rule::ArgMax, "arg-max of the network".to_owned()),
        (false, Binarisation::GridSearch { folds }) => {
            let bleeding: Vec<usize> = curves.iter().map(Vec::len).collect();
            let fold = stratified_folds(&bleeding, folds)?;
            let chosen = grid_search_on_other_folds(&curves, &fold)?;
            let of_study = fold.iter().map(|&fold| chosen[fold]).collect();
            (Rule::Binarised(rule, Some(of_study)), rule.title(&chosen))
        }
        (false, _) => (Rule::Binarised(rule, None), rule.title(&[])),
    };
    let mut outcomes: Vec<Vec<SliceOutcome>> = Vec::with_capacity(readings.len());
    for_each_study(studies, |study| {
        let at = outcomes.len();
        let slices = study.slices.par_iter().zip(&readings[at]);
        let made: Result<Vec<_>, _> =
            slices.map(|(slice, reading)| outcome(slice, reading, &rule, at, surface)).collect();
        outcomes.push(made?);
        Ok(())
    })?;
    Ok(Measured { studies: outcomes, binarisation })
}

/// Dice of a slice's map on the source grid at every threshold of the grid search, as the mask will be made.
fn curve(slice: &PreparedSlice, reading: &Reading) -> Option<GridCurve> {
    let mut map = slice.ready.grid.map_to_source(reading.map.as_ref()?);
    map.iter_mut().zip(&slice.ready.brain).filter(|(_, brain)| **brain == 0).for_each(|(value, _)| *value = 0.0);
    Some(GridCurve::new(&map, &slice.mask))
}

fn outcome(
    slice: &PreparedSlice,
    reading: &Reading,
    rule: &Rule,
    study: usize,
    surface: &SurfaceDistance,
) -> Result<SliceOutcome, RivalError> {
    let Reading { score, called, map } = reading;
    let mask = match map {
        Some(map) => {
            let mask = rule.mask(slice, map, study)?;
            let count = |wanted: &dyn Fn(u8, u8) -> bool| {
                mask.iter().zip(&slice.mask).filter(|(mask, truth)| wanted(**mask, **truth)).count()
            };
            Some(MaskOutcome {
                intersection: count(&|mask, truth| mask != 0 && truth != 0),
                predicted: count(&|mask, _| mask != 0),
                truth: count(&|_, truth| truth != 0),
                hausdorff95_mm: surface(slice, &mask),
            })
        }
        None => None,
    };
    Ok(SliceOutcome { score: *score, called: *called, mask })
}
