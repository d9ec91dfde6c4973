//! Distance between outlines in the plane.

/// The 95th percentile of the symmetric surface distance in the plane, mm: for each pixel of either outline the exact
/// Euclidean distance to the other outline, both directions in one pool (as MedPy's `hd95`), percentile with linear
/// interpolation between ranks.
///
/// `mask`, `truth`: `rows × columns`, row by row, non-zero inside; `spacing_mm`: between rows, between columns. An outline
/// is the pixels inside that have one of their four neighbours outside, the image's border being outside; distances are
/// those of pixel centres. `None` if either is empty: there is no outline to be far from.
///
/// # Panics
/// If a mask does not hold `rows × columns` pixels.
#[must_use]
pub fn hausdorff95_mm(mask: &[u8], truth: &[u8], rows: usize, columns: usize, spacing_mm: [f64; 2]) -> Option<f64> {
    assert_eq!((mask.len(), truth.len()), (rows * columns, rows * columns), "masks of {rows} x {columns} pixels");
    let (ours, theirs) = (outline(mask, rows, columns), outline(truth, rows, columns));
    if ours.is_empty() || theirs.is_empty() {
        return None;
    }
    // Only the box around both outlines is transformed: bleeds are small, images are not.
    let both = || ours.iter().chain(&theirs);
    let extent = |along: fn(&Pixel) -> usize| {
        let (low, high) = both().map(along).fold((usize::MAX, 0), |(low, high), at| (low.min(at), high.max(at)));
        (low, high - low + 1)
    };
    let ((top, height), (left, width)) = (extent(|p| p.0), extent(|p| p.1));
    let to = |target: &[Pixel]| {
        let mut squared = vec![f64::INFINITY; height * width];
        target.iter().for_each(|(row, column)| squared[(row - top) * width + column - left] = 0.0);
        transform(&mut squared, height, width, spacing_mm);
        squared
    };
    let distances = |from: &[Pixel], target: &[Pixel]| -> Vec<f64> {
        let squared = to(target);
        from.iter().map(|(row, column)| squared[(row - top) * width + column - left].sqrt()).collect()
    };
    let mut pool = distances(&ours, &theirs);
    pool.extend(distances(&theirs, &ours));
    pool.sort_by(f64::total_cmp);
    percentile(&pool, 0.95)
}

/// Row and column.
type Pixel = (usize, usize);

fn outline(mask: &[u8], rows: usize, columns: usize) -> Vec<Pixel> {
    let inside = |row: usize, column: usize| mask[row * columns + column] != 0;
    let is_edge = |row: usize, column: usize| {
        row == 0
            || column == 0
            || row + 1 == rows
            || column + 1 == columns
            || !(inside(row - 1, column)
                && inside(row + 1, column)
                && inside(row, column - 1)
                && inside(row, column + 1))
    };
    let set = mask.iter().enumerate().filter(|(_, value)| **value != 0);
    set.map(|(at, _)| (at / columns, at % columns)).filter(|(row, column)| is_edge(*row, *column)).collect()
}

/// Exact squared Euclidean distance transform, one axis after the other (Felzenszwalb and Huttenlocher 2012): 0 at the
/// targets and infinite elsewhere becomes the squared distance to the nearest target, mm².
fn transform(squared: &mut [f64], rows: usize, columns: usize, spacing_mm: [f64; 2]) {
    let mut envelope = Envelope::default();
    let mut line = vec![0.0; rows];
    for column in 0..columns {
        for (row, value) in line.iter_mut().enumerate() {
            *value = squared[row * columns + column];
        }
        envelope.lower(&mut line, spacing_mm[0]);
        for (row, value) in line.iter().enumerate() {
            squared[row * columns + column] = *value;
        }
    }
    squared.chunks_exact_mut(columns).for_each(|row| envelope.lower(row, spacing_mm[1]));
}

/// The lower envelope of parabolas, one on each finite value of a line.
#[derive(Default)]
struct Envelope {
    /// Place (mm) and height of a parabola's foot, and from where on it is the lowest.
    feet: Vec<(f64, f64, f64)>,
}

impl Envelope {
    #[expect(clippy::cast_precision_loss, reason = "pixel numbers")]
    fn lower(&mut self, line: &mut [f64], spacing: f64) {
        self.feet.clear();
        for (index, &height) in line.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let at = index as f64 * spacing;
            let mut start = f64::NEG_INFINITY;
            while let Some(&(foot, low, from)) = self.feet.last() {
                start = ((height + at * at) - (low + foot * foot)) / (2.0 * (at - foot));
                if start > from {
                    break;
                }
                self.feet.pop();
                start = f64::NEG_INFINITY;
            }
            self.feet.push((at, height, start));
        }
        let mut feet = self.feet.iter().peekable();
        let Some(mut lowest) = feet.next() else { return };
        for (index, value) in line.iter_mut().enumerate() {
            let at = index as f64 * spacing;
            while let Some(next) = feet.next_if(|next| next.2 <= at) {
                lowest = next;
            }
            *value = (at - lowest.0).powi(2) + lowest.1;
        }
    }
}

