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

const fn ucum(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "UCUM", meaning }
}

/// Concepts of the structured report (PS3.16 TID 1500 and what it includes).
pub(crate) mod report {
    use super::{Code, dcm, sct, ucum};

    /// Root, TID 1500.
    pub(crate) const MEASUREMENT_REPORT: Code = dcm("126000", "Imaging Measurement Report");
    /// Language, TID 1204.
    pub(crate) const LANGUAGE: Code = dcm("121049", "Language of Content Item and Descendants");
    /// CID 5000.
    pub(crate) const ENGLISH: Code = Code { value: "en", scheme: "RFC5646", meaning: "English" };
    /// Observer, TID 1002.
    pub(crate) const OBSERVER_TYPE: Code = dcm("121005", "Observer Type");
    /// CID 270.
    pub(crate) const DEVICE: Code = dcm("121007", "Device");
    /// Observing device, TID 1004.
    pub(crate) const DEVICE_UID: Code = dcm("121012", "Device Observer UID");
    /// TID 1004.
    pub(crate) const DEVICE_NAME: Code = dcm("121013", "Device Observer Name");
    /// TID 1004.
    pub(crate) const DEVICE_MANUFACTURER: Code = dcm("121014", "Device Observer Manufacturer");
    /// TID 1004.
    pub(crate) const DEVICE_MODEL_NAME: Code = dcm("121015", "Device Observer Model Name");
    /// TID 1004.
    pub(crate) const DEVICE_SERIAL_NUMBER: Code = dcm("121016", "Device Observer Serial Number");
    /// TID 1500.
    pub(crate) const PROCEDURE_REPORTED: Code = dcm("121058", "Procedure reported");
    /// A value of it.
    pub(crate) const CT_OF_HEAD: Code = sct("303653007", "CT of head");
    /// A value of it, where the study is no head that could be analysed.
    pub(crate) const CT: Code = sct("77477000", "CT");
    /// TID 1600.
    pub(crate) const IMAGE_LIBRARY: Code = dcm("111028", "Image Library");
    /// TID 1600.
    pub(crate) const IMAGE_LIBRARY_GROUP: Code = dcm("126200", "Image Library Group");
    /// TID 1602.
    pub(crate) const MODALITY: Code = dcm("121139", "Modality");
    /// CID 29.
    pub(crate) const CT_MODALITY: Code = dcm("CT", "Computed Tomography");
    /// TID 1602.
    pub(crate) const TARGET_REGION: Code = dcm("123014", "Target Region");
    /// CID 4031.
    pub(crate) const HEAD: Code = sct("69536005", "Head");
    /// TID 1604.
    pub(crate) const FRAME_OF_REFERENCE: Code = dcm("112227", "Frame of Reference UID");
    /// TID 1500.
    pub(crate) const IMAGING_MEASUREMENTS: Code = dcm("126010", "Imaging Measurements");
    /// TID 1411 and TID 1501.
    pub(crate) const MEASUREMENT_GROUP: Code = dcm("125007", "Measurement Group");
    /// TID 1411.
    pub(crate) const TRACKING_IDENTIFIER: Code = dcm("112039", "Tracking Identifier");
    /// TID 1411.
    pub(crate) const TRACKING_UID: Code = dcm("112040", "Tracking Unique Identifier");
    /// TID 1411.
    pub(crate) const FINDING: Code = dcm("121071", "Finding");
    /// TID 1411.
    pub(crate) const FINDING_SITE: Code = sct("363698007", "Finding Site");
    /// TID 1411.
    pub(crate) const REFERENCED_SEGMENT: Code = dcm("121191", "Referenced Segment");
    /// TID 1411.
    pub(crate) const SOURCE_SERIES: Code = dcm("121232", "Source series for segmentation");
    /// TID 1501, where there is no Segmentation to refer to.
    pub(crate) const SOURCE_OF_MEASUREMENT: Code = dcm("121112", "Source of Measurement");
    /// CID 7474.
    pub(crate) const VOLUME: Code = sct("118565006", "Volume");
    /// CID 7467.
    pub(crate) const ATTENUATION: Code = dcm("112031", "Attenuation Coefficient");
    /// CID 7470.
    pub(crate) const LONG_AXIS: Code = sct("103339001", "Long Axis");
    /// How sure the device is, in percent.
    pub(crate) const CERTAINTY: Code = dcm("111012", "Certainty of Finding");
    /// TID 1419.
    pub(crate) const DERIVATION: Code = dcm("121401", "Derivation");
    /// CID 7464.
    pub(crate) const MEAN: Code = sct("373098007", "Mean");
    /// CID 7464.
    pub(crate) const MAXIMUM: Code = sct("56851009", "Maximum");
    /// TID 1500.
    pub(crate) const QUALITATIVE_EVALUATIONS: Code =
        Code { value: "C0034375", scheme: "UMLS", meaning: "Qualitative Evaluations" };
    /// Whether there is what is looked for, CID 240.
    pub(crate) const PRESENT: Code = sct("52101004", "Present");
    /// CID 240.
    pub(crate) const ABSENT: Code = sct("2667000", "Absent");
    /// Nothing can be said.
    pub(crate) const INDETERMINATE: Code = sct("82334004", "Indeterminate");
    /// Title of a Key Object Selection, CID 7010.
    pub(crate) const OF_INTEREST: Code = dcm("113000", "Of Interest");
    /// TID 2010.
    pub(crate) const KEY_OBJECT_DESCRIPTION: Code = dcm("113012", "Key Object Description");
    /// Words.
    pub(crate) const COMMENT: Code = dcm("121106", "Comment");

    /// Measurement property, TID 310, CID 225: how far the true value may lie above.
    pub(crate) const UPPER_UNCERTAINTY: Code = sct("371886008", "+, range of upper measurement uncertainty");
    /// Measurement property, TID 310, CID 225: how far the true value may lie below.
    pub(crate) const LOWER_UNCERTAINTY: Code = sct("371885007", "-, range of lower measurement uncertainty");
    /// Millilitres.
    pub(crate) const MILLILITER: Code = ucum("mL", "milliliter");
    /// Hounsfield units.
    pub(crate) const HOUNSFIELD: Code = ucum("[hnsf'U]", "Hounsfield unit");
    /// Millimetres.
    pub(crate) const MILLIMETER: Code = ucum("mm", "millimeter");
    /// Percent.
    pub(crate) const PERCENT: Code = ucum("%", "percent");
}

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
