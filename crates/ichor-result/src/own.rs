//! Recognising our own objects when they come back.

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ichor_core::IMPLEMENTATION_CLASS_UID;

/// Manufacturer (0008,0070) of every object made here.
pub const MANUFACTURER: &str = "ichor";

/// Manufacturer's Model Name (0008,1090) of every object made here.
pub const MODEL_NAME: &str = "ichor hemorrhage analysis";

/// SOP classes of results: what ichor makes now, and what its later results will be.
const RESULT_CLASSES: [&str; 10] = [
    uids::SEGMENTATION_STORAGE,
    uids::LABEL_MAP_SEGMENTATION_STORAGE,
    uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::BASIC_TEXT_SR_STORAGE,
    uids::ENHANCED_SR_STORAGE,
    uids::COMPREHENSIVE_SR_STORAGE,
    uids::COMPREHENSIVE3_DSR_STORAGE,
    uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
    uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE,
];

/// What a received data set says of its maker. `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectMarks<'a> {
    /// SOP Class UID (0008,0016).
    pub sop_class: &'a str,
    /// Instance Creator UID (0008,0014).
    pub instance_creator: Option<&'a str>,
    /// Manufacturer (0008,0070).
    pub manufacturer: Option<&'a str>,
    /// Manufacturer's Model Name (0008,1090).
    pub model_name: Option<&'a str>,
}

/// Whether an object is a result that ichor made, here or elsewhere: such an object is stored and never analysed.
///
/// Only the data set counts. The Implementation Class UID of the file meta group names whoever wrote the *file*: a PACS
/// replaces it, and our own receiver writes ours over every CT that comes in.
#[must_use]
pub fn is_own(marks: ObjectMarks<'_>) -> bool {
    let same = |value: Option<&str>, ours: &str| value.is_some_and(|v| v.trim_matches(['\0', ' ']) == ours);
    if !RESULT_CLASSES.contains(&marks.sop_class.trim_matches(['\0', ' '])) {
        return false;
    }
    same(marks.instance_creator, IMPLEMENTATION_CLASS_UID)
        || (same(marks.manufacturer, MANUFACTURER) && same(marks.model_name, MODEL_NAME))
}

/// [`is_own`] for a data set; one that was read up to its pixel data will do.
#[must_use]
pub fn is_own_object(object: &InMemDicomObject) -> bool {
    let text = |tag: Tag| object.get(tag).and_then(|e| e.to_str().ok());
    is_own(ObjectMarks {
        sop_class: text(tags::SOP_CLASS_UID).as_deref().unwrap_or_default(),
        instance_creator: text(tags::INSTANCE_CREATOR_UID).as_deref(),
        manufacturer: text(tags::MANUFACTURER).as_deref(),
        model_name: text(tags::MANUFACTURER_MODEL_NAME).as_deref(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_and_not_ours() {
        let seg = ObjectMarks { sop_class: uids::SEGMENTATION_STORAGE, ..ObjectMarks::default() };
        let named = ObjectMarks { manufacturer: Some("ichor "), model_name: Some(MODEL_NAME), ..seg };
        let created = ObjectMarks { instance_creator: Some(IMPLEMENTATION_CLASS_UID), ..seg };
        assert!(is_own(named) && is_own(created));
        assert!(!is_own(seg), "a SEG of somebody else");
        assert!(!is_own(ObjectMarks { model_name: None, ..named }), "half a name is no name");
        let map = ObjectMarks { sop_class: uids::LABEL_MAP_SEGMENTATION_STORAGE, ..created };
        assert!(is_own(map), "a label map is a result");
        let ct = ObjectMarks { sop_class: uids::CT_IMAGE_STORAGE, ..created };
        assert!(!is_own(ct), "a CT is never a result");
    }
}
