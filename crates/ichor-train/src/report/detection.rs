//! The detection table's figures (section 4.3 of the paper), with what it leaves out: intervals and the curve.

use serde::{Deserialize, Serialize};

use super::{Auc, ROUNDS};
use crate::metrics::{Confusion, Interval, RankedScores, RocPoint, bootstrap, roc_points};

/// Most points of a stored ROC curve.
const MOST_POINTS: usize = 400;

/// A figure with the 95 % interval of a bootstrap over studies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure over all studies.
    pub value: f64,
    /// Its interval.
    pub interval: Option<Interval>,
}

/// A yes-or-no decision against the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectionRow {
    /// Decisions.
    pub n: usize,
    /// Of these, about positives.
    pub positive: usize,
    /// The decisions.
    pub confusion: Confusion,
    /// Share of the decisions that are right.
    pub accuracy: Estimate,
    /// Share of the positive calls that are right.
    pub precision: Estimate,
    /// Share of the positives that were called so (sensitivity).
    pub recall: Estimate,
    /// Harmonic mean of precision and recall.
    pub f1: Estimate,
    /// Share of the negatives that were called so.
    pub specificity: Estimate,
    /// Area under the ROC curve; absent where a class is empty.
    pub auc: Option<Auc>,
    /// Corners of the ROC curve, thinned out where there are very many.
    pub roc: Vec<RocPoint>,
}

/// A decision: score, whether it was called positive, whether it is.
pub(super) type Decision = (f32, bool, bool);

impl DetectionRow {
    /// Sums up the decisions of each study.
    pub(super) fn of(studies: &[Vec<Decision>]) -> Self {
        let confusions: Vec<Confusion> = studies
            .iter()
            .map(|study| {
                let mut counts = Confusion::default();
                study.iter().for_each(|(_, called, truth)| counts.add(*called, *truth));
                counts
            })
            .collect();
        let sum = |drawn: &mut dyn Iterator<Item = usize>| {
            drawn.fold(Confusion::default(), |all, study| all.and(confusions[study]))
        };
        let confusion = sum(&mut (0..studies.len()));
        let estimate = |figure: fn(&Confusion) -> f64| {
            let value = |drawn: &[usize]| Some(figure(&sum(&mut drawn.iter().copied())));
            Estimate { value: figure(&confusion), interval: bootstrap(studies.len(), ROUNDS, 3, value) }
        };
        let pairs = |study: &Vec<Decision>| study.iter().map(|(score, _, truth)| (*score, *truth)).collect();
        let (scores, truth): (Vec<f32>, Vec<bool>) = studies.iter().flatten().map(|d| (d.0, d.2)).unzip();
        Self {
            n: scores.len(),
            positive: truth.iter().filter(|truth| **truth).count(),
            accuracy: estimate(Confusion::accuracy),
            precision: estimate(Confusion::precision),
            recall: estimate(Confusion::sensitivity),
            f1: estimate(Confusion::f1),
            specificity: estimate(Confusion::specificity),
            auc: area(&studies.iter().map(pairs).collect::<Vec<_>>()),
            roc: thinned(roc_points(&scores, &truth)),
            confusion,
        }
    }
}

/// Area under the ROC curve over the (score, truth) pairs of studies, with its interval.
pub(super) fn area(studies: &[Vec<(f32, bool)>]) -> Option<Auc> {
    let ranked = RankedScores::new(studies);
    let auc = ranked.auc(&vec![1; studies.len()])?;
    let interval = bootstrap(studies.len(), ROUNDS, 1, |drawn| {
        let mut weights = vec![0; studies.len()];
        drawn.iter().for_each(|&study| weights[study] += 1);
        ranked.auc(&weights)
    });
    Some(Auc { auc, interval })
}

/// First, last and evenly chosen points between.
fn thinned(points: Vec<RocPoint>) -> Vec<RocPoint> {
    if points.len() <= MOST_POINTS {
        return points;
    }
    let last = points.len() - 1;
    (0..MOST_POINTS).map(|index| points[index * last / (MOST_POINTS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_by_hand() {
        let studies = vec![
            vec![(0.9, true, true), (0.8, true, false), (0.1, false, false)],
            vec![(0.7, true, true), (0.2, false, true), (0.3, false, false)],
        ];
        let row = DetectionRow::of(&studies);
        assert_eq!((row.n, row.positive), (6, 3));
        let near = |estimate: Estimate, value: f64| assert!((estimate.value - value).abs() < 1e-12, "{estimate:?}");
        near(row.accuracy, 4.0 / 6.0);
        near(row.precision, 2.0 / 3.0);
        near(row.recall, 2.0 / 3.0);
        near(row.f1, 2.0 / 3.0);
        near(row.specificity, 2.0 / 3.0);
        // Of 9 pairs: 0.9 beats 3, 0.7 beats 2, 0.2 beats 1.
        assert!((row.auc.unwrap().auc - 6.0 / 9.0).abs() < 1e-12);
        let interval = row.accuracy.interval.unwrap();
        assert!(interval.low <= 4.0 / 6.0 && 4.0 / 6.0 <= interval.high);
    }

    #[test]
    fn one_class_has_no_area() {
        let row = DetectionRow::of(&[vec![(0.9, true, false)], vec![(0.1, false, false)]]);
        assert_eq!((row.auc, row.roc.len()), (None, 0));
        assert!((row.specificity.value - 0.5).abs() < 1e-12);
    }

    #[test]
    fn long_curves_are_thinned_and_keep_their_ends() {
        let study: Vec<Decision> = (0..4000u32).map(|i| ((i * 37 % 4001) as f32, false, i % 2 == 0)).collect();
        let row = DetectionRow::of(&[study]);
        assert_eq!(row.roc.len(), MOST_POINTS);
        let ends = [row.roc[0], row.roc[MOST_POINTS - 1]].map(|p| (p.false_positive_rate, p.true_positive_rate));
        assert_eq!(ends, [(0.0, 0.0), (1.0, 1.0)]);
    }
}
