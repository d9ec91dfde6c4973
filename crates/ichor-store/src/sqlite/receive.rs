//! Statements of receive: instances.

use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::values::{blob as parse_blob, signed, uid, unsigned, word};
use super::{Connection, Sqlite};
use crate::blobs::{BlobRef, BlobStore};
use crate::group_commit::{Bytes, Description, Entry};
use crate::receive::{InstanceId, Recorded};
use crate::{StoreError, Timestamp};
use ichor_core::{AeTitle, StudyStatus, Uid};

/// What an entry turns out to be.
enum Plan {
    /// Not seen before.
    New,
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
    fn needs_bytes(&self) -> bool {
        matches!(self, Self::New | Self::Restore { .. } | Self::Conflict { .. })
    }
}

impl Sqlite {
    pub(crate) async fn has_room(&self, study: &Uid, sop_instance: &Uid, most: u32) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT NOT EXISTS (SELECT 1 FROM study WHERE study_instance = ? AND instances >= ?)
                 OR EXISTS (SELECT 1 FROM instance WHERE sop_instance = ?)",
        )
        .bind(study.as_str())
        .bind(most)
        .bind(sop_instance.as_str())
        .fetch_one(&self.read)
        .await
        .during("counting the instances of a study")
    }

    pub(crate) async fn is_own_object(&self, sop_instance: &Uid) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM object WHERE sop_instance = ?)")
            .bind(sop_instance.as_str())
            .fetch_one(&self.read)
            .await
            .during("looking for an object")
    }

    /// Whether a committed row points to this blob.
    pub(crate) async fn is_blob_known(&self, blob: &BlobRef) -> Result<bool, StoreError> {
        sqlx::query_scalar(BLOB_IS_KNOWN).bind(blob.as_str()).fetch_one(&self.read).await.during("looking for a blob")
    }

    /// Publishes and records all entries in one transaction. The entries have different SOP Instance UIDs. An entry
    /// whose bytes cannot be published gets its failure and no outcome; any other failure is that of the whole batch.
    pub(crate) async fn record_instances(
        &self,
        blobs: &BlobStore,
        entries: &mut [Entry],
    ) -> Result<Vec<Option<Recorded>>, StoreError> {
        let during = "recording instances";
        let mut tx = self.begin(during).await?;
        let mut plans = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            plans.push(plan(&mut tx, blobs, &entry.instance).await?);
        }
        publish(&mut tx, blobs, entries, &plans).await;
        let mut outcomes = Vec::with_capacity(entries.len());
        for (entry, plan) in entries.iter().zip(&plans) {
            outcomes.push(match entry.failure {
                Some(_) => None,
                None => Some(apply(&mut tx, entry, plan).await?),
            });
        }
        tx.commit().await.during(during)?;
        Ok(outcomes)
    }
}

async fn plan(connection: &mut Connection, blobs: &BlobStore, new: &Description) -> Result<Plan, StoreError> {
    let known: Option<(i64, i64, Vec<u8>, String, i64)> =
        sqlx::query_as("SELECT id, study_id, sha256, blob, size FROM instance WHERE sop_instance = ?")
            .bind(new.sop_instance.as_str())
            .fetch_optional(&mut *connection)
            .await
            .during("looking for an instance")?;
    let Some((instance, study, sha256, blob, size)) = known else { return Ok(Plan::New) };
    if sha256 == new.sha256 {
        let intact = blobs.is_intact(&parse_blob(&blob)?, unsigned(size)?).await;
        return Ok(if intact { Plan::Duplicate { study } } else { Plan::Restore { instance, study } });
    }
    let kept: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM conflict WHERE instance_id = ? AND sha256 = ?)")
        .bind(instance)
        .bind(&new.sha256[..])
        .fetch_one(connection)
        .await
        .during("looking for a conflict")?;
    Ok(if kept { Plan::KnownConflict { study } } else { Plan::Conflict { instance, study } })
}

