//! Statements of the admin's questions, and of the retry.

use ichor_core::{StudyStatus, Uid};
use serde_json::json;
use sqlx::QueryBuilder;

use super::analyse::set_status;
use super::destination::next_attempt;
use super::events::NewEvent;
use super::failure::During;
use super::retention::has_gaps;
use super::values::{blob as parse_blob, from_json, model, reason, uid, unsigned, word};
use super::{Connection, Dialect, Sqlite};
use crate::analyse::SliceScore;
use crate::blobs::BlobStore;
use crate::query::{DeliveryDetail, ObjectDetail, RetryOutcome, SeriesDetail, StudyDetail, StudyKey, StudySummary};
use crate::{StoreError, Timestamp};

/// Most studies that an ambiguous key names.
const MOST_MATCHES: i64 = 20;

pub(super) const SUMMARY_COLUMNS: &str = "id, study_instance, patient_id, patient_name, accession_number, accession, \
     accession_source, study_date, \
     description, source_ae, status, version, instances, bytes, received_at, last_instance_at, quiet_until, \
     expected_instances, hold_until, \
     reason_code, reason_text, result_version, positive, probability, volume_ml, volume_sd_ml, model, analysed_at, \
     alerted_at, urgency, held_at, hold_reason, pixels_removed_at, results_removed_at";

#[derive(sqlx::FromRow)]
pub(super) struct SummaryRow {
    pub(super) id: i64,
    study_instance: String,
    patient_id: Option<String>,
    patient_name: Option<String>,
    accession_number: Option<String>,
    accession: Option<String>,
    accession_source: Option<String>,
    study_date: Option<String>,
    description: Option<String>,
    source_ae: Option<String>,
    status: String,
    version: i64,
    instances: i64,
    bytes: i64,
    pub(super) received_at: i64,
    last_instance_at: i64,
    quiet_until: Option<i64>,
    expected_instances: Option<i64>,
    hold_until: Option<i64>,
    reason_code: Option<String>,
    reason_text: Option<String>,
    result_version: Option<i64>,
    positive: Option<bool>,
    probability: Option<f64>,
    volume_ml: Option<f64>,
    volume_sd_ml: Option<f64>,
    model: Option<String>,
    analysed_at: Option<i64>,
    alerted_at: Option<i64>,
    pub(super) urgency: i64,
    held_at: Option<i64>,
    hold_reason: Option<String>,
    pixels_removed_at: Option<i64>,
    results_removed_at: Option<i64>,
}

impl SummaryRow {
    pub(super) fn summary(self) -> Result<StudySummary, StoreError> {
        let is_short = self.expected_instances.is_some_and(|expected| self.instances < expected);
        let hold_until = self.hold_until.filter(|_| is_short).unwrap_or(i64::MIN);
        Ok(StudySummary {
            study_instance: uid(&self.study_instance)?,
            patient_id: self.patient_id,
            patient_name: self.patient_name,
            accession_source: self.accession_source.filter(|_| self.accession_number.is_none()),
            accession_number: self.accession,
            study_date: self.study_date,
            description: self.description,
            source_ae: self.source_ae,
            status: word(&self.status)?,
            version: unsigned(self.version)?,
            instances: unsigned(self.instances)?,
            bytes: unsigned(self.bytes)?,
            received_at: Timestamp::from_millis(self.received_at),
            last_instance_at: Timestamp::from_millis(self.last_instance_at),
            quiet_until: self.quiet_until.map(|quiet| Timestamp::from_millis(quiet.max(hold_until))),
            expected_instances: self.expected_instances.map(unsigned).transpose()?,
            reason: reason(self.reason_code, self.reason_text),
            result_version: self.result_version.map(unsigned).transpose()?,
            positive: self.positive,
            probability: self.probability,
            volume_ml: self.volume_ml,
            volume_sd_ml: self.volume_sd_ml,
            model: model(self.model)?,
            analysed_at: self.analysed_at.map(Timestamp::from_millis),
            alerted_at: self.alerted_at.map(Timestamp::from_millis),
            urgency: unsigned(self.urgency)?,
            held_at: self.held_at.map(Timestamp::from_millis),
            hold_reason: self.hold_reason,
            pixels_removed_at: self.pixels_removed_at.map(Timestamp::from_millis),
            results_removed_at: self.results_removed_at.map(Timestamp::from_millis),
        })
    }
}

