//! The Segment Sequence (PS3.3 C.8.20.2, C.8.20.4): one segment, intracranial hemorrhage.

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::{ModelId, Uid};

use crate::codes;
use crate::element::{Element, cut, sequence, text, us};
use crate::frames::SEGMENT_NUMBER;

/// Label of the segment.
pub(crate) const LABEL: &str = "Intracranial hemorrhage";

/// What the segment says of itself: the method's masks localise, and are not outlines (mean Dice 0.44).
const DESCRIPTION: &str =
    "Found by a weakly supervised model. The mask shows where, not how far: outline and volume are approximate.";

/// Red, as CIELab in the 16-bit encoding of PS3.3 C.10.7.1.1: L* 54.29, a* 80.80, b* 69.89 (D50).
const RED_CIELAB: [u16; 3] = [35_579, 53_662, 50_858];

/// The Segment Sequence with its one item.
pub(crate) fn segment_sequence(model: &ModelId, configuration_digest: &str, tracking: &Uid) -> Element {
    let segment = InMemDicomObject::from_element_iter([
        us(tags::SEGMENT_NUMBER, SEGMENT_NUMBER),
        text(tags::SEGMENT_LABEL, VR::LO, LABEL),
        text(tags::SEGMENT_DESCRIPTION, VR::ST, DESCRIPTION),
        codes::MORPHOLOGICALLY_ABNORMAL.sequence(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE),
        codes::HEMORRHAGE.sequence(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE),
        codes::BRAIN.sequence(tags::ANATOMIC_REGION_SEQUENCE),
        text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC"),
        text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, cut(model.name(), 64)),
        sequence(
            tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
            vec![algorithm_identification(model, configuration_digest)],
        ),
        text(tags::TRACKING_ID, VR::UT, tracking_id(tracking)),
        text(tags::TRACKING_UID, VR::UI, tracking.as_str()),
        DataElement::new(
            tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE,
            VR::US,
            PrimitiveValue::U16(RED_CIELAB.into_iter().collect()),
        ),
    ]);
    sequence(tags::SEGMENT_SEQUENCE, vec![segment])
}

/// Algorithm Identification Macro (PS3.3 10.16).
fn algorithm_identification(model: &ModelId, configuration_digest: &str) -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        codes::ARTIFICIAL_INTELLIGENCE.sequence(tags::ALGORITHM_FAMILY_CODE_SEQUENCE),
        text(tags::ALGORITHM_NAME, VR::LO, cut(model.name(), 64)),
        text(tags::ALGORITHM_VERSION, VR::LO, version_text(model)),
        text(tags::ALGORITHM_PARAMETERS, VR::LT, format!("configuration {configuration_digest}")),
    ])
}

/// Version and weight hash in at most 64 characters: of a long version the tail goes, never the hash.
fn version_text(model: &ModelId) -> String {
    let full = model.version_and_hash();
    match full.rsplit_once('+') {
        Some((version, hash)) => format!("{}+{hash}", cut(version, 63 - hash.len().min(62))),
        None => cut(full, 64),
    }
}

/// A label unique in practice: the finding, and the head of its UID's digits.
fn tracking_id(tracking: &Uid) -> String {
    let digits = tracking.as_str().trim_start_matches("2.25.");
    format!("intracranial-hemorrhage-{}", cut(digits, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_version_keeps_its_hash() {
        let long = ModelId::new("m", &"9".repeat(64), "0123456789abcdef").unwrap();
        let text = version_text(&long);
        assert_eq!(text.len(), 64);
        assert!(text.ends_with("9+0123456789ab"), "{text}");
        let short = ModelId::new("m", "1.0.0", "0123456789abcdef").unwrap();
        assert_eq!(version_text(&short), "1.0.0+0123456789ab");
    }
}
