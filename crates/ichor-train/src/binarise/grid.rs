//! Grid search for a threshold, on other studies than those it is applied to.

use serde::{Deserialize, Serialize};

use super::BinariseError;
use crate::metrics::dice;

/// Number of thresholds of the grid: 0.01 to 0.99, step 0.02.
const THRESHOLDS: usize = 50;

/// The threshold at a place of the grid: 0.01 + 0.02 · `at`.
#[must_use]
pub fn grid_threshold(at: usize) -> f32 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a two-digit number")]
    let threshold = ((2 * at + 1) as f64 / 100.0) as f32;
    threshold
}

/// Dice of one slice's map against its truth at every threshold of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GridCurve {
    dice: Vec<f32>,
}

impl GridCurve {
    /// Counts `map` (values 0..1) against `truth` (non-zero = lesion) pixel by pixel; both on the same grid, and the map
    /// 0 where no mask may lie.
    #[must_use]
    pub fn new(map: &[f32], truth: &[u8]) -> Self {
        // How many thresholds a pixel's value reaches → (pixels, lesion pixels).
        let mut reached = vec![(0usize, 0usize); THRESHOLDS + 1];
        let grid: Vec<f32> = (0..THRESHOLDS).map(grid_threshold).collect();
        for (value, lesion) in map.iter().zip(truth) {
            let pixels = &mut reached[grid.partition_point(|threshold| threshold <= value)];
            pixels.0 += 1;
            pixels.1 += usize::from(*lesion != 0);
        }
        let lesion = reached.iter().map(|pixels| pixels.1).sum();
        let (mut predicted, mut both) = (0, 0);
        let mut curve = vec![0.0; THRESHOLDS];
        for at in (0..THRESHOLDS).rev() {
            predicted += reached[at + 1].0;
            both += reached[at + 1].1;
            #[expect(clippy::cast_possible_truncation, reason = "a share")]
            let value = dice(both, predicted, lesion) as f32;
            curve[at] = value;
        }
        Self { dice: curve }
    }

    /// Dice at a place of the grid; 0 beyond its end.
    #[must_use]
    pub fn dice(&self, at: usize) -> f32 {
        self.dice.get(at).copied().unwrap_or(0.0)
    }
}

/// The threshold of each fold: the one with the best mean Dice over the curves of the studies in **other** folds (the
/// lowest of equals). `curves` holds the bleeding slices of each study, `fold` the fold of each study.
///
/// # Errors
/// [`BinariseError`] if no slice of the other folds bleeds, or `curves` and `fold` differ in length.
pub fn grid_search_on_other_folds(curves: &[Vec<GridCurve>], fold: &[usize]) -> Result<Vec<f32>, BinariseError> {
    if curves.len() != fold.len() {
        return Err(BinariseError::Rule(format!("{} studies with {} folds", curves.len(), fold.len())));
    }
    let folds = fold.iter().max().map_or(0, |last| last + 1);
    (0..folds)
        .map(|own| {
            let others: Vec<&GridCurve> =
                fold.iter().zip(curves).filter(|(fold, _)| **fold != own).flat_map(|(_, curves)| curves).collect();
            best(&others).ok_or(BinariseError::NothingToChooseOn(own))
        })
        .collect()
}

fn best(curves: &[&GridCurve]) -> Option<f32> {
    if curves.is_empty() {
        return None;
    }
    let sum = |at: usize| curves.iter().map(|curve| f64::from(curve.dice(at))).sum::<f64>();
    let mut best = (0, sum(0));
    for at in 1..THRESHOLDS {
        let here = sum(at);
        if here > best.1 {
            best = (at, here);
        }
    }
    Some(grid_threshold(best.0))
}
