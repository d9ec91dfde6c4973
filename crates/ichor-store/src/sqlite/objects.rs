//! Statements about result objects: their rows, their files, and their deliveries in the outbox.

use serde_json::json;

use super::Connection;
use super::events::NewEvent;
use super::failure::During;
use super::retention::made_again;
use super::values::{blob as parse_blob, signed, unsigned};
use crate::analyse::NewObject;
use crate::blobs::{BlobRef, BlobStore};
use crate::{StoreError, Timestamp};

/// What an object needs besides itself.
pub(super) struct ObjectContext<'a> {
    pub(super) blobs: &'a BlobStore,
    pub(super) study: i64,
    pub(super) analysis: i64,
    pub(super) urgent: bool,
    pub(super) now: Timestamp,
}

/// Records an object and its deliveries. An object that is there already is kept.
pub(super) async fn insert_object(
    connection: &mut Connection,
    context: &ObjectContext<'_>,
    object: NewObject,
    published: &mut Vec<BlobRef>,
) -> Result<(), StoreError> {
    let during = "recording an object";
    let known: Option<(i64, Vec<u8>, String, i64, bool)> =
        sqlx::query_as("SELECT id, digest, blob, size, removed_at IS NOT NULL FROM object WHERE sop_instance = ?")
            .bind(object.sop_instance.as_str())
            .fetch_optional(&mut *connection)
            .await
            .during(during)?;
    let (kind, sop_instance) = (object.kind.clone(), object.sop_instance.clone());
    let destinations = object.destinations.clone();
    let event = |word, text: String| {
        NewEvent::new(context.now, word, text)
            .detail(json!({ "kind": kind, "sop_instance": sop_instance, "destinations": destinations }))
            .study(context.study)
    };
    let id = match known {
        None => {
            let id = insert_new_object(connection, context, object, published).await?;
            let text = format!("{kind} {sop_instance} made, for {}", list(&destinations));
            event("object-created", text).write(&mut *connection).await?;
            id
        }
        Some((id, digest, blob, size, is_removed)) => {
            let intact = !is_removed && context.blobs.is_intact(&parse_blob(&blob)?, unsigned(size)?).await;
            let same = digest == object.staged.digest();
            if !intact {
                replace_bytes(connection, context, id, object, published).await?;
                event("blob-restored", format!("{kind} {sop_instance} replaces the file that is gone"))
                    .write(&mut *connection)
                    .await?;
            } else if !same {
                let text = format!("{kind} {sop_instance} was made again with other content; the first one stays");
                event("object-differs", text).write(&mut *connection).await?;
            } else {
                let text = format!("{kind} {sop_instance} was made again, the same as before");
                event("object-kept", text).write(&mut *connection).await?;
            }
            id
        }
    };
    made_again(connection, context.study).await?;
    for destination in &destinations {
        sqlx::query(
            "INSERT INTO outbox (study_id, object_id, destination, status, urgent, queued_at, next_attempt)
             VALUES (?, ?, ?, 'queued', ?, ?, ?) ON CONFLICT (object_id, destination) DO NOTHING",
        )
        .bind(context.study)
        .bind(id)
        .bind(destination)
        .bind(context.urgent)
        .bind(context.now.as_millis())
        .bind(context.now.as_millis())
        .execute(&mut *connection)
        .await
        .during("queueing a delivery")?;
    }
    Ok(())
}

async fn insert_new_object(
    connection: &mut Connection,
    context: &ObjectContext<'_>,
    object: NewObject,
    published: &mut Vec<BlobRef>,
) -> Result<i64, StoreError> {
    let (size, digest) = (object.staged.size(), object.staged.digest());
    let blob = context.blobs.publish(object.staged).await?;
    published.push(blob.clone());
    sqlx::query_scalar(
        "INSERT INTO object (study_id, analysis_id, kind, sop_class, sop_instance, series_instance, transfer_syntax,
             created_at, blob, size, digest)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(context.study)
    .bind(context.analysis)
    .bind(&object.kind)
    .bind(object.sop_class.as_str())
    .bind(object.sop_instance.as_str())
    .bind(object.series_instance.as_str())
    .bind(object.transfer_syntax.as_str())
    .bind(context.now.as_millis())
    .bind(blob.as_str())
    .bind(signed(size))
    .bind(&digest[..])
    .fetch_one(connection)
    .await
    .during("recording an object")
}

async fn replace_bytes(
    connection: &mut Connection,
    context: &ObjectContext<'_>,
    id: i64,
    object: NewObject,
    published: &mut Vec<BlobRef>,
) -> Result<(), StoreError> {
    let (size, digest) = (object.staged.size(), object.staged.digest());
    let blob = context.blobs.publish(object.staged).await?;
    published.push(blob.clone());
    sqlx::query("UPDATE object SET blob = ?, size = ?, digest = ?, removed_at = NULL WHERE id = ?")
        .bind(blob.as_str())
        .bind(signed(size))
        .bind(&digest[..])
        .bind(id)
        .execute(connection)
        .await
        .during("restoring an object")?;
    Ok(())
}

fn list(destinations: &[String]) -> String {
    if destinations.is_empty() { "no destination".to_owned() } else { destinations.join(", ") }
}
