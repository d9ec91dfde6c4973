//! Statements of analyse: what is taken up, and everything that the work needs.

use ichor_core::{AeTitle, StudyStatus};
use serde_json::json;

use super::set_status;
use crate::analyse::{AnalysisClaim, StoredInstance};
use crate::blobs::BlobStore;
use crate::receive::StudyAttributes;
use crate::sqlite::events::NewEvent;
use crate::sqlite::failure::During;
use crate::sqlite::lookup::fix_accession;
use crate::sqlite::order::ORDER;
use crate::sqlite::values::{blob as parse_blob, model as parse_model, uid, unsigned};
use crate::sqlite::{Connection, Sqlite};
use crate::{StoreError, Timestamp};

/// The study columns of a claim.
#[derive(sqlx::FromRow)]
pub(in crate::sqlite) struct ClaimRow {
    id: i64,
    study_id: i64,
    version: i64,
    attempts: i64,
    study_instance: String,
    patient_id: Option<String>,
    patient_name: Option<String>,
    accession_number: Option<String>,
    looked_up_accession: Option<String>,
    study_date: Option<String>,
    description: Option<String>,
    source_ae: Option<String>,
    last_instance_at: i64,
    wanted_model: Option<String>,
}

impl ClaimRow {
    /// The row of the study.
    pub(in crate::sqlite) fn study(&self) -> i64 {
        self.study_id
    }
}

#[derive(sqlx::FromRow)]
struct InstanceRow {
    id: i64,
    sop_instance: String,
    sop_class: String,
    series_instance: String,
    modality: Option<String>,
    transfer_syntax: String,
    blob: String,
    size: i64,
}

impl Sqlite {
    pub(crate) async fn claim_analysis(
        &self,
        blobs: &BlobStore,
        worker: &str,
        overdue: Timestamp,
        now: Timestamp,
    ) -> Result<Option<AnalysisClaim>, StoreError> {
        let during = "claiming an analysis";
        if self.next_analysis_deadline().await?.is_none_or(|due| due > now) {
            return Ok(None);
        }
        let mut tx = self.begin(during).await?;
        let statement = format!(
            "SELECT a.id, a.study_id, a.version, a.attempts + 1 AS attempts, s.study_instance, s.patient_id,
                 s.patient_name, COALESCE(s.accession_number, a.looked_up_accession) AS accession_number,
                 a.looked_up_accession, s.study_date, s.description, s.source_ae, s.last_instance_at, a.wanted_model
             FROM analysis a JOIN study s ON s.id = a.study_id
             WHERE a.status = 'queued' AND a.not_before <= ?1 AND s.status = 'queued' AND s.version = a.version
             ORDER BY {ORDER} LIMIT 1"
        );
        let row: Option<ClaimRow> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(now.as_millis())
            .bind(overdue.as_millis())
            .fetch_optional(&mut *tx)
            .await
            .during(during)?;
        let Some(mut row) = row else { return Ok(None) };
        if let Some((looked_up, received)) = fix_accession(&mut tx, row.id).await? {
            row.accession_number = received.or_else(|| looked_up.clone());
            row.looked_up_accession = looked_up;
        }
        sqlx::query("UPDATE analysis SET status = 'running', attempts = ?, worker = ?, started_at = ? WHERE id = ?")
            .bind(row.attempts)
            .bind(worker)
            .bind(now.as_millis())
            .bind(row.id)
            .execute(&mut *tx)
            .await
            .during(during)?;
        set_status(&mut tx, row.study_id, StudyStatus::Analysing, None).await?;
        let text = format!("analysis of version {} began, attempt {}", row.version, row.attempts);
        NewEvent::new(now, "analysis-started", text)
            .detail(json!({ "version": row.version, "attempt": row.attempts, "worker": worker }))
            .study(row.study_id)
            .write(&mut tx)
            .await?;
        let instances = instances(&mut tx, blobs, row.study_id).await?;
        tx.commit().await.during(during)?;
        claim(row, instances).map(Some)
    }

    pub(crate) async fn next_analysis_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = sqlx::query_scalar("SELECT MIN(not_before) FROM analysis WHERE status = 'queued'")
            .fetch_one(&self.read)
            .await
            .during("looking for the next analysis")?;
        Ok(due.map(Timestamp::from_millis))
    }
}

pub(in crate::sqlite) fn claim(row: ClaimRow, instances: Vec<StoredInstance>) -> Result<AnalysisClaim, StoreError> {
    Ok(AnalysisClaim {
        id: row.id,
        study: StudyAttributes {
            study_instance: uid(&row.study_instance)?,
            patient_id: row.patient_id,
            patient_name: row.patient_name,
            accession_number: row.accession_number,
            study_date: row.study_date,
            description: row.description,
        },
        source_ae: row
            .source_ae
            .map(|title| AeTitle::parse(&title))
            .transpose()
            .map_err(|error| StoreError::corrupt(error.to_string()))?,
        version: unsigned(row.version)?,
        attempts: unsigned(row.attempts)?,
        accepted_at: Timestamp::from_millis(row.last_instance_at),
        instances,
        wanted_model: parse_model(row.wanted_model)?,
        looked_up_accession: row.looked_up_accession,
    })
}

pub(in crate::sqlite) async fn instances(
    connection: &mut Connection,
    blobs: &BlobStore,
    study: i64,
) -> Result<Vec<StoredInstance>, StoreError> {
    let rows: Vec<InstanceRow> = sqlx::query_as(
        "SELECT i.id, i.sop_instance, i.sop_class, s.series_instance, s.modality, i.transfer_syntax, i.blob, i.size
         FROM instance i JOIN series s ON s.id = i.series_id
         WHERE i.study_id = ? AND i.own = 0 ORDER BY i.id",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("reading the instances of a study")?;
    let instance = |row: InstanceRow| {
        Ok(StoredInstance {
            id: row.id,
            sop_instance: uid(&row.sop_instance)?,
            sop_class: uid(&row.sop_class)?,
            series_instance: uid(&row.series_instance)?,
            modality: row.modality,
            transfer_syntax: uid(&row.transfer_syntax)?,
            path: blobs.path_of(&parse_blob(&row.blob)?),
            size: unsigned(row.size)?,
        })
    };
    rows.into_iter().map(instance).collect()
}
