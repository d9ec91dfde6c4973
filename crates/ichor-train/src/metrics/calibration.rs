//! Whether probabilities mean what they say.

use serde::{Deserialize, Serialize};

use super::{count, ratio};

/// Bins of a reliability diagram, as most papers have it.
pub const BINS: usize = 10;

/// How probabilities are put into bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binning {
    /// Bins of the same width over 0..1 (Guo et al. 2017). Where most probabilities lie near 0, as with slices, one bin
    /// holds nearly all of them.
    EqualWidth,
    /// Bins of nearly the same number of values (Nixon et al. 2019); equal probabilities stay together.
    EqualMass,
}

/// One bin: what was said and what was so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Lowest probability: the bin's edge (equal width) or its lowest value (equal mass).
    pub low: f64,
    /// Highest probability, likewise.
    pub high: f64,
    /// Values in it.
    pub n: usize,
    /// Mean of their probabilities.
    pub mean_probability: f64,
    /// Share of them that are positive.
    pub positive_share: f64,
}

/// The bins that hold anything, from low to high.
#[must_use]
pub fn reliability(probabilities: &[f32], positive: &[bool], binning: Binning, bins: usize) -> Vec<ReliabilityBin> {
    let bins = bins.max(1);
    let mut pairs: Vec<(f64, bool)> =
        probabilities.iter().zip(positive).map(|(p, truth)| (f64::from(*p).clamp(0.0, 1.0), *truth)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    match binning {
        Binning::EqualWidth => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the bins")]
            let bin_of = |p: f64| ((p * count(bins)) as usize).min(bins - 1);
            let groups = pairs.chunk_by(|a, b| bin_of(a.0) == bin_of(b.0));
            groups
                .map(|group| bin(group, ratio(bin_of(group[0].0), bins), ratio(bin_of(group[0].0) + 1, bins)))
                .collect()
        }
        Binning::EqualMass => {
            let mut found = Vec::with_capacity(bins);
            let mut start = 0;
            for number in 1..=bins {
                let mut end = pairs.len() * number / bins;
                if end <= start {
                    continue;
                }
                end += pairs[end..].iter().take_while(|pair| pair.0 == pairs[end - 1].0).count();
                let group = &pairs[start..end];
                found.push(bin(group, group[0].0, group[group.len() - 1].0));
                start = end;
            }
            found
        }
    }
}

fn bin(group: &[(f64, bool)], low: f64, high: f64) -> ReliabilityBin {
    let mean_probability = group.iter().map(|pair| pair.0).sum::<f64>() / count(group.len());
    let positive_share = ratio(group.iter().filter(|pair| pair.1).count(), group.len());
    ReliabilityBin { low, high, n: group.len(), mean_probability, positive_share }
}

/// Expected calibration error of the bins: the mean distance between what was said and what was so, weighted by the
/// bins' numbers. `None` without bins.
#[must_use]
pub fn expected_calibration_error(bins: &[ReliabilityBin]) -> Option<f64> {
    let all: usize = bins.iter().map(|bin| bin.n).sum();
    let weighted = bins.iter().map(|bin| count(bin.n) * (bin.mean_probability - bin.positive_share).abs());
    (all > 0).then(|| weighted.sum::<f64>() / count(all))
}

/// Brier score: the mean squared distance between probability and truth (0 or 1); always calling the share of positives
/// p gives p·(1 − p). `None` without values.
#[must_use]
pub fn brier(probabilities: &[f32], positive: &[bool]) -> Option<f64> {
    let squares: Vec<f64> = probabilities
        .iter()
        .zip(positive)
        .map(|(p, truth)| (f64::from(*p) - f64::from(u8::from(*truth))).powi(2))
        .collect();
    (!squares.is_empty()).then(|| squares.iter().sum::<f64>() / count(squares.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bins_and_errors_by_hand() {
        let probabilities = [0.0, 0.05, 0.15, 0.95, 1.0, 0.92];
        let positive = [false, true, false, true, true, false];
        let bins = reliability(&probabilities, &positive, Binning::EqualWidth, 10);
        let got: Vec<(f64, usize)> = bins.iter().map(|bin| (bin.low, bin.n)).collect();
        assert_eq!(got, [(0.0, 2), (0.1, 1), (0.9, 3)]);
        // 2·|0.025 − 0.5| + 1·0.15 + 3·|2.87/3 − 2/3|, over 6.
        let error = expected_calibration_error(&bins).unwrap();
        assert!((error - (0.95 + 0.15 + 0.87) / 6.0).abs() < 1e-6, "{error}");
        let halves = reliability(&probabilities, &positive, Binning::EqualMass, 2);
        assert_eq!(halves.iter().map(|bin| bin.n).collect::<Vec<_>>(), [3, 3]);
        assert!((brier(&[1.0, 0.5], &[true, false]).unwrap() - 0.125).abs() < 1e-12);
        assert_eq!((brier(&[], &[]), expected_calibration_error(&[])), (None, None));
    }

    #[test]
    fn equal_probabilities_stay_together() {
        let bins = reliability(&[0.2; 7], &[true, false, false, false, false, false, false], Binning::EqualMass, 3);
        assert_eq!(bins.len(), 1);
        assert_eq!(bins[0].n, 7);
    }

    proptest! {
        #[test]
        fn bins_hold_every_value_once(
            values in prop::collection::vec((0.0f32..=1.0, any::<bool>()), 0..80),
            bins in 1usize..20,
        ) {
            let (probabilities, positive): (Vec<f32>, Vec<bool>) = values.into_iter().unzip();
            for binning in [Binning::EqualWidth, Binning::EqualMass] {
                let found = reliability(&probabilities, &positive, binning, bins);
                prop_assert!(found.len() <= bins);
                prop_assert_eq!(found.iter().map(|bin| bin.n).sum::<usize>(), probabilities.len());
                for bin in &found {
                    prop_assert!(bin.low - 1e-9 <= bin.mean_probability && bin.mean_probability <= bin.high + 1e-9);
                }
                let error = expected_calibration_error(&found).unwrap_or(0.0);
                prop_assert!((0.0..=1.0).contains(&error));
            }
        }
    }
}