/// Whether a row points to a blob.
const BLOB_IS_KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM instance WHERE blob = ?1)
    OR EXISTS (SELECT 1 FROM conflict WHERE blob = ?1) OR EXISTS (SELECT 1 FROM object WHERE blob = ?1)";

/// Publishes the bytes that are needed, with one fsync a shelf, and drops the others.
async fn publish(connection: &mut Connection, blobs: &BlobStore, entries: &mut [Entry], plans: &[Plan]) {
    let (mut positions, mut staged) = (Vec::new(), Vec::new());
    for (position, (entry, plan)) in entries.iter_mut().zip(plans).enumerate() {
        match std::mem::replace(&mut entry.bytes, Bytes::Gone) {
            Bytes::Staged(bytes) if plan.needs_bytes() => {
                positions.push(position);
                staged.push(bytes);
            }
            // Published by an earlier try at this entry.
            Bytes::Published(blob) if plan.needs_bytes() => entry.bytes = Bytes::Published(blob),
            // The commit of that try may have reached the medium although it was reported as failed.
            Bytes::Published(blob) => {
                let known = sqlx::query_scalar(BLOB_IS_KNOWN).bind(blob.as_str()).fetch_one(&mut *connection);
                if let Ok(false) = known.await {
                    blobs.remove(&blob).await;
                }
            }
            Bytes::Staged(_) | Bytes::Gone => {}
        }
    }
    for (position, published) in positions.into_iter().zip(blobs.publish_all(staged).await) {
        match published {
            Ok(blob) => entries[position].bytes = Bytes::Published(blob),
            Err(error) => entries[position].failure = Some(error),
        }
    }
}

async fn apply(connection: &mut Connection, entry: &Entry, plan: &Plan) -> Result<Recorded, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let event = |kind, text: String, study| {
        NewEvent::new(now, kind, text)
            .detail(json!({ "sop_instance": new.sop_instance, "association": new.association }))
            .study(study)
            .association(new.association)
    };
    match plan {
        Plan::New => insert(connection, entry).await,
        Plan::Duplicate { study } => {
            let text = format!("{} came again, with the same content", new.sop_instance);
            event("duplicate", text, *study).write(connection).await?;
            Ok(Recorded::Duplicate)
        }
        Plan::Restore { instance, study } => {
            sqlx::query("UPDATE instance SET blob = ?, size = ? WHERE id = ?")
                .bind(published(entry)?.as_str())
                .bind(signed(new.size))
                .bind(instance)
                .execute(&mut *connection)
                .await
                .during("restoring an instance")?;
            let text = format!("{} came again and replaces the lost file", new.sop_instance);
            event("blob-restored", text, *study).write(connection).await?;
            Ok(Recorded::Duplicate)
        }
        Plan::Conflict { instance, study } => {
            keep_apart(connection, entry, *instance).await?;
            let text = format!(
                "{} came again with other content; the first one stays, this one is kept apart",
                new.sop_instance
            );
            event("conflict", text, *study).write(connection).await?;
            Ok(Recorded::Conflict)
        }
        Plan::KnownConflict { study } => {
            let text = format!("{} came again with other content that is kept apart already", new.sop_instance);
            event("conflict", text, *study).write(connection).await?;
            Ok(Recorded::Conflict)
        }
    }
}

fn published(entry: &Entry) -> Result<&BlobRef, StoreError> {
    match &entry.bytes {
        Bytes::Published(blob) => Ok(blob),
        Bytes::Staged(_) | Bytes::Gone => {
            Err(StoreError::corrupt(format!("instance {} without bytes", entry.instance.sop_instance)))
        }
    }
}

