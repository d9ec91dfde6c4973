//! Statements of retention.

use ichor_core::Uid;
use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::message::SUBJECT;
use super::values::{blob as parse_blob, signed, to_json, uid, unsigned};
use super::{Connection, Sqlite};
use crate::retention::{Candidate, Doomed, FileKind, Follower, Protection, Removal, RetentionFigures, Settled, Sweep};
use crate::{StoreError, Timestamp};

/// What protects a study, a column each, in the order of [`FLAGS`]. `?1` holds the followers.
const PROTECTIONS: [&str; FLAGS.len()] = [
    "s.held_at IS NOT NULL",
    "s.status IN ('receiving', 'queued', 'analysing')
        OR EXISTS (SELECT 1 FROM analysis a WHERE a.study_id = s.id AND a.status IN ('queued', 'running'))
        OR EXISTS (SELECT 1 FROM workitem w WHERE w.study_id = s.id AND w.state = 'IN PROGRESS')",
    "s.status = 'failed'",
    "s.version > s.forwarded_version",
    "EXISTS (SELECT 1 FROM outbox d WHERE d.study_id = s.id AND d.status IN ('queued', 'sending'))",
    "EXISTS (SELECT 1 FROM outbox d WHERE d.study_id = s.id AND d.status = 'dead')",
    "EXISTS (SELECT 1 FROM outbox d WHERE d.study_id = s.id AND (d.proof IS NOT NULL OR d.missing IS NOT NULL))",
    "EXISTS (SELECT 1 FROM message m WHERE m.study_id = s.id AND m.status IN ('queued', 'sending'))
        OR EXISTS (SELECT 1 FROM json_each(?1) w JOIN channel c ON c.name = json_extract(w.value, '$.channel')
            JOIN event ON event.study_id = s.id AND event.id > c.event_id
            WHERE (@SUBJECT) IN (SELECT value FROM json_each(w.value, '$.subjects')))",
    "EXISTS (SELECT 1 FROM given_up_message g WHERE g.study_id = s.id)",
    "s.id IN (SELECT i.study_id FROM commitment c JOIN commitment_reference r ON r.commitment_id = c.id
        JOIN instance i ON i.sop_instance = r.sop_instance WHERE c.status IN ('waiting', 'ready', 'reporting'))",
];

/// The protections in the order of the columns.
const FLAGS: [Protection; 10] = [
    Protection::OnHold,
    Protection::UnderWay,
    Protection::Failed,
    Protection::NotForwarded,
    Protection::Undelivered,
    Protection::DeliveryDead,
    Protection::Unproven,
    Protection::Untold,
    Protection::MessageDead,
    Protection::CommitmentPending,
];

/// What the age of a study counts from.
const SETTLED_AT: &str = "MAX(s.last_instance_at, COALESCE(s.analysed_at, 0), COALESCE(s.restored_at, 0))";

#[derive(sqlx::FromRow)]
struct CandidateRow {
    id: i64,
    study_instance: String,
    received_at: i64,
    settled_at: i64,
    status: String,
    positive: Option<bool>,
    files: i64,
    bytes: i64,
    /// The protections, a digit each.
    flags: String,
}

/// Columns and tables of a kind of file.
struct Shape {
    swept: &'static str,
    index: &'static str,
    removed: &'static str,
    /// Tables with the condition that leads from them to the study `?1`.
    tables: &'static [(&'static str, &'static str)],
}

const CONFLICTS_OF_STUDY: &str = "instance_id IN (SELECT id FROM instance WHERE study_id = ?1)";

const fn shape(kind: FileKind) -> Shape {
    match kind {
        FileKind::Received => Shape {
            swept: "received_swept",
            index: "study_received_kept",
            removed: "pixels_removed_at",
            tables: &[("instance", "study_id = ?1"), ("conflict", CONFLICTS_OF_STUDY)],
        },
        FileKind::Results => Shape {
            swept: "results_swept",
            index: "study_results_kept",
            removed: "results_removed_at",
            tables: &[("object", "study_id = ?1"), ("attribution_map", "study_id = ?1")],
        },
    }
}

