//! What all documents with a content tree share: who observed, the order they belong to, the evidence, the file.

use std::collections::{BTreeMap, HashSet};

use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::Uid;

use super::content::{Item, Relation};
use crate::codes::report as concept;
use crate::element::{Element, empty, sequence, text};
use crate::error::ResultError;
use crate::own::{MANUFACTURER, MODEL_NAME};
use crate::provenance::Provenance;
use crate::source::copied;

/// Patient, study, SOP Common and equipment of a document. Attributes of frame of reference and image are no part of it.
pub(super) fn common(
    provenance: &Provenance<'_>,
    sop_class: &Uid,
    instance: &Uid,
) -> Result<Vec<Element>, ResultError> {
    let is_part = |element: &Element| {
        !matches!(element.header().tag, tags::POSITION_REFERENCE_INDICATOR | tags::BODY_PART_EXAMINED)
    };
    let copied = copied(provenance.header).into_iter().filter(is_part);
    let sop_common = provenance.sop_common(sop_class.as_str(), instance)?;
    Ok(copied.chain(sop_common).chain(provenance.subject_and_equipment()?).collect())
}

/// The device that all observations are of: one for each set of weights.
pub(super) fn device(provenance: &Provenance<'_>) -> Uid {
    Uid::derive(["ichor-device", provenance.model.as_str()])
}

/// Language and observer of a root (TID 1204, TID 1002, TID 1004).
pub(super) fn observed<'a>(root: Item<'a>, provenance: &Provenance<'a>, device: &'a Uid) -> Item<'a> {
    let context = Relation::HasObservationContext;
    root.with(Relation::HasConceptModifier, Item::code(concept::LANGUAGE, concept::ENGLISH))
        .with(context, Item::code(concept::OBSERVER_TYPE, concept::DEVICE))
        .with(context, Item::uid(concept::DEVICE_UID, device))
        .with(context, Item::text(concept::DEVICE_NAME, provenance.model.as_str()))
        .with(context, Item::text(concept::DEVICE_MANUFACTURER, MANUFACTURER))
        .with(context, Item::text(concept::DEVICE_MODEL_NAME, MODEL_NAME))
        .with(context, Item::text(concept::DEVICE_SERIAL_NUMBER, provenance.device_serial_number()))
}

/// Series, date and time of a document (PS3.3 C.17.1, C.17.2, C.17.6.1, C.17.6.2).
pub(super) fn series_and_time(
    provenance: &Provenance<'_>,
    modality: &str,
    series: &Uid,
    step: u32,
    name: &str,
) -> Result<Vec<Element>, ResultError> {
    let (day, time) = provenance.date_and_time()?;
    let mut elements = vec![
        text(tags::MODALITY, VR::CS, modality),
        text(tags::SERIES_INSTANCE_UID, VR::UI, series.as_str()),
        text(tags::SERIES_NUMBER, VR::IS, provenance.series_number(step).to_string()),
        text(tags::SERIES_DESCRIPTION, VR::LO, format!("{name} {}", provenance.series_suffix())),
        sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new()),
        text(tags::INSTANCE_NUMBER, VR::IS, provenance.instance_number().to_string()),
        text(tags::CONTENT_DATE, VR::DA, day),
        text(tags::CONTENT_TIME, VR::TM, time),
    ];
    // The order that the study belongs to, as far as the images, or else a peer, know it.
    let own = provenance.header.object.get(tags::ACCESSION_NUMBER).cloned();
    let has_own = provenance.header.text(tags::ACCESSION_NUMBER).is_some_and(|number| !number.trim().is_empty());
    let told = provenance.looked_up_accession.filter(|_| !has_own);
    if let Some(accession) = told.map(|number| text(tags::ACCESSION_NUMBER, VR::SH, number)).or(own) {
        let request = InMemDicomObject::from_element_iter([
            text(tags::STUDY_INSTANCE_UID, VR::UI, provenance.header.study().as_str()),
            sequence(tags::REFERENCED_STUDY_SEQUENCE, Vec::new()),
            accession,
            empty(tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO),
            empty(tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST, VR::LO),
            empty(tags::REQUESTED_PROCEDURE_ID, VR::SH),
            empty(tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO),
            sequence(tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, Vec::new()),
        ]);
        elements.push(sequence(tags::REFERENCED_REQUEST_SEQUENCE, vec![request]));
    }
    Ok(elements)
}

/// An instance with its series, SOP class and SOP instance.
pub(super) type Evidence<'a> = (&'a Uid, &'a Uid, &'a Uid);

/// Current Requested Procedure Evidence (PS3.3 C.17.2.3): every instance that the content refers to, each once.
pub(super) fn evidence<'a>(study: &Uid, instances: impl Iterator<Item = Evidence<'a>>) -> Option<Element> {
    let mut series: BTreeMap<&str, Vec<InMemDicomObject>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for (of, sop_class, sop_instance) in instances {
        if seen.insert(sop_instance) {
            series.entry(of.as_str()).or_default().push(InMemDicomObject::from_element_iter([
                text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, sop_class.as_str()),
                text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, sop_instance.as_str()),
            ]));
        }
    }
    if series.is_empty() {
        return None;
    }
    let series = series.into_iter().map(|(uid, instances)| {
        InMemDicomObject::from_element_iter([
            text(tags::SERIES_INSTANCE_UID, VR::UI, uid),
            sequence(tags::REFERENCED_SOP_SEQUENCE, instances),
        ])
    });
    let study = InMemDicomObject::from_element_iter([
        text(tags::STUDY_INSTANCE_UID, VR::UI, study.as_str()),
        sequence(tags::REFERENCED_SERIES_SEQUENCE, series.collect()),
    ]);
    Some(sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![study]))
}
