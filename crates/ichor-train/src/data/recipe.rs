//! The recipe's word on data that somebody brings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One `[data.<name>]` table. Paths are relative to the folder that the command runs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// In which form the data lie there.
    pub form: DataForm,
    /// Their folder.
    pub folder: PathBuf,
    /// The labels, where they are not at their published place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Folder of brain masks `NNN_mask.nii.gz` (PhysioNet); absent = computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brain_masks: Option<PathBuf>,
    /// Who is trained on and who is held out.
    #[serde(default)]
    pub split: SplitRecipe,
}

/// Forms of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataForm {
    /// RSNA Intracranial Hemorrhage Detection 2019.
    Rsna,
    /// PhysioNet CT-ICH.
    PhysioNet,
    /// DICOM studies with a labels CSV.
    Folder,
}

impl DataForm {
    /// Whether the form comes with drawn masks.
    #[must_use]
    pub fn has_masks(self) -> bool {
        self == Self::PhysioNet
    }

    /// How a manifest calls it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Rsna => "RSNA Intracranial Hemorrhage Detection 2019",
            Self::PhysioNet => "PhysioNet CT-ICH",
            Self::Folder => "DICOM studies with slice labels",
        }
    }
}

/// How patients are divided. Every patient is on one side only; sides have alike numbers of bleeding slices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitRecipe {
    /// Decides who goes where.
    pub seed: u64,
    /// Number of folds, one of which is the test part.
    pub folds: usize,
    /// Which fold is the test part, from 0.
    pub fold: usize,
    /// Share of the other patients that validate.
    pub validation_share: f64,
}

impl Default for SplitRecipe {
    fn default() -> Self {
        Self { seed: 1, folds: 10, fold: 0, validation_share: 0.1 }
    }
}

/// A side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Shown to the network.
    Training,
    /// Chooses epochs and thresholds.
    Validation,
    /// Nothing is chosen on it.
    Test,
    /// Everybody: for a data set that serves one purpose only.
    All,
}

impl Part {
    /// Whether the two have patients in common.
    #[must_use]
    pub fn shares_with(self, other: Self) -> bool {
        self == other || self == Self::All || other == Self::All
    }
}

impl DataRecipe {
    /// Says what is wrong with the values, if anything is.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), String> {
        let SplitRecipe { folds, fold, validation_share, .. } = self.split;
        if !(2..=100).contains(&folds) || fold >= folds {
            return Err(format!("fold {fold} of {folds}: there must be 2 to 100 folds, counted from 0"));
        }
        if !(0.01..=0.5).contains(&validation_share) {
            return Err(format!("validation_share {validation_share} is not within 0.01..0.5"));
        }
        if self.form == DataForm::Folder && self.labels.is_none() {
            return Err("a folder of studies needs labels".to_owned());
        }
        if self.form != DataForm::PhysioNet && self.brain_masks.is_some() {
            return Err("brain_masks are read in the form physionet only".to_owned());
        }
        Ok(())
    }
}
