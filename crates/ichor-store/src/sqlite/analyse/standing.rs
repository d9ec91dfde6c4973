//! What outlasts a version: a positive result that a later version without a result does not take back, and the wish for a
//! model.

use ichor_core::{Finding, Verdict};
use serde_json::{Value, json};

use crate::StoreError;
use crate::sqlite::Connection;
use crate::sqlite::failure::During;
use crate::sqlite::values::from_json;

/// The positive result that stands while a version of the study comes to no result; null if its newest result is negative,
/// or there is none. Asked before the outcome is written: a repeated analysis takes the place of its own, and what stood before it
/// is then in the event of its outcome alone.
pub(super) async fn standing_positive(connection: &mut Connection, analysis: i64) -> Result<Value, StoreError> {
    let newest: Option<(i64, String)> = sqlx::query_as(
        "SELECT r.version, r.finding FROM analysis a JOIN analysis r ON r.study_id = a.study_id
         WHERE a.id = ? AND r.version <= a.version AND r.finding IS NOT NULL ORDER BY r.version DESC LIMIT 1",
    )
    .bind(analysis)
    .fetch_optional(&mut *connection)
    .await
    .during("looking for an earlier result")?;
    let stood: Option<(i64, Option<String>)> = sqlx::query_as(
        "SELECT s.result_version, (SELECT json_extract(e.detail, '$.standing.finding') FROM event e
             WHERE e.study_id = s.id AND e.kind = 'not-analysed'
                 AND json_extract(e.detail, '$.standing.version') = s.result_version ORDER BY e.id DESC LIMIT 1)
         FROM analysis a JOIN study s ON s.id = a.study_id
         WHERE a.id = ? AND s.positive = 1 AND s.result_version <= a.version",
    )
    .bind(analysis)
    .fetch_optional(&mut *connection)
    .await
    .during("looking for an earlier result")?;
    let newest = match (newest, stood) {
        (Some((version, finding)), Some((stands, _))) if version >= stands => Some((version, finding)),
        (_, Some((stands, Some(finding)))) => Some((stands, finding)),
        (newest, _) => newest,
    };
    let Some((version, finding)) = newest else { return Ok(Value::Null) };
    let finding: Finding = from_json(&finding)?;
    match finding.verdict {
        Verdict::Positive => Ok(json!({ "version": version, "finding": finding })),
        Verdict::Negative => Ok(Value::Null),
    }
}

/// Leaves the model that was asked for to the version that has replaced this one, which has no result.
pub(in crate::sqlite) async fn leave_wish(connection: &mut Connection, analysis: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE analysis AS next SET wanted_model = gone.wanted_model FROM analysis gone
         WHERE gone.id = ? AND gone.wanted_model IS NOT NULL AND next.study_id = gone.study_id
             AND next.version = gone.version + 1 AND next.status = 'queued' AND next.wanted_model IS NULL",
    )
    .bind(analysis)
    .execute(connection)
    .await
    .during("leaving a wish to the next version")?;
    Ok(())
}
