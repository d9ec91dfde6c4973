//! How far a volume may be off.

use serde::{Deserialize, Serialize};

/// Standard deviation of a study's volume, fitted on validation studies: √(floor² + (share · volume)²).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeUncertainty {
    /// That of a small volume, mL.
    pub floor_ml: f64,
    /// That of a large volume, as a share of it.
    pub share: f64,
}

impl VolumeUncertainty {
    /// One standard deviation of a volume, mL.
    #[must_use]
    pub fn sd_ml(self, volume_ml: f64) -> f64 {
        self.floor_ml.hypot(self.share * volume_ml)
    }

    /// Whether the numbers make an uncertainty.
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.floor_ml.is_finite() && self.floor_ml > 0.0 && self.share.is_finite() && self.share >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_volumes() {
        let uncertainty = VolumeUncertainty { floor_ml: 1.0, share: 0.2 };
        assert_eq!(uncertainty.sd_ml(0.0), 1.0);
        assert!((uncertainty.sd_ml(100.0) - 20.0).abs() < 0.1);
        assert!(uncertainty.is_sound() && !VolumeUncertainty { floor_ml: 0.0, share: 0.2 }.is_sound());
    }
}
