//! Statements of the shadow: its queue.

mod report;

use std::collections::HashSet;
use std::time::Duration;

use ichor_core::{ModelId, Reason, ShadowStatus};
use sqlx::QueryBuilder;

use super::analyse::{ClaimRow, claim as analysis_claim, instances};
use super::failure::During;
use super::values::{blob as parse_blob, to_json, unsigned, word};
use super::{Connection, Dialect, Sqlite, one_row};
use crate::blobs::BlobStore;
use crate::shadow::{ShadowClaim, ShadowDepth, ShadowOutcome};
use crate::{StoreError, Timestamp};

/// Events looked at in one transaction.
const EVENTS_AT_ONCE: i64 = 500;

#[derive(sqlx::FromRow)]
struct RunRow {
    id: i64,
    analysis_id: i64,
    model: String,
    attempts: i64,
}

impl Sqlite {
    pub(crate) async fn queue_shadow_runs(
        &self,
        models: &[ModelId],
        most: u32,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "queueing for the shadow";
        let cursor: Option<i64> =
            sqlx::query_scalar("SELECT event_id FROM shadow_cursor").fetch_optional(&self.read).await.during(during)?;
        let newest: i64 =
            sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM event").fetch_one(&self.read).await.during(during)?;
        if cursor.is_some_and(|cursor| cursor >= newest) {
            return Ok(0);
        }
        let mut tx = self.begin(during).await?;
        let after = cursor.unwrap_or(newest);
        let upto = newest.min(after.saturating_add(EVENTS_AT_ONCE));
        let mut queued = 0;
        for model in models {
            queued += sqlx::query(
                "INSERT INTO shadow_run (analysis_id, model, status, queued_at, not_before, active_model, active_finding)
                 SELECT a.id, ?1, 'queued', ?2, ?2, a.model, a.finding
                 FROM event e JOIN analysis a ON a.study_id = e.study_id AND a.version = json_extract(e.detail, '$.version')
                 WHERE e.id > ?3 AND e.id <= ?4 AND e.kind = 'analysed'
                     AND a.status = 'done' AND a.finding IS NOT NULL AND a.model IS NOT NULL AND a.model <> ?1
                 ON CONFLICT DO UPDATE SET status = 'queued', attempts = 0, queued_at = excluded.queued_at,
                     not_before = excluded.not_before, active_model = excluded.active_model,
                     active_finding = excluded.active_finding, finding = NULL, reason_code = NULL, reason_text = NULL,
                     dice = NULL",
            )
            .bind(model.as_str())
            .bind(now.as_millis())
            .bind(after)
            .bind(upto)
            .execute(&mut *tx)
            .await
            .during(during)?
            .rows_affected();
            drop_oldest(&mut tx, model, most, now).await?;
        }
        sqlx::query(
            "INSERT INTO shadow_cursor (only_row, event_id) VALUES (1, ?1) ON CONFLICT DO UPDATE SET event_id = ?1",
        )
        .bind(upto)
        .execute(&mut *tx)
        .await
        .during(during)?;
        tx.commit().await.during(during)?;
        Ok(queued)
    }

    pub(crate) async fn requeue_shadow_runs(&self, now: Timestamp) -> Result<u64, StoreError> {
        let requeued = sqlx::query("UPDATE shadow_run SET status = 'queued', not_before = ? WHERE status = 'running'")
            .bind(now.as_millis())
            .execute(self.unwitnessed("queueing for the shadow again")?)
            .await
            .during("queueing for the shadow again")?;
        Ok(requeued.rows_affected())
    }

