//! What a model and the floor say about one held-out study, before any threshold is chosen.

use std::collections::BTreeMap;

use ichor_core::{Calibration, SliceReading, StudyRule, consistent_probabilities};
use ichor_ct::refine::RefineOptions;
use ichor_phantom::Difficulty;
use serde::{Deserialize, Serialize};

use crate::labels::SliceLabel;
use crate::metrics::OverlapCurve;

/// The maps that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// HGI-SAM with the gradient at the softmax's input, as the reference takes it.
    HgiSamScores,
    /// HGI-SAM with the gradient at the softmax's output, as the paper's text says.
    HgiSamSoftmax,
    /// Swin-SAM: attention alone, no gradient.
    SwinSam,
    /// Grad-CAM on the last block.
    GradCam,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HgiSamScores, Self::HgiSamSoftmax, Self::SwinSam, Self::GradCam];

    /// How a report calls it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::HgiSamScores => "HGI-SAM (gradient at the softmax input)",
            Self::HgiSamSoftmax => "HGI-SAM (gradient at the softmax output)",
            Self::SwinSam => "Swin-SAM",
            Self::GradCam => "Grad-CAM",
        }
    }
}

/// One slice of a held-out study.
#[derive(Debug, Clone)]
pub struct SliceMeasure {
    /// The true label.
    pub label: SliceLabel,
    /// Distance along the normal from the first slice, mm.
    pub offset_mm: f64,
    /// The model's probability.
    pub probability: f32,
    /// The brightness rule's score, mm².
    pub brightness: f32,
    /// Pixels (intersection, rule's mask, truth) of the brightness rule.
    pub brightness_overlap: (usize, usize, usize),
    /// Overlap of each method's map with the truth, in the order of [`Method::ALL`]; only for slices that bleed or that
    /// could be called positive.
    pub curves: Vec<OverlapCurve>,
    /// What refinement makes of each method's map, in the order of [`Method::ALL`], then of [`Trial`]'s options: pixels
    /// (intersection, mask, truth), `None` where nothing that the map points at looks like blood and the plain mask
    /// stays. Only for slices that have curves.
    pub refined: Vec<Vec<Option<(usize, usize, usize)>>>,
    /// Volume that one pixel of this slice stands for, mL.
    pub pixel_ml: f64,
}

impl SliceMeasure {
    /// Pixels (intersection, mask, truth) of a method's mask as it would be served: refined by the trial's option `option`,
    /// or plain where that finds nothing. `bin` is the plain mask's threshold.
    #[must_use]
    pub fn final_counts(&self, method: usize, option: usize, bin: usize) -> Option<(usize, usize, usize)> {
        let refined = self.refined.get(method).and_then(|options| options.get(option)).copied().flatten();
        refined.or_else(|| self.curves.get(method).map(|curve| curve.counts(bin)))
    }
}

/// Which refinements are tried on each method's maps while studies are measured, in the order of [`Method::ALL`].
#[derive(Debug, Clone, PartialEq)]
pub struct Trial(pub [Vec<RefineOptions>; 4]);

impl Trial {
    /// Those that validation chooses from, the same for each method.
    #[must_use]
    pub fn grid() -> Self {
        let mut options = Vec::new();
        for support in [0.08, 0.15, 0.25, 0.4, 0.6] {
            for floor in [0.006, 0.02, 0.06] {
                for contrast_hu in [7.0, 9.5, 12.5] {
                    options.push(RefineOptions { support, floor, contrast_hu });
                }
            }
        }
        Self([const { Vec::new() }; 4].map(|_: Vec<RefineOptions>| options.clone()))
    }

    /// The one of each method that was chosen; none where refinement is off.
    #[must_use]
    pub fn chosen(refine: &BTreeMap<Method, RefineOptions>) -> Self {
        Self(Method::ALL.map(|method| refine.get(&method).copied().into_iter().collect()))
    }
}

/// One held-out study.
#[derive(Debug, Clone)]
pub struct StudyMeasure {
    /// The phantom's seed.
    pub seed: u64,
    /// True volume of all bleeds, mL.
    pub truth_ml: f64,
    /// How hard its easiest bleed is to see; `None` without a bleed.
    pub difficulty: Option<Difficulty>,
    /// Its slices in order.
    pub slices: Vec<SliceMeasure>,
}

impl StudyMeasure {
    /// Whether any slice bleeds.
    #[must_use]
    pub fn positive(&self) -> bool {
        self.slices.iter().any(|slice| slice.label.any())
    }

    /// The study with the probabilities of neighbouring slices made consistent, as serving does it.
    #[must_use]
    pub fn consistent(&self, reach_mm: f64) -> Self {
        let (probabilities, offsets): (Vec<f32>, Vec<f64>) =
            self.slices.iter().map(|slice| (slice.probability, slice.offset_mm)).unzip();
        let mut study = self.clone();
        let consistent = consistent_probabilities(&probabilities, &offsets, reach_mm);
        study.slices.iter_mut().zip(consistent).for_each(|(slice, probability)| slice.probability = probability);
        study
    }

    /// The study with calibrated probabilities of slices.
    #[must_use]
    pub fn calibrated(&self, calibration: Calibration) -> Self {
        let mut study = self.clone();
        study.slices.iter_mut().for_each(|slice| slice.probability = calibration.apply(slice.probability));
        study
    }

    /// The brightness rule's scores with the same advantage: neighbours made consistent, the logarithm of an area taking
    /// the place of log-odds. Values between 0 and 1.
    #[must_use]
    pub fn consistent_brightness(&self, reach_mm: f64) -> Vec<f32> {
        const MIDDLE_MM2: f32 = 100.0;
        let scores = self.slices.iter().map(|slice| slice.brightness / (slice.brightness + MIDDLE_MM2));
        let offsets: Vec<f64> = self.slices.iter().map(|slice| slice.offset_mm).collect();
        consistent_probabilities(&scores.collect::<Vec<f32>>(), &offsets, reach_mm)
    }

    /// The study's score as serving computes it, from slices each by itself.
    #[must_use]
    pub fn score(&self, rule: &StudyRule, reading: &SliceReading) -> f32 {
        let (own, offsets): (Vec<f32>, Vec<f64>) =
            self.slices.iter().map(|slice| (slice.probability, slice.offset_mm)).unzip();
        rule.score(&own, &offsets, reading)
    }
}

/// Slices that have, with their neighbours, a probability below this are never called positive, so no maps are made for
/// them unless they bleed.
pub const NEVER_POSITIVE: f32 = 0.2;
