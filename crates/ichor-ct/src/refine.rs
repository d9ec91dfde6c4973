//! From a coarse attribution map to the blood it points at.
//!
//! A map has the resolution of the network's tokens, several millimetres; blood has edges. The refinement asks the pixels:
//! acute blood is denser than the tissue of the same slice and less dense than bone or chalk, its edge lies halfway
//! between the two, and of everything that looks so, that is meant which the map points at. No mask was ever drawn for
//! it. It is a step of its own after the map, and can be switched off.

use serde::{Deserialize, Serialize};

use crate::smooth::weighted_mean;

/// Changes whenever [`refine`] gives another mask for the same input.
pub const REFINE_VERSION: u32 = 1;

/// Constants of the refinement. They are chosen on validation studies and stored with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefineOptions {
    /// A bright region is meant if the map reaches this value in it, 0 to 1.
    pub support: f32,
    /// Nothing is marked where the map, spread over its tokens, stays below this value.
    pub floor: f32,
    /// From so far above the slice's tissue on a smoothed value may be blood, HU.
    pub contrast_hu: f32,
}

impl Default for RefineOptions {
    fn default() -> Self {
        Self { support: 0.15, floor: 0.02, contrast_hu: 10.0 }
    }
}

/// One slice to refine the mask of.
#[derive(Clone, Copy, Debug)]
pub struct RefineInput<'a> {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Distance between rows and between columns, mm.
    pub spacing: [f64; 2],
    /// Values in HU, row by row.
    pub hu: &'a [i16],
    /// Brain mask, non-zero inside.
    pub brain: &'a [u8],
}

/// Values that can be soft tissue or blood and not bone, HU.
const SOFT_HU: std::ops::RangeInclusive<i16> = -20..=115;
/// Smoothed values of clotted blood end here, HU; chalk and bone go on.
const DENSEST_HU: f32 = 98.0;
/// Smoothed tissue without blood, HU: the slice's own level is looked for in it.
const TISSUE_HU: std::ops::Range<f32> = 18.0..44.0;
/// Smoothing that finds regions and that finds their edges, mm.
const REGION_MM: f64 = 1.3;
const EDGE_MM: f64 = 0.7;
/// How far the map's tokens spread what they point at, mm.
const TOKEN_MM: f64 = 3.0;
/// Regions below this area are noise, mm².
const SMALLEST_MM2: f64 = 8.0;
/// Where the edge of a region lies between tissue and blood.
const EDGE_SHARE: f32 = 0.5;

/// The refined mask, 0 or 1, row by row; `None` if nothing that the map points at looks like blood. `map` is the
/// attribution map on the slice's grid, 0 to 1.
#[must_use]
pub fn refine(input: &RefineInput<'_>, map: &[f32], options: &RefineOptions) -> Option<Vec<u8>> {
    Tissue::new(input).pointed_at(map).mask(options)
}

/// A slice without its grain: the part of it around the brain.
#[derive(Debug)]
pub struct Tissue<'a> {
    input: RefineInput<'a>,
    window: Window,
    /// Brain mask of the window.
    brain: Vec<u8>,
    /// Smoothed values, NaN where there is no soft tissue.
    region: Vec<f32>,
    edge: Vec<f32>,
    /// The slice's own tissue, HU.
    level: f32,
    /// What is denser than tissue, and no bone: pixels of the window, in order.
    dense: Vec<usize>,
}

/// A slice and what a map says of it.
#[derive(Debug)]
pub struct Pointed<'a> {
    tissue: &'a Tissue<'a>,
    /// The map in the window.
    map: Vec<f32>,
    /// The map, spread over its tokens.
    spread: Vec<f32>,
}

/// The rows and columns that hold the brain: there is nothing to find elsewhere.
#[derive(Clone, Copy, Debug)]
struct Window {
    top: usize,
    left: usize,
    rows: usize,
    columns: usize,
}

