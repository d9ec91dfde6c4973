//! What one method said of every slice of the held-out studies: the common form in which attribution maps, refined masks,
//! rivals and the brightness rule stand side by side in the tables (section 4.3 of the paper).

use serde::{Deserialize, Serialize};

/// What a method was told of the training slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supervision {
    /// Nothing: a rule without training.
    None,
    /// Which slices bleed.
    Slices,
    /// Drawn masks.
    Masks,
}

/// One row of the tables: a method and its word on every slice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MethodOutcome {
    /// Short name that stays the same between runs: `hgi-sam-scores`, `hgi-sam-scores-refined`, `unet`, `brightness`.
    pub id: String,
    /// How a report calls it.
    pub title: String,
    /// What it was told.
    pub supervision: Supervision,
    /// How its maps became masks, in a few words: `fixed 0.05`, `grid search on the other folds: 0.07`, `Otsu`.
    pub binarisation: String,
    /// By study, then slice, in the order of the study measures that they stand beside.
    pub studies: Vec<Vec<SliceOutcome>>,
}

/// A method's word on one slice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SliceOutcome {
    /// The higher, the more it speaks for hemorrhage.
    pub score: f32,
    /// Whether the method calls the slice positive.
    pub called: bool,
    /// Its mask against the truth, whether or not the slice is called positive; absent where no mask was made (the
    /// slice does not bleed and is not called).
    pub mask: Option<MaskOutcome>,
}

/// A mask against the truth on the source grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaskOutcome {
    /// Pixels of both.
    pub intersection: usize,
    /// Pixels of the mask.
    pub predicted: usize,
    /// Pixels of the truth.
    pub truth: usize,
    /// 95th percentile of the symmetric surface distance in the plane, mm; absent where mask or truth is empty.
    pub hausdorff95_mm: Option<f64>,
}
