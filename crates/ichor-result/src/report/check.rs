//! The check that every document passes before it leaves, read back from the very bytes that will be sent: the modules
//! of Comprehensive 3D SR and Key Object Selection (PS3.3 A.35.13, A.35.4), value types and their relations, and that each reference is in the evidence.

use std::collections::HashSet;
use std::io::Read;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, from_reader};
use ichor_core::Uid;

use crate::check::{CheckFailed, items, value};

/// Type 1 attributes that must have a value.
const TYPE_1: &[(Tag, &str)] = &[
    (tags::STUDY_INSTANCE_UID, "study instance UID"),
    (tags::SERIES_INSTANCE_UID, "series instance UID"),
    (tags::SERIES_NUMBER, "series number"),
    (tags::INSTANCE_NUMBER, "instance number"),
    (tags::MANUFACTURER, "manufacturer"),
    (tags::MANUFACTURER_MODEL_NAME, "manufacturer's model name"),
    (tags::DEVICE_SERIAL_NUMBER, "device serial number"),
    (tags::SOFTWARE_VERSIONS, "software versions"),
    (tags::CONTENT_DATE, "content date"),
    (tags::CONTENT_TIME, "content time"),
    (tags::CONTENT_SEQUENCE, "content sequence"),
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
    (tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, "referenced performed procedure step sequence"),
];

/// Values that are the same in every document made here.
const FIXED: &[Fixed] = &[
    (tags::SPECIFIC_CHARACTER_SET, "specific character set", "ISO_IR 192"),
    (tags::VALUE_TYPE, "value type of the root", "CONTAINER"),
];

type Fixed = (Tag, &'static str, &'static str);

/// What one kind of document must have besides.
struct Kind {
    fixed: &'static [Fixed],
    type_2: &'static [(Tag, &'static str)],
    needs_evidence: bool,
}

const REPORT: Kind = Kind {
    fixed: &[
        (tags::SOP_CLASS_UID, "SOP class UID", uids::COMPREHENSIVE3_DSR_STORAGE),
        (tags::MODALITY, "modality", "SR"),
        (tags::COMPLETION_FLAG, "completion flag", "COMPLETE"),
        (tags::VERIFICATION_FLAG, "verification flag", "UNVERIFIED"),
    ],
    type_2: &[(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, "performed procedure code sequence")],
    needs_evidence: false,
};

const KEY_OBJECTS: Kind = Kind {
    fixed: &[
        (tags::SOP_CLASS_UID, "SOP class UID", uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE),
        (tags::MODALITY, "modality", "KO"),
    ],
    type_2: &[],
    needs_evidence: true,
};

/// Deepest nesting of content; ours has five levels.
const MAX_DEPTH: usize = 8;

/// Which value types a parent may hold by which relation: the part of PS3.3 table A.35.13-2 that is used here.
fn may_hold(parent: &str, relation: &str, child: &str) -> bool {
    match (parent, relation) {
        ("CONTAINER", "CONTAINS") => {
            matches!(child, "CONTAINER" | "TEXT" | "CODE" | "NUM" | "UIDREF" | "IMAGE" | "DATETIME" | "SCOORD3D")
        }
        (_, "HAS OBS CONTEXT") => {
            matches!(parent, "CONTAINER" | "TEXT" | "CODE" | "NUM")
                && matches!(child, "TEXT" | "CODE" | "UIDREF" | "NUM")
        }
        ("CONTAINER" | "IMAGE", "HAS ACQ CONTEXT") => matches!(child, "TEXT" | "CODE" | "UIDREF" | "NUM" | "DATETIME"),
        (_, "HAS CONCEPT MOD") => matches!(child, "TEXT" | "CODE"),
        ("NUM", "HAS PROPERTIES") => matches!(child, "TEXT" | "CODE" | "NUM"),
        _ => false,
    }
}

/// Checks a Part 10 file, from its start, as a report.
///
/// # Errors
/// [`CheckFailed`] lists everything that is wrong.
pub fn check_report(file: impl Read) -> Result<(), CheckFailed> {
    check_document(file, &REPORT)
}

/// Checks a Part 10 file, from its start, as a Key Object Selection.
///
/// # Errors
/// [`CheckFailed`] lists everything that is wrong.
pub fn check_key_objects(file: impl Read) -> Result<(), CheckFailed> {
    check_document(file, &KEY_OBJECTS)
}

fn check_document(file: impl Read, kind: &Kind) -> Result<(), CheckFailed> {
    let failed = |problem: String| CheckFailed { problems: vec![problem] };
    let file = from_reader(file).map_err(|e| failed(format!("cannot be read back: {e}")))?;
    let mut findings = Findings { problems: Vec::new(), evidence: HashSet::new(), referenced: HashSet::new() };
    let meta = file.meta();
    findings.expect(meta.transfer_syntax() == uids::EXPLICIT_VR_LITTLE_ENDIAN, || {
        format!("transfer syntax is {}", meta.transfer_syntax())
    });
    let object: &InMemDicomObject = &file;
    findings.expect(
        value(object, tags::SOP_INSTANCE_UID).as_deref() == Some(meta.media_storage_sop_instance_uid()),
        || "media storage SOP instance UID differs from the data set".to_owned(),
    );
    findings.attributes(object, kind);
    findings.collect_evidence(object);
    findings.expect(!kind.needs_evidence || !findings.evidence.is_empty(), || "there is no evidence".to_owned());
    findings.code(object, tags::CONCEPT_NAME_CODE_SEQUENCE, "the root");
    findings.children(object, "CONTAINER", "1", 0);
    let unused: Vec<String> = findings.evidence.difference(&findings.referenced).cloned().collect();
    findings.expect(unused.is_empty(), || format!("evidence that no item refers to: {unused:?}"));
    if findings.problems.is_empty() { Ok(()) } else { Err(CheckFailed { problems: findings.problems }) }
}