impl Sqlite {
    /// The row of the one study that a key fits.
    pub(crate) async fn find_study(&self, key: &StudyKey) -> Result<i64, StoreError> {
        match key {
            StudyKey::Uid(uid) => self.one_study(uid.as_str(), self.by_uid(uid.as_str()).await?),
            StudyKey::Accession(number) => self.one_study(number, self.by_accession(number).await?),
            StudyKey::UidPrefix(prefix) => self.one_study(prefix, self.by_prefix(prefix).await?),
            StudyKey::Any(text) => {
                let mut found = self.by_uid(text).await?;
                if found.is_empty() {
                    found = self.by_accession(text).await?;
                }
                if found.is_empty() {
                    found = self.by_prefix(text).await?;
                }
                self.one_study(text, found)
            }
        }
    }

    #[expect(clippy::unused_self, reason = "reads as a step of the search")]
    fn one_study(&self, key: &str, found: Vec<(i64, String)>) -> Result<i64, StoreError> {
        match found.as_slice() {
            [] => Err(StoreError::NotFound { what: format!("study {key:?}") }),
            [(id, _)] => Ok(*id),
            several => {
                let matches = several.iter().map(|(_, study)| uid(study)).collect::<Result<_, _>>()?;
                Err(StoreError::Ambiguous { key: format!("{key:?}"), matches })
            }
        }
    }

    async fn by_uid(&self, text: &str) -> Result<Vec<(i64, String)>, StoreError> {
        sqlx::query_as("SELECT id, study_instance FROM study WHERE study_instance = ?")
            .bind(text)
            .fetch_all(&self.read)
            .await
            .during("looking for a study")
    }

    async fn by_accession(&self, text: &str) -> Result<Vec<(i64, String)>, StoreError> {
        sqlx::query_as(
            "SELECT id, study_instance FROM study WHERE accession = ? ORDER BY received_at DESC, id DESC LIMIT ?",
        )
        .bind(text)
        .bind(MOST_MATCHES)
        .fetch_all(&self.read)
        .await
        .during("looking for a study")
    }

    async fn by_prefix(&self, text: &str) -> Result<Vec<(i64, String)>, StoreError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        // A UID holds digits and full stops; ':' comes after both.
        sqlx::query_as(
            "SELECT id, study_instance FROM study WHERE study_instance >= ?1 AND study_instance < ?1 || ':'
             ORDER BY study_instance LIMIT ?2",
        )
        .bind(text)
        .bind(MOST_MATCHES)
        .fetch_all(&self.read)
        .await
        .during("looking for a study")
    }

    pub(crate) async fn study_detail(&self, blobs: &BlobStore, study: i64) -> Result<StudyDetail, StoreError> {
        let during = "reading a study";
        // One snapshot for all parts.
        let mut tx = self.read.begin().await.during(during)?;
        let mut statement = QueryBuilder::<Dialect>::new("SELECT ");
        statement.push(SUMMARY_COLUMNS).push(" FROM study WHERE id = ").push_bind(study);
        let row: SummaryRow = statement.build_query_as().fetch_one(&mut *tx).await.during(during)?;
        let newest: Option<(i64, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT id, finding, timings FROM analysis WHERE study_id = ? AND version = ? AND finished_at IS NOT NULL",
        )
        .bind(study)
        .bind(row.result_version)
        .fetch_optional(&mut *tx)
        .await
        .during(during)?;
        let (analysis, finding, timings) = newest.unwrap_or((0, None, None));
        Ok(StudyDetail {
            summary: row.summary()?,
            finding: finding.as_deref().map(from_json).transpose()?,
            series: series(&mut tx, study, analysis).await?,
            slices: slices(&mut tx, analysis).await?,
            timings: timings.as_deref().map(from_json).transpose()?.unwrap_or_default(),
            objects: objects(&mut tx, blobs, study).await?,
            deliveries: deliveries(&mut tx, study).await?,
        })
    }

    pub(crate) async fn retry(&self, study: &Uid, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let during = "queueing a retry";
        let mut tx = self.begin(during).await?;
        let found: Option<(i64, String, i64)> =
            sqlx::query_as("SELECT id, status, version FROM study WHERE study_instance = ?")
                .bind(study.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(during)?;
        let Some((id, status, version)) = found else {
            return Err(StoreError::NotFound { what: format!("study {study}") });
        };
        let status: StudyStatus = word(&status)?;
        let deliveries = revive_deliveries(&mut tx, id, now).await?;
        let outcome = match status {
            StudyStatus::Receiving | StudyStatus::Queued | StudyStatus::Analysing => {
                RetryOutcome::UnderWay { status, deliveries }
            }
            _ if version == 0 => RetryOutcome::NothingToAnalyse,
            _ if has_gaps(&mut tx, id).await? => RetryOutcome::PixelsRemoved { deliveries },
            StudyStatus::Analysed | StudyStatus::NotAnalysed | StudyStatus::Failed => {
                requeue(&mut tx, id, version, status, now).await?;
                RetryOutcome::Queued { version: unsigned(version)?, deliveries }
            }
        };
        tx.commit_with(&outcome).await.during(during)?;
        Ok(outcome)
    }
}

