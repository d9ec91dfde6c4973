//! RSNA Intracranial Hemorrhage Detection 2019 as published: `stage_2_train/ID_….dcm` and `stage_2_train.csv`, which has six rows
//! for each image, `ID_…_subtype,label`. Patients, studies and series come from the headers; the order of slices is that of
//! their positions.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ichor_core::HemorrhageSubtype;

use super::DataError;
use super::catalogue::{Catalogue, DataReport, Place, Scan, ScanSlice};
use super::headers::{Card, along, cards};
use super::labels_csv::{LabelFile, LabelsError, column, label};
use super::recipe::DataRecipe;
use crate::labels::SliceLabel;
use crate::progress::Progress;

const IMAGES: &str = "stage_2_train";
const LABELS: &str = "stage_2_train.csv";

/// What the rows say of one image: the five subtypes and `any`; and whether two of them contradict.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    said: [Option<bool>; 6],
    contradict: bool,
}

/// A labelled file with its header.
type Image = (Card, PathBuf, SliceLabel);

/// Reads what there is. Headers are listed in `cache`.
///
/// # Errors
/// [`DataError`] if the folder or the labels cannot be read.
pub fn catalogue(recipe: &DataRecipe, cache: &Path, progress: &mut dyn Progress) -> Result<Catalogue, DataError> {
    let mut report = DataReport::default();
    let path = recipe.labels.clone().unwrap_or_else(|| recipe.folder.join(LABELS));
    let mut labels = read_labels(&path, &mut report)?;
    let folder = recipe.folder.join(IMAGES);
    let mut series: BTreeMap<(String, String), Vec<Image>> = BTreeMap::new();
    for filed in cards(&folder.display().to_string(), images(&folder)?, cache, progress)? {
        let stem = filed.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(label) = labels.remove(&stem) else {
            report.add("files without labels", stem);
            continue;
        };
        match (filed.card, label) {
            (Err(why), _) => report.add("corrupt files", format!("{stem}: {why}")),
            (Ok(card), Some(label)) => {
                let of = series.entry((card.patient.clone(), card.series.clone())).or_default();
                of.push((card, filed.path, label));
            }
            (Ok(_), None) => {}
        }
    }
    let mut missing: Vec<String> = labels.into_keys().collect();
    missing.sort();
    missing.into_iter().for_each(|name| report.add("labels without a file", name));
    let scans = series.into_iter().map(|((patient, name), mut slices)| {
        slices.sort_by(|a, b| along(&a.0, &b.0));
        let slice = |(_, path, label)| ScanSlice { label, place: Place::Dicom(path) };
        Scan { patient, name, volume: None, slices: slices.into_iter().map(slice).collect() }
    });
    Ok(Catalogue { scans: scans.collect(), has_subtypes: true, report })
}

fn images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|end| end == "dcm") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The label of each image; `None` where its rows contradict each other or some are missing, which is counted.
fn read_labels(path: &Path, report: &mut DataReport) -> Result<HashMap<String, Option<SliceLabel>>, LabelsError> {
    let mut file = LabelFile::open(path, &["ID", "Label"])?;
    file.require(&["ID", "Label"])?;
    let mut images: HashMap<String, Rows> = HashMap::new();
    file.rows(|row| {
        let id = row.text("ID");
        let split = id.rsplit_once('_').and_then(|(image, what)| Some((image, place(what)?)));
        let Some((image, at)) = split else {
            return Err(row.fault(format!("{id:?} is not an image and a subtype, as ID_0123abcd_epidural is")));
        };
        let value = row.flag("Label")?;
        let rows = images.entry(image.to_owned()).or_default();
        match rows.said[at].replace(value) {
            None => {}
            Some(before) if before == value => report.add("repeated label rows, dropped", id),
            Some(_) => {
                report.add("label rows that contradict earlier ones, their images left out", id);
                rows.contradict = true;
            }
        }
        Ok(())
    })?;
    let mut names: Vec<&String> = images.keys().collect();
    names.sort();
    for image in names {
        let Rows { said, contradict } = images[image];
        let what = match said {
            [Some(_), Some(_), Some(_), Some(_), Some(_), Some(_)] if contradict || of(&images[image]).is_some() => {
                continue;
            }
            [Some(_), Some(_), Some(_), Some(_), Some(_), Some(_)] => {
                "images whose any contradicts the subtypes, left out"
            }
            _ => "images without a row for each label, left out",
        };
        report.add(what, image.clone());
    }
    Ok(images.into_iter().map(|(image, rows)| (image, of(&rows))).collect())
}

fn of(rows: &Rows) -> Option<SliceLabel> {
    let [a, b, c, d, e, any] = rows.said;
    if rows.contradict { None } else { label([a?, b?, c?, d?, e?], any?) }
}

/// Place of a name among the six.
fn place(name: &str) -> Option<usize> {
    let subtypes = HemorrhageSubtype::ALL.map(column);
    subtypes.into_iter().chain(["any"]).position(|known| known == name)
}

#[cfg(test)]
pub(in crate::data) mod tests {
    use super::*;
    use crate::data::headers::tests::{Said, write};
    use crate::data::recipe::{DataForm, SplitRecipe};

