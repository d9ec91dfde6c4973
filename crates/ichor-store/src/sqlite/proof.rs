//! Statements of the proof of delivery: queries, what is lost, and what is due.

use ichor_core::Reason;
use serde_json::json;

use super::deliver::SOURCE;
use super::events::NewEvent;
use super::failure::During;
use super::latency::Way;
use super::values::{to_json, uid, unsigned};
use super::{Connection, Sqlite, one_row};
use crate::events::peer_text;
use crate::latency::Measure;
use crate::proof::{Consequence, LostDelivery, ProofPlan, Unproven};
use crate::{StoreError, Timestamp};

const DURING: &str = "recording a proof of delivery";

#[derive(sqlx::FromRow)]
pub(super) struct UnprovenRow {
    id: i64,
    study_instance: String,
    series_instance: String,
    sop_class: String,
    sop_instance: String,
    proof_attempts: i64,
}

impl UnprovenRow {
    pub(super) fn unproven(self) -> Result<Unproven, StoreError> {
        Ok(Unproven {
            delivery: self.id,
            study_instance: uid(&self.study_instance)?,
            series_instance: uid(&self.series_instance)?,
            sop_class: uid(&self.sop_class)?,
            sop_instance: uid(&self.sop_instance)?,
            attempts: unsigned(self.proof_attempts)?,
        })
    }
}

