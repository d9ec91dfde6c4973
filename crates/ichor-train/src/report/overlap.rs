//! The segmentation table's figures (section 4.3 of the paper), with distances and intervals.

use serde::{Deserialize, Serialize};

use super::ROUNDS;
use super::input::StudyFacts;
use crate::metrics::{Summary, bootstrap, dice, iou};
use crate::outcome::{MaskOutcome, MethodOutcome, SliceOutcome};

/// Masks against the truth, over bleeding slices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SegmentationRow {
    /// Dice of the mask, whether or not its slice is called positive: the paper's figure.
    pub dice: Option<Summary>,
    /// Intersection over union, likewise.
    pub iou: Option<Summary>,
    /// Dice where a slice that is not called positive has no mask: what a user gets.
    pub dice_as_called: Option<Summary>,
    /// 95th percentile of the symmetric surface distance in the plane, mm, over slices with a mask that is not empty.
    pub hausdorff95_mm: Option<Summary>,
    /// Bleeding slices without a distance: the mask is empty, or nobody measured it.
    pub without_distance: usize,
}

/// The mask of a bleeding slice; one that is absent counts as empty.
pub(super) fn mask_of(slice: &SliceOutcome, truth_pixels: usize) -> MaskOutcome {
    let empty = MaskOutcome { intersection: 0, predicted: 0, truth: truth_pixels, hausdorff95_mm: None };
    slice.mask.unwrap_or(empty)
}

/// Dice of a mask.
pub(super) fn dice_of(mask: MaskOutcome) -> f64 {
    dice(mask.intersection, mask.predicted, mask.truth)
}

/// The same slice as a user gets it: no mask where it is not called positive.
pub(super) fn as_called(slice: &SliceOutcome, mask: MaskOutcome) -> MaskOutcome {
    if slice.called { mask } else { MaskOutcome { intersection: 0, predicted: 0, hausdorff95_mm: None, ..mask } }
}

impl SegmentationRow {
    /// Sums up a method's masks on the bleeding slices.
    pub(super) fn of(studies: &[StudyFacts], outcome: &MethodOutcome) -> Self {
        let of_study = |(facts, slices): (&StudyFacts, &Vec<SliceOutcome>)| -> Vec<(SliceOutcome, MaskOutcome)> {
            let bleeding = facts.slices.iter().zip(slices).filter(|(facts, _)| facts.label.any());
            bleeding.map(|(facts, slice)| (*slice, mask_of(slice, facts.truth_pixels))).collect()
        };
        let masks: Vec<Vec<(SliceOutcome, MaskOutcome)>> = studies.iter().zip(&outcome.studies).map(of_study).collect();
        let summary = |figure: &dyn Fn(&SliceOutcome, MaskOutcome) -> Option<f64>| {
            let values = masks.iter().map(|study| study.iter().filter_map(|(s, mask)| figure(s, *mask)).collect());
            summary_over_studies(&values.collect::<Vec<Vec<f64>>>())
        };
        Self {
            dice: summary(&|_, mask| Some(dice_of(mask))),
            iou: summary(&|_, mask| Some(iou(mask.intersection, mask.predicted, mask.truth))),
            dice_as_called: summary(&|slice, mask| Some(dice_of(as_called(slice, mask)))),
            hausdorff95_mm: summary(&|_, mask| mask.hausdorff95_mm),
            without_distance: masks.iter().flatten().filter(|(_, mask)| mask.hausdorff95_mm.is_none()).count(),
        }
    }
}

/// Mean, SD and SEM of all values, with the interval of the mean over studies.
pub(super) fn summary_over_studies(studies: &[Vec<f64>]) -> Option<Summary> {
    let all: Vec<f64> = studies.iter().flatten().copied().collect();
    let mut summary = Summary::of(&all)?;
    let sums: Vec<(f64, f64)> = studies.iter().map(|values| (values.iter().sum(), count(values.len()))).collect();
    summary.interval = bootstrap(studies.len(), ROUNDS, 2, |drawn| {
        let (sum, n) = drawn.iter().map(|&i| sums[i]).fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
        (n > 0.0).then(|| sum / n)
    });
    Some(summary)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}
