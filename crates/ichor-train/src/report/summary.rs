//! The held-out evaluation of phantoms in short: one page, one JSON.

use std::collections::BTreeMap;

use ichor_core::HemorrhageSubtype;
use serde::{Deserialize, Serialize};

use super::{Auc, ROUNDS};
use crate::calibrate::Thresholds;
use crate::measure::{Method, SliceMeasure, StudyMeasure};
use crate::metrics::{
    BINS, Binning, Confusion, OverlapCurve, Summary, auc, bootstrap, dice, expected_calibration_error, iou, reliability,
};
use crate::seeds::SeedRange;

/// Everything the held-out studies say about the weights, with the floor beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was evaluated, `name@version+hash`.
    pub model: String,
    /// Said of all of it.
    pub notice: String,
    /// The held-out studies.
    pub seeds: SeedRange,
    /// Studies, positive studies, slices, bleeding slices.
    pub counts: Counts,
    /// The thresholds, from the validation studies.
    pub thresholds: Thresholds,
    /// Detection on slices by the model, neighbours made consistent: what is served.
    pub slices: Detection,
    /// The same of each slice by itself.
    pub lone_slices: Option<Auc>,
    /// Detection on slices by the brightness rule.
    pub slices_by_brightness: Option<Auc>,
    /// The same with neighbours made consistent, as the model's are.
    pub slices_by_consistent_brightness: Option<Auc>,
    /// Detection on studies by the verdict rule.
    pub studies: Detection,
    /// Overlap on bleeding slices, by map.
    pub maps: BTreeMap<Method, Overlap>,
    /// The same of the refined masks; where a method's refinement is off, of its plain ones.
    #[serde(default)]
    pub refined: BTreeMap<Method, Overlap>,
    /// Expected calibration errors, if there is anything to count.
    #[serde(default)]
    pub calibration: Option<CalibrationErrors>,
    /// Overlap on bleeding slices as served: a slice that is not called positive has no mask.
    pub served: Overlap,
    /// Overlap on bleeding slices by the brightness rule.
    pub brightness: Overlap,
    /// Overlap and sensitivity of the served map by group: subtype, and size of the bleed in the slice.
    pub groups: BTreeMap<String, Group>,
    /// Volumes of positive studies, served masks against truth.
    pub volume: Option<Volume>,
}

/// Expected calibration errors over ten bins of the same width.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationErrors {
    /// Of slices, as served.
    pub slices: f64,
    /// Of studies.
    pub studies: f64,
}

impl CalibrationErrors {
    /// `own`: slices each by itself; `studies`: the same as served.
    fn new(own: &[StudyMeasure], studies: &[StudyMeasure], thresholds: &Thresholds) -> Option<Self> {
        let error = |(said, seen): (Vec<f32>, Vec<bool>)| {
            expected_calibration_error(&reliability(&said, &seen, Binning::EqualWidth, BINS))
        };
        let slices = studies.iter().flat_map(|study| &study.slices).map(|s| (s.probability, s.label.any())).unzip();
        let of_studies = own.iter().map(|s| (thresholds.study_probability(s), s.positive())).unzip();
        Some(Self { slices: error(slices)?, studies: error(of_studies)? })
    }
}

/// How much was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Studies.
    pub studies: usize,
    /// Studies with a bleed.
    pub positive_studies: usize,
    /// Slices.
    pub slices: usize,
    /// Slices with a bleed.
    pub bleeding_slices: usize,
}

/// A yes-or-no decision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Over all thresholds.
    pub auc: Option<Auc>,
    /// At the chosen threshold.
    pub confusion: Confusion,
    /// Sensitivity at the chosen threshold.
    pub sensitivity: f64,
    /// Specificity at the chosen threshold.
    pub specificity: f64,
    /// F1 at the chosen threshold.
    pub f1: f64,
}

/// Overlap of masks with the truth, over bleeding slices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Dice.
    pub dice: Option<Summary>,
    /// Intersection over union.
    pub iou: Option<Summary>,
}

/// Part of the bleeding slices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Share of these slices that are called positive.
    pub sensitivity: f64,
    /// Dice of the map's mask, whether or not the slice is called positive.
    pub dice: Option<Summary>,
}

/// Volume of the served masks against the truth, positive studies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Error (mask − truth), mL.
    pub error_ml: Summary,
    /// Absolute error, mL.
    pub absolute_error_ml: Summary,
}

