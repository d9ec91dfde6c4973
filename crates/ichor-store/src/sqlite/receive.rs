//! Statements of receive: instances.

mod plan;
mod restored;

use serde_json::json;

use super::events::NewEvent;
use super::failure::During;
use super::retention::{came_again, sent_again};
use super::values::{signed, uid};
use super::{Connection, Sqlite};
use crate::blobs::{BlobRef, BlobStore, PlacedBlob};
use crate::group_commit::{Description, Entry};
use crate::receive::{InstanceId, Recorded};
use crate::{StoreError, Timestamp};
use ichor_core::{AeTitle, StudyStatus};
use plan::{KnownStudy, Plan, Studies, plan};

impl Sqlite {
    /// Whether a committed row points to this blob.
    pub(crate) async fn is_blob_known(&self, blob: &BlobRef) -> Result<bool, StoreError> {
        sqlx::query_scalar(BLOB_IS_KNOWN).bind(blob.as_str()).fetch_one(&self.read).await.during("looking for a blob")
    }

    /// Records all entries in one transaction. The entries have different SOP Instance UIDs. One that is refused gets its
    /// failure and no outcome; any other failure is that of the whole batch.
    pub(crate) async fn record_instances(
        &self,
        blobs: &BlobStore,
        entries: &mut [Entry],
    ) -> Result<Vec<Option<Recorded>>, StoreError> {
        let during = "recording instances";
        let mut tx = self.begin(during).await?;
        let (mut studies, mut plans) = (Studies::new(), Vec::with_capacity(entries.len()));
        for entry in entries.iter_mut() {
            let plan = plan(&mut tx, blobs, &entry.instance, &mut studies).await?;
            if matches!(plan, Plan::Full) {
                let Description { study, max_study_instances: most, .. } = &entry.instance;
                entry.failure = Some(StoreError::StudyFull { study: study.study_instance.clone(), most: *most });
            }
            if !plan.needs_bytes() {
                drop_unless_known(&mut tx, entry).await;
            }
            plans.push(plan);
        }
        let mut outcomes = Vec::with_capacity(entries.len());
        for (entry, plan) in entries.iter().zip(&plans) {
            outcomes.push(match entry.failure {
                Some(_) => None,
                None => Some(apply(&mut tx, entry, plan, &mut studies).await?),
            });
        }
        // All of them, so that the next try knows.
        let mut all_safe = true;
        for entry in entries.iter_mut() {
            all_safe &= entry.is_safe().await;
        }
        if !all_safe {
            let source = "bytes of an instance did not reach the medium".into();
            return Err(StoreError::Database { during: during.to_owned(), source });
        }
        tx.commit().await.during(during)?;
        Ok(outcomes)
    }
}

/// Whether a row points to a blob.
const BLOB_IS_KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM instance WHERE blob = ?1)
    OR EXISTS (SELECT 1 FROM conflict WHERE blob = ?1) OR EXISTS (SELECT 1 FROM object WHERE blob = ?1)
    OR EXISTS (SELECT 1 FROM attribution_map WHERE blob = ?1)";

async fn apply(
    connection: &mut Connection,
    entry: &Entry,
    plan: &Plan,
    studies: &mut Studies,
) -> Result<Recorded, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let event = |kind, text: String, study| {
        NewEvent::new(now, kind, text)
            .detail(json!({ "sop_instance": new.sop_instance, "association": new.association }))
            .study(study)
            .association(new.association)
    };
    match plan {
        Plan::New { own, series } => insert(connection, entry, *own, *series, studies).await,
        // Answered already.
        Plan::Full => Err(StoreError::corrupt(format!("an instance too many, {}", new.sop_instance))),
        Plan::Duplicate { study } => {
            sent_again(connection, *study, now).await?;
            let text = format!("{} came again, with the same content", new.sop_instance);
            event("duplicate", text, *study).write(connection).await?;
            Ok(Recorded::Duplicate)
        }
        Plan::Restore { instance, study } => {
            sqlx::query("UPDATE instance SET blob = ?, size = ?, removed_at = NULL WHERE id = ?")
                .bind(bytes_of(entry)?.as_str())
                .bind(signed(new.size))
                .bind(instance)
                .execute(&mut *connection)
                .await
                .during("restoring an instance")?;
            came_again(connection, *study, now).await?;
            restored::note(connection, *study, new.association, now).await?;
            Ok(Recorded::Duplicate)
        }
        Plan::Conflict { instance, study } => {
            keep_apart(connection, entry, *instance).await?;
            came_again(connection, *study, now).await?;
            let text = format!(
                "{} came again with other content; the first one stays, this one is kept apart",
                new.sop_instance
            );
            event("conflict", text, *study).write(connection).await?;
            Ok(Recorded::Conflict)
        }
        Plan::KnownConflict { study } => {
            sent_again(connection, *study, now).await?;
            let text = format!("{} came again with other content that is kept apart already", new.sop_instance);
            event("conflict", text, *study).write(connection).await?;
            Ok(Recorded::Conflict)
        }
    }
}

