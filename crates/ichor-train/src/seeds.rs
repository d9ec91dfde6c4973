//! Seed ranges: a phantom study is its seed, so a split by studies is a split by seed ranges.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A run of consecutive phantom seeds, each of them one study (one synthetic patient).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedRange {
    /// First seed.
    pub first: u64,
    /// Number of studies.
    pub studies: u64,
}

/// Two parts of the data share a study.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitError {
    /// The named ranges overlap: the same synthetic patient would stand on both sides.
    #[error("seed ranges of {0} and {1} overlap")]
    Overlap(String, String),
    /// A range is empty or runs past the largest seed.
    #[error("seed range of {0} is empty or too long")]
    Extent(String),
}

impl SeedRange {
    /// The seeds in order.
    pub fn seeds(self) -> impl Iterator<Item = u64> {
        (0..self.studies).map(move |i| self.first.wrapping_add(i))
    }

    fn overlaps(self, other: Self) -> bool {
        self.first < other.first + other.studies && other.first < self.first + self.studies
    }
}

/// Checks that no two of the named ranges share a study.
///
/// # Errors
/// [`SplitError`] naming the first offence.
pub fn check_disjoint(ranges: &[(String, SeedRange)]) -> Result<(), SplitError> {
    for (index, (name, range)) in ranges.iter().enumerate() {
        if range.studies == 0 || range.first.checked_add(range.studies).is_none() {
            return Err(SplitError::Extent(name.clone()));
        }
        if let Some((other, _)) = ranges[..index].iter().find(|(_, other)| range.overlaps(*other)) {
            return Err(SplitError::Overlap(other.clone(), name.clone()));
        }
    }
    Ok(())
}

/// Mixes a run's seed with what is drawn (phase, epoch, step) into a seed of its own (SplitMix64's finaliser), so that
/// each draw can be repeated without replaying the draws before it.
#[must_use]
pub fn derive(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |state, &part| {
        let mut z = state.wrapping_add(part.wrapping_mul(0xbf58_476d_1ce4_e5b9)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(u64, u64)]) -> Result<(), SplitError> {
        let name = |(i, &(first, studies)): (usize, &(u64, u64))| (format!("part {i}"), SeedRange { first, studies });
        check_disjoint(&ranges.iter().enumerate().map(name).collect::<Vec<_>>())
    }

    #[test]
    fn a_shared_study_is_refused() {
        assert_eq!(check(&[(0, 10), (10, 10), (100, 1)]), Ok(()));
        for overlapping in [[(0, 10), (9, 1)], [(5, 5), (0, 6)], [(0, 10), (3, 2)], [(3, 2), (0, 10)]] {
            assert!(matches!(check(&overlapping), Err(SplitError::Overlap(..))), "{overlapping:?}");
        }
        assert!(matches!(check(&[(0, 0)]), Err(SplitError::Extent(_))));
        assert!(matches!(check(&[(u64::MAX, 2)]), Err(SplitError::Extent(_))));
        assert_eq!(SeedRange { first: 7, studies: 3 }.seeds().collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn derived_seeds_differ() {
        let all: std::collections::BTreeSet<u64> =
            (0..10).flat_map(|a| (0..10).flat_map(move |b| [derive(7, &[a, b]), derive(8, &[a, b])])).collect();
        assert_eq!(all.len(), 200);
        assert_eq!(derive(7, &[1, 2]), derive(7, &[1, 2]));
    }
}
