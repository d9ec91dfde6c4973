//! Statements that queue dead deliveries again: by thousands after an outage, while others are received and sent.

use std::collections::BTreeMap;

use ichor_core::Uid;
use serde_json::json;

use super::super::events::NewEvent;
use super::super::failure::During;
use super::super::proof::tell;
use super::super::{Connection, Sqlite};
use crate::{StoreError, Timestamp};

const DURING: &str = "queueing deliveries again";

/// Most deliveries that one transaction queues: nobody else writes while it lasts.
const BATCH: u32 = 1_000;

/// Which dead deliveries. Fields that are `None` do not filter.
#[derive(Clone, Copy, Default)]
pub(crate) struct Dead<'a> {
    pub(crate) number: Option<i64>,
    pub(crate) destination: Option<&'a str>,
    pub(crate) study: Option<&'a Uid>,
}

#[derive(sqlx::FromRow)]
struct Revived {
    id: i64,
    study_id: i64,
    destination: String,
    is_received: bool,
}

impl Sqlite {
    /// Queues dead deliveries again; how many. Each transaction takes its share of them and has its own row in the audit
    /// trail: what an error or a kill leaves undone is told of by nobody.
    pub(crate) async fn retry_deliveries(&self, which: Dead<'_>, now: Timestamp) -> Result<u64, StoreError> {
        self.retry_in_batches(which, BATCH, now).await
    }

    async fn retry_in_batches(&self, which: Dead<'_>, batch: u32, now: Timestamp) -> Result<u64, StoreError> {
        let (mut all, mut after) = (0, 0);
        loop {
            let mut tx = self.begin(DURING).await?;
            let refused: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM refused_context WHERE until > ?1 AND (?2 IS NULL OR destination = ?2)",
            )
            .bind(now.as_millis())
            .bind(which.destination)
            .fetch_one(&mut *tx)
            .await
            .during(DURING)?;
            let revived = revive_some(&mut tx, which, (after, batch), now).await?;
            if let (Some(number), true) = (which.number, revived.is_empty()) {
                return Err(StoreError::NotFound { what: format!("dead delivery {number}") });
            }
            if revived.is_empty() && (refused == 0 || all > 0) {
                return Ok(all);
            }
            tx.commit_with(&json!({ "deliveries": revived.len() })).await.during(DURING)?;
            all += revived.len() as u64;
            // One that has died again meanwhile is not taken twice.
            after = revived.iter().copied().max().unwrap_or(after);
            if revived.len() < batch as usize {
                return Ok(all);
            }
        }
    }
}

/// Queues dead deliveries again, a batch at most; their numbers. What the destination refused is proposed again at once.
pub(in crate::sqlite) async fn revive(
    connection: &mut Connection,
    which: Dead<'_>,
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    revive_some(connection, which, (0, BATCH), now).await
}

/// [`revive`], of the deliveries beyond a number so many at most.
async fn revive_some(
    connection: &mut Connection,
    which: Dead<'_>,
    (after, most): (i64, u32),
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let Dead { number, destination, study } = which;
    let revived: Vec<Revived> = sqlx::query_as(
        "UPDATE outbox SET status = 'queued', attempts = 0, next_attempt = ?1, finished_at = NULL, proof = NULL,
             request_id = NULL, missing = NULL, resends = 0
         WHERE id IN (SELECT id FROM outbox WHERE status = 'dead' AND id > ?5 AND (?2 IS NULL OR id = ?2)
             AND (?3 IS NULL OR destination = ?3)
             AND (?4 IS NULL OR study_id = (SELECT id FROM study WHERE study_instance = ?4)) ORDER BY id LIMIT ?6)
         RETURNING id, study_id, destination, object_id IS NULL AS is_received",
    )
    .bind(now.as_millis())
    .bind(number)
    .bind(destination)
    .bind(study.map(Uid::as_str))
    .bind(after)
    .bind(most)
    .fetch_all(&mut *connection)
    .await
    .during(DURING)?;
    // Of a study that is forwarded there are thousands: one event says it of all of them.
    let mut forwarded: BTreeMap<(i64, &str), Vec<i64>> = BTreeMap::new();
    let mut single = Vec::new();
    for delivery in &revived {
        match delivery.is_received {
            true => forwarded.entry((delivery.study_id, delivery.destination.as_str())).or_default().push(delivery.id),
            false => single.push(delivery.id),
        }
    }
    for ((study, destination), deliveries) in forwarded {
        match deliveries.as_slice() {
            [one] => single.push(*one),
            several => tell_of_several(connection, (study, destination), several, now).await?,
        }
    }
    for delivery in single {
        let text = |kind: &str, to: &str| format!("the dead delivery of {kind} to {to} is queued again");
        tell(connection, delivery, "delivery-requeued", text, now).await?;
    }
    sqlx::query("UPDATE refused_context SET until = ?1 WHERE until > ?1 AND (?2 IS NULL OR destination = ?2)")
        .bind(now.as_millis())
        .bind(destination)
        .execute(&mut *connection)
        .await
        .during(DURING)?;
    Ok(revived.iter().map(|delivery| delivery.id).collect())
}

/// Writes one event about the received slices of a study that are queued again for a destination.
async fn tell_of_several(
    connection: &mut Connection,
    (study, destination): (i64, &str),
    deliveries: &[i64],
    now: Timestamp,
) -> Result<(), StoreError> {
    let instances: Vec<String> = sqlx::query_scalar(
        "SELECT i.sop_instance FROM outbox o JOIN instance i ON i.id = o.instance_id
         WHERE o.id IN (SELECT value FROM json_each(?)) ORDER BY o.id",
    )
    .bind(json!(deliveries).to_string())
    .fetch_all(&mut *connection)
    .await
    .during(DURING)?;
    let text = format!("{} dead deliveries of received slices to {destination} are queued again", deliveries.len());
    NewEvent::new(now, "deliveries-requeued", text)
        .detail(json!({ "destination": destination, "deliveries": deliveries.len(), "sop_instances": instances }))
        .study(study)
        .write(connection)
        .await
}

#[cfg(test)]
mod tests;
