//! Statements of queues, and of what an operator does about them.

use std::path::PathBuf;

use ichor_core::Uid;
use serde_json::{Value, json};

use super::super::destination::{Dead, revive};
use super::super::events::NewEvent;
use super::super::failure::During;
use super::super::values::blob as parse_blob;
use super::super::{Connection, Sqlite};
use crate::blobs::BlobStore;
use crate::search::ReleaseOutcome;
use crate::{StoreError, Timestamp};

/// One thing that waits: its table, and what its event says.
struct Waiting<'a> {
    table: &'static str,
    due: &'static str,
    id: i64,
    kind: &'static str,
    text: String,
    detail: Value,
    study: i64,
    during: &'a str,
}

impl Sqlite {
    pub(crate) async fn retry_delivery(&self, id: i64, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let during = "queueing a delivery again";
        let mut tx = self.begin(during).await?;
        if revive(&mut tx, Dead { number: Some(id), ..Dead::default() }, now).await?.is_empty() {
            let (_, status, ..) = delivery(&mut tx, id).await?;
            let outcome = ReleaseOutcome::Refused { status };
            tx.commit_with(&outcome).await.during(during)?;
            return Ok(outcome);
        }
        tx.commit_with(&ReleaseOutcome::Done).await.during(during)?;
        Ok(ReleaseOutcome::Done)
    }

    pub(crate) async fn release_delivery(&self, id: i64, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let during = "releasing a delivery";
        let mut tx = self.begin(during).await?;
        let (study, status, destination, sop_instance) = delivery(&mut tx, id).await?;
        let waiting = Waiting {
            table: "outbox",
            due: "next_attempt",
            id,
            kind: "delivery-released",
            text: format!("an operator asked for the next attempt at {destination} now"),
            detail: json!({ "destination": destination, "sop_instance": sop_instance }),
            study,
            during,
        };
        let outcome = release(&mut tx, waiting, status, now).await?;
        tx.commit_with(&outcome).await.during(during)?;
        Ok(outcome)
    }

    pub(crate) async fn release_message(&self, id: i64, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let during = "releasing a message";
        let mut tx = self.begin(during).await?;
        let found: Option<(i64, String, String, String)> =
            sqlx::query_as("SELECT study_id, status, channel, subject FROM message WHERE id = ?")
                .bind(id)
                .fetch_optional(&mut *tx)
                .await
                .during(during)?;
        let Some((study, status, channel, subject)) = found else {
            return Err(StoreError::NotFound { what: format!("message {id}") });
        };
        let waiting = Waiting {
            table: "message",
            due: "next_attempt",
            id,
            kind: "message-released",
            text: format!("an operator asked for the next attempt at telling {channel} \"{subject}\" now"),
            detail: json!({ "channel": channel, "subject": subject }),
            study,
            during,
        };
        let outcome = release(&mut tx, waiting, status, now).await?;
        tx.commit_with(&outcome).await.during(during)?;
        Ok(outcome)
    }

    pub(crate) async fn release_analysis(&self, study: &Uid, now: Timestamp) -> Result<ReleaseOutcome, StoreError> {
        let during = "releasing an analysis";
        let mut tx = self.begin(during).await?;
        let found: Option<(i64, String, Option<i64>, i64)> = sqlx::query_as(
            "SELECT s.id, s.status, a.id, s.version FROM study s
             LEFT JOIN analysis a ON a.study_id = s.id AND a.version = s.version WHERE s.study_instance = ?",
        )
        .bind(study.as_str())
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some((study_id, status, analysis, version)) = found else {
            return Err(StoreError::NotFound { what: format!("study {study}") });
        };
        let Some(analysis) = analysis else {
            let outcome = ReleaseOutcome::Refused { status };
            tx.commit_with(&outcome).await.during(during)?;
            return Ok(outcome);
        };
        let waiting = Waiting {
            table: "analysis",
            due: "not_before",
            id: analysis,
            kind: "analysis-released",
            text: format!("an operator asked for the next attempt at version {version} now"),
            detail: json!({ "version": version }),
            study: study_id,
            during,
        };
        let outcome = release(&mut tx, waiting, status, now).await?;
        tx.commit_with(&outcome).await.during(during)?;
        Ok(outcome)
    }

    pub(crate) async fn instance_file(
        &self,
        blobs: &BlobStore,
        study: &Uid,
        sop_instance: &Uid,
    ) -> Result<PathBuf, StoreError> {
        let found: Option<(String, bool)> = sqlx::query_as(
            "SELECT i.blob, i.removed_at IS NOT NULL FROM instance i JOIN study s ON s.id = i.study_id
             WHERE i.sop_instance = ? AND s.study_instance = ?",
        )
        .bind(sop_instance.as_str())
        .bind(study.as_str())
        .fetch_optional(&self.read)
        .await
        .during("looking for an instance")?;
        let what = format!("instance {sop_instance} of {study}");
        let (blob, is_removed) = found.ok_or_else(|| StoreError::NotFound { what: what.clone() })?;
        if is_removed {
            return Err(StoreError::NoLongerKept { what });
        }
        Ok(blobs.path_of(&parse_blob(&blob)?))
    }
}

/// Study, state, destination and object of a delivery.
async fn delivery(connection: &mut Connection, id: i64) -> Result<(i64, String, String, String), StoreError> {
    let found = sqlx::query_as("SELECT study_id, status, destination, sop_instance FROM delivery WHERE id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await
        .during("looking for a delivery")?;
    found.ok_or_else(|| StoreError::NotFound { what: format!("delivery {id}") })
}

/// Makes what is queued for later due now.
async fn release(
    connection: &mut Connection,
    waiting: Waiting<'_>,
    status: String,
    now: Timestamp,
) -> Result<ReleaseOutcome, StoreError> {
    let Waiting { table, due, id, kind, text, detail, study, during } = waiting;
    // Table and column are words of this file.
    let statement = format!("UPDATE {table} SET {due} = ?1 WHERE id = ?2 AND status = 'queued' AND {due} > ?1");
    let changed = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(now.as_millis())
        .bind(id)
        .execute(&mut *connection)
        .await
        .during(during)?
        .rows_affected();
    if changed == 0 {
        let status = if status == "queued" { "due already".to_owned() } else { status };
        return Ok(ReleaseOutcome::Refused { status });
    }
    NewEvent::new(now, kind, text).detail(detail).study(study).write(connection).await?;
    Ok(ReleaseOutcome::Done)
}