struct Findings {
    problems: Vec<String>,
    evidence: HashSet<String>,
    referenced: HashSet<String>,
}

impl Findings {
    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    fn attributes(&mut self, object: &InMemDicomObject, kind: &Kind) {
        for (tag, name) in TYPE_1 {
            let has_value = value(object, *tag).is_some() || !items(object, *tag).is_empty();
            self.expect(has_value, || format!("{name} has no value"));
        }
        for (tag, name) in TYPE_2.iter().chain(kind.type_2) {
            self.expect(object.get(*tag).is_some(), || format!("{name} is missing"));
        }
        for (tag, name, expected) in FIXED.iter().chain(kind.fixed) {
            let found = value(object, *tag);
            self.expect(found.as_deref() == Some(expected), || format!("{name} is {found:?}, not {expected:?}"));
        }
        for tag in [tags::SOP_INSTANCE_UID, tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
            self.uid(object, tag, "the root");
        }
    }

    fn collect_evidence(&mut self, object: &InMemDicomObject) {
        for study in items(object, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE) {
            self.uid(study, tags::STUDY_INSTANCE_UID, "the evidence");
            for series in items(study, tags::REFERENCED_SERIES_SEQUENCE) {
                self.uid(series, tags::SERIES_INSTANCE_UID, "the evidence");
                for instance in items(series, tags::REFERENCED_SOP_SEQUENCE) {
                    self.uid(instance, tags::REFERENCED_SOP_CLASS_UID, "the evidence");
                    self.uid(instance, tags::REFERENCED_SOP_INSTANCE_UID, "the evidence");
                    let uid = value(instance, tags::REFERENCED_SOP_INSTANCE_UID).unwrap_or_default();
                    self.expect(!self.evidence.contains(&uid), || format!("evidence names {uid} twice"));
                    self.evidence.insert(uid);
                }
            }
        }
    }

    fn uid(&mut self, object: &InMemDicomObject, tag: Tag, place: &str) {
        let found = value(object, tag);
        let is_uid = found.as_deref().is_some_and(|uid| Uid::parse(uid).is_ok());
        self.expect(is_uid, || format!("{place}: {found:?} at {tag} is no UID"));
    }

    /// One item with value, scheme and meaning (PS3.3 8.8).
    fn code(&mut self, object: &InMemDicomObject, tag: Tag, place: &str) {
        let [code] = items(object, tag) else {
            return self.problems.push(format!("{place}: not one code at {tag}"));
        };
        for part in [tags::CODE_VALUE, tags::CODING_SCHEME_DESIGNATOR, tags::CODE_MEANING] {
            self.expect(value(code, part).is_some(), || format!("{place}: the code at {tag} has no {part}"));
        }
    }

    fn children(&mut self, object: &InMemDicomObject, parent: &str, place: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.problems.push(format!("{place}: more than {MAX_DEPTH} levels of content"));
        }
        for (number, item) in (1..).zip(items(object, tags::CONTENT_SEQUENCE)) {
            let place = format!("{place}.{number}");
            let relation = value(item, tags::RELATIONSHIP_TYPE).unwrap_or_default();
            let value_type = value(item, tags::VALUE_TYPE).unwrap_or_default();
            self.expect(may_hold(parent, &relation, &value_type), || {
                format!("{place}: {parent} {relation} {value_type:?} is not allowed")
            });
            self.item(item, &value_type, &place);
            self.children(item, &value_type, &place, depth + 1);
        }
    }

    fn item(&mut self, item: &InMemDicomObject, value_type: &str, place: &str) {
        // An image may do without: its container says what it is.
        if value_type != "IMAGE" || item.get(tags::CONCEPT_NAME_CODE_SEQUENCE).is_some() {
            self.code(item, tags::CONCEPT_NAME_CODE_SEQUENCE, place);
        }
        match value_type {
            "CONTAINER" => {
                let continuity = value(item, tags::CONTINUITY_OF_CONTENT);
                self.expect(continuity.as_deref() == Some("SEPARATE"), || {
                    format!("{place}: continuity {continuity:?}")
                });
            }
            "CODE" => self.code(item, tags::CONCEPT_CODE_SEQUENCE, place),
            "TEXT" => {
                self.expect(value(item, tags::TEXT_VALUE).is_some(), || format!("{place}: a text without words"));
            }
            "NUM" => {
                let [measured] = items(item, tags::MEASURED_VALUE_SEQUENCE) else {
                    return self.problems.push(format!("{place}: not one measured value"));
                };
                self.code(measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE, place);
                let number = value(measured, tags::NUMERIC_VALUE);
                let is_number = number.as_deref().and_then(|n| n.parse::<f64>().ok()).is_some_and(f64::is_finite);
                self.expect(is_number, || format!("{place}: the number is {number:?}"));
            }
            "UIDREF" => self.uid(item, tags::UID, place),
            "IMAGE" => {
                let [reference] = items(item, tags::REFERENCED_SOP_SEQUENCE) else {
                    return self.problems.push(format!("{place}: not one referenced image"));
                };
                self.uid(reference, tags::REFERENCED_SOP_CLASS_UID, place);
                let uid = value(reference, tags::REFERENCED_SOP_INSTANCE_UID).unwrap_or_default();
                self.expect(self.evidence.contains(&uid), || format!("{place}: {uid} is not in the evidence"));
                self.referenced.insert(uid);
            }
            other => self.problems.push(format!("{place}: an item of value type {other:?}")),
        }
    }
}