async fn revive_deliveries(connection: &mut Connection, study: i64, now: Timestamp) -> Result<u64, StoreError> {
    let during = "queueing deliveries again";
    let revived: Vec<(String, String)> = sqlx::query_as(
        "UPDATE outbox SET status = 'queued', attempts = 0, next_attempt = ?, finished_at = NULL, proof = NULL,
             request_id = NULL, missing = NULL, resends = 0
         WHERE status = 'dead' AND study_id = ?
         RETURNING destination, (SELECT sop_instance FROM delivery WHERE delivery.id = outbox.id)",
    )
    .bind(now.as_millis())
    .bind(study)
    .fetch_all(&mut *connection)
    .await
    .during(during)?;
    for (destination, sop_instance) in &revived {
        NewEvent::new(now, "delivery-requeued", format!("the dead delivery to {destination} is queued again"))
            .detail(json!({ "destination": destination, "sop_instance": sop_instance }))
            .study(study)
            .write(&mut *connection)
            .await?;
    }
    Ok(revived.len() as u64)
}

async fn requeue(
    connection: &mut Connection,
    study: i64,
    version: i64,
    was: StudyStatus,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE analysis SET status = 'queued', attempts = 0, queued_at = ?1, not_before = ?1, worker = NULL
         WHERE study_id = ?2 AND version = ?3",
    )
    .bind(now.as_millis())
    .bind(study)
    .bind(version)
    .execute(&mut *connection)
    .await
    .during("queueing a retry")?;
    set_status(&mut *connection, study, StudyStatus::Queued, None).await?;
    NewEvent::new(
        now,
        "retried",
        format!("an operator asked for a retry; version {version} was {was} and is queued again"),
    )
    .detail(json!({ "version": version, "status": was }))
    .study(study)
    .write(connection)
    .await
}

#[derive(sqlx::FromRow)]
struct SeriesRow {
    series_instance: String,
    modality: Option<String>,
    description: Option<String>,
    number: Option<i32>,
    instances: i64,
    chosen: Option<bool>,
    reasons: Option<String>,
    rules: Option<String>,
}

async fn series(connection: &mut Connection, study: i64, analysis: i64) -> Result<Vec<SeriesDetail>, StoreError> {
    let rows: Vec<SeriesRow> = sqlx::query_as(
        "SELECT s.series_instance, s.modality, s.description, s.number, o.chosen, o.reasons, o.rules,
             (SELECT COUNT(*) FROM instance i WHERE i.study_id = s.study_id AND i.own = 0 AND i.series_id = s.id) AS instances
         FROM series s
         LEFT JOIN series_outcome o ON o.analysis_id = ? AND o.series_instance = s.series_instance
         WHERE s.study_id = ? ORDER BY s.id",
    )
    .bind(analysis)
    .bind(study)
    .fetch_all(connection)
    .await
    .during("reading the series of a study")?;
    let detail = |row: SeriesRow| {
        Ok(SeriesDetail {
            series_instance: uid(&row.series_instance)?,
            modality: row.modality,
            description: row.description,
            number: row.number,
            instances: unsigned(row.instances)?,
            chosen: row.chosen,
            reasons: row.reasons.as_deref().map(from_json).transpose()?.unwrap_or_default(),
            rules: row.rules.as_deref().map(from_json).transpose()?.unwrap_or_default(),
        })
    };
    rows.into_iter().map(detail).collect()
}

