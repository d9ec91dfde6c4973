//! Statements of scores.

use ichor_core::{Finding, ModelId};

use super::failure::During;
use super::values::unsigned;
use super::{Connection, Sqlite};
use crate::analyse::SliceScore;
use crate::scores::{BINS, Histogram, Scores};
use crate::{StoreError, Timestamp};

const HOUR_MS: i64 = 3_600_000;
const DAY_H: i64 = 24;
const MONTH_H: i64 = 30 * DAY_H;

fn bin(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

/// Counts what an analysis says, in its transaction.
pub(super) async fn count(
    connection: &mut Connection,
    model: &ModelId,
    finding: &Finding,
    slices: &[SliceScore],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut studies: Histogram = [0; BINS];
    studies[bin(finding.probability)] += 1;
    let mut bins: Histogram = [0; BINS];
    for slice in slices {
        bins[bin(f64::from(slice.probability))] += 1;
    }
    for (kind, histogram) in [("study", studies), ("slice", bins)] {
        for (bin, count) in (0i64..).zip(histogram).filter(|(_, count)| *count > 0) {
            sqlx::query(
                "INSERT INTO score_bin (model, kind, hour, bin, count) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
            )
            .bind(model.as_str())
            .bind(kind)
            .bind(now.as_millis().div_euclid(HOUR_MS))
            .bind(bin)
            .bind(i64::try_from(count).unwrap_or(i64::MAX))
            .execute(&mut *connection)
            .await
            .during("counting scores")?;
        }
    }
    Ok(())
}

impl Sqlite {
    pub(crate) async fn scores(&self, model: &ModelId, now: Timestamp) -> Result<Scores, StoreError> {
        let hour = now.as_millis().div_euclid(HOUR_MS);
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT kind, bin, SUM(count), SUM(CASE WHEN hour > ?2 THEN count ELSE 0 END)
             FROM score_bin WHERE model = ?1 AND hour > ?3 AND kind IN ('study', 'slice') GROUP BY kind, bin",
        )
        .bind(model.as_str())
        .bind(hour - DAY_H)
        .bind(hour - MONTH_H)
        .fetch_all(&self.read)
        .await
        .during("reading scores")?;
        let mut scores = Scores::default();
        for (kind, bin, month, day) in rows {
            let bin: usize = unsigned(bin)?;
            let (of_month, of_day) = match kind.as_str() {
                "study" => (&mut scores.studies_30d, &mut scores.studies_24h),
                _ => (&mut scores.slices_30d, &mut scores.slices_24h),
            };
            let outside = || StoreError::corrupt(format!("{bin} as a bin of scores"));
            *of_month.get_mut(bin).ok_or_else(outside)? = unsigned(month)?;
            *of_day.get_mut(bin).ok_or_else(outside)? = unsigned(day)?;
        }
        Ok(scores)
    }
}
