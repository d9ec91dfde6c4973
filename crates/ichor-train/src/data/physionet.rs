//! PhysioNet CT-ICH as published: `ct_scans/NNN.nii`, `masks/NNN.nii` (0 and 255), `hemorrhage_diagnosis_raw_ct.csv`; brain
//! masks `NNN_mask.nii.gz`, where somebody made them, in a folder of their own. One scan a patient.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ichor_core::HemorrhageSubtype;

use super::DataError;
use super::catalogue::{Catalogue, DataReport, Place, Scan, ScanSlice, VolumeFiles};
use super::labels_csv::{LabelFile, LabelsError, Row, column, label};
use super::nifti::{Extent, extent};
use super::recipe::DataRecipe;
use crate::labels::SliceLabel;

const LABELS: &str = "hemorrhage_diagnosis_raw_ct.csv";

/// Columns of the label file; those of fractures are not used.
const COLUMNS: [&str; 10] = [
    "PatientNumber",
    "SliceNumber",
    "Intraventricular",
    "Intraparenchymal",
    "Subarachnoid",
    "Epidural",
    "Subdural",
    "No_Hemorrhage",
    "Fracture_Yes_No",
    "Fracture",
];

/// Slice labels of a patient, by the number of the slice, from 1; `None` where rows contradict.
type PatientLabels = BTreeMap<usize, Option<SliceLabel>>;

/// Reads what there is.
///
/// # Errors
/// [`DataError`] if the folder or the labels cannot be read, or nothing remains.
pub fn catalogue(recipe: &DataRecipe) -> Result<Catalogue, DataError> {
    let mut report = DataReport::default();
    let path = recipe.labels.clone().unwrap_or_else(|| recipe.folder.join(LABELS));
    let labels = read_labels(&path, &mut report)?;
    let numbers = volumes(&recipe.folder.join("ct_scans"), &mut report)?;
    for patient in labels.keys().filter(|patient| !numbers.contains(patient)) {
        report.add("patients with labels without a scan", format!("{patient:03}"));
    }
    let mut scans = Vec::new();
    for patient in numbers {
        let name = format!("{patient:03}");
        match labels.get(&patient) {
            Some(labels) => scans.extend(scan(recipe, &name, labels, &mut report)),
            None => report.add("scans without labels", name),
        }
    }
    Ok(Catalogue { scans, has_subtypes: true, report })
}

fn read_labels(path: &Path, report: &mut DataReport) -> Result<BTreeMap<usize, PatientLabels>, LabelsError> {
    let mut file = LabelFile::open(path, &COLUMNS)?;
    file.require(&COLUMNS[..8])?;
    let mut labels: BTreeMap<usize, PatientLabels> = BTreeMap::new();
    file.rows(|row| {
        let (patient, slice) = (row.number("PatientNumber")?, row.number("SliceNumber")?);
        let name = || format!("line {} (patient {patient:03}, slice {slice})", row.line());
        let read = read_label(row)?;
        if read.is_none() {
            report.add("rows whose No_Hemorrhage contradicts the subtypes, left out", name());
        }
        match labels.entry(patient).or_default().entry(slice) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(read);
            }
            std::collections::btree_map::Entry::Occupied(entry) if *entry.get() == read => {
                report.add("repeated label rows, dropped", name());
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                report.add("label rows that contradict earlier ones, their slices left out", name());
                entry.insert(None);
            }
        }
        Ok(())
    })?;
    Ok(labels)
}

fn read_label(row: &Row<'_>) -> Result<Option<SliceLabel>, LabelsError> {
    let mut subtypes = [false; 5];
    for (is, subtype) in subtypes.iter_mut().zip(HemorrhageSubtype::ALL) {
        *is = row.flag(column(subtype))?;
    }
    Ok(label(subtypes, !row.flag("No_Hemorrhage")?))
}

/// Numbers of the files `NNN.nii`.
fn volumes(folder: &Path, report: &mut DataReport) -> Result<BTreeSet<usize>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        match name.strip_suffix(".nii").and_then(|stem| stem.parse::<usize>().ok()) {
            Some(number) => drop(numbers.insert(number)),
            None => report.add("files that are no scan", name),
        }
    }
    Ok(numbers)
}