/// Pixel counts: intersection, predicted, truth.
type Counted = (usize, usize, usize);

impl Report {
    /// Sums up the measures of the held-out studies at fixed thresholds.
    #[must_use]
    pub fn new(
        model: String,
        notice: String,
        seeds: SeedRange,
        studies: &[StudyMeasure],
        thresholds: Thresholds,
    ) -> Self {
        let lone_slices = slice_auc(studies, |slice| slice.probability);
        let own = studies;
        let studies: Vec<StudyMeasure> = own.iter().map(|study| thresholds.as_served(study)).collect();
        let studies = studies.as_slice();
        let all = || studies.iter().flat_map(|study| &study.slices);
        let served = Method::ALL.iter().position(|&m| m == thresholds.served).unwrap_or(0);
        let bin = |method: Method| OverlapCurve::bin_of(thresholds.maps.get(&method).copied().unwrap_or(1.0));
        let served_bin = bin(thresholds.served);
        let called = |slice: &SliceMeasure| slice.probability >= thresholds.slice_probability;
        let map = |index: usize, bin: usize| {
            move |slice: &SliceMeasure| slice.curves.get(index).map(|curve| curve.counts(bin))
        };
        let refined = |(index, method): (usize, Method)| {
            let counts = |slice: &SliceMeasure| slice.final_counts(index, 0, bin(method));
            (method, overlap(studies, counts))
        };
        let refined = Method::ALL.into_iter().enumerate().map(refined).collect();
        let maps = Method::ALL.into_iter().enumerate();
        let maps = maps.map(|(index, method)| (method, overlap(studies, map(index, bin(method))))).collect();
        let as_served = |slice: &SliceMeasure| {
            let counts = slice.final_counts(served, 0, served_bin)?;
            Some(if called(slice) { counts } else { (0, 0, counts.2) })
        };
        Self {
            counts: Counts {
                studies: studies.len(),
                positive_studies: studies.iter().filter(|study| study.positive()).count(),
                slices: all().count(),
                bleeding_slices: all().filter(|slice| slice.label.any()).count(),
            },
            slices: slice_detection(studies, thresholds.slice_probability),
            lone_slices,
            slices_by_brightness: slice_auc(studies, |slice| slice.brightness),
            slices_by_consistent_brightness: consistent_brightness_auc(studies, thresholds.slice_reach_mm),
            studies: study_detection(own, &thresholds),
            maps,
            refined,
            calibration: CalibrationErrors::new(own, studies, &thresholds),
            served: overlap(studies, as_served),
            brightness: overlap(studies, |slice| Some(slice.brightness_overlap)),
            groups: groups(studies, |slice| slice.final_counts(served, 0, served_bin), called),
            volume: volume(
                studies,
                |slice| {
                    if called(slice) { slice.final_counts(served, 0, served_bin) } else { None }
                },
            ),
            model,
            notice,
            seeds,
            thresholds,
        }
    }
}

fn slice_auc(studies: &[StudyMeasure], score: impl Fn(&SliceMeasure) -> f32) -> Option<Auc> {
    let pairs: Vec<Vec<(f32, bool)>> = studies
        .iter()
        .map(|study| study.slices.iter().map(|slice| (score(slice), slice.label.any())).collect())
        .collect();
    auc_of(&pairs)
}

fn consistent_brightness_auc(studies: &[StudyMeasure], reach_mm: f64) -> Option<Auc> {
    let pairs = |study: &StudyMeasure| {
        let scores = study.consistent_brightness(reach_mm).into_iter();
        scores.zip(&study.slices).map(|(score, slice)| (score, slice.label.any())).collect()
    };
    auc_of(&studies.iter().map(pairs).collect::<Vec<_>>())
}

fn auc_of(studies: &[Vec<(f32, bool)>]) -> Option<Auc> {
    let area = |drawn: &[usize]| {
        let (scores, labels): (Vec<f32>, Vec<bool>) = drawn.iter().flat_map(|&i| studies[i].iter().copied()).unzip();
        auc(&scores, &labels)
    };
    let every: Vec<usize> = (0..studies.len()).collect();
    Some(Auc { auc: area(&every)?, interval: bootstrap(studies.len(), ROUNDS, 1, area) })
}

fn detection(auc: Option<Auc>, confusion: Confusion) -> Detection {
    let (sensitivity, specificity, f1) = (confusion.sensitivity(), confusion.specificity(), confusion.f1());
    Detection { auc, confusion, sensitivity, specificity, f1 }
}

