//! The attributes that the index needs, read from a data set that [`super::dataset`] has walked.

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use ichor_core::{Uid, chain};
use ichor_result::ObjectMarks;
use ichor_store::{SeriesAttributes, StudyAttributes};
use thiserror::Error;

/// Longest text value that is copied into the index, in characters; the received file keeps the whole.
const LONGEST_TEXT: usize = 256;

/// What an instance says of itself.
#[derive(Clone, Debug)]
pub struct InstanceAttributes {
    /// SOP Class UID of the data set.
    pub sop_class: Uid,
    /// SOP Instance UID of the data set.
    pub sop_instance: Uid,
    /// The study it belongs to.
    pub study: StudyAttributes,
    /// The series it belongs to.
    pub series: SeriesAttributes,
    /// Whether it says that ichor made it.
    pub made_by_ichor: bool,
}

/// Why a complete data set cannot be indexed.
#[derive(Debug, Error)]
pub enum AttributeError {
    /// The parser gave up.
    #[error("cannot be parsed: {0}")]
    Parse(String),
    /// A UID that every composite instance has (PS3.3 C.12.1, C.7.2.1, C.7.3.1) is missing or broken.
    #[error("{name} {problem}")]
    Uid {
        /// The attribute's name.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads the attributes of a Part 10 file, stopping before the pixel data.
///
/// # Errors
/// [`AttributeError`] names the attribute.
pub(super) fn read(path: &Path) -> Result<InstanceAttributes, AttributeError> {
    let object = OpenFileOptions::new()
        .read_until(tags::PIXEL_DATA)
        .open_file(path)
        .map_err(|error| AttributeError::Parse(chain(&error)))?;
    let sop_class = uid(&object, tags::SOP_CLASS_UID, "SOP Class UID")?;
    let [creator, manufacturer, model_name] =
        [tags::INSTANCE_CREATOR_UID, tags::MANUFACTURER, tags::MANUFACTURER_MODEL_NAME].map(|tag| text(&object, tag));
    Ok(InstanceAttributes {
        made_by_ichor: ichor_result::is_own(ObjectMarks {
            sop_class: sop_class.as_str(),
            instance_creator: creator.as_deref(),
            manufacturer: manufacturer.as_deref(),
            model_name: model_name.as_deref(),
        }),
        sop_class,
        sop_instance: uid(&object, tags::SOP_INSTANCE_UID, "SOP Instance UID")?,
        study: StudyAttributes {
            study_instance: uid(&object, tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
            patient_id: text(&object, tags::PATIENT_ID),
            patient_name: text(&object, tags::PATIENT_NAME),
            accession_number: text(&object, tags::ACCESSION_NUMBER),
            study_date: text(&object, tags::STUDY_DATE),
            description: text(&object, tags::STUDY_DESCRIPTION),
        },
        series: SeriesAttributes {
            series_instance: uid(&object, tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
            modality: text(&object, tags::MODALITY),
            description: text(&object, tags::SERIES_DESCRIPTION),
            number: text(&object, tags::SERIES_NUMBER).and_then(|number| number.parse().ok()),
        },
    })
}

fn uid(object: &DefaultDicomObject, tag: Tag, name: &'static str) -> Result<Uid, AttributeError> {
    let problem = |problem: String| AttributeError::Uid { name, problem };
    let element = object.element_opt(tag).ok().flatten().ok_or_else(|| problem("is missing".to_owned()))?;
    let value = element.to_str().map_err(|error| problem(format!("cannot be read: {error}")))?;
    Uid::parse(&value).map_err(|error| problem(format!("is not valid: {error}")))
}

/// A text value without padding and control characters; `None` if absent or empty.
fn text(object: &DefaultDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok().flatten()?.to_str().ok()?;
    let clean: String = value.trim().chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
    (!clean.is_empty()).then_some(clean)
}
