//! What a report says of each lesion: volume, attenuation, extent, and how much of it is border.

use super::{LesionRun, MaskStack};

/// The measurements of one lesion.
#[derive(Clone, Debug, PartialEq)]
pub struct LesionMeasures {
    /// Volume in mL, by pixel area and the extent each slice stands for.
    pub volume_ml: f64,
    /// Half of its border pixels, in mL: what the volume gains or loses when the border runs half a pixel further out or
    /// in.
    pub border_ml: f64,
    /// Mean of its pixels, in HU; NaN where the stack was given none.
    pub mean_hu: f64,
    /// Largest of its pixels, in HU; NaN where the stack was given none.
    pub max_hu: f64,
    /// Longest distance within one slice, from pixel edge to pixel edge, in mm.
    pub extent_mm: f64,
    /// First and last slice that it touches.
    pub slices: (usize, usize),
}

/// Sums over the pixels of a lesion.
#[derive(Default)]
struct Sums {
    volume_ml: f64,
    border_ml: f64,
    hu: f64,
    pixels: u64,
    max_hu: Option<i16>,
    extent_mm: f64,
    /// `None` as long as it is only known that there are lesions behind it.
    slices: Option<(usize, usize)>,
}

impl MaskStack {
    /// Measures the lesions, in the order of [`MaskStack::lesions`]. `spacing`: distance of rows and of columns in mm;
    /// slices stand for `slab_mm[slice]`.
    #[must_use]
    pub fn measure(&self, spacing: [f64; 2], slab_mm: &[f64]) -> Vec<LesionMeasures> {
        let area = spacing[0] * spacing[1];
        let mut lesions: Vec<Sums> = Vec::new();
        for (slice, runs) in self.lesion_runs(area, slab_mm).iter().enumerate() {
            let slab = slab_mm.get(slice).copied().unwrap_or(0.0);
            let mut here: Vec<usize> = runs.iter().map(|run| run.lesion).collect();
            here.sort_unstable();
            here.dedup();
            for lesion in here {
                while lesions.len() <= lesion {
                    lesions.push(Sums::default());
                }
                let of_lesion: Vec<&LesionRun<'_>> = runs.iter().filter(|run| run.lesion == lesion).collect();
                lesions[lesion].add(&of_lesion, slice, spacing, slab);
            }
        }
        lesions.into_iter().map(Sums::measures).collect()
    }
}