/// Percentile (share 0..1) of sorted values, linear between ranks.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "pixel counts")]
    let rank = share * sorted.len().checked_sub(1)? as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the values")]
    let low = rank.floor() as usize;
    let (a, b) = (sorted[low], sorted[(low + 1).min(sorted.len() - 1)]);
    Some(a + (b - a) * rank.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, pair by pair.
    fn by_pairs(mask: &[u8], truth: &[u8], rows: usize, columns: usize, mm: [f64; 2]) -> Option<f64> {
        let (ours, theirs) = (outline(mask, rows, columns), outline(truth, rows, columns));
        let nearest = |from: &Pixel, others: &[Pixel]| {
            let distance =
                |to: &Pixel| ((from.0 as f64 - to.0 as f64) * mm[0]).hypot((from.1 as f64 - to.1 as f64) * mm[1]);
            others.iter().map(distance).fold(f64::INFINITY, f64::min)
        };
        let mut pool: Vec<f64> = ours.iter().map(|p| nearest(p, &theirs)).collect();
        pool.extend(theirs.iter().map(|p| nearest(p, &ours)));
        pool.sort_by(f64::total_cmp);
        if ours.is_empty() || theirs.is_empty() { None } else { percentile(&pool, 0.95) }
    }

    #[test]
    fn shifted_squares_by_hand() {
        // Two squares of 3 × 3, the second 4 columns to the right, 0.5 mm columns: every pixel of an outline is 1 to 2 mm
        // away; 16 distances, the largest 2 mm.
        let mut mask = vec![0u8; 12 * 12];
        let mut truth = mask.clone();
        for row in 2..5 {
            mask[row * 12 + 2..row * 12 + 5].fill(1);
            truth[row * 12 + 6..row * 12 + 9].fill(255);
        }
        let found = hausdorff95_mm(&mask, &truth, 12, 12, [2.0, 0.5]).unwrap();
        assert!((found - 2.0).abs() < 1e-12, "{found}");
        assert_eq!(hausdorff95_mm(&mask, &mask, 12, 12, [1.0, 1.0]), Some(0.0));
    }

    #[test]
    fn one_far_pixel_of_many_does_not_count() {
        let mut mask = vec![0u8; 40 * 40];
        for row in 5..25 {
            mask[row * 40 + 5..row * 40 + 25].fill(1);
        }
        let truth = mask.clone();
        mask[38 * 40 + 38] = 1;
        let found = hausdorff95_mm(&mask, &truth, 40, 40, [1.0, 1.0]).unwrap();
        assert!(found < 1e-9, "{found}");
    }

    #[test]
    fn nothing_is_far_from_nothing() {
        let (empty, full) = (vec![0u8; 9], vec![1u8; 9]);
        assert_eq!(hausdorff95_mm(&empty, &full, 3, 3, [1.0, 1.0]), None);
        assert_eq!(hausdorff95_mm(&full, &empty, 3, 3, [1.0, 1.0]), None);
        assert_eq!(hausdorff95_mm(&empty, &empty, 3, 3, [1.0, 1.0]), None);
        assert_eq!(hausdorff95_mm(&[], &[], 0, 0, [1.0, 1.0]), None);
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            columns in 1usize..14,
            pixels in prop::collection::vec((0u8..4, 0u8..4), 1..196),
            down in 0.2f64..6.0,
            across in 0.2f64..6.0,
        ) {
            let rows = pixels.len() / columns;
            prop_assume!(rows > 0);
            let (mask, truth): (Vec<u8>, Vec<u8>) =
                pixels[..rows * columns].iter().map(|(a, b)| (u8::from(*a == 0), u8::from(*b == 0))).unzip();
            let (found, wanted) = (
                hausdorff95_mm(&mask, &truth, rows, columns, [down, across]),
                by_pairs(&mask, &truth, rows, columns, [down, across]),
            );
            prop_assert_eq!(found.is_some(), wanted.is_some());
            if let (Some(found), Some(wanted)) = (found, wanted) {
                prop_assert!((found - wanted).abs() < 1e-9, "{} {}", found, wanted);
            }
        }
    }
}
