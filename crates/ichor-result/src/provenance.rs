//! What every result says of itself, whatever its kind: whose it is, who made it, of what and when.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::{IMPLEMENTATION_CLASS_UID, ModelId, Uid};
use time::OffsetDateTime;

use crate::codes;
use crate::element::{Element, date, empty, parse_utc_offset, sequence, text, time_of_day, utc_offset};
use crate::error::ResultError;
use crate::own::{MANUFACTURER, MODEL_NAME};
use crate::segment::{self, SegmentReference};
use crate::source::SourceHeader;

/// Series Number of a result where the caller names none: this much above the source's.
const SERIES_NUMBER_STEP: u32 = 9000;
/// Instance Numbers and Series Numbers are IS, at most 2³¹ − 1.
const LARGEST_NUMBER: u32 = i32::MAX as u32;

/// Where a result comes from.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// Header of one of the source instances.
    pub header: &'a SourceHeader,
    /// The weights.
    pub model: &'a ModelId,
    /// Digest of whatever configuration shaped the result.
    pub configuration_digest: &'a str,
    /// Version of the study's result, from 1; a late slice makes the next.
    pub version: u32,
    /// When the study was accepted: content date and time.
    pub accepted_at: OffsetDateTime,
    /// Series Number; `None` takes the source's plus 9000.
    pub series_number: Option<u32>,
    /// Accession Number of the order, as a peer told it for a study whose images have none. It stands where an object speaks of
    /// the order (Referenced Request Sequence), never among the attributes of the study, which are those of its images.
    pub looked_up_accession: Option<&'a str>,
    /// Shown with the object wherever it is shown, such as "research use only, demonstration weights".
    pub research_notice: Option<&'a str>,
}

impl Provenance<'_> {
    /// What `count` lesions are known by, in every object of one version. Of the finding, not of an object's form; another
    /// version may find other lesions under the same number.
    #[must_use]
    pub fn lesions(&self, count: u16) -> Vec<SegmentReference> {
        let (study, series) = (self.header.study().as_str(), self.header.series().as_str());
        let version = self.version.to_string();
        segment::references(count, &[study, series, self.model.as_str(), self.configuration_digest, &version])
    }

    /// The acceptance time in the zone that the source's own dates are in, if it says which.
    fn at(&self) -> OffsetDateTime {
        let zone = self.header.text(tags::TIMEZONE_OFFSET_FROM_UTC).and_then(|t| parse_utc_offset(&t));
        zone.and_then(|zone| self.accepted_at.checked_to_offset(zone)).unwrap_or(self.accepted_at)
    }

    /// Date (VR DA) and time (VR TM) of the content.
    pub(crate) fn date_and_time(&self) -> Result<(String, String), ResultError> {
        let at = self.at();
        let day = date(at).ok_or_else(|| ResultError::Time(at.to_string()))?;
        Ok((day, time_of_day(at)))
    }

    /// The notice, fit for a single text value.
    pub(crate) fn notice(&self) -> Option<String> {
        self.research_notice.map(single_value).filter(|notice| !notice.trim().is_empty())
    }

    /// Behind the name of a series: who made it, and for what use.
    pub(crate) fn series_suffix(&self) -> &'static str {
        if self.notice().is_some() { "(AI, research use)" } else { "(AI)" }
    }

    /// Series Number, `step` above that of the first kind of object.
    pub(crate) fn series_number(&self, step: u32) -> u32 {
        let source = self.header.number::<u32>(tags::SERIES_NUMBER).unwrap_or(0);
        let first = self.series_number.unwrap_or_else(|| source.saturating_add(SERIES_NUMBER_STEP));
        first.saturating_add(step).min(LARGEST_NUMBER)
    }

    /// Instance Number: the version.
    pub(crate) fn instance_number(&self) -> u32 {
        self.version.clamp(1, LARGEST_NUMBER)
    }

    /// What tells one device from another: the weights it runs.
    pub(crate) fn device_serial_number(&self) -> &str {
        self.model.version_and_hash().rsplit('+').next().unwrap_or_default()
    }

    /// SOP Common and the study (PS3.3 C.12.1, C.7.2.1), with date and time of creation.
    pub(crate) fn sop_common(&self, sop_class: &str, instance: &Uid) -> Result<Vec<Element>, ResultError> {
        let (day, time) = self.date_and_time()?;
        Ok(vec![
            text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
            text(tags::INSTANCE_CREATION_DATE, VR::DA, day),
            text(tags::INSTANCE_CREATION_TIME, VR::TM, time),
            text(tags::INSTANCE_CREATOR_UID, VR::UI, IMPLEMENTATION_CLASS_UID),
            text(tags::SOP_CLASS_UID, VR::UI, sop_class),
            text(tags::SOP_INSTANCE_UID, VR::UI, instance.as_str()),
            text(tags::STUDY_INSTANCE_UID, VR::UI, self.header.study().as_str()),
        ])
    }

    /// Laterality (PS3.3 C.7.3.1, Type 2C), empty: it is wanted where no body part says that there is but one.
    pub(crate) fn laterality(&self) -> Option<Element> {
        let has_body_part = self.header.object.get(tags::BODY_PART_EXAMINED).is_some();
        (!has_body_part).then(|| empty(tags::LATERALITY, VR::CS))
    }

    /// Patient Identity Removed, Clinical Trial Subject, Enhanced General Equipment and Contributing Equipment.
    pub(crate) fn subject_and_equipment(&self) -> Result<Vec<Element>, ResultError> {
        let subject = deidentification(self.header).into_iter().chain(clinical_trial(self.header));
        Ok(subject.chain(equipment(self)?).collect())
    }
}

