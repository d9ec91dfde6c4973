//! Which slices an epoch shows, and in which order.

use rand::SeedableRng;
use rand::seq::SliceRandom;
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

/// Interleaves an epoch so that every batch of an even size holds as many positives as negatives.
#[must_use]
pub fn balance_batches(order: &[usize], positive: &[bool]) -> Vec<usize> {
    let with = order.iter().copied().filter(|&i| positive[i]);
    let without = order.iter().copied().filter(|&i| !positive[i]);
    with.zip(without).flat_map(|(a, b)| [a, b]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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
    fn an_empty_class_is_an_error() {
        assert_eq!(balanced_epoch(&[true; 4], None, 0), Err(SamplerError::EmptyClass("negative", 4)));
        assert_eq!(balanced_epoch(&[false; 4], None, 0), Err(SamplerError::EmptyClass("positive", 4)));
        assert_eq!(balanced_epoch(&[], None, 0), Err(SamplerError::EmptyClass("positive", 0)));
    }
}
