//! Statements of analyse.

use ichor_core::{AeTitle, Finding, Reason, StudyStatus, Verdict as Call};
use serde_json::{Value, json};
use sqlx::QueryBuilder;

use super::events::NewEvent;
use super::failure::During;
use super::objects::{ObjectContext, insert_object};
use super::order::ORDER;
use super::triage::{standing_alert, write_withdrawal};
use super::values::{blob as parse_blob, model as parse_model, to_json, uid, unsigned};
use super::{Connection, Dialect, Sqlite, one_row};
use crate::analyse::{AnalysisClaim, AnalysisOutcome, SeriesOutcomeRow, SliceScore, StoredInstance, Verdict};
use crate::blobs::{BlobRef, BlobStore};
use crate::receive::StudyAttributes;
use crate::{NewWorkitem, StoreError, Timestamp};

/// Rows of one INSERT statement; six columns each stay far below SQLite's 32,766 parameters.
const ROWS_A_STATEMENT: usize = 1_000;

/// The study columns of a claim.
#[derive(sqlx::FromRow)]
pub(super) struct ClaimRow {
    id: i64,
    study_id: i64,
    version: i64,
    attempts: i64,
    study_instance: String,
    patient_id: Option<String>,
    patient_name: Option<String>,
    accession_number: Option<String>,
    looked_up_accession: Option<String>,
    study_date: Option<String>,
    description: Option<String>,
    source_ae: Option<String>,
    last_instance_at: i64,
    wanted_model: Option<String>,
}

impl ClaimRow {
    /// The row of the study.
    pub(super) fn study(&self) -> i64 {
        self.study_id
    }
}

#[derive(sqlx::FromRow)]
struct InstanceRow {
    id: i64,
    sop_instance: String,
    sop_class: String,
    series_instance: String,
    modality: Option<String>,
    transfer_syntax: String,
    blob: String,
    size: i64,
}

impl Sqlite {
    pub(crate) async fn claim_analysis(
        &self,
        blobs: &BlobStore,
        worker: &str,
        overdue: Timestamp,
        now: Timestamp,
    ) -> Result<Option<AnalysisClaim>, StoreError> {
        let during = "claiming an analysis";
        if self.next_analysis_deadline().await?.is_none_or(|due| due > now) {
            return Ok(None);
        }
        let mut tx = self.begin(during).await?;
        let statement = format!(
            "SELECT a.id, a.study_id, a.version, a.attempts + 1 AS attempts, s.study_instance, s.patient_id,
                 s.patient_name, COALESCE(s.accession_number, a.looked_up_accession) AS accession_number,
                 a.looked_up_accession, s.study_date, s.description, s.source_ae, s.last_instance_at, a.wanted_model
             FROM analysis a JOIN study s ON s.id = a.study_id
             WHERE a.status = 'queued' AND a.not_before <= ?1 AND s.status = 'queued' AND s.version = a.version
             ORDER BY {ORDER} LIMIT 1"
        );
        let row: Option<ClaimRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(now.as_millis())
            .bind(overdue.as_millis())
            .fetch_optional(&mut *tx)
            .await
            .during(during)?;
        let Some(mut row) = row else { return Ok(None) };
        if let Some((looked_up, received)) = super::lookup::fix_accession(&mut tx, row.id).await? {
            row.accession_number = received.or_else(|| looked_up.clone());
            row.looked_up_accession = looked_up;
        }
        sqlx::query("UPDATE analysis SET status = 'running', attempts = ?, worker = ?, started_at = ? WHERE id = ?")
            .bind(row.attempts)
            .bind(worker)
            .bind(now.as_millis())
            .bind(row.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        set_status(&mut tx, row.study_id, StudyStatus::Analysing, None).await?;
        let text = format!("analysis of version {} began, attempt {}", row.version, row.attempts);
        NewEvent::new(now, "analysis-started", text)
            .detail(json!({ "version": row.version, "attempt": row.attempts, "worker": worker }))
            .study(row.study_id)
            .write(&mut tx)
            .await?;
        let instances = instances(&mut tx, blobs, row.study_id).await?;
        tx.commit().await.during(during)?;
        claim(row, instances).map(Some)
    }

    pub(crate) async fn next_analysis_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = sqlx::query_scalar("SELECT MIN(not_before) FROM analysis WHERE status = 'queued'")
            .fetch_one(&self.read)
            .await
            .during("looking for the next analysis")?;
        Ok(due.map(Timestamp::from_millis))
    }

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
        let AnalysisOutcome { verdict, model, notice, series, slices, slices_known, objects, timings, routed } =
            outcome;
        let (finding, reason) = match &verdict {
            Verdict::Analysed(finding) => (Some(finding), None),
            Verdict::NotAnalysed(reason) => (None, Some(reason)),
        };
        let mut tx = self.begin(during).await?;
        let study: Option<i64> = sqlx::query_scalar(
            "UPDATE analysis SET status = 'done', finished_at = ?, model = ?, finding = ?, reason_code = ?,
                 reason_text = ?, timings = ?
             WHERE id = ? AND status = 'running' AND attempts = ? RETURNING study_id",
        )
        .bind(now.as_millis())
        .bind(model.as_ref().map(|model| model.as_str().to_owned()))
        .bind(finding.map(to_json).transpose()?)
        .bind(reason.map(|reason| reason.code.as_str().to_owned()))
        .bind(reason.map(|reason| reason.text.clone()))
        .bind(to_json(&timings)?)
        .bind(claim.id)
        .bind(claim.attempts)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(study) = study else { return Err(stale(claim)) };
        replace_details(&mut tx, claim.id, &series, &slices).await?;
        if let (Some(finding), Some(model)) = (finding, &model) {
            super::scores::count(&mut tx, model, finding, &slices, now).await?;
        }
        record_result(&mut tx, study, claim, &verdict, model.as_ref().map(|m| m.as_str()), now).await?;
        let status = if finding.is_some() { StudyStatus::Analysed } else { StudyStatus::NotAnalysed };
        settle_status(&mut tx, study, claim, status, reason).await?;
        write_series_events(&mut tx, study, &series, now).await?;
        let by = json!({ "model": model, "notice": notice, "timings_ms": timings, "slices_known": slices_known });
        let mut detail = outcome_detail(claim, &verdict, by);
        if finding.is_none() {
            detail["alert"] = standing_alert(&mut tx, study).await?;
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
        for object in objects {
            let context = ObjectContext { blobs, study, analysis: claim.id, urgent, now };
            insert_object(&mut tx, &context, object, published).await?;
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
            (false, _) => {}
            (true, Some(_)) => set_status(&mut tx, study, StudyStatus::Queued, Some(reason)).await?,
            (true, None) => set_status(&mut tx, study, StudyStatus::Failed, Some(reason)).await?,
        }
        let consequence = match word {
            "queued" => "it will be tried again",
            "failed" => "given up",
            _ => "the next version replaces it",
        };
        let text = format!("analysis of version {} failed: {reason}; {consequence}", claim.version);
        let alert = if word == "failed" { standing_alert(&mut tx, study).await? } else { Value::Null };
        NewEvent::new(now, "analysis-failed", text)
            .detail(json!({
                "version": claim.version, "attempt": claim.attempts, "reason": reason,
                "retry_at": retry_at.filter(|_| is_current), "given_up": word == "failed", "alert": alert,
            }))
            .study(study)
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)
    }
}

