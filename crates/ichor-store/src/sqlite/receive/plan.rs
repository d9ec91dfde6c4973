//! What an instance turns out to be, before anything is written.

use std::collections::HashMap;

use ichor_core::{AeTitle, StudyStatus, Uid};

use super::super::Connection;
use super::super::failure::During;
use super::super::values::{blob as parse_blob, unsigned, word};
use crate::StoreError;
use crate::blobs::BlobStore;
use crate::group_commit::Description;

/// What an entry turns out to be.
pub(super) enum Plan {
    /// Not seen before.
    New {
        /// One of our own results.
        own: bool,
        /// Its series, if that is known and the instance teaches nothing about it, its study and its patient.
        series: Option<i64>,
    },
    /// Not seen before, and its study can take no more.
    Full,
    /// Seen before, same content, file in place.
    Duplicate { study: i64 },
    /// Seen before, same content, but the file is gone: these bytes take its place.
    Restore { instance: i64, study: i64 },
    /// Other content than the first.
    Conflict { instance: i64, study: i64 },
    /// Other content than the first, and kept apart already.
    KnownConflict { study: i64 },
}

impl Plan {
    pub(super) fn needs_bytes(&self) -> bool {
        matches!(self, Self::New { .. } | Self::Restore { .. } | Self::Conflict { .. })
    }
}

/// A study in the database.
#[derive(Clone, Copy)]
pub(super) struct KnownStudy {
    pub(super) id: i64,
    pub(super) status: StudyStatus,
    pub(super) version: i64,
    pub(super) instances: i64,
}

/// A study of a batch: as it was before, then as the batch leaves it.
#[derive(Default)]
pub(super) struct BatchStudy {
    pub(super) known: Option<KnownStudy>,
    /// Instances that the batch adds to it.
    pub(super) planned: i64,
}

/// The studies of a batch, each read once.
pub(super) type Studies = HashMap<Uid, BatchStudy>;

/// The columns of an instance that decide what becomes of another under its UID, and its study's columns.
#[derive(sqlx::FromRow)]
struct KnownRow {
    instance: Option<i64>,
    instance_study: Option<i64>,
    digest: Option<Vec<u8>>,
    blob: Option<String>,
    size: Option<i64>,
    is_removed: bool,
    made_here: bool,
    study: Option<i64>,
    status: Option<String>,
    version: Option<i64>,
    instances: Option<i64>,
    series: Option<i64>,
}

/// What becomes of an instance; its study is read once a batch.
pub(super) async fn plan(
    connection: &mut Connection,
    blobs: &BlobStore,
    new: &Description,
    studies: &mut Studies,
) -> Result<Plan, StoreError> {
    let row: KnownRow = sqlx::query_as(
        "SELECT i.id AS instance, i.study_id AS instance_study, i.digest, i.blob, i.size,
             i.removed_at IS NOT NULL AS is_removed,
             EXISTS (SELECT 1 FROM object WHERE sop_instance = ?1) AS made_here,
             s.id AS study, s.status, s.version, s.instances,
             CASE WHEN (r.modality IS NULL) <= (?4 IS NULL) AND (r.description IS NULL) <= (?5 IS NULL)
                 AND (r.number IS NULL) <= (?6 IS NULL) AND (s.patient_id IS NULL) <= (?7 IS NULL)
                 AND (s.patient_name IS NULL) <= (?8 IS NULL) AND (s.accession_number IS NULL) <= (?9 IS NULL)
                 AND (s.study_date IS NULL) <= (?10 IS NULL) AND (s.description IS NULL) <= (?11 IS NULL)
                 AND (s.source_ae IS NULL) <= (?12 IS NULL) THEN r.id END AS series
         FROM (SELECT 1) LEFT JOIN instance i ON i.sop_instance = ?1 LEFT JOIN study s ON s.study_instance = ?2
             LEFT JOIN series r ON r.study_id = s.id AND r.series_instance = ?3",
    )
    .bind(new.sop_instance.as_str())
    .bind(new.study.study_instance.as_str())
    .bind(new.series.series_instance.as_str())
    .bind(&new.series.modality)
    .bind(&new.series.description)
    .bind(new.series.number)
    .bind(&new.study.patient_id)
    .bind(&new.study.patient_name)
    .bind(&new.study.accession_number)
    .bind(&new.study.study_date)
    .bind(&new.study.description)
    .bind(new.source_ae.as_ref().map(AeTitle::as_str))
    .fetch_one(&mut *connection)
    .await
    .during("looking for an instance")?;
    let known_study = match (row.study, row.status, row.version, row.instances) {
        (Some(id), Some(status), Some(version), Some(instances)) => {
            Some(KnownStudy { id, status: word(&status)?, version, instances })
        }
        _ => None,
    };
    let study = studies
        .entry(new.study.study_instance.clone())
        .or_insert_with(|| BatchStudy { known: known_study, planned: 0 });
    let (Some(instance), Some(instance_study), Some(digest), Some(blob), Some(size)) =
        (row.instance, row.instance_study, row.digest, row.blob, row.size)
    else {
        let own = new.own || row.made_here;
        let instances = study.known.map_or(0, |known| known.instances) + study.planned;
        if !own && instances >= i64::from(new.max_study_instances) {
            return Ok(Plan::Full);
        }
        study.planned += i64::from(!own);
        return Ok(Plan::New { own, series: row.series });
    };
    let study = instance_study;
    if digest == new.digest {
        // A file that is doomed may still be there.
        let intact = !row.is_removed && blobs.is_intact(&parse_blob(&blob)?, unsigned(size)?).await;
        return Ok(if intact { Plan::Duplicate { study } } else { Plan::Restore { instance, study } });
    }
    let kept: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM conflict WHERE instance_id = ? AND digest = ? AND removed_at IS NULL)",
    )
    .bind(instance)
    .bind(&new.digest[..])
    .fetch_one(connection)
    .await
    .during("looking for a conflict")?;
    Ok(if kept { Plan::KnownConflict { study } } else { Plan::Conflict { instance, study } })
}
