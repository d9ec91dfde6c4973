//! Statements of recovery.

use std::collections::HashSet;
use std::time::Duration;

use ichor_core::StudyStatus;
use serde_json::json;

use super::analyse::{leave_wish, set_status};
use super::association::end_association;
use super::events::NewEvent;
use super::failure::During;
use super::values::{blob as parse_blob, unsigned};
use super::{Connection, Sqlite};
use crate::blobs::{BlobRef, BlobStore};
use crate::receive::AssociationEnd;
use crate::recovery::{MissingBlob, Recovery};
use crate::{StoreError, Timestamp};

/// What cut work off.
const RESTART: &str = "was cut off by a restart";
const UNRECORDED: &str = "came to an end that could not be recorded";

/// Nothing waits longer than this over a restart: a moment farther off was written by a clock that has been set back
/// since, or is a backoff that a restart may well cut short.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A row that points to a file: kind, SOP Instance UID (of maps: Study Instance UID), blob, size.
type Pointer = (String, String, String, i64);

impl Sqlite {
    /// Queues again what was under way, and ends open associations, in one transaction.
    pub(crate) async fn requeue_interrupted(&self, now: Timestamp) -> Result<Recovery, StoreError> {
        let during = "recovering";
        let mut tx = self.begin(during).await?;
        let recovery = Recovery {
            requeued_analyses: requeue_analyses(&mut tx, RESTART, now).await?,
            requeued_deliveries: requeue_deliveries(&mut tx, None, RESTART, now).await?,
            ended_associations: end_associations(&mut tx, now).await?,
            ..Recovery::default()
        };
        shorten_waits(&mut tx, now).await?;
        tx.commit().await.during(during)?;
        Ok(recovery)
    }

    /// Queues again the analyses that are under way.
    pub(crate) async fn requeue_analyses(&self, now: Timestamp) -> Result<u64, StoreError> {
        let during = "queueing analyses again";
        let mut tx = self.begin(during).await?;
        let requeued = requeue_analyses(&mut tx, UNRECORDED, now).await?;
        tx.commit().await.during(during)?;
        Ok(requeued)
    }

    /// Queues again the deliveries to a destination that are under way.
    pub(crate) async fn requeue_deliveries(&self, destination: &str, now: Timestamp) -> Result<u64, StoreError> {
        let during = "queueing deliveries again";
        let mut tx = self.begin(during).await?;
        let requeued = requeue_deliveries(&mut tx, Some(destination), UNRECORDED, now).await?;
        tx.commit().await.during(during)?;
        Ok(requeued)
    }

    /// Blobs of all rows that begin so.
    pub(crate) async fn blobs_with_prefix(&self, prefix: &str) -> Result<HashSet<BlobRef>, StoreError> {
        let pointers = self.pointers_with_prefix(prefix, true).await?;
        pointers.iter().map(|(_, _, blob, _)| parse_blob(blob)).collect()
    }

    /// `removed`: with rows whose file is no longer kept; it may still be there.
    async fn pointers_with_prefix(&self, prefix: &str, removed: bool) -> Result<Vec<Pointer>, StoreError> {
        // Names are hexadecimal digits, so 'g' comes after all of them.
        sqlx::query_as(
            "SELECT 'instance', sop_instance, blob, size FROM instance
             WHERE blob >= ?1 AND blob < ?2 AND (?3 OR removed_at IS NULL)
             UNION ALL
             SELECT 'conflict', i.sop_instance, c.blob, c.size FROM conflict c JOIN instance i ON i.id = c.instance_id
             WHERE c.blob >= ?1 AND c.blob < ?2 AND (?3 OR c.removed_at IS NULL)
             UNION ALL
             SELECT 'object', sop_instance, blob, size FROM object
             WHERE blob >= ?1 AND blob < ?2 AND (?3 OR removed_at IS NULL)
             UNION ALL
             SELECT 'maps of study', s.study_instance, m.blob, m.size FROM attribution_map m JOIN study s ON s.id = m.study_id
             WHERE m.blob >= ?1 AND m.blob < ?2 AND (?3 OR m.removed_at IS NULL)",
        )
        .bind(prefix)
        .bind(format!("{prefix}g"))
        .bind(removed)
        .fetch_all(&self.read)
        .await
        .during("reading the blobs of a shelf")
    }

