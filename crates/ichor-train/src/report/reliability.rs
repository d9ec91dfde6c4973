//! Whether probabilities mean what they say, with intervals over studies.

use serde::{Deserialize, Serialize};

use super::ROUNDS;
use super::detection::Estimate;
use super::input::CalibrationInput;
use crate::metrics::{BINS, Binning, ReliabilityBin, bootstrap, brier, expected_calibration_error, reliability};

/// Calibration of one set of probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationFigures {
    /// Whose.
    pub title: String,
    /// Probabilities.
    pub n: usize,
    /// Expected calibration error over ten bins of the same width; the interval keeps the bins.
    pub error_equal_width: Estimate,
    /// The same over ten bins of nearly the same number of values.
    pub error_equal_mass: Estimate,
    /// Brier score.
    pub brier: f64,
    /// Bins of the same width.
    pub equal_width: Vec<ReliabilityBin>,
    /// Bins of nearly the same number of values.
    pub equal_mass: Vec<ReliabilityBin>,
}

impl CalibrationFigures {
    /// `None` without any probability.
    pub(super) fn of(input: &CalibrationInput) -> Option<Self> {
        let (probabilities, truth): (Vec<f32>, Vec<bool>) = input.studies.iter().flatten().copied().unzip();
        let of = |binning| {
            let bins = reliability(&probabilities, &truth, binning, BINS);
            let value = expected_calibration_error(&bins)?;
            Some((Estimate { value, interval: interval(input, &bins, binning) }, bins))
        };
        let (error_equal_width, equal_width) = of(Binning::EqualWidth)?;
        let (error_equal_mass, equal_mass) = of(Binning::EqualMass)?;
        Some(Self {
            title: input.title.clone(),
            n: probabilities.len(),
            error_equal_width,
            error_equal_mass,
            brier: brier(&probabilities, &truth)?,
            equal_width,
            equal_mass,
        })
    }
}

/// Numbers, sums of probabilities and positives of a bin.
type Sums = (f64, f64, f64);

fn interval(input: &CalibrationInput, bins: &[ReliabilityBin], binning: Binning) -> Option<crate::metrics::Interval> {
    // An edge belongs to the bin above it where bins have edges, and a value to its bin where they have values.
    let bin_of = |p: f64| {
        let is_last = |index: usize| index + 1 == bins.len();
        let holds = |(index, bin): (usize, &ReliabilityBin)| match binning {
            Binning::EqualWidth => p < bin.high || is_last(index),
            Binning::EqualMass => p <= bin.high || is_last(index),
        };
        bins.iter().enumerate().position(holds).unwrap_or_default()
    };
    let of_study = |pairs: &Vec<(f32, bool)>| {
        let mut sums: Vec<Sums> = vec![(0.0, 0.0, 0.0); bins.len()];
        for (probability, truth) in pairs {
            let p = f64::from(*probability).clamp(0.0, 1.0);
            let sum = &mut sums[bin_of(p)];
            *sum = (sum.0 + 1.0, sum.1 + p, sum.2 + f64::from(u8::from(*truth)));
        }
        sums
    };
    let studies: Vec<Vec<Sums>> = input.studies.iter().map(of_study).collect();
    bootstrap(studies.len(), ROUNDS, 4, |drawn| {
        let mut all: Vec<Sums> = vec![(0.0, 0.0, 0.0); bins.len()];
        for sums in drawn.iter().map(|&study| &studies[study]) {
            all.iter_mut().zip(sums).for_each(|(a, b)| *a = (a.0 + b.0, a.1 + b.1, a.2 + b.2));
        }
        let n: f64 = all.iter().map(|sum| sum.0).sum();
        (n > 0.0).then(|| all.iter().map(|sum| (sum.1 - sum.2).abs()).sum::<f64>() / n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perfect_and_boastful() {
        let studies = |shift: f32| -> Vec<Vec<(f32, bool)>> {
            let study = |level: u8| (0..10u8).map(|i| (f32::from(level) / 10.0 + shift, i < level)).collect();
            (1..10).map(study).collect()
        };
        let figures = |shift| {
            CalibrationFigures::of(&CalibrationInput { title: "slices".to_owned(), studies: studies(shift) }).unwrap()
        };
        let (fair, boastful) = (figures(0.0), figures(0.08));
        assert!(fair.error_equal_width.value < 1e-6 && fair.error_equal_mass.value < 1e-6, "{fair:?}");
        for estimate in [boastful.error_equal_width, boastful.error_equal_mass] {
            let interval = estimate.interval.unwrap();
            assert!((estimate.value - 0.08).abs() < 1e-6, "{estimate:?}");
            assert!(interval.low <= 0.0801 && interval.high >= 0.0799, "{estimate:?}");
        }
        assert!(boastful.brier > fair.brier);
        assert_eq!(CalibrationFigures::of(&CalibrationInput { title: String::new(), studies: vec![vec![]] }), None);
    }
}
