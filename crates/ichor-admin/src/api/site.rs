//! The site: statistics, the configuration in force.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use ichor_store::{Statistics, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::App;
use crate::access::{AsAdmin, AsViewer, audit};
use crate::problem::Problem;

/// Days of statistics, if not said otherwise.
const DAYS: u32 = 30;
/// The most of them: each study in between is read.
const MOST_DAYS: u32 = 366;

/// Which span.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StatisticsQuery {
    /// The last so many days of the site's time zone, 1 to 366; 30 if left out.
    pub(crate) days: Option<u32>,
}

/// Statistics of the last days.
pub(crate) async fn last_days(app: &App, days: Option<u32>) -> Result<Statistics, Problem> {
    let days = days.unwrap_or(DAYS);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Problem::bad(format!("days {days} is not from 1 to {MOST_DAYS}")));
    }
    let (now, zone) = ((app.facts.now)().as_millis(), app.facts.site().zone.clone());
    // Whole days: the first of them too.
    let from = zone.start_of_day(now, days - 1);
    Ok(app.facts.store.statistics(Timestamp::from_millis(from), Timestamp::from_millis(now + 1), &zone).await?)
}

/// Turn-around, positives and reasons, by source and by day
#[utoipa::path(get, path = "/api/statistics", tag = "site", params(StatisticsQuery),
    responses((status = 200, body = Statistics),
        (status = 400, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn statistics(
    State(app): State<Arc<App>>,
    _: AsViewer,
    query: Result<Query<StatisticsQuery>, QueryRejection>,
) -> Result<Json<Statistics>, Problem> {
    let Query(query) = query?;
    last_days(&app, query.days).await.map(Json)
}

/// The configuration in force, secrets hidden
///
/// For admins; asking stands in the audit trail.
#[utoipa::path(get, path = "/api/configuration", tag = "site", responses((status = 200, body = Object)))]
pub(crate) async fn configuration(
    State(app): State<Arc<App>>,
    AsAdmin(caller): AsAdmin,
) -> Result<Json<Value>, Problem> {
    audit(&app, &caller, "configuration-viewed", None, Value::Null).await?;
    Ok(Json(hidden(app.facts.site().configuration.clone())))
}

/// The same without secrets: what a key says is one, and credentials within addresses. Names of files are none.
fn hidden(value: Value) -> Value {
    const SECRET: [&str; 6] = ["password", "passcode", "token", "secret", "credential", "api_key"];
    match value {
        Value::Object(fields) => {
            let hide = |(key, value): (String, Value)| {
                let is_secret = !key.ends_with("_file") && SECRET.iter().any(|word| key.contains(word));
                let value = match value {
                    Value::String(_) | Value::Number(_) if is_secret => Value::from("hidden"),
                    other => hidden(other),
                };
                (key, value)
            };
            Value::Object(fields.into_iter().map(hide).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(hidden).collect()),
        Value::String(text) => Value::String(without_credentials(text)),
        other => other,
    }
}

/// An address without `user:password@` and without a query, in which tokens travel.
fn without_credentials(text: String) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (place, path) = rest.split_once('/').map_or((rest, String::new()), |(place, path)| (place, format!("/{path}")));
    let place = place.rsplit_once('@').map_or_else(|| place.to_owned(), |(_, host)| format!("hidden@{host}"));
    let path = path.split_once('?').map_or(path.clone(), |(path, _)| format!("{path}?hidden"));
    format!("{scheme}://{place}{path}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden() {
        let configuration = json!({
            "destination": [{ "url": "https://me:pass@pacs:8042/dicom-web?token=abc", "token_file": "/etc/token" }],
            "channel": { "hmac_secret": "s3cret", "password": "pw", "name": "ris" },
        });
        assert_eq!(
            hidden(configuration),
            json!({
                "destination": [{ "url": "https://hidden@pacs:8042/dicom-web?hidden", "token_file": "/etc/token" }],
                "channel": { "hmac_secret": "hidden", "password": "hidden", "name": "ris" },
            })
        );
    }
}
