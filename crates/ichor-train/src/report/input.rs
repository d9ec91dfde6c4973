//! What a report is made of.

use serde::{Deserialize, Serialize};

use super::ReportError;
use super::cases::CasePicture;
use crate::labels::SliceLabel;
use crate::outcome::MethodOutcome;

/// Everything that a report is made of. Studies and slices have the same order in all of it.
#[derive(Debug, Clone)]
pub struct EvaluationInput<'a> {
    /// What was evaluated, `name@version+hash`.
    pub model: &'a str,
    /// Said above the page and under every table.
    pub notice: &'a str,
    /// On what.
    pub data: DataDescription,
    /// The studies.
    pub studies: &'a [StudyFacts],
    /// The methods, in the order of the tables' rows.
    pub outcomes: &'a [MethodOutcome],
    /// Id of the outcome that is shipped, if one of them is.
    pub served: Option<&'a str>,
    /// Probabilities whose calibration is shown: of slices, of studies, before and after.
    pub calibrations: &'a [CalibrationInput],
    /// Best and worst cases.
    pub cases: &'a [CasePicture],
}

/// The data in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDescription {
    /// In a few words, such as `held-out phantoms 3000000..3000059`.
    pub title: String,
    /// Name and value of what else is to be known: seeds, folds, thresholds and where they come from.
    pub facts: Vec<(String, String)>,
}

/// What is known of a study, and what the whole of the analysis says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyFacts {
    /// How it is called; never a patient's name.
    pub name: String,
    /// Whether it bleeds anywhere.
    pub positive: bool,
    /// Difficulty, if the data have one.
    pub difficulty: Option<String>,
    /// True volume of all bleeds, mL.
    pub truth_ml: f64,
    /// Volume of the study's result, mL; absent: that of the shipped method's masks.
    pub predicted_ml: Option<f64>,
    /// Its uncertainty (one standard deviation), mL.
    pub predicted_sd_ml: Option<f64>,
    /// Probability that the study bleeds.
    pub probability: Option<f32>,
    /// Whether the study is called positive.
    pub called: Option<bool>,
    /// Its slices in order.
    pub slices: Vec<SliceFacts>,
}

/// What is known of a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SliceFacts {
    /// The true label.
    pub label: SliceLabel,
    /// Pixels of the true mask.
    pub truth_pixels: usize,
    /// Volume that one pixel stands for, mL.
    pub pixel_ml: f64,
}

/// Probabilities against the truth, by study.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationInput {
    /// Whose: `slices, as served`, `studies`.
    pub title: String,
    /// (probability, truth) pairs of each study.
    pub studies: Vec<Vec<(f32, bool)>>,
}

impl EvaluationInput<'_> {
    /// Says what does not fit together.
    ///
    /// # Errors
    /// [`ReportError`] naming the outcome, study and slice.
    pub fn check(&self) -> Result<(), ReportError> {
        if self.studies.is_empty() {
            return Err(ReportError::Empty);
        }
        if let Some(served) = self.served
            && !self.outcomes.iter().any(|outcome| outcome.id == served)
        {
            return Err(ReportError::NotServed(served.to_owned()));
        }
        for (index, outcome) in self.outcomes.iter().enumerate() {
            if self.outcomes[..index].iter().any(|other| other.id == outcome.id) {
                return Err(ReportError::Twice(outcome.id.clone()));
            }
            self.check_outcome(outcome)?;
        }
        for calibration in self.calibrations {
            for (study, pairs) in calibration.studies.iter().enumerate() {
                if let Some(slice) = pairs.iter().position(|(probability, _)| !probability.is_finite()) {
                    return Err(self.not_finite("probability", &calibration.title, study, slice));
                }
            }
        }
        Ok(())
    }

    fn check_outcome(&self, outcome: &MethodOutcome) -> Result<(), ReportError> {
        let shape = |what: String, of, got, want| {
            let method = outcome.id.clone();
            if got == want { Ok(()) } else { Err(ReportError::Shape { method, what, of, got, want }) }
        };
        shape("the whole".to_owned(), "studies", outcome.studies.len(), self.studies.len())?;
        for (study, (facts, slices)) in self.studies.iter().zip(&outcome.studies).enumerate() {
            shape(format!("study {}", facts.name), "slices", slices.len(), facts.slices.len())?;
            for (index, slice) in slices.iter().enumerate() {
                if !slice.score.is_finite() {
                    return Err(self.not_finite("score", &outcome.id, study, index));
                }
                let Some(mask) = slice.mask else { continue };
                if mask.hausdorff95_mm.is_some_and(|mm| !mm.is_finite()) {
                    return Err(self.not_finite("distance", &outcome.id, study, index));
                }
                if mask.intersection > mask.predicted.min(mask.truth) {
                    let (method, study) = (outcome.id.clone(), facts.name.clone());
                    return Err(ReportError::Mask { method, study, slice: index });
                }
            }
        }
        Ok(())
    }

    fn not_finite(&self, what: &'static str, method: &str, study: usize, slice: usize) -> ReportError {
        let name = self.studies.get(study).map_or_else(|| study.to_string(), |facts| facts.name.clone());
        ReportError::NotFinite { what, method: method.to_owned(), study: name, slice }
    }
}