    /// Rows whose file on this shelf is not there.
    pub(crate) async fn missing_on_shelf(
        &self,
        blobs: &BlobStore,
        prefix: &str,
    ) -> Result<Vec<MissingBlob>, StoreError> {
        missing(blobs, self.pointers_with_prefix(prefix, false).await?).await
    }

    /// Rows that queued work needs and whose file is not there.
    pub(crate) async fn missing_for_pending_work(&self, blobs: &BlobStore) -> Result<Vec<MissingBlob>, StoreError> {
        let pointers: Vec<Pointer> = sqlx::query_as(
            "SELECT 'instance', i.sop_instance, i.blob, i.size FROM instance i JOIN study s ON s.id = i.study_id
             WHERE s.status IN ('receiving', 'queued') AND i.own = 0 AND i.removed_at IS NULL
             UNION ALL
             SELECT DISTINCT CASE WHEN object_id IS NULL THEN 'instance' ELSE 'object' END, sop_instance, blob, size
             FROM delivery WHERE status = 'queued'",
        )
        .fetch_all(&self.read)
        .await
        .during("reading the blobs of queued work")?;
        missing(blobs, pointers).await
    }

    /// Writes an event for each row without a file.
    pub(crate) async fn report_missing(&self, missing: &[MissingBlob], now: Timestamp) -> Result<(), StoreError> {
        if missing.is_empty() {
            return Ok(());
        }
        let during = "reporting lost files";
        let mut tx = self.begin(during).await?;
        for MissingBlob { kind, sop_instance, .. } in missing {
            let study: Option<i64> = sqlx::query_scalar(
                "SELECT study_id FROM instance WHERE sop_instance = ?1
                 UNION ALL SELECT study_id FROM object WHERE sop_instance = ?1
                 UNION ALL SELECT id FROM study WHERE study_instance = ?1 LIMIT 1",
            )
            .bind(sop_instance)
            .fetch_optional(&mut *tx)
            .await
            .during(during)?;
            let event = NewEvent::new(now, "blob-missing", format!("the file of {kind} {sop_instance} is missing"))
                .detail(json!({ "kind": kind, "sop_instance": sop_instance }));
            let event = match study {
                Some(study) => event.study(study),
                None => event,
            };
            event.write(&mut tx).await?;
        }
        tx.commit().await.during(during)
    }
}

async fn missing(blobs: &BlobStore, pointers: Vec<Pointer>) -> Result<Vec<MissingBlob>, StoreError> {
    let mut missing = Vec::new();
    for (kind, sop_instance, blob, size) in pointers {
        let blob = parse_blob(&blob)?;
        if !blobs.is_intact(&blob, unsigned(size)?).await {
            missing.push(MissingBlob { kind, sop_instance, path: blobs.path_of(&blob) });
        }
    }
    Ok(missing)
}

async fn requeue_analyses(connection: &mut Connection, cause: &str, now: Timestamp) -> Result<u64, StoreError> {
    let during = "recovering analyses";
    let running: Vec<(i64, i64, i64, bool)> = sqlx::query_as(
        "SELECT a.id, a.study_id, a.version, s.status = 'analysing' AND s.version = a.version
         FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.status = 'running'",
    )
    .fetch_all(&mut *connection)
    .await
    .during(during)?;
    let mut requeued = 0;
    for (id, study, version, is_current) in running {
        let (status, text) = if is_current {
            set_status(&mut *connection, study, StudyStatus::Queued, None).await?;
            requeued += 1;
            ("queued", format!("the analysis of version {version} {cause} and is queued again"))
        } else {
            ("superseded", format!("the analysis of version {version} {cause}; the next version replaces it"))
        };
        sqlx::query("UPDATE analysis SET status = ?, not_before = ?, worker = NULL WHERE id = ?")
            .bind(status)
            .bind(now.as_millis())
            .bind(id)
            .execute(&mut *connection)
            .await
            .during(during)?;
        if !is_current {
            leave_wish(&mut *connection, id).await?;
        }
        NewEvent::new(now, "analysis-interrupted", text)
            .detail(json!({ "version": version, "queued": is_current }))
            .study(study)
            .write(&mut *connection)
            .await?;
    }
    Ok(requeued)
}

