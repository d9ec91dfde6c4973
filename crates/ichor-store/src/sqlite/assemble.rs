//! Statements of assemble.

use serde_json::json;

use super::Sqlite;
use super::events::NewEvent;
use super::failure::During;
use super::values::{uid, unsigned};
use crate::assemble::StudyRef;
use crate::{StoreError, Timestamp};

impl Sqlite {
    pub(crate) async fn close_quiet_studies(&self, now: Timestamp) -> Result<Vec<StudyRef>, StoreError> {
        let during = "closing studies";
        // Asked every few seconds; the write lock is for when there is something to do.
        if self.next_deadline().await?.is_none_or(|deadline| deadline > now) {
            return Ok(Vec::new());
        }
        let mut tx = self.begin(during).await?;
        let closed: Vec<(i64, String, i64, i64)> = sqlx::query_as(
            "UPDATE study SET status = 'queued', version = version + 1, quiet_until = NULL
             WHERE status = 'receiving' AND quiet_until <= ?
             RETURNING id, study_instance, version, instances",
        )
        .bind(now.as_millis())
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        let mut studies = Vec::with_capacity(closed.len());
        for (id, study_instance, version, instances) in closed {
            sqlx::query(
                "INSERT INTO analysis (study_id, version, status, queued_at, not_before) VALUES (?, ?, 'queued', ?, ?)",
            )
            .bind(id)
            .bind(version)
            .bind(now.as_millis())
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .during(during)?;
            NewEvent::new(now, "closed", format!("quiet; closed as version {version} with {instances} instances"))
                .detail(json!({ "version": version, "instances": instances }))
                .study(id)
                .write(&mut tx)
                .await?;
            studies.push(StudyRef { study_instance: uid(&study_instance)?, version: unsigned(version)? });
        }
        tx.commit().await.during(during)?;
        Ok(studies)
    }

    pub(crate) async fn next_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        let deadline: Option<i64> = sqlx::query_scalar("SELECT MIN(quiet_until) FROM study WHERE status = 'receiving'")
            .fetch_one(&self.read)
            .await
            .during("looking for the next deadline")?;
        Ok(deadline.map(Timestamp::from_millis))
    }
}
