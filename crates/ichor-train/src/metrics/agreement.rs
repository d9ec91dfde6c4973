//! Agreement of two ways to measure the same thing.

use serde::{Deserialize, Serialize};

use super::{Summary, count};

/// Bland and Altman's figures (1986) of measured against true values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BlandAltman {
    /// Pairs.
    pub n: usize,
    /// Mean difference, measured − true.
    pub bias: f64,
    /// 95 % interval of the bias, bias ± 1.96 standard errors.
    pub bias_low: f64,
    /// Its upper end.
    pub bias_high: f64,
    /// Standard deviation of the differences (n − 1).
    pub sd: f64,
    /// Lower limit of agreement, bias − 1.96 SD: within the limits lie 95 % of the differences if they are normal.
    pub lower_limit: f64,
    /// Upper limit of agreement.
    pub upper_limit: f64,
}

/// The 97.5th percentile of the normal distribution.
const Z: f64 = 1.959_964;

impl BlandAltman {
    /// The figures of (measured, true) pairs; `None` for fewer than two, of which nothing is known about the spread.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let differences: Vec<f64> = pairs.iter().map(|(measured, truth)| measured - truth).collect();
        let Summary { n, mean: bias, sd, .. } = Summary::of(&differences).filter(|summary| summary.n > 1)?;
        let (half, error) = (Z * sd, Z * sd / count(n).sqrt());
        let (bias_low, bias_high) = (bias - error, bias + error);
        Some(Self { n, bias, bias_low, bias_high, sd, lower_limit: bias - half, upper_limit: bias + half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        // Differences 1, 2, 3: mean 2, SD 1.
        let found = BlandAltman::of(&[(11.0, 10.0), (7.0, 5.0), (3.0, 0.0)]).unwrap();
        assert!((found.bias - 2.0).abs() < 1e-12 && (found.sd - 1.0).abs() < 1e-12);
        assert!((found.lower_limit - 0.040_036).abs() < 1e-9 && (found.upper_limit - 3.959_964).abs() < 1e-9);
        assert!((found.bias_high - 2.0 - 1.959_964 / 3.0f64.sqrt()).abs() < 1e-9);
        assert_eq!(BlandAltman::of(&[(1.0, 1.0)]), None);
        assert_eq!(BlandAltman::of(&[]), None);
    }
}
