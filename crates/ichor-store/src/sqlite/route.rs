//! Statements about routing.

use ichor_core::Uid;
use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::values::blob as parse_blob;
use super::{Connection, Sqlite};
use crate::analyse::Routed;
use crate::blobs::BlobStore;
use crate::{StoreError, Timestamp};

impl Sqlite {
    pub(crate) async fn first_instance(
        &self,
        blobs: &BlobStore,
        study: &Uid,
    ) -> Result<Option<std::path::PathBuf>, StoreError> {
        let blob: Option<String> = sqlx::query_scalar(
            "SELECT i.blob FROM instance i JOIN study s ON s.id = i.study_id
             WHERE s.study_instance = ? AND i.own = 0 AND i.removed_at IS NULL ORDER BY i.id LIMIT 1",
        )
        .bind(study.as_str())
        .fetch_optional(&self.read)
        .await
        .during("looking for an instance")?;
        blob.map(|blob| Ok(blobs.path_of(&parse_blob(&blob)?))).transpose()
    }
}

/// Says which rule fired, and why each before it did not.
pub(super) async fn write_event(
    connection: &mut Connection,
    study: i64,
    routed: &Routed,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut text = match &routed.rule {
        Some(rule) => format!("rule {rule:?} fires"),
        None => "no rule fires: every destination gets what it asks for".to_owned(),
    };
    for (rule, why) in &routed.passed_over {
        text += &format!("; {rule}: {why}");
    }
    NewEvent::new(now, "routed", text)
        .detail(json!({ "rule": routed.rule, "passed_over": routed.passed_over, "urgent": routed.urgent }))
        .study(study)
        .write(connection)
        .await
}
