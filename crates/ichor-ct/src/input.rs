//! Pixels into model input: the one function that serving, training and evaluation all call.
//!
//! Source: the reference implementation of arXiv 2304.04902, section "Data preprocessing": three windows, each
//! scaled by the clipped slice's own minimum and maximum, bilinear resize so that the shorter side is ⌊1.1·S⌋, centre
//! crop S × S. The resize is `interpolate(mode = bilinear, align_corners = false)` without antialiasing: half-pixel
//! centres, edges clamped.

use serde::{Deserialize, Serialize};

/// Changes whenever [`model_input`] gives other numbers for the same pixels. Stored with the weights; weights made
/// with another version are refused.
pub const PREPROCESSING_VERSION: u32 = 1;

/// A window: centre and width in HU.
type Window = (f32, f32);

/// Which three windows make the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputPreset {
    /// Brain (40, 120), subdural (80, 340), bone (700, 3200).
    PhysioNet,
    /// The slice's own window, subdural (80, 200), bone (600, 2800).
    Rsna,
}

impl InputPreset {
    /// The name in manifests and recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PhysioNet => "physionet",
            Self::Rsna => "rsna",
        }
    }

    /// The preset of a manifest's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::PhysioNet, Self::Rsna].into_iter().find(|preset| preset.name() == name)
    }

    /// The three windows. A slice without a window of its own gets the brain window (40, 80) in its place.
    const fn windows(self, own: Option<Window>) -> [Window; 3] {
        match (self, own) {
            (Self::PhysioNet, _) => [(40.0, 120.0), (80.0, 340.0), (700.0, 3200.0)],
            (Self::Rsna, Some(own)) => [own, (80.0, 200.0), (600.0, 2800.0)],
            (Self::Rsna, None) => [(40.0, 80.0), (80.0, 200.0), (600.0, 2800.0)],
        }
    }
}

/// An image in Hounsfield units, row by row.
#[derive(Clone, Copy, Debug)]
pub struct HuImage<'a> {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Pixel spacing in mm: \[between rows, between columns\].
    pub spacing: [f64; 2],
    /// `rows × columns` values.
    pub hu: &'a [i16],
    /// The slice's own Window Center and Width (first values), in HU.
    pub window: Option<Window>,
}

/// Where the pixels of the S × S input lie on the source grid: an affine without rotation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputGrid {
    /// Side of the input.
    pub size: usize,
    /// Source rows.
    pub rows: usize,
    /// Source columns.
    pub columns: usize,
    /// Source pixels an input pixel, along rows and columns.
    pub step: [f64; 2],
    /// Source coordinate of input pixel 0, along rows and columns.
    pub origin: [f64; 2],
}

/// A slice as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInput {
    /// `3 × S × S` values from 0 to 1, channel by channel.
    pub channels: Vec<f32>,
    /// The way back.
    pub grid: InputGrid,
}

impl InputGrid {
    /// The grid of an image of `rows × columns` pixels of the given spacing, for an input of side `size`.
    ///
    /// The shorter side becomes ⌊1.1·size⌋. Pixels that are not square are brought to square ones by the same step:
    /// lengths are measured in units of the smaller spacing.
    #[must_use]
    pub fn new(rows: usize, columns: usize, spacing: [f64; 2], size: usize) -> Self {
        let unit = spacing[0].min(spacing[1]);
        let square = |pixels: usize, spacing: f64| {
            if spacing == unit { pixels } else { ((pixels as f64 * spacing / unit).round() as usize).max(1) }
        };
        let extent = [square(rows, spacing[0]), square(columns, spacing[1])];
        let shorter = extent[0].min(extent[1]);
        let resized_shorter = size * 11 / 10;
        // torchvision's rule: the longer side is truncated to whole pixels.
        let resized =
            extent.map(|side| if side == shorter { resized_shorter } else { side * resized_shorter / shorter });
        let source = [rows, columns];
        let step: [f64; 2] = std::array::from_fn(|axis| source[axis] as f64 / resized[axis] as f64);
        let origin = std::array::from_fn(|axis| {
            let crop = ((resized[axis] as f64 - size as f64) / 2.0).round();
            (crop + 0.5) * step[axis] - 0.5
        });
        Self { size, rows, columns, step, origin }
    }

    /// Source coordinate of an input coordinate.
    fn source_of(self, axis: usize, at: usize) -> f64 {
        self.origin[axis] + at as f64 * self.step[axis]
    }

    /// Input coordinate of a source coordinate.
    fn input_of(self, axis: usize, at: usize) -> f64 {
        (at as f64 - self.origin[axis]) / self.step[axis]
    }

    /// Whether a source pixel's centre lies in the crop.
    #[must_use]
    pub fn covers(&self, row: usize, column: usize) -> bool {
        let inside = |axis, at| (-0.5..self.size as f64 - 0.5).contains(&self.input_of(axis, at));
        inside(0, row) && inside(1, column)
    }

