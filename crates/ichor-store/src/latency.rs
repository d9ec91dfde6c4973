//! How long things take: histograms that are raised in the transaction that ends what is measured, and never go down.

use crate::{Store, StoreError};

/// Upper bounds of what is counted together, in milliseconds: from an answer of a neighbour to a peer that was away for a day.
/// They may be changed: each row holds the bound that it was counted under.
pub const LATENCY_BOUNDS_MS: [u64; 22] = [
    50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 30_000, 45_000, 60_000, 90_000, 120_000, 180_000,
    300_000, 600_000, 1_800_000, 3_600_000, 14_400_000, 86_400_000,
];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Last slice of a version → its outcome; by outcome. An analysis that somebody asked for counts from then.
    Turnaround,
    /// An analysis that came to an outcome: claim → outcome, of the attempt that did.
    Analysis,
    /// A stage of such an analysis; by stage.
    Stage,
    /// First suspicious slice → alert.
    Alert,
    /// What a message rests on → the peer's word that it has it; by channel and subject.
    Message,
    /// Queued → first accepted by the peer; by destination and kind.
    Accepted,
    /// Queued → the peer has committed itself; by destination and kind.
    Committed,
    /// Queued → found at the peer; by destination and kind.
    Visible,
    /// A report of a workitem → heard by a subscriber.
    Report,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 9] = [
        Self::Turnaround,
        Self::Analysis,
        Self::Stage,
        Self::Alert,
        Self::Message,
        Self::Accepted,
        Self::Committed,
        Self::Visible,
        Self::Report,
    ];

    /// Its word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Turnaround => "turnaround",
            Self::Analysis => "analysis",
            Self::Stage => "stage",
            Self::Alert => "alert",
            Self::Message => "message",
            Self::Accepted => "accepted",
            Self::Committed => "committed",
            Self::Visible => "visible",
            Self::Report => "report",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.as_str() == word)
    }
}

/// A histogram of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    /// By [`LATENCY_BOUNDS_MS`], and last what took longer than all of them; not cumulated.
    pub counts: [u64; LATENCY_BOUNDS_MS.len() + 1],
    /// All times together, in milliseconds.
    pub sum_ms: u64,
}

impl LatencyHistogram {
    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another counts.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_ms += other.sum_ms;
    }

    /// Adds a row: of a bound that is none any more, below the next one that surely holds it.
    pub(crate) fn add(&mut self, upto_ms: u64, count: u64, sum_ms: u64) {
        self.counts[place(upto_ms)] += count;
        self.sum_ms = self.sum_ms.saturating_add(sum_ms);
    }
}

/// The place of the first bound that is not below a time; behind the last one if there is none.
fn place(ms: u64) -> usize {
    LATENCY_BOUNDS_MS.partition_point(|bound| *bound < ms)
}

/// The bound under which a time is counted.
pub(crate) fn bound(ms: u64) -> u64 {
    LATENCY_BOUNDS_MS.get(place(ms)).copied().unwrap_or(i64::MAX.unsigned_abs())
}

/// One histogram of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// What was measured.
    pub measure: Measure,
    /// Whose: a channel or destination, configured or not any more; empty where there is but one.
    pub name: String,
    /// Of what; empty where there is but one.
    pub of_what: String,
    /// How long it took.
    pub histogram: LatencyHistogram,
}

impl Store {
    /// All histograms, in the order of measure, name and what they are of. They never go down: neither a restart nor retention
    /// takes anything from them.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn latencies(&self) -> Result<Vec<Latency>, StoreError> {
        self.index().latencies().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_below_their_bounds() {
        assert!(LATENCY_BOUNDS_MS.is_sorted_by(|a, b| a < b));
        for (ms, under) in [(0, 50), (50, 50), (51, 100), (86_400_000, 86_400_000), (86_400_001, i64::MAX as u64)] {
            assert_eq!(bound(ms), under, "{ms}");
        }
        assert_eq!(bound(u64::MAX), i64::MAX as u64);
    }

    #[test]
    fn bounds_that_are_none_any_more_count_where_they_surely_hold() {
        let mut histogram = LatencyHistogram::default();
        histogram.add(700, 2, 1_300);
        histogram.add(1_000, 1, 900);
        histogram.add(i64::MAX as u64, 1, 90_000_000);
        assert_eq!((histogram.counts[4], histogram.counts[22], histogram.count()), (3, 1, 4));
        let mut both = histogram.clone();
        both.merge(&histogram);
        assert_eq!((both.count(), both.sum_ms), (8, 2 * 90_002_200));
    }

    #[test]
    fn words_stay() {
        assert!(Measure::ALL.into_iter().all(|measure| Measure::parse(measure.as_str()) == Some(measure)));
        assert_eq!(Measure::parse("other"), None);
    }
}
