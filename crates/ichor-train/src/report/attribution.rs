//! The network's attribution maps and the brightness rule as outcomes, from the measures of held-out studies.

use super::input::{CalibrationInput, SliceFacts, StudyFacts};
use crate::calibrate::Thresholds;
use crate::measure::{Method, SliceMeasure, StudyMeasure};
use crate::metrics::OverlapCurve;
use crate::outcome::{MaskOutcome, MethodOutcome, SliceOutcome, Supervision};

/// Largest component of bright pixels from which the brightness rule calls a slice, as a share of itself and 100 mm²: it
/// has no threshold of its own, and 100 mm² is the middle of its scale.
const BRIGHTNESS_CALL: f32 = 0.5;

/// Every attribution method at its threshold, and the brightness rule. The slice's score is the model's probability with
/// neighbours made consistent, as served; the rule's scores have the same advantage.
#[must_use]
pub fn outcomes(studies: &[StudyMeasure], thresholds: &Thresholds) -> Vec<MethodOutcome> {
    let read: Vec<StudyMeasure> = studies.iter().map(|study| thresholds.as_served(study)).collect();
    let attribution = Method::ALL.into_iter().enumerate().flat_map(|(index, method)| {
        let threshold = thresholds.maps.get(&method).copied().unwrap_or(1.0);
        let bin = OverlapCurve::bin_of(threshold);
        let outcome = |refined: bool| {
            let counts = |slice: &SliceMeasure| {
                if refined { slice.final_counts(index, 0, bin) } else { slice.final_counts(index, usize::MAX, bin) }
            };
            let slice = |slice: &SliceMeasure| SliceOutcome {
                score: slice.probability,
                called: slice.probability >= thresholds.slice_probability,
                mask: counts(slice).map(mask),
            };
            let (id, title) = if refined {
                (refined_id(method), format!("{}, refined", method.title()))
            } else {
                (id(method), method.title().to_owned())
            };
            MethodOutcome {
                id,
                title,
                supervision: Supervision::Slices,
                binarisation: format!("threshold {threshold:.3}, chosen on the validation studies"),
                studies: read.iter().map(|study| study.slices.iter().map(slice).collect()).collect(),
            }
        };
        let is_refined = thresholds.refine.contains_key(&method);
        std::iter::once(outcome(false)).chain(is_refined.then(|| outcome(true))).collect::<Vec<_>>()
    });
    let bright = |study: &StudyMeasure| {
        let scores = study.consistent_brightness(thresholds.slice_reach_mm);
        let slice = |(slice, score): (&SliceMeasure, f32)| SliceOutcome {
            score,
            called: score >= BRIGHTNESS_CALL,
            mask: Some(mask(slice.brightness_overlap)),
        };
        study.slices.iter().zip(scores).map(slice).collect()
    };
    let rule = MethodOutcome {
        id: "brightness".to_owned(),
        title: "Brightness rule".to_owned(),
        supervision: Supervision::None,
        binarisation: "48 to 95 HU inside the brain mask, largest components".to_owned(),
        studies: studies.iter().map(bright).collect(),
    };
    attribution.chain([rule]).collect()
}

/// Id of an attribution method's raw maps, the same as in the JSON of [`Method`].
pub(super) fn id(method: Method) -> String {
    let name = serde_json::to_value(method).ok();
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_else(|| format!("{method:?}"))
}

/// Id of what is shipped: the refined masks of the served map, or its plain ones where refinement is off.
pub(super) fn served_id(thresholds: &Thresholds) -> String {
    let method = thresholds.served;
    if thresholds.refine.contains_key(&method) { refined_id(method) } else { id(method) }
}

/// Id of an attribution method's refined masks.
pub(super) fn refined_id(method: Method) -> String {
    format!("{}-refined", id(method))
}

fn mask((intersection, predicted, truth): (usize, usize, usize)) -> MaskOutcome {
    MaskOutcome { intersection, predicted, truth, hausdorff95_mm: None }
}

/// What is known of the studies, with the study's probability and verdict as serving has them. `difficulty` names a
/// study's difficulty where the data have one.
#[must_use]
pub fn study_facts(
    studies: &[StudyMeasure],
    thresholds: &Thresholds,
    difficulty: impl Fn(&StudyMeasure) -> Option<String>,
) -> Vec<StudyFacts> {
    let of = |study: &StudyMeasure| {
        let read = thresholds.as_served(study);
        let predicted_ml = volume_ml(&read, thresholds);
        StudyFacts {
            name: study.seed.to_string(),
            positive: study.positive(),
            difficulty: difficulty(study),
            truth_ml: study.truth_ml,
            predicted_ml: Some(predicted_ml),
            predicted_sd_ml: thresholds.volume.map(|volume| volume.sd_ml(predicted_ml)),
            probability: Some(thresholds.study_probability(study)),
            called: Some(thresholds.study_score(study) >= thresholds.study_rule.threshold()),
            slices: study
                .slices
                .iter()
                .map(|slice| SliceFacts {
                    label: slice.label,
                    truth_pixels: slice.brightness_overlap.2,
                    pixel_ml: slice.pixel_ml,
                })
                .collect(),
        }
    };
    studies.iter().map(of).collect()
}

