//! The coded concepts of our objects (PS3.16).

use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use crate::element::{sequence, text};

/// A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    value: &'static str,
    scheme: &'static str,
    meaning: &'static str,
}

const fn sct(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "SCT", meaning }
}

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "DCM", meaning }
}

/// Segmented property category, CID 7150.
pub(crate) const MORPHOLOGICALLY_ABNORMAL: Code = sct("49755003", "Morphologically Abnormal Structure");
/// Segmented property type, CID 7159, included in CID 7151.
pub(crate) const HEMORRHAGE: Code = sct("50960005", "Hemorrhage");
/// Anatomic region, CID 4.
pub(crate) const BRAIN: Code = sct("12738006", "Brain");
/// Category and type of what belongs to no segment of a label map, CID 7150.
pub(crate) const BACKGROUND: Code = dcm("125040", "Background");
/// Algorithm family, CID 7162.
pub(crate) const ARTIFICIAL_INTELLIGENCE: Code = dcm("123110", "Artificial Intelligence");
/// Derivation, CID 7203.
pub(crate) const SEGMENTATION: Code = dcm("113076", "Segmentation");
/// Purpose of a reference to a source image, CID 7202.
pub(crate) const SOURCE_IMAGE: Code = dcm("121322", "Source image for image processing operation");
/// Purpose of contributing equipment, CID 7005: the scanner.
pub(crate) const ACQUISITION_EQUIPMENT: Code = dcm("109101", "Acquisition Equipment");
/// Purpose of contributing equipment, CID 7005: ourselves.
pub(crate) const PROCESSING_EQUIPMENT: Code = dcm("109102", "Processing Equipment");

impl Code {
    /// The one item of a code sequence.
    pub(crate) fn item(self) -> InMemDicomObject {
        InMemDicomObject::from_element_iter([
            text(tags::CODE_VALUE, VR::SH, self.value),
            text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, self.scheme),
            text(tags::CODE_MEANING, VR::LO, self.meaning),
        ])
    }

    /// A code sequence of this one item.
    pub(crate) fn sequence(self, tag: dicom_core::Tag) -> crate::element::Element {
        sequence(tag, vec![self.item()])
    }
}
