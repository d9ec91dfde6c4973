//! Files that were gone and came again: one line in the timeline for all that one association brought of a study.

use serde_json::json;

use crate::sqlite::Connection;
use crate::sqlite::events::NewEvent;
use crate::sqlite::failure::During;
use crate::{StoreError, Timestamp};

/// What came without an association belongs together if no more than this lies between, in milliseconds.
const TOGETHER_MS: i64 = 60_000;

/// One more of them.
pub(super) async fn note(
    connection: &mut Connection,
    study: i64,
    association: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let counted = sqlx::query(
        "UPDATE event SET detail = json_set(detail, '$.files', json_extract(detail, '$.files') + 1),
             text = (json_extract(detail, '$.files') + 1) || ' files came again and replace those that are gone'
         WHERE id = (SELECT id FROM event WHERE study_id = ?1 AND kind = 'blob-restored' AND association_id IS ?2
                 AND json_extract(detail, '$.files') > 0 ORDER BY id DESC LIMIT 1)
             AND (?2 IS NOT NULL OR at >= ?3)",
    )
    .bind(study)
    .bind(association)
    .bind(now.as_millis().saturating_sub(TOGETHER_MS))
    .execute(&mut *connection)
    .await
    .during("recording that a file came again")?
    .rows_affected();
    if counted > 0 {
        return Ok(());
    }
    NewEvent::new(now, "blob-restored", "1 file came again and replaces the one that is gone")
        .detail(json!({ "files": 1, "association": association }))
        .study(study)
        .association(association)
        .write(connection)
        .await
}