    pub(in crate::data) fn recipe(folder: &Path) -> DataRecipe {
        DataRecipe {
            form: DataForm::Rsna,
            folder: folder.to_owned(),
            labels: None,
            brain_masks: None,
            split: SplitRecipe { folds: 3, ..SplitRecipe::default() },
        }
    }

    fn rows(image: &str, subdural: u8) -> String {
        let names = ["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"];
        let value = |name: &str| if name == "subdural" || name == "any" { subdural } else { 0 };
        names.iter().map(|name| format!("{image}_{name},{}\n", value(name))).collect()
    }

    /// Patients ID_p0, ID_p1, … with a series of three slices each, whose files do not lie in their order; the middle one of every
    /// other patient bleeds.
    pub(in crate::data) fn published(folder: &Path, patients: usize) {
        std::fs::create_dir_all(folder.join(IMAGES)).unwrap();
        let mut text = "ID,Label\n".to_owned();
        for patient in 0..patients {
            for (file, at) in [(0, 2), (1, 0), (2, 1)] {
                let bright = patient % 2 == 0 && at == 1;
                let image = format!("ID_{patient:04}{file}");
                let said = Said {
                    patient: &format!("ID_p{patient}"),
                    study: &format!("ID_s{patient}"),
                    series: &format!("ID_r{patient}"),
                    instance: &image,
                    z: 100.0 + 5.0 * f64::from(at),
                    bright,
                };
                write(&folder.join(IMAGES).join(format!("{image}.dcm")), &said);
                text += &rows(&image, u8::from(bright));
            }
        }
        std::fs::write(folder.join(LABELS), text).unwrap();
    }

    #[test]
    fn what_was_published_is_read() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 2);
        let found = catalogue(&recipe(folder.path()), &folder.path().join("cache"), &mut ()).unwrap();
        assert_eq!(found.report.lines().count(), 0, "{:?}", found.report);
        let names = |scan: &Scan| -> Vec<String> {
            let name = |slice: &ScanSlice| match &slice.place {
                Place::Dicom(path) => path.file_stem().unwrap().to_string_lossy().into_owned(),
                Place::Volume(_) => unreachable!(),
            };
            scan.slices.iter().map(name).collect()
        };
        assert_eq!(names(&found.scans[0]), ["ID_00001", "ID_00002", "ID_00000"], "by position");
        assert_eq!((found.scans[0].patient.as_str(), found.scans[0].name.as_str()), ("ID_p0", "ID_r0"));
        let labels: Vec<bool> = found.scans[0].slices.iter().map(|slice| slice.label.any()).collect();
        assert_eq!(labels, [false, true, false]);
        assert!(found.scans[0].slices[1].label.shows(HemorrhageSubtype::Subdural));
    }

    #[test]
    fn what_is_amiss_is_counted_and_named() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 4);
        let (images, labels) = (folder.path().join(IMAGES), folder.path().join(LABELS));
        let mut text = std::fs::read_to_string(&labels).unwrap();
        // As published: rows that say the same again. And others that occur where labels are put together.
        text += &rows("ID_00000", 0);
        text += "ID_00010_any,1\n";
        text += &rows("ID_gone", 0);
        text = text.replace("ID_00020_any,0\n", "").replace("ID_00021_epidural,0", "ID_00021_epidural,1");
        std::fs::write(&labels, text).unwrap();
        std::fs::write(images.join("ID_00030.dcm"), "corrupt").unwrap();
        std::fs::copy(images.join("ID_00000.dcm"), images.join("ID_more.dcm")).unwrap();
        let found = catalogue(&recipe(folder.path()), &folder.path().join("cache"), &mut ()).unwrap();
        for (what, count, name) in [
            ("repeated label rows, dropped", 6, "ID_00000_epidural"),
            ("label rows that contradict earlier ones, their images left out", 1, "ID_00010_any"),
            ("labels without a file", 1, "ID_gone"),
            ("images without a row for each label, left out", 1, "ID_00020"),
            ("images whose any contradicts the subtypes, left out", 1, "ID_00021"),
            ("corrupt files", 1, "ID_00030"),
            ("files without labels", 1, "ID_more"),
        ] {
            assert_eq!(found.report.count(what), count, "{what}: {:?}", found.report);
            assert!(found.report.lines().any(|line| line.contains(what) && line.contains(name)), "{what}");
        }
        assert_eq!(found.scans.iter().map(|scan| scan.slices.len()).collect::<Vec<_>>(), [3, 2, 1, 2]);
    }

    #[test]
    fn other_columns_and_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        published(folder.path(), 1);
        let error = |text: &str| {
            std::fs::write(folder.path().join(LABELS), text).unwrap();
            catalogue(&recipe(folder.path()), folder.path(), &mut ()).unwrap_err().to_string()
        };
        assert!(error("ID,Label,Age\n").contains("Age"));
        assert!(error("ID\n").contains("Label"));
        assert!(error("ID,Label\nID_1_fracture,0\n").contains("line 2"));
        assert!(error("ID,Label\nID_1_any,0.5\n").contains("0.5"));
    }
}
