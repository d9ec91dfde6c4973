//! Statements of triage.

use std::collections::HashMap;

use ichor_core::Uid;
use serde_json::{Value, json};
use sqlx::QueryBuilder;

use super::events::NewEvent;
use super::failure::During;
use super::latency::count;
use super::values::{blob as parse_blob, from_json, uid, unsigned};
use super::{Connection, Dialect, Sqlite};
use crate::analyse::{AnalysisClaim, StoredInstance};
use crate::blobs::BlobStore;
use crate::latency::Measure;
use crate::triage::{ArrivedInstance, ArrivedSlice, NewAlert, SliceProbability};
use crate::{StoreError, Timestamp};

/// Rows of one INSERT statement, far below SQLite's 32,766 parameters.
const ROWS_A_STATEMENT: usize = 1_000;

/// The frame of an instance that is one slice: frames count from 1.
const NO_FRAME: u32 = 0;

#[derive(sqlx::FromRow)]
struct ArrivedRow {
    id: i64,
    sop_instance: String,
    sop_class: String,
    series_instance: String,
    modality: Option<String>,
    transfer_syntax: String,
    blob: String,
    size: i64,
    study_instance: String,
}

impl Sqlite {
    pub(crate) async fn unclassified_instances(
        &self,
        blobs: &BlobStore,
        model: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<ArrivedInstance>, StoreError> {
        // CROSS JOIN keeps the order of the tables: a range of instances, not every study that is receiving.
        let rows: Vec<ArrivedRow> = sqlx::query_as(
            "SELECT i.id, i.sop_instance, i.sop_class, e.series_instance, e.modality, i.transfer_syntax, i.blob, i.size,
                 s.study_instance
             FROM instance i CROSS JOIN study s ON s.id = i.study_id CROSS JOIN series e ON e.id = i.series_id
             WHERE i.id > ?1 AND i.own = 0 AND s.status = 'receiving'
               AND NOT EXISTS (SELECT 1 FROM slice_probability p WHERE p.instance_id = i.id AND p.model = ?2)
             ORDER BY i.id LIMIT ?3",
        )
        .bind(after)
        .bind(model)
        .bind(limit)
        .fetch_all(&self.read)
        .await
        .during("looking for slices to classify")?;
        let instance = |row: ArrivedRow| {
            Ok(ArrivedInstance {
                instance: StoredInstance {
                    id: row.id,
                    sop_instance: uid(&row.sop_instance)?,
                    sop_class: uid(&row.sop_class)?,
                    series_instance: uid(&row.series_instance)?,
                    modality: row.modality,
                    transfer_syntax: uid(&row.transfer_syntax)?,
                    path: blobs.path_of(&parse_blob(&row.blob)?),
                    size: unsigned(row.size)?,
                },
                study_instance: uid(&row.study_instance)?,
            })
        };
        rows.into_iter().map(instance).collect()
    }

    pub(crate) async fn newest_instance(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM instance")
            .fetch_one(&self.read)
            .await
            .during("looking for the newest instance")
    }

    pub(crate) async fn record_probabilities(&self, model: &str, said: &[SliceProbability]) -> Result<(), StoreError> {
        let during = "recording probabilities";
        if said.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin(during).await?;
        for rows in said.chunks(ROWS_A_STATEMENT) {
            let mut insert = QueryBuilder::<Dialect>::new(
                "INSERT OR IGNORE INTO slice_probability (instance_id, frame, model, probability, height_mm) ",
            );
            insert.push_values(rows, |mut row, said| {
                row.push_bind(said.instance)
                    .push_bind(said.frame.unwrap_or(NO_FRAME))
                    .push_bind(model.to_owned())
                    .push_bind(f64::from(said.probability))
                    .push_bind(said.height_mm);
            });
            insert.build().execute(&mut *tx).await.during(during)?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn probabilities(
        &self,
        claim: &AnalysisClaim,
        model: &str,
    ) -> Result<HashMap<(Uid, Option<u32>), f32>, StoreError> {
        let rows: Vec<(String, u32, f64)> = sqlx::query_as(
            "SELECT i.sop_instance, p.frame, p.probability
             FROM analysis a JOIN instance i ON i.study_id = a.study_id
                 JOIN slice_probability p ON p.instance_id = i.id AND p.model = ?
             WHERE a.id = ? AND i.own = 0",
        )
        .bind(model)
        .bind(claim.id)
        .fetch_all(&self.read)
        .await
        .during("reading probabilities")?;
        let known = |(sop_instance, frame, probability): (String, u32, f64)| {
            Ok(((uid(&sop_instance)?, Some(frame).filter(|frame| *frame != NO_FRAME)), probability as f32))
        };
        rows.into_iter().map(known).collect()
    }

    pub(crate) async fn slices_to_alert(
        &self,
        study: &Uid,
        series: &Uid,
        model: &str,
    ) -> Result<Vec<ArrivedSlice>, StoreError> {
        let rows: Vec<(String, i64, f64, f64)> = sqlx::query_as(
            "SELECT i.sop_instance, i.received_at, p.probability, p.height_mm
             FROM study s JOIN series e ON e.study_id = s.id
                 JOIN instance i ON i.study_id = s.id AND i.own = 0 AND i.series_id = e.id
                 JOIN slice_probability p ON p.instance_id = i.id AND p.model = ?
             WHERE s.study_instance = ? AND e.series_instance = ?
               AND s.alerted_at IS NULL AND s.status IN ('receiving', 'queued', 'analysing')
             ORDER BY p.height_mm, i.id",
        )
        .bind(model)
        .bind(study.as_str())
        .bind(series.as_str())
        .fetch_all(&self.read)
        .await
        .during("reading classified slices")?;
        let slice = |(sop_instance, received_at, probability, height_mm): (String, _, f64, _)| {
            Ok(ArrivedSlice {
                sop_instance: uid(&sop_instance)?,
                received_at: Timestamp::from_millis(received_at),
                probability: probability as f32,
                height_mm,
            })
        };
        rows.into_iter().map(slice).collect()
    }

    pub(crate) async fn record_alert(&self, alert: &NewAlert, now: Timestamp) -> Result<Option<i64>, StoreError> {
        let during = "recording an alert";
        let mut tx = self.begin(during).await?;
        let known: Option<i64> = sqlx::query_scalar("SELECT id FROM study WHERE study_instance = ?")
            .bind(alert.study_instance.as_str())
            .fetch_optional(&mut *tx)
            .await
            .during(during)?;
        let Some(study) = known else {
            return Err(StoreError::NotFound { what: format!("study {}", alert.study_instance) });
        };
        let changed = sqlx::query(
            "UPDATE study SET alerted_at = ?
             WHERE id = ? AND alerted_at IS NULL AND status IN ('receiving', 'queued', 'analysing')",
        )
        .bind(now.as_millis())
        .bind(study)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        if changed == 0 {
            return Ok(None);
        }
        // A clock that was set back must not make an alert older than its slices.
        let latency = (now.as_millis() - alert.first_received_at.as_millis()).max(0);
        count(&mut tx, Measure::Alert, "", "", latency).await?;
        let NewAlert { series_instance, model, notice, slices, probability, .. } = alert;
        let count = slices.len();
        let text = format!(
            "{count} neighbouring slices of series {series_instance} reach {probability:.3}; {latency} ms after the first"
        );
        NewEvent::new(now, "alert", text)
            .detail(json!({
                "series_instance": series_instance, "slices": slices, "probability": probability, "model": model,
                "notice": notice, "latency_ms": latency,
            }))
            .study(study)
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)?;
        Ok(Some(latency))
    }
}

/// What the study's alert rests on, unless there is none or it was withdrawn: null.
pub(super) async fn standing_alert(connection: &mut Connection, study: i64) -> Result<Value, StoreError> {
    let detail: Option<String> = sqlx::query_scalar(
        "SELECT e.detail FROM study s JOIN event e ON e.study_id = s.id AND e.kind = 'alert'
         WHERE s.id = ?1 AND s.alerted_at IS NOT NULL AND NOT EXISTS
             (SELECT 1 FROM event w WHERE w.study_id = ?1 AND w.kind = 'alert-withdrawn' AND w.id > e.id)
         ORDER BY e.id DESC LIMIT 1",
    )
    .bind(study)
    .fetch_optional(connection)
    .await
    .during("looking for an alert")?;
    detail.as_deref().map_or(Ok(Value::Null), from_json)
}

/// Who was alerted must hear that the whole study came to something else, and to what.
pub(super) async fn write_withdrawal(
    connection: &mut Connection,
    study: i64,
    detail: Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let alerted: Option<i64> = sqlx::query_scalar("SELECT alerted_at FROM study WHERE id = ?")
        .bind(study)
        .fetch_one(&mut *connection)
        .await
        .during("recording an outcome")?;
    if alerted.is_none() {
        return Ok(());
    }
    NewEvent::new(now, "alert-withdrawn", "the whole study does not bear the alert out")
        .detail(detail)
        .study(study)
        .write(connection)
        .await
}
