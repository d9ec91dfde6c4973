//! Statements of analyse: outcomes.

mod claim;
mod standing;
mod times;

use ichor_core::{Finding, Reason, StudyStatus, Verdict as Call};
use serde_json::{Value, json};
use sqlx::QueryBuilder;

pub(super) use self::claim::{ClaimRow, claim, instances};
pub(super) use self::standing::leave_wish;
use self::standing::standing_positive;
pub(super) use self::times::turnaround;
use super::events::NewEvent;
use super::failure::During;
use super::objects::{ObjectContext, insert_object};
use super::triage::{standing_alert, write_withdrawal};
use super::values::{signed, to_json};
use super::{Connection, Dialect, Sqlite, one_row};
use crate::analyse::{AnalysisClaim, AnalysisOutcome, SeriesOutcomeRow, SliceScore, Verdict};
use crate::blobs::{BlobRef, BlobStore};
use crate::{NewWorkitem, StoreError, Timestamp};

/// Rows of one INSERT statement; eight columns each stay far below SQLite's 32,766 parameters.
const ROWS_A_STATEMENT: usize = 1_000;

impl Sqlite {
    pub(crate) async fn complete_analysis(
        &self,
        blobs: &BlobStore,
        claim: &AnalysisClaim,
        outcome: AnalysisOutcome,
        reading: Option<&NewWorkitem>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut published = Vec::new();
        let completed = self.try_complete(blobs, claim, (outcome, reading), now, &mut published).await;
        if completed.is_err() {
            for blob in &published {
                // A failed commit may still have reached the medium.
                if let Ok(false) = self.is_blob_known(blob).await {
                    blobs.remove(blob).await;
                }
            }
        }
        completed
    }

