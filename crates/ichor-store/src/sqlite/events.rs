//! Writing the event log, always in the transaction of what happened.

use serde_json::Value;

use super::Connection;
use super::failure::During;
use crate::{StoreError, Timestamp};

/// An event about to be written.
pub(super) struct NewEvent {
    at: Timestamp,
    kind: &'static str,
    text: String,
    detail: Value,
    study: Option<i64>,
    association: Option<i64>,
}

impl NewEvent {
    pub(super) fn new(at: Timestamp, kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            text: text.into(),
            detail: Value::Object(serde_json::Map::new()),
            study: None,
            association: None,
        }
    }

    pub(super) fn detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }

    /// The study that it is about, by its row.
    pub(super) fn study(self, id: i64) -> Self {
        Self { study: Some(id), ..self }
    }

    /// The association that brought it about.
    pub(super) fn association(self, id: Option<i64>) -> Self {
        Self { association: id, ..self }
    }

    pub(super) async fn write(self, connection: &mut Connection) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO event (at, kind, text, detail, study_id, association_id) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(self.at.as_millis())
            .bind(self.kind)
            .bind(self.text)
            .bind(self.detail.to_string())
            .bind(self.study)
            .bind(self.association)
            .execute(connection)
            .await
            .during("writing an event")?;
        Ok(())
    }
}