fn slice_detection(studies: &[StudyMeasure], threshold: f32) -> Detection {
    let mut confusion = Confusion::default();
    for slice in studies.iter().flat_map(|study| &study.slices) {
        confusion.add(slice.probability >= threshold, slice.label.any());
    }
    detection(slice_auc(studies, |slice| slice.probability), confusion)
}

fn study_detection(studies: &[StudyMeasure], thresholds: &Thresholds) -> Detection {
    let score = |study: &StudyMeasure| thresholds.study_score(study);
    let mut confusion = Confusion::default();
    for study in studies {
        confusion.add(score(study) >= thresholds.study_rule.threshold(), study.positive());
    }
    let pairs: Vec<Vec<(f32, bool)>> = studies.iter().map(|study| vec![(score(study), study.positive())]).collect();
    detection(auc_of(&pairs), confusion)
}

/// Dice and IoU of the bleeding slices, with intervals over studies.
fn overlap(studies: &[StudyMeasure], counted: impl Fn(&SliceMeasure) -> Option<Counted>) -> Overlap {
    let per_study: Vec<Vec<Counted>> = studies
        .iter()
        .map(|study| study.slices.iter().filter(|slice| slice.label.any()).filter_map(&counted).collect())
        .collect();
    let summary = |figure: fn(usize, usize, usize) -> f64| {
        let values = |drawn: &[usize]| -> Vec<f64> {
            drawn.iter().flat_map(|&i| per_study[i].iter().map(|&(a, b, c)| figure(a, b, c))).collect()
        };
        let every: Vec<usize> = (0..per_study.len()).collect();
        let mut summary = Summary::of(&values(&every))?;
        summary.interval =
            bootstrap(per_study.len(), ROUNDS, 2, |drawn| Summary::of(&values(drawn)).map(|drawn| drawn.mean));
        Some(summary)
    };
    Overlap { dice: summary(dice), iou: summary(iou) }
}

/// Sizes of the bleed in a slice, mm² (pixel_ml alone cannot give an area, so the true pixel count is used).
const SIZES: [(&str, usize, usize); 3] = [
    ("slice bleed < 300 px", 0, 300),
    ("slice bleed 300–2000 px", 300, 2000),
    ("slice bleed > 2000 px", 2000, usize::MAX),
];

fn groups(
    studies: &[StudyMeasure],
    map: impl Fn(&SliceMeasure) -> Option<Counted>,
    called: impl Fn(&SliceMeasure) -> bool,
) -> BTreeMap<String, Group> {
    let bleeding: Vec<&SliceMeasure> =
        studies.iter().flat_map(|study| &study.slices).filter(|slice| slice.label.any()).collect();
    let group = |members: Vec<&&SliceMeasure>| {
        let values: Vec<f64> = members.iter().filter_map(|slice| map(slice)).map(|(a, b, c)| dice(a, b, c)).collect();
        let hits = members.iter().filter(|slice| called(slice)).count();
        #[expect(clippy::cast_precision_loss, reason = "slice counts")]
        let sensitivity = hits as f64 / members.len().max(1) as f64;
        Group { sensitivity, dice: Summary::of(&values) }
    };
    let mut groups = BTreeMap::new();
    for subtype in HemorrhageSubtype::ALL {
        let members: Vec<_> = bleeding.iter().filter(|slice| slice.label.shows(subtype)).collect();
        groups.insert(subtype.label().to_owned(), group(members));
    }
    for (name, from, to) in SIZES {
        let members: Vec<_> =
            bleeding.iter().filter(|slice| (from..to).contains(&slice.brightness_overlap.2)).collect();
        groups.insert(name.to_owned(), group(members));
    }
    groups
}

fn volume(studies: &[StudyMeasure], mask: impl Fn(&SliceMeasure) -> Option<Counted>) -> Option<Volume> {
    #[expect(clippy::cast_precision_loss, reason = "pixel counts")]
    let ml = |study: &StudyMeasure| -> f64 {
        study.slices.iter().filter_map(|slice| mask(slice).map(|(_, n, _)| n as f64 * slice.pixel_ml)).sum()
    };
    let errors: Vec<f64> =
        studies.iter().filter(|study| study.positive()).map(|study| ml(study) - study.truth_ml).collect();
    let absolute: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    Some(Volume { error_ml: Summary::of(&errors)?, absolute_error_ml: Summary::of(&absolute)? })
}
