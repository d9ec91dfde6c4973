//! Statements about attribution maps.

use ichor_core::Uid;

use super::failure::During;
use super::objects::ObjectContext;
use super::retention::made_again;
use super::values::{blob as parse_blob, signed, unsigned};
use super::{Connection, Sqlite};
use crate::blobs::{BlobRef, BlobStore, StagedBlob};
use crate::{MapFile, MapPlace, SliceMap, StoreError, Timestamp};

#[derive(sqlx::FromRow)]
struct MapRow {
    positive: Option<bool>,
    blob: Option<String>,
    removed_at: Option<i64>,
    is_slice: bool,
    map_offset: Option<i64>,
    map_bytes: Option<i64>,
}

/// A place, if both columns have a value.
pub(super) fn place(offset: Option<i64>, bytes: Option<i64>) -> Result<Option<MapPlace>, StoreError> {
    let (Some(offset), Some(bytes)) = (offset, bytes) else { return Ok(None) };
    Ok(Some(MapPlace { offset: unsigned(offset)?, bytes: unsigned(bytes)? }))
}

/// The maps of an earlier run of the same version go, these come. Equal ones that are there stay.
pub(super) async fn replace(
    connection: &mut Connection,
    context: &ObjectContext<'_>,
    staged: Option<StagedBlob>,
    published: &mut Vec<BlobRef>,
) -> Result<(), StoreError> {
    let during = "recording attribution maps";
    let known: Option<(Vec<u8>, String, i64, bool)> =
        sqlx::query_as("SELECT digest, blob, size, removed_at IS NOT NULL FROM attribution_map WHERE analysis_id = ?")
            .bind(context.analysis)
            .fetch_optional(&mut *connection)
            .await
            .during(during)?;
    if let Some((digest, blob, size, is_removed)) = known {
        let is_there = !is_removed && context.blobs.is_intact(&parse_blob(&blob)?, unsigned(size)?).await;
        if is_there && staged.as_ref().is_some_and(|staged| digest == staged.digest()) {
            return Ok(());
        }
        // A file that is no longer kept is doomed already.
        sqlx::query("INSERT INTO doomed_blob (blob, size) SELECT ?1, ?2 WHERE NOT ?3")
            .bind(&blob)
            .bind(size)
            .bind(is_removed)
            .execute(&mut *connection)
            .await
            .during(during)?;
        sqlx::query("DELETE FROM attribution_map WHERE analysis_id = ?")
            .bind(context.analysis)
            .execute(&mut *connection)
            .await
            .during(during)?;
    }
    let Some(staged) = staged else { return Ok(()) };
    let (size, digest) = (staged.size(), staged.digest());
    let blob = context.blobs.publish(staged).await?;
    published.push(blob.clone());
    sqlx::query(
        "INSERT INTO attribution_map (analysis_id, study_id, created_at, blob, size, digest) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(context.analysis)
    .bind(context.study)
    .bind(context.now.as_millis())
    .bind(blob.as_str())
    .bind(signed(size))
    .bind(&digest[..])
    .execute(&mut *connection)
    .await
    .during(during)?;
    made_again(connection, context.study).await
}

impl Sqlite {
    pub(crate) async fn slice_map(
        &self,
        blobs: &BlobStore,
        study: &Uid,
        instance: &Uid,
        frame: Option<u32>,
    ) -> Result<SliceMap, StoreError> {
        let row: Option<MapRow> = sqlx::query_as(
            "SELECT s.positive, m.blob, m.removed_at, l.analysis_id IS NOT NULL AS is_slice, l.map_offset, l.map_bytes
             FROM study s
             LEFT JOIN analysis a ON a.study_id = s.id AND a.version = s.result_version
             LEFT JOIN attribution_map m ON m.analysis_id = a.id
             LEFT JOIN slice_score l ON l.analysis_id = a.id AND l.sop_instance = ?2 AND (?3 IS NULL OR l.frame = ?3)
             WHERE s.study_instance = ?1 ORDER BY l.position LIMIT 1",
        )
        .bind(study.as_str())
        .bind(instance.as_str())
        .bind(frame)
        .fetch_optional(&self.read)
        .await
        .during("looking for an attribution map")?;
        let row = row.ok_or_else(|| StoreError::NotFound { what: format!("study {study}") })?;
        Ok(match (row.positive, row.blob, row.removed_at, place(row.map_offset, row.map_bytes)?) {
            (None, ..) => SliceMap::NoFinding,
            _ if !row.is_slice => SliceMap::OtherSlice,
            (Some(false), ..) => SliceMap::NegativeStudy,
            (_, None, ..) => SliceMap::NeverKept,
            (_, _, _, None) => SliceMap::NegativeSlice,
            (_, _, Some(removed_at), _) => SliceMap::Removed(Timestamp::from_millis(removed_at)),
            (_, Some(blob), None, Some(place)) => {
                SliceMap::Kept(MapFile { path: blobs.path_of(&parse_blob(&blob)?), place })
            }
        })
    }
}
