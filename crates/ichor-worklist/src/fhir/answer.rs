//! What a server answers: the response to a transaction, and `OperationOutcome`.

use serde::Deserialize;

/// Most issues of an outcome that are told.
const MAX_ISSUES: usize = 3;
/// Longest place of an issue, in characters.
const MAX_PLACE: usize = 80;

/// The answer to a transaction (<https://hl7.org/fhir/R4/http.html#transaction-response>).
#[derive(Debug, Deserialize)]
pub(super) struct Transaction {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    entry: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    response: Option<EntryResponse>,
}

#[derive(Debug, Deserialize)]
struct EntryResponse {
    status: String,
}

impl Transaction {
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|_| "the body is no Bundle".to_owned())
    }

    /// Whether the server says of each of `sent` entries that it has it; `created` or `updated` for the first, the report.
    pub(super) fn check(&self, sent: usize) -> Result<&'static str, String> {
        if self.resource_type != "Bundle" || self.kind != "transaction-response" {
            return Err("the body is no answer to a transaction".to_owned());
        }
        if self.entry.len() != sent {
            return Err(format!("it speaks of {} entries, {sent} were sent", self.entry.len()));
        }
        for (number, entry) in self.entry.iter().enumerate() {
            let status = entry.response.as_ref().map_or("", |response| response.status.as_str());
            if !status.starts_with('2') {
                let code: String = status.chars().take_while(char::is_ascii_digit).take(3).collect();
                return Err(format!("entry {number} was answered {code:?}"));
            }
        }
        let first = self.entry.first().and_then(|entry| entry.response.as_ref());
        Ok(if first.is_some_and(|response| response.status.starts_with("201")) { "created" } else { "updated" })
    }
}

#[derive(Deserialize)]
struct CapabilityStatement {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(rename = "fhirVersion")]
    fhir_version: Option<String>,
}

/// The version of FHIR in a statement of what a server can do, such as `4.0.1`.
pub(super) fn version(body: &[u8]) -> Result<String, String> {
    let statement: Option<CapabilityStatement> = serde_json::from_slice(body).ok();
    let version =
        statement.filter(|found| found.resource_type == "CapabilityStatement").and_then(|found| found.fhir_version);
    let version = version.ok_or("the body is no CapabilityStatement with its version of FHIR")?;
    Ok(version.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).take(MAX_PLACE).collect())
}

#[derive(Deserialize)]
struct OperationOutcome {
    #[serde(default)]
    issue: Vec<Issue>,
}

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    severity: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    expression: Vec<String>,
    #[serde(default)]
    location: Vec<String>,
}

/// The issues of an `OperationOutcome`: severity, code and place. Its texts are not part of this, for they may speak of
/// the patient. Nothing, if it is none.
pub(super) fn issues(body: &[u8]) -> Vec<String> {
    let Ok(OperationOutcome { mut issue }) = serde_json::from_slice(body) else { return Vec::new() };
    tracing::debug!(outcome = %String::from_utf8_lossy(&body[..body.len().min(2_000)]), "FHIR server's words");
    // What matters first.
    issue.sort_by_key(|issue| match issue.severity.as_str() {
        "fatal" => 0,
        "error" => 1,
        "warning" => 2,
        _ => 3,
    });
    issue.iter().take(MAX_ISSUES).map(words).collect()
}

fn words(issue: &Issue) -> String {
    let code =
        |text: &str| -> String { text.chars().filter(|c| c.is_ascii_lowercase() || *c == '-').take(30).collect() };
    let line = format!("{} {}", code(&issue.severity), code(&issue.code)).trim().to_owned();
    let place = issue.expression.first().or(issue.location.first());
    match place.filter(|place| is_path(place)) {
        Some(place) => format!("{line} at {place}"),
        None => line,
    }
}

/// Whether it is a path in a resource, and nothing else.
fn is_path(place: &str) -> bool {
    place.len() <= MAX_PLACE && place.chars().all(|c| c.is_ascii_alphanumeric() || ".[]/:-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_at_their_word_only() {
        let check = |body: &str, sent| Transaction::parse(body.as_bytes())?.check(sent).map(str::to_owned);
        let answer = |statuses: &[&str]| {
            let entries: Vec<_> =
                statuses.iter().map(|status| format!("{{\"response\":{{\"status\":\"{status}\"}}}}")).collect();
            format!(
                "{{\"resourceType\":\"Bundle\",\"type\":\"transaction-response\",\"entry\":[{}]}}",
                entries.join(",")
            )
        };
        assert_eq!(check(&answer(&["201 Created", "200 OK"]), 2).unwrap(), "created");
        assert_eq!(check(&answer(&["200", "201"]), 2).unwrap(), "updated");
        for (body, sent, word) in [
            ("<html>login</html>".to_owned(), 1, "no Bundle"),
            ("{\"resourceType\":\"Bundle\",\"type\":\"batch-response\"}".to_owned(), 0, "no answer to a transaction"),
            (answer(&["200"]), 2, "1 entries, 2 were sent"),
            (answer(&["200", "422 Doe^John"]), 2, "entry 1 was answered \"422\""),
            (answer(&["200"]).replace("response", "resource"), 1, "no answer"),
        ] {
            let error = check(&body, sent).unwrap_err();
            assert!(error.contains(word) && !error.contains("Doe"), "{body}: {error}");
        }
    }

    #[test]
    fn outcomes_are_told_without_their_texts() {
        let outcome = r#"{"resourceType":"OperationOutcome","issue":[
            {"severity":"information","code":"informational"},
            {"severity":"error","code":"invalid","diagnostics":"Doe^John is unknown","expression":["Bundle.entry[1].resource"]},
            {"severity":"error","code":"not-found","location":["Patient Doe, John"]}]}"#;
        assert_eq!(
            issues(outcome.as_bytes()),
            ["error invalid at Bundle.entry[1].resource", "error not-found", "information informational"]
        );
        assert!(issues(b"<html>").is_empty() && issues(b"{}").is_empty());
    }
}