impl Window {
    fn around(brain: &[u8], rows: usize, columns: usize) -> Self {
        let (mut top, mut bottom, mut left, mut right) = (rows, 0, columns, 0);
        for row in 0..rows {
            let line = &brain[row * columns..(row + 1) * columns];
            let Some(first) = line.iter().position(|inside| *inside != 0) else { continue };
            let last = line.iter().rposition(|inside| *inside != 0).unwrap_or(first);
            (top, bottom) = (top.min(row), row + 1);
            (left, right) = (left.min(first), right.max(last + 1));
        }
        if bottom == 0 {
            return Self { top: 0, left: 0, rows: 0, columns: 0 };
        }
        Self { top, left, rows: bottom - top, columns: right - left }
    }

    fn cut<T: Copy>(&self, whole: &[T], columns: usize) -> Vec<T> {
        let line = |row: usize| {
            let start = (self.top + row) * columns + self.left;
            whole[start..start + self.columns].iter().copied()
        };
        (0..self.rows).flat_map(line).collect()
    }

    /// Puts a mask of the window in its place.
    fn place(&self, mask: &[u8], rows: usize, columns: usize) -> Vec<u8> {
        let mut whole = vec![0u8; rows * columns];
        for (row, line) in mask.chunks_exact(self.columns.max(1)).enumerate() {
            let start = (self.top + row) * columns + self.left;
            whole[start..start + self.columns].copy_from_slice(line);
        }
        whole
    }
}

/// Smallest contrast that any options may ask for, HU.
const LEAST_CONTRAST_HU: f32 = 2.0;

impl<'a> Tissue<'a> {
    /// Smooths the values, bone left out.
    #[must_use]
    pub fn new(input: &RefineInput<'a>) -> Self {
        let window = Window::around(input.brain, input.rows, input.columns);
        let (hu, brain) = (window.cut(input.hu, input.columns), window.cut(input.brain, input.columns));
        let soft = |(hu, brain): (&i16, &u8)| f32::from(u8::from(*brain != 0 && SOFT_HU.contains(hu)));
        let weights: Vec<f32> = hu.iter().zip(&brain).map(soft).collect();
        let values: Vec<f32> = hu.iter().map(|hu| f32::from(*hu)).collect();
        let smooth = |sigma| weighted_mean(&values, &weights, window.rows, window.columns, input.spacing, sigma);
        let (region, edge) = (smooth(REGION_MM), smooth(EDGE_MM));
        let level = tissue(&region, &brain);
        let is_dense = |at: &usize| brain[*at] != 0 && (level + LEAST_CONTRAST_HU..=DENSEST_HU).contains(&region[*at]);
        let dense = (0..brain.len()).filter(is_dense).collect();
        Self { input: *input, window, brain, region, edge, level, dense }
    }

    /// Takes a map (row by row, 0 to 1) for this slice.
    #[must_use]
    pub fn pointed_at(&'a self, map: &[f32]) -> Pointed<'a> {
        let Window { rows, columns, .. } = self.window;
        let map = self.window.cut(map, self.input.columns);
        let inside: Vec<f32> = self.brain.iter().map(|inside| f32::from(u8::from(*inside != 0))).collect();
        let spread = weighted_mean(&map, &inside, rows, columns, self.input.spacing, TOKEN_MM);
        Pointed { tissue: self, map, spread }
    }
}

impl Pointed<'_> {
    /// The mask under these options; `None` if nothing that the map points at looks like blood.
    #[must_use]
    pub fn mask(&self, options: &RefineOptions) -> Option<Vec<u8>> {
        let Tissue { input, window, region, level, dense, .. } = self.tissue;
        let Window { rows, columns, .. } = *window;
        let least = level + options.contrast_hu.max(LEAST_CONTRAST_HU);
        // Marks what has not been seen yet.
        let mut candidate = vec![false; rows * columns];
        for &at in dense {
            candidate[at] = region[at] >= least && self.spread[at] >= options.floor;
        }
        let mut mask = vec![0u8; rows * columns];
        let mut found = false;
        for &start in dense {
            if !candidate[start] {
                continue;
            }
            let pixels = component(start, &mut candidate, rows, columns);
            let is_meant = pixels.iter().map(|&at| self.map[at]).fold(0.0, f32::max) >= options.support;
            if is_meant && pixels.len() as f64 * input.spacing[0] * input.spacing[1] >= SMALLEST_MM2 {
                found = true;
                self.tissue.outline(&pixels, &mut mask);
            }
        }
        found.then(|| window.place(&mask, input.rows, input.columns))
    }
}

