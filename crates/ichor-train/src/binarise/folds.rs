//! Folds of whole studies.

use super::BinariseError;

/// The fold (0..`folds`) of each study, given how many of its slices bleed. Studies are dealt out in the order of that
/// number, back and forth, so that every fold gets its share of large, small and absent bleeds (section 4.2 of the paper:
/// stratified by the number of hemorrhage slices). The same numbers give the same folds.
///
/// # Errors
/// [`BinariseError`] if there are fewer than 2 folds, or fewer studies than folds.
pub fn stratified_folds(bleeding_slices: &[usize], folds: usize) -> Result<Vec<usize>, BinariseError> {
    if folds < 2 {
        return Err(BinariseError::Rule(format!("{folds} folds leave no other fold")));
    }
    if bleeding_slices.len() < folds {
        return Err(BinariseError::TooFewStudies { studies: bleeding_slices.len(), folds });
    }
    let mut order: Vec<usize> = (0..bleeding_slices.len()).collect();
    order.sort_by_key(|&study| std::cmp::Reverse(bleeding_slices[study]));
    let mut fold = vec![0; order.len()];
    for (place, study) in order.into_iter().enumerate() {
        let (round, at) = (place / folds, place % folds);
        fold[study] = if round.is_multiple_of(2) { at } else { folds - 1 - at };
    }
    Ok(fold)
}
