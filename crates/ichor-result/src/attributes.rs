//! Which attributes of patient, study and frame of reference a result takes over from its source (PS3.3 C.7.1.1,
//! C.7.1.3, C.7.2.1, C.7.2.2, C.7.4.1).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

/// How an attribute gets into the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Type 2: there in any case, empty where the source has nothing.
    Type2,
    /// Type 3: only with a value.
    Optional,
    /// Not copied by itself: read for what the builder makes of it.
    ReadOnly,
}

/// One attribute taken from the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute {
    pub(crate) tag: Tag,
    pub(crate) vr: VR,
    pub(crate) rule: Rule,
}

const fn type2(tag: Tag, vr: VR) -> Attribute {
    Attribute { tag, vr, rule: Rule::Type2 }
}

const fn optional(tag: Tag, vr: VR) -> Attribute {
    Attribute { tag, vr, rule: Rule::Optional }
}

const fn read_only(tag: Tag, vr: VR) -> Attribute {
    Attribute { tag, vr, rule: Rule::ReadOnly }
}

/// Everything that is read of the source's header. Free text about the patient (comments, history) stays behind.
pub(crate) const ATTRIBUTES: &[Attribute] = &[
    // Patient.
    type2(tags::PATIENT_NAME, VR::PN),
    type2(tags::PATIENT_ID, VR::LO),
    optional(tags::ISSUER_OF_PATIENT_ID, VR::LO),
    optional(tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE, VR::SQ),
    type2(tags::PATIENT_BIRTH_DATE, VR::DA),
    optional(tags::PATIENT_BIRTH_TIME, VR::TM),
    type2(tags::PATIENT_SEX, VR::CS),
    optional(tags::OTHER_PATIENT_I_DS_SEQUENCE, VR::SQ),
    optional(tags::QUALITY_CONTROL_SUBJECT, VR::CS),
    read_only(tags::PATIENT_IDENTITY_REMOVED, VR::CS),
    read_only(tags::DEIDENTIFICATION_METHOD, VR::LO),
    read_only(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, VR::SQ),
    optional(tags::PATIENT_AGE, VR::AS),
    optional(tags::PATIENT_SIZE, VR::DS),
    optional(tags::PATIENT_WEIGHT, VR::DS),
    // Clinical trial subject.
    read_only(tags::CLINICAL_TRIAL_SPONSOR_NAME, VR::LO),
    read_only(tags::CLINICAL_TRIAL_PROTOCOL_ID, VR::LO),
    read_only(tags::CLINICAL_TRIAL_PROTOCOL_NAME, VR::LO),
    read_only(tags::CLINICAL_TRIAL_SITE_ID, VR::LO),
    read_only(tags::CLINICAL_TRIAL_SITE_NAME, VR::LO),
    read_only(tags::CLINICAL_TRIAL_SUBJECT_ID, VR::LO),
    read_only(tags::CLINICAL_TRIAL_SUBJECT_READING_ID, VR::LO),
    // Study.
    read_only(tags::STUDY_INSTANCE_UID, VR::UI),
    type2(tags::STUDY_DATE, VR::DA),
    type2(tags::STUDY_TIME, VR::TM),
    type2(tags::ACCESSION_NUMBER, VR::SH),
    optional(tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE, VR::SQ),
    type2(tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    type2(tags::STUDY_ID, VR::SH),
    optional(tags::STUDY_DESCRIPTION, VR::LO),
    optional(tags::PROCEDURE_CODE_SEQUENCE, VR::SQ),
    optional(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH),
    // Series, frame of reference, image: read to be written in our own words.
    read_only(tags::SERIES_INSTANCE_UID, VR::UI),
    read_only(tags::SERIES_NUMBER, VR::IS),
    optional(tags::BODY_PART_EXAMINED, VR::CS),
    read_only(tags::FRAME_OF_REFERENCE_UID, VR::UI),
    type2(tags::POSITION_REFERENCE_INDICATOR, VR::LO),
    read_only(tags::SLICE_THICKNESS, VR::DS),
    read_only(tags::RESCALE_SLOPE, VR::DS),
    read_only(tags::RESCALE_INTERCEPT, VR::DS),
    read_only(tags::LOSSY_IMAGE_COMPRESSION, VR::CS),
    read_only(tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS),
    read_only(tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS),
    // Equipment, for Contributing Equipment.
    read_only(tags::MANUFACTURER, VR::LO),
    read_only(tags::MANUFACTURER_MODEL_NAME, VR::LO),
    read_only(tags::INSTITUTION_NAME, VR::LO),
    read_only(tags::STATION_NAME, VR::SH),
    read_only(tags::DEVICE_SERIAL_NUMBER, VR::LO),
    read_only(tags::SOFTWARE_VERSIONS, VR::LO),
];

/// The attribute of a tag, if it is one that is read.
pub(crate) fn wanted(tag: Tag) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|a| a.tag == tag)
}
