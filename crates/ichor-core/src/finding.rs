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
