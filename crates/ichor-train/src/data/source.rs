//! A data set of the recipe, opened: its catalogue, its split, its prepared slices and studies.

use std::path::{Path, PathBuf};

use ichor_ct::input::InputPreset;
use ichor_model::Strategy;
use thiserror::Error;

use super::catalogue::{Catalogue, DataReport};
use super::decode::{Decoded, decode};
use super::disk::{DiskSlices, Preparation, prepare};
use super::labels_csv::LabelsError;
use super::recipe::{DataForm, DataRecipe, Part};
use super::split::{PatientSplitError, Split};
use super::{folder, physionet, rsna};
use crate::prepared::{PreparedSlice, PreparedStudy, ready};
use crate::progress::Progress;
use crate::slices::SliceSetError;

/// Data cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file system refused.
    #[error("data {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The labels cannot be used.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The split cannot be made or taken up.
    #[error(transparent)]
    Split(#[from] PatientSplitError),
    /// Prepared slices cannot be written or read.
    #[error(transparent)]
    Slices(#[from] SliceSetError),
    /// Nothing is left of the data.
    #[error("data {name:?}: no labelled slice remains; {}", report.join("; "))]
    Nothing {
        /// What the recipe calls it.
        name: String,
        /// What was left out.
        report: Vec<String>,
    },
    /// The labels do not say what the strategy learns.
    #[error("data {0:?}: the labels do not tell subtypes apart, which the strategy multilabel needs")]
    NoSubtypes(String),
    /// The run was asked to stop.
    #[error("stopped while slices of {0:?} were prepared; the same command goes on from there")]
    Stopped(String),
}

/// An opened data set.
#[derive(Debug, Clone)]
pub struct Opened {
    name: String,
    form: DataForm,
    cache: PathBuf,
    /// Its scans and what was left out.
    pub catalogue: Catalogue,
    /// Who stands on which side.
    pub split: Split,
}

/// Opens the data that a recipe calls `name`: reads the labels, finds the scans, and takes up or makes the split, which stands
/// in `run` as `split-<name>.json`. What was left out is noted and written beside it as `data-<name>.txt`.
///
/// # Errors
/// [`DataError`].
pub fn open(
    name: &str,
    recipe: &DataRecipe,
    cache: &Path,
    run: &Path,
    progress: &mut dyn Progress,
) -> Result<Opened, DataError> {
    let catalogue = match recipe.form {
        DataForm::PhysioNet => physionet::catalogue(recipe)?,
        DataForm::Rsna => rsna::catalogue(recipe, cache, progress)?,
        DataForm::Folder => folder::catalogue(recipe, cache, progress)?,
    };
    let lines: Vec<String> = catalogue.report.lines().collect();
    if catalogue.scans.is_empty() {
        return Err(DataError::Nothing { name: name.to_owned(), report: lines });
    }
    let split = Split::read_or_make(&run.join(format!("split-{name}.json")), &catalogue.scans, recipe.split)?;
    let slices: usize = catalogue.scans.iter().map(|scan| scan.slices.len()).sum();
    let bleeding: usize = catalogue.scans.iter().map(super::Scan::positive).sum();
    let mut text = vec![format!(
        "{name}: {} patients, {} scans, {slices} labelled slices, {bleeding} of them bleeding",
        split.patients.len(),
        catalogue.scans.len(),
    )];
    text.extend(lines.into_iter().map(|line| format!("{name}: {line}")));
    text.iter().for_each(|line| progress.note(line));
    let path = run.join(format!("data-{name}.txt"));
    std::fs::write(&path, text.join("\n") + "\n").map_err(|source| DataError::Io { path, source })?;
    let (name, form, cache) = (name.to_owned(), recipe.form, cache.to_owned());
    Ok(Opened { name, form, cache, catalogue, split })
}

impl Opened {
    /// Refuses a strategy that needs more than the labels say.
    ///
    /// # Errors
    /// [`DataError::NoSubtypes`].
    pub fn check_strategy(&self, strategy: Strategy) -> Result<(), DataError> {
        if strategy == Strategy::Multilabel && !self.catalogue.has_subtypes {
            return Err(DataError::NoSubtypes(self.name.clone()));
        }
        Ok(())
    }

    /// Whether masks were drawn.
    #[must_use]
    pub fn has_masks(&self) -> bool {
        self.form.has_masks()
    }

    /// Indices of the part's scans, which are its studies.
    ///
    /// # Errors
    /// [`PatientSplitError::EmptyClass`].
    pub fn studies(&self, part: Part) -> Result<Vec<usize>, PatientSplitError> {
        self.split.scans(&self.catalogue.scans, part)
    }

    /// The part's slices as model inputs, prepared on disk. `going` turns false when somebody asks the run to stop.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn slices(
        &self,
        part: Part,
        preset: InputPreset,
        size: usize,
        going: &(dyn Fn() -> bool + Sync),
        progress: &mut dyn Progress,
    ) -> Result<DiskSlices, DataError> {
        let wanted = self.studies(part)?.into_iter().collect();
        let mut report = DataReport::default();
        let how = Preparation { name: &self.name, preset, size, cache: &self.cache, going };
        let slices = prepare(&self.catalogue, &wanted, how, &mut report, progress)?;
        report.lines().for_each(|line| progress.note(&format!("{}: {line}", self.name)));
        Ok(slices)
    }

    /// One scan made ready for measuring: its labelled slices and what was drawn on them. Where the source has no masks they are
    /// empty. Slices that cannot be decoded are left out; the second value names them.
    #[must_use]
    pub fn prepared(&self, scan: usize, preset: InputPreset, size: usize) -> (PreparedStudy, Vec<String>) {
        let (mut slices, mut failed, mut first) = (Vec::new(), Vec::new(), None);
        let scan_slices = &self.catalogue.scans[scan].slices;
        decode(&self.catalogue.scans[scan], |index, decoded| match decoded {
            Ok(Decoded { slice, mask, brain }) => {
                let origin = *first.get_or_insert(slice.plane);
                let pixels = slice.hu.len();
                let mut ready = ready(slice.hu, &slice.plane, slice.window, preset, size);
                if let Some(brain) = brain {
                    ready.brain = brain;
                }
                let offset_mm = (slice.plane.distance_from(&origin) * 1000.0).round() / 1000.0;
                let pixel_ml = slice.plane.spacing[0] * slice.plane.spacing[1] / 1000.0;
                let mask = mask.unwrap_or_else(|| vec![0; pixels]);
                slices.push(PreparedSlice { ready, offset_mm, label: scan_slices[index].label, mask, pixel_ml });
            }
            Err(why) => failed.push(why),
        });
        fill_slabs(&mut slices);
        let voxels = |slice: &PreparedSlice| slice.mask.iter().map(|m| f64::from(*m)).sum::<f64>() * slice.pixel_ml;
        let truth_ml = slices.iter().map(voxels).sum();
        (PreparedStudy { seed: scan as u64, truth_ml, difficulty: None, slices }, failed)
    }
}

