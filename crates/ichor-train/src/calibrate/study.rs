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
    (with_threshold(rule, choose_threshold(&scored)), scored)
}

fn with_threshold(rule: StudyRule, threshold: f32) -> StudyRule {
    match rule {
        StudyRule::Neighbours { slices, .. } => StudyRule::Neighbours { slices, threshold },
        StudyRule::Strongest { slices, reach_mm, .. } => StudyRule::Strongest { slices, reach_mm, threshold },
    }
}

/// A study that is called for nothing costs a second look, one that is missed may cost a life: thresholds are sought where
/// so large a share of clean studies is called clean, and among them where most bleeding ones are found.
const LEAST_SPECIFICITY: f64 = 0.9;

/// The threshold, in the middle between two scores; of equally good ones the one of higher specificity, then that in the
/// widest gap. Where none has the specificity that is asked for, the one that comes nearest.
fn choose_threshold(scored: &[(f32, bool)]) -> f32 {
    let (mut scores, truth): (Vec<f32>, Vec<bool>) = scored.iter().copied().unzip();
    let all = scores.clone();
    scores.sort_by(f32::total_cmp);
    scores.dedup();
    let best = scores
        .windows(2)
        .map(|pair| {
            let threshold = f32::midpoint(pair[0], pair[1]);
            let confusion = Confusion::at(&all, &truth, threshold);
            let specificity = confusion.specificity();
            let value = [specificity.min(LEAST_SPECIFICITY), confusion.sensitivity(), specificity];
            (value, pair[1] - pair[0], threshold)
        })
        .max_by(|a, b| {
            let by_value = a.0.iter().zip(&b.0).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
            by_value.unwrap_or_else(|| a.1.total_cmp(&b.1))
        });
    best.map_or(0.5, |(.., threshold)| threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_called_for_nothing_and_most_are_found() {
        // Ten clean studies; one false call is one in ten.
        let clean = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.55, 0.85].map(|score| (score, false));
        let bleeding = [0.5, 0.6, 0.9].map(|score| (score, true));
        let scored = [&clean[..], &bleeding].concat();
        // 0.5 would be found at the price of two false calls in ten. Below 0.6 none is missed that need be.
        assert!((choose_threshold(&scored) - 0.575).abs() < 1e-6, "{}", choose_threshold(&scored));
        // Nothing is asked that cannot be had: the highest score is a clean study's.
        let hopeless = [(0.2, true), (0.5, false), (0.7, true), (0.9, false)];
        assert!((choose_threshold(&hopeless) - 0.6).abs() < 1e-6, "{}", choose_threshold(&hopeless));
        // Between equals the widest gap.
        let apart = [(0.1, false), (0.2, false), (0.8, true), (0.9, true)];
        assert!((choose_threshold(&apart) - 0.5).abs() < 1e-6);
        assert_eq!((choose_threshold(&[(0.4, true)]), choose_threshold(&[])), (0.5, 0.5));
    }
}
