//! Statistics of the studies that arrived within a span of time.

use ichor_core::Zone;
use serde::Serialize;

use crate::{Store, StoreError, Timestamp};

/// What came of the studies of a span. Holds no patient data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Statistics {
    /// Studies.
    pub studies: u64,
    /// Positive ones.
    pub positive: u64,
    /// Negative ones.
    pub negative: u64,
    /// Those that were alerted before they were complete.
    pub alerted: u64,
    /// From the last instance to the outcome.
    pub turnaround: Turnaround,
    /// Why studies were not analysed, or failed, the most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// The time zone whose days are counted, by its name in the IANA database.
    pub time_zone: String,
    /// By the day of arrival, oldest first.
    pub days: Vec<DayFigures>,
    /// By source, the busiest first.
    pub sources: Vec<SourceFigures>,
}

/// Percentiles of the time from a study's last instance to its outcome, in milliseconds; `None` if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Turnaround {
    /// Half of the studies took no longer.
    pub p50_ms: Option<i64>,
    /// Nine in ten took no longer.
    pub p90_ms: Option<i64>,
    /// 99 of 100 took no longer.
    pub p99_ms: Option<i64>,
}

impl Turnaround {
    /// Of times in any order.
    pub(crate) fn of(mut times: Vec<i64>) -> Self {
        times.sort_unstable();
        let percentile = |percent: usize| {
            // The nearest rank: the smallest value that so many per cent do not exceed.
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied()
        };
        Self { p50_ms: percentile(50), p90_ms: percentile(90), p99_ms: percentile(99) }
    }
}

/// How often a reason was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReasonCount {
    /// Its code.
    pub code: String,
    /// Studies.
    pub studies: u64,
}

/// One day.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DayFigures {
    /// YYYY-MM-DD, in the statistics' time zone.
    pub day: String,
    /// Studies that arrived.
    pub studies: u64,
    /// Positive ones.
    pub positive: u64,
    /// Those that were not analysed, with a reason.
    pub not_analysed: u64,
    /// Those that failed.
    pub failed: u64,
    /// From the last instance to the outcome.
    pub turnaround: Turnaround,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SourceFigures {
    /// AE title or client name; absent where the sender had none.
    pub source_ae: Option<String>,
    /// Studies that arrived.
    pub studies: u64,
    /// Positive ones.
    pub positive: u64,
    /// Those that were not analysed, with a reason.
    pub not_analysed: u64,
    /// Those that failed.
    pub failed: u64,
    /// From the last instance to the outcome.
    pub turnaround: Turnaround,
}

impl Store {
    /// Statistics of the studies whose first instance was recorded from `from` on and before `to`, by the days of a zone.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn statistics(&self, from: Timestamp, to: Timestamp, zone: &Zone) -> Result<Statistics, StoreError> {
        self.index().statistics(from, to, zone).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let of = |times: &[i64]| Turnaround::of(times.to_vec());
        assert_eq!(of(&[]), Turnaround::default());
        assert_eq!(of(&[7]), Turnaround { p50_ms: Some(7), p90_ms: Some(7), p99_ms: Some(7) });
        let hundred: Vec<i64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Turnaround { p50_ms: Some(50), p90_ms: Some(90), p99_ms: Some(99) });
    }
}
