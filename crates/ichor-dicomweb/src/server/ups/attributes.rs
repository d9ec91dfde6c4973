//! Data sets as DICOM JSON (PS3.18 Annex F): reading and writing single attributes.

use ichor_core::Uid;
use serde_json::{Map, Value, json};

/// A data set: tags of eight hexadecimal digits, each with its VR and values.
pub type DataSet = Map<String, Value>;

/// Deepest nesting of sequences in what a peer sends.
const DEEPEST: usize = 16;

pub(crate) const SOP_CLASS: &str = "00080016";
pub(crate) const SOP_INSTANCE: &str = "00080018";
pub(crate) const TRANSACTION: &str = "00081195";
pub(crate) const STATE: &str = "00741000";
pub(crate) const PROGRESS: &str = "00741002";
pub(crate) const PRIORITY: &str = "00741200";
pub(crate) const WORKLIST_LABEL: &str = "00741202";
pub(crate) const LABEL: &str = "00741204";
pub(crate) const PERFORMED: &str = "00741216";
pub(crate) const START: &str = "00404005";
pub(crate) const WORKITEM_CODE: &str = "00404018";
pub(crate) const READINESS: &str = "00404041";
pub(crate) const MODIFIED: &str = "00404010";

/// Reads a body: one data set, alone or in an array.
///
/// # Errors
/// A sentence about what is no DICOM JSON.
pub(crate) fn parse(body: &[u8]) -> Result<DataSet, String> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the body is no JSON: line {}, column {}", error.line(), error.column()))?;
    let set = match value {
        Value::Array(mut sets) if sets.len() == 1 => sets.remove(0),
        Value::Array(sets) => return Err(format!("the body holds {} data sets, not one", sets.len())),
        other => other,
    };
    let Value::Object(set) = set else { return Err("the body is no data set in DICOM JSON".to_owned()) };
    check(&set, 0)?;
    Ok(set)
}

fn check(set: &DataSet, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("sequences are nested deeper than {DEEPEST}"));
    }
    for (tag, attribute) in set {
        let is_tag = tag.len() == 8 && tag.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if !is_tag {
            return Err("an attribute's name is no tag of eight upper-case hexadecimal digits".to_owned());
        }
        let vr = attribute["vr"].as_str().filter(|vr| vr.len() == 2 && vr.bytes().all(|b| b.is_ascii_uppercase()));
        let Some(vr) = vr else { return Err(format!("attribute {tag} has no vr")) };
        match &attribute["Value"] {
            Value::Null => {}
            Value::Array(items) if vr == "SQ" => {
                for item in items {
                    let Value::Object(item) = item else { return Err(format!("an item of {tag} is no data set")) };
                    check(item, depth + 1)?;
                }
            }
            Value::Array(values) => {
                if values.iter().any(|value| value.is_array() || (value.is_object() && vr != "PN")) {
                    return Err(format!("a value of {tag} is neither text nor number"));
                }
            }
            _ => return Err(format!("Value of {tag} is no array")),
        }
    }
    Ok(())
}

/// Reads an answer: data sets in an array, or one alone.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_all(body: &[u8]) -> Result<Vec<DataSet>, String> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no JSON: line {}, column {}", error.line(), error.column()))?;
    let sets = match value {
        Value::Array(sets) => sets,
        one => vec![one],
    };
    let read = |set: Value| {
        let Value::Object(set) = set else {
            return Err("the answer holds what is no data set in DICOM JSON".to_owned());
        };
        check(&set, 0)?;
        Ok(set)
    };
    sets.into_iter().map(read).collect()
}

/// The first value of an attribute, as text.
#[must_use]
pub fn text<'a>(set: &'a DataSet, tag: &str) -> Option<&'a str> {
    set.get(tag)?["Value"][0].as_str().map(str::trim).filter(|text| !text.is_empty())
}

/// Whether an attribute is there and has a value.
pub(crate) fn has_value(set: &DataSet, tag: &str) -> bool {
    set.get(tag).is_some_and(|attribute| match attribute["Value"].as_array() {
        Some(values) => !values.is_empty() && values.iter().any(|value| !value.is_null()),
        None => attribute.get("InlineBinary").or_else(|| attribute.get("BulkDataURI")).is_some(),
    })
}

/// A UID.
///
/// # Errors
/// A sentence about what is there instead.
pub fn uid(set: &DataSet, tag: &str) -> Result<Option<Uid>, String> {
    text(set, tag).map(Uid::parse).transpose().map_err(|error| format!("attribute {tag}: {error}"))
}

/// The items of a sequence.
#[must_use]
pub fn items<'a>(set: &'a DataSet, tag: &str) -> Vec<&'a DataSet> {
    let values = set.get(tag).and_then(|attribute| attribute["Value"].as_array());
    values.into_iter().flatten().filter_map(Value::as_object).collect()
}

/// An attribute with one value.
#[must_use]
pub fn attribute(vr: &str, value: impl Into<Value>) -> Value {
    let value: Value = value.into();
    json!({ "vr": vr, "Value": [value] })
}

/// A sequence.
#[must_use]
pub fn sequence(items: Vec<DataSet>) -> Value {
    let items: Vec<Value> = items.into_iter().map(Value::Object).collect();
    if items.is_empty() { json!({ "vr": "SQ" }) } else { json!({ "vr": "SQ", "Value": items }) }
}

/// A data set of attributes.
#[must_use]
pub fn data_set(attributes: impl IntoIterator<Item = (&'static str, Value)>) -> DataSet {
    attributes.into_iter().map(|(tag, value)| (tag.to_owned(), value)).collect()
}

/// An item of a code sequence.
#[must_use]
pub fn code(value: &str, scheme: &str, meaning: &str) -> DataSet {
    data_set([
        ("00080100", attribute("SH", value)),
        ("00080102", attribute("SH", scheme)),
        ("00080104", attribute("LO", meaning)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_are_none() {
        for (body, word) in [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("3", "no data set"),
            ("[]", "0 data sets"),
            ("[{},{}]", "2 data sets"),
            ("[3]", "no data set"),
            (r#"{"PatientID":{"vr":"LO"}}"#, "no tag"),
            (r#"{"0010002g":{"vr":"LO"}}"#, "no tag"),
            (r#"{"00100020":{}}"#, "no vr"),
            (r#"{"00100020":3}"#, "no vr"),
            (r#"{"00100020":{"vr":"LO","Value":"P"}}"#, "no array"),
            (r#"{"00100020":{"vr":"LO","Value":[{}]}}"#, "neither text"),
            (r#"{"00404018":{"vr":"SQ","Value":["P"]}}"#, "no data set"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{body}: {error}");
        }
        let mut deep = "{}".to_owned();
        for _ in 0..20 {
            deep = format!(r#"{{"00404018":{{"vr":"SQ","Value":[{deep}]}}}}"#);
        }
        assert!(parse(deep.as_bytes()).unwrap_err().contains("deeper"));
        let good = r#"[{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A"}]},"00404018":{"vr":"SQ"}}]"#;
        assert_eq!(parse(good.as_bytes()).unwrap().len(), 2);
    }
}
