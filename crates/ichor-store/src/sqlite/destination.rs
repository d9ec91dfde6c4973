//! Statements about destinations as a whole, and the outbox for people.

mod retry;

use ichor_core::{DeliveryStatus, Reason, Uid};
use serde_json::json;

use super::Sqlite;
use super::deliver::describe;
use super::events::NewEvent;
use super::failure::During;
use super::proof::tell;
use super::values::{uid, unsigned, word};
use crate::deliver::DeliveryClaim;
use crate::destination::{Context, DeliveryFilter, DeliverySummary, DestinationState};
use crate::events::peer_text;
use crate::sqlite::one_row;
use crate::{Among, StoreError, Timestamp};

pub(crate) use retry::Dead;
pub(super) use retry::revive;

const DURING: &str = "recording the state of a destination";

/// How the words begin of a delivery that is held up by its destination.
pub(super) const HELD: &str = "held: ";

/// Most kinds that are proposed at once: an association has 128 presentation contexts, one of them for what is claimed.
const MOST_CONTEXTS: i64 = 127;

/// Most deliveries that are told in one transaction why they wait.
const MOST_TOLD: i64 = 1_000;

type StateRow = (String, String, i64, i64, Option<i64>, Option<String>);

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    id: i64,
    study_instance: String,
    sop_instance: String,
    kind: String,
    destination: String,
    status: String,
    proof: Option<String>,
    attempts: i64,
    resends: i64,
    queued_at: i64,
    next_attempt: i64,
    finished_at: Option<i64>,
    urgent: bool,
    last_words: Option<String>,
}

/// When a delivery is tried next, as far as that is its own affair: what its destination holds up goes when that is there
/// again, and stands behind the others until then.
pub(super) fn next_attempt(status: &str, last_words: Option<&str>, at: i64) -> Option<Timestamp> {
    let is_held = last_words.is_some_and(|words| words.starts_with(HELD));
    (status == "queued" && !is_held).then_some(Timestamp::from_millis(at))
}

