//! Functional groups (PS3.3 C.7.6.16.2 and C.8.15.3): what they say of a frame, where a single-frame image says it.

use dicom_core::value::Value;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject};

use crate::error::CtError;

/// Macros whose attributes have the same names in a single-frame image.
const MACROS: [Tag; 6] = [
    tags::PIXEL_MEASURES_SEQUENCE,
    tags::PLANE_POSITION_SEQUENCE,
    tags::PLANE_ORIENTATION_SEQUENCE,
    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    tags::FRAME_VOILUT_SEQUENCE,
    tags::CT_RECONSTRUCTION_SEQUENCE,
];

/// What the conversion of old images found no other place for (C.7.6.16.2.25 and .26): only what is not there yet counts.
const UNASSIGNED: [Tag; 2] =
    [tags::UNASSIGNED_SHARED_CONVERTED_ATTRIBUTES_SEQUENCE, tags::UNASSIGNED_PER_FRAME_CONVERTED_ATTRIBUTES_SEQUENCE];

/// The functional groups of a file.
pub(super) struct Groups {
    shared: Option<InMemDicomObject>,
    per_frame: Vec<InMemDicomObject>,
}

impl Groups {
    /// Takes the groups out of an object.
    pub(super) fn take(root: &mut DefaultDicomObject) -> Result<Self, CtError> {
        let mut items = |tag| match root.take_element(tag).map(DataElement::into_value) {
            Ok(Value::Sequence(sequence)) => sequence.into_items().into_iter().collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        let shared = items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).into_iter().next();
        let per_frame = items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        if per_frame.is_empty() {
            return Err(CtError::Missing("Per-Frame Functional Groups Sequence"));
        }
        Ok(Self { shared, per_frame })
    }

    pub(super) fn frames(&self) -> usize {
        self.per_frame.len()
    }

    /// Puts what the groups say of the frame with this index into the data set of an image.
    pub(super) fn bring_to(&self, image: &mut DefaultDicomObject, index: usize) {
        let levels: Vec<&InMemDicomObject> = self.shared.iter().chain(self.per_frame.get(index)).collect();
        for level in &levels {
            for element in MACROS.into_iter().filter_map(|tag| first_item(level, tag)).flatten() {
                image.put(element.clone());
            }
            rename(level, (tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, tags::FRAME_TYPE), (tags::IMAGE_TYPE, VR::CS), image);
            let acquired = (tags::FRAME_CONTENT_SEQUENCE, tags::FRAME_ACQUISITION_DATE_TIME);
            rename(level, acquired, (tags::ACQUISITION_DATE_TIME, VR::DT), image);
            if absent(image, tags::BODY_PART_EXAMINED) {
                let region = first_item(level, tags::FRAME_ANATOMY_SEQUENCE)
                    .and_then(|anatomy| first_item(anatomy, tags::ANATOMIC_REGION_SEQUENCE));
                put_text(image, tags::BODY_PART_EXAMINED, VR::CS, region.and_then(meaning));
            }
        }
        self.bring_contrast(image, &levels);
        for level in levels {
            for element in UNASSIGNED.into_iter().filter_map(|tag| first_item(level, tag)).flatten() {
                if absent(image, element.header().tag) {
                    image.put(element.clone());
                }
            }
        }
    }

    /// The agents of the acquisition (C.7.6.4b), unless the frame says that none of them was given (C.7.6.16.2.12).
    fn bring_contrast(&self, image: &mut DefaultDicomObject, levels: &[&InMemDicomObject]) {
        let usage = levels.iter().rev().find_map(|level| first_item(level, tags::CONTRAST_BOLUS_USAGE_SEQUENCE));
        let administered = usage.and_then(|usage| text(usage, tags::CONTRAST_BOLUS_AGENT_ADMINISTERED));
        if administered.as_deref() == Some("NO") {
            image.remove_element(tags::CONTRAST_BOLUS_AGENT);
        } else if absent(image, tags::CONTRAST_BOLUS_AGENT) {
            let agent = first_item(image, tags::CONTRAST_BOLUS_AGENT_SEQUENCE);
            let named = agent.map(|agent| meaning(agent).unwrap_or_else(|| "not named".to_owned()));
            put_text(image, tags::CONTRAST_BOLUS_AGENT, VR::LO, named);
        }
    }
}

fn first_item(object: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    object.element_opt(tag).ok().flatten()?.items()?.first()
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok().flatten()?.to_str().ok()?;
    let value = value.trim_matches(['\0', ' ']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Code Meaning of a code item.
fn meaning(code: &InMemDicomObject) -> Option<String> {
    text(code, tags::CODE_MEANING)
}

fn absent(object: &InMemDicomObject, tag: Tag) -> bool {
    text(object, tag).is_none() && first_item(object, tag).is_none()
}

fn put_text(image: &mut DefaultDicomObject, tag: Tag, vr: VR, value: Option<String>) {
    if let Some(value) = value {
        image.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    }
}

/// Brings an attribute of a macro to where a single-frame image has it under another name.
fn rename(level: &InMemDicomObject, from: (Tag, Tag), to: (Tag, VR), image: &mut DefaultDicomObject) {
    let value = first_item(level, from.0).and_then(|item| text(item, from.1));
    put_text(image, to.0, to.1, value);
}
