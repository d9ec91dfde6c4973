//! Statements of latencies.

use super::failure::During;
use super::values::{signed, unsigned};
use super::{Connection, Sqlite};
use crate::latency::{Latency, LatencyHistogram, Measure, bound};
use crate::{StoreError, Timestamp};

const DURING: &str = "counting how long something took";

/// Counts one time, in the transaction that ends it. A clock that was set back makes no time negative.
pub(super) async fn count(
    connection: &mut Connection,
    measure: Measure,
    name: &str,
    of_what: &str,
    ms: i64,
) -> Result<(), StoreError> {
    let ms = ms.max(0);
    sqlx::query(
        "INSERT INTO latency (measure, name, of_what, upto_ms, count, sum_ms) VALUES (?, ?, ?, ?, 1, ?)
         ON CONFLICT DO UPDATE SET count = count + 1, sum_ms = sum_ms + excluded.sum_ms",
    )
    .bind(measure.as_str())
    .bind(name)
    .bind(of_what)
    .bind(signed(bound(ms.unsigned_abs())))
    .bind(ms)
    .execute(connection)
    .await
    .during(DURING)?;
    Ok(())
}

/// What is known of a delivery before its state changes.
#[derive(sqlx::FromRow)]
pub(super) struct Way {
    destination: String,
    queued_at: i64,
    is_received: bool,
    accepted_at: Option<i64>,
    proven_at: Option<i64>,
}

impl Way {
    pub(super) async fn of(connection: &mut Connection, delivery: i64) -> Result<Self, StoreError> {
        sqlx::query_as(
            "SELECT destination, queued_at, instance_id IS NOT NULL AS is_received, accepted_at, proven_at
             FROM outbox WHERE id = ?",
        )
        .bind(delivery)
        .fetch_optional(connection)
        .await
        .during(DURING)?
        .ok_or_else(|| StoreError::StaleClaim { what: format!("delivery {delivery}") })
    }

    /// Counts the way to a state, the first time that the delivery comes to it: what is sent again because it was lost is not
    /// counted again.
    pub(super) async fn count(
        &self,
        connection: &mut Connection,
        measure: Measure,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let was_there = match measure {
            Measure::Accepted => self.accepted_at.is_some(),
            Measure::Committed => self.proven_at.is_some(),
            _ => false,
        };
        if was_there {
            return Ok(());
        }
        let kind = if self.is_received { "received" } else { "result" };
        count(connection, measure, &self.destination, kind, now.as_millis() - self.queued_at).await
    }
}

impl Sqlite {
    pub(crate) async fn latencies(&self) -> Result<Vec<Latency>, StoreError> {
        let rows: Vec<(String, String, String, i64, i64, i64)> = sqlx::query_as(
            "SELECT measure, name, of_what, upto_ms, count, sum_ms FROM latency ORDER BY measure, name, of_what, upto_ms",
        )
        .fetch_all(&self.read)
        .await
        .during("reading how long things took")?;
        let mut all: Vec<Latency> = Vec::new();
        for (measure, name, of_what, upto_ms, count, sum_ms) in rows {
            // Of a later program, whose database this one would have refused; or of nobody.
            let unknown = || StoreError::corrupt(format!("{measure:?} as a measure"));
            let measure = Measure::parse(&measure).ok_or_else(unknown)?;
            let is_same = |last: &&mut Latency| (last.measure, &last.name, &last.of_what) == (measure, &name, &of_what);
            let (upto_ms, count, sum_ms) = (unsigned(upto_ms)?, unsigned(count)?, unsigned(sum_ms)?);
            if let Some(last) = all.last_mut().filter(is_same) {
                last.histogram.add(upto_ms, count, sum_ms);
                continue;
            }
            let mut histogram = LatencyHistogram::default();
            histogram.add(upto_ms, count, sum_ms);
            all.push(Latency { measure, name, of_what, histogram });
        }
        Ok(all)
    }
}
