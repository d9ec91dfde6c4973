//! Which slices an epoch shows, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// No balanced epoch can be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SamplerError {
    /// One of the two classes has no slice.
    #[error("no {0} slice among the {1} training slices")]
    EmptyClass(&'static str, usize),
}

/// Draws, for one epoch, as many positive as negative slices without replacement, in random order: 2 × the minority
/// class, or fewer when `most` says so. The order depends on `seed` alone, so an interrupted epoch can be drawn again.
///
/// # Errors
/// [`SamplerError::EmptyClass`] if `positive` has no `true` or no `false`.
pub fn balanced_epoch(positive: &[bool], most: Option<usize>, seed: u64) -> Result<Vec<usize>, SamplerError> {
    let (mut with, mut without): (Vec<usize>, Vec<usize>) = (0..positive.len()).partition(|&i| positive[i]);
    if with.is_empty() {
        return Err(SamplerError::EmptyClass("positive", positive.len()));
    }
    if without.is_empty() {
        return Err(SamplerError::EmptyClass("negative", positive.len()));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let each = with.len().min(without.len()).min(most.map_or(usize::MAX, |most| (most / 2).max(1)));
    with.shuffle(&mut rng);
    without.shuffle(&mut rng);
    let mut order: Vec<usize> = with[..each].iter().chain(&without[..each]).copied().collect();
    order.shuffle(&mut rng);
    Ok(order)
}

/// The same, with a `share` of the negatives drawn from the level of the head that their positives lie at (`level`: any
/// number that says so), as far as there are any. Bleeds are rarer at the skull base than above it; without this, a
/// network learns the level instead of the blood.
///
/// # Errors
/// As [`balanced_epoch`].
pub fn matched_epoch(
    positive: &[bool],
    level: &[usize],
    share: f64,
    most: Option<usize>,
    seed: u64,
) -> Result<Vec<usize>, SamplerError> {
    let plain = balanced_epoch(positive, most, seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6c65_7665_6c73);
    let (with, without): (Vec<usize>, Vec<usize>) = plain.iter().partition(|&&i| positive[i]);
    let matched: Vec<usize> = with.iter().copied().filter(|_| rng.random_bool(share)).collect();
    let free: BTreeSet<usize> = without[matched.len()..].iter().copied().collect();
    let mut by_level: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in (0..positive.len()).filter(|index| !positive[*index] && !free.contains(index)) {
        by_level.entry(level[index]).or_default().push(index);
    }
    by_level.values_mut().for_each(|slices| slices.shuffle(&mut rng));
    let mut order = with;
    order.extend(free);
    let mut unmatched = 0;
    for index in matched {
        match by_level.get_mut(&level[index]).and_then(Vec::pop) {
            Some(negative) => order.push(negative),
            None => unmatched += 1,
        }
    }
    order.extend(by_level.into_values().flatten().take(unmatched));
    order.shuffle(&mut rng);
    Ok(order)
}

/// Interleaves an epoch so that every batch of an even size holds as many positives as negatives.
#[must_use]
pub fn balance_batches(order: &[usize], positive: &[bool]) -> Vec<usize> {
    let with = order.iter().copied().filter(|&i| positive[i]);
    let without = order.iter().copied().filter(|&i| !positive[i]);
    with.zip(without).flat_map(|(a, b)| [a, b]).collect()
}

/// Replaces the negatives of some pairs by the positive's twin: the same slice of the same head without the bleed. `order`
/// comes from [`balance_batches`]; twins lie behind the `positive.len()` slices, in the order of their positives. What
/// differs between twins is the blood alone, so that neither head, level nor scanner can stand in for it.
#[must_use]
pub fn with_twins(order: &[usize], positive: &[bool], share: f64, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x7477_696e_7300);
    let rank: Vec<usize> = positive
        .iter()
        .scan(0, |before, &bleeds| {
            let rank = *before;
            *before += usize::from(bleeds);
            Some(rank)
        })
        .collect();
    let pair = |pair: &[usize]| match *pair {
        [with, without] => [with, if rng.random_bool(share) { positive.len() + rank[with] } else { without }].to_vec(),
        _ => pair.to_vec(),
    };
    order.chunks(2).flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_balanced_and_without_replacement() {
        let positive: Vec<bool> = (0..100).map(|i| i % 5 == 0).collect();
        for seed in 0..20 {
            let order = balanced_epoch(&positive, None, seed).unwrap();
            assert_eq!(order.len(), 40);
            assert_eq!(order.iter().filter(|&&i| positive[i]).count(), 20);
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 40, "a slice was drawn twice");
            for batch in balance_batches(&order, &positive).chunks(8) {
                assert_eq!(batch.iter().filter(|&&i| positive[i]).count(), 4);
            }
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let positive: Vec<bool> = (0..50).map(|i| i % 2 == 0).collect();
        assert_eq!(balanced_epoch(&positive, None, 3), balanced_epoch(&positive, None, 3));
        assert_ne!(balanced_epoch(&positive, None, 3), balanced_epoch(&positive, None, 4));
        assert_eq!(balanced_epoch(&positive, Some(10), 3).unwrap().len(), 10);
    }

    #[test]
    fn matched_negatives_lie_where_the_positives_lie() {
        // Positives at levels 0 and 1, negatives at all ten.
        let positive: Vec<bool> = (0..400).map(|i| i % 10 < 2 && i % 4 == 0).collect();
        let level: Vec<usize> = (0..400).map(|i| i % 10).collect();
        let at = |order: &[usize]| order.iter().filter(|&&i| !positive[i] && level[i] < 2).count();
        let matched = matched_epoch(&positive, &level, 1.0, None, 5).unwrap();
        let half = matched.len() / 2;
        assert_eq!(matched.iter().filter(|&&i| positive[i]).count(), half);
        assert_eq!(matched.iter().collect::<BTreeSet<_>>().len(), 2 * half, "a slice was drawn twice");
        assert!(at(&matched) > 9 * half / 10, "{} of {half}", at(&matched));
        assert!(at(&matched_epoch(&positive, &level, 0.0, None, 5).unwrap()) < half / 2);
        // More positives than negatives at their level: the rest comes from elsewhere.
        let scarce: Vec<usize> = (0..400).map(|i| if positive[i] { 0 } else { 1 }).collect();
        assert_eq!(matched_epoch(&positive, &scarce, 1.0, None, 5).unwrap().len(), 2 * half);
    }

    #[test]
    fn twins_stand_beside_their_positives() {
        let positive = [false, true, false, true, true, false];
        let order = [4, 0, 1, 2, 3, 5];
        assert_eq!(with_twins(&order, &positive, 0.0, 1), order);
        assert_eq!(with_twins(&order, &positive, 1.0, 1), [4, 6 + 2, 1, 6, 3, 6 + 1]);
    }

    #[test]
    fn an_empty_class_is_an_error() {
        assert_eq!(balanced_epoch(&[true; 4], None, 0), Err(SamplerError::EmptyClass("negative", 4)));
        assert_eq!(balanced_epoch(&[false; 4], None, 0), Err(SamplerError::EmptyClass("positive", 4)));
        assert_eq!(balanced_epoch(&[], None, 0), Err(SamplerError::EmptyClass("positive", 0)));
    }
}
