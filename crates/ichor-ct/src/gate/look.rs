//! Looking at the pixels: is there a skull with a brain in it?

use crate::brain::brain_mask;
use crate::distance::distance_to;
use crate::volume::{PlacedSlice, Slice, Stack};

/// Slices that are looked at.
const LOOKS: usize = 9;
/// Of those that could be read, one in so many must show a brain.
const SHARE: f64 = 0.4;
/// Fewer slices than these say nothing.
const FEWEST: usize = 3;
/// Areas that a section through a brain may have, in cm².
const AREA_CM2: std::ops::RangeInclusive<f64> = 25.0..=260.0;
/// Median of a brain, in HU, blood and a little contrast agent included.
const MEDIAN_HU: std::ops::RangeInclusive<i16> = 10..=65;
/// Bone, in HU.
const BONE_HU: i16 = 180;
/// The skull is no further from the mask than this, in mm, …
const SKULL_MM: f32 = 3.0;
/// … on so much of its outline. Less than all of it: a flap of the skull may have been taken out.
const SKULL_SHARE: f64 = 0.7;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Slices that could be read.
    pub(crate) read: usize,
    /// Slices that show a brain in a skull.
    pub(crate) brains: usize,
}

impl Looked {
    /// Whether it is a head; `None` if too little could be read to say.
    pub(crate) fn is_head(self) -> Option<bool> {
        (self.read >= FEWEST).then_some(self.brains as f64 >= SHARE * self.read as f64)
    }
}

/// Looks at slices spread over a stack. `read` gives a slice, `None` if it cannot be read, or the error that ends the
/// look.
pub(crate) fn look<E>(
    stack: &Stack,
    mut read: impl FnMut(&PlacedSlice) -> Result<Option<Slice>, E>,
) -> Result<Looked, E> {
    let count = stack.slices.len();
    let looks = LOOKS.min(count);
    let mut looked = Looked { read: 0, brains: 0 };
    for n in 0..looks {
        let Some(slice) = read(&stack.slices[(2 * n + 1) * count / (2 * looks)])? else { continue };
        looked.read += 1;
        looked.brains += usize::from(shows_brain(&slice));
    }
    Ok(looked)
}

/// Whether a slice shows a brain in a skull: an inside of a brain's size and density, with bone along its outline.
fn shows_brain(slice: &Slice) -> bool {
    let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
    let mask = brain_mask(&slice.hu, rows, columns, slice.plane.spacing);
    let mut inside: Vec<i16> = slice.hu.iter().zip(&mask).filter(|(_, m)| **m != 0).map(|(hu, _)| *hu).collect();
    if !AREA_CM2.contains(&(inside.len() as f64 * slice.plane.pixel_area() / 100.0)) {
        return false;
    }
    let middle = inside.len() / 2;
    let (_, median, _) = inside.select_nth_unstable(middle);
    if !MEDIAN_HU.contains(median) {
        return false;
    }
    let bone: Vec<bool> = slice.hu.iter().map(|hu| *hu >= BONE_HU).collect();
    let from_bone = distance_to(&bone, rows, columns, slice.plane.spacing);
    let (mut outline, mut at_skull) = (0usize, 0usize);
    for at in 0..mask.len() {
        let (row, column) = (at / columns, at % columns);
        let is_edge = row == 0
            || column == 0
            || row + 1 == rows
            || column + 1 == columns
            || [at - columns, at + columns, at - 1, at + 1].iter().any(|next| mask[*next] == 0);
        if mask[at] != 0 && is_edge {
            outline += 1;
            at_skull += usize::from(from_bone[at] <= SKULL_MM);
        }
    }
    at_skull as f64 >= SKULL_SHARE * outline as f64
}
