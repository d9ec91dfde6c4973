//! The check that every capture passes before it leaves, read back from the very bytes that will be sent.

use std::io::Read;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, from_reader};
use ichor_core::Uid;

use crate::check::{CheckFailed, items, value};

/// Type 1 attributes that must have a value (PS3.3 A.8.1.3).
const TYPE_1: &[(Tag, &str)] = &[
    (tags::SERIES_NUMBER, "series number"),
    (tags::INSTANCE_NUMBER, "instance number"),
    (tags::MANUFACTURER, "manufacturer"),
    (tags::CONTENT_DATE, "content date"),
    (tags::CONTENT_TIME, "content time"),
    (tags::DERIVATION_DESCRIPTION, "derivation description"),
    (tags::PIXEL_SPACING, "pixel spacing"),
];

/// Type 2 attributes: there, maybe empty.
const TYPE_2: &[(Tag, &str)] = &[
    (tags::PATIENT_NAME, "patient's name"),
    (tags::PATIENT_ID, "patient ID"),
    (tags::PATIENT_BIRTH_DATE, "patient's birth date"),
    (tags::PATIENT_SEX, "patient's sex"),
    (tags::STUDY_DATE, "study date"),
    (tags::STUDY_TIME, "study time"),
    (tags::ACCESSION_NUMBER, "accession number"),
    (tags::REFERRING_PHYSICIAN_NAME, "referring physician's name"),
    (tags::STUDY_ID, "study ID"),
    (tags::PATIENT_ORIENTATION, "patient orientation"),
];

/// Values that are the same in every capture.
const FIXED: &[(Tag, &str, &str)] = &[
    (tags::SPECIFIC_CHARACTER_SET, "specific character set", "ISO_IR 192"),
    (tags::SOP_CLASS_UID, "SOP class UID", uids::SECONDARY_CAPTURE_IMAGE_STORAGE),
    (tags::CONVERSION_TYPE, "conversion type", "WSD"),
    (tags::BURNED_IN_ANNOTATION, "burned in annotation", "NO"),
    (tags::PHOTOMETRIC_INTERPRETATION, "photometric interpretation", "RGB"),
    (tags::SAMPLES_PER_PIXEL, "samples per pixel", "3"),
    (tags::PLANAR_CONFIGURATION, "planar configuration", "0"),
    (tags::BITS_ALLOCATED, "bits allocated", "8"),
    (tags::BITS_STORED, "bits stored", "8"),
    (tags::HIGH_BIT, "high bit", "7"),
    (tags::PIXEL_REPRESENTATION, "pixel representation", "0"),
];

/// Checks a Part 10 file, from its start, as a capture.
///
/// # Errors
/// [`CheckFailed`] lists everything that is wrong.
pub fn check_capture(file: impl Read) -> Result<(), CheckFailed> {
    let file = from_reader(file).map_err(|e| CheckFailed { problems: vec![format!("cannot be read back: {e}")] })?;
    let (meta, object): (_, &InMemDicomObject) = (file.meta(), &file);
    let mut problems = Vec::new();
    let mut expect = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    expect(
        meta.transfer_syntax() == uids::EXPLICIT_VR_LITTLE_ENDIAN,
        format!("transfer syntax is {}", meta.transfer_syntax()),
    );
    let instance = value(object, tags::SOP_INSTANCE_UID);
    let is_same = instance.as_deref() == Some(meta.media_storage_sop_instance_uid());
    expect(is_same, "media storage SOP instance UID differs from the data set".to_owned());
    for (tag, name) in TYPE_1 {
        expect(value(object, *tag).is_some(), format!("{name} has no value"));
    }
    for (tag, name) in TYPE_2 {
        expect(object.get(*tag).is_some(), format!("{name} is missing"));
    }
    for (tag, name, expected) in FIXED {
        let found = value(object, *tag);
        expect(found.as_deref() == Some(expected), format!("{name} is {found:?}, not {expected:?}"));
    }
    let is_uid = |object: &InMemDicomObject, tag| value(object, tag).is_some_and(|uid| Uid::parse(&uid).is_ok());
    for tag in [tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
        expect(is_uid(object, tag), format!("{tag} is no UID"));
    }
    let sources = items(object, tags::SOURCE_IMAGE_SEQUENCE);
    let names_its_source = sources.len() == 1 && is_uid(&sources[0], tags::REFERENCED_SOP_INSTANCE_UID);
    expect(names_its_source, format!("{} source images", sources.len()));
    let size = |tag| value(object, tag).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let (rows, columns) = (size(tags::ROWS), size(tags::COLUMNS));
    let pixels = object.get(tags::PIXEL_DATA).and_then(|e| e.to_bytes().ok()).map_or(0, |bytes| bytes.len());
    let wanted = rows * columns * 3;
    expect(
        wanted > 0 && pixels == wanted + wanted % 2,
        format!("{pixels} bytes of pixels for {rows} rows x {columns} columns"),
    );
    if problems.is_empty() { Ok(()) } else { Err(CheckFailed { problems }) }
}