async fn slices(connection: &mut Connection, analysis: i64) -> Result<Vec<SliceScore>, StoreError> {
    type Row = (String, Option<u32>, f64, i64, Option<i64>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT l.sop_instance, l.frame, l.probability, l.masked_pixels,
             CASE WHEN m.removed_at IS NULL THEN l.map_offset END, l.map_bytes
         FROM slice_score l LEFT JOIN attribution_map m ON m.analysis_id = l.analysis_id
         WHERE l.analysis_id = ? ORDER BY l.position",
    )
    .bind(analysis)
    .fetch_all(connection)
    .await
    .during("reading the slices of a study")?;
    let score = |(sop_instance, frame, probability, pixels, offset, bytes): Row| {
        #[expect(clippy::cast_possible_truncation, reason = "it was written from a value of this width")]
        let probability = probability as f32;
        let map = super::maps::place(offset, bytes)?;
        let masked_pixels = unsigned(pixels)?;
        Ok(SliceScore { sop_instance: uid(&sop_instance)?, frame, probability, masked_pixels, map })
    };
    rows.into_iter().map(score).collect()
}

#[derive(sqlx::FromRow)]
struct ObjectRow {
    kind: String,
    sop_class: String,
    sop_instance: String,
    series_instance: String,
    version: i64,
    size: i64,
    created_at: i64,
    blob: String,
    removed_at: Option<i64>,
}

async fn objects(connection: &mut Connection, blobs: &BlobStore, study: i64) -> Result<Vec<ObjectDetail>, StoreError> {
    let rows: Vec<ObjectRow> = sqlx::query_as(
        "SELECT o.kind, o.sop_class, o.sop_instance, o.series_instance, a.version, o.size, o.created_at, o.blob,
             o.removed_at
         FROM object o JOIN analysis a ON a.id = o.analysis_id WHERE o.study_id = ? ORDER BY o.id",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("reading the objects of a study")?;
    let detail = |row: ObjectRow| {
        Ok(ObjectDetail {
            kind: row.kind,
            sop_class: uid(&row.sop_class)?,
            sop_instance: uid(&row.sop_instance)?,
            series_instance: uid(&row.series_instance)?,
            version: unsigned(row.version)?,
            size: unsigned(row.size)?,
            created_at: Timestamp::from_millis(row.created_at),
            path: blobs.path_of(&parse_blob(&row.blob)?),
            removed_at: row.removed_at.map(Timestamp::from_millis),
        })
    };
    rows.into_iter().map(detail).collect()
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    sop_instance: String,
    destination: String,
    status: String,
    attempts: i64,
    queued_at: i64,
    next_attempt: i64,
    finished_at: Option<i64>,
    last_words: Option<String>,
    kind: String,
    proof: Option<String>,
    resends: i64,
    proven_at: Option<i64>,
}

async fn deliveries(connection: &mut Connection, study: i64) -> Result<Vec<DeliveryDetail>, StoreError> {
    let rows: Vec<DeliveryRow> = sqlx::query_as(
        "SELECT sop_instance, destination, status, attempts, queued_at, next_attempt, finished_at, last_words, kind, proof,
             resends, proven_at
         FROM delivery WHERE study_id = ? ORDER BY id",
    )
    .bind(study)
    .fetch_all(connection)
    .await
    .during("reading the deliveries of a study")?;
    let detail = |row: DeliveryRow| {
        Ok(DeliveryDetail {
            sop_instance: uid(&row.sop_instance)?,
            next_attempt: next_attempt(&row.status, row.last_words.as_deref(), row.next_attempt),
            status: word(&row.status)?,
            destination: row.destination,
            attempts: unsigned(row.attempts)?,
            queued_at: Timestamp::from_millis(row.queued_at),
            finished_at: row.finished_at.map(Timestamp::from_millis),
            last_words: row.last_words,
            kind: row.kind,
            proof_due: row.proof,
            resends: unsigned(row.resends)?,
            proven_at: row.proven_at.map(Timestamp::from_millis),
        })
    };
    rows.into_iter().map(detail).collect()
}
