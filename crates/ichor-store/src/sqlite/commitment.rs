//! Statements of storage commitment.

use std::time::Duration;

use ichor_core::Reason;
use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::values::{blob as parse_blob, to_json, uid, unsigned};
use super::{Connection, Sqlite, one_row};
use crate::blobs::BlobStore;
use crate::commitment::{
    CLASS_INSTANCE_CONFLICT, CommitmentClaim, CommitmentRecorded, CommitmentSummary, NO_SUCH_INSTANCE, NewCommitment,
    PROCESSING_FAILURE,
};
use crate::events::peer_text;
use crate::{AssociationId, StoreError, Timestamp};

/// Requests judged before others get their turn.
const JUDGED_AT_ONCE: u32 = 100;

#[derive(sqlx::FromRow)]
struct ReferenceRow {
    position: i64,
    wanted_class: String,
    sop_class: Option<String>,
    blob: Option<String>,
    size: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct ClaimRow {
    id: i64,
    peer_ae: String,
    peer_address: String,
    called_ae: String,
    transaction_uid: String,
    attempts: i64,
    association_id: i64,
}

impl Sqlite {
    pub(crate) async fn record_commitment_request(
        &self,
        request: &NewCommitment,
        now: Timestamp,
    ) -> Result<CommitmentRecorded, StoreError> {
        let during = "recording a commitment request";
        let wanted = sorted(request.references.iter().map(|(class, instance)| (class.as_str(), instance.as_str())));
        let mut tx = self.begin(during).await?;
        let known: Option<i64> =
            sqlx::query_scalar("SELECT id FROM commitment WHERE peer_ae = ? AND transaction_uid = ?")
                .bind(&request.peer_ae)
                .bind(request.transaction.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(during)?;
        let recorded = match known {
            Some(id) => {
                let kept: Vec<(String, String)> =
                    sqlx::query_as("SELECT sop_class, sop_instance FROM commitment_reference WHERE commitment_id = ?")
                        .bind(id)
                        .fetch_all(&mut *tx)
                        .await
                        .during(during)?;
                if sorted(kept.iter().map(|(class, instance)| (class.as_str(), instance.as_str()))) == wanted {
                    CommitmentRecorded::Again
                } else {
                    CommitmentRecorded::Conflict
                }
            }
            None => CommitmentRecorded::New,
        };
        let wait_until = now.after(request.wait).as_millis();
        match (recorded, known) {
            (CommitmentRecorded::Again, Some(id)) => {
                sqlx::query(
                    "UPDATE commitment SET association_id = ?, status = 'waiting', requested_at = ?, next_attempt = ?,
                         wait_until = ?, attempts = 0, finished_at = NULL WHERE id = ?",
                )
                .bind(request.association.get())
                .bind(now.as_millis())
                .bind(now.as_millis())
                .bind(wait_until)
                .bind(id)
                .execute(&mut *tx)
                .await
                .during(during)?;
            }
            (CommitmentRecorded::New, _) => {
                let id = sqlx::query(
                    "INSERT INTO commitment (peer_ae, transaction_uid, association_id, status, requested_at,
                         next_attempt, wait_until) VALUES (?, ?, ?, 'waiting', ?, ?, ?)",
                )
                .bind(&request.peer_ae)
                .bind(request.transaction.as_str())
                .bind(request.association.get())
                .bind(now.as_millis())
                .bind(now.as_millis())
                .bind(wait_until)
                .execute(&mut *tx)
                .await
                .during(during)?
                .last_insert_rowid();
                sqlx::query(
                    "INSERT INTO commitment_reference (commitment_id, position, sop_class, sop_instance)
                     SELECT ?, key, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)",
                )
                .bind(id)
                .bind(to_json(&wanted)?)
                .execute(&mut *tx)
                .await
                .during(during)?;
            }
            _ => {}
        }
        let (kind, words) = match recorded {
            CommitmentRecorded::New => ("commitment-requested", "asks for"),
            CommitmentRecorded::Again => ("commitment-requested", "asks again for"),
            CommitmentRecorded::Conflict => {
                ("commitment-refused", "reuses a Transaction UID to ask for other content:")
            }
        };
        let (peer, count) = (peer_text(&request.peer_ae), wanted.len());
        NewEvent::new(now, kind, format!("{peer} {words} the commitment of {count} instances"))
            .detail(json!({ "transaction": request.transaction.as_str(), "instances": count }))
            .association(Some(request.association.get()))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)?;
        Ok(recorded)
    }

    pub(crate) async fn judge_commitments(
        &self,
        blobs: &BlobStore,
        look_again: Duration,
        now: Timestamp,
    ) -> Result<(u64, Option<Timestamp>), StoreError> {
        let during = "judging commitment requests";
        let due: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT id, wait_until FROM commitment WHERE status = 'waiting' AND next_attempt <= ?
             ORDER BY next_attempt, id LIMIT ?",
        )
        .bind(now.as_millis())
        .bind(JUDGED_AT_ONCE)
        .fetch_all(&self.read)
        .await
        .during(during)?;
        let mut ready = 0;
        for (id, wait_until) in due {
            let failures = self.judge(blobs, id).await?;
            let is_open = !failures.is_empty() && now.as_millis() < wait_until;
            if is_open {
                let next = now.after(look_again).as_millis().min(wait_until);
                sqlx::query("UPDATE commitment SET next_attempt = ? WHERE id = ? AND status = 'waiting'")
                    .bind(next)
                    .bind(id)
                    .execute(self.unwitnessed(during)?)
                    .await
                    .during(during)?;
            } else {
                self.record_judgement(id, &failures, now).await?;
                ready += 1;
            }
        }
        let next: Option<i64> = sqlx::query_scalar("SELECT MIN(next_attempt) FROM commitment WHERE status = 'waiting'")
            .fetch_one(&self.read)
            .await
            .during(during)?;
        Ok((ready, next.map(Timestamp::from_millis)))
    }

    /// Positions of what is not committed, with the reasons.
    async fn judge(&self, blobs: &BlobStore, id: i64) -> Result<Vec<(i64, u16)>, StoreError> {
        let rows: Vec<ReferenceRow> = sqlx::query_as(
            "SELECT r.position, r.sop_class AS wanted_class, i.sop_class, i.blob, i.size
             FROM commitment_reference r
             LEFT JOIN instance i ON i.sop_instance = r.sop_instance AND i.removed_at IS NULL
             WHERE r.commitment_id = ? ORDER BY r.position",
        )
        .bind(id)
        .fetch_all(&self.read)
        .await
        .during("judging a commitment request")?;
        let mut failures = Vec::new();
        for row in rows {
            let failure = match (row.sop_class, row.blob, row.size) {
                (Some(class), Some(blob), Some(size)) => {
                    if class != row.wanted_class {
                        Some(CLASS_INSTANCE_CONFLICT)
                    } else if blobs.is_intact(&parse_blob(&blob)?, unsigned(size)?).await {
                        None
                    } else {
                        Some(PROCESSING_FAILURE)
                    }
                }
                _ => Some(NO_SUCH_INSTANCE),
            };
            failures.extend(failure.map(|failure| (row.position, failure)));
        }
        Ok(failures)
    }

    async fn record_judgement(&self, id: i64, failures: &[(i64, u16)], now: Timestamp) -> Result<(), StoreError> {
        let during = "recording a commitment";
        let mut tx = self.begin(during).await?;
        let changed = sqlx::query(
            "UPDATE commitment SET status = 'ready', judged_at = ?, next_attempt = ? WHERE id = ? AND status = 'waiting'",
        )
        .bind(now.as_millis())
        .bind(now.as_millis())
        .bind(id)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        if changed == 0 {
            return Ok(());
        }
        sqlx::query(
            "UPDATE commitment_reference SET failure =
                 (SELECT json_extract(value, '$[1]') FROM json_each(?1) WHERE json_extract(value, '$[0]') = position)
             WHERE commitment_id = ?2 AND (failure IS NOT NULL OR ?1 != '[]')",
        )
        .bind(to_json(&failures)?)
        .bind(id)
        .execute(&mut *tx)
        .await
        .during(during)?;
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM commitment_reference WHERE commitment_id = ?")
            .bind(id)
            .fetch_one(&mut *tx)
            .await
            .during(during)?;
        let text = format!("{} of {total} instances are not committed", failures.len());
        write_event(&mut tx, id, now, "commitment-judged", text).await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn has_commitment_report(
        &self,
        association: AssociationId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM commitment WHERE association_id = ? AND status = 'ready' AND next_attempt <= ?)",
        )
        .bind(association.get())
        .bind(now.as_millis())
        .fetch_one(&self.read)
        .await
        .during("looking for a commitment report")
    }

    pub(crate) async fn claim_commitment_report(
        &self,
        association: Option<AssociationId>,
        now: Timestamp,
    ) -> Result<Option<CommitmentClaim>, StoreError> {
        let during = "claiming a commitment report";
        let mut tx = self.begin(during).await?;
        let row: Option<ClaimRow> = sqlx::query_as(
            "SELECT c.id, c.peer_ae, a.peer_address, a.called_ae, c.transaction_uid, c.attempts + 1 AS attempts,
                 c.association_id
             FROM commitment c JOIN association a ON a.id = c.association_id
             WHERE c.status = 'ready' AND c.next_attempt <= ?1
               AND ((?2 IS NULL AND a.closed_at IS NOT NULL) OR c.association_id = ?2)
             ORDER BY c.next_attempt, c.id LIMIT 1",
        )
        .bind(now.as_millis())
        .bind(association.map(AssociationId::get))
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(row) = row else { return Ok(None) };
        sqlx::query("UPDATE commitment SET status = 'reporting', attempts = ? WHERE id = ?")
            .bind(row.attempts)
            .bind(row.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        let references: Vec<(String, String, Option<i64>)> = sqlx::query_as(
            "SELECT sop_class, sop_instance, failure FROM commitment_reference WHERE commitment_id = ? ORDER BY position",
        )
        .bind(row.id)
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        let way = if association.is_some() { "its association" } else { "an association of our own" };
        let text = format!("reporting to {} on {way}, attempt {}", peer_text(&row.peer_ae), row.attempts);
        NewEvent::new(now, "commitment-report-started", text)
            .detail(json!({ "transaction": row.transaction_uid, "attempt": row.attempts }))
            .association(Some(row.association_id))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(during)?;
        let reference = |(class, instance, failure): (String, String, Option<i64>)| {
            Ok((uid(&class)?, uid(&instance)?, failure.map(unsigned).transpose()?))
        };
        Ok(Some(CommitmentClaim {
            id: row.id,
            peer_ae: row.peer_ae,
            peer_address: row.peer_address,
            called_ae: row.called_ae,
            transaction: uid(&row.transaction_uid)?,
            references: references.into_iter().map(reference).collect::<Result<_, StoreError>>()?,
            attempts: unsigned(row.attempts)?,
        }))
    }

    pub(crate) async fn commitment_answered(
        &self,
        id: i64,
        peer_words: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let words = peer_text(peer_words);
        self.end_report(id, "answered", now, Some(now), &words, ("commitment-reported", format!("taken: {words}")), now)
            .await
    }

    pub(crate) async fn commitment_failed(
        &self,
        id: i64,
        reason: &Reason,
        next_attempt: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let words = peer_text(&reason.to_string());
        let (status, kind, consequence) = match next_attempt {
            Some(_) => ("ready", "commitment-report-failed", "to be tried again"),
            None => ("dead", "commitment-report-dead", "given up"),
        };
        let finished = next_attempt.is_none().then_some(now);
        let event = (kind, format!("report failed: {words}; {consequence}"));
        self.end_report(id, status, next_attempt.unwrap_or(now), finished, &words, event, now).await
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row")]
    async fn end_report(
        &self,
        id: i64,
        status: &str,
        next: Timestamp,
        finished: Option<Timestamp>,
        words: &str,
        (kind, text): (&'static str, String),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a commitment report";
        let mut tx = self.begin(during).await?;
        let changed = sqlx::query(
            "UPDATE commitment SET status = ?, next_attempt = ?, finished_at = ?, last_words = ?
             WHERE id = ? AND status = 'reporting'",
        )
        .bind(status)
        .bind(next.as_millis())
        .bind(finished.map(Timestamp::as_millis))
        .bind(words)
        .bind(id)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        one_row(changed, || format!("commitment report {id}"))?;
        write_event(&mut tx, id, now, kind, text).await?;
        tx.commit().await.during(during)
    }

    pub(crate) async fn requeue_commitment_reports(
        &self,
        association: Option<AssociationId>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let during = "queueing commitment reports again";
        let mut tx = self.begin(during).await?;
        let under_way: Vec<i64> = sqlx::query_scalar(
            "SELECT c.id FROM commitment c JOIN association a ON a.id = c.association_id
             WHERE c.status = 'reporting' AND ((?1 IS NULL AND a.closed_at IS NOT NULL) OR c.association_id = ?1)",
        )
        .bind(association.map(AssociationId::get))
        .fetch_all(&mut *tx)
        .await
        .during(during)?;
        for id in &under_way {
            sqlx::query("UPDATE commitment SET status = 'ready', next_attempt = ? WHERE id = ?")
                .bind(now.as_millis())
                .bind(id)
                .execute(&mut *tx)
                .await
                .during(during)?;
            let text = "the report was cut off before its answer; to be tried again".to_owned();
            write_event(&mut tx, *id, now, "commitment-report-interrupted", text).await?;
        }
        tx.commit().await.during(during)?;
        Ok(under_way.len() as u64)
    }

    pub(crate) async fn commitments(&self, only_open: bool, limit: u32) -> Result<Vec<CommitmentSummary>, StoreError> {
        type Row = (String, String, String, i64, i64, i64, i64, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT c.peer_ae, c.transaction_uid, c.status, c.requested_at,
                 (SELECT COUNT(*) FROM commitment_reference r WHERE r.commitment_id = c.id),
                 (SELECT COUNT(r.failure) FROM commitment_reference r WHERE r.commitment_id = c.id),
                 c.attempts, c.last_words
             FROM commitment c WHERE NOT ?1 OR c.status != 'answered' ORDER BY c.requested_at DESC, c.id DESC LIMIT ?2",
        )
        .bind(only_open)
        .bind(limit)
        .fetch_all(&self.read)
        .await
        .during("listing commitment requests")?;
        let summary = |(peer_ae, transaction, status, requested_at, references, failed, attempts, last_words): Row| {
            Ok(CommitmentSummary {
                peer_ae,
                transaction: uid(&transaction)?,
                status,
                requested_at: Timestamp::from_millis(requested_at),
                references: unsigned(references)?,
                failed: unsigned(failed)?,
                attempts: unsigned(attempts)?,
                last_words,
            })
        };
        rows.into_iter().map(summary).collect()
    }
}

fn sorted<'a>(references: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    let mut references: Vec<_> = references.collect();
    references.sort_unstable();
    references
}

async fn write_event(
    connection: &mut Connection,
    id: i64,
    now: Timestamp,
    kind: &'static str,
    text: String,
) -> Result<(), StoreError> {
    let (association, transaction): (i64, String) =
        sqlx::query_as("SELECT association_id, transaction_uid FROM commitment WHERE id = ?")
            .bind(id)
            .fetch_one(&mut *connection)
            .await
            .during("recording a commitment report")?;
    NewEvent::new(now, kind, format!("commitment {transaction}: {text}"))
        .detail(json!({ "transaction": transaction }))
        .association(Some(association))
        .write(connection)
        .await
}