fn scan(recipe: &DataRecipe, name: &str, labels: &PatientLabels, report: &mut DataReport) -> Option<Scan> {
    let ct = recipe.folder.join("ct_scans").join(format!("{name}.nii"));
    let shape = match extent(&ct) {
        Ok(shape) => shape,
        Err(why) => {
            report.add("corrupt scans", format!("{name}.nii {why}"));
            return None;
        }
    };
    let bleeds = labels.values().flatten().any(|label| label.any());
    let mask = recipe.folder.join("masks").join(format!("{name}.nii"));
    let mask = match (mask.exists(), bleeds) {
        (true, _) => Some(mask),
        (false, false) => None,
        (false, true) => {
            report.add("bleeding scans without a mask, left out", name);
            return None;
        }
    };
    let brain = recipe.brain_masks.as_ref().map(|folder| folder.join(format!("{name}_mask.nii.gz")));
    let brain = brain.filter(|path| path.exists());
    if recipe.brain_masks.is_some() && brain.is_none() {
        report.add("scans without a brain mask, which is computed", name);
    }
    for mask in [&mask, &brain].into_iter().flatten() {
        match extent(mask) {
            Ok(other) if other.has_shape_of(&shape) => {}
            Ok(other) => {
                let text = format!("{name} {}, {} {}", of(&shape), mask.display(), of(&other));
                report.add("scans of other shape than their mask, left out", text);
                return None;
            }
            Err(why) => {
                report.add("corrupt masks, their scans left out", format!("{} {why}", mask.display()));
                return None;
            }
        }
    }
    let mut slices = Vec::new();
    for (&number, label) in labels {
        match label {
            Some(label) if number <= shape.slices => {
                slices.push(ScanSlice { label: *label, place: Place::Volume(number - 1) });
            }
            Some(_) => report.add("labels without a slice", format!("{name} slice {number}")),
            None => {}
        }
    }
    for number in (1..=shape.slices).filter(|number| !labels.contains_key(number)) {
        report.add("slices without labels", format!("{name} slice {number}"));
    }
    let volume = Some(VolumeFiles { ct, mask, brain });
    (!slices.is_empty()).then(|| Scan { patient: name.to_owned(), name: name.to_owned(), volume, slices })
}