impl Sqlite {
    pub(crate) async fn due_read_backs(
        &self,
        destination: &str,
        most: u32,
        now: Timestamp,
    ) -> Result<Vec<Unproven>, StoreError> {
        let rows: Vec<UnprovenRow> = sqlx::query_as(
            "SELECT d.id, s.study_instance, d.series_instance, d.sop_class, d.sop_instance, d.proof_attempts
             FROM delivery d JOIN study s ON s.id = d.study_id
             WHERE d.destination = ? AND d.proof = 'read-back' AND d.status IN ('accepted', 'committed')
               AND d.missing IS NULL AND d.next_proof <= ?
             ORDER BY d.urgent DESC, d.next_proof, d.id LIMIT ?",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(most)
        .fetch_all(&self.read)
        .await
        .during("looking for deliveries to be read back")?;
        rows.into_iter().map(UnprovenRow::unproven).collect()
    }

    pub(crate) async fn read_back_found(&self, delivery: i64, words: &str, now: Timestamp) -> Result<(), StoreError> {
        let words = peer_text(words);
        let mut tx = self.begin(DURING).await?;
        let way = Way::of(&mut tx, delivery).await?;
        let changed = sqlx::query(
            "UPDATE outbox SET status = 'visible', proof = NULL, proven_at = ?1, last_words = ?2
             WHERE id = ?3 AND proof = 'read-back' AND status IN ('accepted', 'committed', 'dead')",
        )
        .bind(now.as_millis())
        .bind(&words)
        .bind(delivery)
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .rows_affected();
        one_row(changed, || format!("proof of delivery {delivery}"))?;
        way.count(&mut tx, Measure::Visible, now).await?;
        tell(&mut tx, delivery, "delivery-visible", |kind, to| format!("{kind} was found at {to}: {words}"), now)
            .await?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn read_back_came_to_nothing(
        &self,
        deliveries: &[i64],
        reason: &Reason,
        consequence: Consequence,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        for delivery in deliveries {
            came_to_nothing(&mut tx, *delivery, reason, consequence, now).await?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn lost_deliveries(&self, destination: &str) -> Result<Vec<LostDelivery>, StoreError> {
        let rows: Vec<(i64, String, i64, String)> = sqlx::query_as(
            "SELECT id, sop_instance, resends, missing FROM delivery
             WHERE destination = ? AND proof IS NOT NULL AND missing IS NOT NULL
               AND status IN ('accepted', 'committed') ORDER BY id",
        )
        .bind(destination)
        .fetch_all(&self.read)
        .await
        .during("looking for lost deliveries")?;
        let lost = |(delivery, sop_instance, resends, words): (i64, String, i64, String)| {
            Ok(LostDelivery { delivery, sop_instance: uid(&sop_instance)?, resends: unsigned(resends)?, words })
        };
        rows.into_iter().map(lost).collect()
    }

    pub(crate) async fn send_again(
        &self,
        lost: &LostDelivery,
        at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(DURING).await?;
        let statement = if at.is_some() {
            "UPDATE outbox SET status = 'queued', attempts = 0, next_attempt = ?1, finished_at = NULL, proof = NULL,
                 proof_attempts = 0, next_proof = NULL, request_id = NULL, missing = NULL, resends = resends + 1
             WHERE id = ?2 AND missing IS NOT NULL AND status IN ('accepted', 'committed')"
        } else {
            "UPDATE outbox SET status = 'dead', finished_at = ?1, missing = NULL, last_words = missing
             WHERE id = ?2 AND missing IS NOT NULL AND status IN ('accepted', 'committed')"
        };
        let changed = sqlx::query(statement)
            .bind(at.unwrap_or(now).as_millis())
            .bind(lost.delivery)
            .execute(&mut *tx)
            .await
            .during(DURING)?
            .rows_affected();
        one_row(changed, || format!("lost delivery {}", lost.delivery))?;
        let words = peer_text(&lost.words);
        let text = |kind: &str, to: &str| match at {
            Some(at) => {
                let wait = at.since(now).as_millis();
                format!("{to} accepted {kind} and does not have it: {words}; to be sent again in {wait} ms")
            }
            None => format!(
                "{to} accepted {kind} and does not have it, also when sent again {} times: {words}; given up",
                lost.resends
            ),
        };
        let event = if at.is_some() { "delivery-sent-again" } else { "delivery-dead" };
        tell(&mut tx, lost.delivery, event, text, now).await?;
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn settle_proofs(
        &self,
        destination: &str,
        plan: ProofPlan,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let due: Vec<(i64, String)> = sqlx::query_as(
            "SELECT id, proof FROM outbox
             WHERE destination = ? AND proof IS NOT NULL AND missing IS NULL AND status != 'dead'",
        )
        .bind(destination)
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        let mut settled = 0;
        for (delivery, proof) in due {
            let commitment = plan.commitment && proof.starts_with("commitment");
            let read_back = plan.read_back && proof.ends_with("read-back");
            let left = ProofPlan { commitment, read_back };
            if left.word() == Some(proof.as_str()) {
                continue;
            }
            sqlx::query("UPDATE outbox SET proof = ?1, next_proof = ?2, request_id = NULL WHERE id = ?3")
                .bind(left.word())
                .bind(left.word().map(|_| now.as_millis()))
                .bind(delivery)
                .execute(&mut *tx)
                .await
                .during(DURING)?;
            let text = |kind: &str, to: &str| format!("{proof} of {kind} at {to} is not asked for any more");
            tell(&mut tx, delivery, "proof-not-asked", text, now).await?;
            settled += 1;
        }
        tx.commit().await.during(DURING)?;
        Ok(settled)
    }

    pub(crate) async fn next_proof_deadline(&self, destination: &str) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = sqlx::query_scalar(
            "SELECT MIN(due) FROM (
                 SELECT MIN(next_proof) AS due FROM outbox
                 WHERE destination = ?1 AND proof IS NOT NULL AND request_id IS NULL AND status IN ('accepted', 'committed')
                 UNION ALL
                 SELECT MIN(report_by) FROM proof_request WHERE destination = ?1 AND status = 'asked')",
        )
        .bind(destination)
        .fetch_one(&self.read)
        .await
        .during("looking for the next proof")?;
        Ok(due.map(Timestamp::from_millis))
    }
}

/// Records that a proof of a delivery did not come. One that is not to be proven any more is left as it is.
pub(super) async fn came_to_nothing(
    connection: &mut Connection,
    delivery: i64,
    reason: &Reason,
    consequence: Consequence,
    now: Timestamp,
) -> Result<(), StoreError> {
    let words = peer_text(&reason.to_string());
    let known: Option<Option<String>> = sqlx::query_scalar(
        "SELECT last_words FROM outbox
         WHERE id = ? AND proof IS NOT NULL AND missing IS NULL AND status IN ('accepted', 'committed')",
    )
    .bind(delivery)
    .fetch_optional(&mut *connection)
    .await
    .during(DURING)?;
    let Some(last_words) = known else { return Ok(()) };
    let (statement, moment, counts) = match consequence {
        Consequence::AskAgain { at, counts } => (
            "UPDATE outbox SET next_proof = ?1, proof_attempts = proof_attempts + ?2, last_words = ?3, request_id = NULL
             WHERE id = ?4",
            at,
            counts,
        ),
        Consequence::Lost => (
            "UPDATE outbox SET next_proof = ?1, proof_attempts = proof_attempts + ?2, missing = ?3, last_words = ?3,
                 request_id = NULL WHERE id = ?4",
            now,
            true,
        ),
        Consequence::GiveUp => (
            "UPDATE outbox SET status = 'dead', finished_at = ?1, proof_attempts = proof_attempts + ?2, last_words = ?3,
                 request_id = NULL WHERE id = ?4",
            now,
            true,
        ),
    };
    sqlx::query(statement)
        .bind(moment.as_millis())
        .bind(counts)
        .bind(&words)
        .bind(delivery)
        .execute(&mut *connection)
        .await
        .during(DURING)?;
    let again = matches!(consequence, Consequence::AskAgain { .. });
    if again && last_words.as_deref() == Some(words.as_str()) {
        // Said already; a peer that is away for a night must not fill the log.
        return Ok(());
    }
    let event = match consequence {
        Consequence::AskAgain { .. } => "proof-missed",
        Consequence::Lost => "delivery-lost",
        Consequence::GiveUp => "delivery-dead",
    };
    let text = |kind: &str, to: &str| match consequence {
        Consequence::AskAgain { at, .. } => {
            format!("{kind} at {to} is not proven: {words}; asked again in {} ms", at.since(now).as_millis())
        }
        Consequence::Lost => format!("{to} accepted {kind} and does not have it: {words}"),
        Consequence::GiveUp => format!("{to} accepted {kind}, and it cannot be proven: {words}; given up"),
    };
    tell(connection, delivery, event, text, now).await
}

/// Writes an event about a delivery; its text from what was delivered, and where to.
pub(super) async fn tell(
    connection: &mut Connection,
    delivery: i64,
    event: &'static str,
    text: impl Fn(&str, &str) -> String,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (study, kind, sop_instance, destination, words): (i64, String, String, String, Option<String>) =
        sqlx::query_as("SELECT study_id, kind, sop_instance, destination, last_words FROM delivery WHERE id = ?")
            .bind(delivery)
            .fetch_one(&mut *connection)
            .await
            .during(DURING)?;
    if kind == SOURCE
        && ["commitment-asked", "delivery-committed", "delivery-held", "delivery-visible"].contains(&event)
    {
        // Of thousands; their rows say it.
        return Ok(());
    }
    NewEvent::new(now, event, text(&kind, &destination))
        .detail(json!({ "sop_instance": sop_instance, "destination": destination, "words": words }))
        .study(study)
        .write(connection)
        .await
}

/// The same list for statements, as JSON.
pub(super) fn numbers(deliveries: &[i64]) -> Result<String, StoreError> {
    to_json(&deliveries)
}