/// Volume of the masks of slices that are called positive, as served, mL.
fn volume_ml(read: &StudyMeasure, thresholds: &Thresholds) -> f64 {
    let index = Method::ALL.iter().position(|method| *method == thresholds.served).unwrap_or(0);
    let bin = OverlapCurve::bin_of(thresholds.maps.get(&thresholds.served).copied().unwrap_or(1.0));
    let called = read.slices.iter().filter(|slice| slice.probability >= thresholds.slice_probability);
    let ml = |slice: &SliceMeasure| Some(slice.final_counts(index, 0, bin)?.1 as f64 * slice.pixel_ml);
    called.filter_map(ml).sum()
}

/// The calibration of slices, by themselves and as served, and of studies.
#[must_use]
pub fn calibration_inputs(studies: &[StudyMeasure], thresholds: &Thresholds) -> Vec<CalibrationInput> {
    let read: Vec<StudyMeasure> = studies.iter().map(|study| thresholds.as_served(study)).collect();
    let slices = |title: &str, studies: &[StudyMeasure]| {
        let pairs = |study: &StudyMeasure| study.slices.iter().map(|s| (s.probability, s.label.any())).collect();
        CalibrationInput { title: title.to_owned(), studies: studies.iter().map(pairs).collect() }
    };
    let study = |study: &StudyMeasure| vec![(thresholds.study_probability(study), study.positive())];
    vec![
        slices("Slices, as served", &read),
        slices("Slices, each by itself", studies),
        CalibrationInput { title: "Studies".to_owned(), studies: studies.iter().map(study).collect() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::SliceLabel;
    use crate::metrics::OverlapCurve;
    use ichor_core::{HemorrhageSubtype, StudyRule};

    fn measure() -> StudyMeasure {
        let slice = |bleeds: bool, probability: f32| SliceMeasure {
            label: if bleeds { SliceLabel::of([HemorrhageSubtype::Epidural]) } else { SliceLabel::NONE },
            offset_mm: if bleeds { 0.0 } else { 50.0 },
            probability,
            brightness: if bleeds { 300.0 } else { 20.0 },
            brightness_overlap: if bleeds { (2, 4, 3) } else { (0, 1, 0) },
            curves: if bleeds {
                Method::ALL.map(|_| OverlapCurve::new(&[0.9, 0.6, 0.3, 0.0], &[1, 1, 1, 0])).to_vec()
            } else {
                Vec::new()
            },
            refined: Vec::new(),
            pixel_ml: 0.5,
        };
        StudyMeasure { seed: 7, truth_ml: 1.5, difficulty: None, slices: vec![slice(true, 0.8), slice(false, 0.2)] }
    }

    #[test]
    fn measures_become_outcomes() {
        let maps = Method::ALL.into_iter().map(|method| (method, OverlapCurve::threshold(150))).collect();
        let thresholds =
            Thresholds::plain(0.0, 0.5, StudyRule::Neighbours { slices: 1, threshold: 0.5 }, maps, Method::SwinSam);
        let outcomes = outcomes(&[measure()], &thresholds);
        let ids: Vec<&str> = outcomes.iter().map(|outcome| outcome.id.as_str()).collect();
        assert_eq!(ids, ["hgi-sam-scores", "hgi-sam-softmax", "swin-sam", "grad-cam", "brightness"]);
        let slices = &outcomes[2].studies[0];
        // 0.5625 cuts the map after its second pixel.
        assert_eq!(slices[0].mask, Some(mask((2, 2, 3))));
        assert_eq!((slices[0].called, slices[1].called, slices[1].mask), (true, false, None));
        let rule = &outcomes[4].studies[0];
        assert!((rule[0].score - 0.75).abs() < 1e-4 && rule[0].called && !rule[1].called, "{rule:?}");
        let facts = study_facts(&[measure()], &thresholds, |_| Some("hard".to_owned()));
        assert_eq!((facts[0].called, facts[0].slices[0].truth_pixels), (Some(true), 3));
        let calibrations = calibration_inputs(&[measure()], &thresholds);
        assert_eq!(calibrations[2].studies, [vec![(0.8, true)]]);
    }
}