fn of(extent: &Extent) -> String {
    format!("{} × {} × {}", extent.columns, extent.rows, extent.slices)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::data::nifti::tests::write;
    use crate::data::recipe::{DataForm, SplitRecipe};

    pub(in crate::data) const HEADER: &str = "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,No_Hemorrhage,Fracture_Yes_No\n";

    /// Scans 049, 050, … of four slices of 24 × 20 pixels in the published form; every second patient has an epidural bleed,
    /// a bright square, on slices 2 and 3.
    pub(crate) fn published(folder: &Path, patients: usize) {
        for sub in ["ct_scans", "masks"] {
            std::fs::create_dir_all(folder.join(sub)).unwrap();
        }
        let mut text = HEADER.to_owned();
        for patient in 49..49 + patients {
            let bleeds = |slice: usize| patient % 2 == 1 && (2..=3).contains(&slice);
            let (mut ct, mut mask) = (Vec::new(), Vec::new());
            for slice in 1..=4 {
                for at in 0..24 * 20 {
                    let (x, y) = (at % 24, at / 24);
                    let inside = bleeds(slice) && (14..18).contains(&x) && (12..17).contains(&y);
                    ct.push(if inside { 70 } else { 30 + (at as i16 * 7 + patient as i16) % 5 });
                    mask.push(if inside { 255 } else { 0 });
                }
                let bleeding = u8::from(bleeds(slice));
                text += &format!("{patient},{slice},0,0,0,{bleeding},0,{},0\n", 1 - bleeding);
            }
            let name = format!("{patient:03}.nii");
            write(&folder.join("ct_scans").join(&name), [24, 20, 4], [0.5, 0.5, 5.0], &ct);
            write(&folder.join("masks").join(&name), [24, 20, 4], [0.5, 0.5, 5.0], &mask);
        }
        std::fs::write(folder.join(LABELS), text).unwrap();
    }

    pub(in crate::data) fn recipe(folder: &Path) -> DataRecipe {
        DataRecipe {
            form: DataForm::PhysioNet,
            folder: folder.to_owned(),
            labels: None,
            brain_masks: None,
            split: SplitRecipe { folds: 4, validation_share: 0.25, ..SplitRecipe::default() },
        }
    }

    #[test]
    fn what_was_published_is_read() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 3);
        let found = catalogue(&recipe(folder.path())).unwrap();
        assert_eq!(found.report.lines().count(), 0, "{:?}", found.report);
        assert_eq!(found.scans.iter().map(|scan| scan.name.as_str()).collect::<Vec<_>>(), ["049", "050", "051"]);
        assert_eq!(found.scans.iter().map(Scan::positive).collect::<Vec<_>>(), [2, 0, 2]);
        let slice = &found.scans[0].slices[1];
        assert_eq!((slice.place.clone(), slice.label.shows(HemorrhageSubtype::Epidural)), (Place::Volume(1), true));
    }

    #[test]
    fn what_is_amiss_is_counted_and_named() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 6);
        let (scans, masks) = (folder.path().join("ct_scans"), folder.path().join("masks"));
        write(&masks.join("049.nii"), [24, 20, 3], [0.5, 0.5, 5.0], &[0; 24 * 20 * 3]);
        std::fs::write(scans.join("050.nii"), "no volume").unwrap();
        std::fs::remove_file(masks.join("051.nii")).unwrap();
        std::fs::remove_file(scans.join("054.nii")).unwrap();
        write(&scans.join("060.nii"), [24, 20, 4], [0.5, 0.5, 5.0], &[0; 24 * 20 * 4]);
        let labels = folder.path().join(LABELS);
        // 052: slice 1 again, slice 2 otherwise, slice 3 against itself, and a slice that is not there; slice 4 has no row.
        let text = std::fs::read_to_string(&labels).unwrap();
        let text = text.replace("52,3,0,0,0,0,0,1,0\n", "52,3,0,1,0,0,0,1,0\n").replace("52,4,0,0,0,0,0,1,0\n", "");
        let more = "52,1,0,0,0,0,0,1,0\n52,2,0,0,0,0,1,0,0\n52,9,0,0,0,0,0,1,0\n";
        std::fs::write(&labels, text + more).unwrap();
        let found = catalogue(&recipe(folder.path())).unwrap();
        assert_eq!(found.scans.iter().map(|scan| scan.name.as_str()).collect::<Vec<_>>(), ["052", "053"]);
        assert_eq!(found.scans[0].slices.len(), 1, "only slice 1 of 052 is certain");
        for (what, name) in [
            ("scans of other shape than their mask, left out", "049 24 × 20 × 4"),
            ("corrupt scans", "050.nii"),
            ("bleeding scans without a mask, left out", "051"),
            ("patients with labels without a scan", "054"),
            ("scans without labels", "060"),
            ("repeated label rows, dropped", "patient 052, slice 1"),
            ("label rows that contradict earlier ones, their slices left out", "patient 052, slice 2"),
            ("rows whose No_Hemorrhage contradicts the subtypes, left out", "patient 052, slice 3"),
            ("labels without a slice", "052 slice 9"),
            ("slices without labels", "052 slice 4"),
        ] {
            assert_eq!(found.report.count(what), 1, "{what}: {:?}", found.report);
            assert!(found.report.lines().any(|line| line.contains(what) && line.contains(name)), "{what}");
        }
    }

    #[test]
    fn other_columns_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 2);
        let error = |text: &str| {
            std::fs::write(folder.path().join(LABELS), text).unwrap();
            catalogue(&recipe(folder.path())).unwrap_err().to_string()
        };
        assert!(error(&HEADER.replace("Subdural", "Subdurale")).contains("Subdurale"));
        assert!(error(&HEADER.replace(",No_Hemorrhage", "")).contains("No_Hemorrhage"));
        assert!(error(&(HEADER.to_owned() + "49,1,0,0,0,0,2,0,0\n")).contains("line 2"));
    }
}