impl Tissue<'_> {
    /// Marks a region up to where its values are halfway between tissue and its own blood.
    fn outline(&self, pixels: &[usize], mask: &mut [u8]) {
        let (Window { rows, columns, .. }, spacing) = (self.window, self.input.spacing);
        let mut levels: Vec<f32> = pixels.iter().map(|&at| self.region[at]).collect();
        let at = levels.len() * 3 / 4;
        let blood = *levels.select_nth_unstable_by(at, f32::total_cmp).1;
        let cut = self.level + EDGE_SHARE * (blood - self.level);
        let is_blood = |at: usize| self.brain[at] != 0 && (cut..=DENSEST_HU).contains(&self.edge[at]);
        let mut is_member = vec![false; rows * columns];
        pixels.iter().for_each(|&at| is_member[at] = true);
        // The region as found lies inside of that line or outside of it by no more than the smoothing.
        let margin = |mm: f64| (1.5 * REGION_MM / mm).ceil() as usize;
        let (down, across) = (margin(spacing[0]), margin(spacing[1]));
        for &pixel in pixels {
            let (row, column) = (pixel / columns, pixel % columns);
            let is_inner = (1..rows - 1).contains(&row)
                && (1..columns - 1).contains(&column)
                && [pixel - 1, pixel + 1, pixel - columns, pixel + columns].iter().all(|&near| is_member[near]);
            if is_inner {
                mask[pixel] |= u8::from(is_blood(pixel));
                continue;
            }
            for r in row.saturating_sub(down)..=(row + down).min(rows - 1) {
                for c in column.saturating_sub(across)..=(column + across).min(columns - 1) {
                    let at = r * columns + c;
                    mask[at] |= u8::from(is_blood(at));
                }
            }
        }
    }
}

