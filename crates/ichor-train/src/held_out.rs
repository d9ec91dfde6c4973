//! Held-out studies of any source, measured.

use std::path::Path;

use rayon::prelude::*;

use crate::calibrate::Thresholds;
use crate::data;
use crate::evaluate::{EvaluateError, Subject, measure, measure_study};
use crate::measure::{Method, StudyMeasure, Trial};
use crate::progress::Progress;
use crate::recipe::Source;

/// Where held-out studies are kept between candidates, and where the run stands whose splits count.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Folder of prepared studies and lists of headers; absent = phantoms are made anew, lists stand in the run's folder.
    pub cache: Option<&'a Path>,
    /// The run's output folder.
    pub run: &'a Path,
}

/// Measures.
#[derive(Debug)]
pub struct Measured {
    /// One for each study.
    pub studies: Vec<StudyMeasure>,
    /// Whether masks were drawn; without them nothing is known of overlap, and no threshold of maps can be chosen.
    pub has_masks: bool,
}

/// Measures the studies of a source.
///
/// # Errors
/// [`EvaluateError`].
pub fn measure_source(
    subject: &Subject<'_>,
    source: Source<'_>,
    trial: &Trial,
    places: Places<'_>,
    progress: &mut dyn Progress,
) -> Result<Measured, EvaluateError> {
    let (name, recipe, part) = match source {
        Source::Phantoms { seeds, mix } => {
            let studies = measure(subject, seeds, mix, trial, places.cache, progress)?;
            return Ok(Measured { studies, has_masks: true });
        }
        Source::Data { name, data, part } => (name, data, part),
    };
    let lists = places.cache.map_or_else(|| places.run.join("cache"), Path::to_owned);
    let opened = data::open(name, recipe, &lists, places.run, progress)?;
    let all = opened.studies(part).map_err(data::DataError::from)?;
    let preset = subject.preset;
    let size = usize::try_from(subject.network.plan().config.img_size).unwrap_or_default();
    let mut studies = Vec::with_capacity(all.len());
    for group in all.chunks(rayon::current_num_threads().max(1)) {
        let prepared: Vec<_> = group.par_iter().map(|&scan| opened.prepared(scan, preset, size)).collect();
        for (study, failed) in prepared {
            failed.iter().for_each(|why| progress.note(&format!("{name}: left out: {why}")));
            if !study.slices.is_empty() {
                studies.push(measure_study(subject, &study, trial)?);
            }
            progress.evaluated(studies.len(), all.len());
        }
    }
    Ok(Measured { studies, has_masks: opened.has_masks() })
}

/// The thresholds of maps that the paper's authors fixed (section 4.3), for data on which none can be chosen.
pub fn published(thresholds: &mut Thresholds) {
    thresholds.maps = Method::ALL
        .into_iter()
        .map(|method| match method {
            Method::HgiSamScores | Method::HgiSamSoftmax => (method, 0.05),
            Method::SwinSam => (method, 0.07),
            Method::GradCam => (method, 0.8),
        })
        .collect();
    thresholds.served = Method::HgiSamScores;
}
