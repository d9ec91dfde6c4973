//! Statements of assemble.

use ichor_core::{Reason, StudyStatus};
use serde_json::json;

use super::analyse::{set_status, turnaround};
use super::events::NewEvent;
use super::failure::During;
use super::retention::has_gaps;
use super::triage::standing_alert;
use super::values::{uid, unsigned};
use super::{Connection, Sqlite};
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
        let closed: Vec<(i64, String, i64, i64, Option<i64>, bool)> = sqlx::query_as(
            "UPDATE study SET status = 'queued', version = version + 1, quiet_until = NULL
             WHERE status = 'receiving' AND quiet_until <= ?1
                 AND NOT (COALESCE(hold_until, 0) > ?1 AND instances < COALESCE(expected_instances, 0))
             RETURNING id, study_instance, version, instances, expected_instances, last_instance_at + quiet_period > ?1",
        )
        .bind(now.as_millis())
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        let mut studies = Vec::with_capacity(closed.len());
        for (id, study_instance, version, instances, expected, is_early) in closed {
            let expected = expected.filter(|expected| is_early || *expected > instances);
            let (why, of) = match expected {
                Some(expected) if is_early => ("complete", format!(" of {expected} expected")),
                Some(expected) => ("quiet", format!(" of {expected} expected")),
                None => ("quiet", String::new()),
            };
            let unheard = unheard(&mut tx, id).await?;
            NewEvent::new(
                now,
                "closed",
                format!("{why}; closed as version {version} with {instances}{of} instances{unheard}"),
            )
            .detail(json!({ "version": version, "instances": instances, "expected": expected }))
            .study(id)
            .write(&mut tx)
            .await?;
            studies.push(StudyRef { study_instance: uid(&study_instance)?, version: unsigned(version)? });
            if has_gaps(&mut tx, id).await? {
                refuse(&mut tx, id, version, now).await?;
                continue;
            }
            // A version that gave way before it had a result leaves the model that was asked for to this one.
            sqlx::query(
                "INSERT INTO analysis (study_id, version, status, queued_at, not_before, wanted_model)
                 VALUES (?1, ?2, 'queued', ?3, ?3, (SELECT wanted_model FROM analysis
                     WHERE study_id = ?1 AND version = ?2 - 1 AND status IN ('superseded', 'failed')))",
            )
            .bind(id)
            .bind(version)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .during(during)?;
        }
        tx.commit().await.during(during)?;
        Ok(studies)
    }

    pub(crate) async fn next_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        let deadline: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(CASE WHEN COALESCE(hold_until, 0) > quiet_until AND instances < COALESCE(expected_instances, 0)
                 THEN hold_until ELSE quiet_until END)
             FROM study WHERE status = 'receiving'",
        )
        .fetch_one(&self.read)
        .await
        .during("looking for the next deadline")?;
        Ok(deadline.map(Timestamp::from_millis))
    }
}

/// Names the peers whose last look-up failed: nobody knows from them what is missing.
async fn unheard(connection: &mut Connection, study: i64) -> Result<String, StoreError> {
    let peers: Vec<String> = sqlx::query_scalar(
        "SELECT l.peer FROM lookup l JOIN study s ON s.id = l.study_id
         WHERE l.study_id = ? AND l.version = s.version - 1 AND l.failures > 0 AND l.last_words IS NOT NULL
         ORDER BY l.rank",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("closing studies")?;
    Ok(if peers.is_empty() { String::new() } else { format!("; the look-up at {} failed", peers.join(", ")) })
}

/// A late instance came to a study whose received files are no longer kept: half a study is not analysed. The verdict of
/// before stays.
async fn refuse(connection: &mut Connection, study: i64, version: i64, now: Timestamp) -> Result<(), StoreError> {
    let reason = Reason::new("pixels-removed", "received files of this study are no longer kept");
    // A row of the version, so that the study can be analysed when the others have come again.
    let analysis: i64 = sqlx::query_scalar(
        "INSERT INTO analysis (study_id, version, status, queued_at, not_before, finished_at, reason_code, reason_text,
             wanted_model)
         VALUES (?1, ?2, 'done', ?3, ?3, ?3, ?4, ?5, (SELECT wanted_model FROM analysis
             WHERE study_id = ?1 AND version = ?2 - 1 AND status IN ('superseded', 'failed')))
         RETURNING id",
    )
    .bind(study)
    .bind(version)
    .bind(now.as_millis())
    .bind(reason.code.as_str())
    .bind(&reason.text)
    .fetch_one(&mut *connection)
    .await
    .during("closing studies")?;
    let took_ms = turnaround(&mut *connection, analysis, "not-analysed", now).await?;
    set_status(&mut *connection, study, StudyStatus::NotAnalysed, Some(&reason)).await?;
    let has_result: bool = sqlx::query_scalar("SELECT result_version IS NOT NULL FROM study WHERE id = ?")
        .bind(study)
        .fetch_one(&mut *connection)
        .await
        .during("closing studies")?;
    // Channels are not told: whoever heard of the result would take it for cancelled.
    let (kind, stands) =
        if has_result { ("not-analysed-again", "; the result of before stands") } else { ("not-analysed", "") };
    let alert = standing_alert(&mut *connection, study).await?;
    NewEvent::new(now, kind, format!("version {version} not analysed: {reason}{stands}"))
        .detail(
            json!({ "version": version, "outcome": { "reason": reason }, "alert": alert, "turnaround_ms": took_ms }),
        )
        .study(study)
        .write(connection)
        .await
}
