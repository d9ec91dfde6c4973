//! An announcement as a transaction.

use ichor_core::{Subject, Verdict};
use serde_json::{Value, json};

use super::parts::{
    DCM, LOINC, Name, OWN, SNOMED, UCUM, accession, coding, concept, date, instant, narrative, present, search, text,
    with_system,
};
use super::{ImagingStudyPolicy, Naming};
use crate::{Announcement, TellError};

/// Intracranial hemorrhage (disorder).
const HEMORRHAGE: (&str, &str) = ("1386000", "Intracranial hemorrhage");

/// The transaction; its first entry is the report.
///
/// # Errors
/// [`TellError::Message`] for what is no result of a study.
pub(super) fn of(announcement: &Announcement, naming: &Naming) -> Result<Value, TellError> {
    if announcement.subject == Subject::DeliveryDead {
        return Err(TellError::Message(format!("{} is no result of a study", announcement.subject)));
    }
    let maker = Maker::new(announcement, naming);
    let mut entries = vec![maker.report()];
    entries.extend(maker.observations().into_iter().map(|(_, entry)| entry));
    entries.extend([maker.imaging_study(), maker.device()]);
    Ok(json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries }))
}

/// What an observation says, or that there is nothing to say.
enum Said {
    Value(&'static str, Value),
    Nothing,
}

struct Maker<'a> {
    announcement: &'a Announcement,
    naming: &'a Naming,
    study: Name,
    device: Name,
    issued: Option<String>,
    started: Option<String>,
}

impl<'a> Maker<'a> {
    fn new(announcement: &'a Announcement, naming: &'a Naming) -> Self {
        let uid = announcement.study.study_instance_uid.as_str();
        let model = announcement.model.as_deref().unwrap_or_default();
        // A device is created and never changed: whatever it says is part of its name.
        let said = [model, &announcement.software, announcement.notice.as_deref().unwrap_or_default()];
        Self {
            announcement,
            naming,
            study: Name::of("imaging-study", &[uid]),
            device: Name::of("device", &said),
            issued: instant(announcement.at),
            started: date(announcement.study.study_date.as_deref()),
        }
    }

    fn uid(&self) -> &str {
        self.announcement.study.study_instance_uid.as_str()
    }

