//! Statements of the order of analysis.

use ichor_core::AeTitle;
use serde_json::json;

use super::Sqlite;
use super::events::NewEvent;
use super::failure::During;
use super::values::{blob as parse_blob, uid, unsigned};
use crate::blobs::BlobStore;
use crate::order::{UndecidedAnalysis, Urgency, WaitingAnalysis};
use crate::{StoreError, Timestamp};

/// The order of queued analyses `a` of studies `s`: urgent by rule, alerted, or queued until `?2`, then the oldest.
pub(super) const ORDER: &str =
    "(COALESCE(a.urgent, 0) = 1 OR s.alerted_at IS NOT NULL OR a.queued_at <= ?2) DESC, a.queued_at, a.id";

impl Sqlite {
    pub(crate) async fn undecided_analyses(
        &self,
        blobs: &BlobStore,
        most: u32,
    ) -> Result<Vec<UndecidedAnalysis>, StoreError> {
        let rows: Vec<(i64, String, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT a.id, s.study_instance, s.source_ae, (SELECT blob FROM instance
                 WHERE study_id = s.id AND own = 0 AND removed_at IS NULL ORDER BY id LIMIT 1)
             FROM analysis a JOIN study s ON s.id = a.study_id
             WHERE a.urgent IS NULL AND a.status = 'queued' ORDER BY a.id LIMIT ?",
        )
        .bind(most)
        .fetch_all(&self.read)
        .await
        .during("looking for analyses to put in order")?;
        let undecided = |(id, study, source, blob): (i64, String, Option<String>, Option<String>)| {
            Ok(UndecidedAnalysis {
                id,
                study_instance: uid(&study)?,
                source_ae: source.and_then(|title| AeTitle::parse(&title).ok()),
                first_instance: blob.map(|blob| Ok::<_, StoreError>(blobs.path_of(&parse_blob(&blob)?))).transpose()?,
            })
        };
        rows.into_iter().map(undecided).collect()
    }

    pub(crate) async fn decide_urgency(
        &self,
        analysis: &UndecidedAnalysis,
        urgency: &Urgency,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "putting an analysis in order";
        let mut tx = self.begin(during).await?;
        let study: Option<i64> = sqlx::query_scalar(
            "UPDATE analysis SET urgent = ?, urgent_by = ? WHERE id = ? AND urgent IS NULL RETURNING study_id",
        )
        .bind(urgency.by.is_some())
        .bind(&urgency.by)
        .bind(analysis.id)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        if let (Some(study), Some(words)) = (study, &urgency.words) {
            NewEvent::new(now, "analysis-order", words.clone())
                .detail(json!({ "urgent": urgency.by.is_some(), "rule": urgency.by }))
                .study(study)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn analysis_queue(
        &self,
        overdue: Timestamp,
        most: u32,
        now: Timestamp,
    ) -> Result<Vec<WaitingAnalysis>, StoreError> {
        type Row = (String, i64, bool, i64, i64, i64, Option<String>, Option<i64>);
        // Under way first, then what is due, then what has to wait for its moment.
        let statement = format!(
            "SELECT s.study_instance, a.version, a.status = 'running', a.attempts, a.queued_at, a.not_before, a.urgent_by,
                 s.alerted_at
             FROM analysis a JOIN study s ON s.id = a.study_id
             WHERE a.status = 'running' OR (a.status = 'queued' AND s.status = 'queued' AND s.version = a.version)
             ORDER BY a.status = 'running' DESC, a.not_before <= ?1 DESC, {ORDER} LIMIT ?3"
        );
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(now.as_millis())
            .bind(overdue.as_millis())
            .bind(most)
            .fetch_all(&self.read)
            .await
            .during("listing analyses")?;
        let waiting = |(study, version, is_running, attempts, queued_at, not_before, urgent_by, alerted_at): Row| {
            Ok(WaitingAnalysis {
                study_instance: uid(&study)?,
                version: unsigned(version)?,
                is_running,
                attempts: unsigned(attempts)?,
                queued_at: Timestamp::from_millis(queued_at),
                not_before: Timestamp::from_millis(not_before),
                urgent_by,
                alerted_at: alerted_at.map(Timestamp::from_millis),
            })
        };
        rows.into_iter().map(waiting).collect()
    }
}