/// The columns of a candidate, with its protections as a row of digits.
fn candidate_columns(kind: FileKind) -> String {
    let flags = PROTECTIONS.map(|flag| format!("({})", flag.replace("@SUBJECT", SUBJECT)));
    let of = |what: &str| {
        let part = |(table, condition): &(&str, &str)| {
            let condition = condition.replace("?1", "s.id");
            format!("(SELECT {what} FROM {table} WHERE {condition} AND removed_at IS NULL)")
        };
        shape(kind).tables.iter().map(part).collect::<Vec<_>>().join(" + ")
    };
    format!(
        "s.id, s.study_instance, s.received_at, {SETTLED_AT} AS settled_at, s.status, s.positive,
         {} AS files, {} AS bytes, {} AS flags",
        of("COUNT(*)"),
        of("COALESCE(SUM(size), 0)"),
        flags.join(" || ")
    )
}

impl CandidateRow {
    fn candidate(self) -> Result<Candidate, StoreError> {
        let settled = match (self.status.as_str(), self.positive) {
            ("not-analysed", None) => Some(Settled::NotAnalysed),
            ("analysed" | "not-analysed", Some(true)) => Some(Settled::Positive),
            ("analysed" | "not-analysed", Some(false)) => Some(Settled::Negative),
            _ => None,
        };
        let protections = FLAGS.iter().zip(self.flags.bytes()).filter(|(_, flag)| *flag == b'1');
        Ok(Candidate {
            study_instance: uid(&self.study_instance)?,
            id: self.id,
            received_at: Timestamp::from_millis(self.received_at),
            settled_at: Timestamp::from_millis(self.settled_at),
            settled,
            files: unsigned(self.files)?,
            bytes: unsigned(self.bytes)?,
            protections: protections.map(|(protection, _)| *protection).collect(),
        })
    }
}

impl Sqlite {
    pub(crate) async fn retention_candidates(
        &self,
        kind: FileKind,
        received_until: Timestamp,
        followers: &[Follower],
        after: Option<(Timestamp, i64)>,
        most: u32,
    ) -> Result<Vec<Candidate>, StoreError> {
        let Shape { swept, index, .. } = shape(kind);
        let (after_at, after_id) = after.map_or((i64::MIN, i64::MIN), |(at, id)| (at.as_millis(), id));
        let statement = format!(
            "SELECT {} FROM study s INDEXED BY {index}
             WHERE s.{swept} = 0 AND s.received_at <= ?2 AND (s.received_at, s.id) > (?3, ?4)
             ORDER BY s.received_at, s.id LIMIT ?5",
            candidate_columns(kind)
        );
        // Words of this file only; every value is bound.
        let rows: Vec<CandidateRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(to_json(&followers)?)
            .bind(received_until.as_millis())
            .bind(after_at)
            .bind(after_id)
            .bind(most)
            .fetch_all(&self.read)
            .await
            .during("looking for files that may go")?;
        rows.into_iter().map(CandidateRow::candidate).collect()
    }

    pub(crate) async fn remove_files(
        &self,
        candidate: &Candidate,
        kind: FileKind,
        why: &str,
        followers: &[Follower],
        now: Timestamp,
    ) -> Result<Removal, StoreError> {
        let during = "giving up files";
        let mut tx = self.begin(during).await?;
        let statement = format!("SELECT {} FROM study s WHERE s.id = ?2", candidate_columns(kind));
        let row: CandidateRow = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(to_json(&followers)?)
            .bind(candidate.id)
            .fetch_one(&mut *tx)
            .await
            .during(during)?;
        let present = row.candidate()?;
        if !present.protections.is_empty() {
            return Ok(Removal::Kept(present.protections));
        }
        if present.settled_at != candidate.settled_at || present.settled != candidate.settled {
            return Ok(Removal::Kept(vec![Protection::UnderWay]));
        }
        let (files, bytes) = doom(&mut tx, candidate.id, kind, now).await?;
        let Shape { swept, removed, .. } = shape(kind);
        let marked = if files == 0 { removed } else { "?2" };
        let statement = format!("UPDATE study SET {swept} = 1, {removed} = {marked} WHERE id = ?1");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(candidate.id)
            .bind(now.as_millis())
            .execute(&mut *tx)
            .await
            .during(during)?;
        if files > 0 {
            let event = match kind {
                FileKind::Received => "pixels-removed",
                FileKind::Results => "results-removed",
            };
            NewEvent::new(now, event, format!("{kind} are no longer kept: {files} files go, {why}"))
                .detail(json!({ "files": files, "bytes": bytes, "why": why }))
                .study(candidate.id)
                .write(&mut tx)
                .await?;
        }
        tx.commit().await.during(during)?;
        Ok(Removal::Removed { files, bytes })
    }

