//! What held-out studies say of methods: a structured result for machines, one self-contained HTML page for people, and
//! the short summary of a run on phantoms.
//!
//! [`EvaluationInput`] takes facts of studies and the [`crate::outcome::MethodOutcome`]s of any number of methods, wherever
//! they come from; [`Evaluation::new`] makes the figures, [`html`] the page.

mod attribution;
mod cases;
mod detection;
mod evaluation;
mod groups;
mod input;
mod overlap;
mod page;
mod phantoms;
mod plots;
mod reliability;
mod retrace;
mod summary;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod volume;
mod write;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use attribution::{calibration_inputs, outcomes, study_facts};
pub use cases::{CaseKind, CasePicture, CaseRef, CaseSlice, choose_cases, draw_case};
pub use detection::{DetectionRow, Estimate};
pub use evaluation::{Evaluation, MethodFigures, StudyLine, StudyResult};
pub use groups::{GroupFigures, GroupKind};
pub use input::{CalibrationInput, DataDescription, EvaluationInput, SliceFacts, StudyFacts};
pub use overlap::SegmentationRow;
pub use page::html;
pub use phantoms::{Named, of_data, of_phantoms};
pub use reliability::CalibrationFigures;
pub use retrace::{Retraced, retrace};
pub use summary::{CalibrationErrors, Counts, Detection, Group, Overlap, Report, Volume};
pub use volume::VolumeFigures;
pub use write::{EvaluationFile, write_evaluation};

use crate::metrics::Interval;

/// Rounds of every bootstrap.
const ROUNDS: usize = 1000;

/// Area under the ROC curve with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    /// The area.
    pub auc: f64,
    /// 95 % bootstrap over studies.
    pub interval: Option<Interval>,
}

/// No report can be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// There is nothing to report on.
    #[error("no study was evaluated")]
    Empty,
    /// A method's outcomes do not stand beside the studies.
    #[error("outcome {method}: {what} has {got} {of}, {want} are needed")]
    Shape {
        /// The method's id.
        method: String,
        /// Which study.
        what: String,
        /// Studies or slices.
        of: &'static str,
        /// How many there are.
        got: usize,
        /// How many there should be.
        want: usize,
    },
    /// Two outcomes have one id.
    #[error("outcome {0} is given twice")]
    Twice(String),
    /// No outcome has the id that is to be shown as shipped.
    #[error("the shipped method {0} is not among the outcomes")]
    NotServed(String),
    /// A number that is not finite.
    #[error("{what} of {method}, study {study}, slice {slice} is not finite")]
    NotFinite {
        /// What it is.
        what: &'static str,
        /// The method's id, or the calibration's title.
        method: String,
        /// The study.
        study: String,
        /// The slice, from 0.
        slice: usize,
    },
    /// More pixels in common than a mask has.
    #[error("mask of {method}, study {study}, slice {slice} has more pixels in common with the truth than there are")]
    Mask {
        /// The method's id.
        method: String,
        /// The study.
        study: String,
        /// The slice, from 0.
        slice: usize,
    },
    /// A case's picture cannot be made.
    #[error("picture of study {study}, slice {slice}: {why}")]
    Picture {
        /// The study.
        study: String,
        /// The slice, from 0.
        slice: usize,
        /// Why.
        why: String,
    },
    /// The page cannot be made.
    #[error("page: {0}")]
    Page(#[from] minijinja::Error),
    /// The result cannot be put into JSON.
    #[error("evaluation.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}