    pub(crate) async fn has_real_work(&self, quiet: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let since = now.as_millis().saturating_sub(i64::try_from(quiet.as_millis()).unwrap_or(i64::MAX));
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM analysis WHERE status = 'running')
                 OR EXISTS (SELECT 1 FROM analysis WHERE status = 'queued' AND not_before <= ?1)
                 OR EXISTS (SELECT 1 FROM study WHERE status = 'receiving' AND last_instance_at > ?2)",
        )
        .bind(now.as_millis())
        .bind(since)
        .fetch_one(&self.read)
        .await
        .during("looking for real work")
    }

    pub(crate) async fn claim_shadow_run(
        &self,
        blobs: &BlobStore,
        models: &[ModelId],
        now: Timestamp,
    ) -> Result<Option<ShadowClaim>, StoreError> {
        let during = "claiming a run of the shadow";
        if models.is_empty() {
            return Ok(None);
        }
        let Some(found) = self.next_run(models, now).await? else { return Ok(None) };
        let mut tx = self.begin(during).await?;
        let run: Option<RunRow> = sqlx::query_as(
            "UPDATE shadow_run SET status = 'running', attempts = attempts + 1, started_at = ?
             WHERE id = ? AND status = 'queued' RETURNING id, analysis_id, model, attempts",
        )
        .bind(now.as_millis())
        .bind(found)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(run) = run else { return Ok(None) };
        let row: ClaimRow = sqlx::query_as(
            "SELECT a.id, a.study_id, a.version, a.attempts, s.study_instance, s.patient_id, s.patient_name,
                 COALESCE(s.accession_number, a.looked_up_accession) AS accession_number, a.looked_up_accession, s.study_date,
                 s.description, s.source_ae, s.last_instance_at, a.wanted_model
             FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.id = ?",
        )
        .bind(run.analysis_id)
        .fetch_one(&mut *tx)
        .await
        .during(during)?;
        // Late slices belong to the next version.
        let late: Vec<i64> = sqlx::query_scalar(
            "SELECT i.id FROM instance i JOIN analysis a ON a.study_id = i.study_id
             WHERE a.id = ? AND i.received_at > a.started_at",
        )
        .bind(run.analysis_id)
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        let segmentation: Option<String> = sqlx::query_scalar(
            "SELECT blob FROM object WHERE analysis_id = ? AND kind IN ('seg', 'seg-labelmap', 'seg-fractional')
             ORDER BY kind LIMIT 1",
        )
        .bind(run.analysis_id)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let late: HashSet<i64> = late.into_iter().collect();
        let mut instances = instances(&mut tx, blobs, row.study()).await?;
        instances.retain(|instance| !late.contains(&instance.id));
        tx.commit().await.during(during)?;
        Ok(Some(ShadowClaim {
            id: run.id,
            model: ModelId::parse(&run.model).map_err(|error| StoreError::corrupt(error.to_string()))?,
            attempts: unsigned(run.attempts)?,
            analysis: analysis_claim(row, instances)?,
            segmentation: segmentation.map(|blob| parse_blob(&blob).map(|blob| blobs.path_of(&blob))).transpose()?,
        }))
    }

    async fn next_run(&self, models: &[ModelId], now: Timestamp) -> Result<Option<i64>, StoreError> {
        let mut look =
            QueryBuilder::<Dialect>::new("SELECT id FROM shadow_run WHERE status = 'queued' AND not_before <= ");
        look.push_bind(now.as_millis()).push(" AND model IN (");
        let mut names = look.separated(", ");
        for model in models {
            names.push_bind(model.as_str().to_owned());
        }
        look.push(") ORDER BY queued_at, id LIMIT 1");
        look.build_query_scalar().fetch_optional(&self.read).await.during("claiming a run of the shadow")
    }

    pub(crate) async fn complete_shadow_run(
        &self,
        claim: &ShadowClaim,
        outcome: &ShadowOutcome,
        took: Duration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (finding, dice, reason) = match outcome {
            ShadowOutcome::Judged { finding, dice } => (Some(to_json(finding)?), *dice, None),
            ShadowOutcome::NotAnalysed(reason) => (None, None, Some(reason)),
        };
        let changed = sqlx::query(
            "UPDATE shadow_run SET status = 'done', finished_at = ?, finding = ?, dice = ?, reason_code = ?,
                 reason_text = ?, milliseconds = ?
             WHERE id = ? AND status = 'running' AND attempts = ?",
        )
        .bind(now.as_millis())
        .bind(finding)
        .bind(dice)
        .bind(reason.map(|reason| reason.code.as_str()))
        .bind(reason.map(|reason| reason.text.as_str()))
        .bind(i64::try_from(took.as_millis()).unwrap_or(i64::MAX))
        .bind(claim.id)
        .bind(claim.attempts)
        .execute(self.unwitnessed("recording what the shadow says")?)
        .await
        .during("recording what the shadow says")?;
        one_row(changed.rows_affected(), || format!("run {} of the shadow", claim.id))
    }

    pub(crate) async fn fail_shadow_run(
        &self,
        claim: &ShadowClaim,
        reason: &Reason,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let status = if retry_at.is_some() { ShadowStatus::Queued } else { ShadowStatus::Failed };
        let changed = sqlx::query(
            "UPDATE shadow_run SET status = ?, not_before = ?, finished_at = ?, reason_code = ?, reason_text = ?
             WHERE id = ? AND status = 'running' AND attempts = ?",
        )
        .bind(status.as_str())
        .bind(retry_at.unwrap_or(now).as_millis())
        .bind(now.as_millis())
        .bind(reason.code.as_str())
        .bind(&reason.text)
        .bind(claim.id)
        .bind(claim.attempts)
        .execute(self.unwitnessed("recording a failed run of the shadow")?)
        .await
        .during("recording a failed run of the shadow")?;
        one_row(changed.rows_affected(), || format!("run {} of the shadow", claim.id))
    }

    pub(crate) async fn shadow_depths(&self) -> Result<Vec<ShadowDepth>, StoreError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT model, status, COUNT(*) FROM shadow_run GROUP BY model, status")
                .fetch_all(&self.read)
                .await
                .during("counting runs of the shadow")?;
        let depth = |(model, status, count): (String, String, i64)| {
            Ok(ShadowDepth {
                model: ModelId::parse(&model).map_err(|error| StoreError::corrupt(error.to_string()))?,
                status: word(&status)?,
                count: unsigned(count)?,
            })
        };
        rows.into_iter().map(depth).collect()
    }
}

/// Keeps a model's queue at its length.
async fn drop_oldest(
    connection: &mut Connection,
    model: &ModelId,
    most: u32,
    now: Timestamp,
) -> Result<(), StoreError> {
    let dropped = sqlx::query(
        "UPDATE shadow_run SET status = 'dropped', finished_at = ?3 WHERE id IN (
             SELECT id FROM shadow_run WHERE status = 'queued' AND model = ?1
             ORDER BY queued_at DESC, id DESC LIMIT -1 OFFSET ?2)",
    )
    .bind(model.as_str())
    .bind(most)
    .bind(now.as_millis())
    .execute(connection)
    .await
    .during("queueing for the shadow")?
    .rows_affected();
    if dropped > 0 {
        tracing::warn!(%model, dropped, "the shadow's queue is full: its oldest studies are dropped");
    }
    Ok(())
}
