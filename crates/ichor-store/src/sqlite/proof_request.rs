//! Statements of storage commitment as user: requests, and what is reported on them.

use std::collections::{HashMap, HashSet};

use ichor_core::{Reason, Uid};
use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::latency::Way;
use super::proof::{UnprovenRow, came_to_nothing, numbers, tell};
use super::values::uid;
use super::{Connection, Sqlite};
use crate::events::peer_text;
use crate::latency::Measure;
use crate::proof::{Consequence, ProofReport, ProofReported, ProofRequest};
use crate::{StoreError, Timestamp};

const DURING: &str = "recording a commitment request of our own";

impl Sqlite {
    pub(crate) async fn request_commitment(
        &self,
        destination: &str,
        transaction: &Uid,
        most: u32,
        report_by: Timestamp,
        now: Timestamp,
    ) -> Result<Option<ProofRequest>, StoreError> {
        // Most looks find nothing, and need no lock.
        let due: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(next_proof) FROM outbox
             WHERE destination = ? AND proof IN ('commitment', 'commitment+read-back') AND request_id IS NULL
               AND missing IS NULL AND status = 'accepted'",
        )
        .bind(destination)
        .fetch_one(&self.read)
        .await
        .during(DURING)?;
        if due.is_none_or(|due| due > now.as_millis()) {
            return Ok(None);
        }
        let mut tx = self.begin(DURING).await?;
        let rows: Vec<UnprovenRow> = sqlx::query_as(
            "WITH due AS (
                 SELECT id, proof_attempts, next_proof FROM outbox
                 WHERE destination = ?1 AND proof IN ('commitment', 'commitment+read-back') AND request_id IS NULL
                   AND missing IS NULL AND status = 'accepted' AND next_proof <= ?2)
             SELECT d.id, s.study_instance, d.series_instance, d.sop_class, d.sop_instance, d.proof_attempts FROM delivery d JOIN study s ON s.id = d.study_id
             WHERE d.id IN (SELECT id FROM due)
               AND d.proof_attempts = (SELECT proof_attempts FROM due ORDER BY next_proof, id LIMIT 1)
             ORDER BY d.next_proof, d.id LIMIT ?3",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(most)
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        let items = rows.into_iter().map(UnprovenRow::unproven).collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            return Ok(None);
        }
        let id = sqlx::query(
            "INSERT INTO proof_request (destination, transaction_uid, status, asked_at, report_by)
             VALUES (?, ?, 'asked', ?, ?)",
        )
        .bind(destination)
        .bind(transaction.as_str())
        .bind(now.as_millis())
        .bind(report_by.as_millis())
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .last_insert_rowid();
        let deliveries: Vec<i64> = items.iter().map(|item| item.delivery).collect();
        for statement in [
            "INSERT INTO proof_request_item (request_id, delivery_id) SELECT ?1, value FROM json_each(?2)",
            "UPDATE outbox SET request_id = ?1 WHERE id IN (SELECT value FROM json_each(?2))",
        ] {
            sqlx::query(statement).bind(id).bind(numbers(&deliveries)?).execute(&mut *tx).await.during(DURING)?;
        }
        for delivery in deliveries {
            let text = |kind: &str, to: &str| format!("{to} is asked to commit itself to {kind}");
            tell(&mut tx, delivery, "commitment-asked", text, now).await?;
        }
        tx.commit().await.during(DURING)?;
        Ok(Some(ProofRequest { id, transaction: transaction.clone(), items }))
    }

    pub(crate) async fn overdue_commitments(
        &self,
        destination: &str,
        now: Timestamp,
    ) -> Result<Vec<ProofRequest>, StoreError> {
        let due: Vec<(i64, String)> = sqlx::query_as(
            "SELECT id, transaction_uid FROM proof_request
             WHERE destination = ? AND status = 'asked' AND report_by <= ? ORDER BY id",
        )
        .bind(destination)
        .bind(now.as_millis())
        .fetch_all(&self.read)
        .await
        .during(DURING)?;
        let mut overdue = Vec::with_capacity(due.len());
        for (id, transaction) in due {
            let rows: Vec<UnprovenRow> = sqlx::query_as(
                "SELECT d.id, s.study_instance, d.series_instance, d.sop_class, d.sop_instance, d.proof_attempts
                 FROM delivery d JOIN study s ON s.id = d.study_id WHERE d.request_id = ?",
            )
            .bind(id)
            .fetch_all(&self.read)
            .await
            .during(DURING)?;
            let items = rows.into_iter().map(UnprovenRow::unproven).collect::<Result<_, _>>()?;
            overdue.push(ProofRequest { id, transaction: uid(&transaction)?, items });
        }
        Ok(overdue)
    }

    pub(crate) async fn commitment_came_to_nothing(
        &self,
        request: &ProofRequest,
        reason: &Reason,
        consequence: Consequence,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        let changed = sqlx::query(
            "UPDATE proof_request SET status = 'failed', finished_at = ?, last_words = ? WHERE id = ? AND status = 'asked'",
        )
        .bind(now.as_millis())
        .bind(peer_text(&reason.to_string()))
        .bind(request.id)
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .rows_affected();
        if changed == 0 {
            // The report came in between.
            return Ok(());
        }
        let waiting: Vec<i64> = sqlx::query_scalar("SELECT id FROM outbox WHERE request_id = ?")
            .bind(request.id)
            .fetch_all(&mut *tx)
            .await
            .during(DURING)?;
        for delivery in waiting {
            came_to_nothing(&mut tx, delivery, reason, consequence, now).await?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn commitment_report(
        &self,
        report: &ProofReport,
        now: Timestamp,
    ) -> Result<Option<ProofReported>, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let request: Option<(i64, String)> =
            sqlx::query_as("SELECT id, destination FROM proof_request WHERE transaction_uid = ?")
                .bind(report.transaction.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(DURING)?;
        let Some((request, destination)) = request else { return Ok(None) };
        let items: Vec<(i64, String)> = sqlx::query_as(
            "SELECT d.id, d.sop_instance FROM proof_request_item r JOIN delivery d ON d.id = r.delivery_id
             WHERE r.request_id = ? ORDER BY d.id",
        )
        .bind(request)
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        let committed: HashSet<&str> = report.committed.iter().map(Uid::as_str).collect();
        let failed: HashMap<&str, (u16, &str)> =
            report.failed.iter().map(|(instance, code, words)| (instance.as_str(), (*code, words.as_str()))).collect();
        let mut reported = ProofReported { committed: 0, lost: 0 };
        for (delivery, instance) in items {
            if committed.contains(instance.as_str()) && !failed.contains_key(instance.as_str()) {
                reported.committed += u64::from(commit(&mut tx, delivery, &report.peer_ae, now).await?);
                continue;
            }
            let failure = failed.get(instance.as_str());
            reported.lost += u64::from(lose(&mut tx, request, delivery, failure, now).await?);
        }
        let text = format!("{} committed, {} not", reported.committed, reported.lost);
        sqlx::query("UPDATE proof_request SET status = 'reported', finished_at = ?, last_words = ? WHERE id = ?")
            .bind(now.as_millis())
            .bind(&text)
            .bind(request)
            .execute(&mut *tx)
            .await
            .during(DURING)?;
        NewEvent::new(now, "commitment-report-taken", format!("{destination} reports on our request: {text}"))
            .detail(json!({ "transaction": report.transaction.as_str(), "destination": destination,
                "peer_ae": peer_text(&report.peer_ae) }))
            .write(&mut tx)
            .await?;
        tx.commit().await.during(DURING)?;
        Ok(Some(reported))
    }
}

/// The peer keeps it: true of whatever it was asked, also when nobody waits for the answer any more.
async fn commit(connection: &mut Connection, delivery: i64, peer: &str, now: Timestamp) -> Result<bool, StoreError> {
    let words = format!("committed by {}", peer_text(peer));
    let way = Way::of(connection, delivery).await?;
    let changed = sqlx::query(
        "UPDATE outbox SET status = 'committed', proven_at = ?1, last_words = ?2, proof_attempts = 0, request_id = NULL,
             missing = NULL, proof = CASE proof WHEN 'commitment+read-back' THEN 'read-back' END,
             next_proof = CASE proof WHEN 'commitment+read-back' THEN ?1 END
         WHERE id = ?3 AND proof IN ('commitment', 'commitment+read-back') AND status IN ('accepted', 'dead')",
    )
    .bind(now.as_millis())
    .bind(&words)
    .bind(delivery)
    .execute(&mut *connection)
    .await
    .during(DURING)?
    .rows_affected();
    if changed == 1 {
        way.count(connection, Measure::Committed, now).await?;
        tell(connection, delivery, "delivery-committed", |kind, to| format!("{kind} is {words} at {to}"), now).await?;
    }
    Ok(changed == 1)
}

/// The peer does not keep it, which counts if this is the request that is waited for: since an earlier one the object may
/// have been sent again.
async fn lose(
    connection: &mut Connection,
    request: i64,
    delivery: i64,
    failure: Option<&(u16, &str)>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    sqlx::query("UPDATE proof_request_item SET failure = ? WHERE request_id = ? AND delivery_id = ?")
        .bind(failure.map(|(code, _)| *code))
        .bind(request)
        .bind(delivery)
        .execute(&mut *connection)
        .await
        .during(DURING)?;
    let is_waited_for: bool =
        sqlx::query_scalar("SELECT request_id IS ?1 FROM outbox WHERE id = ?2 AND status = 'accepted'")
            .bind(request)
            .bind(delivery)
            .fetch_optional(&mut *connection)
            .await
            .during(DURING)?
            .unwrap_or(false);
    if is_waited_for {
        let reason = match failure {
            Some((code, words)) => Reason::new("not-committed", format!("{words} (0x{code:04X})")),
            None => Reason::new("not-committed", "the report does not speak of it"),
        };
        came_to_nothing(connection, delivery, &reason, Consequence::Lost, now).await?;
    }
    Ok(is_waited_for)
}