fn bytes_of(entry: &Entry) -> Result<&BlobRef, StoreError> {
    let bytes = entry.bytes.as_ref().map(PlacedBlob::blob);
    bytes.ok_or_else(|| StoreError::corrupt(format!("instance {} without bytes", entry.instance.sop_instance)))
}

/// Removes bytes that are not needed. The commit of an earlier try may have reached the medium although it was reported as
/// failed: then a row points to them.
async fn drop_unless_known(connection: &mut Connection, entry: &mut Entry) {
    let Some(bytes) = entry.bytes.take() else { return };
    let known: Result<bool, _> =
        sqlx::query_scalar(BLOB_IS_KNOWN).bind(bytes.blob().as_str()).fetch_one(connection).await;
    if !matches!(known, Ok(false)) {
        bytes.keep();
    }
}

async fn keep_apart(connection: &mut Connection, entry: &Entry, instance: i64) -> Result<(), StoreError> {
    let new = &entry.instance;
    sqlx::query(
        "INSERT INTO conflict
             (instance_id, association_id, transfer_syntax, source_ae, received_at, blob, size, digest)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (instance_id, digest) DO UPDATE SET blob = excluded.blob, size = excluded.size,
             removed_at = NULL",
    )
    .bind(instance)
    .bind(new.association)
    .bind(new.transfer_syntax.as_str())
    .bind(new.source_ae.as_ref().map(AeTitle::as_str))
    .bind(entry.now.as_millis())
    .bind(bytes_of(entry)?.as_str())
    .bind(signed(new.size))
    .bind(&new.digest[..])
    .execute(connection)
    .await
    .during("recording a conflict")?;
    Ok(())
}

macro_rules! insert_instance {
    () => {
        "INSERT INTO instance (study_id, series_id, association_id, sop_instance, sop_class, transfer_syntax,
             source_ae, received_at, own, blob, size, digest)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
    };
}

async fn insert(
    connection: &mut Connection,
    entry: &Entry,
    own: bool,
    series: Option<i64>,
    studies: &mut Studies,
) -> Result<Recorded, StoreError> {
    let during = "recording an instance";
    let new = &entry.instance;
    let known = &mut studies.entry(new.study.study_instance.clone()).or_default().known;
    if let (false, Some(known @ KnownStudy { status: StudyStatus::Receiving, .. }), Some(series)) = (own, known, series)
    {
        known.instances += 1;
        return one_more(connection, entry, known.id, series).await;
    }
    let known = &mut studies.entry(new.study.study_instance.clone()).or_default().known;
    let left = if own {
        own_result_into_study(connection, entry, *known).await?
    } else {
        instance_into_study(connection, entry, *known).await?
    };
    *known = Some(left);
    let study = left.id;
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
    let statement = sqlx::query_scalar(insert_instance!());
    insert_instance(connection, statement, entry, own, (study, series)).await
}

/// Behind an update of a study that is receiving already: one way to the database for both, and no index is written
/// anew whose columns stay as they are.
const ONE_MORE: &str = concat!(
    "UPDATE study SET quiet_until = ?, quiet_period = ?, last_instance_at = ?, instances = instances + 1,
         bytes = bytes + ? WHERE id = ?; ",
    insert_instance!()
);