async fn keep_apart(connection: &mut Connection, entry: &Entry, instance: i64) -> Result<(), StoreError> {
    let new = &entry.instance;
    sqlx::query(
        "INSERT INTO conflict
             (instance_id, association_id, transfer_syntax, source_ae, received_at, blob, size, sha256)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(instance)
    .bind(new.association)
    .bind(new.transfer_syntax.as_str())
    .bind(new.source_ae.as_ref().map(AeTitle::as_str))
    .bind(entry.now.as_millis())
    .bind(published(entry)?.as_str())
    .bind(signed(new.size))
    .bind(&new.sha256[..])
    .execute(connection)
    .await
    .during("recording a conflict")?;
    Ok(())
}

async fn insert(connection: &mut Connection, entry: &Entry) -> Result<Recorded, StoreError> {
    let during = "recording an instance";
    let (new, now) = (&entry.instance, entry.now);
    let study = if new.own {
        own_result_into_study(connection, entry).await?
    } else {
        instance_into_study(connection, entry).await?
    };
    let series: i64 = sqlx::query_scalar(
        "INSERT INTO series (study_id, series_instance, modality, description, number) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (study_id, series_instance) DO UPDATE SET
             modality = COALESCE(modality, excluded.modality),
             description = COALESCE(description, excluded.description),
             number = COALESCE(number, excluded.number)
         RETURNING id",
    )
    .bind(study)
    .bind(new.series.series_instance.as_str())
    .bind(&new.series.modality)
    .bind(&new.series.description)
    .bind(new.series.number)
    .fetch_one(&mut *connection)
    .await
    .during(during)?;
    let instance: i64 = sqlx::query_scalar(
        "INSERT INTO instance (study_id, series_id, association_id, sop_instance, sop_class, transfer_syntax,
             source_ae, received_at, own, blob, size, sha256)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(study)
    .bind(series)
    .bind(new.association)
    .bind(new.sop_instance.as_str())
    .bind(new.sop_class.as_str())
    .bind(new.transfer_syntax.as_str())
    .bind(new.source_ae.as_ref().map(AeTitle::as_str))
    .bind(now.as_millis())
    .bind(new.own)
    .bind(published(entry)?.as_str())
    .bind(signed(new.size))
    .bind(&new.sha256[..])
    .fetch_one(connection)
    .await
    .during(during)?;
    Ok(Recorded::New { instance: InstanceId(instance), study: uid(new.study.study_instance.as_str())? })
}

async fn find_study(
    connection: &mut Connection,
    study: &Uid,
) -> Result<Option<(i64, StudyStatus, i64, i64)>, StoreError> {
    let row: Option<(i64, String, i64, i64)> =
        sqlx::query_as("SELECT id, status, version, instances FROM study WHERE study_instance = ?")
            .bind(study.as_str())
            .fetch_optional(connection)
            .await
            .during("looking for a study")?;
    row.map(|(id, status, version, instances)| Ok((id, word(&status)?, version, instances))).transpose()
}

/// One of our own results: its study stays as it is. A study that holds nothing else has the state `not-analysed`.
async fn own_result_into_study(connection: &mut Connection, entry: &Entry) -> Result<i64, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let study = match find_study(connection, &new.study.study_instance).await? {
        Some((id, ..)) => id,
        None => {
            let id = insert_study(connection, entry, StudyStatus::NotAnalysed).await?;
            sqlx::query("UPDATE study SET reason_code = ?, reason_text = ? WHERE id = ?")
                .bind("own-results-only")
                .bind("the study holds results of this program only")
                .bind(id)
                .execute(&mut *connection)
                .await
                .during("recording a study")?;
            id
        }
    };
    NewEvent::new(now, "own-result-returned", format!("our own result {} came back and is kept", new.sop_instance))
        .detail(json!({ "sop_instance": new.sop_instance, "association": new.association }))
        .study(study)
        .association(new.association)
        .write(connection)
        .await?;
    Ok(study)
}

