//! Detection, overlap, distance, calibration and agreement figures, with intervals.

mod agreement;
mod calibration;
mod ranking;
mod surface;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use agreement::BlandAltman;
pub use calibration::{BINS, Binning, ReliabilityBin, brier, expected_calibration_error, reliability};
pub use ranking::{RankedScores, RocPoint, roc_points};
pub use surface::hausdorff95_mm;

/// Area under the receiver operating characteristic: the share of (positive, negative) pairs that the scores put in
/// order, ties counted half (Mann–Whitney). `None` if a class is empty.
#[must_use]
pub fn auc(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let (mut rank_sum, mut with) = (0.0, 0.0);
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].iter().take_while(|&&i| scores[i] == scores[order[start]]).count().max(1);
        let rank = count(start) + (count(tied) + 1.0) / 2.0;
        let hits = count(order[start..start + tied].iter().filter(|&&i| positive[i]).count());
        rank_sum += rank * hits;
        with += hits;
        start += tied;
    }
    let without = count(scores.len()) - with;
    (with > 0.0 && without > 0.0).then(|| (rank_sum - with * (with + 1.0) / 2.0) / (with * without))
}

/// Counts of a yes-or-no decision against the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confusion {
    /// Called positive, and it is.
    pub true_positive: usize,
    /// Called positive, and it is not.
    pub false_positive: usize,
    /// Called negative, and it is.
    pub true_negative: usize,
    /// Called negative, and it is not.
    pub false_negative: usize,
}

impl Confusion {
    /// Counts decisions `score >= threshold`.
    #[must_use]
    pub fn at(scores: &[f32], positive: &[bool], threshold: f32) -> Self {
        let mut counts = Self::default();
        for (&score, &truth) in scores.iter().zip(positive) {
            counts.add(score >= threshold, truth);
        }
        counts
    }

    /// Adds one decision.
    pub fn add(&mut self, called: bool, truth: bool) {
        match (called, truth) {
            (true, true) => self.true_positive += 1,
            (true, false) => self.false_positive += 1,
            (false, false) => self.true_negative += 1,
            (false, true) => self.false_negative += 1,
        }
    }

    /// The decisions of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            true_positive: self.true_positive + other.true_positive,
            false_positive: self.false_positive + other.false_positive,
            true_negative: self.true_negative + other.true_negative,
            false_negative: self.false_negative + other.false_negative,
        }
    }

    /// Share of the positives that were called so.
    #[must_use]
    pub fn sensitivity(&self) -> f64 {
        ratio(self.true_positive, self.true_positive + self.false_negative)
    }

    /// Share of the negatives that were called so.
    #[must_use]
    pub fn specificity(&self) -> f64 {
        ratio(self.true_negative, self.true_negative + self.false_positive)
    }

    /// Share of the positive calls that are right.
    #[must_use]
    pub fn precision(&self) -> f64 {
        ratio(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Share of all decisions that are right.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        let right = self.true_positive + self.true_negative;
        ratio(right, right + self.false_positive + self.false_negative)
    }

    /// Harmonic mean of precision and sensitivity.
    #[must_use]
    pub fn f1(&self) -> f64 {
        ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)
    }

    /// Youden's index, sensitivity + specificity − 1.
    #[must_use]
    pub fn youden(&self) -> f64 {
        self.sensitivity() + self.specificity() - 1.0
    }
}

/// Dice coefficient from pixel counts: 2·|A∩B| / (|A| + |B|); two empty masks agree fully.
#[must_use]
pub fn dice(intersection: usize, predicted: usize, truth: usize) -> f64 {
    if predicted + truth == 0 { 1.0 } else { ratio(2 * intersection, predicted + truth) }
}

/// Jaccard index from pixel counts: |A∩B| / |A∪B|; two empty masks agree fully.
#[must_use]
pub fn iou(intersection: usize, predicted: usize, truth: usize) -> f64 {
    let union = predicted + truth - intersection;
    if union == 0 { 1.0 } else { ratio(intersection, union) }
}

