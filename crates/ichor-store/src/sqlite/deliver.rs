//! Statements of deliver.

use ichor_core::Reason;
use serde_json::json;

use super::destination::HELD;
use super::events::NewEvent;
use super::failure::During;
use super::latency::Way;
use super::values::{blob as parse_blob, uid, unsigned, word};
use super::{Connection, Sqlite, one_row};
use crate::blobs::BlobStore;
use crate::deliver::{DeliveryClaim, DeliveryObject, QueueDepth};
use crate::events::peer_text;
use crate::latency::Measure;
use crate::{Among, ProofPlan, StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct ClaimRow {
    id: i64,
    study_id: i64,
    attempts: i64,
    queued_at: i64,
    urgent: bool,
    kind: String,
    sop_class: String,
    sop_instance: String,
    transfer_syntax: String,
    blob: String,
    study_instance: String,
    series_instance: String,
    last_words: Option<String>,
    version: i64,
}

impl Sqlite {
    pub(crate) async fn claim_delivery(
        &self,
        blobs: &BlobStore,
        destination: &str,
        among: Among,
        now: Timestamp,
    ) -> Result<Option<DeliveryClaim>, StoreError> {
        let during = "claiming a delivery";
        if self.next_delivery_deadline(destination).await?.is_none_or(|due| due > now) {
            return Ok(None);
        }
        let mut tx = self.begin(during).await?;
        // Without a refused context, which is the rule, the index alone finds the next.
        let row: Option<ClaimRow> = sqlx::query_as(
            "SELECT d.id, d.study_id, d.attempts + 1 AS attempts, d.queued_at, d.urgent, d.kind, d.sop_class,
                 d.sop_instance, d.series_instance, d.transfer_syntax, d.blob, s.study_instance, d.last_words,
                 COALESCE((SELECT a.version FROM object o JOIN analysis a ON a.id = o.analysis_id WHERE o.id = d.object_id),
                     s.version) AS version
             FROM delivery d JOIN study s ON s.id = d.study_id
             WHERE d.id = (
                 SELECT q.id FROM outbox q INDEXED BY outbox_order
                 WHERE q.destination = ?1 AND q.status = 'queued' AND q.urgent >= ?3 AND q.next_attempt <= ?2
                   AND (NOT EXISTS (SELECT 1 FROM refused_context WHERE destination = ?1 AND until > ?2)
                        OR NOT EXISTS (
                            SELECT 1 FROM delivery k JOIN refused_context r ON r.destination = ?1
                                AND r.sop_class = k.sop_class AND r.transfer_syntax = k.transfer_syntax AND r.until > ?2
                            WHERE k.id = q.id))
                 ORDER BY q.urgent DESC, q.queued_at, q.id LIMIT 1)",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(among == Among::Urgent)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let Some(row) = row else { return Ok(None) };
        sqlx::query("UPDATE outbox SET status = 'sending', attempts = ? WHERE id = ?")
            .bind(row.attempts)
            .bind(row.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        // While its destination is away, a delivery is tried for a night; that it is held was said once. Of received instances
        // there are thousands: that all have arrived is said.
        let was_held = row.last_words.as_deref().is_some_and(|words| words.starts_with(HELD));
        if !was_held && row.kind != SOURCE {
            let text = format!("sending {} to {destination}, attempt {}", row.kind, row.attempts);
            let detail = json!({
                "sop_instance": row.sop_instance, "destination": destination, "attempt": row.attempts,
            });
            NewEvent::new(now, "delivery-started", text).detail(detail).study(row.study_id).write(&mut tx).await?;
        }
        tx.commit().await.during(during)?;
        Ok(Some(DeliveryClaim {
            id: row.id,
            destination: destination.to_owned(),
            object: DeliveryObject {
                kind: row.kind,
                sop_class: uid(&row.sop_class)?,
                sop_instance: uid(&row.sop_instance)?,
                transfer_syntax: uid(&row.transfer_syntax)?,
                path: blobs.path_of(&parse_blob(&row.blob)?),
                study_instance: uid(&row.study_instance)?,
                version: unsigned(row.version)?,
                series_instance: uid(&row.series_instance)?,
                positive: row.urgent,
            },
            attempts: unsigned(row.attempts)?,
            queued_at: Timestamp::from_millis(row.queued_at),
            was_held,
        }))
    }

    pub(crate) async fn delivery_accepted(
        &self,
        claim: &DeliveryClaim,
        peer_words: &str,
        proofs: ProofPlan,
        prove_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a delivery";
        let words = peer_text(peer_words);
        let mut tx = self.begin(during).await?;
        let way = Way::of(&mut tx, claim.id).await?;
        let changed = sqlx::query(
            "UPDATE outbox SET status = 'accepted', accepted_at = COALESCE(accepted_at, ?1), finished_at = ?1, last_words = ?2,
                 proof = ?3, next_proof = ?4, proof_attempts = 0, request_id = NULL, missing = NULL
             WHERE id = ?5 AND status = 'sending' AND attempts = ?6",
        )
        .bind(now.as_millis())
        .bind(&words)
        .bind(proofs.word())
        .bind(proofs.word().map(|_| prove_at.as_millis()))
        .bind(claim.id)
        .bind(claim.attempts)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        one_row(changed, || describe(claim))?;
        way.count(&mut tx, Measure::Accepted, now).await?;
        if claim.object.kind == SOURCE {
            tell_when_all_are_there(&mut tx, claim, now).await?;
        } else {
            let text = format!("{} accepted {}: {words}", claim.destination, claim.object.kind);
            write_event(&mut tx, claim, NewEvent::new(now, "delivery-accepted", text), json!(words)).await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn delivery_failed(
        &self,
        claim: &DeliveryClaim,
        reason: &Reason,
        next_attempt: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let during = "recording a failed delivery";
        let words = peer_text(&reason.to_string());
        let mut tx = self.begin(during).await?;
        let changed = sqlx::query(
            "UPDATE outbox SET status = ?, next_attempt = ?, finished_at = ?, last_words = ?
             WHERE id = ? AND status = 'sending' AND attempts = ?",
        )
        .bind(if next_attempt.is_some() { "queued" } else { "dead" })
        .bind(next_attempt.unwrap_or(now).as_millis())
        .bind(next_attempt.is_none().then_some(now.as_millis()))
        .bind(&words)
        .bind(claim.id)
        .bind(claim.attempts)
        .execute(&mut *tx)
        .await
        .during(during)?
        .rows_affected();
        one_row(changed, || describe(claim))?;
        let (kind, consequence) = match next_attempt {
            Some(at) => ("delivery-failed", format!("next attempt in {} ms", at.since(now).as_millis())),
            None => ("delivery-dead", "given up".to_owned()),
        };
        let text = format!("{} to {} failed: {words}; {consequence}", claim.object.kind, claim.destination);
        write_event(&mut tx, claim, NewEvent::new(now, kind, text), json!(words)).await?;
        if next_attempt.is_none() && claim.object.kind == SOURCE {
            // The last one may be the one that is given up.
            tell_when_all_are_there(&mut tx, claim, now).await?;
        }
        tx.commit().await.during(during)
    }

    pub(crate) async fn next_delivery_deadline(&self, destination: &str) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> =
            sqlx::query_scalar("SELECT MIN(next_attempt) FROM outbox WHERE destination = ? AND status = 'queued'")
                .bind(destination)
                .fetch_one(&self.read)
                .await
                .during("looking for the next delivery")?;
        Ok(due.map(Timestamp::from_millis))
    }

    pub(crate) async fn queue_depths(&self) -> Result<Vec<QueueDepth>, StoreError> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT destination, status, COUNT(*) FROM outbox GROUP BY destination, status ORDER BY destination, status",
        )
        .fetch_all(&self.read)
        .await
        .during("counting deliveries")?;
        let depth = |(destination, status, count): (String, String, i64)| {
            Ok(QueueDepth { destination, status: word(&status)?, count: unsigned(count)? })
        };
        rows.into_iter().map(depth).collect()
    }
}

/// What the view `delivery` calls a received instance.
pub(super) const SOURCE: &str = "source";

/// Says that no received instance of a study that goes to a destination waits for it: each is accepted there, or given up.
async fn tell_when_all_are_there(
    connection: &mut Connection,
    claim: &DeliveryClaim,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (open, all): (i64, i64) = sqlx::query_as(
        "SELECT COALESCE(SUM(status IN ('queued', 'sending')), 0), COUNT(*) FROM outbox
         WHERE destination = ? AND instance_id IS NOT NULL AND study_id = (SELECT study_id FROM outbox WHERE id = ?)",
    )
    .bind(&claim.destination)
    .bind(claim.id)
    .fetch_one(&mut *connection)
    .await
    .during("recording a delivery")?;
    if open > 0 {
        return Ok(());
    }
    let text = format!("none of {all} received instances waits for {} any more", claim.destination);
    write_event(connection, claim, NewEvent::new(now, "forwarding-done", text), json!(all)).await
}

pub(super) fn describe(claim: &DeliveryClaim) -> String {
    format!("{} {} for {}", claim.object.kind, claim.object.sop_instance, claim.destination)
}

async fn write_event(
    connection: &mut Connection,
    claim: &DeliveryClaim,
    event: NewEvent,
    words: serde_json::Value,
) -> Result<(), StoreError> {
    let study: i64 = sqlx::query_scalar("SELECT study_id FROM outbox WHERE id = ?")
        .bind(claim.id)
        .fetch_one(&mut *connection)
        .await
        .during("recording a delivery")?;
    event
        .detail(json!({
            "sop_instance": claim.object.sop_instance, "destination": claim.destination,
            "attempt": claim.attempts, "words": words,
        }))
        .study(study)
        .write(connection)
        .await
}
