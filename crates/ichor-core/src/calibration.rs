//! From what a network says to what may be believed.

use serde::{Deserialize, Serialize};

/// Log-odds brought to what was observed: p′ = σ(slope · logit(p) + offset), after Platt (1999); with offset 0 it is
/// temperature scaling. The order of values stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor of the log-odds, above 0.
    pub slope: f64,
    /// What is added to them.
    pub offset: f64,
}

/// Beyond this a probability is as good as certain.
const MOST_LOG_ODDS: f64 = 16.0;

impl Calibration {
    /// Leaves every probability as it is.
    pub const NONE: Self = Self { slope: 1.0, offset: 0.0 };

    /// The calibrated probability.
    #[must_use]
    pub fn apply(self, probability: f32) -> f32 {
        if self == Self::NONE {
            return probability;
        }
        (1.0 / (1.0 + (-(self.slope * log_odds(probability) + self.offset)).exp())) as f32
    }

    /// Whether the numbers make a calibration: both finite, and an order that stays.
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.slope.is_finite() && self.slope > 0.0 && self.offset.is_finite()
    }
}

impl Default for Calibration {
    fn default() -> Self {
        Self::NONE
    }
}

/// ln(p / (1 − p)), within ±16.
#[must_use]
pub fn log_odds(probability: f32) -> f64 {
    let p = f64::from(probability);
    (p / (1.0 - p)).ln().clamp(-MOST_LOG_ODDS, MOST_LOG_ODDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_stays_and_certainty_is_finite() {
        let calibration = Calibration { slope: 0.5, offset: -1.0 };
        let calibrated = [0.0, 0.1, 0.5, 0.9, 1.0].map(|p| calibration.apply(p));
        assert!(calibrated.windows(2).all(|pair| pair[0] < pair[1]), "{calibrated:?}");
        assert!(calibrated.iter().all(|p| p.is_finite()));
        assert!((calibrated[2] - 0.268_941).abs() < 1e-5, "σ(−1)");
        assert_eq!([0.0, 0.3, 1.0].map(|p| Calibration::NONE.apply(p)), [0.0, 0.3, 1.0]);
        assert!(!Calibration { slope: -1.0, offset: 0.0 }.is_sound() && calibration.is_sound());
    }
}
