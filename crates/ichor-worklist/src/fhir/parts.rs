//! Pieces of resources: identifiers, codes, references, texts.

use ichor_core::Uid;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

pub(super) const SNOMED: &str = "http://snomed.info/sct";
pub(super) const LOINC: &str = "http://loinc.org";
pub(super) const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
pub(super) const UCUM: &str = "http://unitsofmeasure.org";
/// Our own codes; docs/telling.md lists them.
pub(super) const OWN: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/codes");

/// A resource's name in the world: what it is found again by.
pub(super) struct Name {
    uid: Uid,
}

impl Name {
    /// Derived from what it is about: the same at every attempt.
    pub(super) fn of(kind: &str, parts: &[&str]) -> Self {
        Self { uid: Uid::derive(["fhir", kind].into_iter().chain(parts.iter().copied())) }
    }

    pub(super) fn identifier(&self) -> Value {
        json!({ "system": "urn:ietf:rfc:3986", "value": format!("urn:oid:{}", self.uid) })
    }

    /// The search that finds it.
    pub(super) fn search(&self) -> String {
        search("urn:ietf:rfc:3986", &format!("urn:oid:{}", self.uid))
    }

    /// Its name within the Bundle.
    pub(super) fn full_url(&self) -> String {
        let number = self.uid.as_str().rsplit('.').next().and_then(|digits| digits.parse::<u128>().ok());
        let hex = format!("{:032x}", number.unwrap_or_default());
        format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    pub(super) fn reference(&self) -> Value {
        json!({ "reference": self.full_url() })
    }
}

/// The search parameter for an identifier. Both texts are URIs of UIDs: only the bar has to be escaped.
pub(super) fn search(system: &str, value: &str) -> String {
    format!("identifier={system}%7C{value}")
}

pub(super) fn coding(system: &str, code: &str, display: &str) -> Value {
    json!({ "system": system, "code": code, "display": display })
}

pub(super) fn concept(codings: &[Value], text: &str) -> Value {
    json!({ "coding": codings, "text": text })
}

/// An accession number.
pub(super) fn accession(number: &str, system: Option<&str>) -> Value {
    let kind = coding("http://terminology.hl7.org/CodeSystem/v2-0203", "ACSN", "Accession ID");
    with_system(json!({ "type": { "coding": [kind] }, "value": number }), system)
}

pub(super) fn with_system(mut identifier: Value, system: Option<&str>) -> Value {
    if let Some(system) = system {
        identifier["system"] = json!(system);
    }
    identifier
}

/// A string as FHIR allows it: no control characters, not empty.
pub(super) fn text(value: Option<&str>) -> Option<String> {
    let text: String = value?.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `YYYY-MM-DD` of a DICOM date; nothing, if it is none.
pub(super) fn date(value: Option<&str>) -> Option<String> {
    let date = time::Date::parse(value?.trim(), format_description!("[year][month][day]")).ok()?;
    date.format(format_description!("[year]-[month]-[day]")).ok()
}

pub(super) fn instant(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

/// A narrative of one paragraph.
pub(super) fn narrative(text: &str) -> Value {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({ "status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>{escaped}</p></div>") })
}

/// A resource without the members that are not there.
pub(super) fn present(members: Vec<(&str, Option<Value>)>) -> Value {
    let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_and_differ() {
        let name = |kind: &str| Name::of(kind, &["1.2.3"]);
        assert_eq!(name("report").search(), name("report").search());
        assert_ne!(name("report").full_url(), name("volume").full_url());
        let url = name("report").full_url();
        assert!(url.len() == 45 && url.starts_with("urn:uuid:") && url.as_bytes()[23] == b'8', "{url}");
    }

    #[test]
    fn dates_and_texts_that_are_none() {
        assert_eq!(date(Some("20241004")).as_deref(), Some("2024-10-04"));
        for bad in [None, Some(""), Some("2024"), Some("20241399"), Some("2024-1-4")] {
            assert_eq!(date(bad), None, "{bad:?}");
        }
        assert_eq!(text(Some(" a\u{1}b \n")).as_deref(), Some("ab"));
        assert_eq!((text(Some(" \u{0}")), text(None)), (None, None));
    }
}