impl Sqlite {
    pub(crate) async fn delivery_held(
        &self,
        claim: &DeliveryClaim,
        reason: &Reason,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let words = format!("{HELD}{}", peer_text(&reason.to_string()));
        let mut tx = self.begin(DURING).await?;
        let known: Option<String> = sqlx::query_scalar("SELECT last_words FROM outbox WHERE id = ?")
            .bind(claim.id)
            .fetch_one(&mut *tx)
            .await
            .during(DURING)?;
        let changed = sqlx::query(
            "UPDATE outbox SET status = 'queued', attempts = attempts - 1, last_words = ?,
                 next_attempt = COALESCE(?, next_attempt)
             WHERE id = ? AND status = 'sending' AND attempts = ?",
        )
        .bind(&words)
        .bind(until.map(Timestamp::as_millis))
        .bind(claim.id)
        .bind(claim.attempts)
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .rows_affected();
        one_row(changed, || describe(claim))?;
        // Why it is held may change back and forth; that it is, is said once.
        if !known.is_some_and(|known| known.starts_with(HELD)) {
            tell(&mut tx, claim.id, "delivery-held", |kind, to| format!("{kind} for {to} is {words}"), now).await?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn release_held(
        &self,
        destination: &str,
        among: Among,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let longest: Option<i64> = sqlx::query_scalar(
            "SELECT id FROM outbox WHERE destination = ?1 AND status = 'queued' AND urgent >= ?2 AND next_attempt > ?3
                 AND last_words LIKE ?4 || '%' ORDER BY next_attempt, id LIMIT 1",
        )
        .bind(destination)
        .bind(among == Among::Urgent)
        .bind(now.as_millis())
        .bind(HELD)
        .fetch_optional(&self.read)
        .await
        .during(DURING)?;
        let Some(delivery) = longest else { return Ok(false) };
        let mut tx = self.begin(DURING).await?;
        let released = sqlx::query("UPDATE outbox SET next_attempt = ? WHERE id = ? AND status = 'queued'")
            .bind(now.as_millis())
            .bind(delivery)
            .execute(&mut *tx)
            .await
            .during(DURING)?
            .rows_affected();
        tx.commit().await.during(DURING)?;
        Ok(released > 0)
    }

    pub(crate) async fn queued_contexts(&self, destination: &str, now: Timestamp) -> Result<Vec<Context>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT d.sop_class, d.transfer_syntax FROM delivery d
             WHERE d.destination = ?1 AND d.status = 'queued' AND NOT EXISTS (
                 SELECT 1 FROM refused_context r WHERE r.destination = ?1 AND r.sop_class = d.sop_class
                     AND r.transfer_syntax = d.transfer_syntax AND r.until > ?2)
             LIMIT ?3",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(MOST_CONTEXTS)
        .fetch_all(&self.read)
        .await
        .during("looking at what is queued")?;
        let context =
            |(class, syntax): (String, String)| Ok(Context { sop_class: uid(&class)?, transfer_syntax: uid(&syntax)? });
        rows.into_iter().map(context).collect()
    }

    pub(crate) async fn destination_down(
        &self,
        destination: &str,
        reason: &Reason,
        next_probe: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let words = peer_text(&reason.to_string());
        let mut tx = self.begin(DURING).await?;
        let failures: i64 = sqlx::query_scalar(
            "INSERT INTO destination (name, state, since, failures, next_probe, last_words) VALUES (?1, 'down', ?2, 1, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET state = 'down', failures = failures + 1, next_probe = ?3, last_words = ?4,
                 since = CASE state WHEN 'down' THEN since ELSE ?2 END
             RETURNING failures",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(next_probe.as_millis())
        .bind(&words)
        .fetch_one(&mut *tx)
        .await
        .during(DURING)?;
        if failures == 1 {
            let text = format!("destination {destination} is down: {words}; its queue is held");
            let detail = json!({ "destination": destination, "words": words });
            NewEvent::new(now, "destination-down", text).detail(detail).write(&mut tx).await?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn destination_up(&self, destination: &str, now: Timestamp) -> Result<(), StoreError> {
        let known: Option<(String, i64)> = sqlx::query_as("SELECT state, failures FROM destination WHERE name = ?")
            .bind(destination)
            .fetch_optional(&self.read)
            .await
            .during(DURING)?;
        if known.as_ref().is_some_and(|(state, _)| state == "up") {
            return Ok(());
        }
        let mut tx = self.begin(DURING).await?;
        sqlx::query(
            "INSERT INTO destination (name, state, since) VALUES (?1, 'up', ?2)
             ON CONFLICT (name) DO UPDATE SET state = 'up', since = ?2, failures = 0, next_probe = NULL, last_words = NULL",
        )
        .bind(destination)
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .during(DURING)?;
        sqlx::query(
            "UPDATE outbox SET next_attempt = ?2
             WHERE destination = ?1 AND status = 'queued' AND next_attempt > ?2 AND last_words LIKE ?3 || '%'",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(HELD)
        .execute(&mut *tx)
        .await
        .during(DURING)?;
        if let Some((_, failures)) = known {
            let text = format!("destination {destination} is up again after {failures} attempts that found nobody");
            let detail = json!({ "destination": destination, "failures": failures });
            NewEvent::new(now, "destination-up", text).detail(detail).write(&mut tx).await?;
        }
        tx.commit().await.during(DURING)
    }

    pub(crate) async fn contexts_refused(
        &self,
        destination: &str,
        refused: &[Context],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let mut waiting = 0;
        for Context { sop_class, transfer_syntax } in refused {
            let since: i64 = sqlx::query_scalar(
                "INSERT INTO refused_context (destination, sop_class, transfer_syntax, since, until)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (destination, sop_class, transfer_syntax) DO UPDATE SET until = ?5 RETURNING since",
            )
            .bind(destination)
            .bind(sop_class.as_str())
            .bind(transfer_syntax.as_str())
            .bind(now.as_millis())
            .bind(until.as_millis())
            .fetch_one(&mut *tx)
            .await
            .during(DURING)?;
            let words = format!("{destination} does not accept {sop_class} in transfer syntax {transfer_syntax}");
            waiting += sqlx::query(
                "UPDATE outbox SET last_words = ?1 WHERE destination = ?2 AND status = 'queued' AND id IN (
                     SELECT id FROM delivery WHERE destination = ?2 AND status = 'queued' AND sop_class = ?3
                         AND transfer_syntax = ?4)",
            )
            .bind(format!("{HELD}{words}"))
            .bind(destination)
            .bind(sop_class.as_str())
            .bind(transfer_syntax.as_str())
            .execute(&mut *tx)
            .await
            .during(DURING)?
            .rows_affected();
            if since == now.as_millis() {
                let detail = json!({ "destination": destination, "sop_class": sop_class.as_str(),
                    "transfer_syntax": transfer_syntax.as_str() });
                NewEvent::new(now, "context-refused", words).detail(detail).write(&mut tx).await?;
            }
        }
        tx.commit().await.during(DURING)?;
        Ok(waiting)
    }

    pub(crate) async fn hold_refused(&self, destination: &str, now: Timestamp) -> Result<u64, StoreError> {
        let is_refused: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM refused_context WHERE destination = ? AND until > ?)")
                .bind(destination)
                .bind(now.as_millis())
                .fetch_one(&self.read)
                .await
                .during(DURING)?;
        if !is_refused {
            return Ok(0);
        }
        let silent: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT d.id, d.sop_class, d.transfer_syntax FROM delivery d JOIN refused_context r
                 ON r.destination = d.destination AND r.sop_class = d.sop_class
                 AND r.transfer_syntax = d.transfer_syntax AND r.until > ?2
             WHERE d.destination = ?1 AND d.status = 'queued' AND (d.last_words IS NULL OR d.last_words NOT LIKE ?3 || '%')",
        )
        .bind(destination)
        .bind(now.as_millis())
        .bind(HELD)
        .fetch_all(&self.read)
        .await
        .during(DURING)?;
        if silent.is_empty() {
            return Ok(0);
        }
        let mut tx = self.begin(DURING).await?;
        for (delivery, class, syntax) in &silent {
            let words = format!("{HELD}{destination} does not accept {class} in transfer syntax {syntax}");
            sqlx::query("UPDATE outbox SET last_words = ? WHERE id = ? AND status = 'queued'")
                .bind(&words)
                .bind(delivery)
                .execute(&mut *tx)
                .await
                .during(DURING)?;
            tell(&mut tx, *delivery, "delivery-held", |kind, to| format!("{kind} for {to} is {words}"), now).await?;
        }
        tx.commit().await.during(DURING)?;
        Ok(silent.len() as u64)
    }

    pub(crate) async fn say_why_due_waits(
        &self,
        destination: &str,
        words: &str,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut tx = self.begin(DURING).await?;
        let told = sqlx::query(
            "UPDATE outbox SET last_words = ?1 WHERE id IN (
                 SELECT id FROM outbox WHERE destination = ?2 AND status = 'queued' AND urgent = 0 AND next_attempt <= ?3
                     AND (last_words IS NULL OR (last_words <> ?1 AND last_words NOT LIKE ?4 || '%')) LIMIT ?5)",
        )
        .bind(words)
        .bind(destination)
        .bind(now.as_millis())
        .bind(HELD)
        .bind(MOST_TOLD)
        .execute(&mut *tx)
        .await
        .during(DURING)?
        .rows_affected();
        tx.commit().await.during(DURING)?;
        Ok(told)
    }

    pub(crate) async fn destinations(&self, now: Timestamp) -> Result<Vec<DestinationState>, StoreError> {
        let during = "reading the state of destinations";
        let rows: Vec<StateRow> = sqlx::query_as(
            "SELECT name, state, since, failures, next_probe, last_words FROM destination ORDER BY name",
        )
        .fetch_all(&self.read)
        .await
        .during(during)?;
        let refused: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT destination, sop_class, transfer_syntax, until FROM refused_context WHERE until > ?
             ORDER BY destination, sop_class, transfer_syntax",
        )
        .bind(now.as_millis())
        .fetch_all(&self.read)
        .await
        .during(during)?;
        let mut states = Vec::with_capacity(rows.len());
        for (name, state, since, failures, next_probe, last_words) in rows {
            let of_it = refused.iter().filter(|(destination, ..)| *destination == name);
            let refused = of_it
                .map(|(_, class, syntax, until)| {
                    let context = Context { sop_class: uid(class)?, transfer_syntax: uid(syntax)? };
                    Ok((context, Timestamp::from_millis(*until)))
                })
                .collect::<Result<_, StoreError>>()?;
            states.push(DestinationState {
                is_up: state == "up",
                since: Timestamp::from_millis(since),
                failures: unsigned(failures)?,
                next_probe: next_probe.map(Timestamp::from_millis),
                name,
                last_words,
                refused,
            });
        }
        Ok(states)
    }

