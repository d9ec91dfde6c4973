//! The report on held-out phantoms: attribution maps and the brightness rule.

use std::path::Path;

use super::attribution::{calibration_inputs, outcomes, served_id, study_facts};
use super::cases::CasePicture;
use super::input::{DataDescription, EvaluationInput, StudyFacts};
use super::retrace::{Retraced, retrace};
use super::{Evaluation, ReportError};
use crate::calibrate::Thresholds;
use crate::evaluate::Subject;
use crate::measure::StudyMeasure;
use crate::outcome::MethodOutcome;
use crate::phantoms::PhantomMix;
use crate::progress::Progress;
use crate::publish::PublishError;
use crate::seeds::SeedRange;

/// What is evaluated, and beside what.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// `name@version+hash`.
    pub model: &'a str,
    /// Said above the page and under every table.
    pub notice: &'a str,
    /// Rivals that were measured on the same studies.
    pub rivals: &'a [MethodOutcome],
}

/// Makes every figure of the measured studies, going back to those that bleed for distances and pictures. `cache` is the
/// folder of prepared studies.
///
/// # Errors
/// [`PublishError`] if phantoms, maps or figures cannot be made.
pub fn of_phantoms(
    subject: &Subject<'_>,
    (seeds, mix): (SeedRange, &PhantomMix),
    named: Named<'_>,
    (measures, thresholds): (&[StudyMeasure], &Thresholds),
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<Evaluation, PublishError> {
    let studies = facts(measures, thresholds)?;
    let raw = outcomes(measures, thresholds);
    let Retraced { outcomes, cases } = retrace(subject, mix, thresholds, &studies, raw, cache, progress)?;
    let data = description(seeds, mix, thresholds);
    whole(named, data, &studies, outcomes, (measures, thresholds), &cases)
}

/// The same of studies that somebody brought: without distances and pictures, for which one would have to go back.
///
/// # Errors
/// [`PublishError`] if figures cannot be made.
pub fn of_data(
    title: &str,
    named: Named<'_>,
    (measures, thresholds): (&[StudyMeasure], &Thresholds),
) -> Result<Evaluation, PublishError> {
    let studies = facts(measures, thresholds)?;
    let data = DataDescription { title: title.to_owned(), facts: rules(thresholds) };
    whole(named, data, &studies, outcomes(measures, thresholds), (measures, thresholds), &[])
}

fn facts(measures: &[StudyMeasure], thresholds: &Thresholds) -> Result<Vec<StudyFacts>, ReportError> {
    if measures.is_empty() {
        return Err(ReportError::Empty);
    }
    Ok(study_facts(measures, thresholds, |study| study.difficulty.map(|difficulty| difficulty.name().to_owned())))
}

fn whole(
    named: Named<'_>,
    data: DataDescription,
    studies: &[StudyFacts],
    mut outcomes: Vec<MethodOutcome>,
    (measures, thresholds): (&[StudyMeasure], &Thresholds),
    cases: &[CasePicture],
) -> Result<Evaluation, PublishError> {
    outcomes.extend(named.rivals.iter().cloned());
    let served = served_id(thresholds);
    let input = EvaluationInput {
        model: named.model,
        notice: named.notice,
        data,
        studies,
        outcomes: &outcomes,
        served: Some(&served),
        calibrations: &calibration_inputs(measures, thresholds),
        cases,
    };
    Ok(Evaluation::new(&input)?)
}

fn description(seeds: SeedRange, mix: &PhantomMix, thresholds: &Thresholds) -> DataDescription {
    let last = seeds.first.saturating_add(seeds.studies.saturating_sub(1));
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut facts = vec![
        fact("Matrix", mix.matrices.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        fact("Slice spacing", format!("at least {} mm", mix.min_spacing_mm)),
    ];
    if let Some(real) = &mix.real_head {
        let share = format!("{:.0} % of the studies, {}", 100.0 * real.share, real.series.display());
        facts.push(fact("Implanted into a real head", share));
    }
    facts.extend(rules(thresholds));
    DataDescription { title: format!("held-out phantoms {} to {last}", seeds.first), facts }
}

/// How slices and studies are called.
fn rules(thresholds: &Thresholds) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    vec![
        fact("Thresholds", "chosen on the validation studies, used on these unchanged".to_owned()),
        fact("Neighbours", format!("made consistent over {} mm", thresholds.slice_reach_mm)),
        fact("Slice called positive", format!("from a probability of {}", thresholds.slice_probability)),
        fact("Study called positive", format!("by {}", thresholds.study_rule)),
        fact(
            "Brightness rule",
            "the floor: bright pixels inside the computed brain mask, its scores made consistent likewise".to_owned(),
        ),
    ]
}
