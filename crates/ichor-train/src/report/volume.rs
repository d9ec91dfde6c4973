//! Volumes in millilitres against the truth.

use serde::{Deserialize, Serialize};

use super::input::StudyFacts;
use super::overlap::{as_called, mask_of};
use crate::metrics::{BlandAltman, Summary};
use crate::outcome::{MethodOutcome, SliceOutcome};

/// Volumes of a method's masks on slices that it calls positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VolumeFigures {
    /// Agreement with the truth, positive studies.
    pub bland_altman: Option<BlandAltman>,
    /// Absolute error of positive studies, mL.
    pub absolute_error_ml: Option<Summary>,
    /// Volume marked in studies that do not bleed, mL.
    pub false_ml: Option<Summary>,
}

impl VolumeFigures {
    /// Sums up (measured, true) volumes of positive studies, and what is marked in the others.
    pub(super) fn of(studies: &[StudyFacts], measured_ml: &[f64]) -> Self {
        let (positive, negative): (Vec<_>, Vec<_>) =
            studies.iter().zip(measured_ml).partition(|(study, _)| study.positive);
        let pairs: Vec<(f64, f64)> = positive.iter().map(|(study, ml)| (**ml, study.truth_ml)).collect();
        let errors: Vec<f64> = pairs.iter().map(|(measured, truth)| (measured - truth).abs()).collect();
        Self {
            bland_altman: BlandAltman::of(&pairs),
            absolute_error_ml: Summary::of(&errors),
            false_ml: Summary::of(&negative.iter().map(|(_, ml)| **ml).collect::<Vec<_>>()),
        }
    }
}

/// Volume of each study's masks (slices called positive only), mL, and their three-dimensional Dice; a study without blood
/// and without mask has none.
pub(super) fn of_studies(studies: &[StudyFacts], outcome: &MethodOutcome) -> Vec<(f64, Option<f64>)> {
    studies.iter().zip(&outcome.studies).map(|(study, slices)| of_study(study, slices)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "pixel counts")]
fn of_study(study: &StudyFacts, slices: &[SliceOutcome]) -> (f64, Option<f64>) {
    let (mut both, mut marked, mut truth) = (0.0, 0.0, 0.0);
    for (facts, slice) in study.slices.iter().zip(slices) {
        let mask = as_called(slice, mask_of(slice, facts.truth_pixels));
        both += mask.intersection as f64 * facts.pixel_ml;
        marked += mask.predicted as f64 * facts.pixel_ml;
        truth += mask.truth as f64 * facts.pixel_ml;
    }
    (marked, (marked + truth > 0.0).then(|| 2.0 * both / (marked + truth)))
}
