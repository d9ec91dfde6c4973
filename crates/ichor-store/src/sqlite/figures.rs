//! Statements of figures.

use super::Sqlite;
use super::failure::During;
use super::values::{unsigned, word};
use crate::figures::{Figures, Recent};
use crate::{StoreError, Timestamp};

const DURING: &str = "counting";

/// Positive, alerted.
type RecentRow = (Option<bool>, bool);

impl Sqlite {
    /// All but the depths of the queues.
    pub(crate) async fn figures(&self, since: Timestamp) -> Result<Figures, StoreError> {
        let mut tx = self.read.begin().await.during(DURING)?;
        let studies: Vec<(String, i64)> = sqlx::query_as("SELECT status, COUNT(*) FROM study GROUP BY status")
            .fetch_all(&mut *tx)
            .await
            .during(DURING)?;
        let (instances, open_associations, oldest_analysis): (i64, i64, Option<i64>) = sqlx::query_as(
            "SELECT COALESCE((SELECT MAX(id) FROM instance), 0),
                 (SELECT COUNT(*) FROM association WHERE closed_at IS NULL),
                 (SELECT MIN(queued_at) FROM analysis WHERE status IN ('queued', 'running'))",
        )
        .fetch_one(&mut *tx)
        .await
        .during(DURING)?;
        let oldest_deliveries: Vec<(String, i64)> = sqlx::query_as(
            "SELECT destination, MIN(queued_at) FROM outbox WHERE status IN ('queued', 'sending') GROUP BY destination",
        )
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        let unproven: Vec<(String, i64)> = sqlx::query_as(
            "SELECT destination, COUNT(*) FROM outbox
             WHERE proof IS NOT NULL AND status IN ('accepted', 'committed') GROUP BY destination",
        )
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        let oldest_messages: Vec<(String, i64)> = sqlx::query_as(
            "SELECT channel, MIN(queued_at) FROM message WHERE status IN ('queued', 'sending') GROUP BY channel",
        )
        .fetch_all(&mut *tx)
        .await
        .during(DURING)?;
        let recent: Vec<RecentRow> =
            sqlx::query_as("SELECT positive, alerted_at IS NOT NULL FROM study WHERE received_at >= ?")
                .bind(since.as_millis())
                .fetch_all(&mut *tx)
                .await
                .during(DURING)?;
        let status = |(status, count): (String, i64)| Ok::<_, StoreError>((word(&status)?, unsigned(count)?));
        let moments =
            |rows: Vec<(String, i64)>| rows.into_iter().map(|(name, at)| (name, Timestamp::from_millis(at))).collect();
        let count = |what: fn(&RecentRow) -> bool| recent.iter().filter(|row| what(row)).count() as u64;
        Ok(Figures {
            studies: studies.into_iter().map(status).collect::<Result<_, _>>()?,
            instances: unsigned(instances)?,
            open_associations: unsigned(open_associations)?,
            oldest_analysis: oldest_analysis.map(Timestamp::from_millis),
            oldest_deliveries: moments(oldest_deliveries),
            unproven: unproven
                .into_iter()
                .map(|(name, count)| Ok::<_, StoreError>((name, unsigned(count)?)))
                .collect::<Result<_, _>>()?,
            oldest_messages: moments(oldest_messages),
            recent: Recent {
                positive: count(|(positive, _)| *positive == Some(true)),
                negative: count(|(positive, _)| *positive == Some(false)),
                alerted: count(|(_, alerted)| *alerted),
            },
            ..Figures::default()
        })
    }
}