    pub(crate) async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        limit: u32,
    ) -> Result<Vec<DeliverySummary>, StoreError> {
        let rows: Vec<DeliveryRow> = sqlx::query_as(
            "SELECT d.id, s.study_instance, d.sop_instance, d.kind, d.destination, d.status, d.proof, d.attempts, d.resends,
                 d.queued_at, d.next_attempt, d.finished_at, d.urgent, d.last_words
             FROM delivery d JOIN study s ON s.id = d.study_id
             WHERE (?1 IS NULL OR d.status = ?1) AND (?2 IS NULL OR d.destination = ?2)
               AND (?3 IS NULL OR d.study_id = (SELECT id FROM study WHERE study_instance = ?3))
               AND (?4 IS NULL OR (d.instance_id IS NOT NULL) = ?4) AND (?5 IS NULL OR d.id < ?5)
             ORDER BY d.id DESC LIMIT ?6",
        )
        .bind(filter.status.map(DeliveryStatus::as_str))
        .bind(filter.destination.as_deref())
        .bind(filter.study.as_ref().map(Uid::as_str))
        .bind(filter.forwarded)
        .bind(filter.before)
        .bind(limit)
        .fetch_all(&self.read)
        .await
        .during("listing deliveries")?;
        let summary = |row: DeliveryRow| {
            Ok(DeliverySummary {
                id: row.id,
                study_instance: uid(&row.study_instance)?,
                sop_instance: uid(&row.sop_instance)?,
                kind: row.kind,
                destination: row.destination,
                next_attempt: next_attempt(&row.status, row.last_words.as_deref(), row.next_attempt),
                status: word(&row.status)?,
                proof_due: row.proof,
                attempts: unsigned(row.attempts)?,
                resends: unsigned(row.resends)?,
                urgent: row.urgent,
                queued_at: Timestamp::from_millis(row.queued_at),
                finished_at: row.finished_at.map(Timestamp::from_millis),
                last_words: row.last_words,
            })
        };
        rows.into_iter().map(summary).collect()
    }
}