    /// A source mask (`rows × columns`) on the input's grid (`S × S`), nearest neighbour.
    #[must_use]
    pub fn mask_to_input(&self, mask: &[u8]) -> Vec<u8> {
        let nearest = |axis: usize, at: usize, side: usize| {
            // `interpolate(mode = nearest)` takes the pixel under the left edge.
            let edge = self.source_of(axis, at) + 0.5 - 0.5 * self.step[axis];
            ((edge + 1e-9).floor().max(0.0) as usize).min(side - 1)
        };
        let columns: Vec<usize> = (0..self.size).map(|at| nearest(1, at, self.columns)).collect();
        let mut out = Vec::with_capacity(self.size * self.size);
        for at in 0..self.size {
            let row = nearest(0, at, self.rows) * self.columns;
            out.extend(columns.iter().map(|column| mask[row + column]));
        }
        out
    }

    /// A map of the input (`S × S`) on the source grid (`rows × columns`), bilinear; 0 outside the crop.
    #[must_use]
    pub fn map_to_source(&self, map: &[f32]) -> Vec<f32> {
        let rows = taps(self.rows, self.size, |at| self.input_of(0, at));
        let columns = taps(self.columns, self.size, |at| self.input_of(1, at));
        let inside = |tap: &Tap| (-0.5..self.size as f64 - 0.5).contains(&tap.at);
        let mut out = vec![0.0; self.rows * self.columns];
        for (row, line) in rows.iter().zip(out.chunks_exact_mut(self.columns)).filter(|(row, _)| inside(row)) {
            let (low, high) = (&map[row.low * self.size..], &map[row.high * self.size..]);
            for (column, value) in columns.iter().zip(line).filter(|(column, _)| inside(column)) {
                let top = low[column.low] + (low[column.high] - low[column.low]) * column.weight;
                let bottom = high[column.low] + (high[column.high] - high[column.low]) * column.weight;
                *value = top + (bottom - top) * row.weight;
            }
        }
        out
    }

    /// A map of the input on the source grid, 0 outside the brain mask (`rows × columns`, not 0 inside).
    #[must_use]
    pub fn map_within(&self, map: &[f32], brain: &[u8]) -> Vec<f32> {
        let mut map = self.map_to_source(map);
        map.iter_mut().zip(brain).filter(|(_, brain)| **brain == 0).for_each(|(value, _)| *value = 0.0);
        map
    }

    /// The mask on the source grid: where the map, brought back, reaches `threshold` inside the brain mask.
    #[must_use]
    pub fn mask_to_source(&self, map: &[f32], threshold: f32, brain: &[u8]) -> Vec<u8> {
        let map = self.map_to_source(map);
        map.iter().zip(brain).map(|(value, brain)| u8::from(*brain != 0 && *value >= threshold)).collect()
    }
}

/// Where one output pixel takes its value from, along one axis.
#[derive(Clone, Copy, Debug)]
struct Tap {
    at: f64,
    low: usize,
    high: usize,
    weight: f32,
}

fn taps(count: usize, side: usize, coordinate: impl Fn(usize) -> f64) -> Vec<Tap> {
    let last = side - 1;
    let tap = |index| {
        let at = coordinate(index);
        let clamped = at.clamp(0.0, last as f64);
        let low = clamped.floor() as usize;
        Tap { at, low, high: (low + 1).min(last), weight: (clamped - low as f64) as f32 }
    };
    (0..count).map(tap).collect()
}

/// Turns an image into what the model sees.
///
/// `image.hu` must hold `rows × columns` values, and `size`, `rows` and `columns` must not be 0.
#[must_use]
pub fn model_input(image: HuImage<'_>, preset: InputPreset, size: usize) -> ModelInput {
    let grid = InputGrid::new(image.rows, image.columns, image.spacing, size);
    let rows = taps(size, image.rows, |at| grid.source_of(0, at));
    let columns = taps(size, image.columns, |at| grid.source_of(1, at));
    let (low, high) = image.hu.iter().fold((i16::MAX, i16::MIN), |(low, high), hu| (low.min(*hu), high.max(*hu)));
    let (low, high) = (f32::from(low), f32::from(high));
    let mut channels = Vec::with_capacity(3 * size * size);
    for (centre, width) in preset.windows(image.window) {
        let half = (width / 2.0).floor();
        let (bottom, top) = (centre - half, centre + half);
        // Clipping keeps the order of values: the clipped slice's own minimum and maximum are the clipped extremes.
        let (floor, ceiling) = (low.clamp(bottom, top), high.clamp(bottom, top));
        // A constant slice stays as it is.
        let (offset, scale) = if ceiling > floor { (floor, 1.0 / (ceiling - floor)) } else { (0.0, 1.0) };
        let value = |at: usize| (f32::from(image.hu[at]).clamp(bottom, top) - offset) * scale;
        for row in &rows {
            let (low, high) = (row.low * image.columns, row.high * image.columns);
            channels.extend(columns.iter().map(|column| {
                let (a, b) = (value(low + column.low), value(low + column.high));
                let (c, d) = (value(high + column.low), value(high + column.high));
                let (top, bottom) = (a + (b - a) * column.weight, c + (d - c) * column.weight);
                top + (bottom - top) * row.weight
            }));
        }
    }
    ModelInput { channels, grid }
}
