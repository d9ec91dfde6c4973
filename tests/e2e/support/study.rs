//! Studies to send: phantoms from `ichor phantom`, and copies of them with something changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, open_file};

use super::part10;

/// One instance on disk.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) path: PathBuf,
    pub(crate) sop_class: String,
    pub(crate) sop_instance: String,
    pub(crate) transfer_syntax: String,
}

/// A study on disk, in the order of the table positions.
#[derive(Clone, Debug)]
pub(crate) struct Study {
    pub(crate) folder: PathBuf,
    pub(crate) study_uid: String,
    pub(crate) instances: Vec<Instance>,
}

/// What phantom to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phantom {
    pub(crate) seed: u64,
    pub(crate) positive: bool,
    pub(crate) slices: u32,
    pub(crate) matrix: u32,
}

impl Phantom {
    /// A phantom with a bleed, small enough to be quick. Whether the weights see it is another matter:
    /// [`super::chosen`].
    pub(crate) const BLEEDING: Self = Self { seed: 9_001, positive: true, slices: 24, matrix: 256 };

    /// The same with another seed.
    pub(crate) const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with another number of slices.
    pub(crate) const fn slices(self, slices: u32) -> Self {
        Self { slices, ..self }
    }

    /// The same with another matrix.
    pub(crate) const fn matrix(self, matrix: u32) -> Self {
        Self { matrix, ..self }
    }

    /// Writes the phantom's study into a folder.
    pub(crate) fn write(self, folder: &Path) -> Study {
        let output = Command::new(env!("CARGO_BIN_EXE_ichor"))
            .args(["phantom", "--seed", &self.seed.to_string(), "--positive", &self.positive.to_string()])
            .args(["--slices", &self.slices.to_string(), "--matrix", &self.matrix.to_string(), "--out"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "ichor phantom: {}", String::from_utf8_lossy(&output.stderr));
        let study = Study::load(folder);
        assert_eq!(study.instances.len(), self.slices as usize);
        study
    }
}

impl Study {
    /// Finds the DICOM files below a folder; all must be of one study.
    pub(crate) fn load(folder: &Path) -> Self {
        let mut found: Vec<(f64, String, Instance)> = Vec::new();
        for path in part10::part10_files_below(folder) {
            let object = part10::header(&path);
            let z = object.get(tags::IMAGE_POSITION_PATIENT).and_then(|e| e.to_multi_float64().ok());
            let instance = Instance {
                sop_class: part10::text(&object, tags::SOP_CLASS_UID),
                sop_instance: part10::text(&object, tags::SOP_INSTANCE_UID),
                transfer_syntax: object.meta().transfer_syntax().trim_end_matches('\0').to_owned(),
                path,
            };
            let z = z.and_then(|position| position.get(2).copied()).unwrap_or_default();
            found.push((z, part10::text(&object, tags::STUDY_INSTANCE_UID), instance));
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.2.path.cmp(&b.2.path)));
        let study_uid = found.first().unwrap_or_else(|| panic!("no DICOM below {}", folder.display())).1.clone();
        assert!(found.iter().all(|(_, uid, _)| *uid == study_uid), "several studies below {}", folder.display());
        let instances = found.into_iter().map(|(_, _, instance)| instance).collect();
        Self { folder: folder.to_owned(), study_uid, instances }
    }

    /// The instances' files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.instances.iter().map(|instance| instance.path.clone()).collect()
    }

    /// Writes a copy into another folder, each object passed through `edit` with its index. The file meta information
    /// follows the SOP Instance UID.
    pub(crate) fn edited(&self, folder: &Path, mut edit: impl FnMut(usize, &mut DefaultDicomObject)) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        for (index, instance) in self.instances.iter().enumerate() {
            let mut object = open_file(&instance.path).unwrap();
            edit(index, &mut object);
            let uid = part10::text(&object, tags::SOP_INSTANCE_UID);
            object.update_meta(|meta| meta.media_storage_sop_instance_uid = uid);
            object.write_to_file(folder.join(format!("{index:05}.dcm"))).unwrap();
        }
        Self::load(folder)
    }

    /// A copy with study, series and instance UIDs of its own: the same pixels as another study.
    pub(crate) fn restamped(&self, folder: &Path, suffix: &str) -> Self {
        self.edited(folder, |_, object| {
            for tag in [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::SOP_INSTANCE_UID] {
                append_to_uid(object, tag, suffix);
            }
        })
    }
}

/// Makes another UID of one, by replacing its end.
pub(crate) fn append_to_uid(object: &mut DefaultDicomObject, tag: Tag, suffix: &str) {
    let mut uid = part10::text(object, tag);
    uid.truncate(63 - suffix.len());
    put_text(object, tag, VR::UI, &format!("{}.{suffix}", uid.trim_end_matches('.')));
}

/// Sets a text element.
pub(crate) fn put_text(object: &mut DefaultDicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}
