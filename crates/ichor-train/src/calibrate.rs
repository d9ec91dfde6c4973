//! Thresholds, chosen on the validation studies and on nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::measure::{Method, StudyMeasure};
use crate::metrics::{Confusion, OverlapCurve, auc, best_threshold};

/// The fixed thresholds that serving and the held-out evaluation use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// How far the probabilities of neighbouring slices are made consistent before any threshold, mm.
    pub slice_reach_mm: f64,
    /// A slice with at least this probability is positive.
    pub slice_probability: f32,
    /// Neighbouring positive slices that make a study positive.
    pub min_positive_slices: usize,
    /// Threshold of each map.
    pub maps: BTreeMap<Method, f64>,
    /// HGI-SAM's better gradient site on the validation studies: the one to serve.
    pub served: Method,
}

/// No threshold can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalibrationError {
    /// The validation studies lack bleeding or clean slices.
    #[error("validation needs bleeding and clean slices, found {bleeding} and {clean}")]
    OneClass {
        /// Bleeding slices.
        bleeding: usize,
        /// Clean slices.
        clean: usize,
    },
}

/// Runs of positive slices that are tried as the study rule.
const RUNS: [usize; 3] = [1, 2, 3];

/// Reaches of consistency that are tried, mm.
const REACHES_MM: [f64; 6] = [0.0, 1.5, 2.5, 4.0, 6.0, 9.0];

/// Chooses the reach of consistency by slice AUC, the shortest that is nearly the best, then the slice threshold and the study rule together, by the sum of Youden's indices of slices and studies (so
/// that neither a slice nor a study is called lightly), and each map's threshold by the mean Dice of bleeding slices.
///
/// # Errors
/// [`CalibrationError::OneClass`].
pub fn calibrate(studies: &[StudyMeasure]) -> Result<Thresholds, CalibrationError> {
    let (slice_reach_mm, studies) = choose_reach(studies);
    let slices = || studies.iter().flat_map(|study| &study.slices);
    let bleeding = slices().filter(|slice| slice.label.any()).count();
    let clean = slices().count() - bleeding;
    if bleeding == 0 || clean == 0 {
        return Err(CalibrationError::OneClass { bleeding, clean });
    }
    let mut maps = BTreeMap::new();
    let mut served = (Method::HgiSamScores, f64::NEG_INFINITY);
    for (index, method) in Method::ALL.into_iter().enumerate() {
        let curves = slices().filter(|slice| slice.label.any()).filter_map(|slice| slice.curves.get(index));
        if let Some((bin, dice)) = best_threshold(curves) {
            maps.insert(method, OverlapCurve::threshold(bin));
            if matches!(method, Method::HgiSamScores | Method::HgiSamSoftmax) && dice > served.1 {
                served = (method, dice);
            }
        }
    }
    let (slice_probability, min_positive_slices) = choose_rule(&studies);
    Ok(Thresholds { slice_reach_mm, slice_probability, min_positive_slices, maps, served: served.0 })
}

/// A longer reach must better the slice AUC by so much: what it adds beyond the bleed's ends are false masks.
const WORTH: f64 = 0.005;

/// The shortest reach whose slice AUC is as good as the best one's, or nearly, and the studies as it makes them.
fn choose_reach(studies: &[StudyMeasure]) -> (f64, Vec<StudyMeasure>) {
    let tried = REACHES_MM.map(|reach| {
        let consistent: Vec<StudyMeasure> = studies.iter().map(|study| study.consistent(reach)).collect();
        let (scores, labels): (Vec<f32>, Vec<bool>) =
            consistent.iter().flat_map(|s| &s.slices).map(|slice| (slice.probability, slice.label.any())).unzip();
        (auc(&scores, &labels).unwrap_or(f64::NEG_INFINITY), reach, consistent)
    });
    let best = tried.iter().map(|(area, ..)| *area).fold(f64::NEG_INFINITY, f64::max);
    let chosen = tried.into_iter().find(|(area, ..)| *area >= best - WORTH);
    chosen.map_or_else(|| (0.0, studies.to_vec()), |(_, reach, consistent)| (reach, consistent))
}

fn choose_rule(studies: &[StudyMeasure]) -> (f32, usize) {
    let mut scores = Vec::new();
    let mut labels = Vec::new();
    for slice in studies.iter().flat_map(|study| &study.slices) {
        scores.push(slice.probability);
        labels.push(slice.label.any());
    }
    let positive: Vec<bool> = studies.iter().map(StudyMeasure::positive).collect();
    let mut best = (f64::NEG_INFINITY, 0.5, 1);
    for run in RUNS {
        let study_scores: Vec<f32> = studies.iter().map(|study| study.probability(run)).collect();
        for percent in 10u8..=95 {
            let threshold = f32::from(percent) / 100.0;
            let by_slice = Confusion::at(&scores, &labels, threshold).youden();
            let by_study = Confusion::at(&study_scores, &positive, threshold).youden();
            // Ties go to the middle of the scale: it is the farthest from both mistakes.
            let value = by_slice + by_study - 0.001 * f64::from((threshold - 0.5).abs());
            if value > best.0 {
                best = (value, threshold, run);
            }
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::SliceLabel;
    use crate::measure::SliceMeasure;
    use ichor_core::HemorrhageSubtype;

    fn slice(bleeds: bool, probability: f32) -> SliceMeasure {
        let truth = [u8::from(bleeds), 0, 0, 0];
        let label = if bleeds { SliceLabel::of([HemorrhageSubtype::Subdural]) } else { SliceLabel::NONE };
        // The lesion pixel has 0.6 in every map but the second HGI site's, where it cannot be told apart.
        let curves = Method::ALL
            .map(|method| match method {
                Method::HgiSamSoftmax => OverlapCurve::new(&[0.6, 0.6, 0.6, 0.1], &truth),
                _ => OverlapCurve::new(&[0.6, 0.3, 0.1, 0.0], &truth),
            })
            .to_vec();
        SliceMeasure {
            offset_mm: 0.0,
            label,
            probability,
            brightness: 0.0,
            brightness_overlap: (0, 0, 0),
            curves,
            pixel_ml: 1.0,
        }
    }

    fn study(slices: &[(bool, f32)]) -> StudyMeasure {
        let mut slices: Vec<SliceMeasure> = slices.iter().map(|&(b, p)| slice(b, p)).collect();
        slices.iter_mut().enumerate().for_each(|(index, slice)| slice.offset_mm = 50.0 * index as f64);
        StudyMeasure { seed: 0, truth_ml: 0.0, difficulty: None, slices }
    }

    #[test]
    fn lone_false_calls_make_the_rule_ask_for_two() {
        let clean = study(&[(false, 0.1), (false, 0.9), (false, 0.1), (false, 0.05), (false, 0.2)]);
        let bleeding = study(&[(false, 0.1), (true, 0.8), (true, 0.85), (true, 0.8), (false, 0.1)]);
        let thresholds = calibrate(&[clean.clone(), bleeding.clone(), clean, bleeding]).unwrap();
        assert_eq!(thresholds.min_positive_slices, 2);
        assert!((0.2..=0.8).contains(&thresholds.slice_probability), "{}", thresholds.slice_probability);
        assert_eq!(thresholds.served, Method::HgiSamScores);
        let map = thresholds.maps[&Method::HgiSamScores];
        assert!(map > 0.3 && map <= 0.605, "{map}");
    }

    #[test]
    fn one_class_is_an_error() {
        let error = calibrate(&[study(&[(false, 0.1), (false, 0.2)])]).unwrap_err();
        assert_eq!(error, CalibrationError::OneClass { bleeding: 0, clean: 2 });
    }
}