    pub(crate) async fn doomed_blobs(&self, most: u32) -> Result<Vec<Doomed>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT blob, size FROM doomed_blob ORDER BY blob LIMIT ?")
            .bind(most)
            .fetch_all(&self.read)
            .await
            .during("looking for files to remove")?;
        rows.into_iter().map(|(blob, size)| Ok((parse_blob(&blob)?, unsigned(size)?))).collect()
    }

    pub(crate) async fn forget_doomed(&self, removed: &[Doomed]) -> Result<(), StoreError> {
        let during = "forgetting removed files";
        let names: Vec<&str> = removed.iter().map(|(blob, _)| blob.as_str()).collect();
        let bytes: u64 = removed.iter().map(|(_, size)| size).sum();
        let mut tx = self.begin(during).await?;
        sqlx::query("DELETE FROM doomed_blob WHERE blob IN (SELECT value FROM json_each(?))")
            .bind(to_json(&names)?)
            .execute(&mut *tx)
            .await
            .during(during)?;
        sqlx::query("UPDATE retention SET files = files + ?, bytes = bytes + ?")
            .bind(signed(removed.len() as u64))
            .bind(signed(bytes))
            .execute(&mut *tx)
            .await
            .during(during)?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn remove_events(&self, before: Timestamp, most: u32) -> Result<u64, StoreError> {
        // The newest event stays, so that no number is given twice.
        let deleted = sqlx::query(
            // Not before the audit repository has heard of it.
            "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE study_id IS NULL AND at < ?1
                 AND id < (SELECT MAX(id) FROM event)
                 AND id <= COALESCE((SELECT event_id FROM audit_feed WHERE is_fed = 1), id) ORDER BY at LIMIT ?2)",
        )
        .bind(before.as_millis())
        .bind(most)
        .execute(self.unwitnessed("deleting old events")?)
        .await
        .during("deleting old events")?;
        Ok(deleted.rows_affected())
    }

    pub(crate) async fn record_sweep(&self, sweep: Sweep, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE retention SET studies = studies + ?, swept_at = ?, spared = ?, short_bytes = ?")
            .bind(signed(sweep.studies))
            .bind(now.as_millis())
            .bind(signed(sweep.spared))
            .bind(signed(sweep.short_bytes))
            .execute(self.unwitnessed("recording a sweep")?)
            .await
            .during("recording a sweep")?;
        Ok(())
    }

    pub(crate) async fn retention_figures(&self) -> Result<RetentionFigures, StoreError> {
        type Row = (i64, i64, i64, Option<i64>, i64, i64, i64);
        let (studies, files, bytes, swept_at, spared, short_bytes, doomed): Row = sqlx::query_as(
            "SELECT studies, files, bytes, swept_at, spared, short_bytes, (SELECT COUNT(*) FROM doomed_blob) FROM retention",
        )
        .fetch_one(&self.read)
        .await
        .during("counting removed files")?;
        Ok(RetentionFigures {
            studies: unsigned(studies)?,
            files: unsigned(files)?,
            bytes: unsigned(bytes)?,
            swept_at: swept_at.map(Timestamp::from_millis),
            spared: unsigned(spared)?,
            short_bytes: unsigned(short_bytes)?,
            doomed: unsigned(doomed)?,
        })
    }

    /// Puts on hold for a reason, or releases.
    pub(crate) async fn hold(&self, study: &Uid, reason: Option<&str>, now: Timestamp) -> Result<bool, StoreError> {
        let during = "putting a study on hold";
        let mut tx = self.begin(during).await?;
        let found: Option<(i64, bool)> =
            sqlx::query_as("SELECT id, held_at IS NOT NULL FROM study WHERE study_instance = ?")
                .bind(study.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(during)?;
        let Some((id, is_held)) = found else {
            return Err(StoreError::NotFound { what: format!("study {study}") });
        };
        if is_held == reason.is_some() {
            return Ok(false);
        }
        sqlx::query("UPDATE study SET held_at = ?, hold_reason = ? WHERE id = ?")
            .bind(reason.map(|_| now.as_millis()))
            .bind(reason)
            .bind(id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        let (kind, text) = match reason {
            Some(reason) => ("hold-set", format!("on hold, nothing of it goes: {reason}")),
            None => ("hold-released", "the hold is released".to_owned()),
        };
        NewEvent::new(now, kind, text).study(id).write(&mut tx).await?;
        tx.commit().await.during(during)?;
        Ok(true)
    }
}

/// Marks the files of a study that are kept, and dooms them; how many and how large.
async fn doom(
    connection: &mut Connection,
    study: i64,
    kind: FileKind,
    now: Timestamp,
) -> Result<(u64, u64), StoreError> {
    let during = "giving up files";
    let (mut files, mut bytes) = (0, 0u64);
    for (table, condition) in shape(kind).tables {
        let kept = format!("FROM {table} WHERE {condition} AND removed_at IS NULL");
        let (count, size): (i64, i64) =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("SELECT COUNT(*), COALESCE(SUM(size), 0) {kept}")))
                .bind(study)
                .fetch_one(&mut *connection)
                .await
                .during(during)?;
        for statement in [
            format!("INSERT INTO doomed_blob (blob, size) SELECT blob, size {kept}"),
            format!("UPDATE {table} SET removed_at = ?2 WHERE {condition} AND removed_at IS NULL"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(study)
                .bind(now.as_millis())
                .execute(&mut *connection)
                .await
                .during(during)?;
        }
        files += unsigned::<u64>(count)?;
        bytes += unsigned::<u64>(size)?;
    }
    Ok((files, bytes))
}

