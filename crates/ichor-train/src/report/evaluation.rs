//! The structured result: every figure of the page.

use serde::{Deserialize, Serialize};

use super::cases::CasePicture;
use super::detection::DetectionRow;
use super::groups::{GroupFigures, groups};
use super::input::{DataDescription, EvaluationInput, StudyFacts};
use super::overlap::SegmentationRow;
use super::reliability::CalibrationFigures;
use super::summary::Counts;
use super::volume::{VolumeFigures, of_studies};
use super::{ReportError, volume};
use crate::outcome::{MethodOutcome, Supervision};

/// Everything that the studies say of the methods. Intervals are 95 % percentile bootstraps over whole studies, because
/// slices of one head are not independent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What was evaluated, `name@version+hash`.
    pub model: String,
    /// Said of all of it.
    pub notice: String,
    /// On what.
    pub data: DataDescription,
    /// How much of it.
    pub counts: Counts,
    /// Id of the method that is shipped, if one is.
    pub served: Option<String>,
    /// The methods, in the order of the tables' rows.
    pub methods: Vec<MethodFigures>,
    /// Detection of whole studies by the shipped verdict; absent where studies have no probability.
    pub study_detection: Option<DetectionRow>,
    /// Calibration of probabilities.
    pub calibrations: Vec<CalibrationFigures>,
    /// Volumes of the studies' results, where they differ from the shipped method's masks.
    pub result_volume: Option<VolumeFigures>,
    /// The studies.
    pub studies: Vec<StudyLine>,
    /// Best and worst cases; their pictures are on the page.
    pub cases: Vec<CasePicture>,
}

/// One row of each table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodFigures {
    /// Short name that stays the same between runs.
    pub id: String,
    /// How the page calls it.
    pub title: String,
    /// What it was told.
    pub supervision: Supervision,
    /// How its maps became masks.
    pub binarisation: String,
    /// Detection on slices.
    pub detection: DetectionRow,
    /// Masks on bleeding slices; absent where the method makes none.
    pub segmentation: Option<SegmentationRow>,
    /// Volumes; absent likewise.
    pub volume: Option<VolumeFigures>,
    /// The same by subtype, difficulty and size.
    pub groups: Vec<GroupFigures>,
    /// By study, in the order of [`Evaluation::studies`]; empty where the method makes no masks.
    pub studies: Vec<StudyResult>,
}

/// A method's masks in one study.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StudyResult {
    /// Volume of the masks on slices that are called positive, mL.
    pub predicted_ml: f64,
    /// Their Dice over the whole study; absent where there is neither blood nor mask.
    pub dice: Option<f64>,
}

/// One study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyLine {
    /// How it is called.
    pub name: String,
    /// Whether it bleeds.
    pub positive: bool,
    /// Its difficulty.
    pub difficulty: Option<String>,
    /// True volume, mL.
    pub truth_ml: f64,
    /// Volume of the study's result, mL, if it was given.
    pub predicted_ml: Option<f64>,
    /// Its uncertainty (one standard deviation), mL.
    pub predicted_sd_ml: Option<f64>,
    /// Probability that it bleeds.
    pub probability: Option<f32>,
    /// Whether it is called positive.
    pub called: Option<bool>,
}

impl Evaluation {
    /// Makes all figures.
    ///
    /// # Errors
    /// [`ReportError`] if the parts of the input do not fit together.
    pub fn new(input: &EvaluationInput<'_>) -> Result<Self, ReportError> {
        input.check()?;
        let studies = input.studies;
        Ok(Self {
            model: input.model.to_owned(),
            notice: input.notice.to_owned(),
            data: input.data.clone(),
            counts: counts(studies),
            served: input.served.map(str::to_owned),
            methods: input.outcomes.iter().map(|outcome| figures(studies, outcome)).collect(),
            study_detection: study_detection(studies),
            calibrations: input.calibrations.iter().filter_map(CalibrationFigures::of).collect(),
            result_volume: result_volume(input),
            studies: studies.iter().map(line).collect(),
            cases: input.cases.to_vec(),
        })
    }

    /// The shipped method.
    #[must_use]
    pub fn served(&self) -> Option<&MethodFigures> {
        self.methods.iter().find(|method| Some(&method.id) == self.served.as_ref())
    }
}

fn counts(studies: &[StudyFacts]) -> Counts {
    let slices = || studies.iter().flat_map(|study| &study.slices);
    Counts {
        studies: studies.len(),
        positive_studies: studies.iter().filter(|study| study.positive).count(),
        slices: slices().count(),
        bleeding_slices: slices().filter(|slice| slice.label.any()).count(),
    }
}

fn figures(studies: &[StudyFacts], outcome: &MethodOutcome) -> MethodFigures {
    let pairs = |(facts, slices): (&StudyFacts, &Vec<crate::outcome::SliceOutcome>)| {
        let slices = facts.slices.iter().zip(slices);
        slices.map(|(facts, slice)| (slice.score, slice.called, facts.label.any())).collect()
    };
    let decisions: Vec<_> = studies.iter().zip(&outcome.studies).map(pairs).collect();
    // A classifier without maps has no place in the table of masks.
    let has_masks = outcome.studies.iter().flatten().any(|slice| slice.mask.is_some());
    let of_studies = if has_masks { of_studies(studies, outcome) } else { Vec::new() };
    let measured: Vec<f64> = of_studies.iter().map(|(ml, _)| *ml).collect();
    let mut groups = groups(studies, outcome);
    if !has_masks {
        groups.iter_mut().for_each(|group| group.dice = None);
    }
    MethodFigures {
        id: outcome.id.clone(),
        title: outcome.title.clone(),
        supervision: outcome.supervision,
        binarisation: outcome.binarisation.clone(),
        detection: DetectionRow::of(&decisions),
        segmentation: has_masks.then(|| SegmentationRow::of(studies, outcome)),
        volume: has_masks.then(|| VolumeFigures::of(studies, &measured)),
        groups,
        studies: of_studies.into_iter().map(|(predicted_ml, dice)| StudyResult { predicted_ml, dice }).collect(),
    }
}

fn study_detection(studies: &[StudyFacts]) -> Option<DetectionRow> {
    let decision = |study: &StudyFacts| Some(vec![(study.probability?, study.called?, study.positive)]);
    let decisions: Option<Vec<_>> = studies.iter().map(decision).collect();
    decisions.map(|decisions| DetectionRow::of(&decisions))
}

/// Where any study's result has a volume of its own; the others count with the shipped method's masks.
fn result_volume(input: &EvaluationInput<'_>) -> Option<VolumeFigures> {
    let served = input.outcomes.iter().find(|outcome| Some(outcome.id.as_str()) == input.served)?;
    let masks = volume::of_studies(input.studies, served);
    let measured = input.studies.iter().zip(&masks).map(|(study, (ml, _))| study.predicted_ml.unwrap_or(*ml));
    let is_given = input.studies.iter().any(|study| study.predicted_ml.is_some());
    is_given.then(|| VolumeFigures::of(input.studies, &measured.collect::<Vec<_>>()))
}

fn line(study: &StudyFacts) -> StudyLine {
    let StudyFacts { name, positive, difficulty, truth_ml, predicted_ml, predicted_sd_ml, probability, called, .. } =
        study.clone();
    StudyLine { name, positive, difficulty, truth_ml, predicted_ml, predicted_sd_ml, probability, called }
}
