//! A folder of DICOM studies with a labels CSV, as a department makes it of its reports.
//!
//! The file has one or more of the columns `SOPInstanceUID`, `StudyInstanceUID`, `AccessionNumber`, and `any`, the five subtypes, or
//! both; the values are 0 and 1. A row with a SOP instance labels that slice. A row without one labels a study: where it says
//! "no hemorrhage", every slice of the study's head series (chosen as serving chooses it) is negative; where it says
//! "hemorrhage", it cannot say on which slices, and is only of use beside rows for these.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ichor_core::HemorrhageSubtype;
use ichor_ct::gate::GateOptions;
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::choose_series;
use ichor_ct::volume::read_slice;
use sha2::{Digest, Sha256};

use super::DataError;
use super::catalogue::{Catalogue, DataReport, Place, Scan, ScanSlice};
use super::headers::{Card, Filed, along, cards};
use super::labels_csv::{LabelFile, LabelsError, Row, column, label};
use super::recipe::DataRecipe;
use crate::labels::SliceLabel;
use crate::progress::Progress;

const SLICE: &str = "SOPInstanceUID";
const STUDY: &str = "StudyInstanceUID";
const ACCESSION: &str = "AccessionNumber";
const ANY: &str = "any";

/// How deep folders are searched.
const DEPTH: usize = 12;

/// What the file says, by SOP instance and by study (its UID or its accession number); `None` where rows contradict.
#[derive(Debug, Default)]
struct Labels {
    slices: BTreeMap<String, Option<SliceLabel>>,
    studies: BTreeMap<String, Option<SliceLabel>>,
    has_subtypes: bool,
}

/// Files of a study that have a header.
type Study = Vec<(Card, PathBuf)>;

