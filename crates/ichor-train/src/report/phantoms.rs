//! The report on held-out phantoms: attribution maps and the brightness rule.

use super::attribution::{calibration_inputs, id, outcomes, study_facts};
use super::input::{DataDescription, EvaluationInput};
use super::retrace::{Retraced, retrace};
use super::{Evaluation, ReportError};
use crate::calibrate::Thresholds;
use crate::evaluate::Subject;
use crate::measure::StudyMeasure;
use crate::progress::Progress;
use crate::publish::{NOTICE, PublishError};
use crate::recipe::HeldOut;

/// Makes every figure of the measured studies, going back to those that bleed for distances and pictures.
///
/// # Errors
/// [`PublishError`] if phantoms, maps or figures cannot be made.
pub fn of_phantoms(
    subject: &Subject<'_>,
    held_out: &HeldOut,
    model: &str,
    measures: &[StudyMeasure],
    thresholds: &Thresholds,
    progress: &mut dyn Progress,
) -> Result<Evaluation, PublishError> {
    if measures.is_empty() {
        return Err(ReportError::Empty.into());
    }
    let studies = study_facts(measures, thresholds, |_| None);
    let raw = outcomes(measures, thresholds);
    let Retraced { outcomes, cases } = retrace(subject, &held_out.phantoms, thresholds, &studies, raw, progress)?;
    let served = id(thresholds.served);
    let input = EvaluationInput {
        model,
        notice: NOTICE,
        data: description(held_out, thresholds),
        studies: &studies,
        outcomes: &outcomes,
        served: Some(&served),
        calibrations: &calibration_inputs(measures, thresholds),
        cases: &cases,
    };
    Ok(Evaluation::new(&input)?)
}

fn description(held_out: &HeldOut, thresholds: &Thresholds) -> DataDescription {
    let seeds = held_out.seeds;
    let last = seeds.first.saturating_add(seeds.studies.saturating_sub(1));
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let facts = vec![
        fact("Matrix", held_out.phantoms.matrices.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        fact("Slice spacing", format!("at least {} mm", held_out.phantoms.min_spacing_mm)),
        fact("Thresholds", "chosen on the validation studies, used on these unchanged".to_owned()),
        fact("Neighbours", format!("made consistent over {} mm", thresholds.slice_reach_mm)),
        fact("Slice called positive", format!("from a probability of {}", thresholds.slice_probability)),
        fact("Study called positive", format!("from {} neighbouring positive slices", thresholds.min_positive_slices)),
        fact(
            "Brightness rule",
            "the floor: bright pixels inside the computed brain mask, its scores made consistent likewise".to_owned(),
        ),
    ];
    DataDescription { title: format!("held-out phantoms {} to {last}", seeds.first), facts }
}