impl Sums {
    fn add(&mut self, runs: &[&LesionRun<'_>], slice: usize, spacing: [f64; 2], slab_mm: f64) {
        let pixel_ml = spacing[0] * spacing[1] * slab_mm / 1000.0;
        let pixels: u64 = runs.iter().map(|run| u64::from(run.end - run.start)).sum();
        self.volume_ml += pixels as f64 * pixel_ml;
        self.border_ml += border_pixels(runs) as f64 * pixel_ml / 2.0;
        for hu in runs.iter().flat_map(|run| run.hu) {
            self.hu += f64::from(*hu);
            self.pixels += 1;
            self.max_hu = self.max_hu.max(Some(*hu));
        }
        self.extent_mm = self.extent_mm.max(extent_mm(runs, spacing));
        self.slices = Some((self.slices.map_or(slice, |(first, _)| first), slice));
    }

    fn measures(self) -> LesionMeasures {
        LesionMeasures {
            volume_ml: self.volume_ml,
            border_ml: self.border_ml,
            mean_hu: self.hu / self.pixels as f64,
            max_hu: self.max_hu.map_or(f64::NAN, f64::from),
            extent_mm: self.extent_mm,
            slices: self.slices.unwrap_or_default(),
        }
    }
}

/// Pixels of one slice with a neighbour, left, right, above or below, that is not in the lesion.
fn border_pixels(runs: &[&LesionRun<'_>]) -> u64 {
    let row = |row: Option<u32>| runs.iter().filter(move |run| Some(run.row) == row);
    let mut border = 0;
    for run in runs {
        let inside: u64 = row(run.row.checked_sub(1))
            .flat_map(|above| row(run.row.checked_add(1)).map(move |below| (above, below)))
            .map(|(above, below)| {
                let start = above.start.max(below.start).max(run.start + 1);
                let end = above.end.min(below.end).min(run.end - 1);
                u64::from(end.saturating_sub(start))
            })
            .sum();
        border += u64::from(run.end - run.start) - inside;
    }
    border
}

/// The largest distance between two corners of pixels.
fn extent_mm(runs: &[&LesionRun<'_>], spacing: [f64; 2]) -> f64 {
    let corners = runs
        .iter()
        .flat_map(|run| [(run.row, run.start), (run.row, run.end), (run.row + 1, run.start), (run.row + 1, run.end)]);
    let mut points: Vec<[f64; 2]> =
        corners.map(|(row, column)| [f64::from(row) * spacing[0], f64::from(column) * spacing[1]]).collect();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    let hull = convex_hull(&points);
    let distance = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    hull.iter().enumerate().flat_map(|(at, a)| hull[at..].iter().map(move |b| distance(a, b))).fold(0.0, f64::max)
}

/// Andrew's monotone chain over sorted points.
fn convex_hull(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    fn chain(points: impl Iterator<Item = [f64; 2]>) -> Vec<[f64; 2]> {
        let turn =
            |a: [f64; 2], b: [f64; 2], c: [f64; 2]| (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        let mut hull: Vec<[f64; 2]> = Vec::new();
        for point in points {
            while let [.., a, b] = hull[..]
                && turn(a, b, point) <= 0.0
            {
                hull.pop();
            }
            hull.push(point);
        }
        hull
    }
    let mut hull = chain(points.iter().copied());
    hull.extend(chain(points.iter().rev().copied()));
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything the slow way, pixel by pixel.
    fn slowly(mask: &[u8], hu: &[i16], columns: usize, spacing: [f64; 2]) -> (u64, u64, f64, f64, f64) {
        let rows = mask.len() / columns;
        let inside = |row: usize, column: usize| row < rows && column < columns && mask[row * columns + column] != 0;
        let (mut pixels, mut border, mut sum, mut max, mut corners) = (0, 0, 0.0, f64::NEG_INFINITY, Vec::new());
        for row in 0..rows {
            for column in (0..columns).filter(|column| inside(row, *column)) {
                pixels += 1;
                sum += f64::from(hu[row * columns + column]);
                max = f64::max(max, f64::from(hu[row * columns + column]));
                let up = row > 0 && inside(row - 1, column);
                let left = column > 0 && inside(row, column - 1);
                border += u64::from(!(up && left && inside(row + 1, column) && inside(row, column + 1)));
                for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    corners.push([(row + down) as f64 * spacing[0], (column + right) as f64 * spacing[1]]);
                }
            }
        }
        let distance = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let extent = corners.iter().flat_map(|a| corners.iter().map(move |b| distance(a, b))).fold(0.0, f64::max);
        (pixels, border, sum, max, extent)
    }

    proptest! {
        #[test]
        fn lesions_are_measured_as_by_hand(
            pixels in prop::collection::vec((0u8..2, -100i16..300), 9 * 7),
            rows_mm in 0.2f64..2.0,
            columns_mm in 0.2f64..2.0,
        ) {
            let (mask, hu): (Vec<u8>, Vec<i16>) = pixels.into_iter().unzip();
            let spacing = [rows_mm, columns_mm];
            let mut stack = MaskStack::new(9, 7);
            stack.push_empty();
            stack.push_with_pixels(&mask, None, Some(&hu));
            let lesions = stack.measure(spacing, &[2.0, 3.0]);
            let (pixels, border, sum, max, extent) = slowly(&mask, &hu, 7, spacing);
            let pixel_ml = rows_mm * columns_mm * 3.0 / 1000.0;
            // Lesions do not touch, so all of them together are the mask.
            let total = |of: &dyn Fn(&LesionMeasures) -> f64| lesions.iter().map(of).sum::<f64>();
            prop_assert!((total(&|l| l.volume_ml) - pixels as f64 * pixel_ml).abs() < 1e-9);
            prop_assert!((total(&|l| l.border_ml) - border as f64 * pixel_ml / 2.0).abs() < 1e-9);
            prop_assert!((total(&|l| l.mean_hu * l.volume_ml) - sum * pixel_ml).abs() < 1e-6);
            prop_assert_eq!(lesions.iter().map(|l| l.max_hu).fold(f64::NEG_INFINITY, f64::max), max);
            prop_assert!(lesions.iter().all(|l| l.slices == (1, 1) && l.extent_mm <= extent + 1e-9));
            if let [lesion] = &lesions[..] {
                prop_assert!((lesion.extent_mm - extent).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn lesions_are_measured_in_the_order_of_their_size() {
        let mut stack = MaskStack::new(4, 8);
        let slice = |small: bool, large: bool| {
            let mut mask = vec![0u8; 32];
            mask[0] = u8::from(small);
            mask[12..16].fill(u8::from(large));
            mask[20..24].fill(u8::from(large));
            mask
        };
        let hu: Vec<i16> = (0..32).collect();
        for (small, large) in [(true, false), (true, false), (false, true)] {
            stack.push_with_pixels(&slice(small, large), None, Some(&hu));
        }
        let [large, small] = &stack.measure([1.0, 1.0], &[1.0; 3])[..] else { panic!("two lesions") };
        assert_eq!((large.slices, small.slices), ((2, 2), (0, 1)));
        assert_eq!((large.max_hu, small.max_hu), (23.0, 0.0));
        assert!((large.volume_ml - 0.008).abs() < 1e-12 && (small.volume_ml - 0.002).abs() < 1e-12);
        assert!((large.extent_mm - 20f64.sqrt()).abs() < 1e-12);
        let mut blind = MaskStack::new(4, 8);
        blind.push(&slice(true, false));
        assert!(blind.measure([1.0, 1.0], &[1.0])[0].mean_hu.is_nan(), "no HU were given");
    }
}
