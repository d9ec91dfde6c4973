//! The receiver operating characteristic, and its area for many bootstrap rounds.

use serde::{Deserialize, Serialize};

use super::{count, ratio};

/// A point of the ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Scores from here on are called positive; absent at the curve's start, where nothing is.
    pub threshold: Option<f32>,
    /// Share of the negatives that are called positive.
    pub false_positive_rate: f64,
    /// Share of the positives that are called positive.
    pub true_positive_rate: f64,
}

/// The corners of the ROC curve from (0, 0) to (1, 1); equal scores are called together, points on a straight line are
/// left out. Empty if a class is.
#[must_use]
pub fn roc_points(scores: &[f32], positive: &[bool]) -> Vec<RocPoint> {
    let mut pairs: Vec<(f32, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let with = pairs.iter().filter(|pair| pair.1).count();
    let without = pairs.len() - with;
    if with == 0 || without == 0 {
        return Vec::new();
    }
    // Whole numbers, so that "straight" is exact.
    let mut corners: Vec<(Option<f32>, i64, i64)> = vec![(None, 0, 0)];
    let (mut hits, mut alarms) = (0i64, 0i64);
    for tied in pairs.chunk_by(|a, b| a.0 == b.0) {
        let positives = i64::try_from(tied.iter().filter(|pair| pair.1).count()).unwrap_or(i64::MAX);
        hits += positives;
        alarms += i64::try_from(tied.len()).unwrap_or(i64::MAX) - positives;
        if let [.., a, b] = corners.as_slice()
            && (b.1 - a.1) * (hits - b.2) == (b.2 - a.2) * (alarms - b.1)
        {
            corners.pop();
        }
        corners.push((Some(tied[0].0), alarms, hits));
    }
    let share = |part: i64, whole: usize| ratio(usize::try_from(part).unwrap_or_default(), whole);
    let point = |(threshold, alarms, hits)| RocPoint {
        threshold,
        false_positive_rate: share(alarms, without),
        true_positive_rate: share(hits, with),
    };
    corners.into_iter().map(point).collect()
}

/// Scores of whole studies in their order, so that the area of any resample of studies follows in one pass.
#[derive(Debug, Clone)]
pub struct RankedScores {
    /// Score, truth and study, from low to high.
    ranked: Vec<(f32, bool, usize)>,
}

impl RankedScores {
    /// Ranks the (score, truth) pairs of each study.
    #[must_use]
    pub fn new(studies: &[Vec<(f32, bool)>]) -> Self {
        let of_study = |(study, pairs): (usize, &Vec<(f32, bool)>)| {
            pairs.iter().map(move |(score, truth)| (*score, *truth, study)).collect::<Vec<_>>()
        };
        let mut ranked: Vec<(f32, bool, usize)> = studies.iter().enumerate().flat_map(of_study).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { ranked }
    }

    /// Area under the ROC curve (Mann–Whitney, ties counted half) where each study counts as often as `weights` says.
    /// `None` if a class is empty.
    #[must_use]
    pub fn auc(&self, weights: &[usize]) -> Option<f64> {
        let (mut below, mut with, mut ordered) = (0usize, 0usize, 0.0);
        for tied in self.ranked.chunk_by(|a, b| a.0 == b.0) {
            let (mut positives, mut negatives) = (0, 0);
            for (_, truth, study) in tied {
                let weight = weights.get(*study).copied().unwrap_or_default();
                if *truth { positives += weight } else { negatives += weight }
            }
            ordered += count(positives) * (count(below) + count(negatives) / 2.0);
            below += negatives;
            with += positives;
        }
        (with > 0 && below > 0).then(|| ordered / (count(with) * count(below)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::auc;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn corners_by_hand() {
        let points = roc_points(&[0.9, 0.8, 0.5, 0.3], &[true, false, true, false]);
        let corners: Vec<(f64, f64)> = points.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect();
        assert_eq!(corners, [(0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(points[0].threshold, None);
        assert_eq!(points[2].threshold, Some(0.8));
        // One straight line: everything is tied.
        assert_eq!(roc_points(&[0.5; 4], &[true, false, true, false]).len(), 2);
        assert!(roc_points(&[0.5], &[true]).is_empty());
    }

    proptest! {
        #[test]
        fn areas_agree(values in prop::collection::vec((0u8..6, any::<bool>()), 1..60), weights in prop::collection::vec(0usize..3, 60)) {
            let studies: Vec<Vec<(f32, bool)>> =
                values.chunks(3).map(|chunk| chunk.iter().map(|(s, t)| (f32::from(*s), *t)).collect()).collect();
            let ranked = RankedScores::new(&studies);
            // Each study as often as its weight, the slow way.
            let (scores, truth): (Vec<f32>, Vec<bool>) = studies
                .iter()
                .zip(&weights)
                .flat_map(|(study, n)| std::iter::repeat_n(study.clone(), *n).flatten())
                .unzip();
            let (found, wanted) = (ranked.auc(&weights), auc(&scores, &truth));
            prop_assert_eq!(found.is_some(), wanted.is_some());
            if let (Some(found), Some(wanted)) = (found, wanted) {
                prop_assert!((found - wanted).abs() < 1e-9);
                // The curve's area by trapezoids is the same number.
                let curve = roc_points(&scores, &truth);
                let area: f64 = curve
                    .windows(2)
                    .map(|p| (p[1].false_positive_rate - p[0].false_positive_rate)
                        * (p[1].true_positive_rate + p[0].true_positive_rate) / 2.0)
                    .sum();
                prop_assert!((area - wanted).abs() < 1e-9, "{} {}", area, wanted);
            }
        }
    }
}