/// Each slice stands for half of the way to either neighbour, at most for the median distance; a lone one for 5 mm.
fn fill_slabs(slices: &mut [PreparedSlice]) {
    let offsets: Vec<f64> = slices.iter().map(|slice| slice.offset_mm).collect();
    let gaps: Vec<f64> = offsets.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let mut ordered = gaps.clone();
    ordered.sort_by(f64::total_cmp);
    let median = ordered.get(ordered.len() / 2).copied().unwrap_or(5.0);
    let half = |at: Option<usize>| at.and_then(|at| gaps.get(at)).map_or(median, |gap| gap.min(median)) / 2.0;
    for (at, slice) in slices.iter_mut().enumerate() {
        slice.pixel_ml *= half(at.checked_sub(1)) + half(Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::physionet::tests::{published, recipe};

    #[test]
    fn a_scan_is_made_ready_with_its_masks() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 12);
        let recipe = recipe(folder.path());
        let opened = open("ich", &recipe, &folder.path().join("cache"), folder.path(), &mut ()).unwrap();
        assert!(opened.has_masks() && opened.check_strategy(Strategy::Multilabel).is_ok());
        let (study, failed) = opened.prepared(0, InputPreset::PhysioNet, 32);
        assert!(failed.is_empty());
        // Two slices with 4 × 5 pixels of 0.5 × 0.5 × 5 mm.
        assert!((study.truth_ml - 2.0 * 20.0 * 1.25e-3).abs() < 1e-9, "{}", study.truth_ml);
        let slices: Vec<(bool, f64, usize)> = study
            .slices
            .iter()
            .map(|slice| (slice.label.any(), slice.offset_mm, slice.mask.iter().filter(|m| **m == 1).count()))
            .collect();
        assert_eq!(slices, [(false, 0.0, 0), (true, 5.0, 20), (true, 10.0, 20), (false, 15.0, 0)]);
        // Scan 049 lost its volume since: its slices are named.
        std::fs::write(folder.path().join("ct_scans/049.nii"), "gone").unwrap();
        let (study, failed) = opened.prepared(0, InputPreset::PhysioNet, 32);
        assert!(study.slices.is_empty() && failed.len() == 4 && failed[0].contains("049.nii"), "{failed:?}");
    }

    #[test]
    fn nothing_left_is_an_error_that_says_why() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 3);
        for patient in 49..52 {
            std::fs::write(folder.path().join(format!("ct_scans/{patient:03}.nii")), "no volume").unwrap();
        }
        let error = open("ich", &recipe(folder.path()), folder.path(), folder.path(), &mut ()).unwrap_err().to_string();
        assert!(error.contains("\"ich\"") && error.contains("3 corrupt scans: 049.nii"), "{error}");
    }
}
