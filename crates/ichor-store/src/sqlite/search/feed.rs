//! Statements of the feed.

use super::super::Sqlite;
use super::super::failure::During;
use super::super::values::{from_json, uid};
use crate::search::LoggedEvent;
use crate::{StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: i64,
    kind: String,
    text: String,
    detail: String,
    study_instance: Option<String>,
}

impl Sqlite {
    pub(crate) async fn events_after(&self, id: i64, limit: u32) -> Result<Vec<LoggedEvent>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT e.id, e.at, e.kind, e.text, e.detail, s.study_instance
             FROM event e LEFT JOIN study s ON s.id = e.study_id WHERE e.id > ? ORDER BY e.id LIMIT ?",
        )
        .bind(id)
        .bind(limit)
        .fetch_all(&self.read)
        .await
        .during("following events")?;
        let event = |row: Row| {
            Ok(LoggedEvent {
                id: row.id,
                at: Timestamp::from_millis(row.at),
                kind: row.kind,
                text: row.text,
                detail: from_json(&row.detail)?,
                study_instance: row.study_instance.as_deref().map(uid).transpose()?,
            })
        };
        rows.into_iter().map(event).collect()
    }

    pub(crate) async fn newest_event(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT COALESCE(MAX(id), 0) FROM event")
            .fetch_one(&self.read)
            .await
            .during("looking for the newest event")
    }
}
