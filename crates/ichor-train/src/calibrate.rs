//! Thresholds, chosen on the validation studies and on nothing else.

mod platt;
mod study;
mod volume;

use std::collections::BTreeMap;

use ichor_core::{Calibration, SliceReading, StudyRule, VolumeUncertainty};
use ichor_ct::refine::RefineOptions;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::measure::{Method, StudyMeasure, Trial};
use crate::metrics::{Confusion, OverlapCurve, Summary, auc, best_threshold, dice};

pub use platt::fit as fit_calibration;

/// The fixed thresholds that serving and the held-out evaluation use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// How far the probabilities of neighbouring slices are made consistent before any threshold, mm.
    pub slice_reach_mm: f64,
    /// What makes consistent probabilities of slices honest.
    #[serde(default)]
    pub slice_calibration: Calibration,
    /// A slice with at least this calibrated probability is positive.
    pub slice_probability: f32,
    /// How a study's verdict comes from its slices.
    pub study_rule: StudyRule,
    /// What makes the study's probability honest.
    #[serde(default)]
    pub study_calibration: Calibration,
    /// Threshold of each map.
    pub maps: BTreeMap<Method, f64>,
    /// Refinement of each map's masks; none where it is switched off or could not be chosen.
    #[serde(default)]
    pub refine: BTreeMap<Method, RefineOptions>,
    /// What each map reached on the validation studies.
    #[serde(default)]
    pub validation_dice: BTreeMap<Method, MapDice>,
    /// The map whose masks, as they are served, were the best on the validation studies.
    pub served: Method,
    /// How far the volume of a study may be off.
    #[serde(default)]
    pub volume: Option<VolumeUncertainty>,
}

impl Thresholds {
    /// Thresholds without calibration and refinement.
    #[must_use]
    pub fn plain(
        slice_reach_mm: f64,
        slice_probability: f32,
        study_rule: StudyRule,
        maps: BTreeMap<Method, f64>,
        served: Method,
    ) -> Self {
        Self {
            slice_reach_mm,
            slice_calibration: Calibration::NONE,
            slice_probability,
            study_rule,
            study_calibration: Calibration::NONE,
            maps,
            refine: BTreeMap::new(),
            validation_dice: BTreeMap::new(),
            served,
            volume: None,
        }
    }

    /// The study with probabilities of slices as serving has them: neighbours made consistent, then calibrated.
    #[must_use]
    pub fn as_served(&self, study: &StudyMeasure) -> StudyMeasure {
        study.consistent(self.slice_reach_mm).calibrated(self.slice_calibration)
    }

    /// How slices are read.
    #[must_use]
    pub fn reading(&self) -> SliceReading {
        SliceReading { reach_mm: self.slice_reach_mm, calibration: self.slice_calibration }
    }

    /// The score of a study that is not read yet: its slices are each by itself.
    #[must_use]
    pub fn study_score(&self, own: &StudyMeasure) -> f32 {
        own.score(&self.study_rule, &self.reading())
    }

    /// The calibrated probability of a study that is not read yet.
    #[must_use]
    pub fn study_probability(&self, own: &StudyMeasure) -> f32 {
        self.study_calibration.apply(self.study_score(own))
    }
}

/// Mean Dice of the bleeding slices of the validation studies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MapDice {
    /// Of the map at its threshold.
    pub raw: f64,
    /// Of the refined masks.
    pub refined: f64,
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

/// Reaches of consistency that are tried, mm.
const REACHES_MM: [f64; 6] = [0.0, 1.5, 2.5, 4.0, 6.0, 9.0];

/// Chooses, in this order: the reach of consistency by slice AUC, the shortest that is nearly the best; the calibration of
/// slices; the slice threshold by F1 (bleeding slices are few, and each false one is a false mask); the study rule by study
/// AUC, and its threshold so that few studies are called for nothing and most are found; the calibration of studies; each
/// map's threshold and refinement by the mean Dice of bleeding slices; the map by the Dice of its refined masks; the
/// uncertainty of volumes. `trial` holds the refinements that were tried when the studies were measured.
///
/// # Errors
/// [`CalibrationError::OneClass`].
pub fn calibrate(studies: &[StudyMeasure], trial: &Trial) -> Result<Thresholds, CalibrationError> {
    let own = studies;
    let (slice_reach_mm, studies) = choose_reach(own);
    let slices = || studies.iter().flat_map(|study| &study.slices);
    let bleeding = slices().filter(|slice| slice.label.any()).count();
    let clean = slices().count() - bleeding;
    if bleeding == 0 || clean == 0 {
        return Err(CalibrationError::OneClass { bleeding, clean });
    }
    let pairs: Vec<(f32, bool)> = slices().map(|slice| (slice.probability, slice.label.any())).collect();
    let slice_calibration = platt::fit(&pairs);
    let studies: Vec<StudyMeasure> = studies.iter().map(|study| study.calibrated(slice_calibration)).collect();
    let slice_probability = choose_slice_threshold(&studies);
    let reading = SliceReading { reach_mm: slice_reach_mm, calibration: slice_calibration };
    let (study_rule, scores) = study::choose(own, &reading);
    let study_calibration = platt::fit(&scores);
    let chosen = choose_maps(&studies, trial);
    let best = chosen.dice.iter().max_by(|a, b| a.1.refined.total_cmp(&b.1.refined));
    let served = best.map_or(Method::HgiSamScores, |(method, _)| *method);
    let mut thresholds = Thresholds {
        slice_reach_mm,
        slice_calibration,
        slice_probability,
        study_rule,
        study_calibration,
        maps: chosen.maps,
        refine: chosen.refine,
        validation_dice: chosen.dice,
        served,
        volume: None,
    };
    thresholds.volume = volume::fit(&studies, &thresholds, trial);
    Ok(thresholds)
}