/// Reads what there is. Headers are listed in `cache`. Patients are called by a digest of their ID: splits are written down, and
/// IDs are nobody's business there.
///
/// # Errors
/// [`DataError`] if the folder or the labels cannot be read.
pub fn catalogue(recipe: &DataRecipe, cache: &Path, progress: &mut dyn Progress) -> Result<Catalogue, DataError> {
    let mut report = DataReport::default();
    let path = recipe.labels.clone().unwrap_or_else(|| recipe.folder.join("labels.csv"));
    let labels = read_labels(&path, &mut report)?;
    let mut files = Vec::new();
    find(&recipe.folder, DEPTH, &mut files)?;
    files.retain(|file| *file != path);
    files.sort();
    let mut studies: BTreeMap<String, Study> = BTreeMap::new();
    for Filed { path, card, .. } in cards(&recipe.folder.display().to_string(), files, cache, progress)? {
        match card {
            Ok(card) => studies.entry(card.study.clone()).or_default().push((card, path)),
            Err(why) => {
                let name = path.strip_prefix(&recipe.folder).unwrap_or(&path).display().to_string();
                report.add("files that are no CT images or are corrupt", format!("{name}: {why}"));
            }
        }
    }
    name_absent(&labels, &studies, &mut report);
    let mut scans = Vec::new();
    for (uid, study) in studies {
        scans.extend(scans_of(&uid, study, &labels, &mut report));
    }
    Ok(Catalogue { scans, has_subtypes: labels.has_subtypes, report })
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let kind = entry.file_type().map_err(io)?;
        // Links are not followed: they may lead in a circle.
        if kind.is_dir() && depth > 0 {
            find(&entry.path(), depth - 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn read_labels(path: &Path, report: &mut DataReport) -> Result<Labels, LabelsError> {
    let subtypes = HemorrhageSubtype::ALL.map(column);
    let known: Vec<&str> = [SLICE, STUDY, ACCESSION, ANY].into_iter().chain(subtypes).collect();
    let mut file = LabelFile::open(path, &known)?;
    if ![SLICE, STUDY, ACCESSION].iter().any(|key| file.has(key)) {
        return Err(file.missing("SOPInstanceUID, StudyInstanceUID or AccessionNumber"));
    }
    let has_subtypes = subtypes.iter().any(|name| file.has(name));
    if has_subtypes {
        file.require(&subtypes)?;
    } else {
        file.require(&[ANY])?;
    }
    let has_any = file.has(ANY);
    let mut labels = Labels { has_subtypes, ..Labels::default() };
    file.rows(|row| {
        let read = read_label(row, has_subtypes, has_any)?;
        if read.is_none() {
            report.add("rows whose any contradicts the subtypes, left out", format!("line {}", row.line()));
        }
        let slice = row.text(SLICE);
        let study = [STUDY, ACCESSION].into_iter().map(|key| row.text(key)).find(|key| !key.is_empty());
        let (of, key) = match (slice, study) {
            ("", None) => return Err(row.fault("names neither a slice nor a study".to_owned())),
            ("", Some(study)) => (&mut labels.studies, study),
            (slice, _) => (&mut labels.slices, slice),
        };
        match of.entry(key.to_owned()) {
            Entry::Vacant(entry) => drop(entry.insert(read)),
            Entry::Occupied(entry) if *entry.get() == read => {
                report.add("repeated label rows, dropped", format!("line {}", row.line()));
            }
            Entry::Occupied(mut entry) => {
                report.add("label rows that contradict earlier ones, left out", format!("line {}", row.line()));
                entry.insert(None);
            }
        }
        Ok(())
    })?;
    Ok(labels)
}

fn read_label(row: &Row<'_>, has_subtypes: bool, has_any: bool) -> Result<Option<SliceLabel>, LabelsError> {
    if !has_subtypes {
        return Ok(Some(if row.flag(ANY)? { SliceLabel::UNSPECIFIED } else { SliceLabel::NONE }));
    }
    let mut shown = [false; 5];
    for (is, subtype) in shown.iter_mut().zip(HemorrhageSubtype::ALL) {
        *is = row.flag(column(subtype))?;
    }
    let any = if has_any { row.flag(ANY)? } else { shown.contains(&true) };
    Ok(label(shown, any))
}

fn name_absent(labels: &Labels, studies: &BTreeMap<String, Study>, report: &mut DataReport) {
    let cards = || studies.values().flatten().map(|(card, _)| card);
    let instances: BTreeSet<&str> = cards().map(|card| card.instance.as_str()).collect();
    for slice in labels.slices.keys().filter(|slice| !instances.contains(slice.as_str())) {
        report.add("labels without a file", slice.clone());
    }
    let named: BTreeSet<&str> = cards().flat_map(|card| [card.study.as_str(), card.accession.as_str()]).collect();
    for study in labels.studies.keys().filter(|study| !named.contains(study.as_str())) {
        report.add("labels without a study", study.clone());
    }
}

fn scans_of(uid: &str, study: Study, labels: &Labels, report: &mut DataReport) -> Vec<Scan> {
    let patients: BTreeSet<&str> = study.iter().map(|(card, _)| card.patient.as_str()).collect();
    let patient = match patients.first() {
        Some(patient) if patients.len() == 1 => hex::encode(Sha256::digest(patient))[..16].to_owned(),
        _ => {
            report.add("studies of more than one patient, left out", uid);
            return Vec::new();
        }
    };
    let accession = study.first().map(|(card, _)| card.accession.clone()).unwrap_or_default();
    let of_study = labels.studies.get(uid).or_else(|| labels.studies.get(&accession)).copied();
    let mut labelled: BTreeMap<String, Vec<(Card, PathBuf, SliceLabel)>> = BTreeMap::new();
    let mut unlabelled = 0;
    for (card, path) in &study {
        match labels.slices.get(&card.instance) {
            Some(Some(label)) => {
                labelled.entry(card.series.clone()).or_default().push((card.clone(), path.clone(), *label));
            }
            Some(None) => {}
            None => unlabelled += 1,
        }
    }
    if labelled.is_empty() {
        return match of_study {
            Some(Some(label)) if !label.any() => negative(uid, patient, study, report).into_iter().collect(),
            Some(Some(_)) => {
                report.add("positive studies without slice labels, left out: they cannot say which slices bleed", uid);
                Vec::new()
            }
            Some(None) => Vec::new(),
            None => {
                report.add("studies without labels", uid);
                Vec::new()
            }
        };
    }
    if unlabelled > 0 {
        report.add("studies of which some slices have no label and are left out", format!("{uid} ({unlabelled})"));
    }
    let contradicts = |slices: &Vec<(Card, PathBuf, SliceLabel)>| slices.iter().any(|(.., label)| label.any());
    if of_study.flatten().is_some_and(|label| !label.any()) && labelled.values().any(contradicts) {
        report.add("negative studies with positive slices, left out", uid);
        return Vec::new();
    }
    let scan = |(name, mut slices): (String, Vec<(Card, PathBuf, SliceLabel)>)| {
        slices.sort_by(|a, b| along(&a.0, &b.0));
        let slice = |(_, path, label)| ScanSlice { label, place: Place::Dicom(path) };
        Scan { patient: patient.clone(), name, volume: None, slices: slices.into_iter().map(slice).collect() }
    };
    labelled.into_iter().map(scan).collect()
}

/// The head series of a negative study, as serving chooses it.
fn negative(uid: &str, patient: String, study: Study, report: &mut DataReport) -> Option<Scan> {
    let headers = study.iter().filter_map(|(_, path)| InstanceHeader::read(path).ok()).collect();
    let read =
        |slice: &ichor_ct::volume::PlacedSlice| Ok::<_, std::convert::Infallible>(read_slice(&slice.header.path).ok());
    let choice = choose_series(headers, &GateOptions::default(), read).unwrap_or_else(|never| match never {});
    let Some((name, stack)) = choice.chosen else {
        let why = choice.outcomes.first().and_then(|outcome| outcome.reasons.first());
        let why = why.map_or_else(|| "no series".to_owned(), |reason| reason.text.clone());
        report.add("negative studies without a head series, left out", format!("{uid}: {why}"));
        return None;
    };
    let slice = |slice: ichor_ct::volume::PlacedSlice| ScanSlice {
        label: SliceLabel::NONE,
        place: Place::Dicom(slice.header.path),
    };
    let slices = stack.slices.into_iter().map(slice).collect();
    Some(Scan { patient, name: name.to_string(), volume: None, slices })
}

#[cfg(test)]
pub(in crate::data) mod tests {
    use super::*;
    use crate::data::headers::tests::{Said, write};
    use crate::data::recipe::{DataForm, SplitRecipe};

    pub(in crate::data) fn recipe(folder: &Path) -> DataRecipe {
        DataRecipe {
            form: DataForm::Folder,
            folder: folder.join("studies"),
            labels: Some(folder.join("labels.csv")),
            brain_masks: None,
            split: SplitRecipe { folds: 3, ..SplitRecipe::default() },
        }
    }

    /// Studies 1.2.1, 1.2.2, … of patients P1, P2, …, each in a folder of its own with a series of 30 slices.
    fn archive(folder: &Path, studies: usize) {
        for study in 1..=studies {
            let place = folder.join(format!("studies/{study}/deep"));
            std::fs::create_dir_all(&place).unwrap();
            for at in 0..30 {
                let said = Said {
                    patient: &format!("P{study}"),
                    study: &format!("1.2.{study}"),
                    series: &format!("1.2.{study}.1"),
                    instance: &format!("1.2.{study}.1.{at}"),
                    z: 5.0 * f64::from(at),
                    bright: false,
                };
                write(&place.join(format!("{at}")), &said);
            }
        }
    }

    fn read(folder: &Path, text: &str) -> Result<Catalogue, DataError> {
        std::fs::write(folder.join("labels.csv"), text).unwrap();
        catalogue(&recipe(folder), &folder.join("cache"), &mut ())
    }

    #[test]
    fn slices_and_negative_studies_are_labelled() {
        let folder = tempfile::tempdir().unwrap();
        archive(folder.path(), 4);
        let text = "StudyInstanceUID,SOPInstanceUID,any\n\
                    1.2.1,1.2.1.1.3,1\n1.2.1,1.2.1.1.2,0\n1.2.1,1.2.1.1.2,0\n\
                    1.2.2,,0\n1.2.3,,1\n1.2.9,,0\n,1.9.9,1\n";
        let found = read(folder.path(), text).unwrap();
        let names: Vec<&str> = found.scans.iter().map(|scan| scan.name.as_str()).collect();
        assert_eq!(names, ["1.2.1.1", "1.2.2.1"], "{:?}", found.report);
        let labels: Vec<bool> = found.scans[0].slices.iter().map(|slice| slice.label.any()).collect();
        assert_eq!(labels, [false, true], "in their order along the patient");
        assert_eq!((found.scans[1].slices.len(), found.scans[1].positive()), (30, 0));
        assert!(!found.has_subtypes && !found.scans[0].patient.contains("P1"));
        for (what, name) in [
            ("repeated label rows, dropped", "line 4"),
            ("studies of which some slices have no label and are left out", "1.2.1 (28)"),
            ("positive studies without slice labels, left out: they cannot say which slices bleed", "1.2.3"),
            ("studies without labels", "1.2.4"),
            ("labels without a study", "1.2.9"),
            ("labels without a file", "1.9.9"),
        ] {
            assert_eq!(found.report.count(what), 1, "{what}: {:?}", found.report);
            assert!(found.report.lines().any(|line| line.contains(what) && line.contains(name)), "{what}");
        }
    }

    #[test]
    fn accession_numbers_and_subtypes_do_as_well() {
        let folder = tempfile::tempdir().unwrap();
        archive(folder.path(), 2);
        std::fs::write(folder.path().join("studies/readme.txt"), "no image").unwrap();
        let text = "AccessionNumber,epidural,intraparenchymal,intraventricular,subarachnoid,subdural\n\
                    AP1,0,0,0,0,0\nAP2,0,0,0,0,0\nAP2,1,0,0,0,0\n";
        let found = read(folder.path(), text).unwrap();
        assert!(found.has_subtypes);
        assert_eq!(found.scans.iter().map(|scan| scan.name.as_str()).collect::<Vec<_>>(), ["1.2.1.1"]);
        assert_eq!(found.report.count("label rows that contradict earlier ones, left out"), 1);
        assert_eq!(found.report.count("files that are no CT images or are corrupt"), 1);
    }

    #[test]
    fn contradictions_and_other_columns_are_told() {
        let folder = tempfile::tempdir().unwrap();
        archive(folder.path(), 1);
        let found = read(folder.path(), "StudyInstanceUID,SOPInstanceUID,any\n1.2.1,,0\n1.2.1,1.2.1.1.3,1\n").unwrap();
        assert_eq!(found.report.count("negative studies with positive slices, left out"), 1);
        let error = |text: &str| read(folder.path(), text).unwrap_err().to_string();
        assert!(error("any\n1\n").contains("AccessionNumber"));
        assert!(error("SOPInstanceUID,epidural\n").contains("intraparenchymal"));
        assert!(error("SOPInstanceUID,any,reader\n").contains("reader"));
        assert!(error("SOPInstanceUID,any\n,1\n").contains("line 2"));
        assert!(error("SOPInstanceUID\n1.2\n").contains("any"));
    }
}
