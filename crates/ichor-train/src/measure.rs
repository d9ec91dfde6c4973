//! What a model and the floor say about one held-out study, before any threshold is chosen.

use ichor_core::consistent_probabilities;
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
    /// Volume that one pixel of this slice stands for, mL.
    pub pixel_ml: f64,
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

    /// The brightness rule's scores with the same advantage: neighbours made consistent, the logarithm of an area taking
    /// the place of log-odds. Values between 0 and 1.
    #[must_use]
    pub fn consistent_brightness(&self, reach_mm: f64) -> Vec<f32> {
        const MIDDLE_MM2: f32 = 100.0;
        let scores = self.slices.iter().map(|slice| slice.brightness / (slice.brightness + MIDDLE_MM2));
        let offsets: Vec<f64> = self.slices.iter().map(|slice| slice.offset_mm).collect();
        consistent_probabilities(&scores.collect::<Vec<f32>>(), &offsets, reach_mm)
    }

    /// Study-level probability as serving computes it.
    #[must_use]
    pub fn probability(&self, min_positive_slices: usize) -> f32 {
        let slices: Vec<f32> = self.slices.iter().map(|slice| slice.probability).collect();
        ichor_core::study_probability(&slices, min_positive_slices)
    }
}

/// Slices that have, with their neighbours, a probability below this are never called positive, so no maps are made for
/// them unless they bleed.
pub const NEVER_POSITIVE: f32 = 0.05;