/// What was chosen for each map.
#[derive(Default)]
struct Chosen {
    maps: BTreeMap<Method, f64>,
    refine: BTreeMap<Method, RefineOptions>,
    dice: BTreeMap<Method, MapDice>,
}

fn choose_maps(studies: &[StudyMeasure], trial: &Trial) -> Chosen {
    let bleeding = || studies.iter().flat_map(|study| &study.slices).filter(|slice| slice.label.any());
    let mut chosen = Chosen::default();
    for (index, method) in Method::ALL.into_iter().enumerate() {
        let Some((bin, raw)) = best_threshold(bleeding().filter_map(|slice| slice.curves.get(index))) else { continue };
        chosen.maps.insert(method, OverlapCurve::threshold(bin));
        let mut best = (None, raw);
        for (at, options) in trial.0[index].iter().enumerate() {
            let counts = bleeding().filter_map(|slice| slice.final_counts(index, at, bin));
            let values: Vec<f64> = counts.map(|(a, b, c)| dice(a, b, c)).collect();
            let mean = Summary::of(&values).map_or(0.0, |summary| summary.mean);
            if mean > best.1 {
                best = (Some(*options), mean);
            }
        }
        // What makes masks no better is left out.
        chosen.refine.extend(best.0.map(|options| (method, options)));
        chosen.dice.insert(method, MapDice { raw, refined: best.1 });
    }
    chosen
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

/// The threshold of the best F1; ties go to the middle of the scale, the farthest from both mistakes.
fn choose_slice_threshold(studies: &[StudyMeasure]) -> f32 {
    let slices = studies.iter().flat_map(|study| &study.slices);
    let (scores, labels): (Vec<f32>, Vec<bool>) = slices.map(|slice| (slice.probability, slice.label.any())).unzip();
    let value =
        |threshold: f32| Confusion::at(&scores, &labels, threshold).f1() - 0.001 * f64::from((threshold - 0.5).abs());
    let tried = (3u8..=95).map(|percent| f32::from(percent) / 100.0);
    tried.max_by(|a, b| value(*a).total_cmp(&value(*b))).unwrap_or(0.5)
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
            refined: Vec::new(),
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
        let trial = Trial::chosen(&BTreeMap::new());
        let thresholds = calibrate(&[clean.clone(), bleeding.clone(), clean, bleeding], &trial).unwrap();
        // One false slice is as suspicious as any true one, two are not.
        let rule = thresholds.study_rule;
        let counted = match rule {
            StudyRule::Neighbours { slices, .. } | StudyRule::Strongest { slices, .. } => slices,
        };
        assert_eq!(counted, 2, "{rule}");
        assert!((0.05..=0.95).contains(&thresholds.slice_probability), "{}", thresholds.slice_probability);
        // Without refinement the raw maps decide, and all but one are the same here.
        assert_ne!(thresholds.served, Method::HgiSamSoftmax);
        assert!(thresholds.refine.is_empty());
        let map = thresholds.maps[&Method::HgiSamScores];
        assert!(map > 0.3 && map <= 0.605, "{map}");
    }

    #[test]
    fn refinement_is_chosen_where_it_helps() {
        let mut bleeding = study(&[(false, 0.1), (true, 0.9), (true, 0.8), (false, 0.2)]);
        let trial = Trial::grid();
        let tried = trial.0[0].len();
        for slice in bleeding.slices.iter_mut().filter(|slice| slice.label.any()) {
            // The third option of Swin-SAM alone finds the pixel; Grad-CAM's find nothing and leave the plain masks.
            slice.refined = vec![vec![Some((0, 3, 1)); tried]; 3];
            slice.refined[2][2] = Some((1, 1, 1));
            slice.refined.push(vec![None; tried]);
            slice.curves[2] = OverlapCurve::new(&[0.6, 0.6, 0.1, 0.0], &[1, 0, 0, 0]);
        }
        let thresholds = calibrate(&[bleeding, study(&[(false, 0.1), (false, 0.3)])], &trial).unwrap();
        assert_eq!(thresholds.refine.get(&Method::SwinSam), Some(&trial.0[2][2]));
        assert_eq!(thresholds.refine.len(), 1, "{:?}", thresholds.refine);
        let dice = thresholds.validation_dice[&Method::SwinSam];
        assert!((dice.refined - 1.0).abs() < 1e-9 && dice.raw < 0.7, "{dice:?}");
        assert!(thresholds.validation_dice[&Method::GradCam].refined >= 0.99, "its plain masks are right already");
    }

    #[test]
    fn one_class_is_an_error() {
        let error = calibrate(&[study(&[(false, 0.1), (false, 0.2)])], &Trial::grid()).unwrap_err();
        assert_eq!(error, CalibrationError::OneClass { bleeding: 0, clean: 2 });
    }
}
