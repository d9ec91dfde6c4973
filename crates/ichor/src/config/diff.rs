//! What differs between two configurations, key by key; secrets are hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Config;

/// Sections and keys that come in force without a restart.
const LIVE: [&str; 14] = [
    "time_zone",
    "source",
    "destination",
    "rule",
    "urgent",
    "forward",
    "channel",
    "lookup",
    "task_list",
    "retention",
    "audit",
    "telemetry",
    "log.level",
    "analysis.longest_overtaken_s",
];

/// Words in names of keys whose values are not shown.
const SECRET: [&str; 6] = ["password", "passcode", "token", "secret", "credential", "api_key"];

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The key with its section, such as `destination "pacs" timeout_s`.
    pub(crate) key: String,
    /// What it was; `None`: absent.
    pub(crate) was: Option<String>,
    /// What it is; `None`: absent.
    pub(crate) is: Option<String>,
    /// Whether it comes in force without a restart.
    pub(crate) live: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restart = if self.live { "" } else { " (needs a restart)" };
        match (&self.was, &self.is) {
            (Some(was), Some(is)) => write!(f, "{}: {was} → {is}{restart}", self.key),
            (None, Some(is)) => write!(f, "{}: {is}, was not there{restart}", self.key),
            (Some(was), None) => write!(f, "{}: is gone, was {was}{restart}", self.key),
            (None, None) => write!(f, "{}{restart}", self.key),
        }
    }
}

/// Every key whose value differs, in the order of the keys.
pub(crate) fn diff(old: &Config, new: &Config) -> Result<Vec<Difference>, serde_json::Error> {
    let (old, new) = (flat(&serde_json::to_value(old)?), flat(&serde_json::to_value(new)?));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    let difference = |key: &String| {
        let shown = |of: &BTreeMap<String, Value>| of.get(key).map(|value| shown(key, value));
        let (was, is) = (shown(&old), shown(&new));
        Difference { key: key.clone(), was, is, live: is_live(key) }
    };
    Ok(keys.into_iter().filter(differs).map(difference).collect())
}

fn is_live(key: &str) -> bool {
    let path = key.replace(' ', ".");
    LIVE.iter().any(|live| path == *live || path.strip_prefix(live).is_some_and(|rest| rest.starts_with('.')))
}

/// Every leaf with its key. Tables of a list are told apart by their name or AE title, others by their number.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn walk(key: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    let dot = if key.is_empty() || key.ends_with('"') { " " } else { "." };
                    walk(format!("{key}{dot}{name}").trim_start(), field, leaves);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let mut seen = BTreeSet::new();
                for (number, item) in items.iter().enumerate() {
                    let named = ["name", "ae_title"].iter().find_map(|field| item.get(*field)?.as_str());
                    let mut title = named.map_or_else(|| format!("#{}", number + 1), str::to_owned);
                    if !seen.insert(title.clone()) {
                        title = format!("{title} #{}", number + 1);
                    }
                    walk(&format!("{key} {title:?}"), item, leaves);
                }
                // The first that fits decides: their order says something too.
                leaves.insert(format!("{key}.order"), seen_order(items));
            }
            leaf => {
                leaves.insert(key.to_owned(), leaf.clone());
            }
        }
    }
    let mut leaves = BTreeMap::new();
    walk("", value, &mut leaves);
    leaves
}

fn seen_order(items: &[Value]) -> Value {
    let title = |item: &Value| ["name", "ae_title"].iter().find_map(|field| item.get(*field)).cloned();
    items.iter().map(|item| title(item).unwrap_or(Value::Null)).collect()
}

fn shown(key: &str, value: &Value) -> String {
    let name = key.rsplit(['.', ' ']).next().unwrap_or(key);
    let is_secret = !name.ends_with("_file") && SECRET.iter().any(|word| name.contains(word));
    if is_secret {
        return "(hidden)".to_owned();
    }
    match value {
        // The path of a chat's webhook is its secret.
        Value::String(text) if name == "url" && key.starts_with("channel") => format!("{:?}", without_path(text)),
        Value::String(text) => format!("{:?}", without_credentials(text)),
        other => other.to_string(),
    }
}

/// An address without the user and password within it.
fn without_credentials(text: &str) -> String {
    match reqwest::Url::parse(text) {
        Ok(mut url) if url.password().is_some() || !url.username().is_empty() => {
            // Both fail for addresses that have no place for them, which have none then.
            let _ = url.set_username("hidden");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

/// Scheme, host and port of an address.
fn without_path(text: &str) -> String {
    let url = reqwest::Url::parse(text);
    url.map_or_else(|_| "(hidden)".to_owned(), |url| format!("{}/…", url.origin().ascii_serialization()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_have_readable_keys() {
        let leaves = flat(&json!({
            "log": { "level": "info" },
            "destination": [{ "name": "pacs", "proof": { "ask": ["read-back"] } }, { "x": 1 }],
            "source": [{ "ae_title": "CT", "quiet_period_s": 1.0 }, { "ae_title": "CT", "quiet_period_s": 2.0 }],
            "rule": [],
        }));
        let keys: Vec<&str> = leaves.keys().map(String::as_str).collect();
        for key in [
            "log.level",
            "destination \"pacs\" proof.ask",
            "destination \"#2\" x",
            "destination.order",
            "source \"CT\" quiet_period_s",
            "source \"CT #2\" quiet_period_s",
            "rule",
        ] {
            assert!(keys.contains(&key), "{key}: {keys:?}");
        }
        for (key, live) in [
            ("log.level", true),
            ("log.format", false),
            ("destination \"pacs\" proof.ask", true),
            ("rule.order", true),
            ("lookup \"pacs\" address", true),
            ("task_list \"TASKS\" source \"#1\" url", true),
            ("rulers", false),
            ("time_zone", true),
            ("listen.address", false),
            ("analysis.longest_overtaken_s", true),
            ("analysis.attempts", false),
        ] {
            assert_eq!(is_live(key), live, "{key}");
        }
    }

    #[test]
    fn secrets_are_hidden() {
        assert_eq!(shown("channel \"a\" secret", &json!("s3cret")), "(hidden)");
        assert_eq!(
            shown("channel \"a\" url", &json!("https://u:p@chat.example/hook/T0KEN")),
            "\"https://chat.example/…\""
        );
        assert_eq!(shown("channel \"a\" secret_file", &json!("a.secret")), "\"a.secret\"");
        let url = shown("destination \"a\" url", &json!("https://user:pw@host/x"));
        assert!(url.contains("host") && !url.contains("pw") && !url.contains("user:"), "{url}");
    }
}
