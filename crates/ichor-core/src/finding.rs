//! What the model says of a study.

use serde::{Deserialize, Serialize};

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
pub enum Verdict {
    /// At least as many slices as the manifest asks for were called positive.
    Positive,
    /// Analysed, and nothing found.
    Negative,
}

/// Study-level probability from the slices' probabilities, in slice order: the highest value that at least `run`
/// neighbouring slices reach. A study is positive when this reaches the slice threshold, so that one number says
/// both. A stack shorter than `run` is taken as a whole; an empty one gives 0.
#[must_use]
pub fn study_probability(slices: &[f32], run: usize) -> f32 {
    let run = run.clamp(1, slices.len().max(1));
    slices.windows(run).map(|window| window.iter().copied().fold(1.0, f32::min)).fold(0.0, f32::max)
}

/// What an analysed study came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Study-level probability, 0 to 1.
    pub probability: f64,
    /// Volume of all masks in millilitres, by the real slice geometry.
    pub volume_ml: f64,
    /// Slices called positive.
    pub positive_slices: u32,
    /// Slices classified.
    pub slices: u32,
    /// Connected lesions, largest first, in millilitres.
    pub lesions_ml: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn study_probability_wants_neighbours() {
        assert_eq!(study_probability(&[0.1, 0.9, 0.2, 0.8, 0.7], 2), 0.7);
        assert_eq!(study_probability(&[0.1, 0.9, 0.2, 0.8, 0.7], 1), 0.9);
        assert_eq!(study_probability(&[0.4], 2), 0.4);
        assert_eq!(study_probability(&[], 2), 0.0);
    }
}
