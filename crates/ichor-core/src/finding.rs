//! What the model says of a study.

use serde::{Deserialize, Serialize};

use crate::calibration::Calibration;

/// The five intracranial hemorrhage subtypes of the RSNA 2019 labels, in the order of the multi-label head
/// (the sixth logit is `any`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HemorrhageSubtype {
    /// Between skull and dura.
    Epidural,
    /// Within the brain tissue.
    Intraparenchymal,
    /// Within the ventricles.
    Intraventricular,
    /// In the cisterns and sulci.
    Subarachnoid,
    /// Between dura and arachnoid.
    Subdural,
}

impl HemorrhageSubtype {
    /// All five, in label order.
    pub const ALL: [Self; 5] =
        [Self::Epidural, Self::Intraparenchymal, Self::Intraventricular, Self::Subarachnoid, Self::Subdural];

    /// The label used by RSNA's CSV and by ours.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Epidural => "epidural",
            Self::Intraparenchymal => "intraparenchymal",
            Self::Intraventricular => "intraventricular",
            Self::Subarachnoid => "subarachnoid",
            Self::Subdural => "subdural",
        }
    }
}

/// The model's verdict on a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Verdict {
    /// The study's score reached the threshold of the manifest's rule.
    Positive,
    /// Analysed, and nothing found.
    Negative,
}

/// Probabilities of neighbouring slices made consistent: each becomes the mean of its neighbourhood in log-odds, weighted
/// by a Gaussian of the distance along the normal. Blood does not end with a slice; noise does.
///
/// `probabilities`: one a slice, 0 to 1; `offsets_mm`: where each lies along the normal, in mm, as many; `reach_mm`: the
/// Gaussian's standard deviation, 0 leaves everything as it is.
#[must_use]
pub fn consistent_probabilities(probabilities: &[f32], offsets_mm: &[f64], reach_mm: f64) -> Vec<f32> {
    if reach_mm <= 0.0 {
        return probabilities.to_vec();
    }
    // Beyond this a probability is as good as certain, and must not outvote all others.
    const MOST: f64 = 8.0;
    let log_odds = |p: f32| {
        let p = f64::from(p);
        (p / (1.0 - p)).ln().clamp(-MOST, MOST)
    };
    let odds: Vec<f64> = probabilities.iter().map(|p| log_odds(*p)).collect();
    let at = |here: f64| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (odds, there) in odds.iter().zip(offsets_mm) {
            let distance = (there - here) / reach_mm;
            if distance.abs() < 4.0 {
                let weight = (-0.5 * distance * distance).exp();
                sum += weight * odds;
                weights += weight;
            }
        }
        (1.0 / (1.0 + (-sum / weights).exp())) as f32
    };
    offsets_mm.iter().map(|here| at(*here)).collect()
}

/// How the probabilities of a study's slices are read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SliceReading {
    /// How far neighbours are made consistent, mm.
    pub reach_mm: f64,
    /// What makes the consistent probabilities honest.
    pub calibration: Calibration,
}

impl SliceReading {
    /// Neighbours made consistent ([`consistent_probabilities`]), then calibrated.
    #[must_use]
    pub fn read(&self, probabilities: &[f32], offsets_mm: &[f64]) -> Vec<f32> {
        let mut read = consistent_probabilities(probabilities, offsets_mm, self.reach_mm);
        read.iter_mut().for_each(|probability| *probability = self.calibration.apply(*probability));
        read
    }
}

/// What an analysed study came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Calibrated study-level probability, 0 to 1. It rises with what the verdict is made by.
    pub probability: f64,
    /// Volume of all masks in millilitres, by the real slice geometry.
    pub volume_ml: f64,
    /// How far that may be off: one standard deviation in millilitres, if the model's manifest says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_sd_ml: Option<f64>,
    /// Slices called positive.
    pub positive_slices: u32,
    /// Slices classified.
    pub slices: u32,
    /// Connected lesions, largest first, in millilitres.
    pub lesions_ml: Vec<f64>,
}

impl Finding {
    /// Whether hemorrhage was found.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.verdict == Verdict::Positive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistency_needs_neighbours() {
        let p = [0.1, 0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9];
        let even: Vec<f64> = (0..8).map(|i| f64::from(i) * 5.0).collect();
        assert_eq!(consistent_probabilities(&p, &even, 0.0), p);
        let smooth = consistent_probabilities(&p, &even, 4.0);
        assert!(smooth[2] < 0.5 && smooth[6] > 0.8, "{smooth:?}");
        // Far from each other slices say nothing of each other; near each other they say the same.
        let far: Vec<f64> = even.iter().map(|mm| mm * 100.0).collect();
        assert!(consistent_probabilities(&p, &far, 4.0).iter().zip(p).all(|(a, b)| (a - b).abs() < 1e-6));
        let near = consistent_probabilities(&p, &[0.0; 8], 4.0);
        assert!(near.iter().all(|value| (value - near[0]).abs() < 1e-6));
        let certain = consistent_probabilities(&[0.0, 1.0, 0.5], &[0.0, 1.0, 2.0], 2.0);
        assert!(certain.iter().all(|value| value.is_finite()), "{certain:?}");
        assert!(consistent_probabilities(&[], &[], 4.0).is_empty());
    }
}
