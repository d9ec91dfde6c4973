//! Means over neighbourhoods, by summed-area tables.

/// Mean over a (2·r0 + 1) × (2·r1 + 1) window cut at the border.
///
/// `values` must hold `rows × columns` values; `radius` is in pixels, along rows' index and columns' index.
#[must_use]
pub fn box_mean(values: &[f32], rows: usize, columns: usize, radius: (usize, usize)) -> Vec<f32> {
    let width = columns + 1;
    let mut sums = vec![0.0f64; (rows + 1) * width];
    for row in 0..rows {
        let mut line = 0.0;
        for column in 0..columns {
            line += f64::from(values[row * columns + column]);
            sums[(row + 1) * width + column + 1] = sums[row * width + column + 1] + line;
        }
    }
    let mut means = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (top, bottom) = (row.saturating_sub(radius.0), (row + radius.0 + 1).min(rows));
        for column in 0..columns {
            let (left, right) = (column.saturating_sub(radius.1), (column + radius.1 + 1).min(columns));
            let sum = sums[bottom * width + right] - sums[top * width + right] - sums[bottom * width + left]
                + sums[top * width + left];
            means.push((sum / ((bottom - top) * (right - left)) as f64) as f32);
        }
    }
    means
}

/// Mean of the values whose weight is above zero over a neighbourhood like a Gaussian's of standard deviation `sigma_mm`
/// (two box means one after the other); `NaN` where there is none of them.
#[must_use]
pub fn weighted_mean(
    values: &[f32],
    weights: &[f32],
    rows: usize,
    columns: usize,
    spacing: [f64; 2],
    sigma_mm: f64,
) -> Vec<f32> {
    // Two boxes of half width r have the variance 2·(r² + r) / 3 in pixels.
    let radius = |mm: f64| -> usize {
        let variance = (sigma_mm / mm.max(0.05)).powi(2);
        ((0.25 + 1.5 * variance).sqrt() - 0.5).round().max(0.0) as usize
    };
    let radius = (radius(spacing[0]), radius(spacing[1]));
    let twice = |values: &[f32]| {
        let once = box_mean(values, rows, columns, radius);
        box_mean(&once, rows, columns, radius)
    };
    let weighted: Vec<f32> = values.iter().zip(weights).map(|(value, weight)| value * weight).collect();
    let (sums, weights) = (twice(&weighted), twice(weights));
    sums.iter().zip(&weights).map(|(sum, weight)| if *weight > 1e-6 { sum / weight } else { f32::NAN }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_cut_at_the_border() {
        let values = [0.0, 3.0, 6.0, 9.0];
        assert_eq!(box_mean(&values, 1, 4, (0, 1)), [1.5, 3.0, 6.0, 7.5]);
        assert_eq!(box_mean(&values, 2, 2, (5, 5)), [4.5; 4]);
        assert_eq!(box_mean(&values, 2, 2, (0, 0)), values);
    }

    #[test]
    fn what_has_no_weight_has_no_part() {
        let (values, weights) = ([10.0, 1000.0, 20.0, 30.0, 40.0], [1.0, 0.0, 1.0, 1.0, 1.0]);
        let means = weighted_mean(&values, &weights, 1, 5, [1.0, 1.0], 1.0);
        assert!(means.iter().all(|mean| (10.0..=40.0).contains(mean)), "{means:?}");
        assert!(means[0] < means[2] && means[2] < means[4]);
        assert!(weighted_mean(&values, &[0.0; 5], 1, 5, [1.0, 1.0], 1.0).iter().all(|mean| mean.is_nan()));
        // As wide as asked: the spread of a single point is its variance.
        let mut point = vec![0.0; 81];
        point[40] = 1.0;
        let spread = weighted_mean(&point, &[1.0; 81], 1, 81, [1.0, 0.5], 3.0);
        let variance: f32 = spread.iter().enumerate().map(|(at, v)| v * ((at as f32 - 40.0) * 0.5).powi(2)).sum();
        assert!((variance.sqrt() - 3.0).abs() < 0.3, "{}", variance.sqrt());
    }
}
