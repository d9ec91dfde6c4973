//! The floor: what a rule on brightness alone finds. A model that does not beat it has learned nothing.

use ichor_ct::smooth::box_mean;

/// The rule's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BrightnessRule {
    /// Lowest smoothed value that counts as blood, HU.
    pub low: f32,
    /// Highest smoothed value that counts as blood, HU: above it lies bone and chalk.
    pub high: f32,
    /// Margin kept from the brain mask's edge, where bone blurs into the brain, mm.
    pub margin_mm: f64,
    /// A component stays in the mask if it has at least this share of the largest one's area.
    pub keep: f64,
}

impl Default for BrightnessRule {
    fn default() -> Self {
        Self { low: 48.0, high: 95.0, margin_mm: 2.0, keep: 0.25 }
    }
}

/// What the rule says of one slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Bright {
    /// Area of the largest component, mm²: the slice's score.
    pub score: f32,
    /// The largest components, row by row.
    pub mask: Vec<u8>,
}

/// One slice as the rule needs it.
#[derive(Debug, Clone, Copy)]
pub struct BrightInput<'a> {
    /// Rows of the slice.
    pub rows: usize,
    /// Columns of the slice.
    pub columns: usize,
    /// Values in HU, row by row.
    pub hu: &'a [i16],
    /// The computed brain mask, non-zero inside.
    pub brain: &'a [u8],
    /// Distance between rows and between columns, mm.
    pub spacing_mm: (f64, f64),
}

impl BrightnessRule {
    /// Smooths (box of about 2.5 mm), takes the range inside the shrunken brain mask, keeps the largest components
    /// (4-connected).
    #[must_use]
    pub fn apply(&self, slice: &BrightInput<'_>) -> Bright {
        let pixels = |mm: f64, spacing: f64| -> usize {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few pixels")]
            let radius = (mm / spacing.max(0.05)).round() as usize;
            radius
        };
        let (rows, columns) = (slice.rows, slice.columns);
        let radius = (pixels(1.25, slice.spacing_mm.0), pixels(1.25, slice.spacing_mm.1));
        let hu: Vec<f32> = slice.hu.iter().map(|&v| f32::from(v)).collect();
        let smooth = box_mean(&hu, rows, columns, radius);
        let inside: Vec<f32> = slice.brain.iter().map(|&b| f32::from(u8::from(b != 0))).collect();
        let margin = (pixels(self.margin_mm, slice.spacing_mm.0), pixels(self.margin_mm, slice.spacing_mm.1));
        let covered = box_mean(&inside, rows, columns, margin);
        let bright: Vec<bool> = smooth
            .iter()
            .zip(&covered)
            .map(|(&hu, &share)| share > 0.999 && (self.low..=self.high).contains(&hu))
            .collect();
        let (labels, sizes) = components(&bright, rows, columns);
        let largest = sizes.iter().copied().max().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "pixel counts")]
        let kept: Vec<bool> = sizes.iter().map(|&size| size as f64 >= self.keep * largest as f64).collect();
        let mask = labels.iter().map(|&label| u8::from(label > 0 && kept[label - 1])).collect();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an area in mm²")]
        let score = (largest as f64 * slice.spacing_mm.0 * slice.spacing_mm.1) as f32;
        Bright { score, mask }
    }
}

/// Labels (0 = outside, else 1 + index) and sizes of the 4-connected components.
fn components(mask: &[bool], rows: usize, columns: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut labels, mut sizes, mut stack) = (vec![0usize; mask.len()], Vec::new(), Vec::new());
    for start in 0..mask.len() {
        if !mask[start] || labels[start] != 0 {
            continue;
        }
        sizes.push(0);
        let label = sizes.len();
        labels[start] = label;
        stack.push(start);
        while let Some(at) = stack.pop() {
            sizes[label - 1] += 1;
            let (row, column) = (at / columns, at % columns);
            let near = [
                (row > 0).then(|| at - columns),
                (row + 1 < rows).then_some(at + columns),
                (column > 0).then(|| at - 1),
                (column + 1 < columns).then_some(at + 1),
            ];
            for next in near.into_iter().flatten() {
                if mask[next] && labels[next] == 0 {
                    labels[next] = label;
                    stack.push(next);
                }
            }
        }
    }
    (labels, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bright_square_and_not_the_rim() {
        let side = 40;
        let mut hu = vec![30i16; side * side];
        let mut brain = vec![1u8; side * side];
        for at in 0..side {
            for edge in [at, at * side, (side - 1) * side + at, at * side + side - 1] {
                (hu[edge], brain[edge]) = (900, 0);
            }
        }
        for row in 10..20 {
            hu[row * side + 10..row * side + 20].fill(65);
        }
        hu[30 * side + 30] = 70;
        let slice = BrightInput { rows: side, columns: side, hu: &hu, brain: &brain, spacing_mm: (1.0, 1.0) };
        let found = BrightnessRule::default().apply(&slice);
        let area = found.mask.iter().filter(|&&m| m == 1).count();
        assert!((80..=120).contains(&area), "{area}");
        assert!((found.score - area as f32).abs() < 0.5, "one component only");
        assert_eq!(found.mask[15 * side + 15], 1);
        assert_eq!(found.mask[30 * side + 30], 0, "a single noisy pixel is smoothed away");
        hu.iter_mut().filter(|v| **v == 65).for_each(|v| *v = 30);
        let slice = BrightInput { rows: side, columns: side, hu: &hu, brain: &brain, spacing_mm: (1.0, 1.0) };
        assert_eq!(BrightnessRule::default().apply(&slice).score, 0.0);
    }

    #[test]
    fn components_are_apart_across_corners() {
        let mask = [true, false, false, true, true, false, false, false, true];
        let (labels, sizes) = components(&mask, 3, 3);
        assert_eq!(labels, [1, 0, 0, 1, 1, 0, 0, 0, 2]);
        assert_eq!(sizes, [3, 1]);
    }
}
