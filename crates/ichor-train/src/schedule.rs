//! The learning rate over a phase: linear warm-up, then half a cosine.

/// Learning rate at `step` of `total` (both counted in optimizer steps of one phase): it rises linearly over the first
/// `warm_up` steps to `peak`, then falls along half a cosine to `peak * floor` at the last step.
#[must_use]
pub fn learning_rate(peak: f64, floor: f64, warm_up: u64, step: u64, total: u64) -> f64 {
    if step < warm_up {
        return peak * as_f64(step + 1) / as_f64(warm_up);
    }
    let span = as_f64(total.saturating_sub(warm_up).saturating_sub(1).max(1));
    let progress = (as_f64(step - warm_up) / span).min(1.0);
    peak * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

#[expect(clippy::cast_precision_loss, reason = "step counts are far below 2^52")]
fn as_f64(steps: u64) -> f64 {
    steps as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_peaks_and_falls() {
        let rate = |step| learning_rate(2e-4, 0.1, 10, step, 110);
        assert!((rate(0) - 2e-5).abs() < 1e-12);
        assert!((rate(9) - 2e-4).abs() < 1e-12);
        assert!((rate(10) - 2e-4).abs() < 1e-12);
        assert!((rate(109) - 2e-5).abs() < 1e-12);
        assert!((rate(500) - 2e-5).abs() < 1e-12, "past the end it stays at the floor");
        assert!((10..109).all(|step| rate(step + 1) <= rate(step)));
        assert!(learning_rate(1.0, 0.0, 0, 0, 1).is_finite());
    }
}
