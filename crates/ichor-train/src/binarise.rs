//! How a map of values 0..1 becomes a mask: a fixed threshold, a grid search on the other folds, or Otsu's threshold on a
//! blurred map (arXiv 2304.04902, section 4.2). A rule is a value of the recipe; nothing here knows who made the map.

mod folds;
mod grid;
mod otsu;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use folds::stratified_folds;
pub use grid::{GridCurve, grid_search_on_other_folds, grid_threshold};
pub use otsu::{gaussian_blur, otsu_threshold};

/// A map cannot become a mask.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BinariseError {
    /// The rule's values make no sense.
    #[error("binarisation: {0}")]
    Rule(String),
    /// Fewer studies than folds.
    #[error("binarisation: {studies} studies cannot be split into {folds} folds")]
    TooFewStudies {
        /// Number of studies.
        studies: usize,
        /// Number of folds.
        folds: usize,
    },
    /// The other folds of a fold hold nothing to choose a threshold on.
    #[error("binarisation: no slice of the folds other than {0} bleeds, so no threshold can be chosen for it")]
    NothingToChooseOn(usize),
    /// The map is not of the size that was said.
    #[error("binarisation: a map of {found} values is not {size} × {size}")]
    MapSize {
        /// Values of the map.
        found: usize,
        /// The side that it should have.
        size: usize,
    },
}

/// A rule that makes a mask of a map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Binarisation {
    /// Pixels of at least this value.
    Fixed {
        /// The threshold, within 0..=1 and above 0.
        threshold: f32,
    },
    /// Pixels of at least the threshold (0.01..1, step 0.02) with the best mean Dice on the bleeding slices of the other
    /// folds of studies.
    GridSearch {
        /// Number of folds, at least 2.
        #[serde(default = "five")]
        folds: usize,
    },
    /// Pixels above Otsu's threshold of the map after a Gaussian blur.
    Otsu {
        /// Side of the blur's kernel in pixels of the map, an odd number.
        #[serde(default = "thirty_three")]
        kernel: usize,
    },
}

const fn five() -> usize {
    5
}

const fn thirty_three() -> usize {
    33
}

/// A map and the value from which on a pixel belongs to the mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut<'a> {
    /// The map, S × S: the one that came in, or what the rule made of it.
    pub map: Cow<'a, [f32]>,
    /// The threshold; above 1 where the rule finds nothing.
    pub threshold: f32,
}

impl Cut<'_> {
    /// The mask on the map's own grid: 1 where the map reaches the threshold.
    #[must_use]
    pub fn mask(&self) -> Vec<u8> {
        self.map.iter().map(|&value| u8::from(value >= self.threshold)).collect()
    }
}

/// A threshold that no value of a map reaches.
const NOTHING: f32 = 2.0;

impl Binarisation {
    /// Says what is wrong with the values, if anything is.
    ///
    /// # Errors
    /// [`BinariseError::Rule`].
    pub fn check(&self) -> Result<(), BinariseError> {
        let wrong = |why: String| Err(BinariseError::Rule(why));
        match *self {
            Self::Fixed { threshold } if !(threshold > 0.0 && threshold <= 1.0) => {
                wrong(format!("threshold {threshold} is not above 0 and at most 1"))
            }
            Self::GridSearch { folds } if !(2..=100).contains(&folds) => {
                wrong(format!("folds {folds} is not between 2 and 100"))
            }
            Self::Otsu { kernel } if kernel.is_multiple_of(2) || kernel > 1023 => {
                wrong(format!("kernel {kernel} is not an odd number up to 1023"))
            }
            _ => Ok(()),
        }
    }

    /// Applies the rule to one map (`size` × `size`, values 0..1). `chosen` is the threshold that a grid search chose for
    /// the map's fold; the other rules do not look at it.
    ///
    /// # Errors
    /// [`BinariseError`] if the rule or the map's size is at fault, or a grid search comes without its threshold.
    pub fn cut<'a>(&self, map: &'a [f32], size: usize, chosen: Option<f32>) -> Result<Cut<'a>, BinariseError> {
        self.check()?;
        if map.len() != size * size || size == 0 {
            return Err(BinariseError::MapSize { found: map.len(), size });
        }
        match (*self, chosen) {
            (Self::Fixed { threshold }, _) => Ok(Cut { map: Cow::Borrowed(map), threshold }),
            (Self::GridSearch { .. }, Some(threshold)) => Ok(Cut { map: Cow::Borrowed(map), threshold }),
            (Self::GridSearch { .. }, None) => {
                Err(BinariseError::Rule("grid-search: no threshold was chosen for this fold".to_owned()))
            }
            (Self::Otsu { kernel }, _) => {
                let blurred = gaussian_blur(map, size, kernel);
                let threshold = otsu_threshold(&blurred).unwrap_or(NOTHING);
                Ok(Cut { map: Cow::Owned(blurred), threshold })
            }
        }
    }

    /// The rule in a few words, for a table. `chosen`: the thresholds of the folds, if the rule is a grid search.
    #[must_use]
    pub fn title(&self, chosen: &[f32]) -> String {
        match self {
            Self::Fixed { threshold } => format!("fixed {threshold}"),
            Self::GridSearch { folds } => {
                let least = chosen.iter().copied().reduce(f32::min);
                let most = chosen.iter().copied().reduce(f32::max);
                match (least, most) {
                    (Some(least), Some(most)) if least < most => {
                        format!("grid search on the other {} of {folds} folds: {least:.2} to {most:.2}", folds - 1)
                    }
                    (Some(all), _) => format!("grid search on the other {} of {folds} folds: {all:.2}", folds - 1),
                    _ => format!("grid search on the other {} of {folds} folds", folds - 1),
                }
            }
            Self::Otsu { kernel } => format!("Otsu on a Gaussian-blurred ({kernel}×{kernel}) map"),
        }
    }
}

#[cfg(test)]
mod tests;