/// A notice fit for a single text value: no backslash, which separates values, and no control characters.
fn single_value(notice: &str) -> String {
    notice.chars().map(|c| if c == '\\' { '/' } else { c }).filter(|c| !c.is_control()).collect()
}

/// Patient Identity Removed with the method it requires (PS3.3 C.7.1.1, Type 1C).
fn deidentification(header: &SourceHeader) -> Vec<Element> {
    let element = |tag: Tag| header.object.get(tag).cloned();
    let Some(removed) = element(tags::PATIENT_IDENTITY_REMOVED) else { return Vec::new() };
    let method = element(tags::DEIDENTIFICATION_METHOD);
    let method_codes = element(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE);
    let method = method.or_else(|| {
        // Required by the standard, and real de-identified files lack it.
        method_codes.is_none().then(|| text(tags::DEIDENTIFICATION_METHOD, VR::LO, "not stated in the source"))
    });
    [Some(removed), method, method_codes].into_iter().flatten().collect()
}

/// The Clinical Trial Subject module (PS3.3 C.7.1.3), where the source has its mandatory attributes.
fn clinical_trial(header: &SourceHeader) -> Vec<Element> {
    let element = |tag: Tag| header.object.get(tag).cloned();
    let subject = element(tags::CLINICAL_TRIAL_SUBJECT_ID);
    let reading = element(tags::CLINICAL_TRIAL_SUBJECT_READING_ID);
    let (Some(sponsor), Some(protocol), true) = (
        element(tags::CLINICAL_TRIAL_SPONSOR_NAME),
        element(tags::CLINICAL_TRIAL_PROTOCOL_ID),
        subject.is_some() || reading.is_some(),
    ) else {
        return Vec::new();
    };
    let type2 = [tags::CLINICAL_TRIAL_PROTOCOL_NAME, tags::CLINICAL_TRIAL_SITE_ID, tags::CLINICAL_TRIAL_SITE_NAME]
        .map(|tag| element(tag).unwrap_or_else(|| empty(tag, VR::LO)));
    [sponsor, protocol].into_iter().chain(type2).chain(subject).chain(reading).collect()
}

/// Enhanced General Equipment and Contributing Equipment (PS3.3 C.7.5.2, C.12.1): ourselves, and the scanner.
fn equipment(input: &Provenance<'_>) -> Result<Vec<Element>, ResultError> {
    let (day, time) = input.date_and_time()?;
    let contributed = format!("{day}{time}{}", utc_offset(input.at().offset()));
    let ourselves = || {
        vec![
            text(tags::MANUFACTURER, VR::LO, MANUFACTURER),
            text(tags::MANUFACTURER_MODEL_NAME, VR::LO, MODEL_NAME),
            text(tags::DEVICE_SERIAL_NUMBER, VR::LO, input.device_serial_number()),
            text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION")),
        ]
    };
    let processing = ourselves().into_iter().chain([
        codes::PROCESSING_EQUIPMENT.sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE),
        text(tags::CONTRIBUTION_DATE_TIME, VR::DT, contributed),
        text(
            tags::CONTRIBUTION_DESCRIPTION,
            VR::ST,
            format!("Analysed with model {}, configuration {}", input.model, input.configuration_digest),
        ),
    ]);
    let mut contributing = vec![InMemDicomObject::from_element_iter(processing)];
    if let Some(manufacturer) = input.header.object.get(tags::MANUFACTURER) {
        let known = [
            tags::INSTITUTION_NAME,
            tags::STATION_NAME,
            tags::MANUFACTURER_MODEL_NAME,
            tags::DEVICE_SERIAL_NUMBER,
            tags::SOFTWARE_VERSIONS,
        ];
        let scanner = known.into_iter().filter_map(|tag| input.header.object.get(tag).cloned()).chain([
            manufacturer.clone(),
            codes::ACQUISITION_EQUIPMENT.sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE),
        ]);
        contributing.insert(0, InMemDicomObject::from_element_iter(scanner));
    }
    let mut elements = ourselves();
    elements.push(sequence(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, contributing));
    Ok(elements)
}
