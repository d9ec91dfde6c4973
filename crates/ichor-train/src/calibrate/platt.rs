//! Calibration of probabilities by the observed shares (Platt 1999, with his guard against classes that are told apart
//! fully).

use ichor_core::{Calibration, log_odds};

/// Newton steps of the fit.
const STEPS: usize = 60;
/// Weight that keeps the slope near 1 when the data say little.
const RIDGE: f64 = 0.5;

/// Slope and offset of the log-odds under which the observed labels are the likeliest; [`Calibration::NONE`] if a class is
/// empty.
#[must_use]
pub fn fit(pairs: &[(f32, bool)]) -> Calibration {
    let positives = pairs.iter().filter(|(_, truth)| *truth).count() as f64;
    let negatives = pairs.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return Calibration::NONE;
    }
    let (high, low) = ((positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0));
    let points: Vec<(f64, f64)> =
        pairs.iter().map(|&(p, truth)| (log_odds(p), if truth { high } else { low })).collect();
    let (mut slope, mut offset) = (1.0f64, 0.0f64);
    for _ in 0..STEPS {
        let (mut g, mut h) = ([RIDGE * (slope - 1.0), 0.0], [[RIDGE, 0.0], [0.0, 1e-9]]);
        for &(x, target) in &points {
            let p = 1.0 / (1.0 + (-(slope * x + offset)).exp());
            let (error, weight) = (p - target, (p * (1.0 - p)).max(1e-9));
            g = [g[0] + error * x, g[1] + error];
            h = [[h[0][0] + weight * x * x, h[0][1] + weight * x], [h[1][0] + weight * x, h[1][1] + weight]];
        }
        let determinant = h[0][0] * h[1][1] - h[0][1] * h[1][0];
        if determinant.abs() < 1e-12 {
            break;
        }
        let step = [(h[1][1] * g[0] - h[0][1] * g[1]) / determinant, (h[0][0] * g[1] - h[1][0] * g[0]) / determinant];
        // Damped: a full step may throw the slope to the other side.
        let damp = (2.0 / step[0].abs().max(step[1].abs()).max(1e-12)).min(1.0);
        slope = (slope - damp * step[0]).clamp(0.05, 20.0);
        offset -= damp * step[1];
        if step[0].abs() + step[1].abs() < 1e-9 {
            break;
        }
    }
    let calibration = Calibration { slope, offset };
    if calibration.is_sound() { calibration } else { Calibration::NONE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn overconfidence_is_taken_back() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let pairs: Vec<(f32, bool)> = (0..20_000)
            .map(|_| {
                let honest: f64 = rng.random_range(-4.0..3.0);
                let truth = rng.random_bool(1.0 / (1.0 + (-honest).exp()));
                // The network says twice as much, and one more.
                let said = 2.0 * honest + 1.0;
                ((1.0 / (1.0 + (-said).exp())) as f32, truth)
            })
            .collect();
        let calibration = fit(&pairs);
        assert!((calibration.slope - 0.5).abs() < 0.03, "{calibration:?}");
        assert!((calibration.offset + 0.5).abs() < 0.08, "{calibration:?}");
    }

    #[test]
    fn classes_told_apart_fully_and_one_class_end() {
        let calibration = fit(&[(0.1, false), (0.2, false), (0.8, true), (0.9, true)]);
        assert!(calibration.is_sound() && calibration.slope < 20.0, "{calibration:?}");
        assert_eq!(fit(&[(0.3, true)]), Calibration::NONE);
        assert_eq!(fit(&[]), Calibration::NONE);
        assert!(fit(&[(0.0, false), (1.0, true), (1.0, false)]).is_sound());
    }
}
