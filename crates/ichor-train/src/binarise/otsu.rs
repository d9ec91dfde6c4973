//! Otsu's threshold on a Gaussian-blurred map.

/// Levels of the histogram: the map as 8 bits.
const LEVELS: usize = 256;

/// Gaussian blur of a map (`size` × `size`) by a `kernel` × `kernel` window, `kernel` odd. The width follows from the
/// kernel as in OpenCV's `GaussianBlur` with sigma 0: σ = 0.3·((kernel − 1)/2 − 1) + 0.8; borders are mirrored without the
/// edge pixel itself.
#[must_use]
pub fn gaussian_blur(map: &[f32], size: usize, kernel: usize) -> Vec<f32> {
    let weights = gaussian(kernel);
    let rows = blur_rows(map, size, &weights);
    transposed(&blur_rows(&transposed(&rows, size), size, &weights), size)
}

fn gaussian(kernel: usize) -> Vec<f32> {
    let half = kernel / 2;
    let sigma = 0.3 * (as_f64(half) - 1.0) + 0.8;
    let raw: Vec<f64> =
        (0..kernel).map(|at| (-(as_f64(at) - as_f64(half)).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = raw.iter().sum();
    #[expect(clippy::cast_possible_truncation, reason = "weights below 1")]
    raw.into_iter().map(|weight| (weight / sum) as f32).collect()
}

fn blur_rows(map: &[f32], size: usize, weights: &[f32]) -> Vec<f32> {
    let half = weights.len() / 2;
    // Source column of each tap, for padded columns 0..size + 2·half.
    let source: Vec<usize> = (0..size + 2 * half).map(|at| mirrored(at, half, size)).collect();
    let mut out = Vec::with_capacity(map.len());
    for row in map.chunks_exact(size) {
        let padded: Vec<f32> = source.iter().map(|&column| row[column]).collect();
        out.extend(padded.windows(weights.len()).map(|taps| taps.iter().zip(weights).map(|(v, w)| v * w).sum::<f32>()));
    }
    out
}

/// Column `at − pad` of a row of `size` pixels that goes on mirrored at its ends, as often as need be.
fn mirrored(at: usize, pad: usize, size: usize) -> usize {
    if size == 1 {
        return 0;
    }
    let period = 2 * (size - 1);
    let place = (at + period * pad.div_ceil(period) - pad) % period;
    place.min(period - place)
}

fn transposed(map: &[f32], size: usize) -> Vec<f32> {
    (0..size).flat_map(|column| (0..size).map(move |row| map[row * size + column])).collect()
}

/// Otsu's threshold (1979) of values 0..1, taken as 8 bits: the value from which on a pixel belongs to the brighter class,
/// such that the variance between the classes is largest (the lowest of equals). `None` if all values fall on one level:
/// then nothing stands out.
#[must_use]
pub fn otsu_threshold(values: &[f32]) -> Option<f32> {
    if values.is_empty() {
        return None;
    }
    let mut histogram = [0usize; LEVELS];
    for value in values {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255 first")]
        let level = (value.clamp(0.0, 1.0) * 255.0).round() as usize;
        histogram[level] += 1;
    }
    let total = as_f64(values.len());
    let mean = weighted(&histogram) / total;
    let (mut share, mut moment) = (0.0, 0.0);
    let mut best: Option<(usize, f64)> = None;
    for (level, &count) in histogram.iter().enumerate() {
        share += as_f64(count) / total;
        moment += as_f64(level) * as_f64(count) / total;
        if share <= 0.0 || share >= 1.0 - 0.5 / total {
            continue;
        }
        let between = (mean * share - moment).powi(2) / (share * (1.0 - share));
        if best.is_none_or(|(_, most)| between > most * (1.0 + 1e-12)) {
            best = Some((level, between));
        }
    }
    // Level L is the last of the darker class: values that round to L + 1 begin half a level above it.
    #[expect(clippy::cast_possible_truncation, reason = "a value of 0..1")]
    best.map(|(level, _)| ((as_f64(level) + 0.5) / 255.0) as f32)
}

fn weighted(histogram: &[usize]) -> f64 {
    histogram.iter().enumerate().map(|(level, &count)| as_f64(level) * as_f64(count)).sum()
}

#[expect(clippy::cast_precision_loss, reason = "pixel counts and levels")]
fn as_f64(n: usize) -> f64 {
    n as f64
}
