//! The check that every presentation state passes before it leaves, read back from the very bytes that will be sent.

use std::collections::HashSet;
use std::io::Read;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, from_reader};
use ichor_core::Uid;

use crate::check::{CheckFailed, items, value};

/// Type 1 attributes that must have a value (PS3.3 A.33.1.3).
const TYPE_1: &[(Tag, &str)] = &[
    (tags::SERIES_NUMBER, "series number"),
    (tags::INSTANCE_NUMBER, "instance number"),
    (tags::MANUFACTURER, "manufacturer"),
    (tags::PRESENTATION_CREATION_DATE, "presentation creation date"),
    (tags::PRESENTATION_CREATION_TIME, "presentation creation time"),
    (tags::CONTENT_LABEL, "content label"),
    (tags::RESCALE_SLOPE, "rescale slope"),
    (tags::RESCALE_INTERCEPT, "rescale intercept"),
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
    (tags::CONTENT_DESCRIPTION, "content description"),
    (tags::CONTENT_CREATOR_NAME, "content creator's name"),
];

/// Values that are the same in every presentation state made here.
const FIXED: &[(Tag, &str, &str)] = &[
    (tags::SPECIFIC_CHARACTER_SET, "specific character set", "ISO_IR 192"),
    (tags::SOP_CLASS_UID, "SOP class UID", uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE),
    (tags::MODALITY, "modality", "PR"),
    (tags::PRESENTATION_LUT_SHAPE, "presentation LUT shape", "IDENTITY"),
];

/// Checks a Part 10 file, from its start, as a presentation state.
///
/// # Errors
/// [`CheckFailed`] lists everything that is wrong.
pub fn check_presentation(file: impl Read) -> Result<(), CheckFailed> {
    let file = from_reader(file).map_err(|e| CheckFailed { problems: vec![format!("cannot be read back: {e}")] })?;
    let (meta, object): (_, &InMemDicomObject) = (file.meta(), &file);
    let mut problems = Vec::new();
    let mut expect = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    let is_same = value(object, tags::SOP_INSTANCE_UID).as_deref() == Some(meta.media_storage_sop_instance_uid());
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
    for tag in [tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
        let is_uid = value(object, tag).is_some_and(|uid| Uid::parse(&uid).is_ok());
        expect(is_uid, format!("{tag} is no UID"));
    }
    let images = |object: &InMemDicomObject| -> Vec<String> {
        let images = items(object, tags::REFERENCED_IMAGE_SEQUENCE).iter();
        images.filter_map(|image| value(image, tags::REFERENCED_SOP_INSTANCE_UID)).collect()
    };
    let referenced: HashSet<String> = items(object, tags::REFERENCED_SERIES_SEQUENCE).iter().flat_map(images).collect();
    expect(!referenced.is_empty(), "no image is referenced".to_owned());
    let areas: HashSet<String> =
        items(object, tags::DISPLAYED_AREA_SELECTION_SEQUENCE).iter().flat_map(images).collect();
    expect(areas == referenced, "the displayed areas are not those of the referenced images".to_owned());
    let voi = items(object, tags::SOFTCOPY_VOILUT_SEQUENCE);
    expect(voi.len() == 1 && value(&voi[0], tags::WINDOW_WIDTH).is_some(), "there is no window".to_owned());
    let layers: Vec<String> = items(object, tags::GRAPHIC_LAYER_SEQUENCE)
        .iter()
        .filter_map(|layer| value(layer, tags::GRAPHIC_LAYER))
        .collect();
    let annotations = items(object, tags::GRAPHIC_ANNOTATION_SEQUENCE);
    expect(!annotations.is_empty(), "there are no graphics".to_owned());
    for (number, annotation) in (1..).zip(annotations) {
        let on = images(annotation);
        expect(on.len() == 1 && referenced.contains(&on[0]), format!("annotation {number} is on {on:?}"));
        let layer = value(annotation, tags::GRAPHIC_LAYER).unwrap_or_default();
        expect(layers.contains(&layer), format!("annotation {number} is in the layer {layer:?}"));
        let graphics = items(annotation, tags::GRAPHIC_OBJECT_SEQUENCE);
        expect(!graphics.is_empty(), format!("annotation {number} has no graphic"));
        for graphic in graphics {
            let points = value(graphic, tags::NUMBER_OF_GRAPHIC_POINTS).and_then(|n| n.parse::<usize>().ok());
            let data = graphic.get(tags::GRAPHIC_DATA).and_then(|e| e.to_multi_float32().ok()).unwrap_or_default();
            let fits = points.is_some_and(|points| points >= 2 && data.len() == 2 * points);
            let is_finite = data.iter().all(|at| at.is_finite() && *at >= 0.0);
            expect(fits && is_finite, format!("annotation {number}: {} numbers for {points:?} points", data.len()));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(CheckFailed { problems }) }
}