/// A new instance: its study is receiving from now on, whatever it was before.
async fn instance_into_study(connection: &mut Connection, entry: &Entry) -> Result<i64, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let known = find_study(connection, &new.study.study_instance).await?;
    let opened = |study, kind, text: String| NewEvent::new(now, kind, text).study(study).association(new.association);
    let study = match known {
        None => {
            let id = insert_study(connection, entry, StudyStatus::Receiving).await?;
            opened(id, "study-opened", "the first instance was recorded".into()).write(connection).await?;
            id
        }
        Some((id, StudyStatus::Receiving, ..)) => id,
        Some((id, _, _, 0)) => {
            opened(id, "study-opened", "the first instance was recorded".into()).write(connection).await?;
            id
        }
        Some((id, status, version, _)) => {
            supersede(connection, id, now).await?;
            let text = format!("a late instance opened the study again after version {version} ({status})");
            opened(id, "reopened", text)
                .detail(json!({ "version": version, "status": status, "association": new.association }))
                .write(connection)
                .await?;
            id
        }
    };
    let attributes = &new.study;
    sqlx::query(
        "UPDATE study SET status = 'receiving', quiet_until = ?, quiet_period = ?, last_instance_at = ?,
             instances = instances + 1, bytes = bytes + ?, reason_code = NULL, reason_text = NULL,
             patient_id = COALESCE(patient_id, ?), patient_name = COALESCE(patient_name, ?),
             accession_number = COALESCE(accession_number, ?), study_date = COALESCE(study_date, ?),
             description = COALESCE(description, ?), source_ae = COALESCE(source_ae, ?)
         WHERE id = ?",
    )
    .bind(now.as_millis().saturating_add(new.quiet_period_ms))
    .bind(new.quiet_period_ms)
    .bind(now.as_millis())
    .bind(signed(new.size))
    .bind(&attributes.patient_id)
    .bind(&attributes.patient_name)
    .bind(&attributes.accession_number)
    .bind(&attributes.study_date)
    .bind(&attributes.description)
    .bind(new.source_ae.as_ref().map(AeTitle::as_str))
    .bind(study)
    .execute(connection)
    .await
    .during("recording a study")?;
    Ok(study)
}

async fn insert_study(connection: &mut Connection, entry: &Entry, status: StudyStatus) -> Result<i64, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let quiet_until = (status == StudyStatus::Receiving).then(|| now.as_millis().saturating_add(new.quiet_period_ms));
    let attributes = &new.study;
    sqlx::query_scalar(
        "INSERT INTO study (study_instance, patient_id, patient_name, accession_number, study_date, description,
             source_ae, status, quiet_until, quiet_period, received_at, last_instance_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(attributes.study_instance.as_str())
    .bind(&attributes.patient_id)
    .bind(&attributes.patient_name)
    .bind(&attributes.accession_number)
    .bind(&attributes.study_date)
    .bind(&attributes.description)
    .bind(new.source_ae.as_ref().map(AeTitle::as_str))
    .bind(status.as_str())
    .bind(quiet_until)
    .bind(new.quiet_period_ms)
    .bind(now.as_millis())
    .bind(now.as_millis())
    .fetch_one(connection)
    .await
    .during("recording a study")
}

/// Takes a queued analysis back whose version is no longer the last word. One that is under way may end.
async fn supersede(connection: &mut Connection, study: i64, now: Timestamp) -> Result<(), StoreError> {
    let versions: Vec<i64> = sqlx::query_scalar(
        "UPDATE analysis SET status = 'superseded', finished_at = ? WHERE study_id = ? AND status = 'queued'
         RETURNING version",
    )
    .bind(now.as_millis())
    .bind(study)
    .fetch_all(&mut *connection)
    .await
    .during("taking back a queued analysis")?;
    for version in versions {
        NewEvent::new(now, "superseded", format!("the analysis of version {version} gives way to the next version"))
            .detail(json!({ "version": version }))
            .study(study)
            .write(connection)
            .await?;
    }
    Ok(())
}