/// A mean, its spread, and the 95 % interval of a bootstrap over studies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// Mean of the values.
    pub mean: f64,
    /// Sample standard deviation (n − 1).
    pub sd: f64,
    /// Standard error of the mean, SD / √n. It takes the values as independent, which slices of one head are not: the
    /// interval does not.
    #[serde(default)]
    pub sem: f64,
    /// Interval of the mean, if one was computed.
    pub interval: Option<Interval>,
}

impl Summary {
    /// Mean and standard deviation of `values`; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = count(values.len());
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = (squares / (n - 1.0).max(1.0)).sqrt();
        Some(Self { n: values.len(), mean, sd, sem: sd / n.sqrt(), interval: None })
    }
}

/// The middle 95 % of a statistic over bootstrap resamples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Percentile bootstrap (95 %) of `statistic` over whole studies: slices of one head are not independent, so studies are
/// drawn with replacement, `rounds` times. The statistic gets the indices of the drawn studies; rounds in which it has
/// no value are left out. `None` if no round has one.
pub fn bootstrap(
    studies: usize,
    rounds: usize,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    if studies == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let drawn: Vec<usize> = (0..studies).map(|_| rng.random_range(0..studies)).collect();
        values.extend(statistic(&drawn));
    }
    values.sort_by(f64::total_cmp);
    let at = |permille: usize| values.get((values.len().saturating_sub(1)) * permille / 1000).copied();
    Some(Interval { low: at(25)?, high: at(975)? })
}

/// Histogram of a 0..1 map against the truth, from which the overlap at any threshold follows without another pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OverlapCurve {
    inside: Vec<u32>,
    outside: Vec<u32>,
}

impl OverlapCurve {
    /// Thresholds are the squares of multiples of 1 / BINS: products of maps are small, and so are their thresholds.
    pub const BINS: usize = 200;

    /// The first bin whose threshold is not below this one.
    #[must_use]
    pub fn bin_of(threshold: f64) -> usize {
        (0..=Self::BINS).find(|&bin| Self::threshold(bin) >= threshold - 1e-9).unwrap_or(Self::BINS)
    }

    /// Counts `map` (values 0..1) against `truth` (non-zero = lesion), pixel by pixel.
    #[must_use]
    pub fn new(map: &[f32], truth: &[u8]) -> Self {
        let mut curve = Self { inside: vec![0; Self::BINS + 1], outside: vec![0; Self::BINS + 1] };
        for (&value, &lesion) in map.iter().zip(truth) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "clamped to 0..=BINS first"
            )]
            let bin = (value.clamp(0.0, 1.0).sqrt() * Self::BINS as f32) as usize;
            if lesion == 0 { curve.outside[bin] += 1 } else { curve.inside[bin] += 1 }
        }
        curve
    }

    /// Threshold that bin `bin` stands for.
    #[must_use]
    pub fn threshold(bin: usize) -> f64 {
        ratio(bin, Self::BINS).powi(2)
    }

    /// Pixel counts (intersection, predicted, truth) of the mask `map >= threshold(bin)`.
    #[must_use]
    pub fn counts(&self, bin: usize) -> (usize, usize, usize) {
        let sum = |bins: &[u32]| bins.iter().map(|&n| n as usize).sum::<usize>();
        let inside = sum(&self.inside[bin..]);
        (inside, inside + sum(&self.outside[bin..]), sum(&self.inside))
    }
}

