//! The study rule, chosen on validation studies.

use ichor_core::{SliceReading, StudyRule};

use super::REACHES_MM;
use crate::measure::StudyMeasure;
use crate::metrics::{Confusion, auc};

/// How many slices are tried, as neighbours and as the most suspicious.
const COUNTS: [usize; 3] = [1, 2, 3];

/// The rule with the best study AUC (of equal ones the one that is tried first: plain ones, few slices, short reaches), with
/// its threshold, and the score of each study beside its truth.
pub(super) fn choose(own: &[StudyMeasure], reading: &SliceReading) -> (StudyRule, Vec<(f32, bool)>) {
    let neighbours = COUNTS.into_iter().map(|slices| StudyRule::Neighbours { slices, threshold: 1.0 });
    let strongest = COUNTS.into_iter().flat_map(|slices| {
        REACHES_MM.into_iter().map(move |reach_mm| StudyRule::Strongest { slices, reach_mm, threshold: 1.0 })
    });
    let mut best = (f64::NEG_INFINITY, StudyRule::Neighbours { slices: 1, threshold: 1.0 }, Vec::new());
    for rule in neighbours.chain(strongest) {
        let scored: Vec<(f32, bool)> =
            own.iter().map(|study| (study.score(&rule, reading), study.positive())).collect();
        let (scores, truth): (Vec<f32>, Vec<bool>) = scored.iter().copied().unzip();
        // Studies of one kind only: any rule is as good.
        let area = auc(&scores, &truth).unwrap_or(0.0);
        if area > best.0 {
            best = (area, rule, scored);
        }
    }
    let (_, rule, scored) = best;
    (with_threshold(rule, best_threshold(&scored)), scored)
}

fn with_threshold(rule: StudyRule, threshold: f32) -> StudyRule {
    match rule {
        StudyRule::Neighbours { slices, .. } => StudyRule::Neighbours { slices, threshold },
        StudyRule::Strongest { slices, reach_mm, .. } => StudyRule::Strongest { slices, reach_mm, threshold },
    }
}

/// The threshold of the best Youden's index, in the middle between two scores; of equal ones that in the widest gap.
fn best_threshold(scored: &[(f32, bool)]) -> f32 {
    let (mut scores, truth): (Vec<f32>, Vec<bool>) = scored.iter().copied().unzip();
    let all = scores.clone();
    scores.sort_by(f32::total_cmp);
    scores.dedup();
    let gaps = scores.windows(2).map(|pair| (f32::midpoint(pair[0], pair[1]), pair[1] - pair[0]));
    // Rounded, so that equal ones are equal.
    let youden = |threshold: f32| (Confusion::at(&all, &truth, threshold).youden() * 1e9).round();
    let valued = gaps.map(|(threshold, gap)| (youden(threshold), gap, threshold));
    let best = valued.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    best.map_or(0.5, |(.., threshold)| threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_lies_in_the_widest_gap_of_the_best() {
        let scored = [(0.1, false), (0.2, false), (0.3, true), (0.35, false), (0.8, true), (0.9, true)];
        // Youden's index is 2/3 both above 0.2 and above 0.35; the second gap is wider.
        assert!((best_threshold(&scored) - 0.575).abs() < 1e-6);
        assert_eq!(best_threshold(&[(0.4, true)]), 0.5);
        assert_eq!(best_threshold(&[]), 0.5);
    }
}