    async fn try_complete(
        &self,
        blobs: &BlobStore,
        claim: &AnalysisClaim,
        (outcome, reading): (AnalysisOutcome, Option<&NewWorkitem>),
        now: Timestamp,
        published: &mut Vec<BlobRef>,
    ) -> Result<(), StoreError> {
        let during = "recording an outcome";
        let AnalysisOutcome { verdict, model, notice, series, slices, slices_known, objects, maps, timings, routed } =
            outcome;
        let (finding, reason) = match &verdict {
            Verdict::Analysed(finding) => (Some(finding), None),
            Verdict::NotAnalysed(reason) => (None, Some(reason)),
        };
        let mut tx = self.begin(during).await?;
        let standing = if finding.is_none() { standing_positive(&mut tx, claim.id).await? } else { Value::Null };
        let name = model.as_ref().map(|model| model.as_str());
        let study = finish(&mut tx, claim, &verdict, (name, &timings), now).await?;
        // What a positive that stands says of its slices stands with it.
        let stands_here = standing["version"] == claim.version;
        replace_series(&mut tx, claim.id, &series).await?;
        if !stands_here {
            replace_slices(&mut tx, claim.id, &slices).await?;
        }
        if let (Some(finding), Some(model)) = (finding, &model) {
            super::scores::count(&mut tx, model, finding, &slices, now).await?;
        }
        // What is positive stays so in every list until there is another result.
        if standing.is_null() {
            record_result(&mut tx, study, claim, &verdict, name, now).await?;
        }
        let took_ms = turnaround(&mut tx, claim.id, outcome_word(&verdict), now).await?;
        times::attempt(&mut tx, claim.id, &timings, now).await?;
        let status = if finding.is_some() { StudyStatus::Analysed } else { StudyStatus::NotAnalysed };
        settle_status(&mut tx, study, claim, status, reason).await?;
        write_series_events(&mut tx, study, &series, now).await?;
        let by = json!({ "model": model, "notice": notice, "timings_ms": timings, "slices_known": slices_known,
            "turnaround_ms": took_ms });
        let mut detail = outcome_detail(claim, &verdict, by);
        if finding.is_none() {
            detail["alert"] = standing_alert(&mut tx, study).await?;
            detail["standing"] = standing;
        }
        write_outcome_event(&mut tx, study, claim, &verdict, detail.clone(), now).await?;
        // Of a study that was not analysed nobody knows whether the whole bears the alert out: it stands.
        if finding.is_some_and(|finding| finding.verdict == Call::Negative) {
            write_withdrawal(&mut tx, study, detail, now).await?;
        }
        let urgent = routed.as_ref().and_then(|routed| routed.urgent);
        let urgent = urgent.unwrap_or_else(|| finding.is_some_and(|finding| finding.verdict == Call::Positive));
        if let Some(routed) = &routed {
            super::route::write_event(&mut tx, study, routed, now).await?;
        }
        let context = ObjectContext { blobs, study, analysis: claim.id, urgent, now };
        for object in objects {
            insert_object(&mut tx, &context, object, published).await?;
        }
        if !stands_here {
            super::maps::replace(&mut tx, &context, maps, published).await?;
        }
        if let Some(reading) = reading {
            super::worklist::of_analysis(&mut tx, study, claim.version, reading, finding.is_some(), now).await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn fail_analysis(
        &self,
        claim: &AnalysisClaim,
        reason: &Reason,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a failed analysis";
        let mut tx = self.begin(during).await?;
        let current: Option<(i64, bool)> = sqlx::query_as(
            "SELECT s.id, s.status = 'analysing' AND s.version = a.version FROM analysis a JOIN study s ON s.id = a.study_id
             WHERE a.id = ? AND a.status = 'running' AND a.attempts = ?",
        )
        .bind(claim.id)
        .bind(claim.attempts)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some((study, is_current)) = current else { return Err(stale(claim)) };
        let (word, not_before) = match retry_at {
            _ if !is_current => ("superseded", now),
            Some(at) => ("queued", at),
            None => ("failed", now),
        };
        sqlx::query(
            "UPDATE analysis SET status = ?, not_before = ?, finished_at = ?, reason_code = ?, reason_text = ? WHERE id = ?",
        )
        .bind(word)
        .bind(not_before.as_millis())
        .bind(now.as_millis())
        .bind(reason.code.as_str())
        .bind(&reason.text)
        .bind(claim.id)
        .execute(&mut *tx)
        .await
        .during(during)?;
        match (is_current, retry_at) {
            (false, _) => leave_wish(&mut tx, claim.id).await?,
            (true, Some(_)) => set_status(&mut tx, study, StudyStatus::Queued, Some(reason)).await?,
            (true, None) => set_status(&mut tx, study, StudyStatus::Failed, Some(reason)).await?,
        }
        let consequence = match word {
            "queued" => "it will be tried again",
            "failed" => "given up",
            _ => "the next version replaces it",
        };
        let text = format!("analysis of version {} failed: {reason}; {consequence}", claim.version);
        let (mut alert, mut standing, mut took_ms) = (Value::Null, Value::Null, None);
        if word == "failed" {
            took_ms = Some(turnaround(&mut tx, claim.id, "failed", now).await?);
            alert = standing_alert(&mut tx, study).await?;
            standing = standing_positive(&mut tx, claim.id).await?;
        }
        NewEvent::new(now, "analysis-failed", text)
            .detail(json!({
                "version": claim.version, "attempt": claim.attempts, "reason": reason,
                "retry_at": retry_at.filter(|_| is_current), "given_up": word == "failed", "alert": alert,
                "standing": standing, "turnaround_ms": took_ms,
            }))
            .study(study)
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)
    }
}

/// Writes the outcome into the row of the analysis, if the claim still holds; of which study it is.
async fn finish(
    connection: &mut Connection,
    claim: &AnalysisClaim,
    verdict: &Verdict,
    (model, timings): (Option<&str>, &[(String, u64)]),
    now: Timestamp,
) -> Result<i64, StoreError> {
    let (finding, reason) = match verdict {
        Verdict::Analysed(finding) => (Some(finding), None),
        Verdict::NotAnalysed(reason) => (None, Some(reason)),
    };
    let study: Option<i64> = sqlx::query_scalar(
        "UPDATE analysis SET status = 'done', finished_at = ?, model = ?, finding = ?, reason_code = ?,
             reason_text = ?, timings = ?
         WHERE id = ? AND status = 'running' AND attempts = ? RETURNING study_id",
    )
    .bind(now.as_millis())
    .bind(model)
    .bind(finding.map(to_json).transpose()?)
    .bind(reason.map(|reason| reason.code.as_str()))
    .bind(reason.map(|reason| reason.text.as_str()))
    .bind(to_json(&timings)?)
    .bind(claim.id)
    .bind(claim.attempts)
    .fetch_optional(connection)
    .await
    .during("recording an outcome")?;
    study.ok_or_else(|| stale(claim))
}

fn stale(claim: &AnalysisClaim) -> StoreError {
    StoreError::StaleClaim { what: format!("study {} version {}", claim.study.study_instance, claim.version) }
}

/// Sets the state of a study that is not receiving, and why it is in it.
pub(super) async fn set_status(
    connection: &mut Connection,
    study: i64,
    status: StudyStatus,
    reason: Option<&Reason>,
) -> Result<(), StoreError> {
    let changed = sqlx::query("UPDATE study SET status = ?, reason_code = ?, reason_text = ? WHERE id = ?")
        .bind(status.as_str())
        .bind(reason.map(|reason| reason.code.as_str()))
        .bind(reason.map(|reason| reason.text.as_str()))
        .bind(study)
        .execute(connection)
        .await
        .during("changing the state of a study")?
        .rows_affected();
    one_row(changed, || format!("study {study}"))
}

/// Gives the study the state of the outcome, unless a late instance has opened it again.
async fn settle_status(
    connection: &mut Connection,
    study: i64,
    claim: &AnalysisClaim,
    status: StudyStatus,
    reason: Option<&Reason>,
) -> Result<(), StoreError> {
    let is_current: bool = sqlx::query_scalar("SELECT status = 'analysing' AND version = ? FROM study WHERE id = ?")
        .bind(claim.version)
        .bind(study)
        .fetch_one(&mut *connection)
        .await
        .during("changing the state of a study")?;
    if is_current { set_status(connection, study, status, reason).await } else { Ok(()) }
}

/// Series of an earlier run of the same version go, these come.
async fn replace_series(
    connection: &mut Connection,
    analysis: i64,
    series: &[SeriesOutcomeRow],
) -> Result<(), StoreError> {
    let during = "recording series";
    sqlx::query("DELETE FROM series_outcome WHERE analysis_id = ?")
        .bind(analysis)
        .execute(&mut *connection)
        .await
        .during(during)?;
    for outcome in series {
        sqlx::query(
            "INSERT INTO series_outcome (analysis_id, series_instance, chosen, reasons, rules) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET chosen = excluded.chosen, reasons = excluded.reasons, rules = excluded.rules",
        )
        .bind(analysis)
        .bind(outcome.series_instance.as_str())
        .bind(outcome.chosen)
        .bind(to_json(&outcome.reasons)?)
        .bind(to_json(&outcome.rules)?)
        .execute(&mut *connection)
        .await
        .during(during)?;
    }
    Ok(())
}

/// Slices of an earlier run of the same version go, these come.
async fn replace_slices(connection: &mut Connection, analysis: i64, slices: &[SliceScore]) -> Result<(), StoreError> {
    let during = "recording slices";
    sqlx::query("DELETE FROM slice_score WHERE analysis_id = ?")
        .bind(analysis)
        .execute(&mut *connection)
        .await
        .during(during)?;
    let numbered: Vec<(i64, &SliceScore)> = (0..).zip(slices).collect();
    for rows in numbered.chunks(ROWS_A_STATEMENT) {
        let mut insert = QueryBuilder::<Dialect>::new(
            "INSERT INTO slice_score (analysis_id, position, sop_instance, frame, probability, masked_pixels, map_offset, map_bytes) ",
        );
        insert.push_values(rows, |mut row, (position, slice)| {
            row.push_bind(analysis)
                .push_bind(*position)
                .push_bind(slice.sop_instance.as_str().to_owned())
                .push_bind(slice.frame)
                .push_bind(f64::from(slice.probability))
                .push_bind(slice.masked_pixels)
                .push_bind(slice.map.map(|map| signed(map.offset)))
                .push_bind(slice.map.map(|map| map.bytes));
        });
        insert.build().execute(&mut *connection).await.during(during)?;
    }
    Ok(())
}

/// The study's columns for lists: the outcome of the newest finished version.
async fn record_result(
    connection: &mut Connection,
    study: i64,
    claim: &AnalysisClaim,
    verdict: &Verdict,
    model: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let finding = match verdict {
        Verdict::Analysed(finding) => Some(finding),
        Verdict::NotAnalysed(_) => None,
    };
    sqlx::query(
        "UPDATE study SET result_version = ?1, positive = ?2, probability = ?3, volume_ml = ?4, model = ?5,
             analysed_at = ?6, volume_sd_ml = ?8
         WHERE id = ?7 AND COALESCE(result_version, 0) <= ?1",
    )
    .bind(claim.version)
    .bind(finding.map(|finding| finding.verdict == Call::Positive))
    .bind(finding.map(|finding| finding.probability))
    .bind(finding.map(|finding| finding.volume_ml))
    .bind(model)
    .bind(now.as_millis())
    .bind(study)
    .bind(finding.and_then(|finding| finding.volume_sd_ml))
    .execute(connection)
    .await
    .during("recording a result")?;
    Ok(())
}

async fn write_series_events(
    connection: &mut Connection,
    study: i64,
    series: &[SeriesOutcomeRow],
    now: Timestamp,
) -> Result<(), StoreError> {
    for outcome in series {
        let reasons = outcome.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let (kind, what) = if outcome.chosen { ("series-chosen", "chosen") } else { ("series-set-aside", "set aside") };
        let colon = if reasons.is_empty() { "" } else { ": " };
        NewEvent::new(now, kind, format!("series {} {what}{colon}{reasons}", outcome.series_instance))
            .detail(json!({
                "series_instance": outcome.series_instance, "reasons": outcome.reasons, "rules": outcome.rules,
            }))
            .study(study)
            .write(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The outcome in a word.
const fn outcome_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Analysed(Finding { verdict: Call::Positive, .. }) => "positive",
        Verdict::Analysed(Finding { verdict: Call::Negative, .. }) => "negative",
        Verdict::NotAnalysed(_) => "not-analysed",
    }
}

/// The outcome for machines.
fn outcome_detail(claim: &AnalysisClaim, verdict: &Verdict, by: serde_json::Value) -> serde_json::Value {
    let outcome = match verdict {
        Verdict::Analysed(finding) => json!({ "finding": finding }),
        Verdict::NotAnalysed(reason) => json!({ "reason": reason }),
    };
    let mut detail = json!({ "version": claim.version, "attempt": claim.attempts, "outcome": outcome });
    if let (Some(detail), serde_json::Value::Object(by)) = (detail.as_object_mut(), by) {
        detail.extend(by);
    }
    detail
}

async fn write_outcome_event(
    connection: &mut Connection,
    study: i64,
    claim: &AnalysisClaim,
    verdict: &Verdict,
    detail: serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (kind, text) = match verdict {
        Verdict::Analysed(finding) => ("analysed", finding_text(claim.version, finding)),
        Verdict::NotAnalysed(reason) => ("not-analysed", format!("version {} not analysed: {reason}", claim.version)),
    };
    NewEvent::new(now, kind, text).detail(detail).study(study).write(connection).await
}

fn finding_text(version: u32, finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Call::Positive => "positive",
        Call::Negative => "negative",
    };
    format!(
        "version {version} is {verdict}: probability {:.3}, {:.1} mL{}, {} of {} slices",
        finding.probability,
        finding.volume_ml,
        finding.volume_sd_ml.map_or_else(String::new, |sd| format!(" ± {sd:.1}")),
        finding.positive_slices,
        finding.slices
    )
}
