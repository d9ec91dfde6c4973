//! How long an analysis took, and its study before it.

use crate::latency::Measure;
use crate::sqlite::Connection;
use crate::sqlite::failure::During;
use crate::sqlite::latency::count;
use crate::{StoreError, Timestamp};

/// Counts the turn-around of the version that an analysis came to an outcome of; in milliseconds. It begins with the last slice that
/// was there when the version was closed, or with the wish of whoever asked for the analysis again.
pub(in crate::sqlite) async fn turnaround(
    connection: &mut Connection,
    analysis: i64,
    outcome: &str,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let since: i64 = sqlx::query_scalar(
        "SELECT CASE
             WHEN EXISTS (SELECT 1 FROM event e WHERE e.study_id = s.id AND e.at = a.queued_at
                 AND e.kind IN ('retried', 'reanalysis-asked')) THEN a.queued_at
             WHEN s.last_instance_at <= a.queued_at THEN s.last_instance_at
             ELSE COALESCE((SELECT MAX(i.received_at) FROM instance i
                 WHERE i.study_id = s.id AND i.own = 0 AND i.received_at <= a.queued_at), a.queued_at) END
         FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.id = ?",
    )
    .bind(analysis)
    .fetch_one(&mut *connection)
    .await
    .during("counting how long an analysis took")?;
    let ms = (now.as_millis() - since).max(0);
    count(connection, Measure::Turnaround, "", outcome, ms).await?;
    Ok(ms)
}

/// Counts the attempt that came to an outcome, and its stages.
pub(super) async fn attempt(
    connection: &mut Connection,
    analysis: i64,
    timings: &[(String, u64)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let started: Option<i64> = sqlx::query_scalar("SELECT started_at FROM analysis WHERE id = ?")
        .bind(analysis)
        .fetch_one(&mut *connection)
        .await
        .during("counting how long an analysis took")?;
    if let Some(started) = started {
        count(connection, Measure::Analysis, "", "", now.as_millis() - started).await?;
    }
    for (stage, ms) in timings {
        count(connection, Measure::Stage, "", stage, i64::try_from(*ms).unwrap_or(i64::MAX)).await?;
    }
    Ok(())
}
