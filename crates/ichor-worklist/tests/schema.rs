//! The published schema of webhooks says what is sent.

use ichor_worklist::Announcement;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../../docs/webhook.schema.json");

/// Holds a value against a part of the schema: types, required and known members, enumerations.
fn check(value: &Value, schema: &Value, path: &str) {
    assert!(schema.is_object(), "{path} is not in the schema");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{path}: {value} is none of {words:?}");
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    assert!(
        kinds.iter().any(|one| one == kind || (one == "number" && kind == "integer")),
        "{path}: {kind}, not {kinds:?}"
    );
    match value {
        Value::Object(members) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert!(members.contains_key(name), "{path} lacks {name}");
            }
            for (name, member) in members {
                check(member, &schema["properties"][name], &format!("{path}.{name}"));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check(item, &schema["items"], &format!("{path}[]"))),
        _ => {}
    }
}

#[test]
fn every_subject_fits_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let samples = Announcement::samples();
    for mut sample in samples.clone() {
        check(&serde_json::to_value(&sample).unwrap(), &schema, sample.subject.as_str());
        sample.study.patient = None;
        check(&serde_json::to_value(&sample).unwrap(), &schema, sample.subject.as_str());
    }
    let known = schema["properties"]["subject"]["enum"].as_array().unwrap().len();
    assert_eq!(known, samples.len(), "a sample of each subject");
}

#[test]
fn the_check_can_fail() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let sample = serde_json::to_value(&Announcement::samples()[0]).unwrap();
    let fails = |change: fn(&mut Value)| {
        let mut changed = sample.clone();
        change(&mut changed);
        std::panic::catch_unwind(|| check(&changed, &schema, "changed")).is_err()
    };
    assert!(!fails(|_| {}));
    assert!(fails(|value| value["subject"] = "guess".into()));
    assert!(fails(|value| value["urgent"] = Value::Null));
    assert!(fails(|value| value["another"] = 1.into()));
    assert!(fails(|value| drop(value.as_object_mut().unwrap().remove("study"))));
}