    /// Of the report, and of what is in it: preliminary, final, corrected, or no result.
    fn status(&self) -> &'static str {
        match self.announcement.subject {
            Subject::Alert | Subject::DeliveryDead => "preliminary",
            Subject::AlertWithdrawn => "corrected",
            Subject::Positive | Subject::Negative => match self.announcement.version {
                Some(version) if version > 1 => "corrected",
                _ => "final",
            },
            Subject::NotAnalysed | Subject::Failed if self.announcement.result_stands() => "corrected",
            Subject::NotAnalysed | Subject::Failed if self.announcement.alert_stands() => "preliminary",
            Subject::NotAnalysed | Subject::Failed => "cancelled",
        }
    }

    /// The patient by their identifier; the name is nobody's business here.
    fn subject(&self) -> Value {
        let id = self.announcement.study.patient.as_ref().and_then(|patient| text(patient.id.as_deref()));
        match id {
            Some(id) => {
                let identifier = with_system(json!({ "value": id }), self.naming.patient_system.as_deref());
                json!({ "type": "Patient", "identifier": identifier })
            }
            None => json!({ "type": "Patient", "display": "the images carry no Patient ID" }),
        }
    }

    fn accession(&self) -> Option<Value> {
        let number = text(self.announcement.study.accession_number.as_deref())?;
        Some(accession(&number, self.naming.accession_system.as_deref()))
    }

    fn report(&self) -> Value {
        let name = Name::of("report", &[self.uid()]);
        let Announcement { text: line, notice, finding, .. } = self.announcement;
        let conclusion = match notice {
            Some(notice) => format!("{line} ({notice})"),
            None => line.clone(),
        };
        let is_positive = finding.as_ref().is_some_and(|finding| finding.verdict == Verdict::Positive);
        let order = self.accession().map(|identifier| json!([{ "type": "ServiceRequest", "identifier": identifier }]));
        let results: Vec<Value> = self.observations().into_iter().map(|(name, _)| name.reference()).collect();
        let radiology = coding(LOINC, "LP29684-5", "Radiology");
        let resource = present(vec![
            ("resourceType", Some(json!("DiagnosticReport"))),
            ("text", text(Some(&conclusion)).map(|text| narrative(&text))),
            ("identifier", Some(json!([name.identifier()]))),
            ("basedOn", order),
            ("status", Some(json!(self.status()))),
            ("category", Some(json!([{ "coding": [radiology] }]))),
            ("code", Some(concept(&[coding(LOINC, "24725-4", "CT Head")], "CT head, read by an algorithm"))),
            ("subject", Some(self.subject())),
            ("effectiveDateTime", self.started.clone().map(Value::from)),
            ("issued", self.issued.clone().map(Value::from)),
            ("result", Some(json!(results))),
            ("imagingStudy", Some(json!([self.study.reference()]))),
            ("conclusion", text(Some(&conclusion)).map(Value::from)),
            (
                "conclusionCode",
                is_positive.then(|| json!([concept(&[coding(SNOMED, HEMORRHAGE.0, HEMORRHAGE.1)], HEMORRHAGE.1)])),
            ),
        ]);
        updated(&name, "DiagnosticReport", resource)
    }

    /// Verdict, probability, volume, and whether it was analysed at all. An alert says of the last two nothing yet.
    fn observations(&self) -> Vec<(Name, Value)> {
        let own = |code: &str, display: &str| concept(&[coding(OWN, code, display)], display);
        let verdict = concept(&[coding(SNOMED, HEMORRHAGE.0, HEMORRHAGE.1)], HEMORRHAGE.1);
        let mut all = vec![
            self.observation("verdict", &verdict, self.verdict()),
            self.observation(
                "probability",
                &own("ICH-PROBABILITY", "Probability of intracranial hemorrhage by algorithm"),
                self.probability(),
            ),
        ];
        if self.announcement.subject != Subject::Alert {
            let code = own("ICH-ANALYSIS", "Whether the study was analysed by algorithm, and why not");
            let volume = concept(
                &[
                    coding(OWN, "ICH-VOLUME", "Volume of hemorrhage by algorithm"),
                    coding(SNOMED, "118565006", "Volume"),
                ],
                "Volume of hemorrhage by algorithm",
            );
            all.push(self.observation("volume", &volume, self.volume()));
            all.push(self.observation("analysis", &code, self.analysis()));
        }
        all
    }

    fn verdict(&self) -> Said {
        let Announcement { subject, finding, .. } = self.announcement;
        let (code, display) = match (subject, finding.as_ref().map(|finding| finding.verdict)) {
            (Subject::Alert, _) => ("415684004", "Suspected"),
            (_, Some(Verdict::Positive)) => ("52101004", "Present"),
            // Of what an algorithm did not detect it is not known that it is absent.
            (_, Some(Verdict::Negative)) => ("260415000", "Not detected"),
            (_, None) if self.announcement.alert_stands() => ("415684004", "Suspected"),
            (_, None) => return Said::Nothing,
        };
        Said::Value("valueCodeableConcept", concept(&[coding(SNOMED, code, display)], display))
    }

    fn probability(&self) -> Said {
        let alert = self.announcement.alert.as_ref().map(|alert| alert.probability);
        let probability = alert.or(self.announcement.finding.as_ref().map(|finding| finding.probability));
        quantity(probability, 1_000.0, "1", "1")
    }

    fn volume(&self) -> Said {
        quantity(self.announcement.finding.as_ref().map(|finding| finding.volume_ml), 10.0, "mL", "mL")
    }

    fn analysis(&self) -> Said {
        let Announcement { reason, finding, .. } = self.announcement;
        let value = match (finding, reason) {
            // Also where a result of before stands: this version was not.
            (_, Some(reason)) => {
                let words = text(Some(&reason.text)).unwrap_or_else(|| reason.code.to_string());
                concept(&[json!({ "system": OWN, "code": reason.code.as_str() })], &words)
            }
            (Some(_), None) => concept(&[coding(OWN, "analysed", "analysed")], "analysed"),
            (None, None) => return Said::Nothing,
        };
        Said::Value("valueCodeableConcept", value)
    }

    fn observation(&self, kind: &str, code: &Value, said: Said) -> (Name, Value) {
        let name = Name::of(kind, &[self.uid()]);
        let imaging = coding("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging");
        let absent =
            coding("http://terminology.hl7.org/CodeSystem/data-absent-reason", "not-performed", "Not Performed");
        let (status, member, value) = match said {
            Said::Nothing => ("cancelled", "dataAbsentReason", json!({ "coding": [absent] })),
            // That it was not analysed is a result.
            Said::Value(member, value) if self.status() == "cancelled" => ("final", member, value),
            Said::Value(member, value) => (self.status(), member, value),
        };
        let resource = present(vec![
            ("resourceType", Some(json!("Observation"))),
            ("identifier", Some(json!([name.identifier()]))),
            ("status", Some(json!(status))),
            ("category", Some(json!([{ "coding": [imaging] }]))),
            ("code", Some(code.clone())),
            ("subject", Some(self.subject())),
            ("effectiveDateTime", self.started.clone().map(Value::from)),
            ("issued", self.issued.clone().map(Value::from)),
            (member, Some(value)),
            ("note", self.note()),
            ("device", Some(self.device.reference())),
            ("derivedFrom", Some(json!([self.study.reference()]))),
        ]);
        let entry = updated(&name, "Observation", resource);
        (name, entry)
    }

    fn note(&self) -> Option<Value> {
        let notice = text(self.announcement.notice.as_deref())?;
        Some(json!([{ "text": notice }]))
    }

    fn imaging_study(&self) -> Value {
        let study = &self.announcement.study;
        let uid = format!("urn:oid:{}", self.uid());
        let mut identifiers = vec![json!({ "system": "urn:dicom:uid", "value": uid })];
        identifiers.extend(self.accession());
        let modality = |code: &str| json!({ "system": DCM, "code": code });
        let series: Vec<Value> = (study.series.iter())
            .map(|series| {
                present(vec![
                    ("uid", Some(json!(series.series_instance_uid))),
                    (
                        "number",
                        series.number.filter(|number| (0..=i64::from(i32::MAX)).contains(number)).map(Value::from),
                    ),
                    // Mandatory: what the images do not name is OT, other.
                    ("modality", Some(modality(&text(series.modality.as_deref()).unwrap_or_else(|| "OT".to_owned())))),
                    ("description", text(series.description.as_deref()).map(Value::from)),
                ])
            })
            .collect();
        let mut modalities: Vec<&str> = study.series.iter().filter_map(|series| series.modality.as_deref()).collect();
        modalities.sort_unstable();
        modalities.dedup();
        let modalities: Vec<Value> =
            modalities.into_iter().filter_map(|code| text(Some(code))).map(|code| modality(&code)).collect();
        let resource = present(vec![
            ("resourceType", Some(json!("ImagingStudy"))),
            ("identifier", Some(json!(identifiers))),
            ("status", Some(json!("available"))),
            ("modality", (!modalities.is_empty()).then(|| json!(modalities))),
            ("subject", Some(self.subject())),
            ("started", self.started.clone().map(Value::from)),
            ("description", text(study.description.as_deref()).map(Value::from)),
            ("series", (!series.is_empty()).then(|| json!(series))),
        ]);
        let search = search("urn:dicom:uid", &uid);
        match self.naming.imaging_study {
            ImagingStudyPolicy::Create => created(&self.study, "ImagingStudy", &search, resource),
            ImagingStudyPolicy::Update => {
                entry(&self.study, resource, json!({ "method": "PUT", "url": format!("ImagingStudy?{search}") }))
            }
        }
    }

    /// The model that read, with what its weights say about themselves.
    fn device(&self) -> Value {
        let Announcement { model, software, .. } = self.announcement;
        let (name, version) = match model.as_deref() {
            Some(model) => model.split_once('@').map_or((model, None), |(name, version)| (name, Some(version))),
            None => ("ichor", None),
        };
        let numbered = |kind: &str, value: &str| json!({ "type": { "text": kind }, "value": value });
        let versions: Vec<Value> = (version.map(|version| numbered("model", version)).into_iter())
            .chain([numbered("software", software)])
            .collect();
        let resource = present(vec![
            ("resourceType", Some(json!("Device"))),
            ("identifier", Some(json!([self.device.identifier()]))),
            ("status", Some(json!("active"))),
            ("deviceName", Some(json!([{ "name": name, "type": "model-name" }]))),
            ("type", Some(json!({ "text": "Software that detects intracranial hemorrhage in head CT" }))),
            ("version", Some(json!(versions))),
            ("note", self.note()),
        ]);
        created(&self.device, "Device", &self.device.search(), resource)
    }
}

fn quantity(value: Option<f64>, steps: f64, unit: &str, code: &str) -> Said {
    match value {
        Some(value) => Said::Value(
            "valueQuantity",
            json!({ "value": (value * steps).round() / steps, "unit": unit, "system": UCUM, "code": code }),
        ),
        None => Said::Nothing,
    }
}

fn entry(name: &Name, resource: Value, request: Value) -> Value {
    json!({ "fullUrl": name.full_url(), "resource": resource, "request": request })
}

/// Updated where it exists, else created.
fn updated(name: &Name, kind: &str, resource: Value) -> Value {
    entry(name, resource, json!({ "method": "PUT", "url": format!("{kind}?{}", name.search()) }))
}

/// Created where it does not exist.
fn created(name: &Name, kind: &str, search: &str, resource: Value) -> Value {
    entry(name, resource, json!({ "method": "POST", "url": kind, "ifNoneExist": search }))
}

#[cfg(test)]
mod tests;