/// The bin whose threshold gives the best mean Dice over `curves`, with that Dice; thresholds above zero only.
#[must_use]
pub fn best_threshold<'a>(curves: impl Iterator<Item = &'a OverlapCurve> + Clone) -> Option<(usize, f64)> {
    let mean_dice = |bin: usize| {
        let values: Vec<f64> = curves
            .clone()
            .map(|curve| {
                let (intersection, predicted, truth) = curve.counts(bin);
                dice(intersection, predicted, truth)
            })
            .collect();
        Summary::of(&values).map(|summary| summary.mean)
    };
    (1..OverlapCurve::BINS).filter_map(|bin| mean_dice(bin).map(|dice| (bin, dice))).fold(None, |best, next| match best
    {
        Some((_, dice)) if dice >= next.1 => best,
        _ => Some(next),
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { count(part) / count(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_by_hand() {
        let truth = [true, false, true, false];
        // Pairs: (0.9 > 0.8), (0.9 > 0.3), (0.5 < 0.8), (0.5 > 0.3): three of four.
        assert_eq!(auc(&[0.9, 0.8, 0.5, 0.3], &truth), Some(0.75));
        // One tie counts half: (0.9, 0.8), (0.9, 0.3), (0.8 = 0.8), (0.8, 0.3).
        assert_eq!(auc(&[0.9, 0.8, 0.8, 0.3], &truth), Some(3.5 / 4.0));
        assert_eq!(auc(&[0.5; 4], &truth), Some(0.5));
        assert_eq!(auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auc(&[], &[]), None);
    }

    #[test]
    fn decisions_by_hand() {
        let counts = Confusion::at(&[0.9, 0.8, 0.5, 0.3, 0.2], &[true, false, true, false, true], 0.5);
        assert_eq!((counts.true_positive, counts.false_positive), (2, 1));
        assert_eq!((counts.true_negative, counts.false_negative), (1, 1));
        assert!((counts.sensitivity() - 2.0 / 3.0).abs() < 1e-12);
        assert!((counts.specificity() - 0.5).abs() < 1e-12);
        assert!((counts.accuracy() - 0.6).abs() < 1e-12);
        assert!((counts.f1() - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn overlap_by_hand() {
        assert!((dice(2, 3, 5) - 0.5).abs() < 1e-12);
        assert!((iou(2, 3, 5) - 2.0 / 6.0).abs() < 1e-12);
        assert_eq!((dice(0, 0, 0), iou(0, 0, 0)), (1.0, 1.0));
        assert_eq!((dice(0, 0, 4), iou(0, 4, 0)), (0.0, 0.0));
    }

    #[test]
    fn the_curve_gives_the_same_counts_as_a_mask() {
        let map = [0.0, 0.049, 0.05, 0.051, 0.4, 0.75, 1.0, 0.2_f32];
        let truth = [0, 1, 0, 1, 1, 0, 1, 0];
        let curve = OverlapCurve::new(&map, &truth);
        for bin in [1, 10, 80, 150, 200] {
            let threshold = OverlapCurve::threshold(bin) as f32;
            let mask: Vec<bool> = map.iter().map(|&v| v >= threshold).collect();
            let both = mask.iter().zip(truth).filter(|(m, t)| **m && *t == 1).count();
            assert_eq!(curve.counts(bin), (both, mask.iter().filter(|m| **m).count(), 4), "bin {bin}");
        }
        let (bin, best) = best_threshold([curve].iter()).unwrap();
        // Everything above zero: 4 of the 7 pixels are lesion, 2·4 / (7 + 4).
        assert!((best - 8.0 / 11.0).abs() < 1e-12 && bin > 0, "{bin} {best}");
    }

    #[test]
    fn the_interval_holds_the_mean_and_shrinks() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let mean = |drawn: &[usize]| Summary::of(&drawn.iter().map(|&i| values[i]).collect::<Vec<_>>()).map(|s| s.mean);
        let wide = bootstrap(20, 500, 1, mean).unwrap();
        let narrow = bootstrap(200, 500, 1, mean).unwrap();
        assert!(narrow.low < 4.5 && 4.5 < narrow.high);
        assert!(narrow.high - narrow.low < wide.high - wide.low);
        assert_eq!(bootstrap(0, 10, 1, mean), None);
        let summary = Summary::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((summary.mean - 2.5).abs() < 1e-12 && (summary.sd - (5.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((summary.sem - summary.sd / 2.0).abs() < 1e-12);
    }
}