/// The sender sent again what is here: it may rely on that from now on, so that the study's age counts from now.
pub(super) async fn sent_again(connection: &mut Connection, study: i64, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE study SET restored_at = ?2 WHERE id = ?1")
        .bind(study)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .during("recording that files came again")?;
    Ok(())
}

/// Something was received into a study: there is something again that may go. Where a file that was gone came again, the
/// study's files are whole if it was the last.
pub(super) async fn came_again(connection: &mut Connection, study: i64, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE study SET received_swept = 0, restored_at = ?2, pixels_removed_at = CASE WHEN EXISTS
             (SELECT 1 FROM instance WHERE study_id = ?1 AND own = 0 AND removed_at IS NOT NULL)
             THEN pixels_removed_at END
         WHERE id = ?1",
    )
    .bind(study)
    .bind(now.as_millis())
    .execute(connection)
    .await
    .during("recording that files came again")?;
    Ok(())
}

/// A result was made, perhaps again.
pub(super) async fn made_again(connection: &mut Connection, study: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE study SET results_swept = 0, results_removed_at = CASE WHEN EXISTS
             (SELECT 1 FROM object WHERE study_id = ?1 AND removed_at IS NOT NULL) THEN results_removed_at END
         WHERE id = ?1",
    )
    .bind(study)
    .execute(connection)
    .await
    .during("recording that results are there")?;
    Ok(())
}

/// Whether received files of a study are gone, so that it cannot be analysed.
pub(super) async fn has_gaps(connection: &mut Connection, study: i64) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT pixels_removed_at IS NOT NULL AND EXISTS
             (SELECT 1 FROM instance WHERE study_id = ?1 AND own = 0 AND removed_at IS NOT NULL)
         FROM study WHERE id = ?1",
    )
    .bind(study)
    .fetch_one(connection)
    .await
    .during("looking for removed files")
}