/// Median of the smoothed tissue inside the skull.
fn tissue(region: &[f32], brain: &[u8]) -> f32 {
    const USUAL: f32 = 32.0;
    let inside = region.iter().zip(brain).filter(|(value, brain)| **brain != 0 && TISSUE_HU.contains(*value));
    let mut levels: Vec<f32> = inside.map(|(value, _)| *value).collect();
    if levels.is_empty() {
        return USUAL;
    }
    let middle = levels.len() / 2;
    *levels.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Takes the 4-connected component of a pixel out of what is marked.
fn component(start: usize, marked: &mut [bool], rows: usize, columns: usize) -> Vec<usize> {
    let mut pixels = vec![start];
    marked[start] = false;
    let mut next = 0;
    while let Some(&at) = pixels.get(next) {
        next += 1;
        let (row, column) = (at / columns, at % columns);
        let near = [
            (row > 0).then(|| at - columns),
            (row + 1 < rows).then_some(at + columns),
            (column > 0).then(|| at - 1),
            (column + 1 < columns).then_some(at + 1),
        ];
        for neighbour in near.into_iter().flatten() {
            if marked[neighbour] {
                marked[neighbour] = false;
                pixels.push(neighbour);
            }
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 80;

    /// Tissue of 32 HU in a ring of bone, with squares of the given densities, 20 pixels a side.
    fn slice(squares: &[(usize, usize, i16)]) -> (Vec<i16>, Vec<u8>) {
        let mut hu = vec![32i16; SIDE * SIDE];
        let mut brain = vec![1u8; SIDE * SIDE];
        for at in 0..SIDE * SIDE {
            // A little grain that is the same at every run.
            hu[at] += [-2, 1, 2, -1, 0, 3, -3][(at * 31 + at / SIDE * 17) % 7];
            let (row, column) = (at / SIDE, at % SIDE);
            if row < 4 || column < 4 || row >= SIDE - 4 || column >= SIDE - 4 {
                (hu[at], brain[at]) = (900, 0);
            }
        }
        for &(top, left, level) in squares {
            for row in top..top + 20 {
                hu[row * SIDE + left..row * SIDE + left + 20].iter_mut().for_each(|v| *v += level - 32);
            }
        }
        (hu, brain)
    }

    /// A blurred blob as maps are: 1 at its middle, some 24 pixels wide.
    fn map(middle: (usize, usize)) -> Vec<f32> {
        let at = |at: usize| {
            let (dr, dc) = ((at / SIDE) as f32 - middle.0 as f32, (at % SIDE) as f32 - middle.1 as f32);
            (-(dr * dr + dc * dc) / 288.0).exp()
        };
        (0..SIDE * SIDE).map(at).collect()
    }

    fn run(squares: &[(usize, usize, i16)], middle: (usize, usize)) -> Option<Vec<u8>> {
        let (hu, brain) = slice(squares);
        let map = map(middle);
        let input = RefineInput { rows: SIDE, columns: SIDE, spacing: [0.5, 0.5], hu: &hu, brain: &brain };
        refine(&input, &map, &RefineOptions::default())
    }

    fn dice(mask: &[u8], top: usize, left: usize) -> f64 {
        let truth = |at: usize| (top..top + 20).contains(&(at / SIDE)) && (left..left + 20).contains(&(at % SIDE));
        let both = mask.iter().enumerate().filter(|(at, m)| **m != 0 && truth(*at)).count();
        2.0 * both as f64 / (mask.iter().filter(|m| **m != 0).count() + 400) as f64
    }

    #[test]
    fn finds_the_edges_of_what_the_map_points_at() {
        for level in [48, 60, 80] {
            // The map lies a few millimetres beside it.
            let mask = run(&[(20, 20, level), (50, 50, level)], (31, 33)).unwrap();
            assert!(dice(&mask, 20, 20) > 0.9, "{level} HU: {}", dice(&mask, 20, 20));
        }
    }

    #[test]
    fn bone_chalk_and_tissue_are_no_blood() {
        assert!(run(&[], (40, 40)).is_none());
        assert!(run(&[(20, 20, 37)], (30, 30)).is_none(), "no denser than grey matter");
        let mask = run(&[(20, 20, 200), (44, 20, 60)], (36, 30)).unwrap();
        assert!(dice(&mask, 44, 20) > 0.85, "{}", dice(&mask, 44, 20));
    }

    #[test]
    fn nothing_outside_of_the_brain_and_nothing_without_the_map() {
        let (hu, mut brain) = slice(&[(20, 20, 60)]);
        let map = vec![0.0; SIDE * SIDE];
        let input = RefineInput { rows: SIDE, columns: SIDE, spacing: [0.5, 0.5], hu: &hu, brain: &brain };
        assert!(refine(&input, &map, &RefineOptions::default()).is_none());
        brain.iter_mut().enumerate().filter(|(at, _)| at % SIDE < 30).for_each(|(_, inside)| *inside = 0);
        let map = self::map((30, 30));
        let input = RefineInput { rows: SIDE, columns: SIDE, spacing: [0.5, 0.5], hu: &hu, brain: &brain };
        let mask = refine(&input, &map, &RefineOptions::default()).unwrap();
        assert!(mask.iter().zip(&brain).all(|(mask, brain)| *mask == 0 || *brain != 0));
        let empty = vec![0u8; SIDE * SIDE];
        assert!(refine(&RefineInput { brain: &empty, ..input }, &map, &RefineOptions::default()).is_none());
    }
}