/// A statement that returns the number of a row.
type NumberQuery<'q> = sqlx::query::QueryScalar<'q, sqlx::Sqlite, i64, sqlx::sqlite::SqliteArguments>;

/// An instance of a series of a study that is receiving.
async fn one_more(connection: &mut Connection, entry: &Entry, study: i64, series: i64) -> Result<Recorded, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let statement = sqlx::query_scalar(ONE_MORE)
        .bind(now.as_millis().saturating_add(new.quiet_period_ms))
        .bind(new.quiet_period_ms)
        .bind(now.as_millis())
        .bind(signed(new.size))
        .bind(study);
    insert_instance(connection, statement, entry, false, (study, series)).await
}

async fn insert_instance(
    connection: &mut Connection,
    statement: NumberQuery<'_>,
    entry: &Entry,
    own: bool,
    (study, series): (i64, i64),
) -> Result<Recorded, StoreError> {
    let new = &entry.instance;
    let instance = statement
        .bind(study)
        .bind(series)
        .bind(new.association)
        .bind(new.sop_instance.as_str().to_owned())
        .bind(new.sop_class.as_str().to_owned())
        .bind(new.transfer_syntax.as_str().to_owned())
        .bind(new.source_ae.as_ref().map(|title| title.as_str().to_owned()))
        .bind(entry.now.as_millis())
        .bind(own)
        .bind(bytes_of(entry)?.as_str().to_owned())
        .bind(signed(new.size))
        .bind(new.digest.to_vec())
        .fetch_one(connection)
        .await
        .during("recording an instance")?;
    Ok(Recorded::New { instance: InstanceId(instance), study: uid(new.study.study_instance.as_str())? })
}

/// One of our own results: its study stays as it is. A study that holds nothing else has the state `not-analysed`.
async fn own_result_into_study(
    connection: &mut Connection,
    entry: &Entry,
    known: Option<KnownStudy>,
) -> Result<KnownStudy, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let study = match known {
        Some(known) => {
            sqlx::query("UPDATE study SET received_swept = 0, restored_at = ? WHERE id = ?")
                .bind(now.as_millis())
                .bind(known.id)
                .execute(&mut *connection)
                .await
                .during("recording a study")?;
            known
        }
        None => {
            let id = insert_study(connection, entry, StudyStatus::NotAnalysed).await?;
            sqlx::query("UPDATE study SET reason_code = ?, reason_text = ? WHERE id = ?")
                .bind("own-results-only")
                .bind("the study holds results of this program only")
                .bind(id)
                .execute(&mut *connection)
                .await
                .during("recording a study")?;
            KnownStudy { id, status: StudyStatus::NotAnalysed, version: 0, instances: 0 }
        }
    };
    NewEvent::new(now, "own-result-returned", format!("our own result {} came back and is kept", new.sop_instance))
        .detail(json!({ "sop_instance": new.sop_instance, "association": new.association }))
        .study(study.id)
        .association(new.association)
        .write(connection)
        .await?;
    Ok(study)
}

/// A new instance: its study is receiving from now on, whatever it was before.
async fn instance_into_study(
    connection: &mut Connection,
    entry: &Entry,
    known: Option<KnownStudy>,
) -> Result<KnownStudy, StoreError> {
    let (new, now) = (&entry.instance, entry.now);
    let opened = |study, kind, text: String| NewEvent::new(now, kind, text).study(study).association(new.association);
    let study = match known {
        None => {
            let id = insert_study(connection, entry, StudyStatus::Receiving).await?;
            opened(id, "study-opened", "the first instance was recorded".into()).write(connection).await?;
            id
        }
        Some(KnownStudy { id, status: StudyStatus::Receiving, .. }) => id,
        Some(KnownStudy { id, instances: 0, .. }) => {
            opened(id, "study-opened", "the first instance was recorded".into()).write(connection).await?;
            id
        }
        Some(KnownStudy { id, status, version, .. }) => {
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
             instances = instances + 1, bytes = bytes + ?, reason_code = NULL, reason_text = NULL, received_swept = 0,
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
    let (version, instances) = known.map_or((0, 0), |known| (known.version, known.instances));
    Ok(KnownStudy { id: study, status: StudyStatus::Receiving, version, instances: instances + 1 })
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