fn stale(claim: &AnalysisClaim) -> StoreError {
    StoreError::StaleClaim { what: format!("study {} version {}", claim.study.study_instance, claim.version) }
}

pub(super) fn claim(row: ClaimRow, instances: Vec<StoredInstance>) -> Result<AnalysisClaim, StoreError> {
    Ok(AnalysisClaim {
        id: row.id,
        study: StudyAttributes {
            study_instance: uid(&row.study_instance)?,
            patient_id: row.patient_id,
            patient_name: row.patient_name,
            accession_number: row.accession_number,
            study_date: row.study_date,
            description: row.description,
        },
        source_ae: row
            .source_ae
            .map(|title| AeTitle::parse(&title))
            .transpose()
            .map_err(|error| StoreError::corrupt(error.to_string()))?,
        version: unsigned(row.version)?,
        attempts: unsigned(row.attempts)?,
        accepted_at: Timestamp::from_millis(row.last_instance_at),
        instances,
        wanted_model: parse_model(row.wanted_model)?,
        looked_up_accession: row.looked_up_accession,
    })
}

pub(super) async fn instances(
    connection: &mut Connection,
    blobs: &BlobStore,
    study: i64,
) -> Result<Vec<StoredInstance>, StoreError> {
    let rows: Vec<InstanceRow> = sqlx::query_as(
        "SELECT i.id, i.sop_instance, i.sop_class, s.series_instance, s.modality, i.transfer_syntax, i.blob, i.size
         FROM instance i JOIN series s ON s.id = i.series_id
         WHERE i.study_id = ? AND i.own = 0 ORDER BY i.id",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("reading the instances of a study")?;
    let instance = |row: InstanceRow| {
        Ok(StoredInstance {
            id: row.id,
            sop_instance: uid(&row.sop_instance)?,
            sop_class: uid(&row.sop_class)?,
            series_instance: uid(&row.series_instance)?,
            modality: row.modality,
            transfer_syntax: uid(&row.transfer_syntax)?,
            path: blobs.path_of(&parse_blob(&row.blob)?),
            size: unsigned(row.size)?,
        })
    };
    rows.into_iter().map(instance).collect()
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

/// Series and slices of an earlier run of the same version go, these come.
async fn replace_details(
    connection: &mut Connection,
    analysis: i64,
    series: &[SeriesOutcomeRow],
    slices: &[SliceScore],
) -> Result<(), StoreError> {
    let during = "recording series and slices";
    for statement in
        ["DELETE FROM series_outcome WHERE analysis_id = ?", "DELETE FROM slice_score WHERE analysis_id = ?"]
    {
        sqlx::query(statement).bind(analysis).execute(&mut *connection).await.during(during)?;
    }
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
    let numbered: Vec<(i64, &SliceScore)> = (0..).zip(slices).collect();
    for rows in numbered.chunks(ROWS_A_STATEMENT) {
        let mut insert = QueryBuilder::<Dialect>::new(
            "INSERT INTO slice_score (analysis_id, position, sop_instance, frame, probability, masked_pixels) ",
        );
        insert.push_values(rows, |mut row, (position, slice)| {
            row.push_bind(analysis)
                .push_bind(*position)
                .push_bind(slice.sop_instance.as_str().to_owned())
                .push_bind(slice.frame)
                .push_bind(f64::from(slice.probability))
                .push_bind(slice.masked_pixels);
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
