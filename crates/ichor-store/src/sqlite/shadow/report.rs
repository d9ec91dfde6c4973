//! Statements of the shadow: what it said.

use std::collections::BTreeMap;

use ichor_core::{Agreement, Finding, ModelId, Pair, Uid};

use super::super::Sqlite;
use super::super::failure::During;
use super::super::values::{from_json, reason, uid, unsigned, word};
use crate::shadow::{AgreementReport, Disagreement, ShadowResult, SourceAgreement};
use crate::{StoreError, Timestamp};

/// Most studies that a report counts, the newest first.
const MOST_STUDIES: usize = 100_000;
/// Most disagreements that it lists.
const MOST_DISAGREEMENTS: usize = 200;

#[derive(sqlx::FromRow)]
struct ResultRow {
    model: String,
    version: i64,
    status: String,
    finding: Option<String>,
    reason_code: Option<String>,
    reason_text: Option<String>,
    dice: Option<f64>,
}

#[derive(sqlx::FromRow)]
struct Row {
    study_instance: String,
    version: i64,
    source_ae: Option<String>,
    active_finding: String,
    finding: String,
    dice: Option<f64>,
}

impl Sqlite {
    pub(crate) async fn shadow_results(&self, study: &Uid) -> Result<Vec<ShadowResult>, StoreError> {
        let rows: Vec<ResultRow> = sqlx::query_as(
            "SELECT r.model, a.version, r.status, r.finding, r.reason_code, r.reason_text, r.dice
             FROM study s JOIN analysis a ON a.study_id = s.id JOIN shadow_run r ON r.analysis_id = a.id
             WHERE s.study_instance = ? ORDER BY a.version DESC, r.model",
        )
        .bind(study.as_str())
        .fetch_all(&self.read)
        .await
        .during("reading what the shadow says")?;
        let result = |row: ResultRow| {
            Ok(ShadowResult {
                model: ModelId::parse(&row.model).map_err(|error| StoreError::corrupt(error.to_string()))?,
                version: unsigned(row.version)?,
                status: word(&row.status)?,
                finding: row.finding.as_deref().map(from_json).transpose()?,
                reason: reason(row.reason_code, row.reason_text),
                dice: row.dice,
            })
        };
        rows.into_iter().map(result).collect()
    }

    pub(crate) async fn agreement(
        &self,
        model: &ModelId,
        active: Option<ModelId>,
        since: Timestamp,
    ) -> Result<AgreementReport, StoreError> {
        let against = active.as_ref().map_or("", ModelId::as_str);
        let (not_analysed, failed): (i64, i64) = sqlx::query_as(
            "SELECT COALESCE(SUM(status = 'done' AND finding IS NULL), 0), COALESCE(SUM(status = 'failed'), 0)
             FROM shadow_run WHERE model = ? AND active_model = ? AND finished_at >= ?",
        )
        .bind(model.as_str())
        .bind(against)
        .bind(since.as_millis())
        .fetch_one(&self.read)
        .await
        .during("comparing models")?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT s.study_instance, a.version, s.source_ae, r.active_finding, r.finding, r.dice
             FROM shadow_run r JOIN analysis a ON a.id = r.analysis_id JOIN study s ON s.id = a.study_id
             WHERE r.model = ? AND r.active_model = ? AND r.finished_at >= ? AND r.status = 'done' AND r.finding IS NOT NULL
             ORDER BY r.finished_at DESC, r.id DESC LIMIT ?",
        )
        .bind(model.as_str())
        .bind(against)
        .bind(since.as_millis())
        .bind(i64::try_from(MOST_STUDIES).unwrap_or(i64::MAX))
        .fetch_all(&self.read)
        .await
        .during("comparing models")?;
        let is_cut = rows.len() == MOST_STUDIES;
        let (mut all, mut by_source) = (Vec::with_capacity(rows.len()), BTreeMap::<Option<String>, Vec<Pair>>::new());
        let mut disagreements = Vec::new();
        for row in rows {
            let (active, other): (Finding, Finding) = (from_json(&row.active_finding)?, from_json(&row.finding)?);
            let pair = Pair {
                positive: [active.is_positive(), other.is_positive()],
                probability: [active.probability, other.probability],
                volume_ml: [active.volume_ml, other.volume_ml],
                dice: row.dice,
            };
            all.push(pair);
            by_source.entry(row.source_ae.clone()).or_default().push(pair);
            if pair.positive[0] != pair.positive[1] && disagreements.len() < MOST_DISAGREEMENTS {
                let (study_instance, version) = (uid(&row.study_instance)?, unsigned(row.version)?);
                disagreements.push(Disagreement { study_instance, version, source_ae: row.source_ae, active, other });
            }
        }
        let of_source = |(source_ae, pairs): (Option<String>, Vec<Pair>)| SourceAgreement {
            source_ae,
            agreement: Agreement::of(&pairs),
        };
        let mut sources: Vec<SourceAgreement> = by_source.into_iter().map(of_source).collect();
        sources.sort_by_key(|source| std::cmp::Reverse(source.agreement.studies));
        Ok(AgreementReport {
            model: model.clone(),
            active,
            since,
            agreement: Agreement::of(&all),
            not_analysed: unsigned(not_analysed)?,
            failed: unsigned(failed)?,
            sources,
            disagreements,
            is_cut,
        })
    }
}