async fn requeue_deliveries(
    connection: &mut Connection,
    destination: Option<&str>,
    cause: &str,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let during = "recovering deliveries";
    let sending: Vec<(i64, String, i64, String, String)> = sqlx::query_as(
        "SELECT id, destination, study_id, kind, sop_instance FROM delivery
         WHERE status = 'sending' AND (?1 IS NULL OR destination = ?1)",
    )
    .bind(destination)
    .fetch_all(&mut *connection)
    .await
    .during(during)?;
    let count = sending.len() as u64;
    for (id, destination, study, kind, sop_instance) in sending {
        sqlx::query("UPDATE outbox SET status = 'queued', next_attempt = ? WHERE id = ?")
            .bind(now.as_millis())
            .bind(id)
            .execute(&mut *connection)
            .await
            .during(during)?;
        let text = format!("sending {kind} to {destination} {cause} and is queued again");
        NewEvent::new(now, "delivery-interrupted", text)
            .detail(json!({ "sop_instance": sop_instance, "destination": destination }))
            .study(study)
            .write(&mut *connection)
            .await?;
    }
    Ok(count)
}

async fn end_associations(connection: &mut Connection, now: Timestamp) -> Result<u64, StoreError> {
    let open: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT a.id, COUNT(i.id), COALESCE(SUM(i.size), 0)
         FROM association a LEFT JOIN instance i ON i.association_id = a.id
         WHERE a.closed_at IS NULL GROUP BY a.id",
    )
    .fetch_all(&mut *connection)
    .await
    .during("recovering associations")?;
    let count = open.len() as u64;
    for (id, instances, bytes) in open {
        let end = AssociationEnd {
            outcome: "ended by a restart".to_owned(),
            instances: unsigned(instances)?,
            bytes: unsigned(bytes)?,
        };
        end_association(connection, id, &end, now).await?;
    }
    Ok(count)
}

/// Brings moments near that lie too far off.
async fn shorten_waits(connection: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    let (now, limit) = (now.as_millis(), now.after(LONGEST_WAIT).as_millis());
    for (statement, moment) in [
        (
            "UPDATE study SET quiet_until = ?1 + quiet_period
             WHERE status = 'receiving' AND quiet_until > ?1 + quiet_period",
            now,
        ),
        ("UPDATE study SET hold_until = ?1 WHERE status = 'receiving' AND hold_until > ?1", limit),
        ("UPDATE lookup SET next_ask = ?1 WHERE next_ask > ?1", limit),
        ("UPDATE analysis SET not_before = ?1 WHERE status = 'queued' AND not_before > ?1", limit),
        ("UPDATE outbox SET next_attempt = ?1 WHERE status = 'queued' AND next_attempt > ?1", limit),
        ("UPDATE message SET next_attempt = ?1 WHERE status = 'queued' AND next_attempt > ?1", limit),
        ("UPDATE task SET next_attempt = ?1 WHERE next_attempt > ?1", limit),
        ("UPDATE refused_context SET until = ?1 WHERE until > ?1", limit),
        ("UPDATE outbox SET next_proof = ?1 WHERE proof IS NOT NULL AND next_proof > ?1", limit),
        ("UPDATE proof_request SET report_by = ?1 WHERE status = 'asked' AND report_by > ?1", limit),
        (
            "UPDATE commitment SET next_attempt = MIN(next_attempt, ?1), wait_until = MIN(wait_until, ?1)
             WHERE status IN ('waiting', 'ready') AND (next_attempt > ?1 OR wait_until > ?1)",
            limit,
        ),
    ] {
        sqlx::query(statement).bind(moment).execute(&mut *connection).await.during("shortening waits")?;
    }
    Ok(())
}
