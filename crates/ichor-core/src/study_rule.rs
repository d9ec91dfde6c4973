//! How a study's verdict comes from its slices.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::calibration::log_odds;
use crate::finding::{SliceReading, consistent_probabilities};

/// How a study's score, and with it the verdict, comes from its slices. One number says both: a study is positive when its
/// score reaches the rule's threshold, and its calibrated probability rises with that score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum StudyRule {
    /// The highest value that so many neighbouring slices reach, read as slices are.
    Neighbours {
        /// Neighbouring slices, at least 1.
        slices: usize,
        /// Score from which a study is positive: the slices' own threshold makes it "so many neighbouring positive slices".
        threshold: f32,
    },
    /// The mean log-odds of the most suspicious slices, which need not be neighbours: a bleed that fills one thick slice, or
    /// two small ones, count as well. Slices are made consistent over a reach of the rule's own, and not calibrated.
    Strongest {
        /// How many of the most suspicious slices, at least 1.
        slices: usize,
        /// How far neighbours are made consistent for it, mm (see [`consistent_probabilities`]).
        reach_mm: f64,
        /// Score from which a study is positive.
        threshold: f32,
    },
}

impl StudyRule {
    /// The score, 0 to 1. `own`: each slice's probability by itself, in slice order; `offsets_mm`: where each lies along the
    /// normal, as many; `reading`: how slices are read. A stack of fewer slices than the rule wants is taken as a whole; an
    /// empty one gives 0.
    #[must_use]
    pub fn score(&self, own: &[f32], offsets_mm: &[f64], reading: &SliceReading) -> f32 {
        match *self {
            Self::Neighbours { slices, .. } => highest_of_all(&reading.read(own, offsets_mm), slices),
            Self::Strongest { slices, reach_mm, .. } => {
                let consistent = consistent_probabilities(own, offsets_mm, reach_mm);
                mean_of_strongest(&consistent, slices)
            }
        }
    }

    /// Score from which a study is positive.
    #[must_use]
    pub fn threshold(&self) -> f32 {
        match *self {
            Self::Neighbours { threshold, .. } | Self::Strongest { threshold, .. } => threshold,
        }
    }

    /// Whether the numbers make a rule: 1 to 100 slices, a reach of 0 to 50 mm, a threshold above 0 and at most 1.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let (slices, reach_mm) = match *self {
            Self::Neighbours { slices, .. } => (slices, 0.0),
            Self::Strongest { slices, reach_mm, .. } => (slices, reach_mm),
        };
        let threshold = self.threshold();
        (1..=100).contains(&slices) && (0.0..=50.0).contains(&reach_mm) && threshold > 0.0 && threshold <= 1.0
    }
}

/// In words, for people.
impl fmt::Display for StudyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neighbours { slices, threshold } => write!(f, "{slices} neighbouring slices from {threshold}"),
            Self::Strongest { slices, reach_mm, threshold } => {
                write!(f, "the {slices} most suspicious slices, consistent over {reach_mm} mm, from {threshold}")
            }
        }
    }
}

/// The highest value that at least `run` neighbours reach.
fn highest_of_all(read: &[f32], run: usize) -> f32 {
    let run = run.clamp(1, read.len().max(1));
    read.windows(run).map(|window| window.iter().copied().fold(1.0, f32::min)).fold(0.0, f32::max)
}

/// The mean log-odds of the `count` highest, as a probability.
fn mean_of_strongest(probabilities: &[f32], count: usize) -> f32 {
    let mut odds: Vec<f64> = probabilities.iter().map(|probability| log_odds(*probability)).collect();
    if odds.is_empty() {
        return 0.0;
    }
    odds.sort_by(|a, b| b.total_cmp(a));
    odds.truncate(count.max(1));
    let mean = odds.iter().sum::<f64>() / odds.len() as f64;
    (1.0 / (1.0 + (-mean).exp())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;

    const APART: [f64; 5] = [0.0, 100.0, 200.0, 300.0, 400.0];

    fn score(rule: StudyRule, own: &[f32]) -> f32 {
        rule.score(own, &APART[..own.len()], &SliceReading::default())
    }

    #[test]
    fn neighbours_must_agree() {
        let rule = |slices| StudyRule::Neighbours { slices, threshold: 0.5 };
        assert_eq!(score(rule(2), &[0.1, 0.9, 0.2, 0.8, 0.7]), 0.7);
        assert_eq!(score(rule(1), &[0.1, 0.9, 0.2, 0.8, 0.7]), 0.9);
        assert_eq!(score(rule(2), &[0.4]), 0.4);
        assert_eq!(score(rule(2), &[]), 0.0);
        // Read as slices are: calibrated.
        let reading = SliceReading { reach_mm: 0.0, calibration: Calibration { slope: 1.0, offset: -2.0 } };
        let read = rule(1).score(&[0.5], &[0.0], &reading);
        assert!((read - Calibration { slope: 1.0, offset: -2.0 }.apply(0.5)).abs() < 1e-6);
    }

    #[test]
    fn the_strongest_need_not_be_neighbours() {
        let rule = |slices| StudyRule::Strongest { slices, reach_mm: 4.0, threshold: 0.5 };
        let two = score(rule(2), &[0.1, 0.9, 0.2, 0.8, 0.3]);
        let mean = f64::midpoint(9.0_f64.ln(), 4.0_f64.ln());
        assert!((f64::from(two) - 1.0 / (1.0 + (-mean).exp())).abs() < 1e-6, "{two}");
        assert!((score(rule(1), &[0.1, 0.9, 0.2]) - 0.9).abs() < 1e-6);
        assert!((score(rule(3), &[0.4]) - 0.4).abs() < 1e-6);
        assert_eq!(score(rule(3), &[]), 0.0);
        assert!(score(rule(2), &[0.0, 1.0, 1.0]).is_finite());
        // Its reach is its own: near each other all say the same.
        let near = rule(1).score(&[0.1, 0.9], &[0.0, 0.0], &SliceReading::default());
        assert!((near - 0.5).abs() < 1e-6, "{near}");
    }

    #[test]
    fn numbers_that_make_no_rule() {
        let strongest = StudyRule::Strongest { slices: 2, reach_mm: 2.5, threshold: 0.3 };
        assert!(strongest.is_sound());
        for unsound in [
            StudyRule::Neighbours { slices: 0, threshold: 0.5 },
            StudyRule::Neighbours { slices: 2, threshold: 0.0 },
            StudyRule::Strongest { slices: 101, reach_mm: 2.5, threshold: 0.3 },
            StudyRule::Strongest { slices: 2, reach_mm: f64::NAN, threshold: 0.3 },
            StudyRule::Strongest { slices: 2, reach_mm: 2.5, threshold: 1.1 },
        ] {
            assert!(!unsound.is_sound(), "{unsound:?}");
        }
    }
}
