//! The Segment Sequence (PS3.3 C.8.20.2, C.8.20.4): one segment a lesion.

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::{ModelId, Uid};

use crate::codes;
use crate::element::{Element, cut, sequence, text, us};
use crate::form::SegmentationType;

/// Label of a segment; its number follows where there are several.
pub(crate) const LABEL: &str = "Intracranial hemorrhage";

/// What the segment says of itself: the method's masks localise, and are not outlines (mean Dice 0.44).
const DESCRIPTION: &str =
    "Found by a weakly supervised model. The mask shows where, not how far: outline and volume are approximate.";

/// What the values of a FRACTIONAL object are, which the standard's word "probability" does not say.
const FRACTIONAL_DESCRIPTION: &str =
    "Values are the slice's probability times the model's map, within the mask; they are not calibrated by the pixel.";

/// Red, as CIELab in the 16-bit encoding of PS3.3 C.10.7.1.1: L* 54.29, a* 80.80, b* 69.89 (D50).
pub(crate) const RED_CIELAB: [u16; 3] = [35_579, 53_662, 50_858];

/// Who made the segments, and of what.
pub(crate) struct Maker<'a> {
    pub(crate) model: &'a ModelId,
    pub(crate) configuration_digest: &'a str,
}

/// A segment as it is known outside of its object: what a report refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReference {
    /// One-based number.
    pub number: u16,
    /// Label.
    pub label: String,
    /// Tracking ID (0062,0020).
    pub tracking_id: String,
    /// Tracking UID (0062,0021), the same in every form of a result.
    pub tracking_uid: Uid,
}

/// The references of `count` lesions; `identity` is what tells this result from others, whatever its form.
pub(crate) fn references(count: u16, identity: &[&str]) -> Vec<SegmentReference> {
    (1..=count)
        .map(|number| {
            let digits = number.to_string();
            let parts = ["ichor-seg-tracking"].into_iter().chain(identity.iter().copied()).chain([digits.as_str()]);
            let tracking_uid = Uid::derive(parts);
            let label = if count == 1 { LABEL.to_owned() } else { format!("{LABEL} {number}") };
            SegmentReference { number, label, tracking_id: tracking_id(&tracking_uid, number), tracking_uid }
        })
        .collect()
}

/// The Segment Sequence: one item a lesion, and in a label map the background before them.
pub(crate) fn segment_sequence(maker: &Maker<'_>, lesions: &[SegmentReference], kind: SegmentationType) -> Element {
    let background = (kind == SegmentationType::LabelMap).then(|| background(maker));
    let lesions = lesions.iter().map(|lesion| lesion_item(maker, lesion, kind));
    sequence(tags::SEGMENT_SEQUENCE, background.into_iter().chain(lesions).collect())
}

/// What the pixels of value 0 are (PS3.3 C.8.20.2, LABELMAP).
fn background(maker: &Maker<'_>) -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        us(tags::SEGMENT_NUMBER, 0),
        text(tags::SEGMENT_LABEL, VR::LO, "Background"),
        codes::BACKGROUND.sequence(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE),
        codes::BACKGROUND.sequence(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE),
        text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC"),
        text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, cut(maker.model.name(), 64)),
        cielab([0, 0x8080, 0x8080]),
    ])
}

fn lesion_item(maker: &Maker<'_>, lesion: &SegmentReference, kind: SegmentationType) -> InMemDicomObject {
    let description = match kind {
        SegmentationType::Binary | SegmentationType::LabelMap => DESCRIPTION.to_owned(),
        SegmentationType::Fractional => format!("{DESCRIPTION} {FRACTIONAL_DESCRIPTION}"),
    };
    InMemDicomObject::from_element_iter([
        us(tags::SEGMENT_NUMBER, lesion.number),
        text(tags::SEGMENT_LABEL, VR::LO, lesion.label.as_str()),
        text(tags::SEGMENT_DESCRIPTION, VR::ST, description),
        codes::MORPHOLOGICALLY_ABNORMAL.sequence(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE),
        codes::HEMORRHAGE.sequence(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE),
        codes::BRAIN.sequence(tags::ANATOMIC_REGION_SEQUENCE),
        text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC"),
        text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, cut(maker.model.name(), 64)),
        sequence(
            tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
            vec![algorithm_identification(maker.model, maker.configuration_digest)],
        ),
        text(tags::TRACKING_ID, VR::UT, lesion.tracking_id.as_str()),
        text(tags::TRACKING_UID, VR::UI, lesion.tracking_uid.as_str()),
        cielab(RED_CIELAB),
    ])
}

fn cielab(value: [u16; 3]) -> Element {
    DataElement::new(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, VR::US, PrimitiveValue::U16(value.into_iter().collect()))
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

/// A label unique in practice: the finding, its number, and the head of its UID's digits.
fn tracking_id(tracking: &Uid, number: u16) -> String {
    let digits = tracking.as_str().trim_start_matches("2.25.");
    format!("intracranial-hemorrhage-{number}-{}", cut(digits, 12))
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
